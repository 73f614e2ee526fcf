//! `WorkflowService`: starting runs.

use chrono::{DateTime, Utc};
use tonic::codec::CompressionEncoding;

use super::convert::{NewRun, Triggered, TriggeredMany, collision};
use super::pb::v1::TriggerWorkflowRequest;
use super::pb::workflow_service_client::WorkflowServiceClient;
use super::pb::{
    BulkTriggerWorkflowRequest, BulkTriggerWorkflowResponse, ScheduleWorkflowRequest, TriggerWorkflowResponse,
    WorkflowVersion,
};
use super::{Limits, stub, unary};
use crate::config::RequestOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Priority, ScheduleId, parse_id};
use crate::time::to_proto;
use crate::transport::{Call, Caller, GrpcWire};

#[derive(Clone)]
pub(crate) struct Workflows {
    stub: WorkflowServiceClient<GrpcWire>,
    caller: Caller,
    max_send: usize,
}

impl Workflows {
    pub(super) fn new(wire: &GrpcWire, limits: &Limits, caller: Caller) -> Self {
        Self { stub: stub!(WorkflowServiceClient<GrpcWire>, wire, limits), caller, max_send: limits.send }
    }

    pub(super) fn with(&self, options: RequestOptions) -> Self {
        Self { caller: self.caller.with(options), ..self.clone() }
    }

    /// The most bytes that a message may have.
    pub(crate) fn max_send(&self) -> usize {
        self.max_send
    }

    /// Starts a run, and returns its id.
    pub(crate) async fn trigger(&self, run: &NewRun) -> Result<Triggered> {
        match self.send_trigger(&run.0).await {
            Ok(answer) => parse_id(&answer.workflow_run_id).map(Triggered::Run),
            Err(error) => collision::taken(error),
        }
    }

    unary! { send_trigger, trigger_workflow, once, "TriggerWorkflow", TriggerWorkflowRequest => TriggerWorkflowResponse }

    /// Starts many runs, and returns their ids: one for each, in their order, if the server keeps its word.
    pub(crate) async fn bulk_trigger(&self, runs: Vec<NewRun>) -> Result<TriggeredMany> {
        let request = BulkTriggerWorkflowRequest { workflows: runs.into_iter().map(|run| run.0).collect() };
        match self.send_bulk_trigger(&request).await {
            Ok(answer) => Ok(TriggeredMany::Runs(answer.workflow_run_ids.iter().map(|id| parse_id(id)).collect())),
            Err(error) => {
                let ids = collision::some_taken(error)?;
                Ok(TriggeredMany::Some { ids, runs: request.workflows.into_iter().map(NewRun).collect() })
            }
        }
    }

    unary! { send_bulk_trigger, bulk_trigger_workflow, once, "BulkTriggerWorkflow", BulkTriggerWorkflowRequest => BulkTriggerWorkflowResponse }

    /// Has a run started at a time, and returns the schedule's id. The input is the text of a JSON object, as the metadata.
    pub(crate) async fn schedule(
        &self,
        workflow: String,
        at: DateTime<Utc>,
        input: String,
        metadata: String,
        priority: Option<Priority>,
    ) -> Result<ScheduleId> {
        let request = ScheduleWorkflowRequest {
            name: workflow,
            schedules: vec![to_proto(at)],
            input,
            additional_metadata: Some(metadata),
            priority: priority.map(Priority::number),
            ..Default::default()
        };
        let made = self.send_schedule(&request).await?.scheduled_workflows;
        match made.first() {
            Some(schedule) => parse_id(&schedule.id),
            None => Err(Error::new(ErrorKind::Server, "the response to ScheduleWorkflow has no schedule")),
        }
    }

    unary! { send_schedule, schedule_workflow, once, "ScheduleWorkflow", ScheduleWorkflowRequest => WorkflowVersion }
}
