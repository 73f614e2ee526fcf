//! Collections that run regularly: in this process, or as a Hatchet task.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::collect::{CollectBuilder, RISK_MARGIN};
use super::handle::Archive;
use super::report::CollectReport;
use super::retention::Retention;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::runtime::{self, Needs};
use crate::time::MAX_DURATION;
use crate::workflow::{Concurrency, ConcurrencyStrategy, Context, Task, TaskError};

/// The part of the interval by which a round can be earlier or later, so that several processes do not collect at the same time.
const JITTER: f64 = 0.1;
/// How long a collection by a task may take.
const TASK_TIMEOUT: Duration = Duration::from_secs(6 * 3600);
/// How many times a collection by a task is retried.
const TASK_RETRIES: u32 = 3;

impl CollectBuilder {
    /// Collects now and then at this interval, in a Tokio task, until the handle is shut down or dropped. Each pause is up to 10 % shorter or
    /// longer. A round that fails is logged, and the next one continues.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, archive: hatchet::archive::Archive) -> hatchet::Result<()> {
    /// use std::time::Duration;
    /// use hatchet::archive::Retention;
    ///
    /// let retention = Retention::older_than(Duration::from_secs(20 * 24 * 3600));
    /// let collector = archive.collect(&hatchet, retention).every(Duration::from_secs(6 * 3600))?;
    /// // … when the process ends:
    /// collector.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the interval is shorter than a second or longer than ten years, and for other
    /// options. [`Config`](crate::ErrorKind::Config) if the current thread has no Tokio runtime.
    pub fn every(mut self, interval: Duration) -> Result<RunningCollector> {
        if !(Duration::from_secs(1)..=MAX_DURATION).contains(&interval) {
            let problem = format_args!("expected 1 second to 10 years, got {interval:?}");
            return Err(Error::invalid("interval", problem));
        }
        self.check()?;
        self.margin = RISK_MARGIN.saturating_add(interval);
        let runtime = runtime::current("a collector", Needs::Timers)?;
        let (rounds, last_round) = watch::channel(None);
        let stop = CancellationToken::new();
        let task = runtime.spawn(collect_regularly(self, interval, rounds, stop.clone()));
        Ok(RunningCollector { last_round, stop, task: AbortOnDropHandle::new(task) })
    }
}

type Round = Option<Result<CollectReport>>;

async fn collect_regularly(
    builder: CollectBuilder,
    interval: Duration,
    rounds: watch::Sender<Round>,
    stop: CancellationToken,
) {
    loop {
        let started_at = Instant::now();
        // A collection can be stopped at any time.
        let Some(round) = stop.run_until_cancelled(builder.clone().send()).await else { return };
        if let Err(error) = &round {
            tracing::warn!(%error, archive = builder.archive.url(), "a collection failed");
        }
        rounds.send_replace(Some(round));
        let pause = interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * fastrand::f64());
        if stop.run_until_cancelled(sleep_until(started_at + pause)).await.is_none() {
            return;
        }
    }
}

/// A collector that runs in this process; see [`CollectBuilder::every`]. Dropping it stops the collector.
///
/// ```no_run
/// # async fn example(mut collector: hatchet::archive::RunningCollector) -> hatchet::Result<()> {
/// while let Some(round) = collector.next_round().await {
///     println!("{}", round?);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "the collector stops when this is dropped"]
pub struct RunningCollector {
    last_round: watch::Receiver<Round>,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl RunningCollector {
    /// Returns the result of the last round. `None` before the end of the first.
    pub fn last_round(&self) -> Option<Result<CollectReport>> {
        self.last_round.borrow().clone()
    }

    /// Waits for the next round to end, and returns its result. Rounds that end between two calls are returned once, the last of them. `None`
    /// if the collector has ended.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no result is lost.
    pub async fn next_round(&mut self) -> Option<Result<CollectReport>> {
        self.last_round.changed().await.ok()?;
        self.last_round.borrow_and_update().clone()
    }

    /// Stops the collector, and waits for its end. What the current round has committed remains.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, the collector is stopped.
    pub async fn shutdown(self) {
        self.stop.cancel();
        // It ends without a result, also if it has panicked.
        let _ = self.task.await;
    }
}

impl fmt::Debug for RunningCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningCollector").field("last_round", &self.last_round()).finish_non_exhaustive()
    }
}

impl Archive {
    /// Creates a task that collects, for a worker. So collections are visible as runs, and are retried. Only one runs at a time: another
    /// one that starts meanwhile is cancelled. Its output is a [`CollectReport`].
    ///
    /// The task can have a [cron](Task::cron), and other options. Its timeout is 6 hours by default, and it is retried three times.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, archive: hatchet::archive::Archive) -> hatchet::Result<()> {
    /// use std::time::Duration;
    /// use hatchet::archive::Retention;
    ///
    /// let retention = Retention::older_than(Duration::from_secs(20 * 24 * 3600));
    /// let collect = archive.task("archive-runs", &hatchet, retention).cron("0 3 * * *");
    /// let worker = hatchet.worker("archiver").register(&collect).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn task(&self, name: impl Into<String>, client: &Client, retention: Retention) -> Task<(), CollectReport> {
        let builder = Arc::new(self.collect(client, retention));
        let task = Task::new(name, move |(): (), _: Context| {
            let builder = CollectBuilder::clone(&builder);
            async move { builder.send().await.map_err(TaskError::from) }
        });
        let one = Concurrency::new("'archive'", ConcurrencyStrategy::CancelNewest).max_runs(1);
        task.concurrency(one).timeout(TASK_TIMEOUT).retries(TASK_RETRIES)
    }
}
