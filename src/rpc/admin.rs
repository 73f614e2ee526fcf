//! `v1.AdminService`: definitions, run details, cancel, replay.

use tonic::codec::CompressionEncoding;

use super::convert::{GrpcRun, NewWorkflow};
use super::pb::v1::admin_service_client::AdminServiceClient;
use super::pb::v1::{
    CancelTasksRequest, CancelTasksResponse, CreateWorkflowVersionRequest, CreateWorkflowVersionResponse,
    GetRunDetailsRequest, GetRunDetailsResponse, ReplayTasksRequest, ReplayTasksResponse,
};
use super::{Limits, stub, unary};
use crate::config::RequestOptions;
use crate::error::Result;
use crate::model::{RunId, WorkflowId, parse_id};
use crate::transport::{Call, Caller, GrpcWire};

#[derive(Clone)]
pub(crate) struct Admin {
    stub: AdminServiceClient<GrpcWire>,
    caller: Caller,
    max_send: usize,
}

impl Admin {
    pub(super) fn new(wire: &GrpcWire, limits: &Limits, caller: Caller) -> Self {
        Self { stub: stub!(AdminServiceClient<GrpcWire>, wire, limits), caller, max_send: limits.send }
    }

    pub(super) fn with(&self, options: RequestOptions) -> Self {
        Self { caller: self.caller.with(options), ..self.clone() }
    }

    /// Stores a definition, and returns the workflow's id.
    pub(crate) async fn put_workflow(&self, workflow: NewWorkflow) -> Result<WorkflowId> {
        parse_id(&self.send_put_workflow(&workflow.into()).await?.workflow_id)
    }

    unary! {
        /// The same definition again is the same version, so this may be repeated.
        send_put_workflow, put_workflow, idempotent, "PutWorkflow", CreateWorkflowVersionRequest => CreateWorkflowVersionResponse
    }

    pub(crate) async fn run_details(&self, run: RunId) -> Result<GrpcRun> {
        self.get_run_details(&GetRunDetailsRequest { external_id: run.into() }).await?.try_into()
    }

    unary! { get_run_details, get_run_details, idempotent, "GetRunDetails", GetRunDetailsRequest => GetRunDetailsResponse }

    /// Cancels runs. The response lists the ids of the request, and says nothing about the effect.
    pub(crate) async fn cancel(&self, runs: impl IntoIterator<Item = RunId>) -> Result<()> {
        let external_ids = runs.into_iter().map(Into::into).collect();
        self.send_cancel(&CancelTasksRequest { external_ids, filter: None }).await.map(drop)
    }

    unary! {
        /// Not to be repeated by itself: a run may have ended in between, and a cancel would then damage it.
        send_cancel, cancel_tasks, once, "CancelTasks", CancelTasksRequest => CancelTasksResponse
    }

    /// Replays runs. The response says nothing about the effect, either.
    pub(crate) async fn replay(&self, runs: impl IntoIterator<Item = RunId>) -> Result<()> {
        let external_ids = runs.into_iter().map(Into::into).collect();
        self.send_replay(&ReplayTasksRequest { external_ids, filter: None }).await.map(drop)
    }

    unary! {
        /// Not to be repeated by itself: a second one would replay what the first one has.
        send_replay, replay_tasks, once, "ReplayTasks", ReplayTasksRequest => ReplayTasksResponse
    }
}
