//! Replaying runs: fetch, replay, and fetch again.
//!
//! The server's response to a replay lists all ids of the request, but the engine loses many of them if they arrive too fast. So they
//! are sent in batches, each replay is confirmed by the retry counts of the run's tasks, and lost ones are sent again.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::time::Instant;

use super::effect::{MAX_CONCURRENT_CALLS, MAX_POLL_INTERVAL, distinct, effect_if_not_sent, effect_if_unconfirmed};
use super::handle::RunHandle;
use super::options::ReplayOptions;
use super::resend::Resend;
use crate::client::Client;
use crate::config::{RequestOptions, RetryPolicy};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Effect, RunDetails, RunId, RunReport, RunStatus, TaskId, attempt_number};
use crate::observe::RunFetch;
use crate::transport::Polling;

/// The number of runs in one call. The engine loses replays if there are several hundred.
pub(crate) const RUNS_PER_CALL: usize = 100;
/// How long the replays of one call may take to have an effect. A hundred take up to eight seconds.
const EFFECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a replay without an effect is sent.
const MAX_TRIES: u32 = 3;

impl<O> RunHandle<O> {
    /// Returns a builder for a replay: a new attempt of the same run with the same input.
    ///
    /// For a new run with the same input, use [`rerun`](Self::rerun).
    ///
    /// ```no_run
    /// # async fn example(run: hatchet::RunHandle<String>) -> hatchet::Result<()> {
    /// let again = run.replay().send().await?;
    /// println!("attempt {} ends with {}", again.attempt, again.run.result().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn replay(&self) -> ReplayBuilder<O> {
        ReplayBuilder { run: self.clone(), command: Replay::default() }
    }
}

impl Client {
    /// Returns a builder for a replay of many runs by their ids; [`send`](ReplayManyBuilder::send) sends it.
    ///
    /// To replay all runs that match a filter, use [`RunQuery::replay`](crate::builder::RunQuery::replay).
    pub fn replay_many(&self, runs: impl IntoIterator<Item = RunId>) -> ReplayManyBuilder {
        ReplayManyBuilder { client: self.clone(), runs: runs.into_iter().collect(), command: Replay::default() }
    }
}

/// What a replay does with its runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Replay {
    pub(crate) options: ReplayOptions,
    /// The runs with options of their own.
    each: HashMap<RunId, ReplayOptions>,
    pub(crate) request: RequestOptions,
}

impl Replay {
    /// The status for which a run is not replayed.
    fn skipped(&self, run: RunId, details: &RunDetails) -> Option<RunStatus> {
        let options = self.each.get(&run).unwrap_or(&self.options);
        let is_kept = details.status == RunStatus::Cancelled && !options.include_cancelled;
        (details.outcome.is_none() || is_kept).then(|| details.status.clone())
    }
}

/// A builder for a replay; see [`RunHandle::replay`].
///
/// [`send`](Self::send) sends it, and waits for its effect. By default, a cancelled run is not replayed.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// let replayed = run.replay().include_cancelled().send().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is replayed until `send` is awaited"]
pub struct ReplayBuilder<O> {
    run: RunHandle<O>,
    command: Replay,
}

/// A run whose replay has started a new attempt; see [`ReplayBuilder::send`].
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<String>) -> hatchet::Result<()> {
/// let replayed = run.replay().send().await?;
/// println!("attempt {} of {:?}", replayed.attempt, replayed.task_names);
/// println!("{}", replayed.run.result().await?);
/// # Ok(())
/// # }
/// ```
#[non_exhaustive]
pub struct Replayed<O> {
    /// The run. This handle waits for the end of the new attempt, not for the end of an earlier attempt.
    pub run: RunHandle<O>,
    /// The number of the new attempt; see [`RunDetails::attempt`](crate::model::RunDetails::attempt).
    pub attempt: u32,
    /// The names of the tasks that were confirmed to run again. Later tasks of a DAG run may be missing.
    pub task_names: Vec<String>,
}

impl<O> Clone for Replayed<O> {
    fn clone(&self) -> Self {
        Self { run: self.run.clone(), attempt: self.attempt, task_names: self.task_names.clone() }
    }
}

impl<O> fmt::Debug for Replayed<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Replayed");
        shown
            .field("run", &self.run.id())
            .field("attempt", &self.attempt)
            .field("task_names", &self.task_names)
            .finish()
    }
}

