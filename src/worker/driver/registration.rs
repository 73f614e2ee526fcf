//! Registering the worker again, after the engine has lost it.

use futures_util::future::BoxFuture;

use super::super::setup::Worker;
use crate::error::Error;
use crate::model::WorkerId;
use crate::sync::or_pending;
use crate::telemetry::MAX_WARNINGS;

/// The new id of a worker, or the one under which it is registered and could not be paused, with the error.
pub(super) type Registered = Result<WorkerId, (Option<WorkerId>, Error)>;

#[derive(Default)]
pub(super) struct Registration {
    running: Option<BoxFuture<'static, Registered>>,
    /// The number of successive failures.
    failures: u32,
    /// The id under which the worker is registered again, if it must be paused first.
    unpaused: Option<WorkerId>,
}

impl Registration {
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Registers the worker again. A paused one must not get assignments under its new id.
    pub(super) fn start(&mut self, worker: &Worker, is_paused: bool) {
        let (registration, rpc) = (worker.registration(), worker.client.rpc().clone());
        // Otherwise, each failure to pause would leave another registered worker.
        let unpaused = self.unpaused.take();
        self.running = Some(Box::pin(async move {
            let id = match unpaused {
                Some(id) => id,
                None => registration.await.map_err(|error| (None, error))?,
            };
            if is_paused {
                let paused = rpc.rest.pause_worker(id, true).await;
                paused.map_err(|error| (Some(id).filter(|_| !error.is_not_found()), error))?;
            }
            Ok(id)
        }));
    }

    pub(super) fn cancel(&mut self) {
        self.running = None;
    }

    /// Resolves when the worker is registered, or when that has failed. Never resolves otherwise. Cancel safe.
    pub(super) async fn ended(&mut self) -> Registered {
        or_pending(self.running.as_mut()).await
    }

    /// Ends the registration of a worker with this id, and returns the new id. A failure is logged: the next heartbeat is rejected again,
    /// which triggers the next try.
    pub(super) fn end(&mut self, worker: WorkerId, registered: Registered) -> Option<WorkerId> {
        self.running = None;
        match registered {
            Ok(id) => {
                self.failures = 0;
                Some(id)
            }
            Err((unpaused, error)) => {
                self.unpaused = unpaused;
                self.failures = self.failures.saturating_add(1);
                let failures = self.failures;
                if failures <= MAX_WARNINGS {
                    tracing::warn!(worker_id = %worker, %error, failures, "failed to register the worker again");
                } else {
                    tracing::debug!(worker_id = %worker, %error, failures, "still failing to register the worker again");
                }
                None
            }
        }
    }
}
