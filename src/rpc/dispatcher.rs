//! `Dispatcher`: the worker's side, and the streams about runs.

use std::time::Duration;

use futures_core::Stream;
use tonic::codec::CompressionEncoding;
use tonic::{Status, Streaming};

use super::pb::dispatcher_client::DispatcherClient;
use super::pb::{
    ActionEventResponse, AssignedAction, HeartbeatRequest, HeartbeatResponse, StepActionEvent,
    SubscribeToWorkflowEventsRequest, SubscribeToWorkflowRunsRequest, WorkerListenRequest, WorkerRegisterRequest,
    WorkerRegisterResponse, WorkerUnsubscribeRequest, WorkerUnsubscribeResponse, WorkflowEvent, WorkflowRunEvent,
};
use super::{Limits, stub, unary};
use crate::error::Result;
use crate::transport::{Call, Caller, GrpcWire};

/// A beat that takes longer than this is as good as lost: the next one is due soon after.
const BEAT_DEADLINE: Duration = Duration::from_secs(2);

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

    unary! {
        /// Each call makes a worker with an id of its own; one that nobody uses does no harm.
        register, register, idempotent, "Register", WorkerRegisterRequest => WorkerRegisterResponse
    }

    unary! {
        /// One report for each attempt and kind: the same one again changes nothing.
        send_event, send_step_action_event, idempotent, "SendStepActionEvent", StepActionEvent => ActionEventResponse
    }

    unary! { unsubscribe, unsubscribe, idempotent, "Unsubscribe", WorkerUnsubscribeRequest => WorkerUnsubscribeResponse }

    pub(crate) async fn heartbeat(&self, request: HeartbeatRequest) -> Result<HeartbeatResponse> {
        self.caller
            .grpc(Call::once("Heartbeat").within(BEAT_DEADLINE), || {
                let (mut stub, request) = (self.stub.clone(), request.clone());
                async move { stub.heartbeat(request).await }
            })
            .await
    }

    pub(crate) async fn listen(&self, request: WorkerListenRequest) -> Result<Streaming<AssignedAction>, Status> {
        Ok(self.stub.clone().listen_v2(request).await?.into_inner())
    }

    pub(crate) async fn run_results(
        &self,
        ids: impl Stream<Item = SubscribeToWorkflowRunsRequest> + Send + 'static,
    ) -> Result<Streaming<WorkflowRunEvent>, Status> {
        Ok(self.stub.clone().subscribe_to_workflow_runs(ids).await?.into_inner())
    }

    pub(crate) async fn run_events(
        &self,
        request: SubscribeToWorkflowEventsRequest,
    ) -> Result<Streaming<WorkflowEvent>, Status> {
        Ok(self.stub.clone().subscribe_to_workflow_events(request).await?.into_inner())
    }
}
