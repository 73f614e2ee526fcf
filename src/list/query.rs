//! One page with its total, and counts.

use futures_util::future;

use super::derive;
use super::items::RunItems;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Page, RunFilter, RunStatus, RunSummary, StatusCounts, Total, WorkflowId};
use crate::rpc::convert::rest_run::{Row, Rows};
use crate::rpc::convert::summary;

/// The number of runs at which the server stops counting.
const MAX_COUNTED: u64 = 20_000;
/// If the server's count includes other runs, up to this many rows are read and counted instead.
const MAX_COUNTED_BY_READING: u64 = 1000;
/// This many rows cannot all have changed their status at the same moment.
const MIN_MISFITS: usize = 10;
/// The minimum page size if most rows may not match.
const MIN_PAGE_SIZE: usize = 50;
/// The maximum page size. The server has no limit, and a huge page delays all other requests.
const MAX_PAGE_SIZE: usize = 1000;

impl Client {
    /// Prepares a query for the runs that match a filter, or that were created in a time window. If the client has a
    /// [namespace](crate::config::ConfigBuilder::namespace), only runs of workflows in that namespace match.
    ///
    /// The server does not support namespaces in queries. Without a [`workflow`](RunFilter::workflow), a client with a namespace reads
    /// the runs of all namespaces and skips the others. The server's count is then an upper bound.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
    /// use std::time::Duration;
    /// use hatchet::{RunFilter, RunStatus};
    /// use hatchet::model::Window;
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
        RunQuery { client: self.clone(), filter: filter.into() }
    }
}

/// A query for runs. It can be read as a page, as a stream, or as counts.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent before `page`, `items` or `count`"]
pub struct RunQuery {
    client: Client,
    filter: RunFilter,
}

impl RunQuery {
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn filter(&self) -> &RunFilter {
        &self.filter
    }

