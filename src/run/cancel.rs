//! Cancelling runs: fetch, cancel, and fetch again.
//!
//! The server accepts every cancel. For a run that has ended, it records a second end; for a run that waits for a sleep or an
//! event, it does nothing. So a run that has ended is not cancelled, and the report contains the state that was fetched
//! afterwards. A run that ends between the first fetch and the cancel may still get a second end; the report shows this.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::time::{Instant, sleep};

use super::gather::{Look, may_recover};
use super::handle::RunHandle;
use super::logs::cancel_line;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::convert::grpc;
use crate::model::payload::excerpt;
use crate::model::{RunDetails, RunId, RunReport, RunStatus, Seen, TaskId};
use crate::time::LONGEST;
use crate::transport::retry_delay;

/// How long a cancel may take to have an effect.
const WITHIN: Duration = Duration::from_secs(10);
/// The number of concurrent calls if each run has a call of its own.
pub(super) const AT_ONCE: usize = 16;
/// The number of runs in one call.
pub(crate) const BATCH: usize = 100;
/// How long what was seen of a run is relied on when it is cancelled.
const STATE_VALID_FOR: Duration = Duration::from_millis(50);
/// Calls for many under way at the same time: a cancel takes seconds to show, and nothing is lost by the next one.
const BATCHES: usize = 4;
/// Limits of this crate: a log line has at most 10 000 characters.
const LONGEST_REASON: usize = 4000;
const LONGEST_NAME: usize = 200;

impl<O> RunHandle<O> {
    /// Prepares a cancel; [`send`](CancelBuilder::send) sends it.
    ///
    /// ```no_run
    /// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
    /// let seen = run.cancel().reason("the customer asked").by("ada").send().await?;
    /// println!("{seen}"); // done
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel(&self) -> CancelBuilder {
        let options = CancelOptions { started_at: self.started_at(), ..CancelOptions::default() };
        CancelBuilder { client: self.client().clone(), run: self.id(), options }
    }
}

impl Client {
    /// Prepares a cancel of many runs by their ids; [`send`](CancelManyBuilder::send) sends it. To cancel all runs that match a
    /// filter, use [`RunQuery::cancel`](crate::RunQuery::cancel).
    pub fn cancel_runs(&self, runs: impl IntoIterator<Item = RunId>) -> CancelManyBuilder {
        CancelManyBuilder { client: self.clone(), runs: runs.into_iter().collect(), options: CancelOptions::default() }
    }
}

/// The options of a cancel.
#[derive(Debug, Clone)]
pub(crate) struct CancelOptions {
    pub(crate) reason: Option<String>,
    pub(crate) by: Option<String>,
    pub(crate) within: Duration,
    /// When this client started the run, if it did.
    started_at: Option<Instant>,
}

impl Default for CancelOptions {
    fn default() -> Self {
        Self { reason: None, by: None, within: WITHIN, started_at: None }
    }
}

impl CancelOptions {
    pub(crate) fn check(&self) -> Result<()> {
        if self.within > LONGEST {
            let found = format_args!("found {:?}, accepted: at most ten years", self.within);
            return Err(Error::invalid("within", found));
        }
        let limits = [("reason", &self.reason, LONGEST_REASON), ("by", &self.by, LONGEST_NAME)];
        for (field, text, longest) in limits {
            let Some(text) = text else { continue };
            let length = text.chars().count();
            if text.trim().is_empty() || length > longest {
                let found = format!("found {length} characters ({:?}), accepted: 1 to {longest}", excerpt(text));
                return Err(Error::invalid(field, found));
            }
            if text.contains('\0') {
                return Err(Error::invalid(
                    field,
                    "found the character U+0000, accepted: all other characters, as the engine cannot store it",
                ));
            }
        }
        Ok(())
    }

    fn line(&self) -> Option<(String, String)> {
        (self.reason.is_some() || self.by.is_some()).then(|| cancel_line(self.reason.as_deref(), self.by.as_deref()))
    }
}

