//! `Dispatcher`: the worker's side, and the streams about runs.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_core::Stream;
use futures_util::StreamExt as _;
use tonic::codec::CompressionEncoding;

use super::convert::{Action, NewWorker, Report, RunResults};
use super::pb::dispatcher_client::DispatcherClient;
use super::pb::{
    ActionEventResponse, HeartbeatRequest, HeartbeatResponse, StepActionEvent, SubscribeToWorkflowEventsRequest,
    SubscribeToWorkflowRunsRequest, WorkerListenRequest, WorkerRegisterRequest, WorkerRegisterResponse,
    WorkerUnsubscribeRequest, WorkerUnsubscribeResponse, WorkflowEvent,
};
use super::{Limits, Method, Unary};
use crate::config::RequestOptions;
use crate::error::{Error, Result};
use crate::model::{RunId, WorkerId, parse_id};
use crate::time::to_proto;
use crate::transport::{Call, Caller, GrpcWire, Messages};

/// A heartbeat that takes longer than this is given up: the next one is due soon.
const HEARTBEAT_DEADLINE: Duration = Duration::from_secs(2);

/// Each call makes a worker with an id of its own; one that nobody uses does no harm.
static REGISTER: Method<WorkerRegisterRequest, WorkerRegisterResponse> =
    Method::idempotent("Register", "/Dispatcher/Register");
/// One report for each attempt and kind: the same one again changes nothing.
static REPORT: Method<StepActionEvent, ActionEventResponse> =
    Method::idempotent("SendStepActionEvent", "/Dispatcher/SendStepActionEvent");
static UNSUBSCRIBE: Method<WorkerUnsubscribeRequest, WorkerUnsubscribeResponse> =
    Method::idempotent("Unsubscribe", "/Dispatcher/Unsubscribe");
/// Tried once: the next one is due soon.
static HEARTBEAT: Method<HeartbeatRequest, HeartbeatResponse> =
    Method::new(Call::once("Heartbeat").within(HEARTBEAT_DEADLINE), "/Dispatcher/Heartbeat");

#[derive(Clone)]
pub(crate) struct Dispatcher {
    unary: Unary,
    /// For the streams.
    stub: DispatcherClient<GrpcWire>,
    caller: Caller,
}

/// Streams are opened without a deadline. The server sends its headers only with the first message, so the future of an
/// opening is pending until there is one: it must never be waited for before anything else goes on.
impl Dispatcher {
    pub(super) fn new(wire: &GrpcWire, limits: Limits, unary: Unary, caller: Caller) -> Self {
        let mut stub = DispatcherClient::new(wire.clone())
            .max_encoding_message_size(limits.send)
            .max_decoding_message_size(limits.receive);
        if limits.gzip {
            stub = stub.send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
        }
        Self { unary, stub, caller }
    }

    pub(super) fn with(&self, options: RequestOptions) -> Self {
        Self { unary: self.unary.with(options), ..self.clone() }
    }

    /// Makes the engine know a worker, and returns its id.
    pub(crate) async fn register(&self, worker: NewWorker) -> Result<WorkerId> {
        parse_id(&self.unary.call(&REGISTER, &worker.into()).await?.worker_id)
    }

    pub(crate) async fn report(&self, report: &Report) -> Result<()> {
        self.unary.call(&REPORT, &report.0).await.map(drop)
    }

    pub(crate) async fn unsubscribe(&self, worker: WorkerId) -> Result<()> {
        self.unary.call(&UNSUBSCRIBE, &WorkerUnsubscribeRequest { worker_id: worker.into() }).await.map(drop)
    }

    pub(crate) async fn heartbeat(&self, worker: WorkerId, at: DateTime<Utc>) -> Result<()> {
        let request = HeartbeatRequest { worker_id: worker.into(), heartbeat_at: Some(to_proto(at)) };
        self.unary.call(&HEARTBEAT, &request).await.map(drop)
    }

    /// Opens a worker's stream of what it is to do.
    pub(crate) async fn listen(&self, worker: WorkerId) -> Result<Messages<Action>> {
        let request = WorkerListenRequest { worker_id: worker.into() };
        Messages::opened("ListenV2", self.stub.clone().listen_v2(request).await, self.caller.token())
    }

    /// Asks for results of runs, for as long as `runs` goes on.
    pub(crate) async fn run_results(
        &self,
        runs: impl Stream<Item = RunId> + Send + 'static,
    ) -> Result<Messages<RunResults>> {
        let questions = runs.map(|run| SubscribeToWorkflowRunsRequest { workflow_run_id: run.into() });
        let response = self.stub.clone().subscribe_to_workflow_runs(questions).await;
        Messages::opened("SubscribeToWorkflowRuns", response, self.caller.token())
    }

    /// Subscribes to the events of all runs with a tag: the ids of the runs that have changed. What the events say about the runs is
    /// not reliable.
    pub(crate) async fn tagged_events(&self, (key, value): (String, String)) -> Result<Messages<ChangedRun>> {
        let request = SubscribeToWorkflowEventsRequest {
            workflow_run_id: None,
            additional_meta_key: Some(key),
            additional_meta_value: Some(value),
        };
        let response = self.stub.clone().subscribe_to_workflow_events(request).await;
        Messages::opened("SubscribeToWorkflowEvents", response, self.caller.token())
    }
}

/// A run that has changed.
#[derive(Debug)]
pub(crate) struct ChangedRun(pub(crate) RunId);

impl TryFrom<WorkflowEvent> for ChangedRun {
    type Error = Error;

    fn try_from(event: WorkflowEvent) -> Result<Self> {
        parse_id(&event.workflow_run_id).map(Self)
    }
}
