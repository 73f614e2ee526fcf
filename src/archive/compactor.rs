//! Merges the files of each workflow and day, and commits what was merged.

use std::collections::{BTreeMap, VecDeque, btree_map};
use std::sync::Arc;

use chrono::Utc;

use super::filter::Criteria;
use super::handle::Archive;
use super::manifest::{Commit, File, Partition, State, VERSION};
use super::progress::SteppedOperation;
use super::reading::Reading;
use super::report::{CompactReport, CompactedPartition};
use super::schema::Column;
use super::writing::{MAX_FILE_BYTES, MAX_FILE_ROWS, write_file};
use crate::error::{ErrorKind, Result};

/// The number of files that one commit adds and removes, unless those of one workflow and day are more. It bounds the size of the commit.
const COMMIT_FILES: usize = 1000;
/// The size of the files that one commit adds. It bounds what is written again after a crash.
const COMMIT_BYTES: u64 = 64 << 20;

/// How files are merged.
#[derive(Debug, Clone)]
pub(super) struct CompactOptions {
    pub(super) archive: Archive,
    /// Whether damaged files are removed.
    pub(super) discards_damaged: bool,
    /// The maximum number of rows in a file.
    pub(super) max_rows: usize,
    /// The number of files after which they are committed.
    pub(super) commit_files: usize,
}

impl CompactOptions {
    pub(super) fn new(archive: Archive) -> Self {
        Self { archive, discards_damaged: false, max_rows: MAX_FILE_ROWS, commit_files: COMMIT_FILES }
    }

    /// Merges the files of a partition, if this is necessary and possible. `None` if they are left unchanged and not damaged.
    async fn merge(&self, partition: Partition, files: Vec<File>) -> Result<Option<MergedPartition>> {
        let (archive, now) = (&self.archive, Utc::now());
        // Only a file that is read is known to be damaged. So the files are read before anything is written.
        if !needs_merge(&files) {
            if !self.discards_damaged {
                return Ok(None);
            }
            if !has_damaged(archive, &files).await? {
                return Ok(Some(MergedPartition::unchanged(partition, &[])));
            }
        }
        let reading = Reading::of_files(archive.store().clone(), files.clone(), Criteria::all(now)?, Column::ALL);
        let mut reading = reading.salvaging(self.discards_damaged);
        let (mut add, mut rows, mut size): (Vec<File>, _, _) = (Vec::new(), Vec::new(), 0);
        let damaged = loop {
            let row = match reading.next().await {
                // What can be read of a damaged file is merged.
                Some(Err(error)) if error.kind() == ErrorKind::Corrupt => {
                    tracing::warn!(%error, archive = archive.url(), "a file of the archive cannot be merged");
                    continue;
                }
                row => row.transpose()?,
            };
            // Columns that this version does not know would be lost. What was written is not committed.
            if reading.has_newer_schema() {
                return Ok(None);
            }
            let damaged = row.is_none().then(|| reading.damaged_files());
            if let Some(damaged) = damaged {
                let is_readable = |file: &&File| !damaged.contains(&file.path);
                let is_useful =
                    needs_merge(files.iter().filter(is_readable)) || self.discards_damaged && !damaged.is_empty();
                if !is_useful {
                    // Files that were written because the day is large are of no use.
                    for file in &add {
                        archive.store().delete(&file.path).await?;
                    }
                    return Ok(Some(MergedPartition::unchanged(partition, damaged)));
                }
            }
            if let Some(row) = row {
                size += row.size();
                rows.push(row);
            }
            if !rows.is_empty() && (damaged.is_some() || rows.len() >= self.max_rows || size >= MAX_FILE_BYTES) {
                let file = write_file(archive, partition.clone(), Arc::new(std::mem::take(&mut rows))).await?;
                add.push(File { is_compacted: true, ..file });
                size = 0;
            }
            if let Some(damaged) = damaged {
                break damaged;
            }
        };
        let is_removed = |file: &&File| self.discards_damaged || !damaged.contains(&file.path);
        let remove: Vec<String> = files.iter().filter(is_removed).map(|file| file.path.clone()).collect();
        let day = CompactedPartition::of(partition, &add, &remove, damaged);
        Ok(Some(MergedPartition { day, add, remove }))
    }
}

/// Whether a file cannot be read completely.
async fn has_damaged(archive: &Archive, files: &[File]) -> Result<bool> {
    let criteria = Criteria::all(Utc::now())?;
    let mut reading = Reading::of_files(archive.store().clone(), files.to_vec(), criteria, Column::ALL);
    loop {
        match reading.next().await {
            Some(Err(error)) if error.kind() == ErrorKind::Corrupt => return Ok(true),
            Some(row) => drop(row?),
            None => return Ok(false),
        }
    }
}

fn needs_merge<'a>(files: impl IntoIterator<Item = &'a File>) -> bool {
    let (mut count, mut is_compacted) = (0, true);
    for file in files {
        count += 1;
        is_compacted &= file.is_compacted;
    }
    count > 1 && !is_compacted
}

