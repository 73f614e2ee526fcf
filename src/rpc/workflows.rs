//! `WorkflowService`: starting runs.

use tonic::codec::CompressionEncoding;

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

    unary! { trigger, trigger_workflow, once, "TriggerWorkflow", TriggerWorkflowRequest => TriggerWorkflowResponse }

    unary! { bulk_trigger, bulk_trigger_workflow, once, "BulkTriggerWorkflow", BulkTriggerWorkflowRequest => BulkTriggerWorkflowResponse }
}
