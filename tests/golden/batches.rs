//! Batch tasks: their definitions, and what a worker gets and reports.

use std::time::Duration;

use hatchet::embedded::Quirks;
use serde_json::{Value, json};
use tokio::time::sleep;
use tonic::Code;

use super::recording::workflow;
use super::setup::{Setup, registration};

const NAME: &str = "fx";

fn batched(batch: &Value) -> Value {
    workflow(&Value::Null, NAME, &json!({ "batch": batch }))
}

async fn setup(batch: &Value) -> Setup {
    let setup = Setup::new(Quirks::none(), 7).await;
    setup.put(&batched(batch)).await;
    setup
}

impl Setup {
    async fn start_runs(&self, inputs: &[&str]) -> Vec<String> {
        let requests = inputs.iter().map(|input| json!({"name": NAME, "input": input})).collect();
        self.bulk(requests).await.unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    }

    async fn status(&self, run: &str) -> Value {
        self.shown(&format!("workflow-runs/{run}/status")).await
    }

    async fn event_types(&self, task: &str) -> Vec<String> {
        let mut events = self.rows(&format!("stable/tasks/{task}/task-events?limit=50")).await;
        events.sort_by_key(|event| event["id"].as_i64());
        events.iter().map(|event| event["eventType"].as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn invalid_sizes_are_rejected() {
    let setup = Setup::new(Quirks::all(), 7).await;
    let start = "Validation failed with the following errors:\n0: validation failed on field \
                 'CreateWorkflowVersionOpts.Tasks[0].BatchConfig.";
    for (batch, problem) in [
        (json!({}), "BatchMaxSize': on condition 'required'\n"),
        (json!({"batch_max_size": 0}), "BatchMaxSize': on condition 'required'\n"),
        (json!({"batch_max_size": 100_001}), "BatchMaxSize': on condition 'max' [ 100000 ]: got invalid type\n"),
        (
            json!({"batch_max_size": 1, "batch_max_interval_ms": 0}),
            "BatchMaxInterval': on condition 'min' [ 1 ]: got invalid type\n",
        ),
        (
            json!({"batch_max_size": 1, "batch_group_max_runs": 10_001}),
            "BatchGroupMaxRuns': on condition 'max' [ 10000 ]: got invalid type\n",
        ),
    ] {
        let rejection = setup.wire.call("v1.AdminService.PutWorkflow", &batched(&batch)).await.unwrap_err();
        assert_eq!(rejection.code(), Code::InvalidArgument);
        assert!(rejection.message().contains(&format!("{start}{problem}")), "{rejection}");
    }
    setup.put(&batched(&json!({"batch_max_size": 100_000, "broadcast_output": true}))).await;
}

#[tokio::test(start_paused = true)]
async fn defaults_are_the_same_version_as_no_options() {
    let setup = Setup::new(Quirks::none(), 7).await;
    let defaults = json!({
        "batch_max_size": 2, "batch_max_interval_ms": 1000, "batch_group_key": "'default'", "batch_group_max_runs": 100,
        "broadcast_output": false,
    });
    let mut versions = Vec::new();
    for batch in [json!({"batch_max_size": 2}), defaults, json!({"batch_max_size": 3})] {
        versions.push(setup.wire.call("v1.AdminService.PutWorkflow", &batched(&batch)).await.unwrap()["id"].clone());
    }
    assert!(versions[0] == versions[1] && versions[1] != versions[2]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_gets_one_action_and_reports_each_task() {
    let setup = setup(&json!({"batch_max_size": 3, "batch_group_key": "input.k"})).await;
    let (worker, received) = setup.worker(&registration(NAME)).await;
    sleep(Duration::from_secs(1)).await;
    let runs = setup.start_runs(&[r#"{"k":"a"}"#; 3]).await;
    sleep(Duration::from_secs(1)).await;
    let messages = received.messages();
    let [(_, action)] = &*messages else { panic!("{messages:?}") };
    let mut fields: Vec<_> = action.as_object().unwrap().iter().filter(|(_, value)| !is_default(value)).collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["action_id", "action_payload", "action_type", "batchId", "batchKey", "batchStartPayload", "tenant_id"],
        "{action}"
    );
    assert_eq!(
        (&action["action_type"], &action["action_id"], &action["batchKey"]),
        (&json!("START_BATCH"), &json!("fx:work"), &json!("a"))
    );
    let start = &action["batchStartPayload"];
    assert_eq!(
        (&start["triggerReason"], &start["expectedSize"]),
        (&json!("batch size threshold 3 reached"), &json!(3))
    );
    let payload: Value = serde_json::from_str(action["action_payload"].as_str().unwrap()).unwrap();
    assert_eq!(payload.as_object().unwrap().len(), 3);
    for run in &runs {
        assert_eq!(payload[run]["workflow_run_id"], json!(run));
        assert_eq!(payload[run]["payload"]["input"], json!({"k": "a"}));
        assert_eq!(setup.status(run).await, "RUNNING");
    }
    // One by itself, and the others together.
    setup.end(&runs[0], "COMPLETED", "{}").await;
    let items = [(&runs[1], r#"{"x":1}"#), (&runs[2], "{}")];
    let items = items.map(|(run, output)| json!({"task_run_external_id": run, "event_payload": output}));
    let report = json!({
        "worker_id": worker["worker_id"], "batch_id": action["batchId"], "event_type": "STEP_EVENT_TYPE_COMPLETED",
        "items": items,
    });
    setup.wire.call("Dispatcher.SendBatchActionEvent", &report).await.unwrap();
    for run in &runs {
        assert_eq!(setup.status(run).await, "COMPLETED");
    }
    assert_eq!(setup.event_types(&runs[1]).await, ["QUEUED", "WAITING_FOR_BATCH", "BATCH_FLUSHED", "FINISHED"]);
}

fn is_default(value: &Value) -> bool {
    matches!(value, Value::Null) || *value == json!("") || *value == json!(0)
}
