//! Copies runs that are due from the engine to the archive.
//!
//! Each listed run is compared with its archived version. So a collection can be stopped at any time and repeated: committed runs are kept,
//! and the next collection continues. A run that was replayed after it was archived is archived again. The oldest days come first, because
//! the engine drops them first.

use std::collections::{HashSet, VecDeque};
use std::future::IntoFuture as _;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use futures_util::stream::{self, FuturesUnordered};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::compare::{Archived, ArchivedVersions};
use super::convert::{self, Version, workflow_of};
use super::days::{ENDED, LeftAtRisk, MICROSECOND, Risk, day_end, day_start, engine_retention, first_day_with_runs};
use super::handle::Archive;
use super::manifest::Source;
use super::progress::SteppedOperation;
use super::report::{CollectReport, CollectedBatch};
use super::retention::Retention;
use super::schema::{Column, Row};
use super::text::Length;
use super::writing;
use crate::client::Client;
use crate::config::RequestOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::feed::Gate;
use crate::list::RunItems;
use crate::model::{RunDetails, RunFilter, RunId, RunSummary, Window};
use crate::observe::DetailsBuilder;
use crate::telemetry::{Measurement, record};

/// The number of runs that are compared with the archive at once. It is the size of a page of the list.
const LIST_BATCH: usize = 200;
/// The number of runs that are committed at once.
const COMMIT_RUNS: usize = 10_000;
/// How long a run that was fetched waits for others until they are committed together, besides those that are being fetched then. It bounds
/// what a crash loses.
const COMMIT_INTERVAL: Duration = Duration::from_secs(300);
/// The number of runs in a row that cannot be fetched after which the collection checks whether others can be. If so, the problem is these
/// runs, and they must not stop every collection at the same place.
const MAX_UNREACHED: usize = 5;
/// The number of other runs of which the server must return one.
const MAX_PROBED_RUNS: usize = 3;
/// The number of new runs among which others are found.
const LISTED_PROBE_CANDIDATES: usize = 100;

/// What is collected, and how.
#[derive(Debug, Clone)]
pub(super) struct CollectOptions {
    pub(super) archive: Archive,
    pub(super) client: Client,
    pub(super) retention: Retention,
    pub(super) before: Option<DateTime<Utc>>,
    pub(super) is_dry_run: bool,
    pub(super) logs: usize,
    pub(super) concurrency: usize,
    pub(super) requests_per_second: u32,
    /// The time until the next collection.
    pub(super) interval: Duration,
    /// The engine's retention period, if the caller knows it.
    pub(super) engine_retention: Option<Duration>,
    /// The size of the runs after which they are committed.
    pub(super) commit_bytes: usize,
    pub(super) request: RequestOptions,
    /// When it is cancelled, the collection commits what it has fetched, and ends.
    pub(super) stop: CancellationToken,
}

impl CollectOptions {
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
        let filter = ENDED.into_iter().fold(RunFilter::new(Window::all()), RunFilter::status);
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
        let last = self.retention.of(workflow_of(run)).last_due(now);
        last.is_some_and(|last| self.before.map_or(run.created_at <= last, |before| run.created_at < before))
    }
}

/// A collection.
pub(super) struct Collection {
    options: CollectOptions,
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
    pending: Pending,
    /// The runs of `queue` and `pending`.
    ids: HashSet<RunId>,
    /// The runs in a row that the server could not return.
    unreached: Vec<(RunId, String)>,
    /// `list`, `queue` and `pending` were compared with the archive after this many commits, or more.
    checked: Option<u64>,
    /// Which runs the engine drops soon. `None` if its retention is unknown.
    risk: Option<Risk>,
    /// The number of these runs that cannot be archived yet.
    left_at_risk: LeftAtRisk,
    /// The number of runs at risk that were fetched, or given up.
    late: u64,
    /// The number of runs that were fetched, or given up.
    fetched: Arc<AtomicU64>,
    report: CollectReport,
}

/// Runs that were fetched, until they are committed.
#[derive(Default)]
struct Pending {
    rows: Vec<Row>,
    size: usize,
    /// When the first of them was fetched.
    since: Option<Instant>,
}

impl Pending {
    fn push(&mut self, row: Row) {
        self.size += row.size();
        self.since.get_or_insert_with(Instant::now);
        self.rows.push(row);
    }

    /// Whether they are committed now.
    fn is_full(&self, commit_bytes: usize) -> bool {
        self.rows.len() >= COMMIT_RUNS
            || self.size >= commit_bytes
            || self.since.is_some_and(|since| since.elapsed() >= COMMIT_INTERVAL)
    }
}

