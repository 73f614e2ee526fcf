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
use crate::boxed::BoxStream;
use crate::client::Client;
use crate::config::{RequestOptions, RetryPolicy};
use crate::error::Result;
use crate::model::{BulkReport, RunAction, RunId, RunReport, RunStatus};
use crate::run::cancel::{self, CancelOptions};
use crate::run::replay::{self, Replay};

impl RunQuery {
    /// Returns a builder for a cancellation of all matching runs.
    ///
    /// If the filter has no status, runs that have ended are omitted, even from the report. If the filter has a status, runs that have
    /// ended are reported as skipped. If the client has a namespace, only runs of workflows in that namespace match.
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
    pub fn cancel(&self) -> BulkCancelBuilder {
        BulkCancelBuilder { query: self.clone(), options: CancelOptions::default() }
    }

    /// Returns a builder for a replay of all matching runs.
    ///
    /// If the filter has no status, runs that have not ended are omitted, even from the report, and so are cancelled runs unless they are
    /// [included](BulkReplayBuilder::include_cancelled). If the filter has a status, such runs are reported as skipped.
    pub fn replay(&self) -> BulkReplayBuilder {
        BulkReplayBuilder { query: self.clone(), command: Replay::default() }
    }
}

/// A builder for a cancellation of all matching runs; see [`RunQuery::cancel`].
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
#[must_use = "nothing is cancelled until `send` is awaited or the stream from `reports` is polled"]
pub struct BulkCancelBuilder {
    query: RunQuery,
    options: CancelOptions,
}

impl BulkCancelBuilder {
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

    /// Cancels the runs, and returns how many runs had each effect. [`reports`](Self::reports) returns a report for each run.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the filter, the reason, the author, the time limit or the timeout is invalid,
    /// and the errors of the first page of the list. A later error is in [`BulkReport::stopped_by`].
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, some or all of the runs may be cancelled.
    pub async fn send(self) -> Result<BulkReport> {
        self.reports().sum(RunAction::Cancel).await
    }

    /// Returns a stream that cancels the runs while it is polled, with a report for each run.
    ///
    /// Dropping the stream stops the cancellation, but batches that have been sent still take effect.
    ///
    /// An error is the last item; see [`RunReports::next`].
    pub fn reports(self) -> RunReports {
        let checked = self.options.check();
        let Self { query, options } = self;
        let selection = selection(&query, [RunStatus::Queued, RunStatus::Running], options.request);
        RunReports::new(
            checked,
            selection,
            cancel::RUNS_PER_CALL,
            cancel::MAX_CONCURRENT_BATCHES,
            move |client, runs| {
                let options = options.clone();
                Box::pin(async move { cancel::batch(&client, &runs, &options).await })
            },
        )
    }
}

/// A builder for a replay of all matching runs; see [`RunQuery::replay`].
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
#[must_use = "nothing is replayed until `send` is awaited or the stream from `reports` is polled"]
pub struct BulkReplayBuilder {
    query: RunQuery,
    command: Replay,
}

impl BulkReplayBuilder {
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
    /// By default, they are not replayed, because someone cancelled them on purpose: they are omitted if the filter has no status, and
    /// reported as skipped if it has one.
    pub fn include_cancelled(mut self) -> Self {
        self.command.options.include_cancelled = true;
        self
    }

    /// Replays the runs in batches of 100, and returns how many runs had each effect.
    ///
    /// The next batch is sent when all runs of the previous batch run again. [`reports`](Self::reports) returns a report for each run.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the filter is invalid, and the errors of the first page of the list. A later error is
    /// in [`BulkReport::stopped_by`].
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, some or all of the runs may be replayed.
    pub async fn send(self) -> Result<BulkReport> {
        self.reports().sum(RunAction::Replay).await
    }

    /// Returns a stream that replays the runs while it is polled, with a report for each run.
    ///
    /// Dropping the stream stops the replays, but batches that have been sent still take effect.
    ///
    /// An error is the last item; see [`RunReports::next`].
    pub fn reports(self) -> RunReports {
        let mut ended = vec![RunStatus::Completed, RunStatus::Failed, RunStatus::TimedOut];
        if self.command.options.include_cancelled {
            ended.push(RunStatus::Cancelled);
        }
        let Self { query, command } = self;
        // The engine loses replays if there are many at once.
        RunReports::new(
            Ok(()),
            selection(&query, ended, command.request),
            replay::RUNS_PER_CALL,
            1,
            move |client, runs| {
                let command = command.clone();
                Box::pin(async move { replay::batch(&client, &runs, &command).await })
            },
        )
    }
}