/// The options that all kinds of cancels have in common.
macro_rules! cancel_options {
    ($builder:ident $(<$type:ident>)?) => {
        impl $(<$type>)? $builder $(<$type>)? {
            /// Sets the reason, of 1 to 4000 characters. It is written to the log of the runs' tasks, where the dashboard shows it, and
            /// [`RunDetails::cancellation`](crate::RunDetails::cancellation) contains it. By default there is no reason.
            pub fn reason(mut self, reason: impl Into<String>) -> Self {
                self.options.reason = Some(reason.into());
                self
            }

            /// Sets who requests the cancel, in 1 to 200 characters. It is stored with the reason.
            pub fn by(mut self, who: impl Into<String>) -> Self {
                self.options.by = Some(who.into());
                self
            }

            /// Sets how long the cancel may take to have an effect before it is reported as not taken. The default is 10 seconds, the maximum
            /// ten years.
            pub fn within(mut self, time: std::time::Duration) -> Self {
                self.options.within = time;
                self
            }
        }
    };
}
pub(crate) use cancel_options;

/// A cancel that is about to be sent.
#[derive(Debug)]
#[must_use = "nothing is cancelled before `send`"]
pub struct CancelBuilder {
    client: Client,
    run: RunId,
    options: CancelOptions,
}
cancel_options!(CancelBuilder);

impl CancelBuilder {
    /// Cancels the run, and waits until the cancel has an effect. The running task is notified and has the worker's
    /// [`cancel_grace`](crate::WorkerBuilder::cancel_grace) to end. Later tasks do not start, and nothing is retried. The children of
    /// the run continue; [`children`](RunHandle::children) lists them.
    ///
    /// With a [reason](Self::reason) or a [name](Self::by), the method needs the REST API; without them, it needs gRPC only.
    ///
    /// It returns [`Done`](Seen::Done), [`EndedOtherwise`](Seen::EndedOtherwise) or [`NotTaken`](Seen::NotTaken). A run that ended
    /// just before the cancel arrived may have two ends; see [`RunDetails::conflicts`](crate::RunDetails::conflicts).
    ///
    /// # Errors
    /// [`RunState`](crate::ErrorKind::RunState) if the run has already ended; [`run_status`](Error::run_status) returns its status.
    /// [`RunNotFound`](crate::ErrorKind::RunNotFound) if the engine has no such run.
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the reason or the name is empty or too long, or if the time is over ten
    /// years.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the run may be cancelled.
    pub async fn send(self) -> Result<Seen> {
        self.options.check()?;
        let report = batch(&self.client, &[self.run], &self.options).await.pop();
        match report.map(|report| report.seen) {
            Some(Seen::Refused(status)) => Err(Error::run_state(self.run, "cancelled", status)),
            Some(Seen::NotFound) | None => Err(Error::run_not_found(self.run)),
            Some(Seen::Failed(error)) => Err(error),
            Some(seen) => Ok(seen),
        }
    }
}

/// A cancel of many runs that is about to be sent.
#[derive(Debug)]
#[must_use = "nothing is cancelled before `send`"]
pub struct CancelManyBuilder {
    client: Client,
    runs: Vec<RunId>,
    options: CancelOptions,
}
cancel_options!(CancelManyBuilder);

impl CancelManyBuilder {
    /// Cancels the runs in batches of 100, and returns a report for each run, in the order of the ids.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the reason or the name is empty or too long, or if the time is over ten
    /// years. Errors of single runs are in their reports.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, some or all of the runs may be cancelled.
    pub async fn send(self) -> Result<Vec<RunReport>> {
        self.options.check()?;
        let (client, options) = (&self.client, &self.options);
        let distinct = distinct(&self.runs);
        let batches = distinct.chunks(BATCH).map(|runs| batch(client, runs, options));
        let reports: Vec<_> = stream::iter(batches.collect::<Vec<_>>()).buffered(BATCHES).collect().await;
        let reports: HashMap<_, _> = reports.into_iter().flatten().map(|report| (report.run, report)).collect();
        Ok(self.runs.iter().filter_map(|run| reports.get(run).cloned()).collect())
    }
}

