//! The REST calls that gRPC has no counterpart for.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::rest_types::{LogRow, Row, Rows, Run, StatusCount, TaskEvent, WorkflowRow};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Call, Caller, RestCall, RestWire};

/// The deadline of a call while the REST API has never answered. Some services can reach the gRPC port only; their calls that
/// need REST should fail soon.
const UNREACHED_TIMEOUT: Duration = Duration::from_secs(3);
/// How long calls fail immediately after a REST API that has never answered could not be reached.
const UNREACHED_RETRY_PAUSE: Duration = Duration::from_secs(10);

pub(crate) struct Rest {
    wire: RestWire,
    caller: Caller,
    tenant: String,
    reachability: Mutex<Reachability>,
}

/// Whether the REST API has ever answered.
#[derive(Clone)]
enum Reachability {
    None,
    /// It could not be reached. Calls fail with this error until this time.
    Failed(Error, Instant),
    Answered,
}

impl Rest {
    pub(super) fn new(wire: RestWire, caller: Caller, tenant: String) -> Self {
        Self { wire, caller, tenant, reachability: Mutex::new(Reachability::None) }
    }

    /// Whether an error means that the REST API cannot be reached and has never answered.
    pub(crate) fn is_unreachable(&self, error: &Error) -> bool {
        error.kind() == ErrorKind::Unavailable && matches!(*self.lock(), Reachability::Failed(..))
    }

    fn lock(&self) -> MutexGuard<'_, Reachability> {
        self.reachability.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The wire, for those who make calls of their own.
    #[cfg(feature = "unstable-raw")]
    pub(crate) fn wire(&self) -> &RestWire {
        &self.wire
    }

    /// A run with its tasks. Not found for about a tenth of a second after its trigger.
    pub(crate) async fn run(&self, run: &str) -> Result<Run> {
        self.read("reading the run", RestCall::get(&["stable", "workflow-runs", run])).await
    }

    /// All events of a task, newest first. The server's own order is not causal.
    pub(crate) async fn task_events(&self, task: &str) -> Result<Vec<TaskEvent>> {
        // Without a limit the server answers no rows at all.
        let call = RestCall::get(&["stable", "tasks", task, "task-events"]).query("limit", "10000");
        Ok(self.read::<Rows<TaskEvent>>("reading the task's events", call).await?.rows.unwrap_or_default())
    }

    /// Lines of a task's log, oldest first.
    pub(crate) async fn logs(&self, task: &str, parameters: &[(&str, String)]) -> Result<Vec<LogRow>> {
        let call = with(RestCall::get(&["stable", "tasks", task, "logs"]), parameters);
        Ok(self.read::<Rows<LogRow>>("reading the task's log", call).await?.rows.unwrap_or_default())
    }

    /// Rows of runs, newest first.
    pub(crate) async fn runs(&self, parameters: &[(&str, String)]) -> Result<Rows<Row>> {
        self.read("listing runs", with(self.tenant_path(&["workflow-runs"]), parameters)).await
    }

    /// Runs counted by status.
    pub(crate) async fn counts(&self, parameters: &[(&str, String)]) -> Result<Vec<StatusCount>> {
        self.read("counting runs", with(self.tenant_path(&["task-metrics"]), parameters)).await
    }

    /// Workflows whose names contain a text, whatever its case.
    pub(crate) async fn workflows(&self, name: &str, offset: usize, limit: usize) -> Result<Vec<WorkflowRow>> {
        let call = RestCall::get(&["tenants", &self.tenant, "workflows"])
            .query("name", name)
            .query("offset", &offset.to_string())
            .query("limit", &limit.to_string());
        Ok(self.read::<Rows<WorkflowRow>>("looking up the workflow", call).await?.rows.unwrap_or_default())
    }

    /// Stops the server from giving a worker new tasks.
    pub(crate) async fn pause_worker(&self, worker: &str) -> Result<()> {
        let call = RestCall::patch(&["workers", worker], r#"{"isPaused":true}"#.into());
        self.send("pausing the worker", &call).await.map(drop)
    }

    fn tenant_path(&self, rest: &[&str]) -> RestCall {
        RestCall::get(&[&["stable", "tenants", &self.tenant], rest].concat())
    }

    pub(super) async fn read<T: DeserializeOwned>(&self, name: &'static str, call: RestCall) -> Result<T> {
        decode(name, &self.send(name, &call).await?)
    }

    /// All of these read, or set what is the same when set again.
    pub(super) async fn send(&self, name: &'static str, call: &RestCall) -> Result<bytes::Bytes> {
        self.send_as(Call::idempotent(name), call).await
    }

    pub(super) async fn send_as(&self, mut kind: Call, call: &RestCall) -> Result<bytes::Bytes> {
        let reachability = self.lock().clone();
        match reachability {
            Reachability::Answered => {}
            Reachability::Failed(error, until) if Instant::now() < until => return Err(error),
            Reachability::None | Reachability::Failed(..) => {
                kind = kind.within(kind.deadline.unwrap_or(UNREACHED_TIMEOUT).min(UNREACHED_TIMEOUT));
            }
        }
        let answer = self.caller.run(kind, || self.wire.send(kind.name, call)).await;
        let has_answered = answer.as_ref().map_or_else(|error| error.answer().is_some(), |_| true);
        if has_answered {
            *self.lock() = Reachability::Answered;
            return answer;
        }
        answer.map_err(|error| self.unanswered(kind.name, error))
    }

    /// The error of a call that was not answered.
    fn unanswered(&self, name: &str, error: Error) -> Error {
        // A permanent error already has the reason.
        if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) || !error.is_transient() {
            return error;
        }
        let mut reachability = self.lock();
        // An API that has answered before is slow or restarting.
        if error.is_timeout() && matches!(*reachability, Reachability::Answered) {
            return error;
        }
        let never_sent = error.never_reached_server();
        let text = format!("{name}: the REST API at {} cannot be reached", self.wire.base());
        let mut unreachable = Error::new(ErrorKind::Unavailable, text).with_source(error).transient();
        if never_sent {
            unreachable = unreachable.unsent();
        }
        if !matches!(*reachability, Reachability::Answered) {
            *reachability = Reachability::Failed(unreachable.clone(), Instant::now() + UNREACHED_RETRY_PAUSE);
        }
        unreachable
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
