//! Actions on all runs that match a filter. Memory is bounded, except for the ids of the runs, which are kept so that no run is
//! acted on twice.

use std::collections::HashSet;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _, unfold};

use super::items::RunItems;
use super::query::RunQuery;
use super::selection::Selection;
use crate::client::Client;
use crate::config::RetryPolicy;
use crate::error::Result;
use crate::model::{BulkReport, RunAction, RunFilter, RunId, RunReport, RunStatus};
use crate::run::cancel::{self, CancelOptions};
use crate::run::replay::{self, ReplayOptions};

impl RunQuery {
    /// Prepares a cancel of all matching runs. If the filter has no status, runs that have ended are omitted, also from the report. If it
    /// has, they are reported as skipped. If the client has a namespace, only runs of workflows in that namespace match.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
    /// use std::time::Duration;
    /// use hatchet::RunFilter;
    /// use hatchet::model::Window;
    ///
    /// let hour = RunFilter::new(Window::last(Duration::from_secs(3600))).workflow("greet");
    /// let report = hatchet.runs(hour).cancel().reason("bad deploy").send().await?;
    /// println!("{report}"); // 1200 cancelled, 3 finished first
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel(&self) -> BulkCancel {
        BulkCancel { query: self.clone(), options: CancelOptions::default() }
    }

    /// Prepares a replay of all matching runs. If the filter has no status, runs that have not ended are omitted, also from the report,
    /// and so are cancelled runs unless they are [requested](BulkReplay::even_if_cancelled). If it has, they are reported as skipped.
    pub fn replay(&self) -> BulkReplay {
        BulkReplay { query: self.clone(), options: ReplayOptions::default() }
    }
}

/// A cancel of all matching runs that is about to be sent; see [`RunQuery::cancel`].
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// use hatchet::model::Window;
///
/// let report = hatchet.runs(Window::all()).cancel().reason("end of the season").by("ada").send().await?;
/// println!("{}", report.applied);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is cancelled before `send` or `reports`"]
pub struct BulkCancel {
    query: RunQuery,
    options: CancelOptions,
}

impl BulkCancel {
    /// Sets the deadline of each call of this request, from 1 ms to 24 hours. The default is the configured
    /// [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.request.timeout = Some(timeout);
        self
    }

    /// Sets how often the calls of this request are retried. The default is the configured
    /// [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options.request.retry = Some(policy);
        self
    }

    /// Sets the reason, of 1 to 4000 characters. It is written to the log of the runs' tasks, where the dashboard shows it, and
    /// [`RunDetails::cancellation`](crate::model::RunDetails::cancellation) contains it. By default there is no reason.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.options.reason = Some(reason.into());
        self
    }

    /// Sets who requests the cancel, in 1 to 200 characters. It is stored with the reason.
    pub fn by(mut self, who: impl Into<String>) -> Self {
        self.options.by = Some(who.into());
        self
    }

    /// Sets how long the cancel may take to have an effect before it is reported as not taken. The default is 10 seconds, the maximum
    /// ten years.
    pub fn within(mut self, time: std::time::Duration) -> Self {
        self.options.within = time;
        self
    }

    /// Cancels the runs, and returns the numbers of their results. [`reports`](Self::reports) returns a report for each run.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for the filter, the reason or the name, and the errors of the first page of
    /// the list. A later error is in [`BulkReport::stopped_by`].
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, some or all of the runs may be cancelled.
    pub async fn send(self) -> Result<BulkReport> {
        self.reports()?.sum(RunAction::Cancel).await
    }

    /// Returns a stream with a report for each run, which cancels the runs while it is polled. Dropping the stream stops it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for the reason or the name.
    pub fn reports(self) -> Result<RunReports> {
        self.options.check()?;
        let filter = with_statuses(&self.query, &[RunStatus::Queued, RunStatus::Running]);
        let options = self.options;
        let client = self.query.client().with(options.request)?;
        Ok(RunReports::new(client, filter, cancel::BATCH, move |client, runs| {
            let options = options.clone();
            Box::pin(async move { cancel::batch(&client, &runs, &options).await })
        }))
    }
}

/// A replay of all matching runs that is about to be sent; see [`RunQuery::replay`].
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// use hatchet::model::Window;
/// use hatchet::{RunFilter, RunStatus};
///
/// let failed = RunFilter::new(Window::all()).status(RunStatus::Failed);
/// println!("{}", hatchet.runs(failed).replay().send().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is replayed before `send` or `reports`"]
pub struct BulkReplay {
    query: RunQuery,
    options: ReplayOptions,
}

