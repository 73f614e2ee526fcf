//! Reads the rows of an archive that match a filter, newest first, each run once.
//!
//! Files are sorted, so all rows of a run are neighbors in the merged order: the newest of them is the run's. A file is opened when the
//! merged order arrives at its newest row, so only files with runs of the same time are open at once.

use std::cmp::Ordering;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use futures_util::stream::{self, StreamExt as _};

use super::convert::{age, key};
use super::decode::FileReader;
use super::filter::Criteria;
use super::manifest::{File, Partition, State};
use super::schema::{Column, Row};
use super::store::Store;
use crate::error::{Error, ErrorKind, Result};

/// The number of files that are opened or read at the same time.
const MAX_CONCURRENT_READS: usize = 8;

/// Reads matching rows. It needs memory for one row group of each file that has runs of the same time.
pub(super) struct Reading {
    store: Store,
    criteria: Criteria,
    columns: &'static [Column],
    /// Whether the rows of damaged row groups are read without what is damaged.
    is_salvaging: bool,
    /// The files that have not been opened yet, the one with the newest row last.
    closed: Vec<File>,
    /// The files that are open, each with its next rows.
    open: BinaryHeap<Source>,
    /// Whether a file that was opened has the schema of a newer version of the crate.
    has_newer_schema: bool,
    /// The errors of files that cannot be read.
    errors: VecDeque<Error>,
    /// The paths of files that are damaged or missing.
    damaged_files: Vec<String>,
    /// The newest row of the run that is being read.
    run: Option<Row>,
}

/// The files of a state that can contain matching runs, and those that can have newer versions of these runs, with other statuses.
pub(super) fn matching_files<'a>(state: &'a State, criteria: &Criteria) -> Vec<&'a File> {
    let files =
        || state.files().filter(|file| criteria.overlaps_day(file.partition.day) && criteria.may_match_file(file));
    if !criteria.has_statuses() {
        return files().collect();
    }
    let mut wanted: BTreeMap<&Partition, Vec<&File>> = BTreeMap::new();
    for file in files().filter(|file| criteria.has_wanted_status(file)) {
        wanted.entry(&file.partition).or_default().push(file);
    }
    // All versions of a run have the same creation time.
    files()
        .filter(|file| wanted.get(&file.partition).is_some_and(|wanted| wanted.iter().any(|one| one.overlaps(file))))
        .collect()
}

/// The rows of one file. The order is that of the next rows: the greatest is the newest.
struct Source {
    file: FileReader,
    next_group: usize,
    rows: VecDeque<Row>,
    is_salvaging: bool,
}

impl Source {
    async fn open(
        store: &Store,
        file: &File,
        criteria: &Criteria,
        columns: &'static [Column],
        is_salvaging: bool,
    ) -> Result<(Self, Result<()>)> {
        let file = FileReader::open(store, file).await?;
        let source = Self { file, next_group: 0, rows: VecDeque::new(), is_salvaging };
        Ok(source.fill(criteria, columns).await)
    }

    /// Reads the next row group with rows that may match, if there are no rows left.
    async fn fill(mut self, criteria: &Criteria, columns: &'static [Column]) -> (Self, Result<()>) {
        let mut result = Ok(());
        while self.rows.is_empty() && self.next_group < self.file.groups() {
            let group = self.next_group;
            self.next_group += 1;
            if criteria.may_match_group(&self.file, group) {
                match self.file.rows(group, columns).await {
                    Ok(rows) => self.rows.extend(rows),
                    // Other row groups may be intact.
                    Err(error) if error.kind() == ErrorKind::Corrupt => {
                        result = result.and(Err(error));
                        if self.is_salvaging {
                            match self.file.rows_of_damaged(group).await {
                                Ok(rows) => self.rows.extend(rows),
                                Err(error) if error.kind() == ErrorKind::Corrupt => {}
                                Err(error) => return self.failed(error),
                            }
                        }
                    }
                    Err(error) => return self.failed(error),
                }
            }
        }
        (self, result)
    }

    /// Reads nothing more.
    fn failed(mut self, error: Error) -> (Self, Result<()>) {
        self.next_group = self.file.groups();
        (self, Err(error))
    }