impl<O> ReplayBuilder<O> {
    /// Sets the timeout of each call that this request makes, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.command.request.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of the calls that this request makes.
    ///
    /// The default is the configured [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.command.request.retry = Some(policy);
        self
    }

    /// Also replays the run if it was cancelled.
    ///
    /// By default, [`send`](Self::send) returns [`RunState`](ErrorKind::RunState) for a cancelled run, because someone cancelled it on
    /// purpose.
    pub fn include_cancelled(mut self) -> Self {
        self.command.options.include_cancelled = true;
        self
    }

    /// Replays the run, and waits until the replay has an effect. All tasks of a DAG run are replayed.
    ///
    /// # Errors
    /// [`RunState`](ErrorKind::RunState) if the run has not ended or was cancelled; [`run_status`](Error::run_status) returns its status.
    /// [`RunNotFound`](ErrorKind::RunNotFound) if the engine has no such run. [`Server`](ErrorKind::Server) if the server accepts the
    /// replay three times, and the replay has no effect within 15 seconds each time. [`InvalidInput`](ErrorKind::InvalidInput) if the
    /// timeout is out of range.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the run may be replayed.
    pub async fn send(self) -> Result<Replayed<O>> {
        let (client, id) = (self.run.client().with(self.command.request)?, self.run.id());
        let (mut reports, mut before) = batch_after(&client, &[id], &self.command).await;
        let report = reports.pop();
        let attempt = report.as_ref().and_then(|report| report.attempt);
        match report.map(|report| report.effect) {
            Some(Effect::Applied) => {}
            Some(Effect::Skipped(status)) => return Err(Error::run_state(id, "replayed", status)),
            Some(Effect::Unknown(error)) => return Err(error),
            Some(Effect::NotFound) | None => return Err(Error::run_not_found(id).without_side_effects()),
            Some(effect) => return Err(Error::new(ErrorKind::Server, format!("run {id} was not replayed: {effect}"))),
        }
        let Before { attempt: before, counts, names, .. } = before.remove(&id).unwrap_or_default();
        let attempt = attempt.unwrap_or(before.saturating_add(1));
        let replayed = replayed_tasks(&client, id, &counts).await.unwrap_or_default();
        let task_names = replayed.keys().filter_map(|id| names.get(id).cloned()).collect();
        Ok(Replayed { run: self.run.at_attempt(attempt), attempt, task_names })
    }
}

/// A builder for a replay of many runs; see [`Client::replay_many`].
///
/// [`send`](Self::send) sends it, and returns a report for each run. By default, cancelled runs are not replayed.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, ids: Vec<hatchet::RunId>) -> hatchet::Result<()> {
/// let reports = hatchet.replay_many(ids).send().await?;
/// println!("{} run again", reports.iter().filter(|report| report.is_applied()).count());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is replayed until `send` is awaited"]
pub struct ReplayManyBuilder {
    client: Client,
    runs: Vec<RunId>,
    command: Replay,
}

impl ReplayManyBuilder {
    /// Sets the timeout of each call that this request makes, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.command.request.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of the calls that this request makes.
    ///
    /// The default is the configured [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.command.request.retry = Some(policy);
        self
    }

    /// Also replays cancelled runs.
    ///
    /// By default, they are reported as [`Skipped`](Effect::Skipped), because someone cancelled them on purpose.
    pub fn include_cancelled(mut self) -> Self {
        self.command.options.include_cancelled = true;
        self
    }

    /// Sets options for individual runs.
    ///
    /// The function is called once for each run, with its id and the options of all runs, and returns the options of that run.
    pub fn each(mut self, mut options: impl FnMut(RunId, ReplayOptions) -> ReplayOptions) -> Self {
        let (of_all, runs) = (self.command.options, &self.runs);
        self.command.each = runs.iter().map(|run| (*run, options(*run, of_all))).collect();
        self
    }

    /// Replays the runs in batches of 100, and returns a report for each run, in the order of the ids.
    ///
    /// A run whose id occurs twice is replayed once.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the timeout is out of range. Errors of individual runs are in their reports.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, some or all of the runs may be replayed.
    pub async fn send(self) -> Result<Vec<RunReport>> {
        let client = self.client.with(self.command.request)?;
        let mut reports = HashMap::new();
        for runs in distinct(&self.runs).chunks(RUNS_PER_CALL) {
            reports.extend(batch(&client, runs, &self.command).await.into_iter().map(|report| (report.run_id, report)));
        }
        Ok(self.runs.iter().filter_map(|run| reports.get(run).cloned()).collect())
    }
}

