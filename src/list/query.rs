//! Queries for runs and tasks: pages, streams and counts.

use std::time::Duration;

use futures_util::future;

use super::items::{RunItems, TaskItems};
use super::reader::Reader;
use super::selection::{Kind, ListRequest, Lookup, Selection};
use crate::client::Client;
use crate::config::RetryPolicy;
use crate::error::{Error, Result};
use crate::feed::Gate;
use crate::model::{Page, PageToken, RunFilter, RunStatus, RunSummary, StatusCounts, TaskSummary, Total};
use crate::rpc::convert::ListRow;

/// The number of rows at which the server stops counting.
const MAX_COUNTED: u64 = 20_000;
/// If the server's count includes rows that do not match, up to this many rows are read and counted instead.
const MAX_COUNTED_BY_READING: u64 = 1000;
/// The number of rows in one request if many of them may not match.
const MIN_REQUEST_SIZE: usize = 50;
/// The maximum page size. The server has no limit, and a huge page delays all other requests.
const MAX_PAGE_SIZE: usize = 1000;

impl Client {
    /// Returns a query for the runs that match a filter, or that were created in a time window.
    ///
    /// If the client has a [namespace](crate::config::ConfigBuilder::namespace), only runs of workflows in that namespace match.
    ///
    /// The server does not support namespaces in queries. Without a [`workflow`](RunFilter::workflow), a client with a namespace reads the
    /// runs of all namespaces and skips those of other namespaces. The server's count is then an upper bound.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
    /// use std::time::Duration;
    /// use hatchet::model::Window;
    /// use hatchet::{RunFilter, RunStatus};
    ///
    /// let week = Window::last(Duration::from_secs(7 * 24 * 3600));
    /// let failed = hatchet.runs(RunFilter::new(week).workflow("greet").status(RunStatus::Failed));
    /// println!("{} failed", failed.page(50).await?.total);
    /// let mut all = failed.items();
    /// while let Some(run) = all.next().await {
    ///     println!("{}", run?.id);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn runs(&self, filter: impl Into<RunFilter>) -> RunQuery {
        RunQuery { selection: Selection::of_runs(self.clone(), filter.into()) }
    }

    /// Returns a query for the tasks of runs: each task of a DAG run is an item.
    ///
    /// The filter is the same as for [`runs`](Self::runs), with two differences: it can have a [`worker`](RunFilter::worker), and it cannot
    /// have an [`event`](RunFilter::event) or a [`parent`](RunFilter::parent), which the engine ignores for tasks.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, worker: hatchet::worker::RunningWorker) -> hatchet::Result<()> {
    /// use hatchet::RunFilter;
    /// use hatchet::model::Window;
    ///
    /// let filter = RunFilter::new(Window::all()).worker(worker.id());
    /// for task in hatchet.tasks(filter).page(50).await?.items {
    ///     println!("{:?} {}", task.name, task.status);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn tasks(&self, filter: impl Into<RunFilter>) -> TaskQuery {
        let selection = Selection { kind: Kind::Tasks, ..Selection::of_runs(self.clone(), filter.into()) };
        TaskQuery { selection }
    }
}

/// A query for runs; see [`Client::runs`].
///
/// The results can be read as pages, as a stream, or as counts, and the runs can be cancelled and replayed.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// use hatchet::model::Window;
///
/// println!("{}", hatchet.runs(Window::all()).counts_by_status().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is sent before `page`, `items` or `count`"]
pub struct RunQuery {
    selection: Selection,
}

