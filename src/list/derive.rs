//! The state that the server does not have: its list shows timed-out runs as failed ones.
//!
//! A run that timed out has no error text in the list, unless an earlier attempt left one. So the events of each failed run
//! without one, and of each that took several attempts, are read; of the others none.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::client::Client;
use crate::error::Result;
use crate::model::{RunFilter, RunStatus, RunSummary};
use crate::run::newest_attempts;

/// Events that are read at the same time.
const AT_ONCE: usize = 8;

/// The states to ask the server for.
pub(super) fn asked(statuses: &[RunStatus]) -> Vec<RunStatus> {
    let mut asked = Vec::new();
    for status in statuses {
        let status = if *status == RunStatus::TimedOut { RunStatus::Failed } else { status.clone() };
        if !asked.contains(&status) {
            asked.push(status);
        }
    }
    asked
}

/// Whether the server's answer has rows that were not asked for.
pub(super) fn splits(statuses: &[RunStatus]) -> bool {
    statuses.contains(&RunStatus::Failed) != statuses.contains(&RunStatus::TimedOut)
}

/// Tells timed-out rows from failed ones, and leaves out what was not asked for.
pub(super) async fn rows(client: &Client, filter: &RunFilter, rows: Vec<RunSummary>) -> Result<Vec<RunSummary>> {
    // Mostly there are none, and a future for each row would be for nothing.
    let rows = if rows.iter().any(is_unclear) {
        stream::iter(rows).map(|row| derived(client, row)).buffered(AT_ONCE).try_collect().await?
    } else {
        rows
    };
    let wanted = |row: &RunSummary| filter.statuses.is_empty() || filter.statuses.contains(&row.status);
    Ok(rows.into_iter().filter(wanted).collect())
}

/// Whether the row alone does not tell how the run failed.
fn is_unclear(row: &RunSummary) -> bool {
    row.status == RunStatus::Failed && (row.error.is_none() || row.attempt > 1)
}

async fn derived(client: &Client, mut row: RunSummary) -> Result<RunSummary> {
    if is_unclear(&row) {
        let attempts = newest_attempts(client, &row).await?;
        // Of several tasks that failed, the first to do so is why the run did.
        let failed = attempts.into_iter().filter(|last| matches!(last.status, RunStatus::Failed | RunStatus::TimedOut));
        let first = failed.min_by_key(|last| last.finished_at);
        if let Some(first) = first.filter(|first| first.status == RunStatus::TimedOut) {
            (row.status, row.error) = (RunStatus::TimedOut, first.error);
        }
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timed_out_runs_are_asked_for_among_the_failed() {
        use RunStatus::{Cancelled, Failed, TimedOut};
        assert_eq!(asked(&[TimedOut]), [Failed]);
        assert_eq!(asked(&[Cancelled, TimedOut, Failed]), [Cancelled, Failed]);
        assert!(splits(&[TimedOut]) && splits(&[Failed]) && !splits(&[Failed, TimedOut]) && !splits(&[]));
    }
}
