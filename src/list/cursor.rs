//! The position of an iteration over the list. Pure: it takes pages, and returns new rows and the next request.
//!
//! Pages by offset shift when runs come and go, and cost more the further they are. So each question begins at the creation
//! time of the last row, with an offset only among the rows that share it: a bulk of a thousand does. There, a question begins
//! some rows before the last one that was seen. Rows keep their order, so if any row of the page was seen before, none that was
//! not is before the page. If none was, too many rows have left the filter, and the rows of that time are read again.
//!
//! This requires that rows are in order of the creation time that they show. A page that is not in order is an error, and so is a
//! sequence of pages without new rows: the iteration would never end.

use std::collections::HashSet;
use std::fmt;

use chrono::{DateTime, Utc};

use crate::model::{RunSummary, TaskId};

/// The maximum number of consecutive pages with neither a new row nor an earlier time. Rows of one creation time are read again when
/// some of them are added or removed, and one call creates at most 1000 of them.
const MAX_IDLE_ANSWERS: u32 = 100;

/// How many rows at most are read again with each page.
const MAX_OVERLAP: usize = 20;

/// The walk.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    size: usize,
    /// The creation time to start at; initially the end of the window.
    until: Option<DateTime<Utc>>,
    /// The rows of that time that have been returned.
    seen: HashSet<TaskId>,
    /// The number of rows of that time that have been passed.
    offset: usize,
    /// How many answers in a row have led nowhere.
    idle_answers: u32,
    over: bool,
}

/// The next request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) until: Option<DateTime<Utc>>,
    pub(super) limit: usize,
    pub(super) offset: usize,
}

/// Why an iteration cannot continue.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WalkError {
    /// A row is newer than the row before it, or newer than the requested time.
    OutOfOrder { row: TaskId, created_at: DateTime<Utc>, after: DateTime<Utc> },
    /// Too many consecutive pages without new rows.
    NoProgress,
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfOrder { row, created_at, after } => write!(
                f,
                "the server's list is not in order of creation: {row}, created at {created_at}, came after {after}"
            ),
            Self::NoProgress => {
                write!(f, "{MAX_IDLE_ANSWERS} consecutive pages of the server's list had no new rows")
            }
        }
    }
}

impl Cursor {
    pub(super) fn new(size: usize, until: Option<DateTime<Utc>>) -> Self {
        Self { size, until, seen: HashSet::new(), offset: 0, idle_answers: 0, over: false }
    }

    /// The next request, or `None` at the end.
    pub(super) fn question(&self) -> Option<Question> {
        let overlap = self.overlap();
        (!self.over).then(|| Question {
            until: self.until,
            limit: self.size + overlap,
            offset: self.offset.saturating_sub(overlap),
        })
    }

    /// How many rows that were seen the next page begins with, if none of them leaves.
    fn overlap(&self) -> usize {
        (self.size / 10).clamp(1, MAX_OVERLAP).min(self.offset)
    }

    /// Takes the answer, and returns what is new in it. After an error the walk is over.
    pub(super) fn take(&mut self, rows: Vec<RunSummary>) -> Result<Vec<RunSummary>, WalkError> {
        let before = self.until;
        let new = self.check_order(&rows).map(|()| self.new_rows(rows));
        let is_idle = new.as_ref().is_ok_and(|new| new.is_empty() && self.until == before && !self.over);
        self.idle_answers = if is_idle { self.idle_answers + 1 } else { 0 };
        let new = if self.idle_answers >= MAX_IDLE_ANSWERS { Err(WalkError::NoProgress) } else { new };
        self.over |= new.is_err();
        new
    }

    fn check_order(&self, rows: &[RunSummary]) -> Result<(), WalkError> {
        let mut after = self.until;
        for row in rows {
            let created_at = row.created_at;
            if let Some(after) = after.filter(|after| created_at > *after) {
                return Err(WalkError::OutOfOrder { row: row.key(), created_at, after });
            }
            after = Some(created_at);
        }
        Ok(())
    }

