//! `ScheduleWorkflow`.

use tonic::{Response, Status};

use super::admin::stored_json;
use super::{GrpcApi, respond, time};
use crate::embedded::core::store::{ScheduledRun, StatusError};
use crate::rpc::pb::{ScheduleWorkflowRequest, ScheduledWorkflow, WorkflowVersion};
use crate::time::to_proto;

/// Checks in the order and with the error texts of the engine: the workflow first, and only the syntax of the parent's id.
pub(super) async fn schedule(
    api: &GrpcApi,
    request: ScheduleWorkflowRequest,
) -> Result<Response<WorkflowVersion>, Status> {
    let name = request.name.clone();
    if !api.core.call(move |core, _| core.workflows().any(|view| view.name == name)).await? {
        return Err(Status::not_found("workflow not found"));
    }
    if request.parent_id.is_some() {
        let missing = match (&request.parent_task_run_external_id, request.child_index) {
            (None, _) => Some("parent task run id"),
            (Some(_), None) => Some("child index"),
            _ => None,
        };
        if let Some(missing) = missing {
            return Err(Status::invalid_argument(format!("{missing} is required when parent id is provided")));
        }
    }
    let metadata = request.additional_metadata.as_deref();
    let metadata = metadata.map(|text| stored_json(text, "additionalMetadata")).transpose()?;
    let input = stored_json(&request.input, "payload")?;
    if let Some(priority) = request.priority.filter(|priority| !(1..=3).contains(priority)) {
        return Err(Status::invalid_argument(format!("priority must be between 1 and 3, got {priority}")));
    }
    // The engine's check accepts an empty string, its database does not.
    if !request.schedules.is_empty() && (request.input.is_empty() || request.additional_metadata.as_deref() == Some(""))
    {
        return Err(StatusError::internal().into());
    }
    let times = request.schedules.iter().map(|at| time(Some(*at))).collect::<Option<Vec<_>>>();
    let times = times.ok_or_else(StatusError::internal)?;
    let run = ScheduledRun { workflow: request.name, input, metadata, priority: request.priority };
    let version = api
        .core
        .call(move |core, turn| {
            let made = core.schedule(turn, &run, &times)?;
            let latest = core.latest(&run.workflow).ok_or_else(|| StatusError::not_found("workflow not found"))?;
            Ok::<_, StatusError>(WorkflowVersion {
                id: latest.id.to_string(),
                created_at: Some(to_proto(latest.created)),
                updated_at: Some(to_proto(latest.created)),
                version: String::new(),
                order: latest.order,
                workflow_id: latest.workflow.to_string(),
                scheduled_workflows: made
                    .into_iter()
                    .map(|(id, at)| ScheduledWorkflow { id: id.to_string(), trigger_at: Some(to_proto(at)) })
                    .collect(),
            })
        })
        .await??;
    respond(version)
}
