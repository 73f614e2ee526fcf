//! `WorkflowService`: starting runs.

use tonic::codec::CompressionEncoding;

use super::grpc_types::NewRun;
use super::pb::v1::TriggerWorkflowRequest;
use super::pb::workflow_service_client::WorkflowServiceClient;
use super::pb::{BulkTriggerWorkflowRequest, BulkTriggerWorkflowResponse, TriggerWorkflowResponse};
use super::{Limits, stub, unary};
use crate::error::Result;
use crate::transport::{Call, Caller, GrpcWire};

pub(crate) struct Workflows {
    stub: WorkflowServiceClient<GrpcWire>,
    caller: Caller,
    max_send: usize,
}

impl Workflows {
    pub(super) fn new(wire: &GrpcWire, limits: &Limits, caller: Caller) -> Self {
        Self { stub: stub!(WorkflowServiceClient<GrpcWire>, wire, limits), caller, max_send: limits.send }
    }

    /// The most bytes that a message may have.
    pub(crate) fn max_send(&self) -> usize {
        self.max_send
    }

    /// Starts a run, and returns its id.
    pub(crate) async fn trigger(&self, run: NewRun) -> Result<String> {
        Ok(self.send_trigger(&run.0).await?.workflow_run_id)
    }

    unary! { send_trigger, trigger_workflow, once, "TriggerWorkflow", TriggerWorkflowRequest => TriggerWorkflowResponse }

    /// Starts many runs, and returns their ids: one for each, in their order, if the server keeps its word.
    pub(crate) async fn bulk_trigger(&self, runs: Vec<NewRun>) -> Result<Vec<String>> {
        let request = BulkTriggerWorkflowRequest { workflows: runs.into_iter().map(|run| run.0).collect() };
        Ok(self.send_bulk_trigger(&request).await?.workflow_run_ids)
    }

    unary! { send_bulk_trigger, bulk_trigger_workflow, once, "BulkTriggerWorkflow", BulkTriggerWorkflowRequest => BulkTriggerWorkflowResponse }
}
