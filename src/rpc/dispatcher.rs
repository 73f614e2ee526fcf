//! `Dispatcher`: the worker's side, and the streams about runs.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_core::Stream;
use futures_util::StreamExt as _;
use prost::Message as _;

use super::convert::{Action, NewWorker, Report, RunEvent, RunResults};
use super::pb::{
    ActionEventResponse, AssignedAction, HeartbeatRequest, HeartbeatResponse, StepActionEvent,
    SubscribeToWorkflowEventsRequest, SubscribeToWorkflowRunsRequest, WorkerListenRequest, WorkerRegisterRequest,
    WorkerRegisterResponse, WorkerUnsubscribeRequest, WorkerUnsubscribeResponse, WorkflowEvent, WorkflowRunEvent,
};
use super::{Method, Streams, Unary};
use crate::config::RequestOptions;
use crate::error::Result;
use crate::model::{RunId, WorkerId, parse_id};
use crate::time::to_proto;
use crate::transport::{Call, Messages};

/// The deadline of a heartbeat. It is short, because the next one is due soon.
const HEARTBEAT_DEADLINE: Duration = Duration::from_secs(2);

/// Each call creates a worker with a new id. A worker that is not used is harmless.
static REGISTER: Method<WorkerRegisterRequest, WorkerRegisterResponse> =
    Method::idempotent("Register", "/Dispatcher/Register");
/// There is one report for each attempt and kind. A repeated one changes nothing.
static REPORT: Method<StepActionEvent, ActionEventResponse> =
    Method::idempotent("SendStepActionEvent", "/Dispatcher/SendStepActionEvent");
static UNSUBSCRIBE: Method<WorkerUnsubscribeRequest, WorkerUnsubscribeResponse> =
    Method::idempotent("Unsubscribe", "/Dispatcher/Unsubscribe");
/// Not retried: the next one is due soon. So heartbeats during an outage do not use up the retry budget of other calls.
static HEARTBEAT: Method<HeartbeatRequest, HeartbeatResponse> =
    Method::new(Call::single("Heartbeat").within(HEARTBEAT_DEADLINE), "/Dispatcher/Heartbeat");

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
}

impl Dispatcher {
    pub(super) fn new(unary: Unary, streams: Streams) -> Self {
        Self { unary, streams }
    }

    pub(super) fn with(&self, options: RequestOptions) -> Self {
        Self { unary: self.unary.with(options), ..self.clone() }
    }

    /// Registers a worker, and returns its id.
    pub(crate) async fn register(&self, worker: NewWorker) -> Result<WorkerId> {
        parse_id(&self.unary.call(&REGISTER, worker.into()).await?.worker_id)
    }

    pub(crate) async fn report(&self, report: &Report) -> Result<()> {
        let frame = self.unary.encode(&REPORT, report.0.encoded_len(), |message| report.0.encode(message));
        self.unary.send(&REPORT, frame).await.map(drop)
    }

    pub(crate) async fn unsubscribe(&self, worker: WorkerId) -> Result<()> {
        self.unary.call(&UNSUBSCRIBE, WorkerUnsubscribeRequest { worker_id: worker.into() }).await.map(drop)
    }

    pub(crate) async fn heartbeat(&self, worker: WorkerId, at: DateTime<Utc>) -> Result<()> {
        let request = HeartbeatRequest { worker_id: worker.into(), heartbeat_at: Some(to_proto(at)) };
        self.unary.call(&HEARTBEAT, request).await.map(drop)
    }

    /// Opens the stream of a worker's assignments.
    pub(crate) async fn listen(&self, worker: WorkerId) -> Result<Messages<Action>> {
        self.streams.open(&LISTEN, WorkerListenRequest { worker_id: worker.into() }).await
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
    pub(crate) async fn tagged_events(&self, (key, value): (String, String)) -> Result<Messages<RunEvent>> {
        let request = SubscribeToWorkflowEventsRequest {
            workflow_run_id: None,
            additional_meta_key: Some(key),
            additional_meta_value: Some(value),
        };
        self.streams.open(&RUN_EVENTS, request).await
    }
}
