//! The two recordings about many runs. They contain the results of the workers, but not their calls.

use std::time::Duration;

use chrono::TimeDelta;
use hatchet::embedded::Quirks;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::compare::{Compare, Extra};
use super::final_state::check_list;
use super::recording::{FIRST_RUN, created, list, load};
use super::setup::{Setup, registration};
use super::wire::{Received, query};

/// The approximate duration of the recorded runs.
const RUN_TIME: Duration = Duration::from_millis(200);
/// The variation of that duration.
const TOLERANCE: TimeDelta = TimeDelta::milliseconds(450);

struct ListTest {
    setup: Setup,
    recording: Value,
    compare: Compare,
    worker: Received,
    worker_id: Value,
}

/// Creates an engine with a workflow and a worker, and starts the recorded runs.
async fn start(name: &str) -> ListTest {
    let recording = load(name);
    let setup = Setup::new(Quirks::all(), 7).await;
    let workflow = format!("fx-{name}");
    for suffix in ["", "-nobody"] {
        let name = format!("{workflow}{suffix}");
        setup.put(&super::recording::workflow(&recording, &name, &Value::Null)).await;
    }
    let mut registration = registration(&workflow);
    registration["slot_config"]["default"] = json!(100);
    let (registered, worker) = setup.worker(&registration).await;
    sleep(Duration::from_secs(1)).await;
    let mut compare = Compare::new(created(&recording), setup.now(), TOLERANCE);
    for trigger in list(&recording, "/triggers") {
        let response = setup.wire.call(trigger["rpc"].as_str().unwrap(), &trigger["request"]).await.unwrap();
        compare.check("trigger", Extra::Forbidden, &trigger["response"], &response);
        sleep(Duration::from_millis(20)).await;
    }
    ListTest { setup, recording, compare, worker, worker_id: registered["worker_id"].clone() }
}

impl ListTest {
    async fn report(&self, kind: &str, payload: impl Fn(usize) -> Option<(&'static str, &'static str)>) {
        for (at, (_, action)) in self
            .worker
            .messages()
            .into_iter()
            .filter(|(_, action)| action["action_type"] == "START_STEP_RUN")
            .enumerate()
        {
            let (kind, payload) = match payload(at) {
                Some(both) => both,
                None if kind == "STARTED" => (kind, ""),
                None => continue,
            };
            let mut report = json!({
                "worker_id": self.worker_id, "event_timestamp": self.setup.now().to_rfc3339(),
                "event_type": format!("STEP_EVENT_TYPE_{kind}"), "event_payload": payload,
            });
            for key in ["job_id", "job_run_id", "task_id", "task_run_external_id", "action_id", "retry_count"] {
                report[key] = action[key].clone();
            }
            self.setup.wire.call("Dispatcher.SendStepActionEvent", &report).await.unwrap();
        }
    }

    async fn check_details(&mut self) {
        for recorded in list(&self.recording, "/grpc/get_run_details") {
            let request = self.compare.translate(&recorded["request"], TimeDelta::zero());
            let ours = self.setup.wire.call("v1.AdminService.GetRunDetails", &request).await.unwrap();
            self.compare.check("response", Extra::Forbidden, &recorded["response"], &ours);
        }
    }

    fn assert_same(&self) {
        assert!(self.compare.differences.is_empty(), "{}", self.compare.differences.join("\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn lists_match_the_recording() {
    let mut test = start("list-page").await;
    test.report("STARTED", |_| None).await;
    sleep(RUN_TIME).await;
    test.report("COMPLETED", |_| Some(("COMPLETED", r#"{"doubled": 14}"#))).await;
    sleep(RUN_TIME).await;
    test.check_details().await;
    for page in list(&test.recording, "/pages") {
        if let Some((_, kind)) = page["path"].as_str().unwrap().split_once("/workflow-runs/") {
            let target = format!("/api/v1/stable/tenants/{}/workflow-runs/{kind}", test.setup.tenant);
            let (status, _) = test.setup.wire.rest(http::Method::GET, &target, None).await;
            assert_eq!(status, http::StatusCode::NOT_IMPLEMENTED, "the route is implemented now: compare its response");
            continue;
        }
        check_list(&test.setup, page, &mut test.compare).await;
    }
    test.assert_same();
}

#[tokio::test(start_paused = true)]
async fn task_metrics_match_the_recording() {
    let mut test = start("task-metrics").await;
    test.report("STARTED", |_| None).await;
    sleep(RUN_TIME).await;
    test.report("COMPLETED", |at| match at {
        0 | 1 => Some(("COMPLETED", r#"{"ok": true}"#)),
        2 => Some(("FAILED", "fx: it broke")),
        _ => None,
    })
    .await;
    let cancelled = json!({"external_ids": [test.compare.name("00000000-0000-4000-8001-000000000004")]});
    test.setup.wire.call("v1.AdminService.CancelTasks", &cancelled).await.unwrap();
    sleep(RUN_TIME).await;
    test.check_details().await;
    // The id of the workflow is in the details of its run.
    let run = test.setup.wire.get(&format!("/api/v1/stable/workflow-runs/{}", test.compare.name(FIRST_RUN))).await;
    test.compare.check(
        "workflow",
        Extra::Allowed,
        &json!("00000000-0000-4000-8004-000000000001"),
        &run["run"]["workflowId"],
    );
    for metrics in list(&test.recording, "/metrics") {
        let parameters = query(&test.compare.translate(&metrics["query"], TimeDelta::zero()));
        let ours = test
            .setup
            .wire
            .get(&format!("/api/v1/stable/tenants/{}/task-metrics?{parameters}", test.setup.tenant))
            .await;
        test.compare.check(metrics["what"].as_str().unwrap(), Extra::Forbidden, &metrics["body"], &ours);
    }
    check_list(&test.setup, &test.recording["list"], &mut test.compare).await;
    test.assert_same();
}