/// The retry counts of a run's tasks.
type Counts = BTreeMap<TaskId, u32>;

/// The state of a run before its replay.
#[derive(Debug, Default)]
struct Before {
    attempt: u32,
    is_single_task: bool,
    counts: Counts,
    names: BTreeMap<TaskId, String>,
}

impl Before {
    fn of(details: &RunDetails) -> Self {
        Self {
            attempt: details.attempt(),
            is_single_task: details.is_single_task(),
            counts: details.tasks.iter().map(|task| (task.id, task.attempt().saturating_sub(1))).collect(),
            names: details.tasks.iter().map(|task| (task.id, task.name.clone())).collect(),
        }
    }

    /// The number of the run's new attempt, if tasks were replayed. Of a DAG run, only replays count.
    fn new_attempt(&self, replayed: &Counts) -> Option<u32> {
        let count = replayed.values().max()?;
        Some(if self.is_single_task { attempt_number(*count) } else { self.attempt.saturating_add(1) })
    }
}

/// Replays runs with one call, waits until all of them run again, and returns a report for each, in order.
pub(crate) async fn batch(client: &Client, runs: &[RunId], command: &Replay) -> Vec<RunReport> {
    batch_after(client, runs, command).await.0
}

/// The same, with the states of the replayed runs before the replay.
async fn batch_after(client: &Client, runs: &[RunId], command: &Replay) -> (Vec<RunReport>, BTreeMap<RunId, Before>) {
    let mut effects: BTreeMap<RunId, Effect> = BTreeMap::new();
    // A run moves from one to the other.
    let (mut waiting, mut replayed_runs): (BTreeMap<RunId, Before>, BTreeMap<RunId, Before>) = Default::default();
    let reads = stream::iter(runs.to_vec()).map(|run| async move { (run, RunFetch::new(run).fetch(client).await) });
    let fetched: Vec<_> = reads.buffered(MAX_CONCURRENT_CALLS).collect().await;
    for (run, details) in fetched {
        match details {
            Ok(details) => {
                if let Some(status) = command.skipped(run, &details) {
                    effects.insert(run, Effect::Skipped(status));
                } else {
                    waiting.insert(run, Before::of(&details));
                }
            }
            Err(error) => drop(effects.insert(run, effect_if_not_sent(error))),
        }
    }
    let mut attempts: BTreeMap<RunId, u32> = BTreeMap::new();
    let (mut tries, mut resend) = (0, Resend::new(client, command.request, EFFECT_TIMEOUT));
    while tries < MAX_TRIES && !waiting.is_empty() {
        let to_send = if tries == 0 { waiting.keys().copied().collect() } else { ended(client, &waiting).await };
        if !to_send.is_empty()
            && let Err(error) = client.rpc().admin.replay(to_send).await
        {
            if error.has_no_side_effects() && tries == 0 {
                if resend.again(&error).await {
                    // Meanwhile, others may have replayed some of the runs.
                    effects.extend(take_replayed(client, &mut waiting).await);
                    continue;
                }
                effects.extend(waiting.keys().map(|run| (*run, Effect::Unknown(error.clone()))));
                waiting.clear();
                break;
            }
            // The replay may have been applied. The fetch below reports it.
            tracing::warn!(%error, "replay failed, or its response was lost");
        }
        tries += 1;
        for (run, replayed) in wait_for_replays(client, &waiting).await {
            let effect = match replayed {
                Ok(None) => continue,
                Ok(Some(attempt)) => {
                    attempts.insert(run, attempt);
                    Effect::Applied
                }
                // A run that cannot be fetched may run again: its replay must not be sent again.
                Err(error) => effect_if_unconfirmed(error),
            };
            replayed_runs.extend(waiting.remove_entry(&run));
            effects.insert(run, effect);
        }
    }
    for run in waiting.into_keys() {
        let status = RunFetch::new(run).fetch(client).await.map(|details| details.status);
        let effect = status.map_or_else(effect_if_unconfirmed, Effect::NoEffect);
        effects.insert(run, effect);
    }
    let effect_of = |run: &RunId| effects.get(run).cloned().unwrap_or(Effect::NotFound);
    let reports = runs.iter().map(|run| RunReport::replayed(*run, effect_of(run), attempts.get(run).copied()));
    (reports.collect(), replayed_runs)
}

