//! Reads the matching rows of a list, newest first.

use std::collections::VecDeque;

use super::cursor::Cursor;
use super::derive;
use super::selection::{Parameters, Selection};
use crate::error::{Error, ErrorKind, Result};
use crate::model::PageToken;
use crate::rpc::convert::ListRow;

pub(super) struct Reader {
    selection: Selection,
    /// The number of rows in one request.
    size: usize,
    after: Option<PageToken>,
    /// Created for the first row.
    position: Option<(Parameters, Cursor)>,
    ready: VecDeque<ListRow>,
    has_ended: bool,
}

impl Reader {
    pub(super) fn new(selection: Selection, size: usize, after: Option<PageToken>) -> Self {
        Self { selection, size, after, position: None, ready: VecDeque::new(), has_ended: false }
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
        let token = self.position.as_ref().and_then(|(parameters, cursor)| cursor.token(parameters.fingerprint()));
        Ok((page, token))
    }

    /// Reads the next matching rows, at most `max`. Returns `None` at the end.
    async fn read(&mut self, max: usize) -> Result<Option<Vec<ListRow>>> {
        let selection = &self.selection;
        let (parameters, cursor) = match &mut self.position {
            Some(position) => position,
            none => {
                let parameters = selection.parameters().await?;
                let cursor = match &self.after {
                    Some(token) if token.filter != parameters.fingerprint() => {
                        let problem = "expected a token of a page with the same filter, got one of another filter";
                        return Err(Error::invalid("page token", problem));
                    }
                    Some(token) => Cursor::after(self.size, token),
                    None => Cursor::new(self.size, selection.filter.window.until()),
                };
                none.insert((parameters, cursor))
            }
        };
        let Some(request) = cursor.request() else { return Ok(None) };
        let mut rows = selection.fetch(parameters, request.until, request.limit, request.offset).await?;
        let failed = |error: super::cursor::CursorError| Error::new(ErrorKind::Server, error.to_string());
        let mut next = cursor.clone();
        let new = next.take(rows.clone()).map_err(failed)?;
        let mut matching = matching(selection, new).await?;
        // If there are more than requested, only the rows up to the last requested one count as read.
        if let Some(last) = max.checked_sub(1).and_then(|last| matching.get(last)).map(ListRow::key)
            && matching.len() > max
        {
            let end = rows.iter().position(|row| row.key() == last).map_or(rows.len(), |at| at + 1);
            rows.truncate(end);
            matching.truncate(max);
            cursor.take_first(rows).map_err(failed)?;
        } else {
            *cursor = next;
        }
        Ok(Some(matching))
    }
}

async fn matching(selection: &Selection, mut rows: Vec<ListRow>) -> Result<Vec<ListRow>> {
    if selection.is_in_all_namespaces() {
        rows.retain(|row| !row.is_foreign);
    }
    derive::rows(&selection.client, &selection.filter, rows).await
}
