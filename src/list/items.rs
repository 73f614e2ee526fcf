//! A stream of all matching runs.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::StreamExt as _;
use futures_util::stream::unfold;

use super::cursor::Cursor;
use super::derive;
use super::query::{Parameters, fetch, format_time, parameters};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{RunFilter, RunSummary};

/// The number of rows in one request.
const PAGE_SIZE: usize = 200;

/// A stream of all runs that match a filter, newest first; see [`RunQuery::items`](crate::builder::RunQuery::items).
///
/// Every page has the same cost. Runs that are created during the iteration do not disturb it: no run is returned twice, and no run
/// that existed at the start is missed. The stream ends after an error. It also returns an error if the server's pages are not in
/// order or make no progress. Nothing is sent before the first item is requested. In a namespace without a workflow name, the
/// runs of other namespaces are read and skipped.
pub struct RunItems(Pin<Box<dyn Stream<Item = Result<RunSummary>> + Send>>);

impl RunItems {
    pub(super) fn new(client: Client, filter: RunFilter) -> Self {
        Self::of_pages(client, filter, PAGE_SIZE)
    }

    pub(super) fn of_pages(client: Client, filter: RunFilter, size: usize) -> Self {
        let reader = Reader { client, filter, size, position: None, ready: VecDeque::new(), has_ended: false };
        Self(Box::pin(unfold(reader, |mut reader| async move { Some((reader.next().await?, reader)) }).fuse()))
    }

    /// Returns the next run, or `None` at the end.
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
        self.0.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for RunItems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunItems")
    }
}

struct Reader {
    client: Client,
    filter: RunFilter,
    /// The number of rows in one request.
    size: usize,
    /// The query parameters without the end of the window, and the position. Created for the first item.
    position: Option<(Parameters, Cursor)>,
    ready: VecDeque<RunSummary>,
    has_ended: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<RunSummary>> {
        loop {
            if let Some(run) = self.ready.pop_front() {
                return Some(Ok(run));
            }
            if self.has_ended {
                return None;
            }
            match self.page().await {
                Ok(Some(runs)) => self.ready.extend(runs),
                Ok(None) => self.has_ended = true,
                Err(error) => {
                    self.has_ended = true;
                    return Some(Err(error));
                }
            }
        }
    }

    async fn page(&mut self) -> Result<Option<Vec<RunSummary>>> {
        let (parameters, cursor) = if let Some(position) = &mut self.position {
            position
        } else {
            let mut parameters = parameters(&self.client, &self.filter).await?;
            parameters.retain(|(name, _)| *name != "until");
            self.position.insert((parameters, Cursor::new(self.size, self.filter.window.until())))
        };
        let Some(question) = cursor.question() else { return Ok(None) };
        let mut all = parameters.clone();
        all.extend(question.until.map(|until| ("until", format_time(until))));
        let rows = fetch(&self.client, &all, question.limit, question.offset).await?;
        let mut new = cursor.take(rows).map_err(|error| Error::new(ErrorKind::Server, error.to_string()))?;
        if self.filter.is_of_all_workflows() {
            new.retain(|run| !run.is_foreign);
        }
        derive::rows(&self.client, &self.filter, new).await.map(Some)
    }
}
