//! The two recordings about many runs. What their workers did is not in them, but what came of it is.

use std::time::Duration;

use chrono::TimeDelta;
use hatchet::embedded::Quirks;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::compare::{Compare, Extra};
use super::recording::{FIRST_RUN, created, list, load};
use super::settled::check_list;
use super::stage::{Stage, registration};
use super::wire::{Heard, query};

/// How long the recorded runs took, more or less, and by how much that varied.
const WORK: Duration = Duration::from_millis(200);
const SLACK: TimeDelta = TimeDelta::milliseconds(450);

struct Play {
    stage: Stage,
    recording: Value,
    compare: Compare,
    worker: Heard,
    worker_id: Value,
}

/// A workflow and a worker for it; then all that was triggered.
async fn play(name: &str) -> Play {
    let recording = load(name);
    let stage = Stage::set(Quirks::all(), 7).await;
    let workflow = format!("fx-{name}");
    for suffix in ["", "-nobody"] {
        let name = format!("{workflow}{suffix}");
        stage.put(&super::recording::workflow(&recording, &name, &Value::Null)).await;
    }
    let mut registration = registration(&workflow);
    registration["slot_config"]["default"] = json!(100);
    let (registered, worker) = stage.worker(&registration).await;
    sleep(Duration::from_secs(1)).await;
    let mut compare = Compare::new(created(&recording), stage.now(), SLACK);
    for trigger in list(&recording, "/triggers") {
        let response = stage.wire.call(trigger["rpc"].as_str().unwrap(), &trigger["request"]).await.unwrap();
        compare.check("trigger", Extra::Forbidden, &trigger["response"], &response);
        sleep(Duration::from_millis(20)).await;
    }
    Play { stage, recording, compare, worker, worker_id: registered["worker_id"].clone() }
}

impl Play {
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
                "worker_id": self.worker_id, "event_timestamp": self.stage.now().to_rfc3339(),
                "event_type": format!("STEP_EVENT_TYPE_{kind}"), "event_payload": payload,
            });
            for key in ["job_id", "job_run_id", "task_id", "task_run_external_id", "action_id", "retry_count"] {
                report[key] = action[key].clone();
            }
            self.stage.wire.call("Dispatcher.SendStepActionEvent", &report).await.unwrap();
        }
    }

    async fn check_details(&mut self) {
        for look in list(&self.recording, "/grpc/get_run_details") {
            let request = self.compare.translate(&look["request"], TimeDelta::zero());
            let ours = self.stage.wire.call("v1.AdminService.GetRunDetails", &request).await.unwrap();
            self.compare.check("response", Extra::Forbidden, &look["response"], &ours);
        }
    }

    fn assert_same(&self) {
        assert!(self.compare.differences.is_empty(), "{}", self.compare.differences.join("\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn list_page() {
    let mut play = play("list-page").await;
    play.report("STARTED", |_| None).await;
    sleep(WORK).await;
    play.report("COMPLETED", |_| Some(("COMPLETED", r#"{"doubled": 14}"#))).await;
    sleep(WORK).await;
    play.check_details().await;
    for page in list(&play.recording, "/pages") {
        if let Some((_, kind)) = page["path"].as_str().unwrap().split_once("/workflow-runs/") {
            let target = format!("/api/v1/stable/tenants/{}/workflow-runs/{kind}", play.stage.tenant);
            let (status, _) = play.stage.wire.rest(http::Method::GET, &target, None).await;
            assert_eq!(status, http::StatusCode::NOT_IMPLEMENTED, "it is there now: compare it");
            continue;
        }
        check_list(&play.stage, page, &mut play.compare).await;
    }
    play.assert_same();
}

#[tokio::test(start_paused = true)]
async fn task_metrics() {
    let mut play = play("task-metrics").await;
    play.report("STARTED", |_| None).await;
    sleep(WORK).await;
    play.report("COMPLETED", |at| match at {
        0 | 1 => Some(("COMPLETED", r#"{"ok": true}"#)),
        2 => Some(("FAILED", "fx: it broke")),
        _ => None,
    })
    .await;
    let cancelled = json!({"external_ids": [play.compare.name("00000000-0000-4000-8001-000000000004")]});
    play.stage.wire.call("v1.AdminService.CancelTasks", &cancelled).await.unwrap();
    sleep(WORK).await;
    play.check_details().await;
    // The workflow's id comes from its run.
    let run = play.stage.wire.get(&format!("/api/v1/stable/workflow-runs/{}", play.compare.name(FIRST_RUN))).await;
    play.compare.check(
        "workflow",
        Extra::Allowed,
        &json!("00000000-0000-4000-8004-000000000001"),
        &run["run"]["workflowId"],
    );
    for metrics in list(&play.recording, "/metrics") {
        let parameters = query(&play.compare.translate(&metrics["query"], TimeDelta::zero()));
        let ours = play
            .stage
            .wire
            .get(&format!("/api/v1/stable/tenants/{}/task-metrics?{parameters}", play.stage.tenant))
            .await;
        play.compare.check(metrics["what"].as_str().unwrap(), Extra::Forbidden, &metrics["body"], &ours);
    }
    check_list(&play.stage, &play.recording["list"], &mut play.compare).await;
    play.assert_same();
}
