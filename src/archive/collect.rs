//! Moves runs that are due from the engine to the archive.
//!
//! Every run of the list is compared with what is archived, so a collection can be repeated, and can stop at any time: what has been committed
//! is kept, and the next one continues. A run that was replayed after it was archived is archived again.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_core::Stream;
use futures_util::stream::{self, unfold};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::convert::{self, KEYS, Version};
use super::filter::Criteria;
use super::handle::Archive;
use super::manifest::Source;
use super::reading::Reading;
use super::report::{CollectReport, CollectedBatch};
use super::retention::Retention;
use super::schema::{Column, Row};
use super::writing::{self, MAX_FILE_BYTES, known};
use crate::boxed::BoxStream;
use crate::client::Client;
use crate::config::{RequestOptions, RetryPolicy};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::Gate;
use crate::list::RunItems;
use crate::model::{RunDetails, RunFilter, RunId, RunStatus, RunSummary, Window};
use crate::observe::DetailsBuilder;
use crate::sync::lock;
use crate::telemetry::{Measurement, record};

/// The number of runs that are compared with the archive at once. It is the size of a page of the list.
const LIST_BATCH: usize = 200;
/// The number of runs that are committed at once.
const COMMIT_RUNS: usize = 10_000;
/// The default of [`CollectBuilder::requests_per_second`].
const REQUESTS_PER_SECOND: u32 = 200;
/// The default of [`CollectBuilder::concurrency`].
const CONCURRENCY: usize = 8;
const MAX_CONCURRENCY: usize = 64;
/// A run that the engine drops within this time was archived too late for comfort.
pub(super) const RISK_MARGIN: Duration = Duration::from_secs(24 * 3600);

impl Archive {
    /// Prepares a collection: all runs of the client's namespace that have ended and that are older than the [`Retention`] says are copied
    /// to the archive. The engine keeps its copy until its own retention.
    ///
    /// Several processes can collect at the same time, and a collection can be repeated: each run is archived once.
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
            margin: RISK_MARGIN,
            request: RequestOptions::default(),
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
#[must_use = "nothing is archived before `send` or `batches`"]
pub struct CollectBuilder {
    pub(super) archive: Archive,
    pub(super) client: Client,
    pub(super) retention: Retention,
    before: Option<DateTime<Utc>>,
    is_dry_run: bool,
    logs: usize,
    concurrency: usize,
    requests_per_second: u32,
    /// How long before the engine's retention runs should be archived.
    pub(super) margin: Duration,
    request: RequestOptions,
}

impl CollectBuilder {
    /// Archives all runs that were created before this time, whatever their age, except for those of workflows that are
    /// [kept for ever](super::Rule::keep_forever).
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

    /// Sets how many requests per second are sent to the server, at least 1. The default is 200. A run takes three to five requests, and
    /// so does a list of 200 runs take one. Requests for log lines, events and reasons of cancels are not counted.
    pub fn requests_per_second(mut self, requests: u32) -> Self {
        self.requests_per_second = requests;
        self
    }

    /// Sets the timeout of each call that this request makes, including its retries, from 1 ms to 24 hours. The default is the configured
    /// [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of the calls that this request makes. The default is the configured
    /// [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.request.retry = Some(policy);
        self
    }

    /// Collects the runs, and returns how many were archived.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for the options, or if the archive has runs of another tenant or namespace.
    /// [`Storage`](ErrorKind::Storage) and [`Corrupt`](ErrorKind::Corrupt) if the archive cannot be read or written, and the errors of
    /// [`RunQuery::page`](crate::builder::RunQuery::page). What was committed before the error remains in the archive.
    ///
    /// # Cancel safety
    /// This method is cancel safe: a collection that is stopped can be repeated. Nothing is archived twice, and nothing is lost.
    pub async fn send(self) -> Result<CollectReport> {
        let mut batches = self.batches()?;
        while batches.next().await.transpose()?.is_some() {}
        Ok(batches.report())
    }

    /// Returns a stream that collects the runs while it is polled, with an item for each commit.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for the options. Other errors are in the stream, and end it.
    pub fn batches(self) -> Result<CollectedBatches> {
        self.check()?;
        let client = self.client.with(self.request)?;
        let report = Arc::new(Mutex::new(CollectReport::default()));
        let shared = Arc::clone(&report);
        let batches = unfold(Step::New(Box::new((self, client))), move |step| {
            let report = Arc::clone(&shared);
            async move {
                let mut collector = match step {
                    Step::Ended => return None,
                    Step::Collecting(collector) => collector,
                    Step::New(new) => match Collector::start(new.0, new.1).await {
                        Ok(collector) => Box::new(collector),
                        Err(error) => return Some((Err(error), Step::Ended)),
                    },
                };
                let batch = collector.next().await;
                *lock(&report) = collector.report.clone();
                match batch {
                    Ok(batch) => Some((Ok(batch?), Step::Collecting(collector))),
                    Err(error) => Some((Err(error), Step::Ended)),
                }
            }
        });
        Ok(CollectedBatches { batches: BoxStream::new(batches), report })
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
        if self.logs > RunDetails::MAX_LOGS {
            return out_of_range("number of log lines", "at most 1000", self.logs);
        }
        Ok(())
    }

