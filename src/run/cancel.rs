//! Cancelling runs: fetch, cancel, and fetch again.
//!
//! The server accepts every cancel. For a run that has ended, it records a second end; for a run that waits for a sleep or an
//! event, it does nothing. So a run that has ended is not cancelled, and the report contains the state that was fetched
//! afterwards. A run that ends between the first fetch and the cancellation may still get a second end; the report shows this.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::time::Instant;

use super::cancel_reason::CancelReason;
use super::effect::{MAX_CONCURRENT_CALLS, Progress, distinct, effect_if_not_sent, wait_for_cancels};
use super::handle::RunHandle;
use super::resend::Resend;
use crate::client::Client;
use crate::config::{RequestOptions, RetryPolicy};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Effect, LogLevel, RunDetails, RunId, RunReport, TaskId};
use crate::observe::RunFetch;
use crate::rpc::NewLogLine;
use crate::time::MAX_DURATION;

/// How long a cancellation may take to have an effect, by default.
const EFFECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The number of runs in one call.
pub(crate) const RUNS_PER_CALL: usize = 100;
/// For how long a fetched status is considered current when the run is cancelled.
const STATE_VALID_FOR: Duration = Duration::from_millis(50);
/// The number of concurrent batches. A cancellation takes seconds to have an effect, and the next one need not wait for it.
pub(crate) const MAX_CONCURRENT_BATCHES: usize = 4;
impl<O> RunHandle<O> {
    /// Returns a builder for a cancellation; [`send`](CancelBuilder::send) sends it.
    ///
    /// ```no_run
    /// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
    /// let report = run.cancel().reason("the customer asked").by("ada").send().await?;
    /// println!("{}", report.effect); // applied
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel(&self) -> CancelBuilder {
        let options = CancelOptions { started_at: self.started_at(), ..CancelOptions::default() };
        CancelBuilder { client: self.client().clone(), run: self.id(), options }
    }
}

impl Client {
    /// Returns a builder for a cancellation of many runs by their ids; [`send`](CancelManyBuilder::send) sends it.
    ///
    /// To cancel all runs that match a filter, use [`RunQuery::cancel`](crate::builder::RunQuery::cancel).
    pub fn cancel_many(&self, runs: impl IntoIterator<Item = RunId>) -> CancelManyBuilder {
        CancelManyBuilder { client: self.clone(), runs: runs.into_iter().collect(), options: CancelOptions::default() }
    }
}

/// The options of a cancellation.
#[derive(Debug, Clone)]
pub(crate) struct CancelOptions {
    pub(crate) reason: CancelReason,
    /// The reasons for individual runs.
    each: HashMap<RunId, CancelReason>,
    pub(crate) within: Duration,
    pub(crate) request: RequestOptions,
    /// When this client started the run, if it did.
    started_at: Option<Instant>,
    progress: Progress,
}

impl Default for CancelOptions {
    fn default() -> Self {
        Self {
            reason: CancelReason::default(),
            each: HashMap::new(),
            within: EFFECT_TIMEOUT,
            request: RequestOptions::default(),
            started_at: None,
            progress: Progress::default(),
        }
    }
}

impl CancelOptions {
    pub(crate) fn check(&self) -> Result<()> {
        if self.within > MAX_DURATION {
            let found = format_args!("expected at most 10 years, got {:?}", self.within);
            return Err(Error::invalid("time limit", found));
        }
        std::iter::once(&self.reason).chain(self.each.values()).try_for_each(CancelReason::check)
    }

    /// Whether any run has a reason or an author.
    fn has_reason(&self) -> bool {
        !self.reason.is_empty() || !self.each.is_empty()
    }

    fn has_line(&self, run: RunId) -> bool {
        !self.reason.is_empty() || self.each.contains_key(&run)
    }

    /// The log line of a run.
    fn line(&self, run: RunId) -> Option<(String, String)> {
        self.reason.line(self.each.get(&run))
    }
}

/// A builder for a cancellation; see [`RunHandle::cancel`].
///
/// [`send`](Self::send) sends it, and waits for its effect.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// use std::time::Duration;
///
/// let report = run.cancel().within(Duration::from_secs(30)).send().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is cancelled until `send` is awaited"]
pub struct CancelBuilder {
    client: Client,
    run: RunId,
    options: CancelOptions,
}