    fn key(&self) -> Option<(i64, &str)> {
        self.rows.front().and_then(key)
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Source {}

impl PartialOrd for Source {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Source {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl Reading {
    /// Reads the matching rows of a state.
    pub(super) fn new(store: Store, state: &State, criteria: Criteria, columns: &'static [Column]) -> Self {
        let files = matching_files(state, &criteria).into_iter().cloned().collect();
        Self::of_files(store, files, criteria, columns)
    }

    /// Reads the matching rows of some files.
    pub(super) fn of_files(store: Store, mut files: Vec<File>, criteria: Criteria, columns: &'static [Column]) -> Self {
        files.sort_by_key(|file| file.max_created_at);
        Self {
            store,
            criteria,
            columns,
            is_salvaging: false,
            closed: files,
            open: BinaryHeap::new(),
            has_newer_schema: false,
            errors: VecDeque::new(),
            damaged_files: Vec::new(),
            run: None,
        }
    }

    /// Also reads the rows of damaged row groups, without the payloads that cannot be read. The damage is still an error.
    pub(super) fn salvaging(self, is_salvaging: bool) -> Self {
        Self { is_salvaging, ..self }
    }

    /// Whether a file that was read so far has the schema of a newer version of the crate.
    pub(super) fn has_newer_schema(&self) -> bool {
        self.has_newer_schema
    }

    /// The paths of the files that turned out to be damaged or missing so far.
    pub(super) fn damaged_files(&self) -> &[String] {
        &self.damaged_files
    }

    /// Returns the next row, or `None` at the end. After an error, it continues with what can be read.
    pub(super) async fn next(&mut self) -> Option<Result<Row>> {
        loop {
            if let Some(error) = self.errors.pop_front() {
                return Some(Err(error));
            }
            let complete = match self.next_row().await {
                Some(row) => self.merge(row),
                None => self.run.take(),
            };
            let Some(run) = complete else {
                if self.is_at_end() {
                    return None;
                }
                continue;
            };
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

    fn is_at_end(&self) -> bool {
        self.run.is_none() && self.open.is_empty() && self.closed.is_empty() && self.errors.is_empty()
    }

    /// Removes the next row of the merged order.
    async fn next_row(&mut self) -> Option<Row> {
        loop {
            // Without a row, the next files are those whose times overlap with the newest.
            let until = match self.open.peek() {
                Some(next) => next.key().map_or(i64::MIN, |(created_at, _)| created_at),
                None => self.closed.last()?.min_created_at.timestamp_micros(),
            };
            let first = self.closed.partition_point(|file| file.max_created_at.timestamp_micros() < until);
            let files = self.closed.split_off(first);
            if files.is_empty() {
                break;
            }
            self.open(files).await;
        }
        let mut next = self.open.peek_mut()?;
        let row = next.rows.pop_front();
        if next.rows.is_empty() {
            let filled = PeekMut::pop(next).fill(&self.criteria, self.columns).await;
            self.add(filled);
        }
        row
    }

    async fn open(&mut self, files: Vec<File>) {
        let (store, criteria, columns, is_salvaging) = (&self.store, &self.criteria, self.columns, self.is_salvaging);
        let open = |file: File| async move {
            let opened = Source::open(store, &file, criteria, columns, is_salvaging).await;
            opened.map_err(|error| (file.path, error))
        };
        let opened: Vec<_> = stream::iter(files).map(open).buffered(MAX_CONCURRENT_READS).collect().await;
        for source in opened {
            match source {
                Ok(source) => self.add(source),
                Err((path, error)) => self.failed(&path, error),
            }
        }
    }

    /// Adds a source, unless it has no rows left.
    fn add(&mut self, (source, result): (Source, Result<()>)) {
        self.has_newer_schema |= source.file.is_newer();
        if let Err(error) = result {
            self.failed(source.file.path(), error);
        }
        if !source.rows.is_empty() {
            self.open.push(source);
        }
    }

    fn failed(&mut self, path: &str, error: Error) {
        if error.kind() == ErrorKind::Corrupt {
            // Each file is reported once.
            if self.damaged_files.iter().any(|damaged| damaged == path) {
                return;
            }
            self.damaged_files.push(path.to_owned());
        }
        self.errors.push_back(error);
    }
}
