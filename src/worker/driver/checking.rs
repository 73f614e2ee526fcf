//! The driver's part of checking whether attempts still belong to the worker, when the engine may have ended them without a notification.

use std::collections::{HashMap, HashSet};

use super::super::assignments::{Event, Reported};
use super::super::outbox::{Confirmed, Doubt};
use super::super::ownership::{self, Checked, Held};
use super::WorkerDriver;
use crate::workflow::CancelCause;

impl WorkerDriver {
    /// Requests a check with the next heartbeat, which is sent soon.
    pub(super) fn request_check(&mut self) {
        self.connection.request_check();
        self.heartbeats.request_early();
    }

    /// Requests a check that is due although nothing indicates that it is needed. No result waits for it.
    pub(super) fn request_regular_check(&mut self) {
        self.connection.request_regular_check();
        self.heartbeats.request_early();
    }

    /// The engine may have ended attempts of this worker without a notification. Their results wait for the next check.
    pub(super) fn mark_notifications_lost(&mut self) {
        let attempts = self.assignments.held().chain(self.assignments.unreported());
        let attempts = attempts.filter(|(_, batch)| batch.is_none()).map(|(key, _)| key);
        self.outbox.add_doubtful(attempts.chain(self.earlier.identified()));
        self.checks.drop_running();
    }

    /// Results of attempts that another worker may have are not sent before the engine was asked.
    pub(super) fn hold_doubtful_reports(&mut self) {
        // The clocks are only read if results are sent.
        let now = self.outbox.has_ready_results().then(|| self.now());
        let doubt = self.connection.doubt(now, self.checks.is_running());
        self.outbox.set_doubt(doubt);
        if !self.has_unverified() {
            return;
        }
        if !self.connection.must_check() {
            self.request_check();
        }
        // A worker that could not be paused sends no heartbeats any longer.
        if self.heartbeats.have_ended() {
            self.start_check(false);
        }
    }

    /// Checks results that must not wait for a heartbeat to be accepted.
    pub(super) fn check_results(&mut self) {
        if self.has_unverified() {
            self.start_check(false);
        }
    }

    /// Whether results wait for a check that has not begun.
    fn has_unverified(&self) -> bool {
        self.outbox.has_unchecked() && !self.checks.is_running()
    }

    /// Finds out which attempts the engine has ended or assigned to other workers. `has_stream`: whether the engine has the stream, so that
    /// it notifies the worker of what it does from now on.
    pub(super) fn start_check(&mut self, has_stream: bool) {
        if self.checks.is_running() {
            return;
        }
        let results = self.earlier.unchecked().chain(self.outbox.unchecked());
        let attempts: HashSet<_> = self.assignments.held().chain(results).collect();
        // Results of an earlier process wait, too, and other workers may soon get their attempts.
        let is_urgent = self.earlier.has_unchecked()
            || self.outbox.has_doubtful()
            || self.connection.doubt(Some(self.now()), true) == Doubt::All;
        self.connection.check_started(!attempts.is_empty(), has_stream);
        if !attempts.is_empty() {
            // Including those whose results come during the check.
            let held = attempts.iter().cloned().collect();
            let check = ownership::check(self.worker.client.rpc().clone(), attempts, is_urgent);
            self.checks.start(held, Box::pin(check));
        }
    }

    pub(super) fn on_checked(&mut self, checked: &Checked) {
        let verified = self.checks.end();
        // With the next heartbeat.
        let is_regular = self.connection.is_regular_check();
        let is_again = self.connection.check_ended(checked.is_incomplete) || is_regular && checked.is_incomplete;
        if checked.is_incomplete && !is_again {
            tracing::warn!(worker_id = %self.id, "failed to check whether attempts belong to the worker; they are kept");
        }
        self.earlier.checked(self.id, checked, is_again, &mut self.outbox);
        let unreported: HashSet<Held> = self.assignments.unreported().collect();
        let held: HashSet<Held> = self.assignments.held().chain(unreported.iter().cloned()).collect();
        for ((key, batch), kind) in &checked.lost {
            let confirmed = match kind {
                Some(kind) => self.outbox.confirm(*key, *kind),
                // A failure may have been accepted, so that the next attempt is shown. Another result can have the same key.
                None if unreported.contains(&(*key, batch.clone())) && self.outbox.ended_in_flight(*key) => {
                    Confirmed::InFlight
                }
                None => Confirmed::No,
            };
            match confirmed {
                Confirmed::Removed => {
                    // It was accepted by a call whose response was lost.
                    self.earlier.resolved(key);
                    self.step(Event::Reported(*key, kind.map_or(Reported::Withdrawn, Reported::accepted)));
                    continue;
                }
                Confirmed::InFlight => continue,
                Confirmed::No => {}
            }
            let is_earlier = self.earlier.contains(key);
            // Not one of an earlier process, whose key a later attempt can have.
            let is_held = held.contains(&(*key, batch.clone()));
            // Otherwise, the engine has accepted its result during the check.
            if is_earlier || is_held {
                tracing::warn!(run_id = %key.run, task_id = %key.task, attempt = key.attempt(), worker_id = %self.id, "attempt was ended or reassigned by the engine");
            }
            if is_earlier && self.outbox.withdraw_recovered(*key) {
                self.earlier.resolved(key);
            }
            if is_held {
                self.stop_attempt(key, CancelCause::Lost);
                self.step(Event::Cancelled(*key));
            }
        }
        let answers: HashMap<Held, Option<u32>> = verified
            .into_iter()
            .map(|held| (checked.retry_counts.get(&held).copied(), held))
            // Those that name their attempt are not held for long.
            .filter(|(retry_count, (_, batch))| retry_count.is_some() || batch.is_none() || !is_again)
            .map(|(retry_count, held)| (held, retry_count))
            .collect();
        // Also those of attempts that were assigned during the check.
        let without_answer = |held: &Held| (checked.is_incomplete && held.1.is_none()).then_some(None);
        if !self.connection.must_check() {
            // The engine has the stream, and notifies the worker of what it does from now on.
            self.outbox.end_doubt(checked.retry_counts.keys().map(|(key, _)| *key));
        }
        self.outbox.set_checked(|held| answers.get(held).copied().or_else(|| without_answer(held)));
        if self.connection.must_check() && self.outbox.has_unchecked() {
            self.request_check();
        }
    }
}