impl RunQuery {
    pub(super) fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Sets the timeout of each call that this request makes, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.selection.request.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of the calls that this request makes.
    ///
    /// The default is the configured [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.selection.request.retry = Some(policy);
        self
    }

    /// Sets the gate that each request must pass, except those of counts.
    pub(crate) fn through(mut self, gate: Gate) -> Self {
        self.selection.gate = Some(gate);
        self
    }

    /// Completes the filter with what only the server knows, before each request of the query.
    pub(crate) fn completed_by<F>(mut self, complete: impl Fn(Client, RunFilter) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<RunFilter>> + Send + 'static,
    {
        self.selection.lookup = Some(Lookup::new(complete));
        self
    }

    /// Continues after the page that returned this token: the query selects the runs after those of the page.
    ///
    /// The query must have the same filter as the query that returned the page. Counts always include all matching runs.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
    /// use hatchet::model::Window;
    ///
    /// let query = hatchet.runs(Window::all());
    /// let first = query.page(50).await?;
    /// if let Some(token) = first.next {
    ///     let second = query.after(token).page(50).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn after(mut self, token: PageToken) -> Self {
        self.selection.after = Some(token);
        self
    }

    /// Returns a page: at most `size` of the newest matching runs, the number of all matching runs, and the token of the next page.
    ///
    /// The server's list can include runs that do not match: runs of other namespaces if the filter has no workflow, and runs with another
    /// status that the server also lists as failed; see [`RunFilter::status`]. In that case, this method sends requests until the page is
    /// full or the time window is exhausted.
    ///
    /// Runs that are created in the meantime are not on later pages. No run is on two pages.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the size is 0 or over 1000, if the server would misinterpret the filter, or if
    /// the token belongs to another filter. [`WorkflowNotFound`](crate::ErrorKind::WorkflowNotFound) if the server has no workflow with the
    /// filter's name.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn page(&self, size: usize) -> Result<Page<RunSummary>> {
        // Boxed, because it is large.
        Box::pin(page(&self.selection, size)).await
    }

    /// The newest matching runs with any status, at most `limit`, with one request.
    pub(crate) async fn newest(&self, limit: usize) -> Result<Vec<RunSummary>> {
        let request = self.selection.resolve().await?;
        Ok(request.fetch(request.filter.window.end(), limit, 0).await?.into_iter().map(Into::into).collect())
    }

    /// Returns a stream of all matching runs, newest first.
    pub fn items(&self) -> RunItems {
        RunItems::new(self.selection.clone())
    }

    /// Returns the number of matching runs.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
    /// use hatchet::model::Window;
    ///
    /// println!("{} runs", hatchet.runs(Window::all()).count().await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`page`](Self::page).
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn count(&self) -> Result<Total> {
        total(&self.selection.resolve().await?).await
    }

    /// Returns the number of matching runs by status, with one request and without reading rows.
    ///
    /// The statuses of the filter are ignored.
    ///
    /// # Errors
    /// The errors of [`page`](Self::page). Also [`InvalidInput`](crate::ErrorKind::InvalidInput) for a filter with more than one tag,
    /// because the server would count runs with any of the tags, and for a filter without a workflow if the client has a namespace.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn counts_by_status(&self) -> Result<StatusCounts> {
        check_counted(&self.selection.filter)?;
        let request = self.selection.resolve().await?;
        check_counted(&request.filter)?;
        if request.is_in_all_namespaces() {
            let problem = "expected a workflow name for counts by status, because the client has a namespace, got none";
            return Err(Error::invalid("filter", problem));
        }
        let counts = request.client.rpc().rest.counts(&request.parameters_for_counts()).await?;
        Ok(StatusCounts::new(counts.into_iter().map(|count| (RunStatus::from_name(&count.status), count.count))))
    }
}

/// A query for tasks; see [`Client::tasks`].
///
/// The results can be read as pages, as a stream, or as a count.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// use hatchet::model::Window;
/// use hatchet::{RunFilter, RunStatus};
///
/// let running = RunFilter::new(Window::all()).status(RunStatus::Running);
/// println!("{} tasks are running", hatchet.tasks(running).count().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is sent before `page`, `items` or `count`"]
pub struct TaskQuery {
    selection: Selection,
}

