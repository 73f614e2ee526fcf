//! `v1.AdminService`: definitions, run details, cancel, replay.

use tonic::codec::CompressionEncoding;

use super::grpc_types::{NewWorkflow, RunState};
use super::pb::v1::admin_service_client::AdminServiceClient;
use super::pb::v1::{
    CancelTasksRequest, CancelTasksResponse, CreateWorkflowVersionRequest, CreateWorkflowVersionResponse,
    GetRunDetailsRequest, GetRunDetailsResponse, ReplayTasksRequest, ReplayTasksResponse,
};
use super::{Limits, stub, unary};
use crate::error::Result;
use crate::transport::{Call, Caller, GrpcWire};

pub(crate) struct Admin {
    stub: AdminServiceClient<GrpcWire>,
    caller: Caller,
    max_send: usize,
}

impl Admin {
    pub(super) fn new(wire: &GrpcWire, limits: &Limits, caller: Caller) -> Self {
        Self { stub: stub!(AdminServiceClient<GrpcWire>, wire, limits), caller, max_send: limits.send }
    }

    /// Stores a definition, and returns the workflow's id.
    pub(crate) async fn put_workflow(&self, workflow: NewWorkflow) -> Result<String> {
        Ok(self.send_put_workflow(&workflow.into()).await?.workflow_id)
    }

    unary! {
        /// The same definition again is the same version, so this may be repeated.
        send_put_workflow, put_workflow, idempotent, "PutWorkflow", CreateWorkflowVersionRequest => CreateWorkflowVersionResponse
    }

    pub(crate) async fn run_details(&self, run: &str) -> Result<RunState> {
        Ok(self.get_run_details(&GetRunDetailsRequest { external_id: run.to_owned() }).await?.into())
    }

    unary! { get_run_details, get_run_details, idempotent, "GetRunDetails", GetRunDetailsRequest => GetRunDetailsResponse }

    /// Cancels runs, or tasks. What comes of it must be looked for: the answer lists whatever was asked for.
    pub(crate) async fn cancel(&self, runs: Vec<String>) -> Result<()> {
        self.send_cancel(&CancelTasksRequest { external_ids: runs, filter: None }).await.map(drop)
    }

    unary! {
        /// Not to be repeated by itself: a run may have ended in between, and a cancel would then damage it.
        send_cancel, cancel_tasks, once, "CancelTasks", CancelTasksRequest => CancelTasksResponse
    }

    /// Runs tasks again. What comes of it must be looked for, too.
    pub(crate) async fn replay(&self, runs: Vec<String>) -> Result<()> {
        self.send_replay(&ReplayTasksRequest { external_ids: runs, filter: None }).await.map(drop)
    }

    unary! {
        /// Not to be repeated by itself: a second one would replay what the first one has.
        send_replay, replay_tasks, once, "ReplayTasks", ReplayTasksRequest => ReplayTasksResponse
    }
}