    /// Returns the newest matching runs, at most `size`, and the number of all matching runs. If the server's list includes other runs
    /// (in a namespace without a workflow name, and for some of the statuses that it lists as failed, see [`RunFilter::status`]), this
    /// method reads more pages until the result is full or the time window is exhausted.
    ///
    /// There is no second page: [`items`](Self::items) streams all matching runs.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the size is 0 or over 1000, or if the server would misinterpret the filter.
    /// [`WorkflowNotFound`](ErrorKind::WorkflowNotFound) if the server has no workflow with the filter's name.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn page(&self, size: usize) -> Result<Page> {
        check_page(size)?;
        let parameters = parameters(&self.client, &self.filter).await?;
        if self.is_among_others() || derive::splits(&self.filter.statuses) {
            let mut items = RunItems::of_pages(self.client.clone(), self.filter.clone(), size.max(MIN_PAGE_SIZE));
            let mut runs = Vec::new();
            while runs.len() < size
                && let Some(run) = items.next().await.transpose()?
            {
                runs.push(run);
            }
            let whole = runs.len() < size;
            let read = runs.len() as u64;
            let total = if whole { Total::Exactly(read) } else { self.total_after(&parameters, items, read).await? };
            return Ok(Page { runs, total });
        }
        let rows = async {
            let rows = fetch(&self.client, &parameters, size, 0).await?;
            // A page that is not full has all matching runs, so their number is exact.
            let whole = rows.len() < size;
            Ok((whole, derive::rows(&self.client, &self.filter, rows).await?))
        };
        let ((whole, runs), total) = future::try_join(rows, self.total(&parameters)).await?;
        let total = if whole { Total::Exactly(runs.len() as u64) } else { total };
        Ok(Page { runs, total })
    }

    /// The newest matching run with any status.
    pub(crate) async fn newest(&self) -> Result<Option<RunSummary>> {
        let parameters = parameters(&self.client, &self.filter).await?;
        Ok(fetch(&self.client, &parameters, 1, 0).await?.into_iter().next())
    }

    /// Returns a stream of all matching runs, newest first; see [`RunItems`].
    pub fn items(&self) -> RunItems {
        RunItems::new(self.client.clone(), self.filter.clone())
    }

    /// Returns the number of matching runs.
    ///
    /// # Errors
    /// The errors of [`page`](Self::page).
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn count(&self) -> Result<Total> {
        let parameters = parameters(&self.client, &self.filter).await?;
        self.total(&parameters).await
    }

    /// The server's count. If that includes other runs and is small enough, the rows are read and counted.
    async fn total(&self, parameters: &[(&'static str, String)]) -> Result<Total> {
        self.total_after(parameters, self.items(), 0).await
    }

    /// The same, when so many of the items have been read.
    async fn total_after(
        &self,
        parameters: &[(&'static str, String)],
        mut items: RunItems,
        mut read: u64,
    ) -> Result<Total> {
        let number = count(&self.client, parameters).await?;
        let total = if number >= MAX_COUNTED { Total::AtLeast(number) } else { Total::Exactly(number) };
        if number == 0 || !self.is_among_others() && !derive::splits(&self.filter.statuses) {
            return Ok(total);
        }
        if number > MAX_COUNTED_BY_READING {
            return Ok(total.at_most());
        }
        while items.next().await.transpose()?.is_some() {
            read = read.saturating_add(1);
        }
        Ok(Total::Exactly(read))
    }

    /// Whether the server's responses include runs of other namespaces.
    fn is_among_others(&self) -> bool {
        self.client.namespace().is_some() && self.filter.is_of_all_workflows()
    }

    /// Returns the number of matching runs by status, with one request and without reading rows. The statuses of the filter are
    /// ignored.
    ///
    /// # Errors
    /// The errors of [`page`](Self::page). Also [`InvalidInput`](ErrorKind::InvalidInput) for a filter with more than one tag, because
    /// the server would count runs with any of them, for a filter without a workflow if the client has a namespace, and for a filter
    /// for tasks.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it only reads.
    pub async fn counts_by_status(&self) -> Result<StatusCounts> {
        let tags = [self.filter.metadata.len(), self.filter.any_metadata.len(), self.filter.own_metadata.len()];
        if tags.iter().sum::<usize>() > 1 {
            return Err(Error::invalid("filter", "expected at most one tag for counts by status, got more"));
        }
        if self.is_among_others() {
            return Err(Error::invalid(
                "filter",
                "expected a workflow name for counts by status, because the client has a namespace, got none",
            ));
        }
        let parameters = parameters(&self.client, &self.filter).await?;
        if self.filter.tasks {
            return Err(Error::invalid(
                "filter",
                "expected a filter of runs for counts by status, got a filter of tasks",
            ));
        }
        let known = [
            "since",
            "until",
            "workflow_ids",
            "additional_metadata",
            "triggering_event_external_id",
            "parent_task_external_id",
        ];
        let parameters: Vec<_> = parameters.into_iter().filter(|(name, _)| known.contains(name)).collect();
        let counts = self.client.rpc().rest.counts(&parameters).await?;
        Ok(StatusCounts::new(counts.into_iter().map(|count| (RunStatus::from_name(&count.status), count.count))))
    }
}

pub(super) fn check_page(size: usize) -> Result<()> {
    if (1..=MAX_PAGE_SIZE).contains(&size) {
        return Ok(());
    }
    Err(Error::invalid("page size", format_args!("expected 1 to {MAX_PAGE_SIZE}, got {size}")))
}

pub(super) type Parameters = Vec<(&'static str, String)>;

/// The filter as query parameters.
pub(super) async fn parameters(client: &Client, filter: &RunFilter) -> Result<Parameters> {
    filter.check()?;
    let mut parameters = vec![
        ("since", format_time(filter.window.start(client.clock().now()))),
        ("only_tasks", filter.tasks.to_string()),
        ("additional_metadata_operator", if filter.any_metadata.is_empty() { "AND" } else { "OR" }.to_owned()),
    ];
    parameters.extend(filter.window.until().map(|until| ("until", format_time(until))));
    let workflows: Vec<WorkflowId> =
        future::try_join_all(filter.workflows.iter().map(|name| client.feed().workflows.id_of(name))).await?;
    parameters.extend(workflows.iter().map(|id| ("workflow_ids", id.to_string())));
    parameters
        .extend(derive::asked(&filter.statuses).into_iter().map(|status| ("statuses", status.as_str().to_owned())));
    let tags = filter.metadata.iter().chain(&filter.any_metadata).chain(&filter.own_metadata);
    parameters.extend(tags.map(|(key, value)| ("additional_metadata", format!("{key}:{value}"))));
    parameters.extend(filter.event.map(|id| ("triggering_event_external_id", id.to_string())));
    parameters.extend(filter.parent.map(|id| ("parent_task_external_id", id.to_string())));
    parameters.extend(filter.worker.map(|id| ("worker_id", id.to_string())));
    Ok(parameters)
}

pub(super) fn format_time(at: chrono::DateTime<chrono::Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

/// Fetches rows, and checks that they match the query: a server that does not support a filter ignores it.
pub(super) async fn fetch(
    client: &Client,
    parameters: &[(&'static str, String)],
    limit: usize,
    offset: usize,
) -> Result<Vec<RunSummary>> {
    let mut all = parameters.to_vec();
    all.extend([("limit", limit.to_string()), ("offset", offset.to_string())]);
    let rows = client.rpc().rest.runs(&all).await?.rows.unwrap_or_default();
    let tasks = parameters.iter().any(|(name, value)| *name == "only_tasks" && value == "true");
    let asked: Vec<_> =
        parameters.iter().filter(|(name, _)| *name == "statuses").map(|(_, status)| status.as_str()).collect();
    // A row whose status has changed meanwhile is skipped later. If no row matches, the server ignored the filter.
    let fits = |row: &Row| asked.is_empty() || asked.contains(&row.status.as_str());
    if let Some(row) = rows.first().filter(|_| rows.len() >= MIN_MISFITS && !rows.iter().any(fits)) {
        let asked = asked.join(" or ");
        let text = format!("the server was asked for runs that are {asked}, and returned runs that are {}", row.status);
        return Err(Error::new(ErrorKind::Server, text));
    }
    rows.into_iter().map(|row| summary(row, tasks, client.namespace())).collect()
}

/// The server's count of the rows: the number of pages if a page has one row.
async fn count(client: &Client, parameters: &[(&'static str, String)]) -> Result<u64> {
    let mut all = parameters.to_vec();
    all.extend([("limit", "1".to_owned()), ("offset", "0".to_owned())]);
    let Rows { pagination, .. } = client.rpc().rest.runs(&all).await?;
    Ok(u64::try_from(pagination.num_pages).unwrap_or(0))
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
