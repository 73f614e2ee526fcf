//! `v1.AdminService`: definitions, run details, cancel, replay.

use tonic::codec::CompressionEncoding;

use super::pb::v1::admin_service_client::AdminServiceClient;
use super::pb::v1::{
    CreateWorkflowVersionRequest, CreateWorkflowVersionResponse, GetRunDetailsRequest, GetRunDetailsResponse,
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

    unary! {
        /// The same definition again is the same version, so this may be repeated.
        put_workflow, put_workflow, idempotent, "PutWorkflow", CreateWorkflowVersionRequest => CreateWorkflowVersionResponse
    }

    pub(crate) async fn run_details(&self, run: &str) -> Result<GetRunDetailsResponse> {
        self.get_run_details(GetRunDetailsRequest { external_id: run.to_owned() }).await
    }

    unary! { get_run_details, get_run_details, idempotent, "GetRunDetails", GetRunDetailsRequest => GetRunDetailsResponse }
}
