//! Measured behavior of starts, lists, ends and cancels that is in no recording. With all quirks.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use hatchet::embedded::{Quirk, Quirks};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tonic::Code;

use super::setup::{ALL_TIME, Setup, merged, registration, registration_for};

const NAME: &str = "fx";

async fn setup() -> Setup {
    Setup::with_workflow(Quirks::all(), NAME, &json!({})).await
}

impl Setup {
    async fn start_run(&self, more: &Value) -> String {
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
async fn rest_finds_a_run_100_ms_after_grpc() {
    let setup = setup().await;
    let run = setup.start_run(&json!({})).await;
    let (details, status) = (format!("workflow-runs/{run}"), format!("workflow-runs/{run}/status"));
    sleep(Duration::from_millis(99)).await;
    assert_eq!((setup.status_of(&details).await, setup.status_of(&status).await), (404, 404));
    assert!(setup.listed(ALL_TIME).await.is_empty() && setup.details(&run).await.is_ok());
    sleep(Duration::from_millis(1)).await;
    assert_eq!((setup.status_of(&details).await, setup.status_of(&status).await), (200, 200));
    assert_eq!(setup.listed(ALL_TIME).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn bulks_and_pages_may_have_more_than_a_thousand_runs() {
    let setup = setup().await;
    let ids: HashSet<_> =
        setup.bulk(vec![one(); 1001]).await.unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    // The runs appear one after the other.
    sleep(Duration::from_secs(1)).await;
    assert_eq!(setup.listed(&format!("{ALL_TIME}&limit=2000")).await.len(), 901);
    sleep(Duration::from_secs(1)).await;
    for limit in [2000, 5000] {
        let rows = setup.listed(&format!("{ALL_TIME}&limit={limit}")).await;
        let found: HashSet<_> = rows.iter().map(|row| row["metadata"]["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(found, ids);
    }
    assert_eq!(setup.listed(&format!("{ALL_TIME}&limit=50")).await.len(), 50);
}

#[tokio::test(start_paused = true)]
async fn invalid_elements_fail_the_bulk_and_unknown_names_do_not() {
    let setup = setup().await;
    let rejection =
        setup.bulk(vec![one(), json!({"name": NAME, "input": "{}", "priority": 9}), one()]).await.unwrap_err();
    assert_eq!(rejection.code(), Code::InvalidArgument);
    let ids = setup.bulk(vec![one(), json!({"name": "no-such", "input": "{}"})]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let rows = setup.listed(ALL_TIME).await;
    assert_eq!((ids.len(), rows.len()), (2, 1));
    assert_eq!(rows[0]["metadata"]["id"], ids[0]);
    let missing = setup.details(ids[1].as_str().unwrap()).await.unwrap_err();
    assert_eq!((missing.code(), missing.message()), (Code::NotFound, "workflow run not found"));
}

#[tokio::test(start_paused = true)]
async fn runs_that_are_never_created_have_no_events() {
    let setup = setup().await;
    let missing = setup.start_run(&json!({"name": "no-such"})).await;
    let results = setup.wire.results();
    results.subscribe(&json!({"workflow_run_id": missing}));
    let log = json!({"task_run_external_id": missing, "message": "x"});
    let rejection = setup.wire.call("EventsService.PutLog", &log).await.unwrap_err();
    assert_eq!(rejection.code(), Code::NotFound);
    let start = Instant::now();
    let events = setup.wire.listen("Dispatcher.SubscribeToWorkflowEvents", &json!({"workflow_run_id": missing}));
    sleep(Duration::from_secs(120)).await;
    let (at, code, _) = events.end().unwrap();
    let waited = at - start;
    assert_eq!(code, Code::NotFound);
    assert!(waited > Duration::from_secs(10) && waited < Duration::from_millis(10_500), "{waited:?}");
    assert!(results.received.messages().is_empty() && results.received.end().is_none());
    assert_eq!(setup.status_of(&format!("workflow-runs/{missing}")).await, 404);
}

#[tokio::test(start_paused = true)]
async fn non_object_inputs_and_nested_metadata_are_accepted() {
    let setup = setup().await;
    let nested = json!({"a": {"b": [1]}, "n": 1, "none": null});
    for input in ["[1]", "", "{}"] {
        let request = json!({"input": input, "additional_metadata": nested.to_string()});
        let run = setup.start_run(&request).await;
        sleep(Duration::from_millis(100)).await;
        let shown = setup.shown(&format!("workflow-runs/{run}")).await;
        for (key, value) in nested.as_object().unwrap() {
            assert_eq!(shown["run"]["additionalMetadata"][key], *value, "{input:?} {key}");
        }
        let v1 = json!({"workflow_name": NAME, "input": "eyJuIjoxfQ=="});
        setup.wire.call("v1.AdminService.TriggerWorkflowRun", &v1).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn lists_ignore_unknown_values_and_are_empty_without_a_start() {
    let setup = setup().await;
    for tags in [json!({"a": "x", "b": "y"}), json!({"a": "x"}), json!({"b": "y"}), json!({})] {
        setup.start_run(&json!({"additional_metadata": tags.to_string()})).await;
    }
    sleep(Duration::from_secs(1)).await;
    let count = async |parameters: &str| setup.listed(parameters).await.len();
    assert_eq!(count(ALL_TIME).await, 4);
    assert_eq!(count(&format!("{ALL_TIME}&statuses=NO_SUCH")).await, 4, "unknown statuses are ignored");
    assert_eq!(count(&format!("{ALL_TIME}&statuses=COMPLETED")).await, 0);
    assert_eq!(count("limit=50").await, 0);
    let both = format!("{ALL_TIME}&additional_metadata=a:x&additional_metadata=b:y");
    assert_eq!(count(&both).await, 3, "any tag matches by default");
    assert_eq!(count(&format!("{both}&additional_metadata_operator=OR")).await, 3);
    assert_eq!(count(&format!("{both}&additional_metadata_operator=AND")).await, 1);
}

#[tokio::test(start_paused = true)]
async fn runs_that_never_started_have_no_start() {
    let setup = setup().await;
    let run = setup.start_run(&json!({})).await;
    setup.wire.call("v1.AdminService.CancelTasks", &json!({"external_ids": [run]})).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let row = setup.listed(ALL_TIME).await.remove(0);
    assert_eq!((&row["status"], row.get("startedAt")), (&json!("CANCELLED"), None), "{row}");
    let shown = setup.shown(&format!("workflow-runs/{run}")).await;
    assert_eq!(shown["run"]["startedAt"], "0001-01-01T00:00:00Z");
    assert_eq!(shown["run"]["duration"], 9_223_372_036_854_i64);
}

#[tokio::test(start_paused = true)]
async fn task_details_show_half_of_the_running_tasks_as_queued() {
    let setup = setup().await;
    let (_, received) = setup.worker(&merged(&registration(NAME), &json!({"slot_config": {"default": 20}}))).await;
    sleep(Duration::from_secs(1)).await;
    let mut runs = Vec::new();
    for _ in 0..20 {
        runs.push(setup.start_run(&json!({})).await);
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(received.messages().len(), 20);
    let task_statuses = async || {
        let mut all = Vec::new();
        for run in &runs {
            all.push(setup.shown(&format!("tasks/{run}")).await["status"].as_str().unwrap().to_owned());
        }
        all
    };
    let first = task_statuses().await;
    let queued = first.iter().filter(|status| *status == "QUEUED").count();
    assert!((4..=16).contains(&queued) && first.iter().filter(|status| *status == "RUNNING").count() == 20 - queued);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(task_statuses().await, first, "the statuses do not change");
    // All other responses show them as running.
    for run in &runs {
        let shown = setup.shown(&format!("workflow-runs/{run}")).await;
        assert_eq!((&shown["run"]["status"], &shown["tasks"][0]["status"]), (&json!("RUNNING"), &json!("RUNNING")));
    }
    for tasks in [true, false] {
        let path = format!("stable/tenants/{{t}}/workflow-runs?since=2000-01-01&only_tasks={tasks}&limit=50");
        let rows = setup.rows(&path).await;
        assert!(rows.len() == 20 && rows.iter().all(|row| row["status"] == "RUNNING"));
    }
    for run in &runs {
        let report =
            json!({"task_run_external_id": run, "event_type": "STEP_EVENT_TYPE_COMPLETED", "event_payload": "{}"});
        setup.wire.call("Dispatcher.SendStepActionEvent", &report).await.unwrap();
    }
    sleep(Duration::from_secs(1)).await;
    assert!(task_statuses().await.iter().all(|status| status == "COMPLETED"), "the statuses are correct after the end");
}

#[tokio::test(start_paused = true)]
async fn runs_have_the_times_of_the_engine_and_tasks_those_of_the_worker() {
    let setup = setup().await;
    let (_, _heard) = setup.worker(&registration(NAME)).await;
    sleep(Duration::from_secs(1)).await;
    let assigned = setup.now();
    let run = setup.start_run(&json!({})).await;
    sleep(Duration::from_secs(1)).await;
    let now = setup.now();
    let timestamp = |seconds: i64| (now - TimeDelta::seconds(seconds)).to_rfc3339_opts(SecondsFormat::Micros, true);
    let (started, ended) = (timestamp(10), timestamp(1));
    for (kind, at) in [("STARTED", &started), ("COMPLETED", &ended)] {
        let report = json!({
            "task_run_external_id": run, "event_type": format!("STEP_EVENT_TYPE_{kind}"), "event_payload": "{}",
            "event_timestamp": at,
        });
        setup.wire.call("Dispatcher.SendStepActionEvent", &report).await.unwrap();
    }
    sleep(Duration::from_secs(1)).await;
    let shown = setup.shown(&format!("workflow-runs/{run}")).await;
    let times = |row: &Value| ["startedAt", "finishedAt", "duration"].map(|name| row[name].clone());
    assert_eq!(times(&shown["tasks"][0]), [json!(started), json!(ended), json!(9000)]);
    let [run_started, run_finished, duration] = times(&shown["run"]);
    assert_eq!(duration, 1000);
    // The two clocks differ slightly, and REST is late.
    for (at, expected) in [(run_started, assigned), (run_finished, now)] {
        let off = at.as_str().unwrap().parse::<DateTime<Utc>>().unwrap() - expected;
        assert!(off.abs() < TimeDelta::milliseconds(50), "{off}");
    }
}

#[tokio::test(start_paused = true)]
async fn log_lines_are_accepted_in_all_states() {
    let setup = setup().await;
    let runs = [setup.start_run(&json!({})).await, setup.start_run(&json!({})).await];
    let write = async |run: &str, message: &str| {
        let line = json!({
            "task_run_external_id": run, "message": message, "level": "INFO", "metadata": "{\"by\": \"ada\"}",
        });
        setup.wire.call("EventsService.PutLog", &line).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        let lines = setup.shown(&format!("tasks/{run}/logs")).await;
        let last = lines["rows"].as_array().unwrap().last().unwrap().clone();
        assert_eq!((&last["message"], &last["metadata"]["by"]), (&json!(message), &json!("ada")));
    };
    write(&runs[1], "queued").await;
    setup.wire.call("v1.AdminService.CancelTasks", &json!({"external_ids": [runs[1]]})).await.unwrap();
    write(&runs[1], "cancelled").await;
    let (_, _heard) = setup.worker(&registration(NAME)).await;
    sleep(Duration::from_secs(1)).await;
    write(&runs[0], "running").await;
    let report =
        json!({"task_run_external_id": runs[0], "event_type": "STEP_EVENT_TYPE_COMPLETED", "event_payload": "{}"});
    setup.wire.call("Dispatcher.SendStepActionEvent", &report).await.unwrap();
    write(&runs[0], "completed").await;
}

#[tokio::test(start_paused = true)]
async fn many_cancels_are_executed_after_the_response() {
    let setup = setup().await;
    setup.bulk(vec![one(); 2000]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let target = format!("/api/v1/stable/tenants/{}/tasks/cancel", setup.tenant);
    let filter = json!({"filter": {"since": "2020-01-01T00:00:00Z"}});
    let (status, body) = setup.wire.rest(Method::POST, &target, Some(filter.to_string().into())).await;
    assert_eq!(status.as_u16(), 200);
    let count = body["ids"].as_array().unwrap().len();
    let cancelled = async || setup.listed(&format!("{ALL_TIME}&statuses=CANCELLED&limit=5000")).await.len();
    let immediate = cancelled().await;
    assert!(immediate < count / 2, "{immediate} of {count}");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(cancelled().await, count);
}

#[tokio::test(start_paused = true)]
async fn rest_shows_a_failure_before_the_on_failure_task_has_run() {
    let task = |name: &str| json!({"readable_id": name, "action": format!("fx:{name}"), "timeout": "60s"});
    let definition = json!({"name": NAME, "tasks": [task("work")], "on_failure_task": task("cleanup")});
    let setup = Setup::new(Quirks::all(), 7).await;
    setup.put(&definition).await;
    let (_, received) = setup.worker(&registration_for(NAME, &[definition])).await;
    sleep(Duration::from_secs(1)).await;
    let run = setup.start_run(&json!({})).await;
    sleep(Duration::from_secs(1)).await;
    let end = async |name: &str, kind: &str| {
        let assigned = received.messages();
        let (_, action) = assigned.iter().find(|(_, action)| action["task_name"] == name).unwrap();
        setup.end(action["task_run_external_id"].as_str().unwrap(), kind, "{}").await;
    };
    let by_both = async || {
        let by_rest = setup.shown(&format!("workflow-runs/{run}")).await["run"]["status"].clone();
        let by_grpc = setup.details(&run).await.unwrap();
        (by_rest, by_grpc["status"].clone(), by_grpc["done"].clone())
    };
    let both = |rest: &str, grpc: &str, done: bool| (json!(rest), json!(grpc), json!(done));
    end("work", "FAILED").await;
    // The on-failure task is assigned later.
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
async fn cancels_by_filter_return_all_matches_and_replays_the_newest_thousand() {
    let setup = setup().await;
    setup.bulk(vec![one(); 1200]).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    let rows = setup.listed(&format!("{ALL_TIME}&limit=5000")).await;
    let newest: Vec<_> = rows.iter().map(|row| row["metadata"]["id"].clone()).collect();
    let post = async |what: &str, body: Value| {
        let target = format!("/api/v1/stable/tenants/{}/tasks/{what}", setup.tenant);
        let (status, body) = setup.wire.rest(Method::POST, &target, Some(body.to_string().into())).await;
        assert_eq!(status.as_u16(), 200, "{body}");
        body["ids"].as_array().unwrap().clone()
    };
    // Repeated ids are returned repeatedly.
    let doubled = vec![newest[0].clone(), newest[0].clone(), newest[1].clone()];
    assert_eq!(post("cancel", json!({ "externalIds": doubled })).await, doubled);
    sleep(Duration::from_secs(1)).await;
    let filter = json!({"filter": {"since": "2020-01-01T00:00:00Z"}});
    // Runs that have been cancelled before also match.
    assert_eq!(post("cancel", filter.clone()).await.len(), 1200);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(setup.listed(&format!("{ALL_TIME}&statuses=CANCELLED&limit=5000")).await.len(), 1200);
    let replayed = post("replay", filter).await;
    assert_eq!((replayed.len(), &replayed[..]), (1000, &newest[..1000]));
}

#[tokio::test(start_paused = true)]
async fn lists_are_paged_by_a_creation_time_that_they_do_not_show() {
    let dag = super::recording::workflow(&Value::Null, NAME, &json!({"parents": {"a": [], "b": ["a"]}}));
    for late in [true, false] {
        let quirks = if late { Quirks::all() } else { Quirks::all().without(Quirk::LateCreationTimes) };
        let setup = Setup::new(quirks, 7).await;
        setup.put(&dag).await;
        for _ in 0..3 {
            setup.start_run(&json!({})).await;
            sleep(Duration::from_millis(5)).await;
        }
        sleep(Duration::from_secs(1)).await;
        let rows = setup.listed(ALL_TIME).await;
        let time = |row: &Value, pointer: &str| {
            row.pointer(pointer).unwrap().as_str().unwrap().parse::<DateTime<Utc>>().unwrap()
        };
        for row in &rows {
            let difference = (time(row, "/createdAt") - time(row, "/metadata/createdAt")).num_milliseconds();
            assert!(if late { (14..40).contains(&difference) } else { difference == 0 }, "{difference}: {row}");
        }
        let ids = |rows: &[Value]| rows.iter().map(|row| row["metadata"]["id"].clone()).collect::<Vec<_>>();
        let cut = |row: &Value, pointer: &str| time(row, pointer).to_rfc3339_opts(SecondsFormat::Micros, true);
        let until = setup.listed(&format!("{ALL_TIME}&until={}", cut(&rows[1], "/metadata/createdAt"))).await;
        assert_eq!(ids(&until), ids(&rows[1..]));
        // With the displayed time as the end, no row is excluded.
        let until = setup.listed(&format!("{ALL_TIME}&until={}", cut(&rows[1], "/createdAt"))).await;
        assert_eq!(until.len(), if late { 3 } else { 2 });
        let run = setup.shown(&format!("workflow-runs/{}", rows[0]["metadata"]["id"].as_str().unwrap())).await;
        assert_eq!(run["run"]["createdAt"], rows[0]["createdAt"]);
    }
}

#[tokio::test(start_paused = true)]
async fn tasks_that_are_cancelled_when_they_are_created_end_later() {
    let dag = super::recording::workflow(&Value::Null, NAME, &json!({"parents": {"a": [], "b": ["a"], "c": ["a"]}}));
    let setup = Setup::new(Quirks::all(), 7).await;
    setup.put(&dag).await;
    let (_, received) = setup.worker(&registration_for(NAME, &[dag])).await;
    sleep(Duration::from_secs(1)).await;
    let run = setup.start_run(&json!({})).await;
    sleep(Duration::from_secs(1)).await;
    setup.end(received.messages()[0].1["task_run_external_id"].as_str().unwrap(), "FAILED", "no").await;
    sleep(Duration::from_secs(1)).await;
    let shown = setup.shown(&format!("workflow-runs/{run}")).await;
    let time = |value: &Value| value.as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    let ends = shown["tasks"].as_array().unwrap().iter().filter(|task| task["status"] == "CANCELLED");
    let ends: Vec<_> = ends
        .map(|task| (time(&task["finishedAt"]), time(&task["finishedAt"]) - time(&task["taskInsertedAt"])))
        .collect();
    assert!(ends.len() == 2 && ends[0].0 != ends[1].0, "{ends:?}");
    assert!(ends.iter().all(|(_, after)| (20..22).contains(&after.num_milliseconds())), "{ends:?}");
}

#[tokio::test(start_paused = true)]
async fn rest_shows_some_queued_runs_as_failed_after_their_cancel() {
    let setup = Setup::new(Quirks::all(), 7).await;
    let task = json!({"readable_id": "work", "action": "fx:work", "timeout": "60s", "schedule_timeout": "20s"});
    setup.put(&json!({"name": NAME, "tasks": [task]})).await;
    let runs = setup.bulk(vec![one(); 400]).await.unwrap();
    setup.wire.call("v1.AdminService.CancelTasks", &json!({"external_ids": runs})).await.unwrap();
    let count = async |status: &str| setup.listed(&format!("{ALL_TIME}&limit=1000&statuses={status}")).await.len();
    sleep(Duration::from_secs(10)).await;
    assert_eq!((count("CANCELLED").await, count("FAILED").await), (400, 0));
    sleep(Duration::from_secs(20)).await;
    let failed = setup.listed(&format!("{ALL_TIME}&limit=1000&statuses=FAILED")).await;
    assert!((60..=100).contains(&failed.len()), "{}", failed.len());
    assert_eq!(count("CANCELLED").await, 400 - failed.len());
    let run = failed[0]["metadata"]["id"].as_str().unwrap();
    assert_eq!(setup.shown(&format!("workflow-runs/{run}")).await["run"]["status"], "FAILED");
    let details = setup.details(run).await.unwrap();
    assert_eq!((&details["status"], &details["done"]), (&json!("CANCELLED"), &json!(true)));
    let events = setup.rows(&format!("stable/tasks/{run}/task-events?limit=100")).await;
    let kinds: Vec<_> = events.iter().take(2).map(|event| event["eventType"].clone()).collect();
    assert_eq!(kinds, ["SCHEDULING_TIMED_OUT", "CANCELLED"], "the newest first");
}