/// The runs that gRPC shows as ended. REST can lag by seconds, so a run that runs again may still have its old attempts there: a second
/// replay would start it once more.
async fn ended(client: &Client, waiting: &BTreeMap<RunId, Before>) -> Vec<RunId> {
    let reads = stream::iter(waiting.keys().copied().collect::<Vec<_>>()).map(|run| async move {
        let details = client.rpc().admin.run_details(run).await;
        details.is_ok_and(|details| details.done).then_some(run)
    });
    reads.buffered(MAX_CONCURRENT_CALLS).filter_map(std::future::ready).collect().await
}

/// Removes the runs that run again although no replay of this call was sent, and returns them as skipped.
async fn take_replayed(client: &Client, waiting: &mut BTreeMap<RunId, Before>) -> Vec<(RunId, Effect)> {
    let reads = stream::iter(waiting.keys().copied().collect::<Vec<_>>());
    let reads = reads.map(|run| async move { (run, client.rpc().admin.run_details(run).await) });
    let fetched: Vec<_> = reads.buffered(MAX_CONCURRENT_CALLS).collect().await;
    let skipped = fetched.into_iter().filter_map(|(run, details)| {
        let details = details.ok().filter(|details| !details.done)?;
        waiting.remove(&run);
        Some((run, Effect::Skipped(details.status)))
    });
    skipped.collect()
}

/// Waits until all of these runs have been replayed, or until none has been for [`EFFECT_TIMEOUT`]: the engine replays them one after the
/// other. Returns the new attempt of each that has.
async fn wait_for_replays(client: &Client, waiting: &BTreeMap<RunId, Before>) -> Vec<(RunId, Result<Option<u32>>)> {
    let mut pending: Vec<RunId> = waiting.keys().copied().collect();
    let mut results: BTreeMap<RunId, Result<Option<u32>>> = BTreeMap::new();
    let mut polling = Polling::backoff(MAX_POLL_INTERVAL, Instant::now() + EFFECT_TIMEOUT);
    loop {
        let reads = stream::iter(std::mem::take(&mut pending)).map(|run| async move {
            let Some(before) = waiting.get(&run) else { return (run, Ok(None)) };
            let replayed = replayed_tasks(client, run, &before.counts).await;
            (run, replayed.map(|tasks| before.new_attempt(&tasks)))
        });
        let fetched: Vec<_> = reads.buffered(MAX_CONCURRENT_CALLS).collect().await;
        for (run, replayed) in fetched {
            let is_known = match &replayed {
                Ok(replayed) => replayed.is_some(),
                Err(error) => !error.may_recover() && !error.is_not_found(),
            };
            if is_known {
                polling.set_deadline(Instant::now() + EFFECT_TIMEOUT);
            } else {
                pending.push(run);
            }
            results.insert(run, replayed);
        }
        if pending.is_empty() || !polling.again().await {
            return results.into_iter().collect();
        }
    }
}

