//! The heartbeats of a worker under its current id.

use super::super::heartbeat::{Failures, Heartbeat, Heartbeats};
use super::super::heartbeat_thread::LastHeartbeat;
use crate::client::Client;
use crate::error::Error;
use crate::model::WorkerId;
use crate::sync::or_pending;
use crate::workflow::FullSlots;

/// Heartbeats that are started again when the worker has another id. What is known of the earlier ones is kept.
pub(super) struct WorkerHeartbeats {
    /// `None` if the engine must not send more assignments, and the worker could not be paused.
    current: Option<Heartbeats>,
    failures: Failures,
    last: LastHeartbeat,
    full_slots: FullSlots,
}

impl WorkerHeartbeats {
    /// Prepares the heartbeats. They begin with the first call of [`request_early`](Self::request_early).
    pub(super) fn start(client: &Client, worker: WorkerId, last: LastHeartbeat, full_slots: FullSlots) -> Self {
        let current = Some(Heartbeats::start(client, worker, &last, &full_slots));
        Self { current, failures: Failures::default(), last, full_slots }
    }

    /// Starts the heartbeats of a worker that was registered again.
    pub(super) fn restart(&mut self, client: &Client, worker: WorkerId) {
        self.current = Some(Heartbeats::start(client, worker, &self.last, &self.full_slots));
    }

    pub(super) fn end(&mut self) {
        self.current = None;
    }

    pub(super) fn have_ended(&self) -> bool {
        self.current.is_none()
    }

    /// Requests early heartbeats, because a stream is being opened, or because the worker must know whether it is connected.
    pub(super) fn request_early(&self) {
        self.current.iter().for_each(Heartbeats::request_early);
    }

    /// Returns the next result. Never resolves if the heartbeats have ended. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Heartbeat> {
        or_pending(self.current.as_mut().map(Heartbeats::next)).await
    }

    /// Logs that the heartbeats do not fail any longer.
    pub(super) fn accepted(&mut self, worker: WorkerId) {
        self.failures.end(worker);
    }

    /// Counts and logs a failure.
    pub(super) fn failed(&mut self, worker: WorkerId, error: &Error) {
        self.failures.add(worker, error);
    }

    /// Ends the heartbeats, and waits until their thread has ended.
    pub(super) async fn stop(self) {
        if let Some(heartbeats) = self.current {
            heartbeats.stop().await;
        }
    }
}
