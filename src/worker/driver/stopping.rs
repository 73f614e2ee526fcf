//! The driver's part of the shutdown: it pauses the worker, waits for its attempts, and ends.

use tokio::time::{Duration, Instant, timeout};

use super::super::assignments::Event;
use super::super::report::WorkerReport;
use super::shutdown::{Deadlines, Phase};
use super::{WorkerDriver, record_load};

/// The timeout of each call of a shutdown.
pub(super) const SHUTDOWN_CALL_TIMEOUT: Duration = Duration::from_secs(2);

impl WorkerDriver {
    /// Pauses the worker, so that it gets no more assignments.
    pub(super) fn pause(&mut self) {
        tracing::info!(worker_id = %self.id, "worker is shutting down");
        self.registration.cancel();
        let (client, id) = (self.worker.client.clone(), self.id);
        self.phase = Phase::Pausing(Box::pin(async move {
            matches!(timeout(SHUTDOWN_CALL_TIMEOUT, client.rpc().rest.pause_worker(id, true)).await, Ok(Ok(())))
        }));
    }

    /// Waits for the running attempts. Heartbeats continue meanwhile: without them the engine would reassign the attempts. But a worker
    /// that could not be paused must not send heartbeats, or it would get more assignments.
    pub(super) fn drain(&mut self, is_paused: bool) {
        if !is_paused {
            tracing::warn!(worker_id = %self.id, "failed to pause the worker; stopped its heartbeats so that it gets no more assignments");
            self.heartbeats.end();
        }
        let (grace, cancel_grace) = (self.worker.grace, self.worker.cancel_grace);
        self.phase = Phase::Draining(Deadlines::new(Instant::now(), is_paused, grace, cancel_grace));
    }

    pub(super) fn on_deadline(&mut self) {
        let Phase::Draining(deadlines) = &mut self.phase else { return };
        let due = deadlines.take_due(Instant::now());
        if due.stop_accepting {
            self.step(Event::StopAccepting);
        }
        if due.drop_all {
            self.step(Event::DropAll);
        }
        if due.abandon {
            self.step(Event::Abandon);
        }
    }

    pub(super) fn is_drained(&self) -> bool {
        let Phase::Draining(deadlines) = &self.phase else { return false };
        self.assignments.is_idle() && deadlines.are_assignments_over(Instant::now())
    }

    /// Ends a worker that does not wait for attempts any longer.
    pub(super) async fn end(mut self) -> WorkerReport {
        let force = self.handle.force.clone();
        if force.is_cancelled() {
            self.step(Event::Abandon);
        }
        if timeout(SHUTDOWN_CALL_TIMEOUT, self.close_journal()).await.is_err() {
            tracing::error!(worker_id = %self.id, "failed to write to the outbox file in time");
        }
        let leave = async {
            // Code that blocks its thread cannot be waited for.
            self.jobs.detach();
            self.resources.close().await;
            // The worker is gone anyway if this fails.
            let unsubscribe = self.worker.client.rpc().dispatcher.unsubscribe(self.id);
            drop(timeout(SHUTDOWN_CALL_TIMEOUT, unsubscribe).await);
            // Its timers: on virtual time, they must not be what the end of the heartbeats waits for.
            drop(self.stream);
            self.heartbeats.stop().await;
        };
        // What is left of it is dropped. Jobs that were not detached are aborted.
        force.run_until_cancelled(leave).await;
        record_load(&self.worker, (0, 0, 0));
        let report = self.assignments.into_report();
        tracing::info!(worker_id = %self.id, %report, "worker stopped");
        self.handle.publish_stopped();
        report
    }
}
