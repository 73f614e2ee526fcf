//! What is logged while reports fail: a few warnings for the worker as a whole, and one line when all are accepted again.

use tokio::time::Instant;

use super::Entry;
use crate::error::Error;
use crate::model::WorkerId;
use crate::telemetry::MAX_WARNINGS;

/// The failures since all reports were accepted the last time.
#[derive(Debug, Default)]
pub(super) struct Failures {
    count: u32,
    since: Option<Instant>,
    /// How many reports have failed and are still in the outbox.
    failing: usize,
}

impl Failures {
    /// A report has failed for the first time.
    pub(super) fn first_of_report(&mut self) {
        self.failing += 1;
    }

    /// A report that has failed is not in the outbox any longer.
    pub(super) fn resolved(&mut self) {
        self.failing = self.failing.saturating_sub(1);
    }

    /// Counts and logs the failure of a call because of which none of the reports is sent. `reports`: their number.
    pub(super) fn add(&mut self, now: Instant, worker: Option<WorkerId>, reports: usize, error: &Error) {
        let (worker_id, failures) = (worker.map(tracing::field::display), self.count(now));
        if failures <= MAX_WARNINGS {
            tracing::warn!(worker_id, %error, failures, reports, "failed to report results; will retry");
        } else {
            tracing::debug!(worker_id, %error, failures, reports, "still failing to report results");
        }
    }

    /// Counts and logs the failure of one report.
    pub(super) fn add_report(&mut self, now: Instant, Entry { key, report, .. }: &Entry, error: &Error) {
        let failures = self.count(now);
        if failures <= MAX_WARNINGS {
            tracing::warn!(worker_id = %report.worker, run_id = %key.run, task_id = %key.task, attempt = key.attempt(), %error, failures, reports = 1, "failed to report results; will retry");
        } else {
            tracing::debug!(worker_id = %report.worker, run_id = %key.run, task_id = %key.task, attempt = key.attempt(), %error, failures, reports = 1, "still failing to report results");
        }
    }

    fn count(&mut self, now: Instant) -> u32 {
        self.since.get_or_insert(now);
        self.count = self.count.saturating_add(1);
        self.count
    }

    /// A call was accepted. If no report is failing any longer, the failures have ended.
    pub(super) fn accepted(&mut self, now: Instant, worker: Option<WorkerId>) {
        if self.failing > 0 {
            return;
        }
        if let Self { count: failures, since: Some(since), .. } = std::mem::take(self) {
            let worker_id = worker.map(tracing::field::display);
            tracing::info!(worker_id, failures, after = ?now - since, "results are accepted again");
        }
    }
}