impl CancelBuilder {
    /// Sets the timeout of each call that this request makes, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.request.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of the calls that this request makes.
    ///
    /// The default is the configured [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options.request.retry = Some(policy);
        self
    }

    /// Sets the reason (1 to 4000 characters).
    ///
    /// The reason is written to the log of the runs' tasks, where the dashboard shows it, and
    /// [`RunDetails::cancellation`](crate::model::RunDetails::cancellation) contains it. By default there is no reason.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.options.reason.set_reason(reason.into());
        self
    }

    /// Sets the author of the cancellation (1 to 200 characters). The author is stored with the reason. By default there is none.
    pub fn by(mut self, who: impl Into<String>) -> Self {
        self.options.reason.set_by(who.into());
        self
    }

    /// Sets how long the cancellation may take to have an effect before it is reported as [`NoEffect`](crate::model::Effect::NoEffect).
    ///
    /// The default is 10 seconds, and the maximum is 10 years.
    pub fn within(mut self, time: std::time::Duration) -> Self {
        self.options.within = time;
        self
    }

    /// Cancels the run, and waits until the cancellation has an effect.
    ///
    /// Running tasks are notified and have the worker's [`cancel_grace_period`](crate::worker::WorkerBuilder::cancel_grace_period) to end.
    /// Later tasks do not start, and nothing is retried. The children of the run continue; [`children`](RunHandle::children) lists them.
    ///
    /// With a [reason](Self::reason) or an [author](Self::by), the method needs the REST API; without them, it needs gRPC only.
    ///
    /// The effect is [`Applied`](Effect::Applied), [`FinishedFirst`](Effect::FinishedFirst) or [`NoEffect`](Effect::NoEffect). For a run
    /// that ended just before the cancellation arrived, the engine may record two ends; see
    /// [`RunDetails::conflicts`](crate::model::RunDetails::conflicts).
    ///
    /// # Errors
    /// [`RunState`](crate::ErrorKind::RunState) if the run has already ended; [`run_status`](Error::run_status) returns its status.
    /// [`RunNotFound`](crate::ErrorKind::RunNotFound) if the engine has no such run.
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the reason or the author is empty, too long or contains U+0000, or if the
    /// time limit or the timeout is out of range.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the run may be cancelled.
    pub async fn send(self) -> Result<RunReport> {
        self.options.check()?;
        let client = self.client.with(self.options.request)?;
        // Boxed, because it is large.
        let reports = Box::pin(batch(&client, &[self.run], &self.options)).await;
        let Some(report) = reports.into_iter().next() else {
            return Err(Error::run_not_found(self.run).without_side_effects());
        };
        match report.effect {
            Effect::Skipped(status) => Err(Error::run_state(self.run, "cancelled", status)),
            Effect::NotFound => Err(Error::run_not_found(self.run).without_side_effects()),
            Effect::Unknown(error) => Err(error),
            _ => Ok(report),
        }
    }
}

/// A builder for a cancellation of many runs; see [`Client::cancel_many`].
///
/// [`send`](Self::send) sends it, and returns a report for each run.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, ids: Vec<hatchet::RunId>) -> hatchet::Result<()> {
/// for report in hatchet.cancel_many(ids).reason("bad deploy").send().await? {
///     println!("{report}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is cancelled until `send` is awaited"]
pub struct CancelManyBuilder {
    client: Client,
    runs: Vec<RunId>,
    options: CancelOptions,
}

