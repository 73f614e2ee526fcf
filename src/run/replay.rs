//! Running ended runs again, under the same ids.
//!
//! The server answers every replay with all ids that it was asked for, and loses them by the hundred when they come too fast.
//! So they are sent a batch at a time, each run is counted home by the retry count of its tasks, and what is lost is sent
//! again.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::time::{Instant, sleep};

use super::cancel::{AT_ONCE, distinct, not_seen};
use super::gather::{Look, may_recover};
use super::handle::RunHandle;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{RunDetails, RunId, RunReport, RunStatus, Seen};
use crate::transport::retry_delay;

/// Runs that go in one call: the engine loses what comes beyond some hundred.
pub(crate) const BATCH: usize = 100;
/// How long the replays of one call may take to show. A hundred take up to eight seconds.
const WITHIN: Duration = Duration::from_secs(15);
/// How often a replay is sent before it counts as not taken.
const TRIES: u32 = 3;

impl<O> RunHandle<O> {
    /// Prepares a replay: a new attempt of the same run with the same input. For a new run with the same input, use
    /// [`rerun`](Self::rerun).
    ///
    /// ```no_run
    /// # async fn example(run: hatchet::RunHandle<String>) -> hatchet::Result<()> {
    /// let again = run.replay().send().await?;
    /// println!("attempt {} ends with {}", again.attempt, again.run.result().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn replay(&self) -> ReplayBuilder<O> {
        ReplayBuilder { run: self.clone(), options: ReplayOptions::default() }
    }
}

impl Client {
    /// Prepares a replay of many runs by their ids; [`send`](ReplayManyBuilder::send) sends it. To replay all runs that match a filter,
    /// use [`RunQuery::replay`](crate::RunQuery::replay).
    pub fn replay_runs(&self, runs: impl IntoIterator<Item = RunId>) -> ReplayManyBuilder {
        ReplayManyBuilder { client: self.clone(), runs: runs.into_iter().collect(), options: ReplayOptions::default() }
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ReplayOptions {
    pub(crate) even_if_cancelled: bool,
}

/// The option that all kinds of replays have in common.
macro_rules! replay_options {
    ($builder:ident $(<$type:ident>)?) => {
        impl $(<$type>)? $builder $(<$type>)? {
            /// Also replays runs that were cancelled. By default, they are refused, and a replay by a filter without a status skips them,
            /// because they were cancelled on purpose.
            pub fn even_if_cancelled(mut self) -> Self {
                self.options.even_if_cancelled = true;
                self
            }
        }
    };
}
pub(crate) use replay_options;

/// A replay that is about to be sent.
#[derive(Debug)]
#[must_use = "nothing is replayed before `send`"]
pub struct ReplayBuilder<O> {
    run: RunHandle<O>,
    options: ReplayOptions,
}
replay_options!(ReplayBuilder<O>);

/// A replayed run.
#[non_exhaustive]
pub struct Replayed<O> {
    /// The run. Its handle waits for the end of the new attempt, and not for that of an earlier one.
    pub run: RunHandle<O>,
    /// The number of the new attempt; see [`RunDetails::attempt`](crate::RunDetails::attempt).
    pub attempt: u32,
    /// The names of the tasks that were confirmed to run again. Later tasks of a DAG run may be missing.
    pub tasks: Vec<String>,
}

impl<O> Clone for Replayed<O> {
    fn clone(&self) -> Self {
        Self { run: self.run.clone(), attempt: self.attempt, tasks: self.tasks.clone() }
    }
}

impl<O> fmt::Debug for Replayed<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Replayed");
        shown.field("run", &self.run.id()).field("attempt", &self.attempt).field("tasks", &self.tasks).finish()
    }
}

