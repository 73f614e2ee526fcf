//! Measured behavior of pauses of workflows, slots of several types and released slots that is in no recording.

use std::time::Duration;

use hatchet::embedded::{Quirk, Quirks};
use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;
use tonic::Code;

use super::setup::{Setup, merged, registration};

const NAME: &str = "fx";

async fn setup(quirks: Quirks, more: &Value) -> Setup {
    let setup = Setup::with_workflow(quirks, NAME, &json!({})).await;
    let task = merged(&json!({"readable_id": "work", "action": "fx:work", "timeout": "1h"}), more);
    setup.put(&json!({"name": NAME, "tasks": [task]})).await;
    setup
}

fn pause(ttl: &str) -> Value {
    json!({"pause": {
        "action": "pause", "pausedWorkflowCronRunQueueBehavior": "QUEUE",
        "pausedWorkflowScheduledRunQueueBehavior": "DROP", "pausedWorkflowQueueTTL": ttl,
    }})
}

impl Setup {
    async fn workflow(&self) -> String {
        self.rows("tenants/{t}/workflows").await[0]["metadata"]["id"].as_str().unwrap().to_owned()
    }

    async fn update_workflow(&self, id: &str, body: Value) -> (u16, Value) {
        self.send(Method::PATCH, &format!("workflows/{id}"), Some(body)).await
    }

    async fn both(&self, run: &str) -> (Value, Value) {
        let rest = self.shown(&format!("workflow-runs/{run}")).await["run"]["status"].clone();
        (self.details(run).await.unwrap()["status"].clone(), rest)
    }

    async fn release(&self, task: &str) -> Result<Value, tonic::Status> {
        self.wire.call("Dispatcher.ReleaseSlot", &json!({"task_run_external_id": task})).await
    }

    async fn slots(&self, worker: &Value) -> Value {
        let id = worker["worker_id"].as_str().unwrap();
        self.get(&format!("workers/{id}")).await["slotConfig"].clone()
    }
}

fn same(status: &str) -> (Value, Value) {
    (json!(status), json!(status))
}

