//! Collections that run repeatedly: in this process, or as a Hatchet task.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::collect::CollectBuilder;
use super::handle::Archive;
use super::report::CollectReport;
use super::text::Length;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{self, Needs};
use crate::time::MAX_DURATION;
use crate::workflow::{Concurrency, ConcurrencyStrategy, Context, Task, TaskError};

/// The fraction of the interval by which it varies, so that several processes do not collect at the same time.
const JITTER_FRACTION: f64 = 0.1;
/// How long [`RunningCollector::shutdown`] waits for the last commit.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a collection by a task may take.
const TASK_TIMEOUT: Duration = Duration::from_secs(6 * 3600);
/// How many times a collection by a task is retried.
const TASK_RETRIES: u32 = 3;
/// The delay before the first of these retries in seconds, and the factor by which it grows.
const TASK_BACKOFF_FACTOR: f32 = 10.0;
const TASK_MAX_BACKOFF: Duration = Duration::from_secs(600);

impl CollectBuilder {
    /// Returns a builder for a collector, which repeats the collection: it collects immediately when it is started, and then once per
    /// interval.
    ///
    /// The interval must be from 1 second to 10 years.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, archive: hatchet::archive::Archive) -> hatchet::Result<()> {
    /// use std::time::Duration;
    /// use hatchet::archive::Retention;
    ///
    /// let retention = Retention::older_than(Duration::from_secs(20 * 24 * 3600));
    /// let collector = archive.collect(&hatchet, retention).every(Duration::from_secs(6 * 3600)).start()?;
    /// // … when the process ends:
    /// collector.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn every(self, interval: Duration) -> CollectorBuilder {
        CollectorBuilder { collection: self, interval }
    }

    /// Creates a task that collects runs, to be registered with a worker.
    ///
    /// Each collection is then a run of this task: it is visible in the dashboard, and it is retried if it fails. Only one run of the task
    /// executes at a time; a run that is started in the meantime is cancelled. The output is a [`CollectReport`].
    ///
    /// The timeout of the task is 6 hours, and it is retried three times, after about 10, 100 and 600 seconds; these can be changed, and a
    /// [cron](Task::cron) can be added. The task does not know how often it runs: set the interval with
    /// [`collected_every`](Self::collected_every). If an option of the collection is invalid, the runs fail. A collection that is cancelled
    /// commits the runs that it has fetched, if this does not take longer than the worker's
    /// [`cancel_grace_period`](crate::worker::WorkerBuilder::cancel_grace_period). The default of one second is too short for most stores.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, archive: hatchet::archive::Archive) -> hatchet::Result<()> {
    /// use std::time::Duration;
    /// use hatchet::archive::Retention;
    ///
    /// const DAY: Duration = Duration::from_secs(24 * 3600);
    /// let collect = archive.collect(&hatchet, Retention::older_than(20 * DAY)).collected_every(DAY);
    /// let collect = collect.task("archive-runs").cron("0 3 * * *");
    /// let worker = hatchet.worker("archiver").register(&collect).cancel_grace_period(Duration::from_secs(30)).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn task(self, name: impl Into<String>) -> Task<(), CollectReport> {
        let builder = Arc::new(self);
        let task = Task::new(name, move |(): (), context: Context| {
            let (builder, stop) = (CollectBuilder::clone(&builder), CancellationToken::new());
            async move {
                let mut collection = Box::pin(builder.stopped_by(stop.clone()).send());
                let report = tokio::select! {
                    report = &mut collection => report,
                    () = context.cancelled() => {
                        stop.cancel();
                        collection.await
                    }
                };
                report.map_err(TaskError::from)
            }
        });
        let one = Concurrency::new("'archive'", ConcurrencyStrategy::CancelNewest).max_runs(1);
        let task = task.concurrency(one).timeout(TASK_TIMEOUT).retries(TASK_RETRIES);
        task.preset_backoff(TASK_BACKOFF_FACTOR, TASK_MAX_BACKOFF)
    }
}

/// A builder for a collector, which archives runs at an interval; see [`CollectBuilder::every`].
///
/// [`start`](Self::start) starts it.
///
/// ```no_run
/// # async fn example(collection: hatchet::archive::CollectBuilder) -> hatchet::Result<()> {
/// use std::time::Duration;
///
/// let collector = collection.every(Duration::from_secs(3600)).start()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is archived until `start` is called"]
pub struct CollectorBuilder {
    collection: CollectBuilder,
    interval: Duration,
}