impl TaskQuery {
    /// Sets the timeout of each call that this request makes, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.selection.request.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of the calls that this request makes.
    ///
    /// The default is the configured [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.selection.request.retry = Some(policy);
        self
    }

    /// Continues after the page that returned this token: the query selects the tasks after those of the page.
    ///
    /// The query must have the same filter as the query that returned the page. Counts always include all matching tasks.
    pub fn after(mut self, token: PageToken) -> Self {
        self.selection.after = Some(token);
        self
    }

    /// Returns a page: at most `size` of the newest matching tasks, the number of all matching tasks, and the token of the next page; see
    /// [`RunQuery::page`].
    ///
    /// # Errors
    /// The errors of [`RunQuery::page`].
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn page(&self, size: usize) -> Result<Page<TaskSummary>> {
        Box::pin(page(&self.selection, size)).await
    }

    /// Returns a stream of all matching tasks, newest first.
    pub fn items(&self) -> TaskItems {
        TaskItems::new(self.selection.clone())
    }

    /// Returns the number of matching tasks.
    ///
    /// # Errors
    /// The errors of [`RunQuery::page`].
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn count(&self) -> Result<Total> {
        total(&self.selection.resolve().await?).await
    }
}

fn check_counted(filter: &RunFilter) -> Result<()> {
    if filter.metadata.len() + filter.any_metadata.len() + filter.own_metadata.len() > 1 {
        return Err(Error::invalid("filter", "expected at most one tag for counts by status, got more"));
    }
    Ok(())
}

pub(crate) fn check_page_size(size: usize) -> Result<()> {
    if (1..=MAX_PAGE_SIZE).contains(&size) {
        return Ok(());
    }
    Err(Error::invalid("page size", format_args!("expected 1 to {MAX_PAGE_SIZE}, got {size}")))
}

async fn page<T: From<ListRow>>(selection: &Selection, size: usize) -> Result<Page<T>> {
    check_page_size(size)?;
    let request = selection.resolve().await?;
    let includes_others = request.includes_others();
    let request_size = if includes_others { size.max(MIN_REQUEST_SIZE) } else { size };
    let mut reader = Reader::new(request.clone(), request_size);
    // If the first page has all rows, their number is exact, and need not be counted.
    let is_complete = |next: &Option<PageToken>| next.is_none() && request.after.is_none();
    let (rows, next, counted) = if includes_others {
        let (rows, next) = reader.page(size).await?;
        let counted = if is_complete(&next) { None } else { Some(total(&request).await?) };
        (rows, next, counted)
    } else {
        let ((rows, next), total) = future::try_join(reader.page(size), total(&request)).await?;
        let counted = Some(total).filter(|_| !is_complete(&next));
        (rows, next, counted)
    };
    let total = counted.unwrap_or(Total::Exactly(rows.len() as u64));
    Ok(Page { items: rows.into_iter().map(T::from).collect(), total, next })
}

/// The server's count. If it includes rows that do not match and is small enough, the matching rows are read and counted.
async fn total(request: &ListRequest) -> Result<Total> {
    let number = request.count().await?;
    let total = if number >= MAX_COUNTED { Total::AtLeast(number) } else { Total::Exactly(number) };
    if number == 0 || !request.includes_others() {
        return Ok(total);
    }
    if number > MAX_COUNTED_BY_READING {
        return Ok(total.at_most());
    }
    let mut rows = Reader::new(ListRequest { after: None, ..request.clone() }, MAX_PAGE_SIZE);
    let mut read: u64 = 0;
    while rows.next().await.transpose()?.is_some() {
        read = read.saturating_add(1);
    }
    Ok(Total::Exactly(read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_readable() {
        let counts = [(RunStatus::Completed, 1200), (RunStatus::Failed, 3), (RunStatus::Queued, 0)];
        assert_eq!(StatusCounts::new(counts).to_string(), "1200 COMPLETED, 3 FAILED");
        assert_eq!(StatusCounts::default().to_string(), "none");
    }
}
