//! `Dispatcher`: the worker's side, and the streams about runs.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_core::Stream;
use futures_util::{StreamExt as _, TryFutureExt as _};
use prost::Message as _;

use super::convert::{Action, NewWorker, Report, RunEvent, RunResults};
use super::pb::{
    ActionEventResponse, AssignedAction, BatchActionEvent, GetVersionRequest, GetVersionResponse, HeartbeatRequest,
    HeartbeatResponse, RefreshTimeoutRequest, RefreshTimeoutResponse, ReleaseSlotRequest, ReleaseSlotResponse,
    StepActionEvent, SubscribeToWorkflowEventsRequest, SubscribeToWorkflowRunsRequest, UpsertWorkerLabelsRequest,
    UpsertWorkerLabelsResponse, WorkerListenRequest, WorkerRegisterRequest, WorkerRegisterResponse,
    WorkerUnsubscribeRequest, WorkerUnsubscribeResponse, WorkflowEvent, WorkflowRunEvent,
};
use super::version::KnownVersion;
use super::{Method, Streams, Unary};
use crate::error::{ErrorKind, Result};
use crate::model::{LabelValue, RunId, TaskId, WorkerId, parse_id};
use crate::time::{format_duration, from_proto, to_proto};
use crate::transport::{Call, Caller, Messages, Sent};

/// The deadline of a heartbeat. It is short, because the next one is due soon.
const HEARTBEAT_DEADLINE: Duration = Duration::from_secs(2);

/// Each call creates a worker with a new id. A worker that is not used is harmless.
static REGISTER: Method<WorkerRegisterRequest, WorkerRegisterResponse> =
    Method::idempotent("Register", "/Dispatcher/Register");
/// The worker sends a report again if it was not accepted: it keeps the order of reports, and it may have to send others first.
static REPORT: Method<StepActionEvent, ActionEventResponse> =
    Method::single("SendStepActionEvent", "/Dispatcher/SendStepActionEvent");
static REPORT_BATCH: Method<BatchActionEvent, ActionEventResponse> =
    Method::single("SendBatchActionEvent", "/Dispatcher/SendBatchActionEvent");
/// Each call adds to the timeout.
static REFRESH_TIMEOUT: Method<RefreshTimeoutRequest, RefreshTimeoutResponse> =
    Method::once("RefreshTimeout", "/Dispatcher/RefreshTimeout");
static RELEASE_SLOT: Method<ReleaseSlotRequest, ReleaseSlotResponse> =
    Method::idempotent("ReleaseSlot", "/Dispatcher/ReleaseSlot");
static PUT_LABELS: Method<UpsertWorkerLabelsRequest, UpsertWorkerLabelsResponse> =
    Method::idempotent("UpsertWorkerLabels", "/Dispatcher/UpsertWorkerLabels");
static UNSUBSCRIBE: Method<WorkerUnsubscribeRequest, WorkerUnsubscribeResponse> =
    Method::idempotent("Unsubscribe", "/Dispatcher/Unsubscribe");
/// Not retried: the next one is due soon. So heartbeats during an outage do not use up the retry budget of other calls.
static HEARTBEAT: Method<HeartbeatRequest, HeartbeatResponse> =
    Method::new(Call::single("Heartbeat").within(HEARTBEAT_DEADLINE), "/Dispatcher/Heartbeat");
static GET_VERSION: Method<GetVersionRequest, GetVersionResponse> =
    Method::idempotent("GetVersion", "/Dispatcher/GetVersion");

/// The owner of a stream reopens it.
static LISTEN: Method<WorkerListenRequest, AssignedAction> = Method::single("ListenV2", "/Dispatcher/ListenV2");
static RUN_RESULTS: Method<SubscribeToWorkflowRunsRequest, WorkflowRunEvent> =
    Method::single("SubscribeToWorkflowRuns", "/Dispatcher/SubscribeToWorkflowRuns");
static RUN_EVENTS: Method<SubscribeToWorkflowEventsRequest, WorkflowEvent> =
    Method::single("SubscribeToWorkflowEvents", "/Dispatcher/SubscribeToWorkflowEvents");

#[derive(Clone)]
pub(crate) struct Dispatcher {
    unary: Unary,
    streams: Streams,
    version: KnownVersion,
}

impl Dispatcher {
    pub(super) fn new(unary: Unary, streams: Streams) -> Self {
        Self { unary, streams, version: KnownVersion::default() }
    }

    pub(super) fn with(&self, change: impl Fn(&Caller) -> Caller) -> Self {
        Self { unary: self.unary.with(change), ..self.clone() }
    }

    /// The version of the engine, as it reports it. `None` for very old engines, which cannot report it. The engine is asked again after
    /// five minutes.
    pub(crate) async fn version(&self) -> Result<Option<String>> {
        let ask = || {
            let unary = self.unary.clone();
            async move {
                match unary.call(&GET_VERSION, GetVersionRequest {}).await {
                    Ok(response) => Ok(Some(response.version)),
                    // Not one of a proxy.
                    Err(error) if error.kind() == ErrorKind::Unimplemented && error.grpc_code().is_some() => Ok(None),
                    Err(error) => Err(error),
                }
            }
        };
        self.version.get(ask).await
    }

