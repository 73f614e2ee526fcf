//! One view over the runs of the engine and of the archive.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use futures_util::StreamExt as _;

use super::convert::{self, SUMMARY_COLUMNS, status_counts};
use super::filter::Criteria;
use super::handle::Archive;
use super::history_stream::{Found, HistoryStream, View};
use super::paging::Pages;
use super::schema::Column;
use crate::boxed::BoxStream;
use crate::client::Client;
use crate::config::{RequestOptions, RetryPolicy};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Page, PageToken, RunDetails, RunFilter, RunId, RunSummary, StatusCounts, Total};
use crate::observe::check_logs;

/// The number of runs of the engine that are read before the archive is.
const PAGE_SIZE: usize = 200;
/// The number of runs whose details are fetched from the engine at the same time.
const CONCURRENCY: usize = 8;

/// One view over the runs of an engine and of its archive.
///
/// A run that both have is returned once.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, archive: hatchet::archive::Archive) -> hatchet::Result<()> {
/// use hatchet::archive::History;
/// use hatchet::model::Window;
/// use hatchet::{RunFilter, RunStatus};
///
/// let history = History::new(&hatchet, &archive);
/// let mut failed = history.runs(RunFilter::new(Window::all()).status(RunStatus::Failed)).items();
/// while let Some(run) = failed.next().await.transpose()? {
///     println!("{}", history.details(run.id).await?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct History {
    client: Client,
    archive: Archive,
    /// The number of runs of the engine that are read before the archive is.
    page: usize,
}

impl History {
    /// Creates a view without reading anything.
    ///
    /// If the archive contains runs of another tenant or namespace, the stream of [`items`](HistoryQuery::items) returns an error.
    /// [`details`](Self::details) does not check this.
    pub fn new(client: &Client, archive: &Archive) -> Self {
        Self { client: client.clone(), archive: archive.clone(), page: PAGE_SIZE }
    }

    /// The same view, with another number of runs that are read at once.
    #[cfg(test)]
    pub(super) fn paged(&self, page: usize) -> Self {
        Self { page, ..self.clone() }
    }

    /// Returns a query for the runs that match a filter, or that were created in a time window.
    pub fn runs(&self, filter: impl Into<RunFilter>) -> HistoryQuery {
        HistoryQuery {
            history: self.clone(),
            filter: filter.into(),
            after: None,
            logs: 0,
            request: RequestOptions::default(),
        }
    }

    /// Returns a request for the details of a run: from the engine if it has the run, otherwise from the archive.
    ///
    /// # Errors
    /// [`RunNotFound`](ErrorKind::RunNotFound) if neither the engine nor the archive has the run. Also the errors of
    /// [`RunHandle::details`](crate::RunHandle::details) and [`Archive::details`].
    ///
    /// # Cancel safety
    /// The request is cancel safe: it only reads.
    pub fn details(&self, id: RunId) -> HistoryDetailsBuilder {
        HistoryDetailsBuilder { history: self.clone(), id, logs: 0, request: RequestOptions::default() }
    }
}

/// A builder for a request that fetches the details of a run of an engine or of its archive; see [`History::details`].
///
/// ```no_run
/// # async fn example(history: hatchet::archive::History, id: hatchet::RunId) -> hatchet::Result<()> {
/// let details = history.details(id).logs(100).await?;
/// println!("{details} {:?}", details.logs);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is fetched until the builder is awaited"]
pub struct HistoryDetailsBuilder {
    history: History,
    id: RunId,
    logs: usize,
    request: RequestOptions,
}

impl HistoryDetailsBuilder {
    /// Includes the first `count` log lines.
    ///
    /// The default is 0, and the maximum is [`RunDetails::MAX_LOGS`]. The archive contains only log lines that
    /// [`CollectBuilder::logs`](super::CollectBuilder::logs) has archived.
    pub fn logs(mut self, count: usize) -> Self {
        self.logs = count;
        self
    }

    /// Sets the timeout of each call to the engine, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of the calls to the engine.
    ///
    /// The default is the configured [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.request.retry = Some(policy);
        self
    }

    async fn fetch(self) -> Result<RunDetails> {
        let Self { history: History { client, archive, .. }, id, logs, request } = self;
        check_logs(logs)?;
        let client = client.with(request)?;
        match client.run_handle(id).details().logs(logs).await {
            Err(error) if error.kind() == ErrorKind::RunNotFound => {
                let mut details = match archive.details(id).await {
                    Err(error) if error.kind() == ErrorKind::RunNotFound => {
                        return Err(Error::run_not_found_in("neither the engine nor the archive has run", id));
                    }
                    details => details?,
                };
                details.logs.truncate(logs);
                Ok(details)
            }
            details => details,
        }
    }
}