/// Files that were written, and that replace others when they are committed.
struct MergedPartition {
    day: CompactedPartition,
    add: Vec<File>,
    remove: Vec<String>,
}

impl MergedPartition {
    fn unchanged(partition: Partition, damaged: &[String]) -> Self {
        Self { day: CompactedPartition::of(partition, &[], &[], damaged), add: Vec::new(), remove: Vec::new() }
    }

    fn files(&self) -> usize {
        self.add.len() + self.remove.len()
    }

    fn can_follow(&self, state: &State) -> bool {
        self.remove.iter().all(|path| state.files.contains_key(path))
    }
}

/// A compaction.
pub(super) struct Compactor {
    options: CompactOptions,
    /// The files of the workflows and days that are left.
    partitions: btree_map::IntoIter<Partition, Vec<File>>,
    /// What is committed next.
    merged: Vec<MergedPartition>,
    /// The next items of the stream.
    done: VecDeque<Result<CompactedPartition>>,
    report: CompactReport,
    /// Whether the manifest could not be read or written.
    has_failed: bool,
}

impl Compactor {
    pub(super) async fn start(options: CompactOptions) -> Result<Self> {
        let state = options.archive.log().state().await?;
        let mut partitions: BTreeMap<Partition, Vec<File>> = BTreeMap::new();
        for file in state.files() {
            partitions.entry(file.partition.clone()).or_default().push(file.clone());
        }
        Ok(Self {
            options,
            partitions: partitions.into_iter(),
            merged: Vec::new(),
            done: VecDeque::new(),
            report: CompactReport::default(),
            has_failed: false,
        })
    }

    /// Merges the files of the next workflow and day. Returns `false` at the end.
    async fn merge_next(&mut self) -> Result<bool> {
        let Some((partition, files)) = self.partitions.next() else { return Ok(false) };
        match self.options.merge(partition, files).await {
            Ok(None) => {}
            Ok(Some(merged)) => {
                self.report.damaged_files.extend(merged.day.damaged_files.iter().cloned());
                self.merged.push(merged);
            }
            Err(error) => {
                // What has been merged is not merged again.
                let committed = self.commit().await;
                self.done.push_back(Err(error));
                committed?;
            }
        }
        Ok(true)
    }

    /// Whether what was merged is to be committed now. Partitions that are unchanged need no commit.
    fn is_full(&self) -> bool {
        let files: usize = self.merged.iter().map(MergedPartition::files).sum();
        let bytes: u64 = self.merged.iter().map(|merged| merged.day.bytes).sum();
        files == 0 || files >= self.options.commit_files || bytes >= COMMIT_BYTES
    }

    /// Replaces the files that were merged. Partitions that are unchanged need no commit.
    async fn commit(&mut self) -> Result<()> {
        let mut merged = std::mem::take(&mut self.merged);
        let needs_commit = |merged: &[MergedPartition]| merged.iter().any(|merged| merged.files() > 0);
        while needs_commit(&merged) {
            let state = self.options.archive.log().state().await?;
            let (next, others): (Vec<_>, Vec<_>) = merged.into_iter().partition(|merged| merged.can_follow(&state));
            for other in others {
                // Another process has merged or removed these files.
                let day = other.day;
                self.committed(CompactedPartition {
                    files_merged: 0,
                    files_written: 0,
                    files_discarded: 0,
                    runs: 0,
                    bytes: 0,
                    ..day
                });
            }
            merged = next;
            let commit = Commit {
                version: VERSION,
                committed_at: Utc::now(),
                source: None,
                add: merged.iter().flat_map(|merged| merged.add.iter().cloned()).collect(),
                remove: merged.iter().flat_map(|merged| merged.remove.iter().cloned()).collect(),
            };
            if needs_commit(&merged) && self.options.archive.log().commit(&state, &commit).await? {
                break;
            }
        }
        for merged in merged {
            self.committed(merged.day);
        }
        Ok(())
    }

    fn committed(&mut self, day: CompactedPartition) {
        self.report.files_merged += day.files_merged;
        self.report.files_written += day.files_written;
        self.report.files_discarded += day.files_discarded;
        self.done.push_back(Ok(day));
    }

    /// Works until there are items.
    async fn work(&mut self) -> Result<()> {
        while self.done.is_empty() {
            let has_more = self.merge_next().await?;
            if self.is_full() || !has_more {
                self.commit().await?;
            }
            if !has_more {
                break;
            }
        }
        Ok(())
    }
}

impl SteppedOperation for Compactor {
    type Item = CompactedPartition;
    type Report = CompactReport;

    async fn step(&mut self) -> Result<Option<CompactedPartition>> {
        if !self.has_failed
            && let Err(error) = self.work().await
        {
            self.has_failed = true;
            // What was done before the error is returned before it.
            self.done.push_back(Err(error));
        }
        self.done.pop_front().transpose()
    }

    fn report(&self) -> &CompactReport {
        &self.report
    }

    fn continues_after_error(&self) -> bool {
        !self.has_failed || !self.done.is_empty()
    }
}
