//! The driver's part of registering the worker again, after the engine has lost it.

use futures_util::future::BoxFuture;

use super::super::heartbeat::Heartbeats;
use super::WorkerDriver;
use crate::error::{Error, Result};
use crate::model::WorkerId;
use crate::telemetry::MAX_WARNINGS;

/// The new id of a worker, or the one under which it is registered and could not be paused, with the error.
pub(super) type Registered = Result<WorkerId, (Option<WorkerId>, Error)>;
pub(super) type Registering = BoxFuture<'static, Registered>;

impl WorkerDriver {
    /// Registers the worker again. A paused one must not get assignments under its new id.
    pub(super) fn register(&mut self) -> Registering {
        let (registration, rpc, is_paused) =
            (self.worker.registration(), self.worker.client.rpc().clone(), self.is_paused);
        // Otherwise, each failure to pause would leave another registered worker.
        let unpaused = self.unpaused.take();
        Box::pin(async move {
            let id = match unpaused {
                Some(id) => id,
                None => registration.await.map_err(|error| (None, error))?,
            };
            if is_paused {
                let paused = rpc.rest.pause_worker(id, true).await;
                paused.map_err(|error| (Some(id).filter(|_| !error.is_not_found()), error))?;
            }
            Ok(id)
        })
    }

    pub(super) fn on_registered(&mut self, id: Registered) {
        self.registering = None;
        match id {
            Ok(id) => {
                tracing::warn!(old_worker_id = %self.id, worker_id = %id, "worker was unknown to the engine; registered again");
                self.id = id;
                self.connection.request_check();
                self.mark_notifications_lost();
                self.register_failures = 0;
                self.stream.reopen_now();
                self.heartbeats =
                    Some(Heartbeats::start(&self.worker.client, id, &self.last_heartbeat, &self.full_slots));
            }
            // The next heartbeat is rejected again, which triggers the next try.
            Err((unpaused, error)) => {
                self.unpaused = unpaused;
                self.register_failures = self.register_failures.saturating_add(1);
                let failures = self.register_failures;
                if failures <= MAX_WARNINGS {
                    tracing::warn!(worker_id = %self.id, %error, failures, "failed to register the worker again");
                } else {
                    tracing::debug!(worker_id = %self.id, %error, failures, "still failing to register the worker again");
                }
            }
        }
    }
}
