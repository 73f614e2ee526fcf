//! Whether REST is behind gRPC. It receives the attempts of a task later, in no order, and sometimes never.

use super::view::TaskView;
use crate::model::{Attempt, RunStatus};
use crate::rpc::convert::TaskEventKind;

/// Whether the failure in REST is the one in gRPC, and not that of an earlier attempt.
pub(super) fn agrees(task: &TaskView<'_>) -> bool {
    if task.rest_status().is_some_and(|status| *status != RunStatus::Failed) {
        return true;
    }
    let Some(by_grpc) = task.grpc else { return true };
    match by_grpc.status {
        // If one attempt has two ends, REST shows this one.
        RunStatus::Completed => task.rest_status().is_none(),
        // gRPC shows a schedule timeout as cancelled, and an attempt that fails after its cancellation has both ends.
        RunStatus::Cancelled => {
            let is_known = |kind| task.event_text(&kind).is_some();
            task.rest_status().is_none()
                || is_known(TaskEventKind::SchedulingTimedOut)
                || is_known(TaskEventKind::Cancelled)
        }
        _ => has_known_error(task),
    }
}

/// How gRPC's error message of the timeout of a batch begins. The event of the same timeout has another text.
pub(super) const BATCH_TIMEOUT_TEXT: &str = "Task failed due to batch timeout, ";

/// Whether the newest attempt has the error message that gRPC has, if gRPC has one.
pub(super) fn has_known_error(task: &TaskView<'_>) -> bool {
    let by_grpc = task.grpc.and_then(|task| task.error.as_deref());
    let last = task.attempts.last();
    match (by_grpc, last.and_then(|last| last.error.as_deref())) {
        (Some(grpc), Some(rest)) => {
            let has_timed_out = last.is_some_and(|last| last.status == RunStatus::TimedOut);
            grpc.is_empty() || grpc == rest || has_timed_out && grpc.starts_with(BATCH_TIMEOUT_TEXT)
        }
        _ => true,
    }
}

/// Whether the status of a task in REST belongs to an earlier attempt than its newest event. The gRPC response, fetched at the same time, may
/// then also show the end of the earlier attempt.
pub(super) fn status_lags_events(task: &TaskView<'_>) -> bool {
    let last = task.attempts.last().map(|last| last.number);
    task.rest_attempt().is_some_and(|of_status| last.is_some_and(|last| of_status < last))
}

/// Whether REST lacks an attempt after the one whose end it shows.
pub(super) fn lacks_attempt(task: &TaskView<'_>) -> bool {
    task.awaits_replay() || !agrees(task) && task.attempts.last().is_some_and(has_failed)
}

/// Whether REST lacks an attempt, and the task ended otherwise than REST shows.
pub(super) fn is_behind(task: &TaskView<'_>) -> bool {
    let failed = task.grpc.is_some_and(|task| task.status == RunStatus::Failed);
    lacks_attempt(task) && !failed
}

/// Whether the newest attempt failed and has retries left.
pub(super) fn may_be_retried(task: &TaskView<'_>) -> bool {
    task.attempts.last().is_some_and(|last| has_failed(last) && i64::from(last.number) <= task.retries)
}

pub(super) fn has_failed(attempt: &Attempt) -> bool {
    matches!(attempt.status, RunStatus::Failed | RunStatus::TimedOut)
}

/// Whether events of a task may still be missing in REST: they arrive in no order.
///
/// That is so if an attempt failed and has retries left but no successor, if an attempt ended without a start that its worker should
/// have reported, if an attempt did not end before its successor, or if one that completed or was cancelled has a successor without a
/// replay.
pub(super) fn may_be_behind(task: &TaskView<'_>) -> bool {
    let Some((_, earlier)) = task.attempts.split_last() else { return true };
    let by_itself = |status: &RunStatus| matches!(status, RunStatus::Completed | RunStatus::Cancelled);
    let unexplained = |attempt: &Attempt| by_itself(&attempt.status) && !task.replayed_after.contains(&attempt.number);
    task.awaits_replay()
        || may_be_retried(task)
        || task.attempts.iter().any(lacks_start)
        || earlier.iter().any(|attempt| !attempt.status.is_final() || unexplained(attempt))
}

fn lacks_start(attempt: &Attempt) -> bool {
    let needs_start = match attempt.status {
        RunStatus::Failed => true,
        // A task that was skipped, or whose schedule timeout passed, has no start.
        RunStatus::Completed | RunStatus::TimedOut => attempt.worker_id.is_some(),
        _ => false,
    };
    needs_start && attempt.started_at.is_none()
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{evidence, run};
    use super::super::view::RunView;
    use super::*;

    fn with_task<T>(grpc: &str, rest: &str, events: &[(&str, &str)], test: impl Fn(&TaskView<'_>) -> T) -> T {
        let evidence = evidence(grpc, rest, events, &[]);
        test(&RunView::new(run(), &evidence).tasks[0])
    }

    #[test]
    fn a_failure_in_rest_agrees_only_with_the_same_failure_in_grpc() {
        assert!(with_task("FAILED", "FAILED", &[("FAILED", "it broke")], agrees));
        assert!(!with_task("COMPLETED", "FAILED", &[("FAILED", "it broke")], agrees));
        assert!(!with_task("CANCELLED", "FAILED", &[("FAILED", "it broke")], agrees));
        assert!(with_task("CANCELLED", "FAILED", &[("SCHEDULING_TIMED_OUT", "")], agrees));
        assert!(with_task("COMPLETED", "COMPLETED", &[], agrees));
    }

    #[test]
    fn the_timeout_of_a_batch_has_two_texts() {
        let texts = |kind: &str, event: &str, by_grpc: &str| {
            let mut evidence = evidence("FAILED", "FAILED", &[("STARTED", ""), (kind, event)], &[]);
            for task in evidence.grpc.iter_mut().flat_map(|run| run.tasks.values_mut()) {
                task.error = Some(by_grpc.to_owned());
            }
            has_known_error(&RunView::new(run(), &evidence).tasks[0])
        };
        let by_grpc = "Task failed due to batch timeout, exceeded timeout of 2s";
        assert!(texts("TIMED_OUT", "Task exceeded timeout of 2s", by_grpc));
        assert!(!texts("FAILED", "it broke", by_grpc));
        assert!(!texts("TIMED_OUT", "Task exceeded timeout of 2s", "it broke"));
    }

    #[test]
    fn rest_is_behind_a_task_that_ended_otherwise() {
        assert!(with_task("COMPLETED", "FAILED", &[("FAILED", "it broke")], is_behind));
        assert!(!with_task("FAILED", "FAILED", &[("FAILED", "it broke")], is_behind));
    }

    #[test]
    fn events_may_be_missing_without_a_start_and_without_any() {
        assert!(with_task("COMPLETED", "COMPLETED", &[], may_be_behind));
        assert!(with_task("FAILED", "FAILED", &[("FAILED", "it broke")], may_be_behind));
        assert!(!with_task("FAILED", "FAILED", &[("STARTED", ""), ("FAILED", "it broke")], may_be_behind));
        assert!(!with_task("COMPLETED", "COMPLETED", &[("STARTED", ""), ("FINISHED", "")], may_be_behind));
    }
}
