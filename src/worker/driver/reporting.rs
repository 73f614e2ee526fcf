//! The driver's part of reporting: it makes the calls of the outbox, and passes on what has become of them.

use tokio::time::Instant;

use super::super::assignments::{Event, Reported};
use super::super::outbox::{self, Resolution, ResolvedReport, Saved, Sent};
use super::WorkerDriver;
use super::journal::Journal;
use crate::error::ErrorKind;
use crate::model::payload::cut;
use crate::rpc::convert::ReportKind;

/// The maximum size of a failure that replaces a report which is too large.
const MAX_REPLACEMENT_BYTES: usize = 1000;

impl WorkerDriver {
    /// Makes the calls that are due.
    pub(super) fn send_reports(&mut self, now: Instant) {
        let is_full = self.outbox.is_full();
        if is_full != self.assignments.is_on_hold() {
            self.step(Event::Hold(is_full));
        }
        self.hold_doubtful_reports();
        self.journal.save(&mut self.outbox);
        while let Some(call) = self.outbox.next_call(now) {
            self.calls.push(Box::pin(outbox::send(self.worker.client.rpc().clone(), call)));
        }
    }

    pub(super) fn on_saved(&mut self, saved: Option<Saved>) {
        self.journal = Journal::None;
        // There is none if the runtime is shut down.
        let Some(saved) = saved else { return self.outbox.disable_journal() };
        let (writer, withdrawn) = self.outbox.saved(saved);
        self.journal = Journal::new(writer);
        self.on_resolved(withdrawn);
    }

    /// Writes what is left for the journal, and closes it.
    pub(super) async fn close_journal(&mut self) {
        let journal = match std::mem::take(&mut self.journal) {
            Journal::Saving(saving) => {
                self.on_saved(saving.await);
                std::mem::take(&mut self.journal)
            }
            journal => journal,
        };
        let Journal::Idle(writer) = journal else { return };
        // What was accepted since must not be reported again by the next process.
        let writer = match self.outbox.take_unsaved() {
            Some(unsaved) => writer.save(unsaved).await.and_then(|saved| saved.journal),
            None => Some(writer),
        };
        if let Some(writer) = writer {
            writer.close().await;
        }
    }

    pub(super) fn on_sent(&mut self, sent: Sent) {
        let resolved = self.outbox.sent(Instant::now(), sent, fastrand::f64());
        self.on_resolved(resolved);
    }

    fn on_resolved(&mut self, resolved: Vec<ResolvedReport>) {
        for ResolvedReport { key, report, resolution, is_recovered } in resolved {
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
                    self.outbox.replace(key, replacement, is_recovered);
                    continue;
                }
                Resolution::Rejected(error) => {
                    tracing::error!(worker_id = %self.id, run_id = %key.run, task_id = %key.task, attempt = key.attempt(), %error, "failed to report the end of an attempt");
                    Reported::Rejected
                }
            };
            if is_recovered {
                self.earlier.resolved(&key);
            } else {
                self.step(Event::Reported(key, reported));
            }
        }
    }
}
