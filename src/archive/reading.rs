//! Reads the rows of an archive that match a filter, newest first, each run once.
//!
//! Rows of one day are merged from the files of that day. Files are sorted, so all rows of a run are neighbours in the merged order: the
//! newest of them is the run's.

use std::collections::{BTreeMap, VecDeque};

use chrono::NaiveDate;
use futures_util::stream::{self, StreamExt as _};

use super::convert::{age, key};
use super::decode::FileReader;
use super::filter::Criteria;
use super::manifest::{File, Partition, State};
use super::schema::{Column, Row};
use super::store::Store;
use crate::error::{Error, Result};

/// The number of files of a day that are read at the same time.
const MAX_CONCURRENT_READS: usize = 8;

/// Reads matching rows. It needs memory for one row group of each file of one day.
pub(super) struct Reading {
    store: Store,
    criteria: Criteria,
    columns: &'static [Column],
    /// The files of the days that have not been read yet, the next day last.
    days: Vec<(NaiveDate, Vec<File>)>,
    sources: Vec<Source>,
    /// Whether a file that was opened has the schema of another version of the crate.
    has_other_schema: bool,
    /// The errors of files that cannot be read.
    errors: VecDeque<Error>,
    /// The newest row of the run that is being read.
    run: Option<Row>,
}

/// The files of a state that can contain matching runs.
pub(super) fn matching_files<'a>(state: &'a State, criteria: &Criteria) -> Vec<&'a File> {
    let mut files_in: BTreeMap<&Partition, usize> = BTreeMap::new();
    for file in state.files() {
        *files_in.entry(&file.partition).or_default() += 1;
    }
    let is_only_file = |file: &File| files_in.get(&file.partition) == Some(&1);
    let files = state.files().filter(|file| criteria.overlaps_day(file.partition.day));
    files.filter(|file| criteria.may_match_file(file, is_only_file(file))).collect()
}

/// The rows of one file.
struct Source {
    file: FileReader,
    next_group: usize,
    rows: VecDeque<Row>,
}

impl Source {
    /// Reads the next row group with rows that may match, if there are no rows left.
    async fn fill(mut self, criteria: &Criteria, columns: &'static [Column]) -> (Self, Result<()>) {
        while self.rows.is_empty() && self.next_group < self.file.groups() {
            let group = self.next_group;
            self.next_group += 1;
            if criteria.may_match_group(&self.file, group) {
                match self.file.rows(group, columns).await {
                    Ok(rows) => self.rows.extend(rows),
                    // The file is damaged: nothing else of it is read.
                    Err(error) => {
                        self.next_group = self.file.groups();
                        return (self, Err(error));
                    }
                }
            }
        }
        (self, Ok(()))
    }
}

impl Reading {
    /// Reads the matching rows of a state.
    pub(super) fn new(store: Store, state: &State, criteria: Criteria, columns: &'static [Column]) -> Self {
        let files = matching_files(state, &criteria).into_iter().cloned().collect();
        Self::of_files(store, files, criteria, columns)
    }

    /// Reads the matching rows of some files.
    pub(super) fn of_files(store: Store, files: Vec<File>, criteria: Criteria, columns: &'static [Column]) -> Self {
        let mut days: BTreeMap<NaiveDate, Vec<File>> = BTreeMap::new();
        for file in files {
            days.entry(file.partition.day).or_default().push(file);
        }
        Self {
            store,
            criteria,
            columns,
            days: days.into_iter().collect(),
            sources: Vec::new(),
            has_other_schema: false,
            errors: VecDeque::new(),
            run: None,
        }
    }

    /// Whether a file of the days that were read so far has the schema of another version of the crate.
    pub(super) fn has_other_schema(&self) -> bool {
        self.has_other_schema
    }

    /// Returns the next row, or `None` at the end. After an error, it continues with what can be read.
    pub(super) async fn next(&mut self) -> Option<Result<Row>> {
        loop {
            if let Some(error) = self.errors.pop_front() {
                return Some(Err(error));
            }
            self.fill().await;
            let complete = match self.pop() {
                Some(row) => self.merge(row),
                // The days have different runs.
                None => match self.run.take() {
                    None if self.errors.is_empty() => {
                        self.open_next().await?;
                        None
                    }
                    run => run,
                },
            };
            let Some(run) = complete else { continue };
            match self.criteria.matches(&run) {
                Ok(true) => return Some(Ok(run)),
                Ok(false) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Adds the next row of the merged order. Returns the run before it, if it is another.
    fn merge(&mut self, row: Row) -> Option<Row> {
        let run = self.run.get_or_insert_with(|| row.clone());
        if key(run) != key(&row) {
            return Some(std::mem::replace(run, row));
        }
        if age(&row) > age(run) {
            *run = row;
        }
        None
    }

    /// Opens the files of the next day. Returns `None` at the end.
    async fn open_next(&mut self) -> Option<()> {
        let (_, files) = self.days.pop()?;
        let store = &self.store;
        let opened = stream::iter(files).map(|file| async move { FileReader::open(store, &file).await });
        let opened: Vec<_> = opened.buffered(MAX_CONCURRENT_READS).collect().await;
        for file in opened {
            match file {
                Ok(file) => {
                    self.has_other_schema |= !file.is_current();
                    self.sources.push(Source { file, next_group: 0, rows: VecDeque::new() });
                }
                Err(error) => self.errors.push_back(error),
            }
        }
        Some(())
    }

    /// Reads a row group of each source that has no rows left, and removes the sources that have none.
    async fn fill(&mut self) {
        if self.sources.iter().all(|source| !source.rows.is_empty()) {
            return;
        }
        let (criteria, columns) = (&self.criteria, self.columns);
        let filled = stream::iter(std::mem::take(&mut self.sources)).map(|source| source.fill(criteria, columns));
        let filled: Vec<_> = filled.buffered(MAX_CONCURRENT_READS).collect().await;
        for (source, result) in filled {
            if !source.rows.is_empty() {
                self.sources.push(source);
            }
            self.errors.extend(result.err());
        }
    }

    /// Removes the next row of the merged order.
    fn pop(&mut self) -> Option<Row> {
        let rows = self.sources.iter_mut().filter(|source| !source.rows.is_empty());
        let next = rows.max_by(|one, other| one.rows.front().and_then(key).cmp(&other.rows.front().and_then(key)))?;
        next.rows.pop_front()
    }
}
