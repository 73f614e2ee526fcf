//! The REST calls about runs, workflows and workers.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::convert::{LogRow, RestRun, Row, Rows, StatusCount, TaskEvent, WorkflowRow};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{RunId, RunStatus, TaskId, WorkerId, WorkflowId};
use crate::sync::lock;
use crate::time::ServerClock;
use crate::transport::{Call, Caller, RestCall, RestWire, Sent};

/// For how long to try to connect to a REST API that has never responded. Some services can reach only gRPC: for them, calls that need
/// REST must fail soon.
const FIRST_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// For how long no connection is tried again to a REST API that has never responded.
const FIRST_CONNECT_PAUSE: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(crate) struct Rest {
    wire: RestWire,
    caller: Caller,
    tenant: String,
    reachability: Arc<Mutex<Reachability>>,
}

/// Whether the REST API has ever responded.
#[derive(Clone)]
enum Reachability {
    None,
    /// It could not be reached, and must not be tried again before this time.
    Failed(Error, Instant),
    /// Only errors, which can be those of a proxy.
    Responded,
    Succeeded,
}

impl Reachability {
    fn has_responded(&self) -> bool {
        matches!(self, Self::Responded | Self::Succeeded)
    }
}

impl Rest {
    pub(super) fn new(wire: RestWire, caller: Caller, tenant: String) -> Self {
        Self { wire, caller, tenant, reachability: Arc::new(Mutex::new(Reachability::None)) }
    }