/// What a command selects: what its query does, and runs with these statuses if the filter has none. Options of the command replace
/// those of the query.
fn selection(query: &RunQuery, statuses: impl Into<Vec<RunStatus>>, options: RequestOptions) -> Selection {
    let selection = query.selection().clone();
    Selection { default_statuses: statuses.into(), request: options.or(selection.request), ..selection }
}

/// A stream with a report for each run; see [`BulkCancelBuilder::reports`] and [`BulkReplayBuilder::reports`].
///
/// The stream ends after an error.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// use hatchet::model::Window;
///
/// let mut reports = hatchet.runs(Window::all()).cancel().reports();
/// while let Some(report) = reports.next().await {
///     println!("{}", report?);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is sent before the stream is polled"]
pub struct RunReports(BoxStream<Result<RunReport>>);

impl RunReports {
    /// The reports on the runs of a selection, or the error of the command or of the selection as the only item.
    fn new(
        checked: Result<()>,
        selection: Selection,
        batch: usize,
        concurrency: usize,
        act: impl Fn(Client, Vec<RunId>) -> BoxFuture<'static, Vec<RunReport>> + Send + 'static,
    ) -> Self {
        let client = match checked.and_then(|()| selection.client.with(selection.request)) {
            Ok(client) => client,
            Err(error) => return Self(BoxStream::new(stream::iter([Err(error)]))),
        };
        let items = RunItems::new(selection);
        // The list may contain a run twice. No run is acted on twice.
        let batches = unfold(Some((items, HashSet::new())), move |state| async move {
            let (mut items, mut acted_on) = state?;
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
            (!is_empty).then(|| ((runs, failed), (!is_last).then_some((items, acted_on))))
        });
        let reports = batches.map(move |(runs, failed)| {
            let reports = (!runs.is_empty()).then(|| act(client.clone(), runs));
            async move {
                let reports = match reports {
                    Some(reports) => reports.await,
                    None => Vec::new(),
                };
                stream::iter(reports.into_iter().map(Ok).chain(failed.map(Err)).collect::<Vec<_>>())
            }
        });
        Self(BoxStream::new(reports.buffered(concurrency).flatten()))
    }

    /// Returns the next report, or `None` at the end.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the filter or an option of the command is invalid, and the errors of
    /// [`RunQuery::page`](crate::builder::RunQuery::page). An error is the last item. The error of an action on one run is in the report on
    /// that run.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no report is lost, and the next call continues.
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
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for RunReports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunReports")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::{Engine, Fault};
    use crate::model::Window;
    use crate::workflow::{Context, Task};

    /// An engine with this many queued runs, which were created one after the other.
    async fn queued(count: usize) -> Engine {
        let engine = Engine::start().await.unwrap();
        let task: Task<(), ()> = Task::new("task", async |(): (), _: Context| Ok(()));
        let worker = engine.client().worker("worker").register(&task).build().unwrap().start().await.unwrap();
        worker.shutdown().await;
        for _ in 0..count {
            engine.client().run(&task, &()).start().await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        engine
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_after_a_page_is_for_the_runs_after_that_page() {
        let engine = queued(5).await;
        let all = engine.client().runs(Window::all());
        let newest = all.page(2).await.unwrap();
        let rest = all.clone().after(newest.next.unwrap());
        assert_eq!(rest.cancel().send().await.unwrap().applied, 3);
        let remaining = all.cancel().send().await.unwrap();
        assert_eq!(remaining.applied, 2, "{remaining}");
        assert_eq!(newest.items.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn options_of_the_query_apply_to_its_commands() {
        let engine = queued(1).await;
        engine.faults().inject("CancelTasks", Fault::Delay(Duration::from_secs(20))).unwrap();
        let all = engine.client().runs(Window::all());
        let second = Duration::from_secs(1);
        let sent_at = tokio::time::Instant::now();
        let mut reports = all.clone().timeout(second).cancel().within(second).reports();
        reports.next().await.unwrap().unwrap();
        // One second for the call, and one for its effect. The last fetch waits for REST.
        assert!((2 * second..3 * second).contains(&sent_at.elapsed()), "{:?}", sent_at.elapsed());
        let invalid = all.timeout(Duration::ZERO);
        let first = async |mut reports: RunReports| reports.next().await;
        let error = first(invalid.cancel().reports()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::InvalidInput);
        // Options of the command replace those of the query.
        assert!(first(invalid.cancel().timeout(second).reports()).await.unwrap().is_ok());
    }
}
