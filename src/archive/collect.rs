//! The options of a collection, and the stream of its commits.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_core::Stream;
use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::collection::{CollectOptions, Collection};
use super::handle::Archive;
use super::progress::OperationStream;
use super::report::{CollectReport, CollectedBatch};
use super::retention::Retention;
use super::text::Length;
use super::writing::MAX_FILE_BYTES;
use crate::client::Client;
use crate::config::{RequestOptions, RetryPolicy};
use crate::error::{Error, Result};
use crate::model::RunDetails;
use crate::time::MAX_DURATION;

/// The default of [`CollectBuilder::requests_per_second`].
const REQUESTS_PER_SECOND: u32 = 200;
/// The default of [`CollectBuilder::concurrency`].
const CONCURRENCY: usize = 8;
const MAX_CONCURRENCY: usize = 64;

impl Archive {
    /// Returns a builder for a collection, which copies runs to the archive: the runs of the client's namespace that have ended and that
    /// the [`Retention`] selects.
    ///
    /// The collection deletes nothing; the engine drops its runs after its retention period.
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
        let options = CollectOptions {
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
        };
        CollectBuilder { options }
    }
}

/// A builder for a collection, which archives the runs that have ended; see [`Archive::collect`].
///
/// [`send`](Self::send) starts it, and returns a report.
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
    pub(super) options: CollectOptions,
}

impl CollectBuilder {
    /// Archives the runs that were created before this time, regardless of their age, if they have ended.
    ///
    /// The statuses of the rules still apply, and runs of workflows with the rule [`never`](super::Rule::never) are not archived.
    pub fn before(mut self, time: DateTime<Utc>) -> Self {
        self.options.before = Some(time);
        self
    }

    /// Only counts the runs that would be archived. Nothing is written, and no details are fetched.
    pub fn dry_run(mut self) -> Self {
        self.options.is_dry_run = true;
        self
    }

    /// Also archives the first `count` log lines of each run.
    ///
    /// The default is 0, and the maximum is [`RunDetails::MAX_LOGS`](crate::model::RunDetails::MAX_LOGS).
    pub fn logs(mut self, count: usize) -> Self {
        self.options.logs = count;
        self
    }

    /// Sets how many runs are fetched at the same time, from 1 to 64. The default is 8.
    pub fn concurrency(mut self, runs: usize) -> Self {
        self.options.concurrency = runs;
        self
    }

    /// Limits the rate of requests to the server, in requests per second.
    ///
    /// The default is 200, and the minimum is 1. After a pause, the requests of one second may be sent at once. A page of 200 listed runs
    /// takes one request, and a run that is archived takes about three to five. The list takes one or two more requests for each failed run
    /// that has no error message or several attempts. At the start, about fifteen requests find the day of the oldest run, and up to four
    /// requests for each rule count the runs at risk. A retry by the [policy](Self::retry) counts as a request, too. If the rate limit
    /// would delay a retry beyond the timeout of its call, the retry is not sent, and the call fails.
    pub fn requests_per_second(mut self, requests: u32) -> Self {
        self.options.requests_per_second = requests;
        self
    }

