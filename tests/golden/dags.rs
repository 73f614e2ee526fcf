//! Measured behavior of DAGs, children, cancels and replays that is in no recording.

use std::time::Duration;

use hatchet::embedded::{Quirk, Quirks};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;
use tonic::Code;

use super::setup::{Setup, merged, registration_for};
use super::wire::Received;

struct DagTest {
    setup: Setup,
    worker: Received,
    run: String,
}

fn task(name: &str, parents: &[&str]) -> Value {
    json!({"readable_id": name, "action": format!("fx:{name}"), "timeout": "60s", "parents": parents})
}

fn dag(tasks: &[Value]) -> Value {
    json!({"name": "fx", "tasks": tasks})
}

/// Creates an engine with a workflow, a worker for it and a run of it.
async fn start(quirks: Quirks, definition: &Value) -> DagTest {
    let setup = Setup::new(quirks, 7).await;
    setup.put(definition).await;
    let (_, worker) = setup.worker(&registration_for("fx", std::slice::from_ref(definition))).await;
    sleep(Duration::from_secs(1)).await;
    let mut test = DagTest { setup, worker, run: String::new() };
    test.run = test.trigger(&json!({})).await;
    test
}

impl DagTest {
    async fn trigger(&self, more: &Value) -> String {
        let more = merged(&json!({"additional_metadata": "{\"tag\": \"x\"}"}), more);
        let run = self.setup.trigger("fx", &more).await.unwrap();
        sleep(Duration::from_millis(200)).await;
        run
    }

    /// The id of the last assigned task with this name.
    fn task(&self, name: &str) -> String {
        let assigned = self.worker.messages().into_iter().rev();
        let (_, action) = assigned.into_iter().find(|(_, action)| action["task_name"] == name).unwrap();
        action["task_run_external_id"].as_str().unwrap().to_owned()
    }

    async fn complete(&self, name: &str, output: &str) {
        let report = json!({
            "task_run_external_id": self.task(name), "event_type": "STEP_EVENT_TYPE_COMPLETED", "event_payload": output,
        });
        self.setup.wire.call("Dispatcher.SendStepActionEvent", &report).await.unwrap();
        sleep(Duration::from_millis(200)).await;
    }

    async fn details(&self, id: &str) -> Result<Value, tonic::Status> {
        self.setup.wire.call("v1.AdminService.GetRunDetails", &json!({"external_id": id})).await
    }

    async fn get(&self, path: &str) -> Value {
        self.setup.wire.get(&format!("/api/v1/stable/{path}")).await
    }

    async fn list(&self, kind: &str, parameters: &str) -> Value {
        let since = "since=2020-01-01T00:00:00Z";
        self.get(&format!("tenants/{}/{kind}?{since}&{parameters}", self.setup.tenant)).await
    }

    async fn post(&self, kind: &str, body: &Value) -> Value {
        let target = format!("/api/v1/stable/tenants/{}/tasks/{kind}", self.setup.tenant);
        let (status, body) = self.setup.wire.rest(Method::POST, &target, Some(body.to_string().into())).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body["ids"].clone()
    }
}

#[tokio::test(start_paused = true)]
async fn outputs_that_are_too_large_together_are_returned_separately() {
    let test = start(Quirks::none(), &dag(&[task("a", &[]), task("b", &[])])).await;
    let results = test.setup.wire.results();
    results.subscribe(&json!({"workflow_run_id": test.run}));
    for name in ["a", "b"] {
        test.complete(name, &json!({name: "x".repeat(3 << 20)}).to_string()).await;
    }
    assert_eq!(results.received.messages()[0].1["results"], json!([]));
    assert_eq!(test.details(&test.run).await.unwrap_err().code(), Code::ResourceExhausted);
    for name in ["a", "b"] {
        let alone = test.get(&format!("tasks/{}", test.task(name))).await;
        assert_eq!(alone["output"][name].as_str().map(str::len), Some(3 << 20));
    }
}

