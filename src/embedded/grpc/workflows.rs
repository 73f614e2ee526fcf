//! `WorkflowService`: the calls that start runs, which all SDKs use.

use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::admin::{run_options, stored_json};
use super::{GrpcApi, collisions, limits, not_yet, respond, schedules, sized};
use crate::embedded::core::format::uuid::go_uuid;
use crate::embedded::core::store::{Code, ParentLink, StatusError, Trigger};
use crate::rpc::pb::v1::TriggerWorkflowRequest;
use crate::rpc::pb::workflow_service_server::WorkflowService;
use crate::rpc::pb::{
    BulkTriggerWorkflowRequest, BulkTriggerWorkflowResponse, PauseRateLimitRequest, PauseRateLimitResponse,
    PutRateLimitRequest, PutRateLimitResponse, PutWorkflowRequest, ScheduleWorkflowRequest, TriggerWorkflowResponse,
    WorkflowVersion,
};

#[tonic::async_trait]
impl WorkflowService for GrpcApi {
    async fn trigger_workflow(
        &self,
        request: Request<TriggerWorkflowRequest>,
    ) -> Result<Response<TriggerWorkflowResponse>, Status> {
        let trigger = trigger(sized(request)?)?;
        let ids = self.core.call(move |core, turn| core.trigger(turn, vec![trigger])).await??;
        respond(TriggerWorkflowResponse { workflow_run_id: ids.first().map(Uuid::to_string).unwrap_or_default() })
    }

    async fn bulk_trigger_workflow(
        &self,
        request: Request<BulkTriggerWorkflowRequest>,
    ) -> Result<Response<BulkTriggerWorkflowResponse>, Status> {
        let request = sized(request)?;
        let mut triggers = Vec::with_capacity(request.workflows.len());
        for element in request.workflows {
            triggers.push(trigger(element)?);
        }
        let ids = match self.core.call(move |core, turn| core.trigger(turn, triggers)).await? {
            Err(StatusError { code: Code::AlreadyExists(found), message }) => {
                return Err(collisions::bulk(message, &found));
            }
            ids => ids?,
        };
        respond(BulkTriggerWorkflowResponse { workflow_run_ids: ids.iter().map(Uuid::to_string).collect() })
    }

    async fn put_workflow(&self, _: Request<PutWorkflowRequest>) -> Result<Response<WorkflowVersion>, Status> {
        not_yet("the older PutWorkflow")
    }

    async fn schedule_workflow(
        &self,
        request: Request<ScheduleWorkflowRequest>,
    ) -> Result<Response<WorkflowVersion>, Status> {
        schedules::schedule(self, sized(request)?).await
    }

    async fn put_rate_limit(
        &self,
        request: Request<PutRateLimitRequest>,
    ) -> Result<Response<PutRateLimitResponse>, Status> {
        limits::put(self, sized(request)?).await
    }

    async fn pause_rate_limit(
        &self,
        _: Request<PauseRateLimitRequest>,
    ) -> Result<Response<PauseRateLimitResponse>, Status> {
        Err(Status::unimplemented("unknown method PauseRateLimit for service WorkflowService"))
    }
}

/// Validates a trigger in the order and with the error texts of the engine.
fn trigger(request: TriggerWorkflowRequest) -> Result<Trigger, Status> {
    let input = stored_json(&request.input, "payload")?;
    let metadata = stored_json(request.additional_metadata.as_deref().unwrap_or_default(), "additionalMetadata")?;
    if let Some(priority) = request.priority.filter(|priority| !(1..=3).contains(priority)) {
        return Err(Status::invalid_argument(format!(
            "Invalid request: priority must be between 1 and 3, got {priority}"
        )));
    }
    let desired = |worker: &String| {
        go_uuid(worker).map_err(|problem| {
            Status::invalid_argument(format!("Invalid request: desiredWorkerId must be a valid UUID: {problem}"))
        })
    };
    let worker = request.desired_worker_id.as_ref().map(desired).transpose()?;
    let parent = match &request.parent_task_run_external_id {
        None => None,
        Some(parent) => {
            let task = go_uuid(parent).map_err(|problem| {
                Status::invalid_argument(format!(
                    "could not create trigger opt: rpc error: code = InvalidArgument desc = parentStepRunId must be a valid UUID: {problem}"
                ))
            })?;
            Some(ParentLink { task, index: request.child_index, key: request.child_key.map(Into::into) })
        }
    };
    Ok(Trigger {
        workflow: request.name,
        input,
        // Anything but an object is ignored.
        metadata: match metadata {
            serde_json::Value::Object(metadata) => metadata,
            _ => serde_json::Map::new(),
        },
        priority: request.priority,
        parent,
        options: run_options(worker, request.desired_worker_labels),
    })
}