impl CancelManyBuilder {
    /// Sets the timeout of each call that this request makes, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.request.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of the calls that this request makes.
    ///
    /// The default is the configured [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options.request.retry = Some(policy);
        self
    }

    /// Sets the reason (1 to 4000 characters).
    ///
    /// The reason is written to the log of the runs' tasks, where the dashboard shows it, and
    /// [`RunDetails::cancellation`](crate::model::RunDetails::cancellation) contains it. By default there is no reason.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.options.reason.set_reason(reason.into());
        self
    }

    /// Sets the author of the cancellation (1 to 200 characters). The author is stored with the reason. By default there is none.
    pub fn by(mut self, who: impl Into<String>) -> Self {
        self.options.reason.set_by(who.into());
        self
    }

    /// Sets how long to wait for an effect.
    ///
    /// A run that has not ended is reported as [`NoEffect`](crate::model::Effect::NoEffect) when no run of this command has ended for this
    /// long. The engine cancels the runs one at a time, so the time restarts whenever one of them ends. The default is 10 seconds,
    /// and the maximum is 10 years.
    pub fn within(mut self, time: std::time::Duration) -> Self {
        self.options.within = time;
        self
    }

    /// Sets reasons for individual runs.
    ///
    /// The function is called once for each run, with the id of the run and an empty [`CancelReason`]. The reason or the author that it
    /// leaves unset is that of all runs.
    pub fn each(mut self, mut reason: impl FnMut(RunId, CancelReason) -> CancelReason) -> Self {
        let all = self.runs.iter().map(|run| (*run, reason(*run, CancelReason::default())));
        self.options.each = all.filter(|(_, reason)| !reason.is_empty()).collect();
        self
    }

    /// Cancels the runs in batches of 100, and returns a report for each run, in the order of the ids.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the reason or the author is empty, too long or contains U+0000, or if the
    /// time limit or the timeout is out of range. Errors of individual runs are in their reports.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, some or all of the runs may be cancelled.
    pub async fn send(self) -> Result<Vec<RunReport>> {
        self.options.check()?;
        let (client, options) = (&self.client.with(self.options.request)?, &self.options);
        let distinct = distinct(&self.runs);
        let batches = distinct.chunks(RUNS_PER_CALL).map(|runs| batch(client, runs, options));
        let reports: Vec<_> =
            stream::iter(batches.collect::<Vec<_>>()).buffered(MAX_CONCURRENT_BATCHES).collect().await;
        let reports: HashMap<_, _> = reports.into_iter().flatten().map(|report| (report.run_id, report)).collect();
        Ok(self.runs.iter().filter_map(|run| reports.get(run).cloned()).collect())
    }
}

/// Cancels runs with one call, and returns a report for each, in order.
pub(crate) async fn batch(client: &Client, runs: &[RunId], options: &CancelOptions) -> Vec<RunReport> {
    // A reason belongs to the attempt that it ends, which only the details contain. Without a reason, the run's status is enough.
    let has_reason = options.has_reason();
    let started_at = options.started_at;
    let states = stream::iter(runs.to_vec()).map(|run| async move {
        if has_reason { fetch(client, run, started_at).await } else { fetch_status(client, run, started_at).await }
    });
    let states: Vec<_> = states.buffered(MAX_CONCURRENT_CALLS).collect().await;
    let mut effects: Vec<Option<Effect>> = Vec::with_capacity(runs.len());
    let mut active = Vec::new();
    for state in states {
        effects.push(match state {
            Ok(state) => {
                active.push(state);
                None
            }
            Err(effect) => Some(effect),
        });
    }
    let of_active = if active.is_empty() { Vec::new() } else { cancel_active(client, active, options).await };
    let mut of_active = of_active.into_iter();
    let reports = runs
        .iter()
        .zip(effects)
        .filter_map(|(run, effect)| Some(RunReport::cancelled(*run, effect.or_else(|| of_active.next())?)));
    reports.collect()
}

/// A run that has not ended, and its tasks with their attempts, if they were fetched.
struct ActiveRun {
    run: RunId,
    tasks: Vec<(TaskId, u32)>,
    fetched_at: Instant,
}

/// Fetches a run with its tasks. An error is the effect of the cancel: the run has ended, or cannot be fetched.
async fn fetch(client: &Client, run: RunId, started_at: Option<Instant>) -> std::result::Result<ActiveRun, Effect> {
    match RunFetch::new(run).started_at(started_at).fetch(client).await {
        Ok(RunDetails { status, outcome: Some(_), .. }) => Err(Effect::Skipped(status)),
        Ok(details) => {
            let tasks = details.tasks.iter().map(|task| (task.id, task.attempt())).collect();
            Ok(ActiveRun { run, tasks, fetched_at: Instant::now() })
        }
        Err(error) => Err(effect_if_not_sent(error)),
    }
}

