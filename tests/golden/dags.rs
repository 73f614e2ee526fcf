//! What was measured of DAGs, children, cancels and replays and is in no recording.

use std::time::Duration;

use hatchet::embedded::{Quirk, Quirks};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;
use tonic::Code;

use super::stage::{Stage, merged, registration_for};
use super::wire::Heard;

struct Play {
    stage: Stage,
    worker: Heard,
    run: String,
}

fn task(name: &str, parents: &[&str]) -> Value {
    json!({"readable_id": name, "action": format!("fx:{name}"), "timeout": "60s", "parents": parents})
}

fn dag(tasks: &[Value]) -> Value {
    json!({"name": "fx", "tasks": tasks})
}

/// A workflow, a worker for it and a run of it.
async fn play(quirks: Quirks, definition: &Value) -> Play {
    let stage = Stage::set(quirks, 7).await;
    stage.put(definition).await;
    let (_, worker) = stage.worker(&registration_for("fx", std::slice::from_ref(definition))).await;
    sleep(Duration::from_secs(1)).await;
    let mut play = Play { stage, worker, run: String::new() };
    play.run = play.trigger(&json!({})).await;
    play
}

impl Play {
    async fn trigger(&self, more: &Value) -> String {
        let more = merged(&json!({"additional_metadata": "{\"tag\": \"x\"}"}), more);
        let run = self.stage.trigger("fx", &more).await.unwrap();
        sleep(Duration::from_millis(200)).await;
        run
    }

    /// The id of the last task of a name that a worker was given.
    fn task(&self, name: &str) -> String {
        let given = self.worker.messages().into_iter().rev();
        let (_, action) = given.into_iter().find(|(_, action)| action["task_name"] == name).unwrap();
        action["task_run_external_id"].as_str().unwrap().to_owned()
    }

    async fn complete(&self, name: &str, output: &str) {
        let report = json!({
            "task_run_external_id": self.task(name), "event_type": "STEP_EVENT_TYPE_COMPLETED", "event_payload": output,
        });
        self.stage.wire.call("Dispatcher.SendStepActionEvent", &report).await.unwrap();
        sleep(Duration::from_millis(200)).await;
    }

    async fn details(&self, id: &str) -> Result<Value, tonic::Status> {
        self.stage.wire.call("v1.AdminService.GetRunDetails", &json!({"external_id": id})).await
    }

    async fn get(&self, path: &str) -> Value {
        self.stage.wire.get(&format!("/api/v1/stable/{path}")).await
    }

    async fn list(&self, kind: &str, parameters: &str) -> Value {
        let since = "since=2020-01-01T00:00:00Z";
        self.get(&format!("tenants/{}/{kind}?{since}&{parameters}", self.stage.tenant)).await
    }

    async fn post(&self, kind: &str, body: &Value) -> Value {
        let target = format!("/api/v1/stable/tenants/{}/tasks/{kind}", self.stage.tenant);
        let (status, body) = self.stage.wire.rest(Method::POST, &target, Some(body.to_string().into())).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body["ids"].clone()
    }
}

