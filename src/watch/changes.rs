//! The states of a run, in order and without gaps.
//!
//! States are read from the run's history, which contains all of them, so it does not matter when the watch started, or what a stream
//! has missed. The history is fetched after a notification, and at growing intervals without one, because no notification announces
//! that a worker has started an attempt.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_core::Stream;
use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use tokio::time::{Instant, sleep_until};

use super::hints::Listener;
use super::tracker::Tracker;
use crate::client::Client;
use crate::error::Result;
use crate::model::{AttemptStatus, Outcome, RunId, RunStatus};
use crate::run::{Look, RunHandle};
use crate::runtime::{self, Needs};

/// The minimum interval between two fetches: a run that streams chunks causes many notifications.
const LEAST: Duration = Duration::from_millis(50);
/// The intervals between fetches without a notification.
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// A new state of a run or of one of its tasks.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Change {
    /// The run.
    pub run: RunId,
    /// The task of a DAG run that has the new state. `None` if the run itself has it.
    pub task: Option<String>,
    /// The attempt and its status. Retries and replays are attempts of a task and of a single-task run. Only replays are attempts of a
    /// DAG run.
    pub state: AttemptStatus,
    /// The time of the change, if it is known: by the engine's clock for a queued attempt, and by the worker's clock for the others.
    pub at: Option<DateTime<Utc>>,
    /// The error text of a failed attempt.
    pub error: Option<String>,
    /// The outcome of the run, in its last change. An attempt that failed and is retried has none.
    pub outcome: Option<Outcome>,
}

impl Change {
    /// The state.
    pub fn status(&self) -> &RunStatus {
        &self.state.status
    }

    /// Whether the run has ended with this change.
    pub fn is_final(&self) -> bool {
        self.outcome.is_some()
    }
}

impl<O> RunHandle<O> {
    /// Watches the states of the run: all of them, in order, until the end, including those from before the watch started.
    ///
    /// The stream ends after the change that [is final](Change::is_final). Dropping it stops the watch.
    ///
    /// ```no_run
    /// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
    /// let mut changes = run.watch();
    /// while let Some(change) = changes.next().await {
    ///     println!("{}", change?.state); // RUNNING (attempt 1)
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(&self) -> RunWatch {
        RunWatch::new(self.client().clone(), self.id(), self.started_at(), self.first_attempt())
    }
}

/// A stream of a run's [`Change`]s; see [`RunHandle::watch`].
///
/// The stream ends after an error: [`RunNotFound`](crate::ErrorKind::RunNotFound) if the engine has no such run, or the last error of
/// the fetches when their deadline has passed.
pub struct RunWatch {
    changes: Pin<Box<dyn Stream<Item = Result<Change>> + Send>>,
    stale: Arc<AtomicU64>,
}

impl RunWatch {
    fn new(client: Client, run: RunId, started_at: Option<Instant>, from_attempt: u32) -> Self {
        let stale = Arc::new(AtomicU64::new(0));
        let fresh = State {
            from_attempt,
            started_at,
            driver: None,
            ready: VecDeque::new(),
            over: false,
            stale: Arc::clone(&stale),
        };
        let changes = unfold((client, run, fresh), |(client, run, mut state)| async move {
            let item = state.next(&client, run).await?;
            Some((item, (client, run, state)))
        })
        .fuse();
        Self { changes: Box::pin(changes), stale }
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
        self.changes.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for RunWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunWatch")
    }
}

struct State {
    /// The attempt whose end is the end.
    from_attempt: u32,
    /// When this client started the run, if it did start it.
    started_at: Option<Instant>,
    driver: Option<Driver>,
    ready: VecDeque<Change>,
    over: bool,
    stale: Arc<AtomicU64>,
}

struct Driver {
    listener: Listener,
    tracker: Tracker,
    pause: Duration,
}

impl State {
    async fn next(&mut self, client: &Client, run: RunId) -> Option<Result<Change>> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Some(Ok(change));
            }
            if self.over {
                return None;
            }
            match self.look(client, run).await {
                Ok(changes) => {
                    self.over = changes.last().is_some_and(Change::is_final);
                    self.ready.extend(changes);
                }
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
        }
    }

    /// Waits for a reason to fetch, and fetches. The first fetch is immediate.
    async fn look(&mut self, client: &Client, run: RunId) -> Result<Vec<Change>> {
        match &mut self.driver {
            None => {
                runtime::require("a watch", Needs::Timers)?;
                // Listening begins before the look, so nothing falls between the two.
                let listener = Listener::of(client, run);
                self.driver =
                    Some(Driver { listener, tracker: Tracker::new(run, Arc::clone(&self.stale)), pause: FIRST });
            }
            Some(driver) => driver.wait().await,
        }
        let mut details = Look::at(run).patiently().started_at(self.started_at).fetch(client).await?;
        if !details.has_ended_since(self.from_attempt) {
            details.outcome = None;
        }
        let Some(driver) = &mut self.driver else { return Ok(Vec::new()) };
        let changes = driver.tracker.follow(&details);
        if !changes.is_empty() {
            driver.pause = FIRST;
        }
        Ok(changes)
    }
}

impl Driver {
    async fn wait(&mut self) {
        let looked = Instant::now();
        tokio::select! {
            () = self.listener.heard() => self.pause = FIRST,
            () = sleep_until(looked + self.pause) => self.pause = (self.pause * 2).min(LONGEST),
        }
        sleep_until(looked + LEAST).await;
    }
}
