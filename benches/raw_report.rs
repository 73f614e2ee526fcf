//! The reports of a worker over the generated stubs.

use hatchet::raw::pb::{AssignedAction, StepActionEvent, StepActionEventType};

/// The report that the code of an assignment has started.
pub(crate) fn started(worker_id: String, action: AssignedAction) -> StepActionEvent {
    StepActionEvent {
        worker_id,
        job_id: action.job_id,
        job_run_id: action.job_run_id,
        task_id: action.task_id,
        task_run_external_id: action.task_run_external_id,
        action_id: action.action_id,
        event_timestamp: Some(std::time::SystemTime::UNIX_EPOCH.into()),
        event_type: StepActionEventType::StepEventTypeStarted as i32,
        retry_count: Some(action.retry_count),
        ..Default::default()
    }
}

/// The report that the same code has completed.
pub(crate) fn completed(started: &StepActionEvent, output: String) -> StepActionEvent {
    StepActionEvent {
        event_type: StepActionEventType::StepEventTypeCompleted as i32,
        event_payload: output,
        ..started.clone()
    }
}
