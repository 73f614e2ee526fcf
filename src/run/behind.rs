//! Whether REST is behind. It learns of a task's attempts after gRPC, in no order, and now and then never.

use super::evidence::TaskEvidence;
use crate::model::{Attempt, RunStatus};

/// Whether REST's failure of a task is the one that gRPC knows, and not that of an earlier attempt.
pub(super) fn agrees(task: &TaskEvidence<'_>) -> bool {
    if task.steady().is_some_and(|status| status != RunStatus::Failed) {
        return true;
    }
    let Some(by_grpc) = task.grpc else { return true };
    match by_grpc.status {
        // Of two ends of one attempt, REST would show this one.
        RunStatus::Completed => task.steady().is_none(),
        // So does gRPC call a schedule timeout; and an attempt can have been cancelled, and have failed all the same.
        RunStatus::Cancelled => {
            let is_known = |kind| task.last_end(kind).is_some();
            task.steady().is_none() || is_known("SCHEDULING_TIMED_OUT") || is_known("CANCELLED")
        }
        _ => has_that_error(task),
    }
}

/// Whether the newest attempt failed with the error that gRPC knows, if it knows any.
pub(super) fn has_that_error(task: &TaskEvidence<'_>) -> bool {
    let by_grpc = task.grpc.and_then(|task| task.error.as_deref());
    let by_rest = task.attempts.last().and_then(|last| last.error.as_deref());
    match (by_grpc, by_rest) {
        (Some(grpc), Some(rest)) => grpc.is_empty() || grpc == rest,
        _ => true,
    }
}

/// Whether there was an attempt that REST has not heard of, after the one whose end it shows.
pub(super) fn lacks_attempt(task: &TaskEvidence<'_>) -> bool {
    task.is_to_begin_anew() || !agrees(task) && task.attempts.last().is_some_and(has_failed)
}

/// The same, if the task ended otherwise than REST shows.
pub(super) fn is_behind(task: &TaskEvidence<'_>) -> bool {
    let failed = task.grpc.is_some_and(|task| task.status == RunStatus::Failed);
    lacks_attempt(task) && !failed
}

pub(super) fn has_failed(attempt: &Attempt) -> bool {
    matches!(attempt.status, RunStatus::Failed | RunStatus::TimedOut)
}

/// Whether REST's history of a task may not be all there yet: its rows arrive in no order.
///
/// An attempt that failed with retries left was either not to be tried again, or its successor is missing. One that ended
/// by itself without a beginning was ended by a worker that reports none, or its beginning is missing. One that did not
/// end before the next began has its end missing. One that ended well, or was cancelled, and has a successor was replayed,
/// and should say so.
pub(super) fn may_be_behind(task: &TaskEvidence<'_>) -> bool {
    let Some((last, earlier)) = task.attempts.split_last() else { return true };
    let by_itself = |status: &RunStatus| matches!(status, RunStatus::Completed | RunStatus::Cancelled);
    let unexplained = |attempt: &Attempt| by_itself(&attempt.status) && !task.replayed_after.contains(&attempt.number);
    task.is_to_begin_anew()
        || has_failed(last) && i64::from(last.number) <= task.retries
        || task.attempts.iter().any(has_no_beginning)
        || earlier.iter().any(|attempt| !attempt.status.is_final() || unexplained(attempt))
}

fn has_no_beginning(attempt: &Attempt) -> bool {
    let by_itself = match attempt.status {
        RunStatus::Failed => true,
        // A task that was skipped, or that waited for a worker until its time was over, had none.
        RunStatus::Completed | RunStatus::TimedOut => attempt.worker.is_some(),
        _ => false,
    };
    by_itself && attempt.started_at.is_none()
}
