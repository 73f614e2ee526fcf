//! Pauses of workflows.

use std::time::Duration;

use super::turn::At;

/// What happens to a run that a schedule or a cron of a paused workflow would start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PausedRuns {
    /// It is created, and waits.
    Queue,
    /// It is not created.
    Drop,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Pause {
    /// Since when tasks that are queued wait for its end.
    pub(crate) from: At,
    pub(crate) crons: PausedRuns,
    pub(crate) schedules: PausedRuns,
    /// A task that is older than this and waits is cancelled.
    pub(crate) ttl: Duration,
}