impl<O> ReplayBuilder<O> {
    /// Replays the run, and waits until the replay has an effect. All tasks of a DAG run are replayed.
    ///
    /// # Errors
    /// [`RunState`](ErrorKind::RunState) if the run has not ended or was cancelled; [`run_status`](Error::run_status) returns its status.
    /// [`RunNotFound`](ErrorKind::RunNotFound) if the engine has no such run. [`Server`](ErrorKind::Server) if the server accepts the
    /// replay three times without an effect.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the run may be replayed.
    pub async fn send(self) -> Result<Replayed<O>> {
        let (client, id) = (self.run.client().clone(), self.run.id());
        let (mut reports, mut before) = batch_after(&client, &[id], self.options).await;
        match reports.pop().map(|report| report.seen) {
            Some(Seen::Done) => {}
            Some(Seen::Refused(status)) => return Err(Error::run_state(id, "replayed", status)),
            Some(Seen::Failed(error)) => return Err(error),
            Some(Seen::NotFound) | None => return Err(Error::run_not_found(id)),
            Some(seen) => return Err(Error::new(ErrorKind::Server, format!("the replay of run {id} is {seen}"))),
        }
        let Before { attempt, counts, names } = before.remove(&id).unwrap_or_default();
        let attempt = attempt.saturating_add(1);
        let again = begun_anew(&client, id, &counts).await.unwrap_or_default();
        let tasks = again.iter().filter_map(|id| names.get(id).cloned()).collect();
        Ok(Replayed { run: self.run.at_attempt(attempt), attempt, tasks })
    }
}

/// A replay of many runs that is about to be sent.
#[derive(Debug)]
#[must_use = "nothing is replayed before `send`"]
pub struct ReplayManyBuilder {
    client: Client,
    runs: Vec<RunId>,
    options: ReplayOptions,
}
replay_options!(ReplayManyBuilder);

impl ReplayManyBuilder {
    /// Replays the runs, a hundred at a time, and tells for each what was seen to become of it, in their order. A run that is
    /// named twice is replayed once.
    ///
    /// # Errors
    /// Currently none. Errors of single runs are in their reports.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, some or all of the runs may be replayed.
    pub async fn send(self) -> Result<Vec<RunReport>> {
        let mut reports = HashMap::new();
        for runs in distinct(&self.runs).chunks(BATCH) {
            reports
                .extend(batch(&self.client, runs, self.options).await.into_iter().map(|report| (report.run, report)));
        }
        Ok(self.runs.iter().filter_map(|run| reports.get(run).cloned()).collect())
    }
}

/// The retry counts of a run's tasks, by their ids.
type Counts = BTreeMap<String, u32>;

/// How a run stood before its replay.
#[derive(Debug, Default)]
struct Before {
    attempt: u32,
    counts: Counts,
    /// The names of its tasks, by their ids.
    names: BTreeMap<String, String>,
}

impl Before {
    fn of(details: &RunDetails) -> Self {
        Self {
            attempt: details.attempt(),
            counts: details.tasks.iter().map(|task| (task.id.to_string(), task.attempt().saturating_sub(1))).collect(),
            names: details.tasks.iter().map(|task| (task.id.to_string(), task.name.clone())).collect(),
        }
    }
}

/// Replays some runs, and waits until all of them are under way: a report for each, in their order.
pub(crate) async fn batch(client: &Client, runs: &[RunId], options: ReplayOptions) -> Vec<RunReport> {
    batch_after(client, runs, options).await.0
}