#[tokio::test(start_paused = true)]
async fn dag_tasks_are_found_by_their_own_id() {
    let test = start(Quirks::none(), &dag(&[task("a", &[]), task("b", &["a"])])).await;
    test.complete("a", r#"{"n": 1}"#).await;
    let (a, b) = (test.task("a"), test.task("b"));
    let log = json!({"task_run_external_id": a, "message": "line of a"});
    test.setup.wire.call("EventsService.PutLog", &log).await.unwrap();
    assert_eq!(test.get(&format!("tasks/{a}/logs")).await["rows"][0]["message"], "line of a");
    assert_eq!(test.get(&format!("tasks/{b}/logs")).await["rows"], json!([]));

    // Under its own id, a task has its own status. Under the id of the run, it is queued until the run has ended.
    let alone = test.details(&a).await.unwrap();
    assert_eq!((&alone["status"], &alone["done"]), (&json!("COMPLETED"), &json!(true)));
    assert_eq!(alone["task_runs"].as_object().unwrap().keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(test.details(&test.run).await.unwrap()["task_runs"]["a"]["status"], "QUEUED");
    // REST does not find the run as a task, and the task as a run.
    for target in [format!("tasks/{}", test.run), format!("workflow-runs/{a}")] {
        let (status, _) = test.setup.wire.rest(Method::GET, &format!("/api/v1/stable/{target}"), None).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{target}");
    }
    let tasks = test.list("workflow-runs", "only_tasks=true&statuses=COMPLETED").await;
    assert_eq!(tasks["rows"].as_array().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn dag_tasks_have_children() {
    let test = start(Quirks::none(), &dag(&[task("a", &[]), task("b", &["a"])])).await;
    let parent = test.task("a");
    let link = json!({"parent_id": "zzz", "parent_task_run_external_id": parent, "child_index": 0});
    let child = test.trigger(&link).await;
    assert_eq!(test.trigger(&link).await, child);
    let actions = test.worker.messages();
    let (_, action) = actions.last().unwrap();
    assert_eq!((&action["parent_workflow_run_id"], &action["child_workflow_index"]), (&json!(parent), &json!(0)));

    let row = test.list("workflow-runs", &format!("only_tasks=false&parent_task_external_id={parent}")).await;
    assert_eq!(row["rows"][0]["metadata"]["id"], *child);
    let none = test.list("workflow-runs", &format!("only_tasks=false&parent_task_external_id={}", test.run)).await;
    assert_eq!(none["rows"], json!([]));
    // A list of tasks ignores the parent.
    let all = test.list("workflow-runs", &format!("only_tasks=true&parent_task_external_id={parent}")).await;
    assert_eq!(all["rows"].as_array().unwrap().len(), 2);
    let metrics = test.list("task-metrics", &format!("parent_task_external_id={parent}")).await;
    assert_eq!(metrics.as_array().unwrap().iter().map(|row| row["count"].as_u64().unwrap()).sum::<u64>(), 1);

    assert_eq!(test.get(&format!("tasks/{parent}")).await["numSpawnedChildren"], 1);
    let run = test.get(&format!("workflow-runs/{child}")).await;
    assert_eq!([&run["run"]["parentTaskExternalId"], &run["tasks"][0]["parentTaskExternalId"]], [&json!(parent); 2]);
    let depths = |timings: &Value| {
        timings["rows"].as_array().unwrap().iter().map(|row| row["depth"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(depths(&test.get(&format!("workflow-runs/{}/task-timings", test.run)).await), [0]);
    assert_eq!(depths(&test.get(&format!("workflow-runs/{}/task-timings?depth=1", test.run)).await), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn runs_are_cancelled_and_replayed_by_filter() {
    let test = start(Quirks::none(), &dag(&[task("a", &[])])).await;
    let other = test.trigger(&json!({"additional_metadata": "{\"tag\": \"y\"}"})).await;
    let filter = |tag: &str| json!({"since": "2020-01-01T00:00:00Z", "statuses": ["RUNNING"], "additionalMetadata": [format!("tag:{tag}")]});
    assert_eq!(test.post("cancel", &json!({"filter": filter("y")})).await, json!([other]));
    assert_eq!(test.get(&format!("workflow-runs/{other}/status")).await, "CANCELLED");
    assert_eq!(test.post("cancel", &json!({"filter": filter("z")})).await, json!([]));

    let filter = json!({"since": "2020-01-01T00:00:00Z", "statuses": ["RUNNING"], "workflow_ids": []});
    let cancelled = test.setup.wire.call("v1.AdminService.CancelTasks", &json!({"filter": filter})).await.unwrap();
    assert_eq!(cancelled["cancelled_tasks"], json!([test.run]));

    let filter = json!({"since": "2020-01-01T00:00:00Z"});
    // The newest run is first. Replayed runs keep their ids.
    assert_eq!(test.post("replay", &json!({"filter": filter})).await, json!([other, test.run]));
    assert_eq!(test.get(&format!("tasks/{other}")).await["retryCount"], 1);
    let replayed = test.setup.wire.call("v1.AdminService.ReplayTasks", &json!({"filter": filter})).await.unwrap();
    assert_eq!(replayed["replayed_tasks"], json!([other, test.run]));
    assert_eq!(test.get(&format!("tasks/{other}")).await["retryCount"], 1);
}

#[tokio::test(start_paused = true)]
async fn sleeping_dags_cannot_be_cancelled() {
    let base = json!({"readable_data_key": "sleep", "action": "QUEUE"});
    let mut b = task("b", &["a"]);
    b["conditions"] = json!({"sleep_conditions": [{"base": base, "sleep_for": "3s"}]});
    let test = start(Quirks::none().with(Quirk::UncancellableWaits), &dag(&[task("a", &[]), b])).await;
    test.complete("a", "{}").await;
    let details = test.details(&test.run).await.unwrap();
    assert_eq!((&details["status"], &details["done"]), (&json!("QUEUED"), &json!(false)));
    assert_eq!(details["task_runs"].as_object().unwrap().len(), 1);
    assert_eq!(test.get(&format!("workflow-runs/{}/status", test.run)).await, "RUNNING");

    assert_eq!(test.post("cancel", &json!({"externalIds": [test.run]})).await, json!([test.run]));
    sleep(Duration::from_secs(3)).await;
    test.complete("b", "{}").await;
    assert_eq!(test.details(&test.run).await.unwrap()["status"], "COMPLETED");
}
