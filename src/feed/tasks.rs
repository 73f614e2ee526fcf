//! The background tasks of a client.

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::{Error, Result};

/// Spawns tasks on the runtime of the client, and ends them all.
#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    runtime: Handle,
    tracker: TaskTracker,
    stopped: CancellationToken,
}

impl Tasks {
    pub(super) fn new(runtime: Handle) -> Self {
        Self { runtime, tracker: TaskTracker::new(), stopped: CancellationToken::new() }
    }

    /// Spawns a task, which is cancelled when the client is closed or dropped. Its result is `None` then.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<Option<T>> {
        let task = self.stopped.clone().run_until_cancelled_owned(task);
        self.tracker.spawn_on(task, &self.runtime)
    }

    /// # Errors
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) if the client is closed.
    pub(crate) fn check(&self) -> Result<()> {
        if self.stopped.is_cancelled() { Err(Error::closed("the client").without_side_effects()) } else { Ok(()) }
    }

    /// The error of a caller whose task has ended early.
    pub(crate) fn ended(&self) -> Error {
        self.check()
            .err()
            .unwrap_or_else(|| Error::closed("the runtime that the client was created on").without_side_effects())
    }

    pub(super) fn stop(&self) {
        self.stopped.cancel();
    }

    pub(super) async fn close(&self) {
        self.stop();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::error::ErrorKind;

    #[tokio::test(start_paused = true)]
    async fn closing_ends_all_tasks_and_waits_for_them() {
        let tasks = Tasks::new(Handle::current());
        let (endless, short) = (tasks.spawn(pending::<()>()), tasks.spawn(async { 7 }));
        assert_eq!(short.await.unwrap(), Some(7));
        tasks.check().unwrap();
        tasks.close().await;
        assert!(endless.is_finished());
        assert_eq!(tasks.check().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(tasks.spawn(async { 7 }).await.unwrap(), None, "a task that is spawned later does not run");
    }
}