    /// Sets how often runs are collected, if something other than [`every`](Self::every) repeats the collection: a cron, for example.
    ///
    /// Runs that the engine drops before the next collection, or within 24 hours after it, count as [at risk](CollectReport::at_risk). The
    /// default is 0, and the maximum is ten years. [`every`](Self::every) replaces this interval.
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
        self.options.interval = interval;
        self
    }

    /// Sets the engine's retention period, from which [`at_risk`](CollectReport::at_risk) and
    /// [`is_age_too_long`](CollectReport::is_age_too_long) are computed.
    ///
    /// The period must be positive and at most ten years. By default, it is read from the server, which reports the default that the tenant
    /// was created with. The engine drops runs according to the current settings of its operator, such as
    /// `SERVER_LIMITS_DEFAULT_TENANT_RETENTION_PERIOD`. Set the period if the settings have changed since then, if the server has several
    /// periods (set the shortest), or if the server is too old to report a period.
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
        self.options.engine_retention = Some(period);
        self
    }

    /// Sets the timeout of each call that the collection makes, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.request.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of each call that the collection makes.
    ///
    /// The default is the configured [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options.request.retry = Some(policy);
        self
    }

    /// Replaces the 64 MiB after which runs are committed: a test of the memory without optimizations would take minutes.
    #[cfg(feature = "__benches")]
    #[doc(hidden)]
    pub fn commit_bytes(mut self, bytes: usize) -> Self {
        self.options.commit_bytes = bytes;
        self
    }

    /// The same collection, which ends early when the token is cancelled.
    pub(super) fn stopped_by(mut self, stop: CancellationToken) -> Self {
        self.options.stop = stop;
        self
    }

    /// Collects the runs, and returns a report.
    ///
    /// If the collection fails, runs that were committed before the error remain in the archive, but are not reported; with
    /// [`batches`](Self::batches), the report is available.
    ///
    /// A run whose details cannot be fetched is counted in [`fetch_errors`](CollectReport::fetch_errors), and the next collection fetches
    /// it again. If the server does not respond for five runs in a row, or responds with a 5xx status other than 501, the collection
    /// requests a list and three other runs, of other workflows if possible. If the list or all these runs fail in the same way, the
    /// collection ends with this error; otherwise, it continues. Errors that do not concern one run, such as a rejected token, and errors
    /// of the archive end the collection.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if an option is invalid, or if the archive contains runs of another tenant or namespace.
    /// [`Storage`](crate::ErrorKind::Storage), [`Corrupt`](crate::ErrorKind::Corrupt) and [`Timeout`](crate::ErrorKind::Timeout) if the
    /// archive cannot be read or written. Also the errors of [`RunQuery::page`](crate::builder::RunQuery::page).
    ///
    /// # Cancel safety
    /// This method is cancel safe: committed runs remain in the archive, and the next collection archives the others. A fetched run is
    /// committed after about five minutes at the latest, once the fetches that are in progress at that time have finished.
    pub async fn send(self) -> Result<CollectReport> {
        let mut batches = self.batches();
        while batches.next().await.transpose()?.is_some() {}
        Ok(batches.report())
    }

    /// Returns a stream that collects the runs while it is polled, with an item for each commit.
    ///
    /// Runs are committed when 10,000 of them or 64 MiB are fetched, about five minutes after the first of them was fetched, and at the
    /// end. If the list or a fetch fails, the runs that were fetched before are committed without an item of their own;
    /// [`report`](CollectedBatches::report) includes them. Until the first item, [`fetched`](CollectedBatches::fetched) shows the progress.
    ///
    /// An error is the last item; see [`send`](Self::send).
    pub fn batches(self) -> CollectedBatches {
        let fetched = Arc::default();
        let counted = Arc::clone(&fetched);
        let open = async move {
            self.check()?;
            let client = self.options.client.with(self.options.request)?;
            let stop = self.options.stop.clone();
            let collection = stop.run_until_cancelled(Collection::start(self.options, client, counted)).await;
            Ok(Box::new(collection.unwrap_or_else(|| Err(Error::closed("the collector")))?))
        };
        CollectedBatches { items: OperationStream::of(open), fetched }
    }

    pub(super) fn check(&self) -> Result<()> {
        self.options.retention.check()?;
        let out_of_range = |field, expected: &str, got: usize| {
            Err(Error::invalid(field, format_args!("expected {expected}, got {got}")))
        };
        if !(1..=MAX_CONCURRENCY).contains(&self.options.concurrency) {
            return out_of_range("concurrency", "1 to 64", self.options.concurrency);
        }
        if self.options.requests_per_second == 0 {
            return out_of_range("requests per second", "at least 1", 0);
        }
        if self.options.interval > MAX_DURATION {
            let problem = format!("expected at most 10 years, got {}", Length(self.options.interval));
            return Err(Error::invalid("interval", problem));
        }
        if let Some(period) = self.options.engine_retention
            && (period.is_zero() || period > MAX_DURATION)
        {
            let problem = format!("expected more than zero and at most 10 years, got {}", Length(period));
            return Err(Error::invalid("engine retention", problem));
        }
        if self.options.logs > RunDetails::MAX_LOGS {
            return out_of_range("number of log lines", "at most 1000", self.options.logs);
        }
        Ok(())
    }
}

/// A stream of the commits of a collection; see [`CollectBuilder::batches`].
///
/// The stream ends after an error. Dropping it stops the collection; committed runs remain in the archive.
///
/// ```no_run
/// # async fn example(collection: hatchet::archive::CollectBuilder) -> hatchet::Result<()> {
/// let mut batches = collection.batches();
/// while let Some(batch) = batches.next().await.transpose()? {
///     println!("{} runs since {}", batch.runs, batch.min_created_at);
/// }
/// println!("{}", batches.report());
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is archived before the stream is polled"]
pub struct CollectedBatches {
    items: OperationStream<CollectedBatch, CollectReport>,
    fetched: Arc<AtomicU64>,
}

impl CollectedBatches {
    /// Returns the next batch when it is committed, or `None` at the end.
    ///
    /// # Errors
    /// The errors of [`CollectBuilder::send`]. An error is the last item.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, the collection continues with the next call.
    pub async fn next(&mut self) -> Option<Result<CollectedBatch>> {
        self.items.next().await
    }

    /// Returns how many runs have been fetched so far.
    ///
    /// Unlike [`report`](Self::report), the number includes runs that are not committed yet, and runs that could not be fetched.
    ///
    /// ```no_run
    /// # async fn example(collection: hatchet::archive::CollectBuilder) -> hatchet::Result<()> {
    /// let (mut batches, mut second) = (collection.batches(), tokio::time::interval(std::time::Duration::from_secs(1)));
    /// loop {
    ///     tokio::select! {
    ///         batch = batches.next() => match batch.transpose()? {
    ///             Some(batch) => println!("{} committed", batch.runs),
    ///             None => break,
    ///         },
    ///         _ = second.tick() => println!("{} fetched", batches.fetched()),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn fetched(&self) -> u64 {
        self.fetched.load(Relaxed)
    }

    /// Returns the counts up to the last item that the stream has returned, including an error.
    pub fn report(&self) -> CollectReport {
        self.items.report()
    }
}

impl Stream for CollectedBatches {
    type Item = Result<CollectedBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.items.poll_next_unpin(cx)
    }
}

impl fmt::Debug for CollectedBatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectedBatches").field("report", &self.report()).finish_non_exhaustive()
    }
}