/// The same, with how those stood that were replayed.
async fn batch_after(
    client: &Client,
    runs: &[RunId],
    options: ReplayOptions,
) -> (Vec<RunReport>, BTreeMap<RunId, Before>) {
    let mut befores: BTreeMap<RunId, Before> = BTreeMap::new();
    let mut seen: BTreeMap<RunId, Seen> = BTreeMap::new();
    let mut waiting: BTreeMap<RunId, Counts> = BTreeMap::new();
    let looks = stream::iter(runs.to_vec()).map(|run| async move {
        let details = Look::at(run).fetch(client).await;
        (run, details)
    });
    let looks: Vec<_> = looks.buffered(AT_ONCE).collect().await;
    for (run, details) in looks {
        match details {
            Ok(details) => {
                if let Some(status) = refused(&details, options) {
                    seen.insert(run, Seen::Refused(status));
                } else {
                    let before = Before::of(&details);
                    waiting.insert(run, before.counts.clone());
                    befores.insert(run, before);
                }
            }
            Err(error) => drop(seen.insert(run, not_seen(error))),
        }
    }
    for _ in 0..TRIES {
        if waiting.is_empty() {
            break;
        }
        if let Err(error) = client.rpc().admin.replay(waiting.keys().map(RunId::to_string).collect()).await {
            if error.never_reached_server() {
                seen.extend(waiting.keys().map(|run| (*run, Seen::Failed(error.clone()))));
                waiting.clear();
                break;
            }
            // It may have happened: what is seen will tell.
            tracing::warn!(%error, "response to replay was lost");
        }
        // What cannot be asked may be under way: it must not be sent again.
        for (run, is_home) in count_home(client, &waiting).await {
            let report = match is_home {
                Ok(true) => Seen::Done,
                Ok(false) => continue,
                Err(error) => Seen::Failed(error.after_the_act()),
            };
            waiting.remove(&run);
            seen.insert(run, report);
        }
    }
    for run in waiting.into_keys() {
        let status = Look::at(run).fetch(client).await.map(|details| details.status);
        let not_taken = status.map_or_else(|error| not_seen(error.after_the_act()), Seen::NotTaken);
        seen.insert(run, not_taken);
    }
    let seen_of = |run: &RunId| seen.get(run).cloned().unwrap_or(Seen::NotFound);
    let attempt_of = |run: &RunId| befores.get(run).map(|before| before.attempt.saturating_add(1));
    let reports = runs.iter().map(|run| RunReport::replayed(*run, seen_of(run), attempt_of(run)));
    (reports.collect(), befores)
}

/// Why a run is not replayed, if it is not.
fn refused(details: &RunDetails, options: ReplayOptions) -> Option<RunStatus> {
    let cancelled = details.status == RunStatus::Cancelled && !options.even_if_cancelled;
    (details.outcome.is_none() || cancelled).then(|| details.status.clone())
}

/// Waits until all of these runs are under way again, or it is too late. Tells of each whether it is, if that could be asked
/// at last.
async fn count_home(client: &Client, waiting: &BTreeMap<RunId, Counts>) -> Vec<(RunId, Result<bool>)> {
    let deadline = Instant::now() + WITHIN;
    let mut missing: Vec<(RunId, Result<bool>)> = waiting.keys().map(|run| (*run, Ok(false))).collect();
    let mut home = Vec::new();
    let mut looks = 0;
    loop {
        let asked = stream::iter(std::mem::take(&mut missing)).map(|(run, _)| async move {
            let Some(before) = waiting.get(&run) else { return (run, Ok(false)) };
            (run, begun_anew(client, run, before).await.map(|tasks| !tasks.is_empty()))
        });
        let asked: Vec<_> = asked.buffered(AT_ONCE).collect().await;
        for (run, is_home) in asked {
            let settled = match &is_home {
                Ok(is_home) => *is_home,
                Err(error) => !may_recover(error) && !error.is_not_found(),
            };
            if settled { home.push((run, is_home)) } else { missing.push((run, is_home)) }
        }
        if missing.is_empty() || Instant::now() >= deadline {
            home.extend(missing);
            return home;
        }
        looks += 1;
        sleep(retry_delay(looks, fastrand::f64()).min(Duration::from_secs(1))).await;
    }
}

/// The ids of a run's tasks whose retry count has risen.
async fn begun_anew(client: &Client, run: RunId, before: &Counts) -> Result<Vec<String>> {
    let tasks = client.rpc().rest.run(&run.to_string()).await?.tasks.into_iter();
    let risen =
        tasks.filter(|task| before.get(&task.task_external_id).is_some_and(|before| task.retry_count > *before));
    Ok(risen.map(|task| task.task_external_id).collect())
}
