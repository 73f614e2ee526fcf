//! An embedded engine with its clock and workers, and helpers for calls.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use hatchet::embedded::{Engine, EngineBuilder, Quirks};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::wire::{Received, Wire};

/// The query parameter for a window that includes all runs.
pub(crate) const ALL_TIME: &str = "since=2020-01-01T00:00:00Z";

pub(crate) struct Setup {
    pub(crate) wire: Wire,
    pub(crate) tenant: String,
    /// The time at `start`.
    start_time: DateTime<Utc>,
    start: Instant,
    /// The tasks of workers.
    tasks: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    _engine: Arc<Engine>,
}

impl Setup {
    pub(crate) async fn new(quirks: Quirks, seed: u64) -> Self {
        Self::with_builder(Engine::builder().quirks(quirks).seed(seed)).await
    }

    /// Creates an engine that drops old runs.
    pub(crate) async fn keeping(quirks: Quirks, retention: Duration) -> Self {
        Self::with_builder(Engine::builder().quirks(quirks).seed(7).retention(retention)).await
    }

    #[expect(clippy::disallowed_methods, reason = "the engine's clock starts with the wall clock")]
    async fn with_builder(builder: EngineBuilder) -> Self {
        let (start_time, start) = (std::time::SystemTime::now().into(), Instant::now());
        let engine = builder.start().await.unwrap();
        let (wire, tenant) = (Wire::new(engine.client()), engine.tenant_id().to_string());
        Self { wire, tenant, start_time, start, tasks: Mutex::default(), _engine: Arc::new(engine) }
    }

    /// Creates an engine with a single-task workflow.
    pub(crate) async fn with_workflow(quirks: Quirks, name: &str, more: &Value) -> Self {
        let setup = Self::new(quirks, 7).await;
        setup.put(&merged(&super::recording::workflow(&Value::Null, name, &Value::Null), more)).await;
        setup
    }

    /// Sends a REST request, and returns the status and the body. The path is relative to `/api/v1/`, with `{t}` for the tenant.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let target = format!("/api/v1/{}", path.replace("{t}", &self.tenant));
        let body = body.map(|body| Bytes::from(body.to_string()));
        // An empty body is not JSON.
        let (status, bytes) = self.wire.client.raw_rest(method, &target, body).await.unwrap();
        (status.as_u16(), serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// Returns the body of a successful GET request.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.send(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Returns the rows of a list.
    pub(crate) async fn rows(&self, path: &str) -> Vec<Value> {
        self.get(path).await["rows"].as_array().unwrap().clone()
    }

    /// Starts a run.
    pub(crate) async fn trigger(&self, name: &str, more: &Value) -> Result<String, tonic::Status> {
        let request = merged(&json!({"name": name, "input": "{}"}), more);
        let run = self.wire.call("WorkflowService.TriggerWorkflow", &request).await?;
        Ok(run["workflow_run_id"].as_str().unwrap().to_owned())
    }

    /// Starts several runs in one call.
    pub(crate) async fn bulk(&self, requests: Vec<Value>) -> Result<Vec<Value>, tonic::Status> {
        let request = json!({ "workflows": requests });
        let response = self.wire.call("WorkflowService.BulkTriggerWorkflow", &request).await?;
        Ok(response["workflow_run_ids"].as_array().unwrap().clone())
    }

    /// Returns the body of a GET request below `stable/`.
    pub(crate) async fn shown(&self, target: &str) -> Value {
        self.get(&format!("stable/{target}")).await
    }

    /// Lists runs.
    pub(crate) async fn listed(&self, parameters: &str) -> Vec<Value> {
        self.rows(&format!("stable/tenants/{{t}}/workflow-runs?only_tasks=false&{parameters}")).await
    }

    /// Returns the gRPC details of a run.
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
        self.start_time + TimeDelta::from_std(self.start.elapsed()).unwrap()
    }

    pub(crate) async fn put(&self, workflow: &Value) {
        self.wire.call("v1.AdminService.PutWorkflow", workflow).await.unwrap();
    }

    /// Starts a worker that completes all tasks immediately.
    pub(crate) async fn completing_worker(&self, registration: &Value) {
        let (registered, received) = self.worker(registration).await;
        let (wire, mut done) = (self.wire.clone(), 0);
        self.tasks.lock().unwrap().push(tokio::spawn(async move {
            loop {
                for (_, action) in received.messages().into_iter().skip(done) {
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

    /// Registers a worker, opens its stream, and sends heartbeats until the setup is dropped.
    pub(crate) async fn worker(&self, registration: &Value) -> (Value, Received) {
        let registered = self.wire.call("Dispatcher.Register", registration).await.unwrap();
        let request = json!({"worker_id": registered["worker_id"]});
        let received = self.wire.listen("Dispatcher.ListenV2", &request);
        let wire = self.wire.clone();
        self.tasks.lock().unwrap().push(tokio::spawn(async move {
            sleep(Duration::from_millis(1)).await;
            while wire.call("Dispatcher.Heartbeat", &request).await.is_ok() {
                sleep(Duration::from_secs(2)).await;
            }
        }));
        (registered, received)
    }
}

/// Merges two objects. The fields of `more` take precedence.
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

/// A registration for all tasks of these definitions.
pub(crate) fn registration_for(workflow: &str, definitions: &[Value]) -> Value {
    let tasks = definitions
        .iter()
        .flat_map(|definition| definition["tasks"].as_array().unwrap().iter().chain(definition.get("on_failure_task")));
    let mut all = registration(workflow);
    all["actions"] = tasks.filter_map(|task| task.get("action")).cloned().collect();
    all
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.tasks.lock().unwrap().iter().for_each(tokio::task::JoinHandle::abort);
    }
}