    /// Registers a worker, and returns its id.
    pub(crate) async fn register(&self, worker: NewWorker) -> Result<WorkerId> {
        parse_id(&self.unary.call(&REGISTER, worker.into()).await?.worker_id)
    }

    pub(crate) async fn report(&self, report: &Report) -> Result<()> {
        let event = &report.event;
        let frame = self.unary.encode(&REPORT, event.encoded_len(), |message| event.encode(message));
        self.unary.send(&REPORT, frame).await.map(drop)
    }

    /// Sends reports of one worker and one kind in one call. All or none are accepted.
    pub(crate) fn report_batch(
        &self,
        mut reports: Vec<&mut Report>,
        at: DateTime<Utc>,
    ) -> impl Future<Output = Result<()>> + Send + use<'_> {
        let batch = Report::batch(reports.iter_mut().map(|report| &mut **report), at);
        let frame = self.unary.encode(&REPORT_BATCH, batch.encoded_len(), |message| batch.encode(message));
        Report::restore(reports.into_iter(), batch);
        self.unary.send(&REPORT_BATCH, frame).map_ok(drop)
    }

    /// Extends the execution timeout of a running attempt, and returns when it ends now.
    pub(crate) async fn refresh_timeout(&self, task: TaskId, by: Duration) -> Result<Option<DateTime<Utc>>> {
        let request =
            RefreshTimeoutRequest { task_run_external_id: task.into(), increment_timeout_by: format_duration(by) };
        Ok(self.unary.call(&REFRESH_TIMEOUT, request).await?.timeout_at.and_then(from_proto))
    }

    /// Asks the engine to free the slot of a running attempt.
    pub(crate) async fn release_slot(&self, task: TaskId) -> Result<()> {
        self.unary.call(&RELEASE_SLOT, ReleaseSlotRequest { task_run_external_id: task.into() }).await.map(drop)
    }

    /// Adds labels to a worker, or changes their values. Other labels stay.
    pub(crate) async fn put_labels(&self, worker: WorkerId, labels: BTreeMap<String, LabelValue>) -> Result<()> {
        let labels = labels.into_iter().map(|(key, value)| (key, value.into())).collect();
        self.unary.call(&PUT_LABELS, UpsertWorkerLabelsRequest { worker_id: worker.into(), labels }).await.map(drop)
    }

    pub(crate) async fn unsubscribe(&self, worker: WorkerId) -> Result<()> {
        self.unary.call(&UNSUBSCRIBE, WorkerUnsubscribeRequest { worker_id: worker.into() }).await.map(drop)
    }

    pub(crate) async fn heartbeat(&self, worker: WorkerId, at: DateTime<Utc>) -> Result<()> {
        let request = HeartbeatRequest { worker_id: worker.into(), heartbeat_at: Some(to_proto(at)) };
        self.unary.call(&HEARTBEAT, request).await.map(drop)
    }

    /// Closes the connections of all services that were established at least this long ago. The next call establishes another one. Returns
    /// whether there were any.
    pub(crate) fn close_connections(&self, age: Duration) -> bool {
        self.unary.close_connections(age)
    }

    /// Opens the stream of a worker's assignments.
    pub(crate) async fn listen(&self, worker: WorkerId) -> Result<Messages<Action>> {
        self.streams.open(&LISTEN, WorkerListenRequest { worker_id: worker.into() }, Sent::default()).await
    }

    /// Opens the stream of the results of runs. Their ids are sent as `runs` yields them.
    pub(crate) async fn run_results(
        &self,
        runs: impl Stream<Item = RunId> + Send + 'static,
    ) -> Result<Messages<RunResults>> {
        let requests = runs.map(|run| SubscribeToWorkflowRunsRequest { workflow_run_id: run.into() });
        self.streams.open_with(&RUN_RESULTS, requests).await
    }

    /// Subscribes to the events of all runs with a tag.
    pub(crate) async fn tagged_events(&self, (key, value): (String, String), sent: Sent) -> Result<Messages<RunEvent>> {
        let request = SubscribeToWorkflowEventsRequest {
            workflow_run_id: None,
            additional_meta_key: Some(key),
            additional_meta_value: Some(value),
        };
        self.streams.open(&RUN_EVENTS, request, sent).await
    }

    /// Subscribes to the events of one run.
    pub(crate) async fn run_events(&self, run: RunId, sent: Sent) -> Result<Messages<RunEvent>> {
        let request = SubscribeToWorkflowEventsRequest { workflow_run_id: Some(run.into()), ..Default::default() };
        self.streams.open(&RUN_EVENTS, request, sent).await
    }
}
