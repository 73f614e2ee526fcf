//! The statuses to request from the server's list, which has none for timed-out runs.

use crate::model::RunStatus;

/// The possible statuses of rows that the server lists as failed.
const AMONG_FAILED: [RunStatus; 3] = [RunStatus::Failed, RunStatus::TimedOut, RunStatus::Cancelled];

/// The statuses to request from the server.
pub(super) fn requested(statuses: &[RunStatus]) -> Vec<RunStatus> {
    let mut requested = Vec::new();
    let among_failed = |status: &RunStatus| AMONG_FAILED.contains(status).then_some(RunStatus::Failed);
    let by_name = |status: &RunStatus| Some(status.clone()).filter(|status| *status != RunStatus::TimedOut);
    for status in statuses.iter().flat_map(|status| [by_name(status), among_failed(status)]).flatten() {
        if !requested.contains(&status) {
            requested.push(status);
        }
    }
    requested
}

/// Whether the server's response includes rows with other statuses.
pub(super) fn needs_derivation(statuses: &[RunStatus]) -> bool {
    let wanted = AMONG_FAILED.iter().filter(|status| statuses.contains(status)).count();
    (1..AMONG_FAILED.len()).contains(&wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timed_out_and_cancelled_runs_are_requested_as_failed() {
        use RunStatus::{Cancelled, Completed, Failed, TimedOut};
        assert_eq!(requested(&[TimedOut]), [Failed]);
        assert_eq!(requested(&[Cancelled]), [Cancelled, Failed]);
        assert_eq!(requested(&[Cancelled, TimedOut, Failed]), [Cancelled, Failed]);
        assert_eq!(requested(&[Completed]), [Completed]);
        for split in [&[TimedOut][..], &[Failed], &[Cancelled], &[Failed, TimedOut], &[Completed, Cancelled]] {
            assert!(needs_derivation(split), "{split:?}");
        }
        assert!(
            !needs_derivation(&[])
                && !needs_derivation(&[Completed])
                && !needs_derivation(&[Failed, Cancelled, TimedOut])
        );
    }
}
