//! Cancelling runs: look, cancel, and look again.
//!
//! The server says yes to every cancel. One of a run that has ended leaves a second end beside the first, and one of a run
//! that waits for time to pass or for an event does nothing. So what has ended is left alone, and what is reported is what
//! was seen afterwards. A run that ends between the look and the cancel may still be damaged; that is seen, and told.

use std::collections::{BTreeMap, BTreeSet};
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

/// How long a cancel may take to show.
const WITHIN: Duration = Duration::from_secs(10);
/// Calls at the same time, where each run has its own.
pub(super) const AT_ONCE: usize = 16;
/// Runs that go in one call.
pub(crate) const BATCH: usize = 100;
/// Calls for many under way at the same time: a cancel takes seconds to show, and nothing is lost by the next one.
const BATCHES: usize = 4;
/// Limits of ours: a line of the log has 10 000 characters.
const LONGEST_REASON: usize = 4000;
const LONGEST_NAME: usize = 200;

impl<O> RunHandle<O> {
    /// Prepares a cancel; [`send`](CancelBuilder::send) does it.
    ///
    /// ```no_run
    /// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
    /// let seen = run.cancel().reason("the customer asked").by("ada").send().await?;
    /// println!("{seen}"); // done: it was seen to be cancelled
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel(&self) -> CancelBuilder {
        let options = CancelOptions { started_at: self.started_at(), ..CancelOptions::default() };
        CancelBuilder { client: self.client().clone(), run: self.id(), options }
    }
}

impl Client {
    /// Prepares a cancel of many runs by their ids; [`send`](CancelManyBuilder::send) does it. By a filter:
    /// [`RunQuery::cancel`](crate::RunQuery::cancel).
    pub fn cancel_runs(&self, runs: impl IntoIterator<Item = RunId>) -> CancelManyBuilder {
        CancelManyBuilder { client: self.clone(), runs: runs.into_iter().collect(), options: CancelOptions::default() }
    }
}

/// What is said about a cancel, and how long it may take to show.
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
                return Err(Error::invalid(field, "it has the character U+0000, which the engine cannot store"));
            }
        }
        Ok(())
    }

    fn line(&self) -> Option<(String, String)> {
        (self.reason.is_some() || self.by.is_some()).then(|| cancel_line(self.reason.as_deref(), self.by.as_deref()))
    }
}

