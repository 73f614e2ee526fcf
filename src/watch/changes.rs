//! The states of a run, in order, none left out.
//!
//! A state is taken from the run's history, which has them all, whenever it is looked at: so it does not matter when the
//! watch began, or what a stream has missed. The history is looked at when there is a hint, and at growing distances
//! without one, since nothing announces that a worker has begun.

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

/// The least distance between two looks: a run that streams gives hints without end.
const LEAST: Duration = Duration::from_millis(50);
/// The distances between looks without a hint.
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// A run, or a task of it, has come into a state.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Change {
    /// The run.
    pub run: RunId,
    /// The task that has, in a run of several: each of them has states of its own. Without one, it is the run itself.
    pub task: Option<String>,
    /// Which attempt, and its state. A retry or a replay is an attempt of a task, and of a run of one task; of a run of
    /// several, only a replay is.
    pub state: AttemptStatus,
    /// When, as far as it is known: by the engine's clock for a queued attempt, by the worker's for the others.
    pub at: Option<DateTime<Utc>>,
    /// Why an attempt failed, if it did.
    pub error: Option<String>,
    /// How the run ended, on its last change. An attempt that failed and is tried again has none.
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
    /// Follows the run's states: every one, in order, up to the end, also those from before the watch began.
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
/// An error ends it: [`RunNotFound`](crate::ErrorKind::RunNotFound) if the engine has no such run, or what made the looks
/// fail until their deadline.
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

    /// How many reports were dropped because they were older than what was already known: of an earlier attempt, or an
    /// earlier state of the same.
    pub fn stale_reports(&self) -> u64 {
        self.stale.load(Relaxed)
    }

    /// The next change, or `None` after the end.
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

    /// Waits for a reason to look, and looks. The first look needs none.
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