/// How a collection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    Stopped,
    Failed,
}

impl Collection {
    pub(super) async fn start(options: CollectOptions, client: Client, fetched: Arc<AtomicU64>) -> Result<Self> {
        let now = client.clock().now();
        let gate = Gate::new(options.concurrency, options.requests_per_second);
        let client = client.with_retry_rate(gate.rate());
        let source = options.archive.check_source(&client).await?;
        let engine_retention = match options.engine_retention {
            Some(period) => Some(period),
            None => engine_retention(&client, &gate).await,
        };
        // A time replaces the ages.
        let is_too_long = options.before.is_none()
            && engine_retention.zip(options.retention.longest()).is_some_and(|(engine, age)| age >= engine);
        if is_too_long {
            let archive = options.archive.url();
            tracing::warn!(
                archive,
                engine_retention = engine_retention.map(|period| Length(period).to_string()),
                "the age is not shorter than the retention period of the engine: runs are dropped before they are archived"
            );
        }
        let risk = engine_retention.and_then(|retention| Risk::new(now, retention, options.interval));
        // A time replaces the ages here, too: other collections have them.
        let left_at_risk = match risk.filter(|_| options.before.is_none()) {
            Some(risk) => risk.count_left(&options.archive, &client, &gate, &options.retention).await,
            None => Ok(LeftAtRisk::default()),
        };
        let left_at_risk = left_at_risk.unwrap_or_else(|error| {
            let archive = options.archive.url();
            tracing::warn!(%error, archive, "failed to count the runs at risk that cannot be archived yet; they are not in the report");
            LeftAtRisk::default()
        });
        let report = CollectReport {
            at_risk: left_at_risk.total(),
            is_dry_run: options.is_dry_run,
            engine_retention,
            is_age_too_long: is_too_long,
            ..CollectReport::default()
        };
        let until = options.last_due(now);
        Ok(Self {
            gate,
            options,
            client,
            source,
            now,
            filter: RunFilter::new(Window::all()),
            next_day: None,
            until,
            has_first_day: false,
            list: None,
            queue: VecDeque::new(),
            pending: Pending::default(),
            ids: HashSet::new(),
            unreached: Vec::new(),
            checked: None,
            risk,
            left_at_risk,
            late: 0,
            fetched,
            report,
        })
    }

