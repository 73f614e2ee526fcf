//! The final report of a worker.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{RunId, TaskId};

/// The results of the attempts that were assigned to a worker.
///
/// Each attempt is in exactly one of the counts.
///
/// ```no_run
/// # async fn example(worker: hatchet::worker::RunningWorker) {
/// let report = worker.shutdown().await;
/// println!("{report}"); // attempts: 12 completed, 1 failed, 0 cancelled, 2 unfinished
/// for attempt in &report.unfinished_attempts {
///     println!("{} attempt {}", attempt.run_id, attempt.attempt);
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerReport {
    /// The number of attempts that completed and were reported to the engine. If several results are reported in one call, the engine does not
    /// say whether it knows all of the tasks.
    pub completed: u64,
    /// The number of attempts that failed and were reported to the engine. A run whose task failed twice and then completed counts
    /// twice here, and once in [`completed`](Self::completed).
    pub failed: u64,
    /// The number of attempts that were cancelled, timed out or replaced by another attempt, while they ran or before they started. The
    /// engine ends them before it notifies the worker. An attempt that has failed counts here if the response to its report was lost, and the
    /// next attempt has begun.
    pub cancelled: u64,
    /// The number of attempts without a confirmed result: they did not end within the grace period or before a second signal, were assigned
    /// after the worker stopped accepting attempts, were assigned in a message that the worker does not understand, or the engine did not
    /// confirm their report. The engine assigns them to another worker 30 seconds after this worker's last heartbeat.
    pub unfinished: u64,
    /// The first [1000](Self::MAX_UNFINISHED_ATTEMPTS) unfinished attempts.
    pub unfinished_attempts: Vec<UnfinishedAttempt>,
}

/// An attempt whose end was not reported to the engine, or whose report was not confirmed.
///
/// ```no_run
/// # async fn example(worker: hatchet::worker::RunningWorker) -> hatchet::Result<()> {
/// for attempt in worker.shutdown().await.unfinished_attempts {
///     println!("attempt {} of {} in run {}", attempt.attempt, attempt.task_id, attempt.run_id);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UnfinishedAttempt {
    /// The run that the task belongs to.
    pub run_id: RunId,
    /// The task that the attempt belongs to.
    pub task_id: TaskId,
    /// The number of the attempt, starting at 1.
    pub attempt: u32,
    /// Whether the function has finished, so that only the report of its result was not confirmed. The engine may have accepted the report.
    pub is_finished: bool,
}

impl WorkerReport {
    /// The maximum number of [`unfinished_attempts`](Self::unfinished_attempts). Further attempts are only counted.
    pub const MAX_UNFINISHED_ATTEMPTS: usize = 1000;

    /// Returns the number of attempts that were assigned to the worker.
    pub fn total(&self) -> u64 {
        self.completed + self.failed + self.cancelled + self.unfinished
    }

    pub(super) fn add_unfinished(&mut self, attempt: Option<UnfinishedAttempt>) {
        self.unfinished += 1;
        self.unfinished_attempts
            .extend(attempt.filter(|_| self.unfinished_attempts.len() < Self::MAX_UNFINISHED_ATTEMPTS));
    }
}

impl fmt::Display for WorkerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { completed, failed, cancelled, unfinished, .. } = self;
        write!(f, "attempts: {completed} completed, {failed} failed, {cancelled} cancelled, {unfinished} unfinished")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_unfinished_attempts_are_counted_and_1000_are_listed() {
        let run: RunId = "00000000-0000-4000-8001-000000000001".parse().unwrap();
        let mut report = WorkerReport { completed: 2, failed: 1, ..WorkerReport::default() };
        for attempt in 1..=1500 {
            report.add_unfinished(Some(UnfinishedAttempt {
                run_id: run,
                task_id: run.into(),
                attempt,
                is_finished: false,
            }));
        }
        report.add_unfinished(None);
        assert_eq!((report.total(), report.unfinished_attempts.len()), (1504, WorkerReport::MAX_UNFINISHED_ATTEMPTS));
        assert_eq!(report.to_string(), "attempts: 2 completed, 1 failed, 0 cancelled, 1501 unfinished");
    }
}