#[tokio::test(start_paused = true)]
async fn updates_of_a_workflow_are_checked() {
    let setup = setup(Quirks::all(), &json!({})).await;
    let id = setup.workflow().await;
    let unknown = "1c2d3e4f-0000-4000-8000-000000000001";
    assert_eq!(setup.update_workflow(unknown, pause("1m")).await.0, 404);
    let without = json!({"pause": {"action": "pause"}});
    let other = json!({"pause": {"action": "stop"}});
    for invalid in [json!({}), without, other] {
        assert_eq!(setup.update_workflow(&id, invalid).await.0, 500);
    }
    for valid in [pause("soon"), pause("1m"), pause("1m")] {
        let (status, body) = setup.update_workflow(&id, valid).await;
        assert_eq!((status, &body["isPaused"], &body["name"]), (200, &json!(true), &json!(NAME)));
        for shown in
            [body, setup.get(&format!("workflows/{id}")).await, setup.rows("tenants/{t}/workflows").await.remove(0)]
        {
            let behaviors =
                ["Cron", "Scheduled"].map(|kind| shown[format!("pausedWorkflow{kind}RunQueueBehavior")].clone());
            assert_eq!((&shown["isPaused"], behaviors), (&json!(true), [json!("QUEUE"), json!("DROP")]));
            assert_eq!(shown.get("pausedWorkflowQueueTTL"), None);
        }
    }
    for _ in 0..2 {
        let (status, body) = setup.update_workflow(&id, json!({"pause": {"action": "unpause"}})).await;
        assert_eq!((status, &body["isPaused"]), (200, &json!(false)));
        assert_eq!(body.get("pausedWorkflowCronRunQueueBehavior"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn runs_of_a_paused_workflow_wait_or_expire() {
    let setup = setup(Quirks::all(), &json!({})).await;
    setup.worker(&registration(NAME)).await;
    let id = setup.workflow().await;
    setup.update_workflow(&id, pause("1h")).await;
    let run = setup.trigger(NAME, &json!({})).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(setup.both(&run).await, same("QUEUED"));
    let events = setup.rows(&format!("stable/tasks/{run}/task-events?limit=9")).await;
    assert_eq!((events.len(), &events[0]["eventType"]), (1, &json!("QUEUED")));
    setup.update_workflow(&id, json!({"pause": {"action": "unpause"}})).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(setup.both(&run).await, same("RUNNING"));
    sleep(Duration::from_secs(6)).await;
    setup.update_workflow(&id, pause("3s")).await;
    let run = setup.trigger(NAME, &json!({})).await.unwrap();
    sleep(Duration::from_secs(4)).await;
    assert_eq!(setup.both(&run).await, same("CANCELLED"));
    let events = setup.rows(&format!("stable/tasks/{run}/task-events?limit=9")).await;
    assert_eq!(events[0]["message"], "paused workflow queue item TTL expired.");
    assert_eq!(setup.details(&run).await.unwrap()["task_runs"]["work"]["error"], "");
}

#[tokio::test(start_paused = true)]
async fn a_task_takes_the_slots_that_it_requests() {
    for (requests, default, gpu) in [
        (json!({"default": 2}), json!({"available": 1, "limit": 5}), 2),
        (json!({"gpu": 1}), json!({"available": 3, "limit": 5}), 0),
    ] {
        let setup = setup(Quirks::all(), &json!({"slot_requests": requests})).await;
        let slots = json!({"slot_config": {"default": 5, "gpu": 2}});
        let (worker, received) = setup.worker(&merged(&registration(NAME), &slots)).await;
        sleep(Duration::from_secs(1)).await;
        for _ in 0..4 {
            setup.trigger(NAME, &json!({})).await.unwrap();
        }
        sleep(Duration::from_secs(1)).await;
        assert_eq!(received.messages().len(), 2);
        let shown = setup.slots(&worker).await;
        assert_eq!((&shown["default"], &shown["gpu"]["available"]), (&default, &json!(gpu)));
    }
    let setup = Setup::new(Quirks::all(), 7).await;
    for (requests, problem) in [
        (json!({"gpu": 0}), "SlotRequests[gpu]': on condition 'gt' [ 0 ]: got invalid type"),
        (json!({"gpu": -1}), "SlotRequests[gpu]': on condition 'gt' [ 0 ]: got invalid type"),
        (json!({"": 1}), "SlotRequests[]': on condition 'required'"),
    ] {
        let task = json!({"readable_id": "work", "action": "fx:work", "slot_requests": requests});
        let definition = json!({"name": NAME, "tasks": [task]});
        let rejection = setup.wire.call("v1.AdminService.PutWorkflow", &definition).await.unwrap_err();
        let text = format!(
            "Validation failed with the following errors:\n0: validation failed on field 'CreateWorkflowVersionOpts.Tasks[0].{problem}\n"
        );
        assert_eq!((rejection.code(), rejection.message()), (Code::InvalidArgument, &*text));
    }
}

#[tokio::test(start_paused = true)]
async fn a_released_slot_is_not_free_before_the_end() {
    for quirks in [Quirks::all(), Quirks::all().without(Quirk::UnreleasedSlots)] {
        let setup = setup(quirks, &json!({})).await;
        let (worker, received) =
            setup.worker(&merged(&registration(NAME), &json!({"slot_config": {"default": 1}}))).await;
        sleep(Duration::from_secs(1)).await;
        let run = setup.trigger(NAME, &json!({})).await.unwrap();
        let other = setup.trigger(NAME, &json!({})).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        setup.release(&run).await.unwrap();
        sleep(Duration::from_secs(20)).await;
        let events = setup.rows(&format!("stable/tasks/{run}/task-events?limit=9")).await;
        assert!(events.iter().any(|event| event["eventType"] == "SLOT_RELEASED"));
        assert_eq!(setup.both(&run).await, same("RUNNING"));
        let waits = quirks == Quirks::all();
        assert_eq!(setup.both(&other).await, same(if waits { "QUEUED" } else { "RUNNING" }));
        assert_eq!(setup.slots(&worker).await["default"]["available"], 0);
        setup.end(&run, "COMPLETED", "{}").await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(setup.both(&other).await, same("RUNNING"));
        assert_eq!(received.messages().len(), 2);
        for task in [&run, "1c2d3e4f-0000-4000-8000-000000000001"] {
            let rejection = setup.release(task).await.unwrap_err();
            assert_eq!(
                (rejection.code(), rejection.message()),
                (Code::NotFound, &*format!("task run not found: {task}"))
            );
        }
        let rejection = setup.release("zz").await.unwrap_err();
        let text = "invalid task external run id zz: invalid UUID length: 2";
        assert_eq!((rejection.code(), rejection.message()), (Code::InvalidArgument, text));
    }
}
