//! `v1.AdminService`: definitions, run details, cancel, replay.

use super::convert::{GrpcRun, NewWorkflow};
use super::pb::v1::{
    CancelTasksRequest, CancelTasksResponse, CreateWorkflowVersionRequest, CreateWorkflowVersionResponse,
    GetRunDetailsRequest, GetRunDetailsResponse, ReplayTasksRequest, ReplayTasksResponse,
};
use super::{Method, Unary};
use crate::error::Result;
use crate::model::{RunId, WorkflowId, parse_id};
use crate::transport::Caller;

/// The same definition again is the same version, so this may be repeated.
static PUT_WORKFLOW: Method<CreateWorkflowVersionRequest, CreateWorkflowVersionResponse> =
    Method::idempotent("PutWorkflow", "/v1.AdminService/PutWorkflow");
static GET_RUN_DETAILS: Method<GetRunDetailsRequest, GetRunDetailsResponse> =
    Method::idempotent("GetRunDetails", "/v1.AdminService/GetRunDetails");
/// Not retried here: a run may end before the retry, and a cancellation would then corrupt it. The caller fetches the run first.
static CANCEL_TASKS: Method<CancelTasksRequest, CancelTasksResponse> =
    Method::single("CancelTasks", "/v1.AdminService/CancelTasks");
/// Not retried here: meanwhile, the runs may have been replayed. The caller fetches them first.
static REPLAY_TASKS: Method<ReplayTasksRequest, ReplayTasksResponse> =
    Method::single("ReplayTasks", "/v1.AdminService/ReplayTasks");

pub(crate) struct Admin {
    unary: Unary,
}

impl Admin {
    pub(super) fn new(unary: Unary) -> Self {
        Self { unary }
    }

    pub(super) fn with(&self, change: impl Fn(&Caller) -> Caller) -> Self {
        Self { unary: self.unary.with(change) }
    }

    /// Stores a definition, and returns the workflow's id.
    pub(crate) async fn put_workflow(&self, workflow: NewWorkflow) -> Result<WorkflowId> {
        parse_id(&self.unary.call(&PUT_WORKFLOW, workflow.into()).await?.workflow_id)
    }

    pub(crate) async fn run_details(&self, run: RunId) -> Result<GrpcRun> {
        self.unary.call(&GET_RUN_DETAILS, GetRunDetailsRequest { external_id: run.into() }).await?.try_into()
    }

    /// Cancels runs. The response lists the ids of the request, and says nothing about the effect.
    pub(crate) async fn cancel(&self, runs: impl IntoIterator<Item = RunId>) -> Result<()> {
        let external_ids = runs.into_iter().map(Into::into).collect();
        self.unary.call(&CANCEL_TASKS, CancelTasksRequest { external_ids, filter: None }).await.map(drop)
    }

    /// Replays runs. The response says nothing about the effect, either.
    pub(crate) async fn replay(&self, runs: impl IntoIterator<Item = RunId>) -> Result<()> {
        let external_ids = runs.into_iter().map(Into::into).collect();
        self.unary.call(&REPLAY_TASKS, ReplayTasksRequest { external_ids, filter: None }).await.map(drop)
    }
}
