//! Copies runs that are due from the engine to the archive.
//!
//! Each listed run is compared with its archived version. So a collection can be stopped at any time and repeated: committed runs are kept,
//! and the next collection continues. A run that was replayed after it was archived is archived again. The oldest days come first, because
//! the engine drops them first.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use futures_core::Stream;
use futures_util::stream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::compare::{Archived, ArchivedVersions};
use super::convert::{self, Version};
use super::days::{LeftAtRisk, MICROSECOND, Risk, day_end, day_start, engine_retention, first_day_with_runs};
use super::handle::Archive;
use super::manifest::Source;
use super::progress::{OperationStream, SteppedOperation};
use super::report::{CollectReport, CollectedBatch};
use super::retention::Retention;
use super::schema::{Column, Row};
use super::writing::{self, MAX_FILE_BYTES};
use crate::client::Client;
use crate::config::{RequestOptions, RetryPolicy};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::Gate;
use crate::list::RunItems;
use crate::model::{RunDetails, RunFilter, RunId, RunStatus, RunSummary, Window};
use crate::observe::DetailsBuilder;
use crate::telemetry::{Measurement, record};
use crate::time::MAX_DURATION;

/// The number of runs that are compared with the archive at once. It is the size of a page of the list.
const LIST_BATCH: usize = 200;
/// The number of runs that are fetched before their size is checked.
const FETCH_BATCH: usize = 32;
/// The number of runs that are committed at once.
const COMMIT_RUNS: usize = 10_000;
/// How long a run that was fetched waits for others until they are committed together. It bounds what a crash loses.
const COMMIT_INTERVAL: Duration = Duration::from_secs(300);
/// The number of runs in a row that cannot be fetched after which this counts as a problem of the server, and ends the collection.
const MAX_UNREACHED: u32 = 5;
/// The default of [`CollectBuilder::requests_per_second`].
const REQUESTS_PER_SECOND: u32 = 200;
/// The default of [`CollectBuilder::concurrency`].
const CONCURRENCY: usize = 8;
const MAX_CONCURRENCY: usize = 64;

impl Archive {
    /// Prepares a collection: it copies the runs of the client's namespace that have ended and that the [`Retention`] selects to the archive.
    /// The engine's copies are not deleted; the engine drops them after its retention period.
    ///
    /// Several processes can collect at the same time, and a collection can be repeated: each version of a run is archived once. A run that
    /// was replayed after it was archived is archived again.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, archive: hatchet::archive::Archive) -> hatchet::Result<()> {
    /// use std::time::Duration;
    /// use hatchet::archive::Retention;
    ///
    /// let older_than = Retention::older_than(Duration::from_secs(20 * 24 * 3600));
    /// println!("{}", archive.collect(&hatchet, older_than).send().await?); // 1200 archived, 18000 unchanged
    /// # Ok(())
    /// # }
    /// ```
    pub fn collect(&self, client: &Client, retention: Retention) -> CollectBuilder {
        CollectBuilder {
            archive: self.clone(),
            client: client.clone(),
            retention,
            before: None,
            is_dry_run: false,
            logs: 0,
            concurrency: CONCURRENCY,
            requests_per_second: REQUESTS_PER_SECOND,
            interval: Duration::ZERO,
            engine_retention: None,
            commit_bytes: MAX_FILE_BYTES,
            request: RequestOptions::default(),
            stop: CancellationToken::new(),
        }
    }
}