    /// The filter of all runs that can be due. `None` if no run can.
    fn filter(&self, now: DateTime<Utc>) -> Option<RunFilter> {
        // A time window includes its end, and runs before a time do not.
        let before = self.before.map(|before| before - TimeDelta::microseconds(1));
        let until = before.or_else(|| self.retention.last_due(now))?;
        let ended = [RunStatus::Completed, RunStatus::Failed, RunStatus::TimedOut, RunStatus::Cancelled];
        let filter =
            ended.into_iter().fold(RunFilter::new(Window::between(DateTime::UNIX_EPOCH, until)), RunFilter::status);
        match self.retention.only_workflows() {
            None => Some(filter),
            Some(names) => {
                let mut names = names.peekable();
                names.peek()?;
                Some(names.fold(filter, RunFilter::workflow))
            }
        }
    }

    /// Whether a run of the list is due.
    fn is_due(&self, run: &RunSummary, now: DateTime<Utc>) -> bool {
        let rule = self.retention.of(&run.workflow_name);
        let due = rule.last_due(now).is_some_and(|last| self.before.is_some() || run.created_at <= last);
        due && self.before.is_none_or(|before| run.created_at < before) && rule.selects(&run.status)
    }
}

/// How far a collection is.
enum Step {
    New(Box<(CollectBuilder, Client)>),
    Collecting(Box<Collector>),
    Ended,
}

struct Collector {
    builder: CollectBuilder,
    client: Client,
    gate: Gate,
    source: Source,
    now: DateTime<Utc>,
    /// The list, until its end.
    list: Option<RunItems>,
    rows: Vec<Row>,
    size: usize,
    /// The runs of `rows`.
    ids: HashSet<RunId>,
    /// The rows were compared with the archive after this many commits, or more.
    checked: Option<u64>,
    report: CollectReport,
}

impl Collector {
    async fn start(builder: CollectBuilder, client: Client) -> Result<Self> {
        let now = client.clock().now();
        let source = Source { tenant_id: client.tenant_id()?, namespace: client.namespace().map(str::to_owned) };
        let engine_retention = engine_retention(&client).await;
        let is_too_long = engine_retention.zip(builder.retention.longest()).is_some_and(|(engine, age)| age >= engine);
        if is_too_long && builder.before.is_none() {
            tracing::warn!(
                ?engine_retention,
                "the engine drops runs before they are archived: expected a shorter retention"
            );
        }
        let report = CollectReport {
            is_dry_run: builder.is_dry_run,
            engine_retention,
            is_retention_too_long: is_too_long,
            ..CollectReport::default()
        };
        let list = builder.filter(now).map(|filter| client.runs(filter).items());
        let gate = Gate::new(builder.concurrency, builder.requests_per_second);
        let (rows, ids) = (Vec::new(), HashSet::new());
        Ok(Self { builder, client, gate, source, now, list, rows, size: 0, ids, checked: None, report })
    }

    /// Collects until a batch is committed. `None` at the end.
    async fn next(&mut self) -> Result<Option<CollectedBatch>> {
        while self.list.is_some() && self.rows.len() < COMMIT_RUNS && self.size < MAX_FILE_BYTES {
            if let Err(error) = self.read_list().await {
                // What has been fetched is not fetched again.
                self.list = None;
                self.commit().await?;
                return Err(error);
            }
        }
        let batch = self.commit().await?;
        if batch.is_none() {
            record(&Measurement::RunsArchived { archived: self.report.archived, at_risk: self.report.at_risk });
            tracing::info!(archive = self.builder.archive.url(), report = %self.report, "a collection has ended");
        }
        Ok(batch)
    }

    /// Reads the next runs of the list, and fetches those that are not archived.
    async fn read_list(&mut self) -> Result<()> {
        let Some(list) = &mut self.list else { return Ok(()) };
        let permit = self.gate.pass(1).await;
        let mut listed: Vec<RunSummary> = list.by_ref().take(LIST_BATCH).try_collect().await?;
        drop(permit);
        if listed.len() < LIST_BATCH {
            self.list = None;
        }
        listed.retain(|run| self.builder.is_due(run, self.now) && !self.ids.contains(&run.id));
        let known = self.known(&listed).await?;
        let count = listed.len();
        listed.retain(|run| known.get(&run.id.to_string()).is_none_or(|known| *known < Version::of_listed(run)));
        self.report.unchanged += (count - listed.len()) as u64;
        self.report.at_risk += listed.iter().filter(|run| self.is_at_risk(run)).count() as u64;
        if self.builder.is_dry_run {
            self.report.archived += listed.len() as u64;
            return Ok(());
        }
        self.fetch(listed).await
    }