impl BulkReplay {
    /// Sets the deadline of each call of this request, from 1 ms to 24 hours. The default is the configured
    /// [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.request.timeout = Some(timeout);
        self
    }

    /// Sets how often the calls of this request are retried. The default is the configured
    /// [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options.request.retry = Some(policy);
        self
    }

    /// Also replays runs that were cancelled. By default, they are refused, and a replay by a filter without a status skips them,
    /// because they were cancelled on purpose.
    pub fn even_if_cancelled(mut self) -> Self {
        self.options.even_if_cancelled = true;
        self
    }

    /// Replays the runs in batches of 100, and returns the numbers of their results. The next batch starts when all runs of the last
    /// one run again. [`reports`](Self::reports) returns a report for each run.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for the filter, and the errors of the first page of the list. A later error is
    /// in [`BulkReport::stopped_by`].
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, some or all of the runs may be replayed.
    pub async fn send(self) -> Result<BulkReport> {
        self.reports()?.sum(RunAction::Replay).await
    }

    /// Returns a stream with a report for each run, which replays the runs while it is polled. Dropping the stream stops it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for the timeout. Errors of the list are in the stream.
    pub fn reports(self) -> Result<RunReports> {
        let mut ended = vec![RunStatus::Completed, RunStatus::Failed, RunStatus::TimedOut];
        if self.options.even_if_cancelled {
            ended.push(RunStatus::Cancelled);
        }
        let filter = with_statuses(&self.query, &ended);
        let options = self.options;
        let client = self.query.client().with(options.request)?;
        Ok(RunReports::new(client, filter, replay::BATCH, move |client, runs| {
            Box::pin(async move { replay::batch(&client, &runs, options).await })
        }))
    }
}

/// The filter, for runs with these statuses if it has none itself.
fn with_statuses(query: &RunQuery, statuses: &[RunStatus]) -> RunFilter {
    let mut filter = query.filter().clone();
    if filter.statuses.is_empty() {
        filter.statuses = statuses.to_vec();
    }
    filter
}

type Act = Box<dyn Fn(Client, Vec<RunId>) -> BoxFuture<'static, Vec<RunReport>> + Send>;

/// A stream with a report for each run; see [`BulkCancel::reports`] and [`BulkReplay::reports`]. It ends after an error.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// use hatchet::model::Window;
///
/// let mut reports = hatchet.runs(Window::all()).cancel().reports()?;
/// while let Some(report) = reports.next().await {
///     println!("{}", report?);
/// }
/// # Ok(())
/// # }
/// ```
pub struct RunReports(Pin<Box<dyn Stream<Item = Result<RunReport>> + Send>>);

impl RunReports {
    fn new(
        client: Client,
        filter: RunFilter,
        batch: usize,
        act: impl Fn(Client, Vec<RunId>) -> BoxFuture<'static, Vec<RunReport>> + Send + 'static,
    ) -> Self {
        let items = RunItems::new(Selection::of_runs(client.clone(), filter), None);
        // The list may contain a run twice. No run is acted on twice.
        let state = (client, items, HashSet::new(), Box::new(act) as Act);
        let batches = unfold(Some(state), move |state| async move {
            let (client, mut items, mut acted_on, act) = state?;
            let (mut runs, mut failed) = (Vec::new(), None);
            while runs.len() < batch {
                match items.next().await {
                    Some(Ok(run)) if acted_on.insert(run.id) => runs.push(run.id),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        failed = Some(error);
                        break;
                    }
                    None => break,
                }
            }
            let (is_last, is_empty) = (failed.is_some() || runs.len() < batch, runs.is_empty() && failed.is_none());
            if is_empty {
                return None;
            }
            let reports = if runs.is_empty() { Vec::new() } else { act(client.clone(), runs).await };
            let reports = reports.into_iter().map(Ok).chain(failed.map(Err)).collect::<Vec<_>>();
            Some((stream::iter(reports), (!is_last).then_some((client, items, acted_on, act))))
        });
        Self(Box::pin(batches.flatten().fuse()))
    }

    /// Returns the next report, or `None` at the end.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, the next call continues.
    pub async fn next(&mut self) -> Option<Result<RunReport>> {
        self.0.next().await
    }

    /// Reads the stream to its end.
    async fn sum(mut self, action: RunAction) -> Result<BulkReport> {
        let mut all = BulkReport::new(action);
        while let Some(report) = self.next().await {
            match report {
                Ok(report) => all.add(report),
                // The results so far must be reported.
                Err(error) if all.total() > 0 => all.stopped_by = Some(error),
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }
}

impl Stream for RunReports {
    type Item = Result<RunReport>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for RunReports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunReports")
    }
}