impl CollectorBuilder {
    /// Starts a Tokio task that collects until the handle is shut down or dropped.
    ///
    /// The interval is measured between the starts of two collections, and varies by up to 10 % so that several processes do not collect at
    /// the same time. If a collection takes longer, the next one starts as soon as it ends. A collection that fails is logged, and the
    /// collector continues.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the interval is shorter than one second or longer than ten years, or if an
    /// option of the collection is invalid. [`Config`](crate::ErrorKind::Config) if the current thread has no suitable Tokio runtime.
    pub fn start(self) -> Result<RunningCollector> {
        let Self { mut collection, interval } = self;
        if !(Duration::from_secs(1)..=MAX_DURATION).contains(&interval) {
            let problem = format!("expected 1 second to 10 years, got {}", Length(interval));
            return Err(Error::invalid("interval", problem));
        }
        collection.options.interval = interval;
        collection.check()?;
        let runtime = runtime::current("a collector", Needs::Timers)?;
        let (results, last_result) = watch::channel(None);
        let (stop, is_collecting) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
        let archive = collection.options.archive.clone();
        let task = collect_regularly(collection, interval, results, stop.clone(), Arc::clone(&is_collecting));
        let task = AbortOnDropHandle::new(runtime.spawn(task));
        Ok(RunningCollector { last_result, stop, is_collecting, archive, task })
    }
}

type LastResult = Option<Result<CollectReport>>;

async fn collect_regularly(
    builder: CollectBuilder,
    interval: Duration,
    results: watch::Sender<LastResult>,
    stop: CancellationToken,
    is_collecting: Arc<AtomicBool>,
) {
    loop {
        let started_at = Instant::now();
        is_collecting.store(true, Relaxed);
        let result = builder.clone().stopped_by(stop.clone()).send().await;
        is_collecting.store(false, Relaxed);
        let (archive, is_stopped) = (builder.options.archive.url(), stop.is_cancelled());
        match &result {
            Err(error) if is_stopped && error.kind() == ErrorKind::Closed => {}
            Err(error) if is_stopped => {
                tracing::warn!(%error, archive, "the last collection failed; the next one fetches what was not committed");
            }
            Err(error) => tracing::warn!(%error, archive, "a collection failed; the collector continues"),
            Ok(_) => {}
        }
        if is_stopped {
            return;
        }
        results.send_replace(Some(result));
        let pause = interval.mul_f64(1.0 - JITTER_FRACTION + 2.0 * JITTER_FRACTION * fastrand::f64());
        if stop.run_until_cancelled(sleep_until(started_at + pause)).await.is_none() {
            return;
        }
    }
}

/// A collector in this process; see [`CollectBuilder::every`].
///
/// Dropping this handle aborts the collector: the next collection fetches uncommitted runs again.
/// [`shutdown`](Self::shutdown) commits them first.
///
/// ```no_run
/// # async fn example(mut collector: hatchet::archive::RunningCollector) -> hatchet::Result<()> {
/// while let Some(result) = collector.next_result().await {
///     println!("{}", result?);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it stops the collector"]
pub struct RunningCollector {
    last_result: watch::Receiver<LastResult>,
    stop: CancellationToken,
    is_collecting: Arc<AtomicBool>,
    archive: Archive,
    task: AbortOnDropHandle<()>,
}

impl RunningCollector {
    /// Returns the result of the last collection, or `None` if none has ended yet.
    pub fn last_result(&self) -> Option<Result<CollectReport>> {
        self.last_result.borrow().clone()
    }

    /// Waits until a collection ends, and returns its result.
    ///
    /// If several collections have ended since the last call, only the result of the newest is returned. Returns `None` if the collector
    /// has ended.
    ///
    /// # Errors
    /// The error of the collection; see [`CollectBuilder::send`](super::CollectBuilder::send). The collector continues after an
    /// error.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, the next call returns the result.
    pub async fn next_result(&mut self) -> Option<Result<CollectReport>> {
        self.last_result.changed().await.ok()?;
        self.last_result.borrow_and_update().clone()
    }

    /// Stops the collector.
    ///
    /// A collection in progress fetches no more runs, and commits those that it has fetched. If this takes longer than 30 seconds, the
    /// collection is aborted, and the next collection fetches these runs again.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped, the collector is aborted.
    pub async fn shutdown(self) {
        self.shutdown_with_timeout(SHUTDOWN_TIMEOUT).await;
    }

    /// Stops the collector like [`shutdown`](Self::shutdown), with another timeout for the commit.
    ///
    /// With [`Duration::ZERO`], the collector is aborted at once.
    ///
    /// ```no_run
    /// # async fn example(collector: hatchet::archive::RunningCollector) {
    /// collector.shutdown_with_timeout(std::time::Duration::from_secs(5)).await;
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped, the collector is aborted.
    pub async fn shutdown_with_timeout(mut self, timeout: Duration) {
        self.stop.cancel();
        // It ends without a result, even if it has panicked.
        if tokio::time::timeout(timeout, &mut self.task).await.is_err() {
            if self.is_collecting.load(Relaxed) {
                let archive = self.archive.url();
                tracing::warn!(
                    archive,
                    "the collector did not commit its last runs in time; the next collection fetches them again"
                );
            }
            self.task.abort();
            let _ = self.task.await;
        }
    }
}

impl fmt::Debug for RunningCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningCollector").field("last_result", &self.last_result()).finish_non_exhaustive()
    }
}