/// Fetches a run without its tasks, over gRPC alone. If it has ended, its details are needed to report how.
async fn fetch_status(
    client: &Client,
    run: RunId,
    started_at: Option<Instant>,
) -> std::result::Result<ActiveRun, Effect> {
    match client.rpc().admin.run_details(run).await {
        Ok(details) if !details.done => Ok(ActiveRun { run, tasks: Vec::new(), fetched_at: Instant::now() }),
        Err(error) if error.kind() != ErrorKind::TooLarge && !error.is_not_found() => {
            Err(Effect::Unknown(error.without_side_effects()))
        }
        // The run is too large for this call, has ended, or does not exist yet.
        _ => fetch(client, run, started_at).await,
    }
}

/// Cancels runs that have not ended, and returns the effects, in order.
async fn cancel_active(client: &Client, active: Vec<ActiveRun>, options: &CancelOptions) -> Vec<Effect> {
    // A run whose reason cannot be written is not cancelled: the reason would never be known.
    let unwritten = write_reasons(client, &active, options).await;
    let mut resend = Resend::new(client, options.request, options.within);
    let mut unknown = loop {
        // Before each try, because a run may have ended since the last one.
        let to_check = active.iter().filter(|active| !unwritten.contains_key(&active.run));
        let (ended, mut unknown) = check_again(client, to_check, options).await;
        unknown.extend(unwritten.clone());
        let is_active = |run: &RunId| !ended.contains(run) && !unknown.contains_key(run);
        let runs: Vec<_> = active.iter().map(|active| active.run).filter(is_active).collect();
        if runs.is_empty() {
            // The fetch below reports how the others ended.
            break unknown;
        }
        let Err(error) = client.rpc().admin.cancel(runs.iter().copied()).await else { break unknown };
        if !error.has_no_side_effects() {
            // The cancellation may have been applied. The fetch below reports it.
            tracing::warn!(%error, "lost the response to a cancellation");
            break unknown;
        }
        if !resend.again(&error).await {
            let effect = |run| (run, Effect::Unknown(of_cancel(error.clone(), run, options)));
            unknown.extend(runs.into_iter().map(effect));
            break unknown;
        }
    };
    let sent = active.iter().map(|active| active.run).filter(|run| !unknown.contains_key(run)).collect();
    let mut effects = wait_for_cancels(client, sent, options.within, &options.progress).await;
    effects.append(&mut unknown);
    active.iter().map(|active| effects.remove(&active.run).unwrap_or(Effect::NotFound)).collect()
}

/// Fetches runs again whose status is not current: a cancellation would corrupt a run that has ended meanwhile. Returns the runs that have
/// ended, and those that cannot be fetched.
async fn check_again(
    client: &Client,
    active: impl Iterator<Item = &ActiveRun>,
    options: &CancelOptions,
) -> (BTreeSet<RunId>, BTreeMap<RunId, Effect>) {
    let (mut ended, mut unknown) = (BTreeSet::new(), BTreeMap::new());
    let outdated = active.filter(|active| active.fetched_at.elapsed() > STATE_VALID_FOR).map(|active| active.run);
    let fetched = stream::iter(outdated.collect::<Vec<_>>())
        .map(|run| async move { (run, client.rpc().admin.run_details(run).await.map(|details| details.done)) });
    let fetched: Vec<_> = fetched.buffered(MAX_CONCURRENT_CALLS).collect().await;
    for (run, is_done) in fetched {
        match is_done {
            Ok(false) => {}
            Ok(true) => drop(ended.insert(run)),
            Err(error) if error.kind() == ErrorKind::TooLarge => {}
            Err(error) if error.is_not_found() && !options.has_line(run) => drop(unknown.insert(run, Effect::NotFound)),
            Err(error) => {
                drop(unknown.insert(run, Effect::Unknown(of_cancel(error.without_side_effects(), run, options))));
            }
        }
    }
    (ended, unknown)
}

/// An error of a run that was not cancelled. Its reason has already been written to the log, if there is one.
fn of_cancel(error: Error, run: RunId, options: &CancelOptions) -> Error {
    if options.has_line(run) { error.with_possible_side_effects() } else { error }
}