/// Each of the runs once, in their order.
pub(super) fn distinct(runs: &[RunId]) -> Vec<RunId> {
    let mut known = HashSet::new();
    runs.iter().copied().filter(|run| known.insert(*run)).collect()
}

/// Cancels some runs: a report for each, in their order.
pub(crate) async fn batch(client: &Client, runs: &[RunId], options: &CancelOptions) -> Vec<RunReport> {
    // A reason belongs to the attempt that it ends, which only the details contain. Without a reason, the run's status is enough.
    let explained = options.line().is_some();
    let started_at = options.started_at;
    let states = stream::iter(runs.to_vec()).map(|run| async move {
        if explained { fetch(client, run, started_at).await } else { is_going_on(client, run, started_at).await }
    });
    let states: Vec<_> = states.buffered(AT_ONCE).collect().await;
    let mut seen: Vec<Option<Seen>> = Vec::with_capacity(runs.len());
    let mut going = Vec::new();
    for state in states {
        seen.push(match state {
            Ok(state) => {
                going.push(state);
                None
            }
            Err(seen) => Some(seen),
        });
    }
    let found = if going.is_empty() { Vec::new() } else { cancel_and_see(client, going, options).await };
    let mut found = found.into_iter();
    let reports = runs
        .iter()
        .zip(seen)
        .filter_map(|(run, seen)| Some(RunReport::cancelled(*run, seen.or_else(|| found.next())?)));
    reports.collect()
}

/// A run that has not ended, and its tasks with their attempts, if they were fetched.
struct Going {
    run: RunId,
    tasks: Vec<(TaskId, u32)>,
    /// When that was asked.
    asked_at: Instant,
}

/// A run with its tasks, if it has not ended.
async fn fetch(client: &Client, run: RunId, started_at: Option<Instant>) -> std::result::Result<Going, Seen> {
    match Look::at(run).started_at(started_at).fetch(client).await {
        Ok(RunDetails { status, outcome: Some(_), .. }) => Err(Seen::Refused(status)),
        Ok(details) => {
            let tasks = details.tasks.iter().map(|task| (task.id, task.attempt())).collect();
            Ok(Going { run, tasks, asked_at: Instant::now() })
        }
        Err(error) => Err(not_seen(error)),
    }
}

/// A run without its tasks, if it has not ended, over gRPC alone. If it has ended, the details report how.
async fn is_going_on(client: &Client, run: RunId, started_at: Option<Instant>) -> std::result::Result<Going, Seen> {
    match client.rpc().admin.run_details(&run.to_string()).await {
        Ok(state) if !state.done => Ok(Going { run, tasks: Vec::new(), asked_at: Instant::now() }),
        Err(error) if error.kind() != ErrorKind::TooLarge && !error.is_not_found() => Err(Seen::Failed(error.unsent())),
        // The run is too large for this call, has ended, or does not exist yet.
        _ => fetch(client, run, started_at).await,
    }
}

pub(super) fn not_seen(error: Error) -> Seen {
    if error.is_not_found() { Seen::NotFound } else { Seen::Failed(error) }
}