impl IntoFuture for HistoryDetailsBuilder {
    type Output = Result<RunDetails>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.fetch())
    }
}

/// A query for the runs of an engine and of its archive; see [`History::runs`].
///
/// ```no_run
/// # async fn example(history: hatchet::archive::History) -> hatchet::Result<()> {
/// use hatchet::model::Window;
///
/// let mut runs = history.runs(Window::all()).items();
/// while let Some(run) = runs.next().await.transpose()? {
///     println!("{} {}", run.created_at, run.id);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is read before `page`, `items`, `details` or a count"]
pub struct HistoryQuery {
    history: History,
    filter: RunFilter,
    after: Option<PageToken>,
    logs: usize,
    request: RequestOptions,
}

impl HistoryQuery {
    /// Continues after the page that returned this token: the query selects the runs after those of the page.
    ///
    /// The query must have the same filter as the query that returned the page. The count always includes all matching runs.
    pub fn after(mut self, token: PageToken) -> Self {
        self.after = Some(token);
        self
    }

    /// Includes the first `count` log lines of each run in [`details`](Self::details).
    ///
    /// The default is 0, and the maximum is [`RunDetails::MAX_LOGS`]. The archive contains only log lines that
    /// [`CollectBuilder::logs`](super::CollectBuilder::logs) has archived.
    pub fn logs(mut self, count: usize) -> Self {
        self.logs = count;
        self
    }

    /// Sets the timeout of each call to the engine, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of the calls to the engine.
    ///
    /// The default is the configured [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.request.retry = Some(policy);
        self
    }

    /// Returns a page: at most `size` of the newest matching runs, an upper bound on the number of all matching runs, and the token of the
    /// next page.
    ///
    /// The token can be sent to another process, and it stays valid while runs are archived and compacted, and while the engine drops runs.
    ///
    /// Runs that are created in the meantime are not on later pages. No run is on two pages. Runs that both the engine and the archive have
    /// are counted twice in the total, but once by [`count`](Self::count).
    ///
    /// ```no_run
    /// # async fn example(history: hatchet::archive::History) -> hatchet::Result<()> {
    /// use hatchet::model::Window;
    ///
    /// let query = history.runs(Window::all());
    /// let first = query.page(50).await?;
    /// if let Some(token) = first.next {
    ///     let second = query.after(token).page(50).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The first error of the stream of [`items`](Self::items). Also [`InvalidInput`](ErrorKind::InvalidInput) if the size is 0 or over
    /// 1000, or if the token belongs to another query.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn page(&self, size: usize) -> Result<Page<RunSummary>> {
        let after = self.pages().position(self.after.as_ref())?;
        Box::pin(self.pages().page(self.items(), size, after.as_ref(), self.total())).await
    }

    /// An upper bound on the number of all matching runs.
    async fn total(&self) -> Result<Total> {
        let History { client, archive, .. } = &self.history;
        let live = match client.with(self.request)?.runs(self.filter.clone()).count().await {
            Err(error) if error.kind() == ErrorKind::WorkflowNotFound => Total::Exactly(0),
            live => live?,
        };
        let criteria = Criteria::new(self.filter.clone(), client.clock().now())?;
        let archived = archive.max_matching(&criteria).await?;
        Ok(match live {
            Total::Exactly(live) | Total::AtMost(live) => Total::Exactly(live.saturating_add(archived)).at_most(),
            other => other,
        })
    }

    fn pages(&self) -> Pages {
        Pages::of("history", &self.filter)
    }

    /// Returns a stream of the matching runs, newest first. Runs that are created after the first item was requested are not included.
    ///
    /// With a status in the filter, the stream sends one more request for each archived run that matches and that the engine may still have,
    /// because its status in the engine may differ. A workflow that the server no longer has is looked up in the archive only.
    pub fn items(&self) -> HistoryRuns {
        HistoryRuns(BoxStream::new(self.read(SUMMARY_COLUMNS).map(|found| Ok(found?.run))))
    }

    /// Returns a stream of the details of the matching runs, newest first.
    ///
    /// The runs are those of [`items`](Self::items). The details of up to eight runs of the engine are fetched at the same time, after the
    /// runs were listed, so the details of a run that is replayed in between show the new status.
    ///
    /// ```no_run
    /// # async fn example(history: hatchet::archive::History) -> hatchet::Result<()> {
    /// use hatchet::model::Window;
    ///
    /// let mut runs = history.runs(Window::all()).logs(100).details();
    /// while let Some(run) = runs.next().await.transpose()? {
    ///     println!("{run} {:?}", run.input);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn details(&self) -> HistoryDetails {
        let (history, logs, request) = (self.history.clone(), self.logs, self.request);
        let details = self.read(Column::ALL).map(move |found| {
            let history = history.clone();
            async move {
                let Found { run, row } = found?;
                let Some(row) = row else {
                    let client = history.client.clone();
                    let fetch = HistoryDetailsBuilder { history, id: run.id, logs, request }.fetch();
                    // A task, because its deadlines also pass while the stream is not polled.
                    return client.feed().fetcher.spawn(fetch).await;
                };
                let mut details = convert::details(&row)?;
                details.logs.truncate(logs);
                Ok(details)
            }
        });
        HistoryDetails(BoxStream::new(details.buffered(CONCURRENCY)))
    }

    fn read(&self, columns: &'static [Column]) -> BoxStream<Result<Found>> {
        let query = self.clone();
        let open = async move {
            let after = query.pages().position(query.after.as_ref())?;
            let Self { history: History { client, archive, page }, filter, logs, request, .. } = query;
            check_logs(logs)?;
            let client = client.with(request)?;
            Ok(Box::new(HistoryStream::start(View { client, archive, filter, after, page, columns }).await?))
        };
        BoxStream::opened(open, |mut runs: Box<HistoryStream>| async move {
            let found = runs.next().await?;
            let runs = (!runs.has_failed).then_some(runs);
            Some((found, runs))
        })
    }

    /// Returns the number of matching runs. The method reads all of them, like [`items`](Self::items).
    ///
    /// # Errors
    /// The first error of the stream of [`items`](Self::items).
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn count(&self) -> Result<u64> {
        Ok(self.counts_by_status().await?.total())
    }

    /// Returns the number of matching runs by status.
    ///
    /// The method reads all of them, like [`items`](Self::items). Unlike
    /// [`RunQuery::counts_by_status`](crate::builder::RunQuery::counts_by_status), it respects the statuses of the filter and counts
    /// timed-out runs separately.
    ///
    /// # Errors
    /// The first error of the stream of [`items`](Self::items).
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn counts_by_status(&self) -> Result<StatusCounts> {
        let (mut runs, mut counts) = (Self { after: None, ..self.clone() }.items(), BTreeMap::new());
        while let Some(run) = runs.next().await.transpose()? {
            *counts.entry(run.status.as_str().to_owned()).or_insert(0) += 1;
        }
        Ok(status_counts(counts))
    }
}

