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
use crate::client::Client;
use crate::error::Result;
use crate::model::{Attempt, AttemptStatus, Outcome, RunDetails, RunId, RunStatus, Verdict, judge};
use crate::run::{Patience, RunHandle, look};

/// The distances between looks without a hint.
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// A run has come into a state.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Change {
    /// The run.
    pub run: RunId,
    /// Which attempt, and its state.
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

    /// Whether the run has ended with this.
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
        RunWatch::new(self.client().clone(), self.id())
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
    fn new(client: Client, run: RunId) -> Self {
        let stale = Arc::new(AtomicU64::new(0));
        let fresh = State { driver: None, ready: VecDeque::new(), over: false, stale: Arc::clone(&stale) };
        let changes = unfold((client, run, fresh), |(client, run, mut state)| async move {
            let item = state.next(&client, run).await?;
            Some((item, (client, run, state)))
        });
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
    /// Dropping the future loses nothing.
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
                // Listening begins before the look, so nothing falls between the two.
                let listener = Listener::of(client, run);
                self.driver =
                    Some(Driver { listener, tracker: Tracker::new(run, Arc::clone(&self.stale)), pause: FIRST });
            }
            Some(driver) => driver.wait().await,
        }
        let details = look(client, run, None, Patience::Long).await?;
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
        tokio::select! {
            () = self.listener.heard() => self.pause = FIRST,
            () = sleep_until(Instant::now() + self.pause) => self.pause = (self.pause * 2).min(LONGEST),
        }
    }
}

/// What has been told of a run. Pure: details in, changes out.
#[derive(Debug)]
struct Tracker {
    run: RunId,
    known: Option<AttemptStatus>,
    stale: Arc<AtomicU64>,
}

impl Tracker {
    fn new(run: RunId, stale: Arc<AtomicU64>) -> Self {
        Self { run, known: None, stale }
    }

    /// The changes that are new in these details, in order.
    ///
    /// The history is read from its beginning each time: what has been told of it is passed over. What the surfaces say
    /// beside it is a report, and one that is older than the history is counted.
    fn follow(&mut self, details: &RunDetails) -> Vec<Change> {
        let attempts = details.tasks.first().map(|task| task.attempts.as_slice()).unwrap_or_default();
        let number = attempts.last().map_or(1, |attempt| attempt.number);
        let mut changes = Vec::new();
        for attempt in attempts {
            for (status, at) in states(attempt) {
                // The end of the last attempt is the run's: it is told with its outcome, below.
                if attempt.number < number || !status.is_final() {
                    let state = AttemptStatus::new(attempt.number, status);
                    changes.extend(self.tell(&state, at, attempt.error.as_deref()).0);
                }
            }
        }
        if let Some(outcome) = &details.outcome {
            let error = attempts.last().and_then(|attempt| attempt.error.clone());
            // Told whatever was told before: nothing may keep a watch from its end.
            let known = self.known.as_ref().map_or(0, |known| known.attempt);
            let state = AttemptStatus::new(number.max(known), outcome.status());
            let (run, at) = (self.run, details.finished_at());
            changes.push(Change { run, state, at, error, outcome: Some(outcome.clone()) });
            return changes;
        }
        // Before there is any event, the run is what its surfaces say; and every run has been queued.
        let first = AttemptStatus::new(1, RunStatus::Queued);
        if self.known.is_none() {
            changes.extend(self.tell(&first, details.created_at, None).0);
        }
        if matches!(details.status, RunStatus::Queued | RunStatus::Running) {
            let (change, verdict) = self.tell(&AttemptStatus::new(number, details.status.clone()), None, None);
            changes.extend(change);
            if verdict == Verdict::Stale {
                self.stale.fetch_add(1, Relaxed);
            }
        }
        changes
    }

    fn tell(
        &mut self,
        state: &AttemptStatus,
        at: Option<DateTime<Utc>>,
        error: Option<&str>,
    ) -> (Option<Change>, Verdict) {
        let verdict = self.known.as_ref().map_or(Verdict::Move, |known| judge(known, state));
        match &verdict {
            Verdict::Move => {
                self.known = Some(state.clone());
                let error = error.filter(|_| state.status.is_final()).map(str::to_owned);
                (Some(Change { run: self.run, state: state.clone(), at, error, outcome: None }), verdict)
            }
            Verdict::Illegal(transition) => {
                tracing::warn!(run = %self.run, %transition, "a report that cannot be is dropped");
                (None, verdict)
            }
            Verdict::Same | Verdict::Stale => (None, verdict),
        }
    }
}

