//! An engine, a clock that both sides go by, and a worker that does as it is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use hatchet::embedded::{Engine, Quirks};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::wire::{Heard, Wire};

/// A start that is before everything.
pub(crate) const EVER: &str = "since=2020-01-01T00:00:00Z";

pub(crate) struct Stage {
    pub(crate) wire: Wire,
    pub(crate) tenant: String,
    wall: DateTime<Utc>,
    origin: Instant,
    beats: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    _engine: Arc<Engine>,
}

impl Stage {
    #[expect(clippy::disallowed_methods, reason = "the engine's clock starts with the wall clock")]
    pub(crate) async fn set(quirks: Quirks, seed: u64) -> Self {
        let (wall, origin) = (std::time::SystemTime::now().into(), Instant::now());
        let engine = Engine::builder().quirks(quirks).seed(seed).start().await.unwrap();
        let (wire, tenant) = (Wire::new(engine.client()), engine.tenant().to_string());
        Self { wire, tenant, wall, origin, beats: Mutex::default(), _engine: Arc::new(engine) }
    }

    /// The same, with a workflow of one task.
    pub(crate) async fn with(quirks: Quirks, name: &str, more: &Value) -> Self {
        let stage = Self::set(quirks, 7).await;
        stage.put(&merged(&super::recording::workflow(&Value::Null, name, &Value::Null), more)).await;
        stage
    }

    /// A call of REST, by its path below the version and with `{t}` for the tenant: what it answers, whatever that is.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let target = format!("/api/v1/{}", path.replace("{t}", &self.tenant));
        let body = body.map(|body| Bytes::from(body.to_string()));
        // Nothing at all is no JSON.
        let (status, bytes) = self.wire.client.raw_rest(method, &target, body).await.unwrap();
        (status.as_u16(), serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// What REST shows.
    pub(crate) async fn look(&self, path: &str) -> Value {
        let (status, body) = self.send(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// The rows of what REST shows.
    pub(crate) async fn rows(&self, path: &str) -> Vec<Value> {
        self.look(path).await["rows"].as_array().unwrap().clone()
    }

    /// Starts a run.
    pub(crate) async fn trigger(&self, name: &str, more: &Value) -> Result<String, tonic::Status> {
        let request = merged(&json!({"name": name, "input": "{}"}), more);
        let run = self.wire.call("WorkflowService.TriggerWorkflow", &request).await?;
        Ok(run["workflow_run_id"].as_str().unwrap().to_owned())
    }

    /// Starts several at once.
    pub(crate) async fn bulk(&self, requests: Vec<Value>) -> Result<Vec<Value>, tonic::Status> {
        let request = json!({ "workflows": requests });
        let answer = self.wire.call("WorkflowService.BulkTriggerWorkflow", &request).await?;
        Ok(answer["workflow_run_ids"].as_array().unwrap().clone())
    }

    /// What REST shows of runs and tasks.
    pub(crate) async fn shown(&self, target: &str) -> Value {
        self.look(&format!("stable/{target}")).await
    }

    /// The runs that REST lists.
    pub(crate) async fn listed(&self, parameters: &str) -> Vec<Value> {
        self.rows(&format!("stable/tenants/{{t}}/workflow-runs?only_tasks=false&{parameters}")).await
    }

    /// What gRPC shows of a run.
    pub(crate) async fn details(&self, run: &str) -> Result<Value, tonic::Status> {
        self.wire.call("v1.AdminService.GetRunDetails", &json!({"external_id": run})).await
    }

    /// Reports the end of a task, as a worker would.
    pub(crate) async fn end(&self, task: &str, kind: &str, payload: &str) {
        let report = json!({
            "task_run_external_id": task, "event_type": format!("STEP_EVENT_TYPE_{kind}"), "event_payload": payload,
        });
        self.wire.call("Dispatcher.SendStepActionEvent", &report).await.unwrap();
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.wall + TimeDelta::from_std(self.origin.elapsed()).unwrap()
    }

    pub(crate) async fn put(&self, workflow: &Value) {
        self.wire.call("v1.AdminService.PutWorkflow", workflow).await.unwrap();
    }

    /// A worker that completes all that it gets, at once.
    pub(crate) async fn ordinary_worker(&self, registration: &Value) {
        let (registered, heard) = self.worker(registration).await;
        let (wire, mut done) = (self.wire.clone(), 0);
        self.beats.lock().unwrap().push(tokio::spawn(async move {
            loop {
                for (_, action) in heard.messages().into_iter().skip(done) {
                    done += 1;
                    let report = json!({
                        "worker_id": registered["worker_id"], "task_run_external_id": action["task_run_external_id"],
                        "event_type": "STEP_EVENT_TYPE_COMPLETED", "event_payload": "{\"doubled\": 14}", "retry_count": action["retry_count"],
                    });
                    wire.call("Dispatcher.SendStepActionEvent", &report).await.unwrap();
                }
                sleep(Duration::from_millis(5)).await;
            }
        }));
    }

    /// Registers a worker, listens, and beats for as long as the stage stands.
    pub(crate) async fn worker(&self, registration: &Value) -> (Value, Heard) {
        let registered = self.wire.call("Dispatcher.Register", registration).await.unwrap();
        let request = json!({"worker_id": registered["worker_id"]});
        let heard = self.wire.listen("Dispatcher.ListenV2", &request);
        let wire = self.wire.clone();
        self.beats.lock().unwrap().push(tokio::spawn(async move {
            sleep(Duration::from_millis(1)).await;
            while wire.call("Dispatcher.Heartbeat", &request).await.is_ok() {
                sleep(Duration::from_secs(2)).await;
            }
        }));
        (registered, heard)
    }
}

/// An object with the fields of another beside and before its own.
pub(crate) fn merged(base: &Value, more: &Value) -> Value {
    let mut all = base.clone();
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

/// A registration like those of the recordings.
pub(crate) fn registration(workflow: &str) -> Value {
    json!({
        "worker_name": format!("{workflow}-worker"), "actions": [format!("{workflow}:work")],
        "services": ["default"], "slot_config": {"default": 10}, "labels": {},
    })
}

/// A registration for all tasks of some definitions.
pub(crate) fn registration_for(workflow: &str, definitions: &[Value]) -> Value {
    let tasks = definitions
        .iter()
        .flat_map(|definition| definition["tasks"].as_array().unwrap().iter().chain(definition.get("on_failure_task")));
    let mut all = registration(workflow);
    all["actions"] = tasks.filter_map(|task| task.get("action")).cloned().collect();
    all
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.beats.lock().unwrap().iter().for_each(tokio::task::JoinHandle::abort);
    }
}
