//! The position of an iteration over the list. It takes pages, and returns their new rows and the next request.
//!
//! Pages by offset shift when runs are created or leave the filter, and cost more the further they are. So each request begins at the
//! creation time of the last row, with an offset only among the rows of that time: a bulk call creates a thousand. There, a request
//! begins some rows before the last one that was read. Rows keep their order, so if the page has any row that was read before, no
//! other row was missed. If it has none, too many rows have left the filter, and the rows of that time are read again.
//!
//! This requires that rows are in order of the creation time that they show. A page that is not in order is an error, and so is a
//! sequence of pages without new rows: the iteration would never end.

use std::collections::HashSet;
use std::fmt;

use chrono::{DateTime, Utc};

use crate::model::{PageToken, TaskId};
use crate::rpc::convert::ListRow;

/// The maximum number of consecutive pages with neither a new row nor an earlier time. Rows of one creation time are read again when
/// some of them are added or removed, and one call creates at most 1000 of them.
const MAX_IDLE_PAGES: u32 = 100;

/// The maximum number of rows that are read again with each page.
const MAX_OVERLAP: usize = 20;

/// The position.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    size: usize,
    /// The creation time to start at; initially the end of the window.
    until: Option<DateTime<Utc>>,
    /// The rows of that time that have been returned.
    seen: HashSet<TaskId>,
    /// The number of rows of that time that have been passed.
    offset: usize,
    /// The number of consecutive pages without progress.
    idle_pages: u32,
    has_ended: bool,
}

/// The next request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PageRequest {
    pub(super) until: Option<DateTime<Utc>>,
    pub(super) limit: usize,
    pub(super) offset: usize,
}

/// Why an iteration cannot continue.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CursorError {
    /// A row is newer than the row before it, or newer than the requested time.
    OutOfOrder { row: TaskId, created_at: DateTime<Utc>, after: DateTime<Utc> },
    /// Too many consecutive pages without new rows.
    NoProgress,
}

impl fmt::Display for CursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfOrder { row, created_at, after } => write!(
                f,
                "the server's list is not in order of creation: {row}, created at {created_at}, came after {after}"
            ),
            Self::NoProgress => {
                write!(f, "{MAX_IDLE_PAGES} consecutive pages of the server's list had no new rows")
            }
        }
    }
}

impl Cursor {
    pub(super) fn new(size: usize, until: Option<DateTime<Utc>>) -> Self {
        Self { size, until, seen: HashSet::new(), offset: 0, idle_pages: 0, has_ended: false }
    }

    /// Continues after a page.
    pub(super) fn after(size: usize, token: &PageToken) -> Self {
        Self {
            until: Some(token.until),
            seen: token.seen.iter().copied().collect(),
            offset: usize::try_from(token.offset).unwrap_or(usize::MAX),
            ..Self::new(size, None)
        }
    }

    /// The token to continue with, or `None` at the end. `filter` identifies the filter.
    pub(super) fn token(&self, filter: u64) -> Option<PageToken> {
        let until = self.until.filter(|_| !self.has_ended)?;
        let mut seen: Vec<_> = self.seen.iter().copied().collect();
        seen.sort_unstable();
        Some(PageToken { filter, until, offset: u32::try_from(self.offset).ok()?, seen })
    }

    /// The next request, or `None` at the end.
    pub(super) fn request(&self) -> Option<PageRequest> {
        let overlap = self.overlap();
        (!self.has_ended).then(|| PageRequest {
            until: self.until,
            limit: self.size + overlap,
            offset: self.offset.saturating_sub(overlap),
        })
    }

    /// The number of rows at the start of the next page that have been read, if none of them leaves the filter.
    fn overlap(&self) -> usize {
        (self.size / 10).clamp(1, MAX_OVERLAP).min(self.offset)
    }

    /// Takes a page, and returns its new rows. The iteration ends after an error.
    pub(super) fn take(&mut self, rows: Vec<ListRow>) -> Result<Vec<ListRow>, CursorError> {
        let is_last = rows.len() < self.size + self.overlap();
        self.take_rows(rows, is_last)
    }

    /// Takes only the first rows of a page, and returns the new ones.
    pub(super) fn take_first(&mut self, rows: Vec<ListRow>) -> Result<Vec<ListRow>, CursorError> {
        self.take_rows(rows, false)
    }

    fn take_rows(&mut self, rows: Vec<ListRow>, is_last: bool) -> Result<Vec<ListRow>, CursorError> {
        let before = self.until;
        let new = self.check_order(&rows).map(|()| self.new_rows(rows, is_last));
        let is_idle = new.as_ref().is_ok_and(|new| new.is_empty() && self.until == before && !self.has_ended);
        self.idle_pages = if is_idle { self.idle_pages + 1 } else { 0 };
        let new = if self.idle_pages >= MAX_IDLE_PAGES { Err(CursorError::NoProgress) } else { new };
        self.has_ended |= new.is_err();
        new
    }

