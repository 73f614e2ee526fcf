//! What was measured of starting, listing, ending and cancelling, and is in no recording. All quirks are on.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use hatchet::embedded::{Quirk, Quirks};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tonic::Code;

use super::stage::{EVER, Stage, merged, registration, registration_for};

const NAME: &str = "fx";

async fn stage() -> Stage {
    Stage::with(Quirks::all(), NAME, &json!({})).await
}

impl Stage {
    async fn started(&self, more: &Value) -> String {
        self.trigger(NAME, more).await.unwrap()
    }

    async fn status_of(&self, target: &str) -> u16 {
        self.send(Method::GET, &format!("stable/{target}"), None).await.0
    }
}

fn one() -> Value {
    json!({"name": NAME, "input": "{}"})
}

#[tokio::test(start_paused = true)]
async fn rest_knows_a_run_a_tenth_of_a_second_after_grpc() {
    let stage = stage().await;
    let run = stage.started(&json!({})).await;
    let (details, status) = (format!("workflow-runs/{run}"), format!("workflow-runs/{run}/status"));
    sleep(Duration::from_millis(99)).await;
    assert_eq!((stage.status_of(&details).await, stage.status_of(&status).await), (404, 404));
    assert!(stage.listed(EVER).await.is_empty() && stage.details(&run).await.is_ok());
    sleep(Duration::from_millis(1)).await;
    assert_eq!((stage.status_of(&details).await, stage.status_of(&status).await), (200, 200));
    assert_eq!(stage.listed(EVER).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn bulks_of_more_than_a_thousand_are_taken_and_pages_of_as_many_given() {
    let stage = stage().await;
    let ids: HashSet<_> =
        stage.bulk(vec![one(); 1001]).await.unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    // They appear one after the other.
    sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.listed(&format!("{EVER}&limit=2000")).await.len(), 901);
    sleep(Duration::from_secs(1)).await;
    for limit in [2000, 5000] {
        let rows = stage.listed(&format!("{EVER}&limit={limit}")).await;
        let found: HashSet<_> = rows.iter().map(|row| row["metadata"]["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(found, ids);
    }
    assert_eq!(stage.listed(&format!("{EVER}&limit=50")).await.len(), 50);
}

#[tokio::test(start_paused = true)]
async fn one_bad_element_fails_the_whole_bulk_and_an_unknown_name_does_not() {
    let stage = stage().await;
    let refusal =
        stage.bulk(vec![one(), json!({"name": NAME, "input": "{}", "priority": 9}), one()]).await.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
    let ids = stage.bulk(vec![one(), json!({"name": "no-such", "input": "{}"})]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let rows = stage.listed(EVER).await;
    assert_eq!((ids.len(), rows.len()), (2, 1));
    assert_eq!(rows[0]["metadata"]["id"], ids[0]);
    let phantom = stage.details(ids[1].as_str().unwrap()).await.unwrap_err();
    assert_eq!((phantom.code(), phantom.message()), (Code::NotFound, "workflow run not found"));
}

#[tokio::test(start_paused = true)]
async fn of_a_phantom_nothing_is_ever_heard() {
    let stage = stage().await;
    let phantom = stage.started(&json!({"name": "no-such"})).await;
    let results = stage.wire.results();
    results.ask(&json!({"workflow_run_id": phantom}));
    let log = json!({"task_run_external_id": phantom, "message": "x"});
    let refusal = stage.wire.call("EventsService.PutLog", &log).await.unwrap_err();
    assert_eq!(refusal.code(), Code::NotFound);
    let begun = Instant::now();
    let events = stage.wire.listen("Dispatcher.SubscribeToWorkflowEvents", &json!({"workflow_run_id": phantom}));
    sleep(Duration::from_secs(120)).await;
    let (at, code, _) = events.end().unwrap();
    let waited = at - begun;
    assert_eq!(code, Code::NotFound);
    assert!(waited > Duration::from_secs(10) && waited < Duration::from_millis(10_500), "{waited:?}");
    assert!(results.heard.messages().is_empty() && results.heard.end().is_none());
    assert_eq!(stage.status_of(&format!("workflow-runs/{phantom}")).await, 404);
}

#[tokio::test(start_paused = true)]
async fn inputs_that_are_no_objects_and_metadata_that_is_nested_are_taken() {
    let stage = stage().await;
    let nested = json!({"a": {"b": [1]}, "n": 1, "none": null});
    for input in ["[1]", "", "{}"] {
        let request = json!({"input": input, "additional_metadata": nested.to_string()});
        let run = stage.started(&request).await;
        sleep(Duration::from_millis(100)).await;
        let shown = stage.shown(&format!("workflow-runs/{run}")).await;
        for (key, value) in nested.as_object().unwrap() {
            assert_eq!(shown["run"]["additionalMetadata"][key], *value, "{input:?} {key}");
        }
        let v1 = json!({"workflow_name": NAME, "input": "eyJuIjoxfQ=="});
        stage.wire.call("v1.AdminService.TriggerWorkflowRun", &v1).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn lists_pass_over_what_they_do_not_know_and_are_empty_without_a_start() {
    let stage = stage().await;
    for tags in [json!({"a": "x", "b": "y"}), json!({"a": "x"}), json!({"b": "y"}), json!({})] {
        stage.started(&json!({"additional_metadata": tags.to_string()})).await;
    }
    sleep(Duration::from_secs(1)).await;
    let count = async |parameters: &str| stage.listed(parameters).await.len();
    assert_eq!(count(EVER).await, 4);
    assert_eq!(count(&format!("{EVER}&statuses=NO_SUCH")).await, 4, "not none");
    assert_eq!(count(&format!("{EVER}&statuses=COMPLETED")).await, 0);
    assert_eq!(count("limit=50").await, 0);
    let both = format!("{EVER}&additional_metadata=a:x&additional_metadata=b:y");
    assert_eq!(count(&both).await, 3, "any of them by default");
    assert_eq!(count(&format!("{both}&additional_metadata_operator=OR")).await, 3);
    assert_eq!(count(&format!("{both}&additional_metadata_operator=AND")).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_never_started_has_no_start_in_lists_and_year_one_in_details() {
    let stage = stage().await;
    let run = stage.started(&json!({})).await;
    stage.wire.call("v1.AdminService.CancelTasks", &json!({"external_ids": [run]})).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let row = stage.listed(EVER).await.remove(0);
    assert_eq!((&row["status"], row.get("startedAt")), (&json!("CANCELLED"), None), "{row}");
    let shown = stage.shown(&format!("workflow-runs/{run}")).await;
    assert_eq!(shown["run"]["startedAt"], "0001-01-01T00:00:00Z");
    assert_eq!(shown["run"]["duration"], 9_223_372_036_854_i64);
}

#[tokio::test(start_paused = true)]
async fn half_of_the_tasks_that_run_are_queued_when_asked_for_by_themselves() {
    let stage = stage().await;
    let (_, heard) = stage.worker(&merged(&registration(NAME), &json!({"slot_config": {"default": 20}}))).await;
    sleep(Duration::from_secs(1)).await;
    let mut runs = Vec::new();
    for _ in 0..20 {
        runs.push(stage.started(&json!({})).await);
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(heard.messages().len(), 20);
    let by_themselves = async || {
        let mut all = Vec::new();
        for run in &runs {
            all.push(stage.shown(&format!("tasks/{run}")).await["status"].as_str().unwrap().to_owned());
        }
        all
    };
    let first = by_themselves().await;
    let queued = first.iter().filter(|status| *status == "QUEUED").count();
    assert!((4..=16).contains(&queued) && first.iter().filter(|status| *status == "RUNNING").count() == 20 - queued);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(by_themselves().await, first, "steadily");
    // Everywhere else they run.
    for run in &runs {
        let shown = stage.shown(&format!("workflow-runs/{run}")).await;
        assert_eq!((&shown["run"]["status"], &shown["tasks"][0]["status"]), (&json!("RUNNING"), &json!("RUNNING")));
    }
    for tasks in [true, false] {
        let path = format!("stable/tenants/{{t}}/workflow-runs?since=2000-01-01&only_tasks={tasks}&limit=50");
        let rows = stage.rows(&path).await;
        assert!(rows.len() == 20 && rows.iter().all(|row| row["status"] == "RUNNING"));
    }
    for run in &runs {
        let report =
            json!({"task_run_external_id": run, "event_type": "STEP_EVENT_TYPE_COMPLETED", "event_payload": "{}"});
        stage.wire.call("Dispatcher.SendStepActionEvent", &report).await.unwrap();
    }
    sleep(Duration::from_secs(1)).await;
    assert!(by_themselves().await.iter().all(|status| status == "COMPLETED"), "right after the end");
}

#[tokio::test(start_paused = true)]
async fn a_run_has_the_engines_times_and_its_task_the_workers() {
    let stage = stage().await;
    let (_, _heard) = stage.worker(&registration(NAME)).await;
    sleep(Duration::from_secs(1)).await;
    let assigned = stage.now();
    let run = stage.started(&json!({})).await;
    sleep(Duration::from_secs(1)).await;
    let now = stage.now();
    let stamp = |seconds: i64| (now - TimeDelta::seconds(seconds)).to_rfc3339_opts(SecondsFormat::Micros, true);
    let (begun, ended) = (stamp(10), stamp(1));
    for (kind, at) in [("STARTED", &begun), ("COMPLETED", &ended)] {
        let report = json!({
            "task_run_external_id": run, "event_type": format!("STEP_EVENT_TYPE_{kind}"), "event_payload": "{}",
            "event_timestamp": at,
        });
        stage.wire.call("Dispatcher.SendStepActionEvent", &report).await.unwrap();
    }
    sleep(Duration::from_secs(1)).await;
    let shown = stage.shown(&format!("workflow-runs/{run}")).await;
    let times = |row: &Value| ["startedAt", "finishedAt", "duration"].map(|name| row[name].clone());
    assert_eq!(times(&shown["tasks"][0]), [json!(begun), json!(ended), json!(9000)]);
    let [started, finished, duration] = times(&shown["run"]);
    assert_eq!(duration, 1000);
    // The two clocks differ by a moment, and REST's store is late.
    for (at, expected) in [(started, assigned), (finished, now)] {
        let off = at.as_str().unwrap().parse::<DateTime<Utc>>().unwrap() - expected;
        assert!(off.abs() < TimeDelta::milliseconds(50), "{off}");
    }
}

#[tokio::test(start_paused = true)]
async fn anyone_writes_to_the_log_of_any_task() {
    let stage = stage().await;
    let runs = [stage.started(&json!({})).await, stage.started(&json!({})).await];
    let write = async |run: &str, message: &str| {
        let line = json!({
            "task_run_external_id": run, "message": message, "level": "INFO", "metadata": "{\"by\": \"ada\"}",
        });
        stage.wire.call("EventsService.PutLog", &line).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        let lines = stage.shown(&format!("tasks/{run}/logs")).await;
        let last = lines["rows"].as_array().unwrap().last().unwrap().clone();
        assert_eq!((&last["message"], &last["metadata"]["by"]), (&json!(message), &json!("ada")));
    };
    write(&runs[1], "queued").await;
    stage.wire.call("v1.AdminService.CancelTasks", &json!({"external_ids": [runs[1]]})).await.unwrap();
    write(&runs[1], "cancelled").await;
    let (_, _heard) = stage.worker(&registration(NAME)).await;
    sleep(Duration::from_secs(1)).await;
    write(&runs[0], "running").await;
    let report =
        json!({"task_run_external_id": runs[0], "event_type": "STEP_EVENT_TYPE_COMPLETED", "event_payload": "{}"});
    stage.wire.call("Dispatcher.SendStepActionEvent", &report).await.unwrap();
    write(&runs[0], "completed").await;
}

#[tokio::test(start_paused = true)]
async fn many_cancels_take_their_time_after_the_answer() {
    let stage = stage().await;
    stage.bulk(vec![one(); 2000]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let target = format!("/api/v1/stable/tenants/{}/tasks/cancel", stage.tenant);
    let filter = json!({"filter": {"since": "2020-01-01T00:00:00Z"}});
    let (status, body) = stage.wire.rest(Method::POST, &target, Some(filter.to_string().into())).await;
    assert_eq!(status.as_u16(), 200);
    let named = body["ids"].as_array().unwrap().len();
    let cancelled = async || stage.listed(&format!("{EVER}&statuses=CANCELLED&limit=5000")).await.len();
    let at_once = cancelled().await;
    assert!(at_once < named / 2, "{at_once} of {named}");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(cancelled().await, named);
}

#[tokio::test(start_paused = true)]
async fn rest_tells_of_a_failure_before_the_on_failure_task_has_run() {
    let task = |name: &str| json!({"readable_id": name, "action": format!("fx:{name}"), "timeout": "60s"});
    let definition = json!({"name": NAME, "tasks": [task("work")], "on_failure_task": task("cleanup")});
    let stage = Stage::set(Quirks::all(), 7).await;
    stage.put(&definition).await;
    let (_, heard) = stage.worker(&registration_for(NAME, &[definition])).await;
    sleep(Duration::from_secs(1)).await;
    let run = stage.started(&json!({})).await;
    sleep(Duration::from_secs(1)).await;
    let end = async |name: &str, kind: &str| {
        let given = heard.messages();
        let (_, action) = given.iter().find(|(_, action)| action["task_name"] == name).unwrap();
        stage.end(action["task_run_external_id"].as_str().unwrap(), kind, "{}").await;
    };
    let by_both = async || {
        let by_rest = stage.shown(&format!("workflow-runs/{run}")).await["run"]["status"].clone();
        let by_grpc = stage.details(&run).await.unwrap();
        (by_rest, by_grpc["status"].clone(), by_grpc["done"].clone())
    };
    let both = |rest: &str, grpc: &str, done: bool| (json!(rest), json!(grpc), json!(done));
    end("work", "FAILED").await;
    // The on-failure task is given to a worker a moment later.
    assert_eq!(by_both().await, both("FAILED", "QUEUED", false));
    sleep(Duration::from_millis(30)).await;
    assert_eq!(by_both().await, both("FAILED", "RUNNING", false));
    sleep(Duration::from_millis(70)).await;
    assert_eq!(by_both().await, both("RUNNING", "RUNNING", false));
    end("cleanup", "COMPLETED").await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(by_both().await, both("FAILED", "FAILED", true));
}

#[tokio::test(start_paused = true)]
async fn a_cancel_by_filter_names_all_that_match_and_a_replay_the_newest_thousand() {
    let stage = stage().await;
    stage.bulk(vec![one(); 1200]).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    let rows = stage.listed(&format!("{EVER}&limit=5000")).await;
    let newest: Vec<_> = rows.iter().map(|row| row["metadata"]["id"].clone()).collect();
    let post = async |what: &str, body: Value| {
        let target = format!("/api/v1/stable/tenants/{}/tasks/{what}", stage.tenant);
        let (status, body) = stage.wire.rest(Method::POST, &target, Some(body.to_string().into())).await;
        assert_eq!(status.as_u16(), 200, "{body}");
        body["ids"].as_array().unwrap().clone()
    };
    // Each id is echoed as often as it was sent.
    let doubled = vec![newest[0].clone(), newest[0].clone(), newest[1].clone()];
    assert_eq!(post("cancel", json!({ "externalIds": doubled })).await, doubled);
    sleep(Duration::from_secs(1)).await;
    let filter = json!({"filter": {"since": "2020-01-01T00:00:00Z"}});
    // Those that have been cancelled already, too.
    assert_eq!(post("cancel", filter.clone()).await.len(), 1200);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(stage.listed(&format!("{EVER}&statuses=CANCELLED&limit=5000")).await.len(), 1200);
    let replayed = post("replay", filter).await;
    assert_eq!((replayed.len(), &replayed[..]), (1000, &newest[..1000]));
}

#[tokio::test(start_paused = true)]
async fn lists_are_paged_by_another_creation_time_than_they_show() {
    let dag = super::recording::workflow(&Value::Null, NAME, &json!({"parents": {"a": [], "b": ["a"]}}));
    for late in [true, false] {
        let quirks = if late { Quirks::all() } else { Quirks::all().without(Quirk::LateCreationTimes) };
        let stage = Stage::set(quirks, 7).await;
        stage.put(&dag).await;
        for _ in 0..3 {
            stage.started(&json!({})).await;
            sleep(Duration::from_millis(5)).await;
        }
        sleep(Duration::from_secs(1)).await;
        let rows = stage.listed(EVER).await;
        let time = |row: &Value, pointer: &str| {
            row.pointer(pointer).unwrap().as_str().unwrap().parse::<DateTime<Utc>>().unwrap()
        };
        for row in &rows {
            let apart = (time(row, "/createdAt") - time(row, "/metadata/createdAt")).num_milliseconds();
            assert!(if late { (14..40).contains(&apart) } else { apart == 0 }, "{apart}: {row}");
        }
        let ids = |rows: &[Value]| rows.iter().map(|row| row["metadata"]["id"].clone()).collect::<Vec<_>>();
        let cut = |row: &Value, pointer: &str| time(row, pointer).to_rfc3339_opts(SecondsFormat::Micros, true);
        let until = stage.listed(&format!("{EVER}&until={}", cut(&rows[1], "/metadata/createdAt"))).await;
        assert_eq!(ids(&until), ids(&rows[1..]));
        // By the time that is shown, no row is cut off.
        let until = stage.listed(&format!("{EVER}&until={}", cut(&rows[1], "/createdAt"))).await;
        assert_eq!(until.len(), if late { 3 } else { 2 });
        let run = stage.shown(&format!("workflow-runs/{}", rows[0]["metadata"]["id"].as_str().unwrap())).await;
        assert_eq!(run["run"]["createdAt"], rows[0]["createdAt"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_cancelled_when_it_is_created_ends_later() {
    let dag = super::recording::workflow(&Value::Null, NAME, &json!({"parents": {"a": [], "b": ["a"], "c": ["a"]}}));
    let stage = Stage::set(Quirks::all(), 7).await;
    stage.put(&dag).await;
    let (_, heard) = stage.worker(&registration_for(NAME, &[dag])).await;
    sleep(Duration::from_secs(1)).await;
    let run = stage.started(&json!({})).await;
    sleep(Duration::from_secs(1)).await;
    stage.end(heard.messages()[0].1["task_run_external_id"].as_str().unwrap(), "FAILED", "no").await;
    sleep(Duration::from_secs(1)).await;
    let shown = stage.shown(&format!("workflow-runs/{run}")).await;
    let time = |value: &Value| value.as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    let ends = shown["tasks"].as_array().unwrap().iter().filter(|task| task["status"] == "CANCELLED");
    let ends: Vec<_> = ends
        .map(|task| (time(&task["finishedAt"]), time(&task["finishedAt"]) - time(&task["taskInsertedAt"])))
        .collect();
    assert!(ends.len() == 2 && ends[0].0 != ends[1].0, "{ends:?}");
    assert!(ends.iter().all(|(_, after)| (20..22).contains(&after.num_milliseconds())), "{ends:?}");
}

#[tokio::test(start_paused = true)]
async fn some_runs_that_were_cancelled_while_queued_become_failed_in_rest() {
    let stage = Stage::set(Quirks::all(), 7).await;
    let task = json!({"readable_id": "work", "action": "fx:work", "timeout": "60s", "schedule_timeout": "20s"});
    stage.put(&json!({"name": NAME, "tasks": [task]})).await;
    let runs = stage.bulk(vec![one(); 400]).await.unwrap();
    stage.wire.call("v1.AdminService.CancelTasks", &json!({"external_ids": runs})).await.unwrap();
    let count = async |status: &str| stage.listed(&format!("{EVER}&limit=1000&statuses={status}")).await.len();
    sleep(Duration::from_secs(10)).await;
    assert_eq!((count("CANCELLED").await, count("FAILED").await), (400, 0));
    sleep(Duration::from_secs(20)).await;
    let failed = stage.listed(&format!("{EVER}&limit=1000&statuses=FAILED")).await;
    assert!((60..=100).contains(&failed.len()), "{}", failed.len());
    assert_eq!(count("CANCELLED").await, 400 - failed.len());
    let run = failed[0]["metadata"]["id"].as_str().unwrap();
    assert_eq!(stage.shown(&format!("workflow-runs/{run}")).await["run"]["status"], "FAILED");
    let details = stage.details(run).await.unwrap();
    assert_eq!((&details["status"], &details["done"]), (&json!("CANCELLED"), &json!(true)));
    let events = stage.rows(&format!("stable/tasks/{run}/task-events?limit=100")).await;
    let kinds: Vec<_> = events.iter().take(2).map(|event| event["eventType"].clone()).collect();
    assert_eq!(kinds, ["SCHEDULING_TIMED_OUT", "CANCELLED"], "the newest first");
}
