//! `Dispatcher`: the worker's side, and the streams about runs.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_core::Stream;
use futures_util::StreamExt as _;
use tonic::codec::CompressionEncoding;

use super::convert::{Action, NewWorker, Report, RunResults};
use super::pb::dispatcher_client::DispatcherClient;
use super::pb::{
    ActionEventResponse, HeartbeatRequest, StepActionEvent, SubscribeToWorkflowEventsRequest,
    SubscribeToWorkflowRunsRequest, WorkerListenRequest, WorkerRegisterRequest, WorkerRegisterResponse,
    WorkerUnsubscribeRequest, WorkerUnsubscribeResponse, WorkflowEvent,
};
use super::{Limits, stub, unary};
use crate::config::RequestOptions;
use crate::error::{Error, Result};
use crate::model::{RunId, WorkerId, parse_id};
use crate::time::to_proto;
use crate::transport::{Call, Caller, GrpcWire, Messages};

/// A beat that takes longer than this is as good as lost: the next one is due soon after.
const BEAT_DEADLINE: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(crate) struct Dispatcher {
    stub: DispatcherClient<GrpcWire>,
    caller: Caller,
    max_send: usize,
}

/// Streams are opened without a deadline. The server sends its headers only with the first message, so the future of an
/// opening is pending until there is one: it must never be waited for before anything else goes on.
impl Dispatcher {
    pub(super) fn new(wire: &GrpcWire, limits: &Limits, caller: Caller) -> Self {
        Self { stub: stub!(DispatcherClient<GrpcWire>, wire, limits), caller, max_send: limits.send }
    }

    pub(super) fn with(&self, options: RequestOptions) -> Self {
        Self { caller: self.caller.with(options), ..self.clone() }
    }

    /// Makes the engine know a worker, and returns its id.
    pub(crate) async fn register(&self, worker: NewWorker) -> Result<WorkerId> {
        parse_id(&self.send_register(&worker.into()).await?.worker_id)
    }

    unary! {
        /// Each call makes a worker with an id of its own; one that nobody uses does no harm.
        send_register, register, idempotent, "Register", WorkerRegisterRequest => WorkerRegisterResponse
    }

    pub(crate) async fn report(&self, report: &Report) -> Result<()> {
        self.send_report(&report.0).await.map(drop)
    }

    unary! {
        /// One report for each attempt and kind: the same one again changes nothing.
        send_report, send_step_action_event, idempotent, "SendStepActionEvent", StepActionEvent => ActionEventResponse
    }

    pub(crate) async fn unsubscribe(&self, worker: WorkerId) -> Result<()> {
        self.send_unsubscribe(&WorkerUnsubscribeRequest { worker_id: worker.into() }).await.map(drop)
    }

    unary! {
        send_unsubscribe, unsubscribe, idempotent, "Unsubscribe", WorkerUnsubscribeRequest => WorkerUnsubscribeResponse
    }

    /// Tried once: the next one is due soon.
    pub(crate) async fn heartbeat(&self, worker: WorkerId, at: DateTime<Utc>) -> Result<()> {
        let request = HeartbeatRequest { worker_id: worker.into(), heartbeat_at: Some(to_proto(at)) };
        let call = Call::once("Heartbeat").within(BEAT_DEADLINE);
        let beat = self.caller.grpc(call, || {
            let (mut stub, request) = (self.stub.clone(), request.clone());
            async move { stub.heartbeat(request).await }
        });
        beat.await.map(drop)
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
        let answer = self.stub.clone().subscribe_to_workflow_runs(questions).await;
        Messages::opened("SubscribeToWorkflowRuns", answer, self.caller.token())
    }

    /// Subscribes to the events of all runs with a tag: the ids of the runs that have changed. What the events say about the runs is
    /// not reliable.
    pub(crate) async fn tagged_events(&self, (key, value): (String, String)) -> Result<Messages<ChangedRun>> {
        let request = SubscribeToWorkflowEventsRequest {
            workflow_run_id: None,
            additional_meta_key: Some(key),
            additional_meta_value: Some(value),
        };
        let answer = self.stub.clone().subscribe_to_workflow_events(request).await;
        Messages::opened("SubscribeToWorkflowEvents", answer, self.caller.token())
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