/// Cancels runs that have not ended, and returns the result of each, in their order.
async fn cancel_and_see(client: &Client, going: Vec<Going>, options: &CancelOptions) -> Vec<Seen> {
    if let Some(line) = options.line() {
        let tasks = going.iter().flat_map(|going| going.tasks.iter().copied()).collect();
        if let Err(error) = explain(client, tasks, &line).await {
            // If the reason cannot be written, the run is not cancelled: the reason would never be known.
            return going.iter().map(|_| Seen::Failed(error.clone())).collect();
        }
    }
    // A run may have ended since it was looked at, and a cancel would damage it. What cannot be asked may have, too.
    let (mut over, mut unasked) = (BTreeSet::new(), BTreeMap::new());
    let old = going.iter().filter(|going| going.asked_at.elapsed() > STATE_VALID_FOR).map(|going| going.run);
    let asked = stream::iter(old.collect::<Vec<_>>()).map(|run| async move {
        (run, client.rpc().admin.run_details(&run.to_string()).await.map(|state| state.done))
    });
    let asked: Vec<_> = asked.buffered(AT_ONCE).collect().await;
    for (run, is_over) in asked {
        match is_over {
            Ok(false) => {}
            Ok(true) => drop(over.insert(run)),
            Err(error) if error.kind() == ErrorKind::TooLarge => {}
            // Its reason may be in its log already.
            Err(error) if options.line().is_some() => drop(unasked.insert(run, not_seen(error.after_the_act()))),
            Err(error) => drop(unasked.insert(run, not_seen(error.unsent()))),
        }
    }
    let goes_on = |run: &RunId| !over.contains(run) && !unasked.contains_key(run);
    let ids: Vec<_> = going.iter().map(|going| going.run).filter(goes_on).map(|run| run.to_string()).collect();
    if ids.is_empty() {
        // Nothing is left to cancel. The final fetch reports the state.
    } else if let Err(error) = client.rpc().admin.cancel(ids).await {
        if error.never_reached_server() {
            return going.iter().map(|_| Seen::Failed(error.clone())).collect();
        }
        // The cancel may have been applied. The final fetch reports the state.
        tracing::warn!(%error, "response to cancel was lost");
    }
    let deadline = Instant::now() + options.within;
    let seen = going.into_iter().map(|going| {
        let known = unasked.remove(&going.run);
        async move {
            match known {
                Some(seen) => seen,
                None => see(client, going.run, deadline).await,
            }
        }
    });
    // All runs are polled in turn: the last of many must not start when the time is over.
    stream::iter(seen.collect::<Vec<_>>()).buffered(BATCH).collect().await
}

/// Writes the reason to the tasks' logs.
async fn explain(client: &Client, tasks: Vec<(TaskId, u32)>, (message, metadata): &(String, String)) -> Result<()> {
    let lines = tasks.into_iter().map(|(task, attempt)| {
        let line = client.rpc().events.put_log(task.into(), "INFO", message.clone(), metadata.clone(), attempt);
        async move {
            match line.await {
                // A task that the engine no longer has needs no reason.
                Err(error) if !error.is_not_found() => Err(error),
                _ => Ok(()),
            }
        }
    });
    stream::iter(lines).buffered(AT_ONCE).fold(Ok(()), |all, one| std::future::ready(all.and(one))).await
}

/// Fetches the run until it has ended or the deadline has passed.
async fn see(client: &Client, run: RunId, deadline: Instant) -> Seen {
    let mut looks = 0;
    let by_grpc = loop {
        match client.rpc().admin.run_details(&run.to_string()).await {
            Ok(state) if state.done && grpc::status(&state.status).is_final() => {
                break Some(grpc::status(&state.status));
            }
            Ok(state) if Instant::now() >= deadline => return Seen::NotTaken(grpc::status(&state.status)),
            // The run is too large for this call: fetch its details.
            Err(error) if error.kind() == ErrorKind::TooLarge => match Look::at(run).fetch(client).await {
                Ok(details) if details.outcome.is_some() => break None,
                Err(error) if !may_recover(&error) => return not_seen(error.after_the_act()),
                _ if Instant::now() >= deadline => break None,
                _ => {}
            },
            Err(error) if Instant::now() >= deadline || !may_recover(&error) => return not_seen(error.after_the_act()),
            _ => {}
        }
        looks += 1;
        sleep(retry_delay(looks, fastrand::f64()).min(Duration::from_secs(1))).await;
    };
    match Look::at(run).fetch(client).await {
        Ok(RunDetails { outcome: Some(outcome), .. }) if outcome.status() == RunStatus::Cancelled => Seen::Done,
        Ok(RunDetails { outcome: Some(outcome), .. }) => Seen::EndedOtherwise(outcome.status()),
        Ok(details) => Seen::NotTaken(details.status),
        // Without REST, what gRPC says has to do: the run went on when it was cancelled.
        Err(error) if error.is_rest_unreached() => match by_grpc {
            Some(RunStatus::Cancelled) => Seen::Done,
            Some(status) => Seen::EndedOtherwise(status),
            None => not_seen(error.after_the_act()),
        },
        Err(error) => not_seen(error.after_the_act()),
    }
}