/// The options that all ways to cancel have in common.
macro_rules! cancel_options {
    ($builder:ident $(<$type:ident>)?) => {
        impl $(<$type>)? $builder $(<$type>)? {
            /// Why: kept in the log of the runs' tasks, where the dashboard shows it and
            /// [`RunDetails::cancellation`](crate::RunDetails::cancellation) reads it. 1 to 4000 characters.
            pub fn reason(mut self, reason: impl Into<String>) -> Self {
                self.options.reason = Some(reason.into());
                self
            }

            /// Who wants it; kept with the reason. 1 to 200 characters.
            pub fn by(mut self, who: impl Into<String>) -> Self {
                self.options.by = Some(who.into());
                self
            }

            /// How long it may take to show, before it counts as not taken; 10 seconds by default, ten years at most.
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
    /// Cancels the run, and waits until that shows. Its running task is told, and has the worker's grace to end; tasks
    /// after it do not begin, and nothing is retried. Its children go on: [`children`](RunHandle::children) finds them.
    ///
    /// With a [reason](Self::reason) or a [name](Self::by), it needs the REST API; without, gRPC is enough.
    ///
    /// What was seen is [`Done`](Seen::Done), [`EndedOtherwise`](Seen::EndedOtherwise) or [`NotTaken`](Seen::NotTaken).
    /// A run that ended between the look and the cancel may have two ends now; see
    /// [`RunDetails::conflicts`](crate::RunDetails::conflicts).
    ///
    /// # Errors
    /// [`RunState`](crate::ErrorKind::RunState) if the run has ended, which [`run_status`](Error::run_status) says how;
    /// [`RunNotFound`](crate::ErrorKind::RunNotFound); [`InvalidInput`](crate::ErrorKind::InvalidInput) for a reason or a name
    /// that is empty or too long, and for a time of over ten years.
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the run is cancelled.
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
    /// Cancels the runs, some hundred at a time, and tells for each what was seen to become of it, in their order.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a reason or a name that is empty or too long, and for a time of
    /// over ten years. What concerns one run is in its report.
    ///
    /// # Cancel safety
    /// Dropping the future leaves open which runs are cancelled.
    pub async fn send(self) -> Result<Vec<RunReport>> {
        self.options.check()?;
        let (client, options) = (&self.client, &self.options);
        let batches = self.runs.chunks(BATCH).map(|runs| batch(client, runs, options));
        let reports: Vec<_> = stream::iter(batches.collect::<Vec<_>>()).buffered(BATCHES).collect().await;
        Ok(reports.into_iter().flatten().collect())
    }
}

/// Cancels some runs: a report for each, in their order.
pub(crate) async fn batch(client: &Client, runs: &[RunId], options: &CancelOptions) -> Vec<RunReport> {
    // A reason belongs to the attempt that it ends, which only the details tell; without one, whether a run goes on is enough.
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

/// A run that goes on, and its tasks with their attempts, if they were asked for.
struct Going {
    run: RunId,
    tasks: Vec<(TaskId, u32)>,
}

/// A run with its tasks, if it goes on.
async fn fetch(client: &Client, run: RunId, started_at: Option<Instant>) -> std::result::Result<Going, Seen> {
    match Look::at(run).started_at(started_at).fetch(client).await {
        Ok(RunDetails { status, outcome: Some(_), .. }) => Err(Seen::Refused(status)),
        Ok(details) => Ok(Going { run, tasks: details.tasks.iter().map(|task| (task.id, task.attempt())).collect() }),
        Err(error) => Err(not_seen(error)),
    }
}

/// A run without its tasks, if it goes on, by gRPC alone. Of one that has ended, the details tell how.
async fn is_going_on(client: &Client, run: RunId, started_at: Option<Instant>) -> std::result::Result<Going, Seen> {
    match client.rpc().admin.run_details(&run.to_string()).await {
        Ok(state) if !state.done => Ok(Going { run, tasks: Vec::new() }),
        Err(error) if error.kind() != ErrorKind::TooLarge && !error.is_not_found() => Err(Seen::Failed(error.unsent())),
        // Too big to be sent this way, ended, or not there yet.
        _ => fetch(client, run, started_at).await,
    }
}

pub(super) fn not_seen(error: Error) -> Seen {
    if error.is_not_found() { Seen::NotFound } else { Seen::Failed(error) }
}

/// Cancels runs that go on: what is seen of each, in their order.
async fn cancel_and_see(client: &Client, going: Vec<Going>, options: &CancelOptions) -> Vec<Seen> {
    let (mut over, mut unasked) = (BTreeSet::new(), BTreeMap::new());
    if let Some(line) = options.line() {
        let tasks = going.iter().flat_map(|going| going.tasks.iter().copied()).collect();
        if let Err(error) = explain(client, tasks, &line).await {
            // Without its reason, nothing is cancelled: it would never be known.
            return going.iter().map(|_| Seen::Failed(error.clone())).collect();
        }
        // Since it was looked at, a run may have ended, and a cancel would damage it. What cannot be asked may have, too.
        let asked = stream::iter(going.iter().map(|going| going.run).collect::<Vec<_>>()).map(|run| async move {
            (run, client.rpc().admin.run_details(&run.to_string()).await.map(|state| state.done))
        });
        let asked: Vec<_> = asked.buffered(AT_ONCE).collect().await;
        for (run, is_over) in asked {
            match is_over {
                Ok(false) => {}
                Ok(true) => drop(over.insert(run)),
                Err(error) if error.kind() == ErrorKind::TooLarge => {}
                Err(error) => drop(unasked.insert(run, not_seen(error.unsent()))),
            }
        }
    }
    let goes_on = |run: &RunId| !over.contains(run) && !unasked.contains_key(run);
    let ids: Vec<_> = going.iter().map(|going| going.run).filter(goes_on).map(|run| run.to_string()).collect();
    if ids.is_empty() {
        // Nothing is left to cancel: what is seen will tell.
    } else if let Err(error) = client.rpc().admin.cancel(ids).await {
        if error.never_reached_server() {
            return going.iter().map(|_| Seen::Failed(error.clone())).collect();
        }
        // It may have happened: what is seen will tell.
        tracing::warn!(%error, "the answer to a cancel is lost");
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
    // Each has its turn: the last of many must not begin when the time is over.
    stream::iter(seen.collect::<Vec<_>>()).buffered(BATCH).collect().await
}

/// Says in the tasks' logs why.
async fn explain(client: &Client, tasks: Vec<(TaskId, u32)>, (message, metadata): &(String, String)) -> Result<()> {
    let lines = tasks.into_iter().map(|(task, attempt)| {
        let line = client.rpc().events.put_log(task.into(), "INFO", message.clone(), metadata.clone(), attempt);
        async move {
            match line.await {
                // A task that the engine has forgotten meanwhile needs no reason.
                Err(error) if !error.is_not_found() => Err(error),
                _ => Ok(()),
            }
        }
    });
    stream::iter(lines).buffered(AT_ONCE).fold(Ok(()), |all, one| std::future::ready(all.and(one))).await
}

/// Looks until the run has ended, or it is too late.
async fn see(client: &Client, run: RunId, deadline: Instant) -> Seen {
    let mut looks = 0;
    let by_grpc = loop {
        match client.rpc().admin.run_details(&run.to_string()).await {
            Ok(state) if state.done && grpc::status(&state.status).is_final() => {
                break Some(grpc::status(&state.status));
            }
            Ok(state) if Instant::now() >= deadline => return Seen::NotTaken(grpc::status(&state.status)),
            // Too big to be sent this way: a full look tells.
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
        Err(error) if client.rpc().rest.is_unreachable(&error) => match by_grpc {
            Some(RunStatus::Cancelled) => Seen::Done,
            Some(status) => Seen::EndedOtherwise(status),
            None => not_seen(error.after_the_act()),
        },
        Err(error) => not_seen(error.after_the_act()),
    }
}