/// The states that an attempt has been in, in order.
fn states(attempt: &Attempt) -> impl Iterator<Item = (RunStatus, Option<DateTime<Utc>>)> {
    // A report of the beginning may be missing; one that a worker had has run all the same.
    let ran = attempt.started_at.is_some() || attempt.worker.is_some() || attempt.status == RunStatus::Running;
    let queued = Some((RunStatus::Queued, attempt.queued_at));
    let running = ran.then_some((RunStatus::Running, attempt.started_at));
    let ended = attempt.status.is_final().then(|| (attempt.status.clone(), attempt.finished_at));
    [queued, running, ended].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Completed, Payload, TaskDetails};

    fn details(status: RunStatus, attempts: &[(u32, RunStatus, bool)], outcome: Option<Outcome>) -> RunDetails {
        let run: RunId = "00000000-0000-4000-8001-000000000001".parse().unwrap();
        let at: DateTime<Utc> = "2026-11-23T14:00:00Z".parse().unwrap();
        let attempts = attempts.iter().map(|(number, status, started)| Attempt {
            number: *number,
            status: status.clone(),
            queued_at: Some(at),
            started_at: started.then_some(at),
            finished_at: status.is_final().then_some(at),
            worker: None,
            error: None,
        });
        RunDetails {
            id: run,
            workflow: None,
            workflow_name: None,
            trigger: crate::model::Trigger::Manual,
            logs: Vec::new(),
            workflow_version: None,
            status: status.clone(),
            outcome,
            input: Payload::new("{}"),
            metadata: std::collections::BTreeMap::default(),
            engine_metadata: std::collections::BTreeMap::default(),
            created_at: Some(at),
            tasks: vec![TaskDetails {
                id: run.into(),
                name: "work".into(),
                status,
                outcome: None,
                replays: 0,
                attempts: attempts.collect(),
            }],
            conflicts: Vec::new(),
        }
    }

    fn done() -> Outcome {
        Outcome::Completed(Completed { output: Payload::new("{}") })
    }

    fn told(changes: &[Change]) -> Vec<String> {
        changes.iter().map(|change| format!("{}{}", change.state, if change.is_final() { "!" } else { "" })).collect()
    }

    #[test]
    fn a_watch_from_the_end_tells_every_state() {
        let mut tracker = Tracker::new("00000000-0000-4000-8001-000000000001".parse().unwrap(), Arc::default());
        let end = details(
            RunStatus::Completed,
            &[(1, RunStatus::Failed, true), (2, RunStatus::Completed, true)],
            Some(done()),
        );
        let all = [
            "QUEUED (attempt 1)",
            "RUNNING (attempt 1)",
            "FAILED (attempt 1)",
            "QUEUED (attempt 2)",
            "RUNNING (attempt 2)",
            "COMPLETED (attempt 2)!",
        ];
        assert_eq!(told(&tracker.follow(&end)), all);
    }

    #[test]
    fn looks_in_between_tell_each_state_once() {
        use RunStatus::{Completed, Failed, Queued, Running};
        let mut tracker = Tracker::new("00000000-0000-4000-8001-000000000001".parse().unwrap(), Arc::default());
        let looks = [
            details(Queued, &[], None),
            details(Running, &[], None),
            details(Running, &[(1, Queued, false)], None),
            details(Running, &[(1, Running, true)], None),
            // The failure is there, the next attempt is not yet: it is not told before it is known not to be the end.
            details(Running, &[(1, Failed, true)], None),
            details(Queued, &[(1, Failed, true), (2, Queued, false)], None),
            details(Completed, &[(1, Failed, true), (2, Completed, true)], Some(done())),
        ];
        let each: Vec<_> = looks.iter().map(|look| told(&tracker.follow(look)).join(", ")).collect();
        assert_eq!(
            each,
            [
                "QUEUED (attempt 1)",
                "RUNNING (attempt 1)",
                "",
                "",
                "",
                "FAILED (attempt 1), QUEUED (attempt 2)",
                "RUNNING (attempt 2), COMPLETED (attempt 2)!",
            ]
        );
        assert_eq!(tracker.stale.load(Relaxed), 0, "to read the history again is no report");
    }

    #[test]
    fn a_surface_that_falls_behind_is_passed_over_and_counted() {
        use RunStatus::{Queued, Running};
        let mut tracker = Tracker::new("00000000-0000-4000-8001-000000000001".parse().unwrap(), Arc::default());
        assert_eq!(told(&tracker.follow(&details(Running, &[], None))), ["QUEUED (attempt 1)", "RUNNING (attempt 1)"]);
        assert!(tracker.follow(&details(Queued, &[], None)).is_empty());
        assert_eq!(tracker.stale.load(Relaxed), 1);
    }
}
