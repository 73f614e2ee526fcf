//! The driver's part of reporting: it makes the calls of the outbox, and passes on what has become of them.

use tokio::time::Instant;

use super::super::assignments::{Event, Reported};
use super::super::outbox::{self, Resolution, ResolvedReport, Saved, Sent};
use super::{MAX_REPLACEMENT_BYTES, Saving, WorkerDriver};
use crate::error::ErrorKind;
use crate::model::payload::cut;
use crate::rpc::convert::ReportKind;

impl WorkerDriver {
    /// Makes the calls that are due.
    pub(super) fn send_reports(&mut self, now: Instant) {
        let is_full = self.outbox.is_full();
        if is_full != self.assignments.is_on_hold() {
            self.step(Event::Hold(is_full));
        }
        self.hold_doubtful_reports();
        if self.journal.is_some()
            && let Some(unsaved) = self.outbox.take_unsaved()
        {
            self.saving = self.journal.take().map(|journal| -> Saving { Box::pin(journal.save(unsaved)) });
        }
        while let Some(call) = self.outbox.next_call(now) {
            self.calls.push(Box::pin(outbox::send(self.worker.client.rpc().clone(), call)));
        }
    }

    pub(super) fn on_saved(&mut self, saved: Option<Saved>) {
        self.saving = None;
        // There is none if the runtime is shut down.
        let Some(saved) = saved else { return self.outbox.disable_journal() };
        let (journal, withdrawn) = self.outbox.saved(saved);
        self.journal = journal;
        self.on_resolved(withdrawn);
    }

    pub(super) fn on_sent(&mut self, sent: Sent) {
        let resolved = self.outbox.sent(Instant::now(), sent, fastrand::f64());
        self.on_resolved(resolved);
    }

    pub(super) fn on_resolved(&mut self, resolved: Vec<ResolvedReport>) {
        for ResolvedReport { key, report, resolution } in resolved {
            let is_earlier = self.earlier.contains(&key);
            let reported = match resolution {
                Resolution::Accepted => Reported::accepted(report.kind),
                Resolution::Withdrawn => Reported::Withdrawn,
                Resolution::Rejected(error)
                    if error.kind() == ErrorKind::TooLarge && report.size() > MAX_REPLACEMENT_BYTES =>
                {
                    // A failure is still retried, or not.
                    let replacement = if report.kind == ReportKind::Failed {
                        report.with_text(|text| cut(text, MAX_REPLACEMENT_BYTES / 2))
                    } else {
                        report.into_failure(format!("the task's output could not be sent: {error}"))
                    };
                    self.outbox.replace(key, replacement, is_earlier);
                    continue;
                }
                Resolution::Rejected(error) => {
                    tracing::error!(worker_id = %self.id, run_id = %key.run, task_id = %key.task, attempt = key.attempt(), %error, "failed to report the end of an attempt");
                    Reported::Rejected
                }
            };
            self.earlier.resolved(&key);
            self.step(Event::Reported(key, reported));
        }
    }
}
