//! The status changes of a run, in order and without gaps.
//!
//! Changes are read from the run's history, which contains all of them, so it does not matter when the watch started, or what a stream
//! has missed. The history is fetched after a notification, and at growing intervals without one, because no notification announces
//! that a worker has started an attempt.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use futures_util::StreamExt as _;
use futures_util::future::ready;
use futures_util::stream::{once, unfold};
use tokio::time::{Instant, sleep_until};

use super::tracker::Tracker;
use crate::boxed::BoxStream;
use crate::client::Client;
use crate::error::Result;
use crate::feed::Notifications;
use crate::model::{Change, RunId};
use crate::observe::RunFetch;
use crate::run::{RunBuilder, RunHandle};
use crate::runtime::{self, Needs};

/// The minimum interval between two fetches: a run that streams chunks causes many notifications.
const MIN_FETCH_INTERVAL: Duration = Duration::from_millis(50);
/// The intervals between fetches without a notification grow from the first to the last.
const FIRST_POLL_INTERVAL: Duration = Duration::from_millis(50);
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(2);

impl<O> RunHandle<O> {
    /// Watches the status changes of the run: all of them, in order, until the end, including those from before the watch started.
    ///
    /// The stream ends after the change that [is final](Change::is_final). Dropping it stops the watch.
    ///
    /// ```no_run
    /// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
    /// let mut changes = run.watch();
    /// while let Some(change) = changes.next().await {
    ///     println!("{}", change?); // RUNNING (attempt 1)
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(&self) -> RunWatch {
        let watched = Watched::of(self);
        RunWatch::new(async { Ok(watched) })
    }
}

impl<O: 'static> RunBuilder<O> {
    /// Starts the run when the stream is first polled, and watches its status changes: all of them, in order, until the end. The id of
    /// the run is in the changes.
    ///
    /// If the run cannot be started, the stream returns the error of [`start`](Self::start) and ends.
    ///
    /// # Cancel safety
    /// If the stream is dropped after its first poll, the run may have been started. A run that was started continues.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, greet: hatchet::Task<(), String>) -> hatchet::Result<()> {
    /// let mut changes = hatchet.run(&greet, &()).watch();
    /// while let Some(change) = changes.next().await {
    ///     println!("{}", change?); // QUEUED (attempt 1), RUNNING (attempt 1), COMPLETED (attempt 1)
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(self) -> RunWatch {
        let start = self.start();
        RunWatch::new(async move { start.await.map(|run| Watched::of(&run)) })
    }
}

/// A stream of a run's [`Change`]s; see [`RunHandle::watch`].
///
/// The stream ends after an error: [`RunNotFound`](crate::ErrorKind::RunNotFound) if the engine has no such run, or the last error of
/// the fetches when their deadline has passed.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// use hatchet::RunStatus;
///
/// let mut changes = run.watch();
/// while let Some(change) = changes.next().await.transpose()? {
///     if *change.status() == RunStatus::Running {
///         println!("attempt {} has started", change.attempt());
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is started or fetched before the stream is polled"]
pub struct RunWatch {
    changes: BoxStream<Result<Change>>,
    stale: Arc<AtomicU64>,
}

/// The run that is watched.
#[derive(Clone)]
struct Watched {
    client: Client,
    run: RunId,
    /// The attempt whose end is the end of the watch.
    from_attempt: u32,
    /// When this client started the run, if it did.
    started_at: Option<Instant>,
}

impl Watched {
    fn of<O>(run: &RunHandle<O>) -> Self {
        Self {
            client: run.client().clone(),
            run: run.id(),
            from_attempt: run.first_attempt(),
            started_at: run.started_at(),
        }
    }
}

impl RunWatch {
    fn new(start: impl Future<Output = Result<Watched>> + Send + 'static) -> Self {
        let stale = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&stale);
        let changes = once(start).flat_map(move |watched| match watched {
            Ok(watched) => {
                let initial = State::new(watched, Arc::clone(&counted));
                unfold(initial, |mut state| async move { Some((state.next().await?, state)) }).left_stream()
            }
            Err(error) => once(ready(Err(error))).right_stream(),
        });
        Self { changes: BoxStream::new(changes), stale }
    }

    /// Returns the number of reports that were dropped because they were outdated: of an earlier attempt, or with an earlier status of
    /// the same attempt.
    pub fn stale_reports(&self) -> u64 {
        self.stale.load(Relaxed)
    }

    /// Returns the next change, or `None` after the end.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no item is lost.
    pub async fn next(&mut self) -> Option<Result<Change>> {
        self.changes.next().await
    }
}

impl Stream for RunWatch {
    type Item = Result<Change>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.changes.poll_next_unpin(cx)
    }
}