#[tokio::test(start_paused = true)]
async fn outputs_that_are_too_big_together_come_one_by_one() {
    let play = play(Quirks::none(), &dag(&[task("a", &[]), task("b", &[])])).await;
    let results = play.stage.wire.results();
    results.ask(&json!({"workflow_run_id": play.run}));
    for name in ["a", "b"] {
        play.complete(name, &json!({name: "x".repeat(3 << 20)}).to_string()).await;
    }
    assert_eq!(results.heard.messages()[0].1["results"], json!([]));
    assert_eq!(play.details(&play.run).await.unwrap_err().code(), Code::ResourceExhausted);
    for name in ["a", "b"] {
        let alone = play.get(&format!("tasks/{}", play.task(name))).await;
        assert_eq!(alone["output"][name].as_str().map(str::len), Some(3 << 20));
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_of_a_dag_by_itself() {
    let play = play(Quirks::none(), &dag(&[task("a", &[]), task("b", &["a"])])).await;
    play.complete("a", r#"{"n": 1}"#).await;
    let (a, b) = (play.task("a"), play.task("b"));
    let log = json!({"task_run_external_id": a, "message": "of a"});
    play.stage.wire.call("EventsService.PutLog", &log).await.unwrap();
    assert_eq!(play.get(&format!("tasks/{a}/logs")).await["rows"][0]["message"], "of a");
    assert_eq!(play.get(&format!("tasks/{b}/logs")).await["rows"], json!([]));

    // By its own id a task is what it is, by the run's it is queued until all is over.
    let alone = play.details(&a).await.unwrap();
    assert_eq!((&alone["status"], &alone["done"]), (&json!("COMPLETED"), &json!(true)));
    assert_eq!(alone["task_runs"].as_object().unwrap().keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(play.details(&play.run).await.unwrap()["task_runs"]["a"]["status"], "QUEUED");
    // To REST the run is no task, and the task no run.
    for target in [format!("tasks/{}", play.run), format!("workflow-runs/{a}")] {
        let (status, _) = play.stage.wire.rest(Method::GET, &format!("/api/v1/stable/{target}"), None).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{target}");
    }
    let tasks = play.list("workflow-runs", "only_tasks=true&statuses=COMPLETED").await;
    assert_eq!(tasks["rows"].as_array().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn children_of_a_dags_task() {
    let play = play(Quirks::none(), &dag(&[task("a", &[]), task("b", &["a"])])).await;
    let parent = play.task("a");
    let link = json!({"parent_id": "zzz", "parent_task_run_external_id": parent, "child_index": 0});
    let child = play.trigger(&link).await;
    assert_eq!(play.trigger(&link).await, child);
    let actions = play.worker.messages();
    let (_, action) = actions.last().unwrap();
    assert_eq!((&action["parent_workflow_run_id"], &action["child_workflow_index"]), (&json!(parent), &json!(0)));

    let row = play.list("workflow-runs", &format!("only_tasks=false&parent_task_external_id={parent}")).await;
    assert_eq!(row["rows"][0]["metadata"]["id"], *child);
    let none = play.list("workflow-runs", &format!("only_tasks=false&parent_task_external_id={}", play.run)).await;
    assert_eq!(none["rows"], json!([]));
    // A list of tasks does not look at it.
    let all = play.list("workflow-runs", &format!("only_tasks=true&parent_task_external_id={parent}")).await;
    assert_eq!(all["rows"].as_array().unwrap().len(), 2);
    let metrics = play.list("task-metrics", &format!("parent_task_external_id={parent}")).await;
    assert_eq!(metrics.as_array().unwrap().iter().map(|row| row["count"].as_u64().unwrap()).sum::<u64>(), 1);

    assert_eq!(play.get(&format!("tasks/{parent}")).await["numSpawnedChildren"], 1);
    let run = play.get(&format!("workflow-runs/{child}")).await;
    assert_eq!([&run["run"]["parentTaskExternalId"], &run["tasks"][0]["parentTaskExternalId"]], [&json!(parent); 2]);
    let depths = |timings: &Value| {
        timings["rows"].as_array().unwrap().iter().map(|row| row["depth"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(depths(&play.get(&format!("workflow-runs/{}/task-timings", play.run)).await), [0]);
    assert_eq!(depths(&play.get(&format!("workflow-runs/{}/task-timings?depth=1", play.run)).await), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn cancels_and_replays_by_filter() {
    let play = play(Quirks::none(), &dag(&[task("a", &[])])).await;
    let other = play.trigger(&json!({"additional_metadata": "{\"tag\": \"y\"}"})).await;
    let filter = |tag: &str| json!({"since": "2020-01-01T00:00:00Z", "statuses": ["RUNNING"], "additionalMetadata": [format!("tag:{tag}")]});
    assert_eq!(play.post("cancel", &json!({"filter": filter("y")})).await, json!([other]));
    assert_eq!(play.get(&format!("workflow-runs/{other}/status")).await, "CANCELLED");
    assert_eq!(play.post("cancel", &json!({"filter": filter("z")})).await, json!([]));

    let filter = json!({"since": "2020-01-01T00:00:00Z", "statuses": ["RUNNING"], "workflow_ids": []});
    let cancelled = play.stage.wire.call("v1.AdminService.CancelTasks", &json!({"filter": filter})).await.unwrap();
    assert_eq!(cancelled["cancelled_tasks"], json!([play.run]));

    let filter = json!({"since": "2020-01-01T00:00:00Z"});
    // The newest first; what is replayed goes on under its id.
    assert_eq!(play.post("replay", &json!({"filter": filter})).await, json!([other, play.run]));
    assert_eq!(play.get(&format!("tasks/{other}")).await["retryCount"], 1);
    let replayed = play.stage.wire.call("v1.AdminService.ReplayTasks", &json!({"filter": filter})).await.unwrap();
    assert_eq!(replayed["replayed_tasks"], json!([other, play.run]));
    assert_eq!(play.get(&format!("tasks/{other}")).await["retryCount"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_dag_that_sleeps_cannot_be_cancelled() {
    let base = json!({"readable_data_key": "nap", "action": "QUEUE"});
    let mut b = task("b", &["a"]);
    b["conditions"] = json!({"sleep_conditions": [{"base": base, "sleep_for": "3s"}]});
    let play = play(Quirks::none().with(Quirk::DeafWaits), &dag(&[task("a", &[]), b])).await;
    play.complete("a", "{}").await;
    let details = play.details(&play.run).await.unwrap();
    assert_eq!((&details["status"], &details["done"]), (&json!("QUEUED"), &json!(false)));
    assert_eq!(details["task_runs"].as_object().unwrap().len(), 1);
    assert_eq!(play.get(&format!("workflow-runs/{}/status", play.run)).await, "RUNNING");

    assert_eq!(play.post("cancel", &json!({"externalIds": [play.run]})).await, json!([play.run]));
    sleep(Duration::from_secs(3)).await;
    play.complete("b", "{}").await;
    assert_eq!(play.details(&play.run).await.unwrap()["status"], "COMPLETED");
}