    /// Logs and records which runs are at risk, also if the collection has failed.
    fn report_risk(&self, end: End) {
        let (archive, report, left) = (self.options.archive.url(), &self.report, self.left_at_risk);
        if !report.is_dry_run {
            // Also if nothing was committed: the gauge is that of this collection.
            record(&Measurement::RunsArchived { archive, archived: 0, at_risk: report.at_risk });
        }
        let found = report.at_risk.saturating_sub(left.total());
        if end == End::Failed && found > 0 {
            tracing::warn!(
                archive,
                at_risk = found,
                "a collection failed, and the engine soon drops runs that it has found"
            );
        } else if end != End::Failed && self.late > 0 {
            tracing::warn!(
                archive,
                at_risk = self.late,
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
            && let Some(filter) = self.options.filter(client, gate).await?
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
        listed.retain(|run| self.options.is_due(run, self.now) && !self.ids.contains(&run.id));
        let mut archived = archived.of_listed(&listed).await?;
        if is_end {
            self.list = None;
        }
        for run in listed {
            let archived = archived.remove(&run.id);
            let is_selected = || self.options.retention.of(workflow_of(&run)).selects(&run.status);
            match &archived {
                Some(archived) if archived.has(&Version::of_listed(&run)) => self.report.unchanged += 1,
                // A run that is archived is updated whatever its new status.
                None if !is_selected() => {}
                _ => {
                    self.report.at_risk += u64::from(self.risk.is_some_and(|risk| risk.includes(run.created_at)));
                    if self.options.is_dry_run {
                        self.report.archived += 1;
                        let workflow = workflow_of(&run).to_owned();
                        *self.report.archived_by_workflow.entry(workflow).or_default() += 1;
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
        let window = Window::since(day_start(day)).until(self.until.map_or(end, |until| end.min(until)));
        let list = self.client.runs(RunFilter { window, ..self.filter.clone() }).through(self.gate.clone()).items();
        let archive = &self.options.archive;
        let state = archive.log().state().await?;
        self.checked.get_or_insert(state.commits);
        let files = state.files().filter(|file| file.partition.day == day).cloned().collect();
        Ok((list, ArchivedVersions::new(archive, files, self.now)?))
    }

    /// Fetches the runs of the queue, until there is enough to commit or the server cannot return several in a row.
    async fn fetch(&mut self) -> Result<()> {
        let (options, client, gate, queue) = (&self.options, &self.client, &self.gate, &mut self.queue);
        // The fetches that have begun are finished: their requests were sent.
        let is_enough = AtomicBool::new(false);
        let mut fetched =
            stream::iter(iter::from_fn(|| if is_enough.load(Relaxed) { None } else { queue.pop_front() }))
                .map(|(run, archived)| async move {
                    let has_payloads = options.retention.of(workflow_of(&run)).has_payloads();
                    let logs = if has_payloads { options.logs } else { 0 };
                    let details =
                        DetailsBuilder::new(client.clone(), run.id, None).logs(logs).through(gate.clone()).await;
                    // Another process may fetch the run at the same time: the newer state must have the later time.
                    let fetched_at = client.clock().now();
                    (run, archived, has_payloads, details.map(|details| (details, fetched_at)))
                })
                .buffered(self.options.concurrency);
        while let Some((run, archived, has_payloads, details)) = fetched.next().await {
            let is_other_attempt = |details: &RunDetails| details.is_single_task() && details.attempt() != run.attempt;
            let is_unreached = details.as_ref().is_err_and(is_unreached);
            if is_unreached {
                self.unreached.push((run.id, workflow_of(&run).to_owned()));
            } else {
                self.unreached.clear();
            }
            self.fetched.fetch_add(1, Relaxed);
            self.late += u64::from(self.risk.is_some_and(|risk| risk.includes(run.created_at)));
            match details {
                // It was replayed meanwhile. The next collection finds its end.
                Ok((details, _)) if details.outcome.is_none() || is_other_attempt(&details) => self.report.active += 1,
                Ok((details, fetched_at)) => {
                    // The archived row may have been written by a process whose clock is ahead.
                    let after = archived.as_ref().map(|archived| archived.archived_at + 1);
                    let archived_at = fetched_at.timestamp_micros().max(after.unwrap_or(i64::MIN));
                    let row = convert::row(&run, &details, has_payloads, archived_at)?;
                    if archived.is_some_and(|archived| archived.has(&Version::of(&row))) {
                        self.report.unchanged += 1;
                    } else {
                        self.pending.push(row);
                    }
                }
                Err(error) if error.kind() == ErrorKind::RunNotFound => {
                    tracing::warn!(archive = options.archive.url(), run_id = %run.id, "the engine dropped a run before it was archived");
                    self.report.dropped += 1;
                }
                Err(error) if is_unreached || is_of_one_run(&error) => {
                    tracing::warn!(archive = options.archive.url(), run_id = %run.id, %error, "failed to fetch a run for the archive");
                    self.report.fetch_errors += 1;
                }
                Err(error) => return Err(error),
            }
            if self.unreached.len() >= MAX_UNREACHED || self.pending.is_full(options.commit_bytes) {
                is_enough.store(true, Relaxed);
            }
        }
        drop(fetched);
        if self.unreached.len() >= MAX_UNREACHED {
            self.check_server().await?;
            self.unreached.clear();
        }
        Ok(())
    }

    /// Checks whether the server lists runs, and returns one that is not among the unreached.
    async fn check_server(&self) -> Result<()> {
        let (client, gate, unreached) = (&self.client, &self.gate, &self.unreached);
        let newest = client.runs(Window::all()).through(gate.clone()).newest(LISTED_PROBE_CANDIDATES).await?;
        let others = probes(unreached, self.queue.iter().map(|(run, _)| run).chain(&newest));
        let mut fetches: FuturesUnordered<_> = others
            .into_iter()
            .map(|id| DetailsBuilder::new(client.clone(), id, None).through(gate.clone()).into_future())
            .collect();
        let (mut failures, mut last) = (0, None);
        while let Some(details) = fetches.next().await {
            match details {
                Err(error) if is_unreached(&error) => last = Some(error),
                _ => return Ok(()),
            }
            failures += 1;
        }
        let Some(error) = last else { return Ok(()) };
        let text = format!("{} runs in a row and {failures} other runs could not be fetched", unreached.len());
        Err(error.within(&text).transient())
    }

    /// Collects until there is enough to commit, until the end, or until the collection is stopped.
    async fn collect(&mut self) -> Result<()> {
        let stop = self.options.stop.clone();
        while !self.pending.is_full(self.options.commit_bytes) {
            let next = async {
                if self.queue.is_empty() { self.read_list().await } else { self.fetch().await.map(|()| true) }
            };
            // What has been fetched is in `pending` also if the rest is dropped.
            if !stop.run_until_cancelled(next).await.unwrap_or(Ok(false))? {
                break;
            }
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<Option<CollectedBatch>> {
        let rows = std::mem::take(&mut self.pending).rows;
        self.ids = self.queue.iter().map(|(run, _)| run.id).collect();
        if rows.is_empty() {
            return Ok(None);
        }
        let times = || rows.iter().filter_map(|row| convert::time(row, Column::CreatedAt));
        let (first, last) = (times().min().unwrap_or(self.now), times().max().unwrap_or(self.now));
        let archive = &self.options.archive;
        // The rest of the day is compared with the same state.
        let is_end = self.queue.is_empty() && self.list.is_none();
        let fetched = rows.len() as u64;
        let checked = if is_end { self.checked.take() } else { self.checked };
        let written =
            writing::commit(archive, &self.source, rows, checked.unwrap_or(0), self.client.clock().now()).await?;
        self.report.archived += written.runs;
        // Another process has archived the others since they were compared.
        self.report.unchanged += fetched.saturating_sub(written.runs);
        self.report.files += written.files;
        self.report.bytes += written.bytes;
        record(&Measurement::RunsArchived {
            archive: archive.url(),
            archived: written.runs,
            at_risk: self.report.at_risk,
        });
        let writing::Written { runs, runs_by_workflow, files, bytes } = written;
        for (workflow, runs) in runs_by_workflow {
            *self.report.archived_by_workflow.entry(workflow).or_default() += runs;
        }
        Ok(Some(CollectedBatch { runs, files, bytes, min_created_at: first, max_created_at: last }))
    }
}

impl SteppedOperation for Collection {
    type Item = CollectedBatch;
    type Report = CollectReport;

    /// Collects until a batch is committed.
    async fn step(&mut self) -> Result<Option<CollectedBatch>> {
        let collected = self.collect().await;
        // Also after an error: what has been fetched is not fetched again.
        let committed = self.commit().await;
        let archive = self.options.archive.url();
        if let (Err(_), Err(error)) = (&collected, &committed) {
            // The first error is returned.
            tracing::warn!(%error, archive, "failed to commit the runs that were fetched before a collection failed");
        }
        let batch = collected.and(committed);
        match batch {
            Ok(Some(_)) => {}
            Ok(None) if self.options.stop.is_cancelled() => {
                self.report_risk(End::Stopped);
                tracing::info!(archive, report = %self.report, "the collection was stopped");
            }
            Ok(None) => {
                self.report_risk(End::Complete);
                tracing::info!(archive, report = %self.report, "the collection has ended");
            }
            Err(_) => self.report_risk(End::Failed),
        }
        batch
    }

    fn report(&self) -> &CollectReport {
        &self.report
    }
}

/// The runs that show whether the server returns any: of other workflows than the unreached ones if possible, because the runs of one
/// workflow can all be too much for the server, and each of another workflow.
pub(super) fn probes<'a>(unreached: &[(RunId, String)], runs: impl Iterator<Item = &'a RunSummary>) -> Vec<RunId> {
    let mut workflows: HashSet<&str> = unreached.iter().map(|(_, workflow)| workflow.as_str()).collect();
    let (mut preferred, mut others) = (Vec::new(), Vec::new());
    for run in runs.filter(|run| unreached.iter().all(|(id, _)| *id != run.id)) {
        let kind = if workflows.insert(workflow_of(run)) { &mut preferred } else { &mut others };
        if kind.len() < MAX_PROBED_RUNS {
            kind.push(run.id);
        }
    }
    preferred.extend(others);
    preferred.truncate(MAX_PROBED_RUNS);
    preferred
}

/// Whether an error concerns one run, and not the server.
fn is_of_one_run(error: &Error) -> bool {
    use ErrorKind::{Decode, Encode, NotFound, Rejected, TooLarge, Unimplemented};
    matches!(error.kind(), Decode | Encode | NotFound | Rejected | TooLarge | Unimplemented)
}

/// Whether the server did not respond, or failed: because it is down, or because one run is too much for it.
fn is_unreached(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Server | ErrorKind::Timeout | ErrorKind::Unavailable)
}