/// The tasks of a run whose retry count has increased, with their new counts.
async fn replayed_tasks(client: &Client, run: RunId, before: &Counts) -> Result<Counts> {
    let tasks = client.rpc().rest.run(run).await?.tasks.into_iter();
    let increased = tasks
        .filter(|task| before.get(&task.task_external_id).is_some_and(|count| task.retry_count_or_zero() > *count));
    Ok(increased.map(|task| (task.task_external_id, task.retry_count_or_zero())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::{Engine, Fault};
    use crate::rpc::pb::v1::RunStatus as Status;
    use crate::scripted::{Scripted, single_task_run};
    use crate::worker::RunningWorker;
    use crate::workflow::{Context, Task};

    /// A run that has completed. The engine has a worker for its replay.
    async fn completed() -> (Engine, RunHandle<u32>, RunningWorker) {
        let engine = Engine::start().await.unwrap();
        let task = Task::new("task", async |(): (), context: Context| Ok(context.attempt()));
        let worker = engine.client().worker("worker").register(&task).build().unwrap().start().await.unwrap();
        let run = engine.client().run(&task, &()).start().await.unwrap();
        run.result().await.unwrap();
        (engine, run, worker)
    }

    #[tokio::test(start_paused = true)]
    async fn a_replay_without_an_effect_is_sent_three_times() {
        let (engine, run, worker) = completed().await;
        engine.faults().inject_times("ReplayTasks", Fault::RejectGrpc(14), 100).unwrap();
        let started = Instant::now();
        let error = run.replay().send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Server, "{error:?}");
        let (least, longest) = (MAX_TRIES * EFFECT_TIMEOUT, MAX_TRIES * (EFFECT_TIMEOUT + MAX_POLL_INTERVAL));
        assert!((least..=longest).contains(&started.elapsed()), "{:?}", started.elapsed());
        assert_eq!(100 - engine.faults().planned(), MAX_TRIES as usize);
        worker.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_replay_is_sent_again() {
        let (engine, run, worker) = completed().await;
        engine.faults().inject("ReplayTasks", Fault::RejectGrpc(14)).unwrap();
        let started = Instant::now();
        let replayed = run.replay().send().await.unwrap();
        assert!((EFFECT_TIMEOUT..EFFECT_TIMEOUT + 3 * MAX_POLL_INTERVAL).contains(&started.elapsed()));
        assert_eq!((replayed.attempt, replayed.run.result().await.unwrap()), (2, 2));
        worker.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_replay_that_was_rejected_is_sent_again_soon() {
        let (engine, run, worker) = completed().await;
        engine.faults().inject_times("ReplayTasks", Fault::RejectGrpc(8), 3).unwrap();
        let started = Instant::now();
        let replayed = run.replay().send().await.unwrap();
        assert_eq!((replayed.attempt, engine.faults().planned()), (2, 0));
        assert!(started.elapsed() < EFFECT_TIMEOUT, "{:?}", started.elapsed());
        worker.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_replay_whose_response_is_lost_is_not_sent_again() {
        let (engine, run, worker) = completed().await;
        engine.faults().inject_times("ReplayTasks", Fault::LoseResponse, 2).unwrap();
        let replayed = run.replay().send().await.unwrap();
        assert_eq!((replayed.attempt, engine.faults().planned()), (2, 1));
        worker.shutdown().await;
    }

    const ENDED: [(&str, u32); 2] = [("STARTED", 1), ("FINISHED", 1)];

    /// gRPC shows that the run runs again, so a second replay would start it once more.
    #[tokio::test(start_paused = true)]
    async fn a_replay_that_rest_shows_late_is_not_sent_again() {
        let (started, late) = (Instant::now(), EFFECT_TIMEOUT + Duration::from_secs(5));
        let (client, calls) = single_task_run::client(
            |count| single_task_run::grpc(if count == 1 { Status::Completed } else { Status::Running }),
            move |_| {
                let is_late = started.elapsed() >= late;
                if is_late { single_task_run::rest("RUNNING", 2) } else { single_task_run::rest("COMPLETED", 1) }
            },
            |_| single_task_run::events(&ENDED),
            |_| Scripted::empty(),
        );
        let replayed = client.run_handle(single_task_run::id()).replay().send().await.unwrap();
        assert_eq!((replayed.attempt, calls.count("ReplayTasks")), (2, 1));
        assert!((late..late + MAX_POLL_INTERVAL).contains(&started.elapsed()), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_others_replay_while_the_replay_is_rejected_is_skipped() {
        let (client, calls) = single_task_run::client(
            |count| single_task_run::grpc(if count == 1 { Status::Completed } else { Status::Running }),
            |_| single_task_run::rest("COMPLETED", 1),
            |_| single_task_run::events(&ENDED),
            |_| Scripted::Status(8),
        );
        let error = client.run_handle(single_task_run::id()).replay().send().await.unwrap_err();
        assert_eq!((error.kind(), error.run_status()), (ErrorKind::RunState, Some(&RunStatus::Running)));
        assert_eq!(calls.count("ReplayTasks"), 1);
    }
}