    fn check_order(&self, rows: &[ListRow]) -> Result<(), CursorError> {
        let mut after = self.until;
        for row in rows {
            let created_at = row.run.created_at;
            if let Some(after) = after.filter(|after| created_at > *after) {
                return Err(CursorError::OutOfOrder { row: row.key(), created_at, after });
            }
            after = Some(created_at);
        }
        Ok(())
    }

    fn new_rows(&mut self, mut rows: Vec<ListRow>, is_last: bool) -> Vec<ListRow> {
        let begins_at = self.offset.saturating_sub(self.overlap());
        if begins_at > 0 && !rows.iter().any(|row| self.seen.contains(&row.key())) {
            self.offset = 0;
            return Vec::new();
        }
        self.has_ended = is_last;
        let Some(created_at) = rows.last().map(|row| row.run.created_at) else { return Vec::new() };
        let passed = rows.iter().filter(|row| row.run.created_at == created_at).count();
        // A page can also contain a row twice.
        let mut in_page = HashSet::new();
        rows.retain(|row| !self.seen.contains(&row.key()) && in_page.insert(row.key()));
        if self.until == Some(created_at) {
            self.offset = begins_at.saturating_add(passed);
        } else {
            self.until = Some(created_at);
            self.seen.clear();
            self.offset = passed;
        }
        self.seen.extend(rows.iter().filter(|row| row.run.created_at == created_at).map(ListRow::key));
        rows
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{RunStatus, RunSummary};
    use proptest::prelude::*;

    fn row(number: u32, second: u32) -> ListRow {
        let run = RunSummary {
            id: format!("00000000-0000-4000-8001-{number:012}").parse().unwrap(),
            parent_task_id: None,
            workflow_id: "00000000-0000-4000-8004-000000000001".parse().unwrap(),
            workflow_name: Some("w".into()),
            status: RunStatus::Completed,
            attempt: 1,
            error: None,
            metadata: BTreeMap::new(),
            engine_metadata: BTreeMap::new(),
            created_at: DateTime::from_timestamp(1_800_000_000 + i64::from(second), 0).unwrap(),
            started_at: None,
            finished_at: None,
        };
        ListRow { run, task: None, is_foreign: false }
    }

    /// The server: newest first, within one time the highest number first.
    fn ask(all: &[(u32, u32)], request: &PageRequest) -> Vec<ListRow> {
        let mut rows: Vec<_> = all.to_vec();
        rows.sort_by_key(|(number, second)| std::cmp::Reverse((*second, *number)));
        let rows = rows.into_iter().map(|(number, second)| row(number, second));
        rows.filter(|row| request.until.is_none_or(|until| row.run.created_at <= until))
            .skip(request.offset)
            .take(request.limit)
            .collect()
    }

    proptest! {
        /// Whichever times runs share, and whichever are created and removed meanwhile: each run that existed all the time is
        /// returned exactly once, in order, and no run is returned twice.
        #[test]
        fn none_twice_and_none_missed(
            size in 1usize..8,
            seconds in proptest::collection::vec(0u32..5, 0..40),
            changes in proptest::collection::vec((0u32..8, any::<proptest::sample::Index>()), 0..20),
        ) {
            let mut all: Vec<(u32, u32)> = seconds.iter().zip(1000..).map(|(second, number)| (number, *second)).collect();
            let mut stayed: HashSet<_> = all.iter().map(|(number, second)| row(*number, *second).run.id).collect();
            let mut cursor = Cursor::new(size, None);
            let mut seen = Vec::new();
            let mut changes = changes.into_iter().zip(5000..);
            let mut requests = 0;
            while let Some(request) = cursor.request() {
                seen.extend(cursor.take(ask(&all, &request)).unwrap());
                match changes.next() {
                    // They may sort before or after the rows of their time that were read.
                    Some(((second, _), number)) if second < 5 => {
                        all.push((if second % 2 == 0 { number } else { number - 4990 }, second));
                    }
                    Some(((_, which), _)) if !all.is_empty() => {
                        let (number, second) = all.remove(which.index(all.len()));
                        stayed.remove(&row(number, second).run.id);
                    }
                    _ => {}
                }
                requests += 1;
                prop_assert!(requests < 500, "it ends");
            }
            let ids: Vec<_> = seen.iter().map(|row| row.run.id).collect();
            let unique: HashSet<_> = ids.iter().copied().collect();
            prop_assert_eq!(unique.len(), ids.len(), "none twice");
            prop_assert!(stayed.is_subset(&unique), "none missed");
            prop_assert!(seen.is_sorted_by_key(|row| std::cmp::Reverse(row.run.created_at)), "newest first");
        }
    }

    proptest! {
        /// Pages that end at any row, and continue from a token in another process, are together the whole list.
        #[test]
        fn pages_by_token_miss_none_and_repeat_none(
            request_size in 1usize..8,
            page_size in 1usize..12,
            seconds in proptest::collection::vec(0u32..4, 0..40),
        ) {
            let all: Vec<(u32, u32)> = seconds.iter().zip(1000..).map(|(second, number)| (number, *second)).collect();
            let (mut seen, mut token) = (Vec::new(), None::<String>);
            for pages in 0.. {
                prop_assert!(pages < 100, "it ends");
                let after = token.as_ref().map(|token| token.parse::<PageToken>().unwrap());
                let mut cursor = after.map_or(Cursor::new(request_size, None), |after| Cursor::after(request_size, &after));
                let mut page = Vec::new();
                while page.len() < page_size && let Some(request) = cursor.request() {
                    let mut rows = ask(&all, &request);
                    let mut next = cursor.clone();
                    let mut new = next.take(rows.clone()).unwrap();
                    let wanted = page_size - page.len();
                    if new.len() > wanted {
                        let last = rows.iter().position(|row| row.key() == new[wanted - 1].key()).unwrap();
                        rows.truncate(last + 1);
                        new.truncate(wanted);
                        cursor.take_first(rows).unwrap();
                    } else {
                        cursor = next;
                    }
                    page.extend(new);
                }
                seen.extend(page.iter().map(|row| row.run.id));
                token = cursor.token(7).map(|token| token.to_string());
                if token.is_none() {
                    break;
                }
            }
            let expected: Vec<_> = ask(&all, &PageRequest { until: None, limit: 100, offset: 0 }).iter().map(|row| row.run.id).collect();
            prop_assert_eq!(seen, expected);
        }
    }

    #[test]
    fn rows_of_one_time_are_read_by_offset_and_others_by_time() {
        let all: Vec<_> = (0..25).map(|number| (number, u32::from(number < 20))).collect();
        let mut cursor = Cursor::new(10, None);
        let mut requests = Vec::new();
        while let Some(request) = cursor.request() {
            requests.push((request.until.map(|until| until.timestamp() - 1_800_000_000), request.offset));
            cursor.take(ask(&all, &request)).unwrap();
        }
        assert_eq!(requests, [(None, 0), (Some(1), 9), (Some(1), 19)], "a tenth of a page is read again");
    }

    proptest! {
        /// A server that answers anything at all: each row comes at most once, and the walk comes to an end.
        #[test]
        fn whatever_the_server_answers_nothing_comes_twice_and_the_walk_ends(
            size in 1usize..6,
            pages in proptest::collection::vec(proptest::collection::vec((0u32..12, 0u32..4), 0..8), 1..12),
        ) {
            let mut cursor = Cursor::new(size, None);
            let (mut seen, mut answers) = (Vec::new(), pages.iter().cycle());
            let mut requests = 0;
            while cursor.request().is_some() {
                // A run keeps its creation time, whatever page it is on.
                let page = answers.next().unwrap().iter().map(|(number, second)| row(number * 4 + second, *second));
                if let Ok(rows) = cursor.take(page.collect()) {
                    seen.extend(rows.iter().map(|row| row.run.id));
                } else {
                    prop_assert_eq!(cursor.request(), None);
                }
                requests += 1;
                prop_assert!(requests < 1000, "it ends");
            }
            let unique: HashSet<_> = seen.iter().copied().collect();
            prop_assert_eq!(unique.len(), seen.len(), "none twice");
        }
    }

    #[test]
    fn pages_newer_than_requested_end_the_iteration() {
        let mut cursor = Cursor::new(2, None);
        cursor.take(vec![row(1, 9), row(2, 8)]).unwrap();
        let error = cursor.take(vec![row(2, 8), row(3, 9), row(4, 9)]).unwrap_err();
        assert!(error.to_string().starts_with("the server's list is not in order of creation: "), "{error}");
        assert_eq!(cursor.request(), None);
    }

    #[test]
    fn repeated_pages_end_the_iteration() {
        let mut cursor = Cursor::new(2, None);
        let mut answers = 0;
        let error = loop {
            answers += 1;
            assert!(answers < 1000, "it ends");
            if let Err(error) = cursor.take(vec![row(1, 9), row(2, 9), row(3, 9)]) {
                break error;
            }
        };
        assert_eq!(error, CursorError::NoProgress);
    }
}