    fn new_rows(&mut self, mut rows: Vec<RunSummary>) -> Vec<RunSummary> {
        let overlap = self.overlap();
        let begins_at = self.offset.saturating_sub(overlap);
        let full = rows.len() >= self.size + overlap;
        if begins_at > 0 && !rows.iter().any(|row| self.seen.contains(&row.key())) {
            self.offset = 0;
            return Vec::new();
        }
        self.over = !full;
        let Some(created_at) = rows.last().map(|row| row.created_at) else { return Vec::new() };
        let passed = rows.iter().filter(|row| row.created_at == created_at).count();
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
        self.seen.extend(rows.iter().filter(|row| row.created_at == created_at).map(RunSummary::key));
        rows
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::RunStatus;
    use proptest::prelude::*;

    fn row(number: u32, second: u32) -> RunSummary {
        RunSummary {
            id: format!("00000000-0000-4000-8001-{number:012}").parse().unwrap(),
            task_id: None,
            task_name: None,
            parent_task_id: None,
            workflow_id: "00000000-0000-4000-8004-000000000001".parse().unwrap(),
            workflow_name: "w".into(),
            status: RunStatus::Completed,
            attempt: 1,
            error: None,
            metadata: BTreeMap::new(),
            engine_metadata: BTreeMap::new(),
            created_at: DateTime::from_timestamp(1_800_000_000 + i64::from(second), 0).unwrap(),
            started_at: None,
            finished_at: None,
            is_foreign: false,
        }
    }

    /// The server: newest first, within a stamp the highest number first.
    fn ask(all: &[(u32, u32)], question: &Question) -> Vec<RunSummary> {
        let mut rows: Vec<_> = all.to_vec();
        rows.sort_by_key(|(number, second)| std::cmp::Reverse((*second, *number)));
        let rows = rows.into_iter().map(|(number, second)| row(number, second));
        rows.filter(|row| question.until.is_none_or(|until| row.created_at <= until))
            .skip(question.offset)
            .take(question.limit)
            .collect()
    }

    proptest! {
        /// Whatever stamps runs share, and whatever comes and goes meanwhile: each run that was there all the time comes
        /// exactly once, in order, and nothing comes twice.
        #[test]
        fn none_twice_and_none_missed(
            size in 1usize..8,
            seconds in proptest::collection::vec(0u32..5, 0..40),
            changes in proptest::collection::vec((0u32..8, any::<proptest::sample::Index>()), 0..20),
        ) {
            let mut all: Vec<(u32, u32)> = seconds.iter().zip(1000..).map(|(second, number)| (number, *second)).collect();
            let mut stayed: HashSet<_> = all.iter().map(|(number, second)| row(*number, *second).id).collect();
            let mut cursor = Cursor::new(size, None);
            let mut seen = Vec::new();
            let mut changes = changes.into_iter().zip(5000..);
            let mut questions = 0;
            while let Some(question) = cursor.question() {
                seen.extend(cursor.take(ask(&all, &question)).unwrap());
                match changes.next() {
                    // They may sort before or after what has been seen of their stamp.
                    Some(((second, _), number)) if second < 5 => {
                        all.push((if second % 2 == 0 { number } else { number - 4990 }, second));
                    }
                    Some(((_, which), _)) if !all.is_empty() => {
                        let (number, second) = all.remove(which.index(all.len()));
                        stayed.remove(&row(number, second).id);
                    }
                    _ => {}
                }
                questions += 1;
                prop_assert!(questions < 500, "it comes to an end");
            }
            let ids: Vec<_> = seen.iter().map(|row| row.id).collect();
            let unique: HashSet<_> = ids.iter().copied().collect();
            prop_assert_eq!(unique.len(), ids.len(), "none twice");
            prop_assert!(stayed.is_subset(&unique), "none missed");
            prop_assert!(seen.is_sorted_by_key(|row| std::cmp::Reverse(row.created_at)), "newest first");
        }
    }

    #[test]
    fn thousands_of_one_stamp_are_walked_through_by_offset_and_then_by_stamp() {
        let all: Vec<_> = (0..25).map(|number| (number, u32::from(number < 20))).collect();
        let mut cursor = Cursor::new(10, None);
        let mut asked = Vec::new();
        while let Some(question) = cursor.question() {
            asked.push((question.until.map(|until| until.timestamp() - 1_800_000_000), question.offset));
            cursor.take(ask(&all, &question)).unwrap();
        }
        assert_eq!(asked, [(None, 0), (Some(1), 9), (Some(1), 19)], "a tenth of a page is read again");
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
            let mut questions = 0;
            while cursor.question().is_some() {
                // A run keeps its creation time, whatever page it is on.
                let page = answers.next().unwrap().iter().map(|(number, second)| row(number * 4 + second, *second));
                if let Ok(rows) = cursor.take(page.collect()) {
                    seen.extend(rows.iter().map(|row| row.id));
                } else {
                    prop_assert_eq!(cursor.question(), None);
                }
                questions += 1;
                prop_assert!(questions < 1000, "it comes to an end");
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
        assert_eq!(cursor.question(), None);
    }

    #[test]
    fn repeated_pages_end_the_iteration() {
        let mut cursor = Cursor::new(2, None);
        let mut answers = 0;
        let error = loop {
            answers += 1;
            assert!(answers < 1000, "it comes to an end");
            if let Err(error) = cursor.take(vec![row(1, 9), row(2, 9), row(3, 9)]) {
                break error;
            }
        };
        assert_eq!(error, WalkError::NoProgress);
    }
}