/// A stream of the runs of an engine and of its archive, newest first; see [`HistoryQuery::items`].
///
/// The stream continues after the error of a damaged file, and ends after any other error.
///
/// ```no_run
/// # async fn example(history: hatchet::archive::History) -> hatchet::Result<()> {
/// use std::time::Duration;
/// use hatchet::model::Window;
///
/// let year = Window::last(Duration::from_secs(365 * 24 * 3600));
/// let mut runs = history.runs(year).items();
/// while let Some(run) = runs.next().await {
///     println!("{:?}", run?.workflow_name);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is read before the stream is polled"]
pub struct HistoryRuns(BoxStream<Result<RunSummary>>);

impl HistoryRuns {
    /// Returns the next run, or `None` at the end.
    ///
    /// # Errors
    /// The errors of [`RunQuery::page`](crate::builder::RunQuery::page) and of [`ArchivedRuns::next`](super::ArchivedRuns::next).
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no run is lost.
    pub async fn next(&mut self) -> Option<Result<RunSummary>> {
        self.0.next().await
    }
}

impl Stream for HistoryRuns {
    type Item = Result<RunSummary>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for HistoryRuns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HistoryRuns")
    }
}

/// A stream of the details of the runs of an engine and of its archive, newest first; see [`HistoryQuery::details`].
///
/// Errors are handled as in [`HistoryRuns`], except that this stream also continues if the details of one run cannot be fetched. For
/// example, the item is [`RunNotFound`](ErrorKind::RunNotFound) if the engine dropped the run after it was listed, and the archive does not
/// have it.
///
/// ```no_run
/// # async fn example(history: hatchet::archive::History) -> hatchet::Result<()> {
/// use std::time::Duration;
/// use hatchet::model::Window;
///
/// let year = Window::last(Duration::from_secs(365 * 24 * 3600));
/// let mut runs = history.runs(year).details();
/// while let Some(run) = runs.next().await {
///     println!("{}", run?);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is read before the stream is polled"]
pub struct HistoryDetails(BoxStream<Result<RunDetails>>);

impl HistoryDetails {
    /// Returns the details of the next run, or `None` at the end.
    ///
    /// # Errors
    /// The errors of [`HistoryRuns::next`] and [`RunHandle::details`](crate::RunHandle::details).
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no run is lost.
    pub async fn next(&mut self) -> Option<Result<RunDetails>> {
        self.0.next().await
    }
}

impl Stream for HistoryDetails {
    type Item = Result<RunDetails>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for HistoryDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HistoryDetails")
    }
}