    pub(super) fn with(&self, change: impl Fn(&Caller) -> Caller) -> Self {
        Self { caller: change(&self.caller), ..self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Reachability> {
        lock(&self.reachability)
    }

    pub(super) fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The clock of the server.
    pub(crate) fn clock(&self) -> &ServerClock {
        self.wire.clock()
    }

    /// The connection, for the `raw` module.
    #[cfg(feature = "unstable-raw")]
    pub(crate) fn wire(&self) -> &RestWire {
        &self.wire
    }

    /// A run with its tasks. It is not found for about a tenth of a second after its trigger.
    pub(crate) async fn run(&self, run: RunId) -> Result<RestRun> {
        self.read("reading the run", RestCall::get(&["stable", "workflow-runs", &run.to_string()])).await
    }

    /// All events of a task, newest first. The server's own order is not causal.
    pub(crate) async fn task_events(&self, task: TaskId) -> Result<Vec<TaskEvent>> {
        // Without a limit, the server returns no rows.
        let call = RestCall::get(&["stable", "tasks", &task.to_string(), "task-events"]).query("limit", "10000");
        Ok(self.read::<Rows<TaskEvent>>("reading the task's events", call).await?.rows.unwrap_or_default())
    }

    /// Lines of a task's log, oldest first.
    pub(crate) async fn logs(&self, task: TaskId, parameters: &[(&str, String)]) -> Result<Vec<LogRow>> {
        let call = with(RestCall::get(&["stable", "tasks", &task.to_string(), "logs"]), parameters);
        Ok(self.read::<Rows<LogRow>>("reading the task's log", call).await?.rows.unwrap_or_default())
    }

    /// Rows of runs, newest first.
    pub(crate) async fn runs(&self, parameters: &[(&str, String)]) -> Result<Rows<Row>> {
        self.read("listing runs", with(self.tenant_path(&["workflow-runs"]), parameters)).await
    }

    /// Whether the REST API has ever responded.
    pub(crate) fn has_responded(&self) -> bool {
        self.lock().has_responded()
    }

    /// Whether the REST API has ever answered a request.
    pub(crate) fn has_succeeded(&self) -> bool {
        matches!(*self.lock(), Reachability::Succeeded)
    }

    /// Rows of tasks that have not ended, of all runs with a tag that were created since a time, newest first.
    pub(crate) async fn active_tasks(
        &self,
        selection: (&'static str, String),
        since: DateTime<Utc>,
        statuses: &[RunStatus],
        (limit, offset): (usize, usize),
    ) -> Result<Vec<Row>> {
        let mut parameters = vec![
            ("since", since.to_rfc3339_opts(SecondsFormat::Micros, true)),
            ("only_tasks", "true".to_owned()),
            selection,
            ("limit", limit.to_string()),
            ("offset", offset.to_string()),
        ];
        parameters.extend(statuses.iter().map(|status| ("statuses", status.as_str().to_owned())));
        Ok(self.runs(&parameters).await?.rows.unwrap_or_default())
    }

    /// The retention of the tenant's runs, if the server shows it.
    #[cfg(feature = "archive")]
    pub(crate) async fn retention(&self) -> Result<Option<Duration>> {
        const UNITS: &[(&str, f64)] = &[("h", 3600.0), ("ms", 0.001), ("m", 60.0), ("s", 1.0)];
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Tenant {
            data_retention_period: Option<String>,
        }
        let tenant: Tenant = self.read("reading the tenant", RestCall::get(&["tenants", &self.tenant])).await?;
        Ok(tenant.data_retention_period.and_then(|text| crate::time::parse_duration(&text, UNITS)))
    }

    /// Runs counted by status.
    pub(crate) async fn counts(&self, parameters: &[(&str, String)]) -> Result<Vec<StatusCount>> {
        self.read("counting runs", with(self.tenant_path(&["task-metrics"]), parameters)).await
    }

    /// Workflows whose names contain a string in any case.
    pub(crate) async fn workflows(&self, name: &str, offset: usize, limit: usize) -> Result<Vec<WorkflowRow>> {
        let call = RestCall::get(&["tenants", &self.tenant, "workflows"])
            .query("name", name)
            .query("offset", &offset.to_string())
            .query("limit", &limit.to_string());
        Ok(self.read::<Rows<WorkflowRow>>("looking up the workflow", call).await?.rows.unwrap_or_default())
    }

    /// A workflow by its id.
    pub(crate) async fn workflow(&self, workflow: WorkflowId) -> Result<WorkflowRow> {
        self.read("reading the workflow", RestCall::get(&["workflows", &workflow.to_string()])).await
    }

    /// Stops the engine from assigning new tasks to a worker, or lets it assign them again.
    pub(crate) async fn pause_worker(&self, worker: WorkerId, is_paused: bool) -> Result<()> {
        let body = format!(r#"{{"isPaused":{is_paused}}}"#);
        let name = if is_paused { "pausing the worker" } else { "resuming the worker" };
        self.send(name, &RestCall::patch(&["workers", &worker.to_string()], body)).await.map(drop)
    }

    fn tenant_path(&self, rest: &[&str]) -> RestCall {
        RestCall::get(&[&["stable", "tenants", &self.tenant], rest].concat())
    }

    pub(super) async fn read<T: DeserializeOwned>(&self, name: &'static str, call: RestCall) -> Result<T> {
        decode(name, &self.send(name, &call).await?)
    }

    /// Sends a call that can be repeated.
    pub(super) async fn send(&self, name: &'static str, call: &RestCall) -> Result<bytes::Bytes> {
        self.send_as(Call::idempotent(name), call).await
    }

    pub(super) async fn send_as(&self, kind: Call, call: &RestCall) -> Result<bytes::Bytes> {
        let reachability = self.lock().clone();
        if let Reachability::Failed(cause, until) = &reachability
            && Instant::now() < *until
        {
            return Err(self.unreachable(kind.name, cause.clone()).rest_unreached());
        }
        let has_responded = reachability.has_responded();
        let started_at = Instant::now();
        let (gave_up, got_response) = (AtomicBool::new(false), AtomicBool::new(has_responded));
        let response = self
            .caller
            .run(kind, Sent::unknown(), || async {
                let response = self.wire.send(kind.name, call).await;
                response.map_err(|error| {
                    if error.status().is_some() {
                        got_response.store(true, Relaxed);
                    }
                    // There is no connection, and there may never be one.
                    let is_lost = error.is_transient() && error.has_no_side_effects();
                    if got_response.load(Relaxed) || !is_lost || started_at.elapsed() < FIRST_CONNECT_TIMEOUT {
                        return error;
                    }
                    gave_up.store(true, Relaxed);
                    error.permanent()
                })
            })
            .await;
        match response {
            Err(error) if error.status().is_none() => {
                // An error of the configuration has its own text.
                let is_final = !error.is_transient() && !gave_up.load(Relaxed);
                Err(if is_final { error } else { self.unanswered(kind.name, error) })
            }
            response => {
                if response.is_ok() {
                    *self.lock() = Reachability::Succeeded;
                } else if !self.has_responded() {
                    *self.lock() = Reachability::Responded;
                }
                response
            }
        }
    }

    /// The error of a call without a response.
    fn unanswered(&self, name: &str, error: Error) -> Error {
        // A deadline does not mean that the API cannot be reached.
        if error.kind() != ErrorKind::Unavailable {
            return error;
        }
        let never_sent = error.has_no_side_effects();
        let mut reachability = self.lock();
        if never_sent && !reachability.has_responded() {
            *reachability = Reachability::Failed(error.clone(), Instant::now() + FIRST_CONNECT_PAUSE);
            return self.unreachable(name, error).rest_unreached();
        }
        self.unreachable(name, error)
    }

    fn unreachable(&self, name: &str, cause: Error) -> Error {
        let text = format!("{name}: the REST API at {} (server_url) cannot be reached", self.wire.base());
        let never_sent = cause.has_no_side_effects();
        let error = Error::new(ErrorKind::Unavailable, text).with_source(cause).transient();
        if never_sent { error.without_side_effects() } else { error }
    }
}

pub(super) fn decode<T: DeserializeOwned>(name: &str, body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| {
        Error::new(ErrorKind::Decode, format!("failed to decode the response while {name}")).with_source(error)
    })
}

pub(super) fn with(call: RestCall, parameters: &[(&str, String)]) -> RestCall {
    parameters.iter().fold(call, |call, (name, value)| call.query(name, value))
}
