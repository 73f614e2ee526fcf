//! The handle of a running worker.

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;

use super::builder::Worker;
use super::driver::Driver;
use super::report::WorkerReport;
use crate::error::{Error, ErrorKind, Result};
use crate::model::WorkerId;

/// How long the first heartbeat may take to be accepted.
pub(super) const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A running worker. Dropping it stops it immediately and drops running attempts; use [`shutdown`](Self::shutdown) to stop it
/// gracefully.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, greet: hatchet::Task<(), ()>) -> hatchet::Result<()> {
/// let worker = hatchet.worker("mailer").register(&greet).build()?.start().await?;
/// println!("worker {} takes tasks", worker.id());
/// println!("{}", worker.shutdown().await);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it stops the worker"]
pub struct RunningWorker {
    id: WorkerId,
    stop: CancellationToken,
    task: Option<JoinHandle<WorkerReport>>,
}

impl RunningWorker {
    pub(super) async fn start(worker: Worker, id: WorkerId) -> Result<Self> {
        let stop = CancellationToken::new();
        let (ready, is_ready) = oneshot::channel();
        let driver = Driver::new(worker, id, stop.clone(), ready);
        let this = Self { id, stop, task: Some(tokio::spawn(driver.run())) };
        match tokio::time::timeout(READY_TIMEOUT, is_ready).await {
            Ok(Ok(ready)) => ready.map(|()| this),
            Ok(Err(_)) => Err(Error::closed("the worker")),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!("no heartbeat of worker {id} was accepted within {READY_TIMEOUT:?}"),
            )
            .transient()),
        }
    }

    /// Returns the worker's id at its start. The id changes if the engine loses the worker and it registers again.
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// Shuts the worker down gracefully: it accepts no new attempts, waits for running attempts until the grace period is over, and
    /// returns a report.
    ///
    /// The shutdown takes at least 1.75 seconds, because the engine may take up to 1.5 seconds to notice that a worker is paused, and
    /// an assignment to a closed stream would be a failed attempt. With a paused clock it takes no real time.
    ///
    /// ```no_run
    /// # async fn example(worker: hatchet::worker::RunningWorker) -> hatchet::Result<()> {
    /// let report = worker.shutdown().await;
    /// println!("{report}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// Panics if this crate's own background code panicked, because the report would be wrong. A task that panics is only a failed
    /// attempt.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped, the worker is stopped immediately, and running attempts are dropped.
    pub async fn shutdown(mut self) -> WorkerReport {
        self.stop.cancel();
        match self.task.as_mut() {
            Some(task) => match task.await {
                Ok(report) => report,
                // The task is not expected to panic. If it did, the report would be wrong.
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => WorkerReport::default(),
            },
            None => WorkerReport::default(),
        }
    }
}

impl Drop for RunningWorker {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