    /// Whether the engine drops the run soon. It drops whole days in UTC.
    fn is_at_risk(&self, run: &RunSummary) -> bool {
        let Some(retention) = self.report.engine_retention else { return false };
        let left = TimeDelta::from_std(retention.saturating_sub(self.builder.margin)).unwrap_or(TimeDelta::MAX);
        self.now.signed_duration_since(run.created_at) >= left
    }

    /// The archived versions of runs.
    async fn known(&mut self, runs: &[RunSummary]) -> Result<HashMap<String, Version>> {
        let times = || runs.iter().map(|run| run.created_at);
        let Some((first, last)) = times().min().zip(times().max()) else { return Ok(HashMap::new()) };
        let mut filter = RunFilter::new(Window::between(first, last));
        for name in runs.iter().map(|run| &run.workflow_name).collect::<HashSet<_>>() {
            filter = filter.workflow(name);
        }
        let archive = &self.builder.archive;
        let state = archive.log().state().await?;
        self.checked.get_or_insert(state.commits);
        let criteria = Criteria::new(filter, self.now)?;
        known(archive, Reading::new(archive.store().clone(), &state, criteria, KEYS)).await
    }

    async fn fetch(&mut self, runs: Vec<RunSummary>) -> Result<()> {
        let (client, gate, logs) = (&self.client, &self.gate, self.builder.logs);
        let mut fetched = stream::iter(runs)
            .map(|run| async move {
                let details = DetailsBuilder::new(client.clone(), run.id, None).logs(logs).through(gate.clone()).await;
                (run, details)
            })
            .buffered(self.builder.concurrency);
        while let Some((run, details)) = fetched.next().await {
            match details {
                Ok(details) if details.outcome.is_none() => self.report.active += 1,
                Ok(details) => {
                    let has_payloads = self.builder.retention.of(&run.workflow_name).has_payloads();
                    let row = convert::row(&run, &details, has_payloads, self.now)?;
                    self.size += row.size();
                    self.rows.push(row);
                    self.ids.insert(run.id);
                }
                Err(error) if error.kind() == ErrorKind::RunNotFound => {
                    tracing::warn!(run_id = %run.id, "the engine dropped the run before it was archived");
                    self.report.dropped += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<Option<CollectedBatch>> {
        let rows = std::mem::take(&mut self.rows);
        self.ids.clear();
        self.size = 0;
        if rows.is_empty() {
            return Ok(None);
        }
        let times = || rows.iter().filter_map(|row| convert::time(row, Column::CreatedAt));
        let (first, last) = (times().min().unwrap_or(self.now), times().max().unwrap_or(self.now));
        let (archive, checked) = (&self.builder.archive, self.checked.take().unwrap_or(0));
        let written = writing::commit(archive, &self.source, rows, checked, self.now).await?;
        self.report.archived += written.runs;
        self.report.files += written.files;
        self.report.bytes += written.bytes;
        let writing::Written { runs, files, bytes } = written;
        Ok(Some(CollectedBatch { runs, files, bytes, first_created_at: first, last_created_at: last }))
    }
}

/// The engine's retention, if the server shows it.
async fn engine_retention(client: &Client) -> Option<Duration> {
    match client.rpc().rest.retention().await {
        Ok(retention) => retention,
        Err(error) => {
            tracing::debug!(%error, "failed to read the engine's retention");
            None
        }
    }
}

/// A collection in progress, as a stream of its commits; see [`CollectBuilder::batches`]. It ends after an error. Dropping it stops the
/// collection.
///
/// ```no_run
/// # async fn example(collection: hatchet::archive::CollectBuilder) -> hatchet::Result<()> {
/// let mut batches = collection.batches()?;
/// while let Some(batch) = batches.next().await.transpose()? {
///     println!("{} runs since {}", batch.runs, batch.first_created_at);
/// }
/// println!("{}", batches.report());
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is archived before the stream is polled"]
pub struct CollectedBatches {
    batches: BoxStream<Result<CollectedBatch>>,
    report: Arc<Mutex<CollectReport>>,
}

impl CollectedBatches {
    /// Returns the next batch when it is committed, or `None` at the end.
    ///
    /// # Cancel safety
    /// This method is cancel safe: the collection continues with the next call.
    pub async fn next(&mut self) -> Option<Result<CollectedBatch>> {
        self.batches.next().await
    }

    /// Returns what has been done until the last item.
    pub fn report(&self) -> CollectReport {
        lock(&self.report).clone()
    }
}

impl Stream for CollectedBatches {
    type Item = Result<CollectedBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.poll_next_unpin(cx)
    }
}

impl fmt::Debug for CollectedBatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectedBatches").field("report", &self.report()).finish_non_exhaustive()
    }
}