impl fmt::Debug for RunWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunWatch")
    }
}

struct State {
    watched: Watched,
    poller: Option<Poller>,
    ready: VecDeque<Change>,
    has_ended: bool,
    stale: Arc<AtomicU64>,
}

struct Poller {
    notifications: Notifications,
    tracker: Tracker,
    interval: Duration,
    is_dag: bool,
}

impl State {
    fn new(watched: Watched, stale: Arc<AtomicU64>) -> Self {
        Self { watched, poller: None, ready: VecDeque::new(), has_ended: false, stale }
    }

    async fn next(&mut self) -> Option<Result<Change>> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Some(Ok(change));
            }
            if self.has_ended {
                return None;
            }
            match self.poll().await {
                Ok(changes) => {
                    self.has_ended = changes.last().is_some_and(Change::is_final);
                    self.ready.extend(changes);
                }
                Err(error) => {
                    self.has_ended = true;
                    return Some(Err(error));
                }
            }
        }
    }

    /// Waits for a reason to fetch, and fetches. The first fetch is immediate.
    async fn poll(&mut self) -> Result<Vec<Change>> {
        let Watched { client, run, from_attempt, started_at } = &self.watched;
        let run = *run;
        let poller = match &mut self.poller {
            Some(poller) => {
                poller.wait().await;
                poller
            }
            none => {
                runtime::require("a watch", Needs::Timers)?;
                // The subscription starts before the fetch, so nothing falls between the two.
                none.insert(Poller {
                    notifications: client.feed().run_events.subscribe(run),
                    tracker: Tracker::new(run, Arc::clone(&self.stale)),
                    interval: FIRST_POLL_INTERVAL,
                    is_dag: false,
                })
            }
        };
        let fetch = RunFetch::new(run).for_wait().started_at(*started_at).known_dag(poller.is_dag);
        let mut details = fetch.fetch(client).await?;
        poller.is_dag = !details.tasks.is_empty() && !details.is_single_task();
        if !details.has_ended_since(*from_attempt) {
            details.outcome = None;
        }
        let changes = poller.tracker.update(&details);
        if !changes.is_empty() {
            poller.interval = FIRST_POLL_INTERVAL;
        }
        Ok(changes)
    }
}

impl Poller {
    async fn wait(&mut self) {
        let fetched_at = Instant::now();
        tokio::select! {
            () = self.notifications.notified() => self.interval = FIRST_POLL_INTERVAL,
            () = sleep_until(fetched_at + self.interval) => self.interval = (self.interval * 2).min(MAX_POLL_INTERVAL),
        }
        sleep_until(fetched_at + MIN_FETCH_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::{Engine, Fault};
    use crate::model::RunStatus;
    use crate::workflow::{Context, Task};

    const PLANNED: usize = 1_000_000;

    /// An engine that counts the fetches of runs, and a run that waits for a worker.
    async fn queued() -> (Engine, RunHandle<()>) {
        let engine = Engine::start().await.unwrap();
        let task: Task<(), ()> = Task::new("task", async |(): (), _: Context| Ok(()));
        let worker = engine.client().worker("worker").register(&task).build().unwrap().start().await.unwrap();
        worker.shutdown().await;
        let run = engine.client().run(&task, &()).start().await.unwrap();
        engine.faults().inject_times("GetRunDetails", Fault::Delay(Duration::ZERO), PLANNED).unwrap();
        (engine, run)
    }

    fn fetches(engine: &Engine) -> usize {
        PLANNED - engine.faults().planned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_is_fetched_at_growing_intervals() {
        let (engine, run) = queued().await;
        let mut watch = run.watch();
        assert_eq!(*watch.next().await.unwrap().unwrap().status(), RunStatus::Queued);
        assert_eq!(fetches(&engine), 1, "immediately");
        // 50 ms after the first fetch, and then after 100, 200, 400, 800, 1600, and 2000 ms each.
        for (millis, expected) in
            [(49, 1), (51, 2), (151, 3), (351, 4), (751, 5), (1551, 6), (3151, 7), (5151, 8), (9151, 10)]
        {
            let elapsed = Duration::from_millis(millis);
            let (engine, run) = queued().await;
            let mut watch = run.watch();
            watch.next().await.unwrap().unwrap();
            assert!(tokio::time::timeout(elapsed, watch.next()).await.is_err());
            assert_eq!(fetches(&engine), expected, "after {elapsed:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_not_polled_does_not_fetch() {
        let (engine, run) = queued().await;
        let mut watch = run.watch();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(fetches(&engine), 0);
        watch.next().await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(fetches(&engine), 1);
    }
}
