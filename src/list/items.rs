//! Streams of all matching runs, and of all matching tasks.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::StreamExt as _;

use super::reader::Reader;
use super::selection::Selection;
use crate::boxed::BoxStream;
use crate::error::Result;
use crate::model::{RunSummary, TaskSummary};
use crate::rpc::convert::ListRow;

/// The number of rows in one request.
const PAGE_SIZE: usize = 200;

fn items<T: From<ListRow> + Send + 'static>(selection: Selection) -> BoxStream<Result<T>> {
    let open = async move { Ok(Box::new(Reader::new(selection.resolve().await?, PAGE_SIZE))) };
    BoxStream::opened(open, |mut reader: Box<Reader>| async move {
        let row = reader.next().await?;
        Some((row.map(T::from), Some(reader)))
    })
}

/// A stream of all runs that match a filter, newest first; see [`RunQuery::items`](crate::builder::RunQuery::items).
///
/// Every page has the same cost, except for failed runs without an error message: for each of them, the events of the run are fetched, too,
/// because the list does not distinguish it from a run that timed out. Runs that are created during the iteration do not affect it: no run
/// is returned twice, and no run that existed at the start is missed. The stream ends after an error. It also returns an error if the
/// server's pages are not in order or make no progress. Nothing is sent before the first item is requested. If the client has a namespace
/// and the filter has no workflow, the runs of other namespaces are read and skipped.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// use hatchet::model::Window;
///
/// let mut runs = hatchet.runs(Window::all()).items();
/// while let Some(run) = runs.next().await {
///     println!("{}", run?.id);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is sent before the stream is polled"]
pub struct RunItems(BoxStream<Result<RunSummary>>);

impl RunItems {
    pub(super) fn new(selection: Selection) -> Self {
        Self(items(selection))
    }

    /// Returns the next run, or `None` at the end.
    ///
    /// # Errors
    /// The errors of [`RunQuery::page`](super::RunQuery::page). An error is the last item.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no run is lost.
    pub async fn next(&mut self) -> Option<Result<RunSummary>> {
        self.0.next().await
    }
}

impl Stream for RunItems {
    type Item = Result<RunSummary>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for RunItems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunItems")
    }
}

/// A stream of all tasks that match a filter, newest first; see [`TaskQuery::items`](crate::builder::TaskQuery::items).
///
/// The stream behaves like [`RunItems`].
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// use hatchet::model::Window;
///
/// let mut tasks = hatchet.tasks(Window::all()).items();
/// while let Some(task) = tasks.next().await {
///     println!("{:?}", task?.name);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is sent before the stream is polled"]
pub struct TaskItems(BoxStream<Result<TaskSummary>>);

impl TaskItems {
    pub(super) fn new(selection: Selection) -> Self {
        Self(items(selection))
    }

    /// Returns the next task, or `None` at the end.
    ///
    /// # Errors
    /// The errors of [`RunQuery::page`](super::RunQuery::page). An error is the last item.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no task is lost.
    pub async fn next(&mut self) -> Option<Result<TaskSummary>> {
        self.0.next().await
    }
}

impl Stream for TaskItems {
    type Item = Result<TaskSummary>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for TaskItems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskItems")
    }
}
