//! Distinguishes runs that the server's list shows as failed: timed-out runs, for which it has no status, and runs that were
//! cancelled while they were queued and whose schedule timeout passed afterwards.
//!
//! Neither has an error message in the list, unless an earlier attempt left one. So the events are fetched for each failed run without
//! an error message, and for each failed run with several attempts.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::selection::ListRequest;
use crate::error::Result;
use crate::model::{Attempt, RunStatus};
use crate::observe::newest_attempts;
use crate::rpc::convert::ListRow;

/// The number of concurrent requests for events.
const MAX_CONCURRENT_READS: usize = 8;

/// Corrects the status of timed-out and cancelled rows, and removes rows that do not match the filter.
pub(super) async fn rows(request: &ListRequest, rows: Vec<ListRow>) -> Result<Vec<ListRow>> {
    // Usually there are none. This avoids a future for each row.
    let rows = if rows.iter().any(is_unclear) {
        stream::iter(rows).map(|row| derived(request, row)).buffered(MAX_CONCURRENT_READS).try_collect().await?
    } else {
        rows
    };
    let statuses = &request.filter.statuses;
    let wanted = |row: &ListRow| statuses.is_empty() || statuses.contains(&row.run.status);
    Ok(rows.into_iter().filter(wanted).collect())
}

/// Whether the row alone does not determine the status.
fn is_unclear(row: &ListRow) -> bool {
    row.run.status == RunStatus::Failed && (row.run.error.is_none() || row.run.attempt > 1)
}

async fn derived(request: &ListRequest, mut row: ListRow) -> Result<ListRow> {
    if is_unclear(&row) {
        let attempts = newest_attempts(&request.client, request.gate.as_ref(), &row).await?;
        if let Some((status, error)) = actual_status(&attempts) {
            (row.run.status, row.run.error) = (status, error);
        }
    }
    Ok(row)
}

/// The status and error message of a run that the server lists as failed, by the newest attempts of its tasks. `None` if it failed.
fn actual_status(attempts: &[Attempt]) -> Option<(RunStatus, Option<String>)> {
    // If several tasks failed, the run failed because of the first.
    let failed = attempts.iter().filter(|last| matches!(last.status, RunStatus::Failed | RunStatus::TimedOut));
    let is_cancelled = || attempts.iter().find(|last| last.status == RunStatus::Cancelled);
    let all_ended = attempts.iter().all(|last| last.status.is_final());
    match failed.min_by_key(|last| last.finished_at) {
        Some(first) => (first.status == RunStatus::TimedOut).then(|| (RunStatus::TimedOut, first.error.clone())),
        None => is_cancelled().filter(|_| all_ended).map(|last| (RunStatus::Cancelled, last.error.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(status: RunStatus, second: i64) -> Attempt {
        Attempt {
            number: 1,
            error: Some(status.to_string()),
            status,
            queued_at: None,
            started_at: None,
            finished_at: chrono::DateTime::from_timestamp(second, 0),
            worker_id: None,
        }
    }

    #[test]
    fn actual_status_of_failed_rows() {
        use RunStatus::{Cancelled, Completed, Failed, Queued, Running, TimedOut};
        let status = |attempts: &[(RunStatus, i64)]| {
            let attempts: Vec<_> = attempts.iter().map(|(status, at)| attempt(status.clone(), *at)).collect();
            actual_status(&attempts).map(|(status, _)| status)
        };
        assert_eq!(status(&[(TimedOut, 1)]), Some(TimedOut));
        assert_eq!(status(&[(Cancelled, 1)]), Some(Cancelled));
        assert_eq!(status(&[(Failed, 1)]), None);
        assert_eq!(status(&[(Failed, 1), (TimedOut, 2), (Cancelled, 0)]), None);
        assert_eq!(status(&[(Completed, 0), (TimedOut, 1), (Failed, 2)]), Some(TimedOut));
        assert_eq!(status(&[(Completed, 0), (Cancelled, 2)]), Some(Cancelled));
        // Its history is not all there: what failed may come.
        for going in [Queued, Running] {
            assert_eq!(status(&[(Cancelled, 1), (going, 0)]), None);
        }
        assert_eq!(status(&[]), None);
    }
}