/// Writes the reason to the logs of the runs' tasks. Returns the runs to which it cannot be written.
async fn write_reasons(client: &Client, active: &[ActiveRun], options: &CancelOptions) -> BTreeMap<RunId, Effect> {
    let with_line = active.iter().filter_map(|active| Some((active, options.line(active.run)?)));
    let lines = with_line.flat_map(|(active, (text, metadata))| {
        active.tasks.iter().map(move |(task, attempt)| {
            let (message, metadata) = (text.clone(), metadata.clone());
            let line = NewLogLine { task: *task, attempt: *attempt, level: LogLevel::Info, message, metadata };
            async move { (active.run, client.rpc().events.put_log(line).await) }
        })
    });
    let written: Vec<_> = stream::iter(lines.collect::<Vec<_>>()).buffered(MAX_CONCURRENT_CALLS).collect().await;
    let is_written = |(run, line): &(RunId, Result<()>)| line.is_ok().then_some(*run);
    let has_lines: HashSet<RunId> = written.iter().filter_map(is_written).collect();
    let failed = written.into_iter().filter_map(|(run, line)| {
        // A task that the engine no longer has needs no reason.
        let error = line.err().filter(|error| !error.is_not_found())?;
        let error = if has_lines.contains(&run) { error.with_possible_side_effects() } else { error };
        Some((run, Effect::Unknown(error)))
    });
    failed.collect()
}

#[cfg(test)]
mod tests {
    use super::super::effect::MAX_POLL_INTERVAL;
    use super::*;
    use crate::embedded::{Engine, Fault};
    use crate::model::RunStatus;
    use crate::rpc::pb::v1::RunStatus as Status;
    use crate::scripted::{Scripted, single_task_run};
    use crate::workflow::{Context, Task};

    const SECOND: Duration = Duration::from_secs(1);

