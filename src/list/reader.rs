//! Reads the matching rows of a list, newest first.

use std::collections::VecDeque;

use super::cursor::{Cursor, CursorError};
use super::derive;
use super::selection::ListRequest;
use crate::error::{Error, ErrorKind, Result};
use crate::model::PageToken;
use crate::rpc::convert::ListRow;

pub(super) struct Reader {
    request: ListRequest,
    cursor: Cursor,
    ready: VecDeque<ListRow>,
    has_ended: bool,
}

impl Reader {
    /// Reads a list from its start or after its token, with this number of rows in one request.
    pub(super) fn new(request: ListRequest, size: usize) -> Self {
        let cursor = match &request.after {
            Some(token) => Cursor::after(size, token),
            None => Cursor::new(size, request.filter.window.end()),
        };
        Self { request, cursor, ready: VecDeque::new(), has_ended: false }
    }

    /// Returns the next row, or `None` at the end. It ends after an error.
    pub(super) async fn next(&mut self) -> Option<Result<ListRow>> {
        loop {
            if let Some(row) = self.ready.pop_front() {
                return Some(Ok(row));
            }
            if self.has_ended {
                return None;
            }
            match self.read(usize::MAX).await {
                Ok(rows) => {
                    self.has_ended = rows.is_none();
                    self.ready.extend(rows.into_iter().flatten());
                }
                Err(error) => {
                    self.has_ended = true;
                    return Some(Err(error));
                }
            }
        }
    }

    /// Reads up to `count` rows, and returns the token of the next page.
    pub(super) async fn page(&mut self, count: usize) -> Result<(Vec<ListRow>, Option<PageToken>)> {
        let mut page = Vec::new();
        while page.len() < count
            && let Some(rows) = self.read(count - page.len()).await?
        {
            page.extend(rows);
        }
        Ok((page, self.cursor.token(self.request.fingerprint)))
    }

    /// Reads the next matching rows, at most `max`. Returns `None` at the end.
    async fn read(&mut self, max: usize) -> Result<Option<Vec<ListRow>>> {
        let Some(page) = self.cursor.request() else { return Ok(None) };
        let mut rows = self.request.fetch(page.until, page.limit, page.offset).await?;
        let failed = |error: CursorError| Error::new(ErrorKind::Server, error.to_string());
        let mut next = self.cursor.clone();
        let new = next.take(rows.clone()).map_err(failed)?;
        let mut matching = self.matching(new).await?;
        // If there are more than requested, only the rows up to the last requested one count as read.
        if let Some(last) = max.checked_sub(1).and_then(|last| matching.get(last)).map(ListRow::key)
            && matching.len() > max
        {
            let end = rows.iter().position(|row| row.key() == last).map_or(rows.len(), |at| at + 1);
            rows.truncate(end);
            matching.truncate(max);
            self.cursor.take_first(rows).map_err(failed)?;
        } else {
            self.cursor = next;
        }
        Ok(Some(matching))
    }

    async fn matching(&self, mut rows: Vec<ListRow>) -> Result<Vec<ListRow>> {
        if self.request.is_in_all_namespaces() {
            rows.retain(|row| !row.is_foreign);
        }
        derive::rows(&self.request, rows).await
    }
}
