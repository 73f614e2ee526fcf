//! Merging small files.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use chrono::Utc;
use serde::{Deserialize, Serialize};

use super::filter::Criteria;
use super::handle::Archive;
use super::log::refused;
use super::manifest::{Commit, Conflict, File, Partition, VERSION};
use super::reading::Reading;
use super::schema::Column;
use super::writing::{MAX_FILE_BYTES, MAX_FILE_ROWS, write_file};
use crate::error::{ErrorKind, Result};

impl Archive {
    /// Prepares a compaction: the files of each workflow and day are merged into one file, or into a few of the maximum size. Queries then
    /// read less. The merged files stay in the store until [`sweep`](Self::sweep) deletes them. Until then, a tool that reads all files of the
    /// folder sees their runs twice; [`files`](Self::files) lists the current files.
    ///
    /// ```no_run
    /// # async fn example(archive: hatchet::archive::Archive) -> hatchet::Result<()> {
    /// println!("{}", archive.compact().send().await?); // 240 files merged into 12
    /// # Ok(())
    /// # }
    /// ```
    pub fn compact(&self) -> CompactBuilder {
        CompactBuilder { archive: self.clone(), discards_damaged: false, max_rows: MAX_FILE_ROWS }
    }
}

/// A compaction that is about to start; see [`Archive::compact`].
///
/// ```no_run
/// # async fn example(archive: hatchet::archive::Archive) -> hatchet::Result<()> {
/// let report = archive.compact().send().await?;
/// println!("{} files merged", report.files_merged);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is merged before `send`"]
pub struct CompactBuilder {
    archive: Archive,
    discards_damaged: bool,
    max_rows: usize,
}

impl CompactBuilder {
    /// Limits the rows of a file, for tests.
    #[cfg(test)]
    pub(super) fn max_rows(mut self, rows: usize) -> Self {
        self.max_rows = rows;
        self
    }

    /// Also removes the files that are damaged or missing, with the runs in them that cannot be read. By default, they stay in the archive, so
    /// that they can be restored from a backup. [Collect](Archive::collect) again afterwards: runs that the engine still has are then archived
    /// in other files.
    pub fn discard_damaged(mut self) -> Self {
        self.discards_damaged = true;
        self
    }

    /// Merges the files. The old files are not deleted, so queries that have started are not affected; [`sweep`](Archive::sweep) deletes
    /// them. Files that a newer version of this crate has written are left unchanged. Damaged files are named in the report.
    ///
    /// # Errors
    /// [`Storage`](ErrorKind::Storage), [`Corrupt`](ErrorKind::Corrupt) and [`Timeout`](ErrorKind::Timeout) if the manifest cannot be read,
    /// or if a file cannot be read or written although it is not damaged. The files of that workflow and day are then left unchanged. The
    /// files of the others are merged first, and the last error is returned.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, the compaction can be started again, and no run is lost or duplicated. Files that
    /// were written but not committed are deleted by [`sweep`](Archive::sweep).
    pub async fn send(self) -> Result<CompactReport> {
        let state = self.archive.log().state().await?;
        let mut partitions: BTreeMap<Partition, Vec<File>> = BTreeMap::new();
        for file in state.files() {
            partitions.entry(file.partition.clone()).or_default().push(file.clone());
        }
        let (mut report, mut failed) = (CompactReport::default(), None);
        for (partition, files) in partitions {
            if let Err(error) = self.merge(partition, files, &mut report).await {
                failed = Some(error);
            }
        }
        failed.map_or(Ok(report), Err)
    }

    /// Merges the files of a partition, if this is necessary and possible.
    async fn merge(&self, partition: Partition, files: Vec<File>, report: &mut CompactReport) -> Result<()> {
        let (archive, now) = (&self.archive, Utc::now());
        // Only a file that is read is known to be damaged. So the files are read before anything is written.
        if !(needs_merge(&files) || self.discards_damaged && has_damaged(archive, &files).await?) {
            return Ok(());
        }
        let mut reading = Reading::of_files(archive.store().clone(), files.clone(), Criteria::all(now)?, Column::ALL);
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
                return Ok(());
            }
            let damaged = row.is_none().then(|| reading.damaged_files());
            if let Some(damaged) = damaged {
                let is_readable = |file: &&File| !damaged.contains(&file.path);
                let is_useful =
                    needs_merge(files.iter().filter(is_readable)) || self.discards_damaged && !damaged.is_empty();
                report.damaged_files.extend(damaged.iter().cloned());
                if !is_useful {
                    // Files that were written because the day is large are of no use.
                    for file in &add {
                        archive.store().delete(&file.path).await?;
                    }
                    return Ok(());
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
        let (merged, written) = (remove.len() as u64, add.len() as u64);
        let commit = Commit { version: VERSION, committed_at: now, source: None, add, remove };
        // Otherwise, another process has merged them.
        if commit_removal(archive, &commit).await? {
            report.files_merged += merged;
            report.files_written += written;
        }
        Ok(())
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

/// Adds a commit that removes files. Returns `false` if one of them has already been removed.
async fn commit_removal(archive: &Archive, commit: &Commit) -> Result<bool> {
    loop {
        let state = archive.log().state().await?;
        match state.check(commit) {
            Ok(()) => {}
            // If the response to the commit was lost, its new files are there.
            Err(Conflict::Missing(_)) => {
                return Ok(!commit.add.is_empty() && commit.add.iter().all(|file| state.files.contains_key(&file.path)));
            }
            Err(conflict) => return Err(refused(conflict)),
        }
        if archive.log().commit(&state, commit).await? {
            return Ok(true);
        }
    }
}

/// The result of a compaction; see [`CompactBuilder::send`].
///
/// ```
/// assert_eq!(hatchet::archive::CompactReport::default().to_string(), "0 files merged into 0");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CompactReport {
    /// The number of files that were merged. Files that needed no merge are not counted.
    pub files_merged: u64,
    /// The number of new files that contain their runs.
    pub files_written: u64,
    /// The paths of damaged and missing files among those that were read. Without
    /// [`discard_damaged`](CompactBuilder::discard_damaged), only the files of workflows and days that need a merge are read.
    pub damaged_files: Vec<String>,
}

impl fmt::Display for CompactReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files merged into {}", self.files_merged, self.files_written)?;
        match self.damaged_files.len() {
            0 => Ok(()),
            damaged => write!(f, ", {damaged} damaged"),
        }
    }
}