    /// A run that waits for a worker.
    async fn queued() -> (Engine, RunHandle<u32>) {
        let engine = Engine::start().await.unwrap();
        let task = Task::new("task", async |(): (), context: Context| Ok(context.attempt()));
        let worker = engine.client().worker("worker").register(&task).build().unwrap().start().await.unwrap();
        worker.shutdown().await;
        let run = engine.client().run(&task, &()).start().await.unwrap();
        (engine, run)
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancel_without_an_effect_is_reported_when_its_time_is_over() {
        let (engine, run) = queued().await;
        engine.faults().inject_times("CancelTasks", Fault::RejectGrpc(14), 10).unwrap();
        let started = Instant::now();
        let report = run.cancel().within(5 * SECOND).send().await.unwrap();
        assert!(matches!(report.effect, Effect::NoEffect(RunStatus::Queued)), "{report}");
        assert!((5 * SECOND..=5 * SECOND + MAX_POLL_INTERVAL).contains(&started.elapsed()), "{:?}", started.elapsed());
        assert_eq!(engine.faults().planned(), 9, "a cancellation that may have been processed is not repeated");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_for_an_effect_restarts_when_a_run_ends() {
        let (engine, first) = queued().await;
        let client = engine.client();
        let task: Task<(), u32> = Task::new("task", async |(): (), context: Context| Ok(context.attempt()));
        let second = client.run(&task, &()).start().await.unwrap();
        // The command's own call is lost. Others cancel the runs 4 and 8 seconds later.
        engine.faults().inject("CancelTasks", Fault::RejectGrpc(14)).unwrap();
        let started = Instant::now();
        let cancel_later = async {
            for run in [&first, &second] {
                tokio::time::sleep(4 * SECOND).await;
                client.rpc().admin.cancel([run.id()]).await.unwrap();
            }
        };
        let many = client.cancel_many([first.id(), second.id()]).within(5 * SECOND);
        let (reports, ()) = tokio::join!(many.send(), cancel_later);
        assert!(reports.unwrap().iter().all(RunReport::is_applied));
        assert!((8 * SECOND..=8 * SECOND + MAX_POLL_INTERVAL).contains(&started.elapsed()), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancel_that_was_rejected_is_sent_again_after_another_fetch() {
        let (engine, run) = queued().await;
        engine.faults().inject_times("CancelTasks", Fault::RejectGrpc(8), 3).unwrap();
        engine.faults().inject_times("GetRunDetails", Fault::Delay(Duration::ZERO), 100).unwrap();
        let report = run.cancel().send().await.unwrap();
        assert!(report.is_applied(), "{report}");
        // At most one fetch before the first try, at least one more for three retries, and two for the effect.
        assert!((5..=6).contains(&(100 - engine.faults().planned())), "{}", engine.faults().planned());

        let (engine, run) = queued().await;
        engine.faults().inject("CancelTasks", Fault::RejectGrpc(8)).unwrap();
        let error = run.cancel().retry(RetryPolicy::none()).send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RateLimited);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_cannot_be_fetched_is_not_cancelled() {
        let (engine, run) = queued().await;
        engine.faults().inject_times("GetRunDetails", Fault::RejectGrpc(13), 100).unwrap();
        engine.faults().inject_times("GET /api/v1/stable/workflow-runs/{run}", Fault::RejectRest(500), 100).unwrap();
        for cancel in [run.cancel(), run.cancel().reason("why")] {
            let error = cancel.retry(RetryPolicy::none()).send().await.unwrap_err();
            assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Server, true), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancel_whose_response_is_lost_is_applied() {
        let (engine, run) = queued().await;
        engine.faults().inject("CancelTasks", Fault::LoseResponse).unwrap();
        let started = Instant::now();
        let report = run.cancel().send().await.unwrap();
        assert!(report.is_applied(), "{report}");
        assert!(started.elapsed() < SECOND, "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_status_that_is_not_current_is_fetched_again() {
        for (delay, expected) in [(Duration::ZERO, 0), (STATE_VALID_FOR + SECOND, 1)] {
            let (engine, run) = queued().await;
            engine.faults().inject("PutLog", Fault::Delay(delay)).unwrap();
            // One fetch before the cancellation, and one that shows its effect, for which the details are fetched, too.
            engine.faults().inject_times("GetRunDetails", Fault::Delay(Duration::ZERO), 100).unwrap();
            assert!(run.cancel().reason("why").send().await.unwrap().is_applied());
            assert_eq!(100 - engine.faults().planned(), 3 + expected, "{delay:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_of_many_runs_has_its_own_reason() {
        let (engine, first) = queued().await;
        let client = engine.client();
        let task: Task<(), u32> = Task::new("task", async |(): (), context: Context| Ok(context.attempt()));
        let second = client.run(&task, &()).start().await.unwrap();
        let many = client.cancel_many([first.id(), second.id()]).by("ada");
        let many = many.each(|id, own| if id == first.id() { own.reason("duplicate") } else { own });
        let reports = many.send().await.unwrap();
        assert!(reports.iter().all(RunReport::is_applied), "{reports:?}");
        let mut reasons = Vec::new();
        for run in [&first, &second] {
            let request = run.details().await.unwrap().cancellation().unwrap().clone();
            reasons.push((request.reason, request.by.unwrap()));
        }
        assert_eq!(reasons, [(Some("duplicate".into()), "ada".into()), (None, "ada".into())]);
        let too_long = client.cancel_many([second.id()]).each(|_, own| own.reason("x".repeat(4001)));
        assert_eq!(too_long.send().await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    const ENDED: [(&str, u32); 2] = [("STARTED", 1), ("FINISHED", 1)];

    /// The server accepts the cancellation, but the run completes, as if its worker had reported the result just before.
    #[tokio::test(start_paused = true)]
    async fn a_run_that_completes_after_its_cancel_was_accepted_has_finished_first() {
        let (client, calls) = single_task_run::client(
            |count| single_task_run::grpc(if count < 3 { Status::Running } else { Status::Completed }),
            |_| single_task_run::rest("COMPLETED", 1),
            |_| single_task_run::events(&ENDED),
            |_| Scripted::empty(),
        );
        let report = client.run_handle(single_task_run::id()).cancel().send().await.unwrap();
        assert_eq!(report.effect, Effect::FinishedFirst(RunStatus::Completed));
        assert_eq!(calls.count("CancelTasks"), 1);
    }

    /// A cancellation would corrupt a run that has ended. The response is late, so the status is no longer current when it arrives.
    #[tokio::test(start_paused = true)]
    async fn a_run_that_ends_while_its_cancel_is_rejected_is_not_cancelled_again() {
        let (client, calls) = single_task_run::client(
            |count| single_task_run::grpc(if count == 1 { Status::Running } else { Status::Completed }),
            |_| single_task_run::rest("COMPLETED", 1),
            |_| single_task_run::events(&ENDED),
            |_| Scripted::after(STATE_VALID_FOR + SECOND, Scripted::Status(8)),
        );
        let report = client.run_handle(single_task_run::id()).cancel().send().await.unwrap();
        assert_eq!(report.effect, Effect::FinishedFirst(RunStatus::Completed));
        assert_eq!(calls.count("CancelTasks"), 1);
    }
}