/// A collection that is about to start; see [`Archive::collect`].
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, archive: hatchet::archive::Archive) -> hatchet::Result<()> {
/// use hatchet::archive::Retention;
///
/// let collection = archive.collect(&hatchet, Retention::default()).requests_per_second(50);
/// println!("{}", collection.dry_run().send().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is archived until `send` is awaited or the stream from `batches` is polled"]
pub struct CollectBuilder {
    pub(super) archive: Archive,
    pub(super) client: Client,
    pub(super) retention: Retention,
    before: Option<DateTime<Utc>>,
    is_dry_run: bool,
    logs: usize,
    concurrency: usize,
    requests_per_second: u32,
    /// The time until the next collection.
    pub(super) interval: Duration,
    /// The engine's retention period, if the caller knows it.
    engine_retention: Option<Duration>,
    /// The size of the runs after which they are committed.
    commit_bytes: usize,
    request: RequestOptions,
    /// When it is cancelled, the collection commits what it has fetched, and ends.
    stop: CancellationToken,
}

impl CollectBuilder {
    /// Archives the runs that were created before this time, regardless of their age, if they have ended. The statuses of the rules still
    /// apply, and runs of workflows with the rule [`never`](super::Rule::never) are not archived.
    pub fn before(mut self, time: DateTime<Utc>) -> Self {
        self.before = Some(time);
        self
    }

    /// Only counts the runs that would be archived. Nothing is written, and no details are fetched.
    pub fn dry_run(mut self) -> Self {
        self.is_dry_run = true;
        self
    }

    /// Also archives the first log lines of each run, at most this many. The default is 0, the maximum is
    /// [`RunDetails::MAX_LOGS`](crate::model::RunDetails::MAX_LOGS).
    pub fn logs(mut self, count: usize) -> Self {
        self.logs = count;
        self
    }

    /// Sets how many runs are fetched at the same time, from 1 to 64. The default is 8.
    pub fn concurrency(mut self, runs: usize) -> Self {
        self.concurrency = runs;
        self
    }

    /// Limits the rate of requests to the server, in requests per second. The default is 200, and the minimum is 1. After a pause, the
    /// requests of one second may be sent at once. A page of 200 listed runs takes one request, and a run that is archived takes about three
    /// to five. The list takes one or two more for each failed run that has no error message or several attempts. At the start, about fifteen
    /// requests find the day of the oldest run, and one or two for each rule count the runs at risk. Each call counts once: a retry by the
    /// [policy](Self::retry) is not limited by the rate, only by its backoff and by the retry budget of the client.
    pub fn requests_per_second(mut self, requests: u32) -> Self {
        self.requests_per_second = requests;
        self
    }

    /// Sets how often runs are collected, if something else than [`every`](Self::every) repeats the collection: a cron, for example. Runs
    /// that the engine drops before the next collection, or within 24 hours after it, count as [at risk](CollectReport::at_risk). The default
    /// is 0, and the maximum is ten years. [`every`](Self::every) replaces it.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, archive: hatchet::archive::Archive) -> hatchet::Result<()> {
    /// use std::time::Duration;
    /// use hatchet::archive::Retention;
    ///
    /// const DAY: Duration = Duration::from_secs(24 * 3600);
    /// let collect = archive.collect(&hatchet, Retention::older_than(14 * DAY)).collected_every(7 * DAY);
    /// let weekly = collect.task("archive-runs").cron("0 3 * * 0");
    /// # Ok(())
    /// # }
    /// ```
    pub fn collected_every(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets the engine's retention period, from which [`at_risk`](CollectReport::at_risk) and
    /// [`is_retention_too_long`](CollectReport::is_retention_too_long) follow. It must be positive and at most ten years. By default, it is
    /// read from the server, which shows what its default was when the tenant was created. The engine drops runs after the current settings
    /// of its operator, such as `SERVER_LIMITS_DEFAULT_TENANT_RETENTION_PERIOD`. Set it if these have changed since, if the server has several
    /// of them (then the shortest), or if it is an older server that shows none.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, archive: hatchet::archive::Archive) -> hatchet::Result<()> {
    /// use std::time::Duration;
    /// use hatchet::archive::Retention;
    ///
    /// const DAY: Duration = Duration::from_secs(24 * 3600);
    /// let collect = archive.collect(&hatchet, Retention::older_than(5 * DAY)).engine_retention(14 * DAY);
    /// # Ok(())
    /// # }
    /// ```
    pub fn engine_retention(mut self, period: Duration) -> Self {
        self.engine_retention = Some(period);
        self
    }

    /// Sets the timeout of each call that the collection makes, including its retries, from 1 ms to 24 hours. The default is the configured
    /// [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of each call that the collection makes. The default is the configured
    /// [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.request.retry = Some(policy);
        self
    }

    /// Replaces the 64 MiB after which runs are committed: a test of the memory without optimizations would take minutes.
    #[cfg(feature = "__benches")]
    #[doc(hidden)]
    pub fn commit_bytes(mut self, bytes: usize) -> Self {
        self.commit_bytes = bytes;
        self
    }

    /// The same collection, which ends early when the token is cancelled.
    pub(super) fn stopped_by(self, stop: CancellationToken) -> Self {
        Self { stop, ..self }
    }

    /// Collects the runs, and returns a report. If it fails, what was committed before the error remains in the archive, but is not reported;
    /// with [`batches`](Self::batches), the report is available.
    ///
    /// A run whose details cannot be fetched is counted in [`fetch_errors`](CollectReport::fetch_errors), and the next collection tries it
    /// again. If the server does not respond for five runs in a row, or responds with 502, 503 or 504, the collection ends with the error of
    /// the last one. Other errors of the server or of the archive end the collection, too.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for the options, or if the archive contains runs of another tenant or namespace.
    /// [`Storage`](ErrorKind::Storage), [`Corrupt`](ErrorKind::Corrupt) and [`Timeout`](ErrorKind::Timeout) if the archive cannot be read or
    /// written. Also the errors of [`RunQuery::page`](crate::builder::RunQuery::page).
    ///
    /// # Cancel safety
    /// This method is cancel safe: committed runs remain in the archive, and the next collection archives the others. Runs are committed at the
    /// latest about five minutes after they were fetched.
    pub async fn send(self) -> Result<CollectReport> {
        let mut batches = self.batches()?;
        while batches.next().await.transpose()?.is_some() {}
        Ok(batches.report())
    }

    /// Returns a stream that collects the runs while it is polled, with an item for each commit. Runs are committed when 10 000 of them or
    /// 64 MiB are fetched, about five minutes after the first of them was fetched, and at the end. If the list or a fetch fails, the runs that
    /// were fetched before are committed without an item of their own; [`report`](CollectedBatches::report) includes them.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for the options. Other errors are items, after which the stream ends; see [`send`](Self::send).
    pub fn batches(self) -> Result<CollectedBatches> {
        self.check()?;
        let client = self.client.with(self.request)?;
        let open = async move {
            let stop = self.stop.clone();
            let collector = stop.run_until_cancelled(Collector::start(self, client)).await;
            Ok(Box::new(collector.unwrap_or_else(|| Err(Error::closed("the collector")))?))
        };
        Ok(CollectedBatches(OperationStream::of(open)))
    }

    pub(super) fn check(&self) -> Result<()> {
        self.retention.check()?;
        let out_of_range = |field, expected: &str, got: usize| {
            Err(Error::invalid(field, format_args!("expected {expected}, got {got}")))
        };
        if !(1..=MAX_CONCURRENCY).contains(&self.concurrency) {
            return out_of_range("concurrency", "1 to 64", self.concurrency);
        }
        if self.requests_per_second == 0 {
            return out_of_range("requests per second", "at least 1", 0);
        }
        if self.interval > MAX_DURATION {
            return Err(Error::invalid("interval", format_args!("expected at most 10 years, got {:?}", self.interval)));
        }
        if let Some(period) = self.engine_retention
            && (period.is_zero() || period > MAX_DURATION)
        {
            let problem = format_args!("expected more than zero and at most 10 years, got {period:?}");
            return Err(Error::invalid("engine retention", problem));
        }
        if self.logs > RunDetails::MAX_LOGS {
            return out_of_range("number of log lines", "at most 1000", self.logs);
        }
        Ok(())
    }

    /// The latest creation time of runs that are due. `None` if no run is.
    fn last_due(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self.before {
            // A time window includes its end, and the runs before a time do not.
            Some(before) => before.checked_sub_signed(MICROSECOND).map(|before| before.min(now)),
            None => self.retention.last_due(now),
        }
    }

    /// The filter of the runs that can be due, without their time. `None` if no run can.
    async fn filter(&self, client: &Client, gate: &Gate) -> Result<Option<RunFilter>> {
        let ended = [RunStatus::Completed, RunStatus::Failed, RunStatus::TimedOut, RunStatus::Cancelled];
        let filter = ended.into_iter().fold(RunFilter::new(Window::all()), RunFilter::status);
        let Some(names) = self.retention.only_workflows() else { return Ok(Some(filter)) };
        let mut workflows = Vec::new();
        for name in names {
            match client.feed().workflows.id_through(name, Some(gate)).await {
                Ok(_) => workflows.push(name),
                // It has no runs yet, or none any longer.
                Err(error) if error.kind() == ErrorKind::WorkflowNotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok((!workflows.is_empty()).then(|| workflows.into_iter().fold(filter, RunFilter::workflow)))
    }

    /// Whether a run is old enough.
    fn is_due(&self, run: &RunSummary, now: DateTime<Utc>) -> bool {
        let last = self.retention.of(&run.workflow_name).last_due(now);
        last.is_some_and(|last| self.before.map_or(run.created_at <= last, |before| run.created_at < before))
    }
}

struct Collector {
    builder: CollectBuilder,
    client: Client,
    gate: Gate,
    source: Source,
    now: DateTime<Utc>,
    filter: RunFilter,
    /// The next day to list. `None` after the last one.
    next_day: Option<NaiveDate>,
    /// The latest creation time of runs that are due. `None` if no run is.
    until: Option<DateTime<Utc>>,
    /// Whether the first day was looked for.
    has_first_day: bool,
    /// The list of the current day, until its end, and the archived runs of that day.
    list: Option<(RunItems, ArchivedVersions)>,
    /// The runs to fetch, with their archived versions.
    queue: VecDeque<(RunSummary, Option<Archived>)>,
    rows: Vec<Row>,
    size: usize,
    /// When the first of `rows` was fetched.
    waiting_since: Option<Instant>,
    /// The runs of `queue` and `rows`.
    ids: HashSet<RunId>,
    /// The number of runs in a row for which the server did not respond.
    unreached: u32,
    /// `list`, `queue` and `rows` were compared with the archive after this many commits, or more.
    checked: Option<u64>,
    /// Which runs the engine drops soon. `None` if its retention is unknown.
    risk: Option<Risk>,
    /// The number of these runs that cannot be archived yet.
    left_at_risk: LeftAtRisk,
    report: CollectReport,
}

impl Collector {
    async fn start(builder: CollectBuilder, client: Client) -> Result<Self> {
        let now = client.clock().now();
        let gate = Gate::new(builder.concurrency, builder.requests_per_second);
        let source = builder.archive.check_source(&client).await?;
        let engine_retention = match builder.engine_retention {
            Some(period) => Some(period),
            None => engine_retention(&client, &gate).await,
        };
        // A time replaces the ages.
        let is_too_long = builder.before.is_none()
            && engine_retention.zip(builder.retention.longest()).is_some_and(|(engine, age)| age >= engine);
        if is_too_long {
            let archive = builder.archive.url();
            tracing::warn!(
                archive,
                ?engine_retention,
                "expected an age shorter than the engine's retention period; runs are dropped before they are archived"
            );
        }
        let risk = engine_retention.and_then(|retention| Risk::new(now, retention, builder.interval));
        // A time replaces the ages here, too: other collections have them.
        let left_at_risk = match risk.filter(|_| builder.before.is_none()) {
            Some(risk) => risk.count_left(&builder.archive, &client, &gate, &builder.retention).await?,
            None => LeftAtRisk::default(),
        };
        let report = CollectReport {
            at_risk: left_at_risk.total(),
            is_dry_run: builder.is_dry_run,
            engine_retention,
            is_retention_too_long: is_too_long,
            ..CollectReport::default()
        };
        let until = builder.last_due(now);
        Ok(Self {
            gate,
            builder,
            client,
            source,
            now,
            filter: RunFilter::new(Window::all()),
            next_day: None,
            until,
            has_first_day: false,
            list: None,
            queue: VecDeque::new(),
            rows: Vec::new(),
            size: 0,
            waiting_since: None,
            ids: HashSet::new(),
            unreached: 0,
            checked: None,
            risk,
            left_at_risk,
            report,
        })
    }

    /// Logs and records which runs are at risk, also if the collection has failed.
    fn report_risk(&self, has_failed: bool) {
        let (archive, report, left) = (self.builder.archive.url(), &self.report, self.left_at_risk);
        if !report.is_dry_run {
            // Also if nothing was committed: the gauge is that of this collection.
            record(&Measurement::RunsArchived { archive, archived: 0, at_risk: report.at_risk });
        }
        let late = report.at_risk.saturating_sub(left.total());
        if late > 0 && has_failed {
            tracing::warn!(
                archive,
                at_risk = late,
                "a collection failed, and the engine soon drops runs that it has found"
            );
        } else if late > 0 {
            tracing::warn!(
                archive,
                at_risk = late,
                "runs were archived only shortly before the engine would have dropped them"
            );
        }
        if left.not_due > 0 {
            let at_risk = left.not_due;
            tracing::warn!(archive, at_risk, "the engine soon drops runs that are not old enough to be archived");
        }
        if left.active > 0 {
            tracing::warn!(archive, at_risk = left.active, "the engine soon drops runs that have not ended");
        }
    }

    /// Finds the first day of which the engine has runs that can be due.
    async fn find_first_day(&mut self) -> Result<()> {
        let (client, gate) = (&self.client, &self.gate);
        if let Some(until) = self.until
            && let Some(filter) = self.builder.filter(client, gate).await?
        {
            self.filter = filter;
            let last = until.date_naive();
            self.next_day = first_day_with_runs(client, NaiveDate::default(), last, Some(gate)).await?;
        }
        self.has_first_day = true;
        Ok(())
    }

    /// Reads the next runs of the list, and queues those that are not archived. Returns `false` at the end.
    async fn read_list(&mut self) -> Result<bool> {
        if !self.has_first_day {
            self.find_first_day().await?;
        }
        if self.list.is_none() {
            let is_due = |day: &NaiveDate| self.until.is_some_and(|until| day_start(*day) <= until);
            let Some(day) = self.next_day.filter(is_due) else { return Ok(false) };
            self.list = Some(self.open_day(day).await?);
            self.next_day = day.succ_opt();
        }
        let Some((list, archived)) = &mut self.list else { return Ok(false) };
        let mut listed: Vec<RunSummary> = list.by_ref().take(LIST_BATCH).try_collect().await?;
        let is_end = listed.len() < LIST_BATCH;
        listed.retain(|run| self.builder.is_due(run, self.now) && !self.ids.contains(&run.id));
        let mut archived = archived.of_listed(&listed).await?;
        if is_end {
            self.list = None;
        }
        for run in listed {
            let archived = archived.remove(&run.id);
            let is_selected = || self.builder.retention.of(&run.workflow_name).selects(&run.status);
            match &archived {
                Some(archived) if archived.version == Version::of_listed(&run) => self.report.unchanged += 1,
                // A run that is archived is updated whatever its new status.
                None if !is_selected() => {}
                _ => {
                    self.report.at_risk += u64::from(self.risk.is_some_and(|risk| risk.includes(run.created_at)));
                    if self.builder.is_dry_run {
                        self.report.archived += 1;
                    } else {
                        self.ids.insert(run.id);
                        self.queue.push_back((run, archived));
                    }
                }
            }
        }
        Ok(true)
    }

    async fn open_day(&mut self, day: NaiveDate) -> Result<(RunItems, ArchivedVersions)> {
        let end = day_end(day);
        let window = Window::between(day_start(day), self.until.map_or(end, |until| end.min(until)));
        let list = self.client.runs(RunFilter { window, ..self.filter.clone() }).through(self.gate.clone()).items();
        let archive = &self.builder.archive;
        let state = archive.log().state().await?;
        self.checked.get_or_insert(state.commits);
        let files = state.files().filter(|file| file.partition.day == day).cloned().collect();
        Ok((list, ArchivedVersions::new(archive, files, self.now)?))
    }

    /// Fetches the next runs of the queue.
    async fn fetch(&mut self) -> Result<()> {
        let runs: Vec<_> = self.queue.drain(..self.queue.len().min(FETCH_BATCH)).collect();
        let (builder, client, gate) = (&self.builder, &self.client, &self.gate);
        let mut fetched = stream::iter(runs)
            .map(|(run, archived)| async move {
                let has_payloads = builder.retention.of(&run.workflow_name).has_payloads();
                let logs = if has_payloads { builder.logs } else { 0 };
                let details = DetailsBuilder::new(client.clone(), run.id, None).logs(logs).through(gate.clone()).await;
                // Another process may fetch the run at the same time: the newer state must have the later time.
                let fetched_at = client.clock().now();
                (run, archived, has_payloads, details.map(|details| (details, fetched_at)))
            })
            .buffered(self.builder.concurrency);
        while let Some((run, archived, has_payloads, details)) = fetched.next().await {
            let is_other_attempt = |details: &RunDetails| details.is_single_task() && details.attempt() != run.attempt;
            let is_unreached = details.as_ref().is_err_and(is_unreached);
            self.unreached = if is_unreached { self.unreached + 1 } else { 0 };
            match details {
                // It was replayed meanwhile. The next collection finds its end.
                Ok((details, _)) if details.outcome.is_none() || is_other_attempt(&details) => self.report.active += 1,
                Ok((details, fetched_at)) => {
                    // The archived row may have been written by a process whose clock is ahead.
                    let after = archived.as_ref().map(|archived| archived.archived_at + 1);
                    let archived_at = fetched_at.timestamp_micros().max(after.unwrap_or(i64::MIN));
                    let row = convert::row(&run, &details, has_payloads, archived_at)?;
                    if archived.is_some_and(|archived| archived.version == Version::of(&row)) {
                        self.report.unchanged += 1;
                        continue;
                    }
                    self.size += row.size();
                    self.waiting_since.get_or_insert_with(Instant::now);
                    self.rows.push(row);
                }
                Err(error) if error.kind() == ErrorKind::RunNotFound => {
                    tracing::warn!(archive = builder.archive.url(), run_id = %run.id, "the engine dropped a run before it was archived");
                    self.report.dropped += 1;
                }
                Err(error) if is_unreached || is_of_one_run(&error) => {
                    tracing::warn!(archive = builder.archive.url(), run_id = %run.id, %error, "failed to fetch a run for the archive");
                    self.report.fetch_errors += 1;
                    if self.unreached == MAX_UNREACHED {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Collects until there is enough to commit, until the end, or until the collection is stopped.
    async fn collect(&mut self) -> Result<()> {
        let stop = self.builder.stop.clone();
        while !self.is_full() {
            let next = async {
                if self.queue.is_empty() { self.read_list().await } else { self.fetch().await.map(|()| true) }
            };
            // What has been fetched is in `rows` also if the rest is dropped.
            if !stop.run_until_cancelled(next).await.unwrap_or(Ok(false))? {
                break;
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= COMMIT_RUNS
            || self.size >= self.builder.commit_bytes
            || self.waiting_since.is_some_and(|since| since.elapsed() >= COMMIT_INTERVAL)
    }

    async fn commit(&mut self) -> Result<Option<CollectedBatch>> {
        let rows = std::mem::take(&mut self.rows);
        self.ids = self.queue.iter().map(|(run, _)| run.id).collect();
        (self.size, self.waiting_since) = (0, None);
        if rows.is_empty() {
            return Ok(None);
        }
        let times = || rows.iter().filter_map(|row| convert::time(row, Column::CreatedAt));
        let (first, last) = (times().min().unwrap_or(self.now), times().max().unwrap_or(self.now));
        let archive = &self.builder.archive;
        // The rest of the day is compared with the same state.
        let is_end = self.queue.is_empty() && self.list.is_none();
        let checked = if is_end { self.checked.take() } else { self.checked };
        let written =
            writing::commit(archive, &self.source, rows, checked.unwrap_or(0), self.client.clock().now()).await?;
        self.report.archived += written.runs;
        self.report.files += written.files;
        self.report.bytes += written.bytes;
        record(&Measurement::RunsArchived {
            archive: archive.url(),
            archived: written.runs,
            at_risk: self.report.at_risk,
        });
        let writing::Written { runs, files, bytes } = written;
        Ok(Some(CollectedBatch { runs, files, bytes, min_created_at: first, max_created_at: last }))
    }
}

impl SteppedOperation for Collector {
    type Item = CollectedBatch;
    type Report = CollectReport;

    /// Collects until a batch is committed.
    async fn step(&mut self) -> Result<Option<CollectedBatch>> {
        let collected = self.collect().await;
        // Also after an error: what has been fetched is not fetched again.
        let committed = self.commit().await;
        let batch = collected.and(committed);
        match batch {
            Ok(Some(_)) => {}
            Ok(None) => {
                self.report_risk(false);
                tracing::info!(archive = self.builder.archive.url(), report = %self.report, "the collection has ended");
            }
            Err(_) => self.report_risk(true),
        }
        batch
    }

    fn report(&self) -> &CollectReport {
        &self.report
    }
}

/// Whether an error concerns one run, and not the server.
fn is_of_one_run(error: &Error) -> bool {
    use ErrorKind::{Decode, Encode, NotFound, Rejected, Server, TooLarge, Unimplemented};
    matches!(error.kind(), Decode | Encode | NotFound | Rejected | Server | TooLarge | Unimplemented)
}

/// Whether the server did not respond: because it is down, or because one run is too much for it.
fn is_unreached(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable)
}

/// A stream of the commits of a collection; see [`CollectBuilder::batches`]. It ends after an error. Dropping it stops the collection; what
/// was committed remains.
///
/// ```no_run
/// # async fn example(collection: hatchet::archive::CollectBuilder) -> hatchet::Result<()> {
/// let mut batches = collection.batches()?;
/// while let Some(batch) = batches.next().await.transpose()? {
///     println!("{} runs since {}", batch.runs, batch.min_created_at);
/// }
/// println!("{}", batches.report());
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is archived before the stream is polled"]
pub struct CollectedBatches(OperationStream<CollectedBatch, CollectReport>);

impl CollectedBatches {
    /// Returns the next batch when it is committed, or `None` at the end.
    ///
    /// # Cancel safety
    /// This method is cancel safe: the collection continues with the next call.
    pub async fn next(&mut self) -> Option<Result<CollectedBatch>> {
        self.0.next().await
    }

    /// Returns the counts up to the last item that the stream has returned, including an error.
    pub fn report(&self) -> CollectReport {
        self.0.report()
    }
}

impl Stream for CollectedBatches {
    type Item = Result<CollectedBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for CollectedBatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectedBatches").field("report", &self.report()).finish_non_exhaustive()
    }
}
