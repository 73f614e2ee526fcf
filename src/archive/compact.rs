//! Merging small files.

use std::collections::BTreeMap;
use std::fmt;

use chrono::Utc;
use serde::{Deserialize, Serialize};

use super::handle::Archive;
use super::log::refused;
use super::manifest::{Commit, Conflict, File, Partition, VERSION};
use super::reading::Reading;
use super::schema::Column;
use super::writing::{MAX_FILE_BYTES, MAX_FILE_ROWS, everything, write_file};
use crate::error::Result;

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
        CompactBuilder { archive: self.clone() }
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
}

impl CompactBuilder {
    /// Merges the files. The old files are not deleted, so queries that have started are not affected; [`sweep`](Archive::sweep) deletes
    /// them. Files that a newer version of this crate has written are left unchanged.
    ///
    /// # Errors
    /// [`Storage`](crate::ErrorKind::Storage), [`Corrupt`](crate::ErrorKind::Corrupt) and [`Timeout`](crate::ErrorKind::Timeout) if a file
    /// cannot be read or written. The files of that workflow and day are then left unchanged. The files of the others are merged first, and
    /// the last error is returned.
    ///
    /// # Cancel safety
    /// This method is cancel safe: it can be called again. No run is lost or duplicated.
    pub async fn send(self) -> Result<CompactReport> {
        let state = self.archive.log().state().await?;
        let mut partitions: BTreeMap<Partition, Vec<File>> = BTreeMap::new();
        for file in state.files() {
            partitions.entry(file.partition.clone()).or_default().push(file.clone());
        }
        let (mut report, mut failed) = (CompactReport::default(), None);
        for (partition, files) in partitions {
            if files.len() < 2 || files.iter().all(|file| file.is_compacted) {
                continue;
            }
            let count = files.len() as u64;
            match self.merge(partition, files).await {
                Ok(Some(merged)) => {
                    report.files_merged += count;
                    report.files_written += merged;
                }
                // Another process has merged them, or a newer version of this crate has written them.
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(report), Err)
    }

    /// Merges the files of a partition. Returns the number of new files, or `None` if they cannot be merged.
    async fn merge(&self, partition: Partition, files: Vec<File>) -> Result<Option<u64>> {
        let (archive, now) = (&self.archive, Utc::now());
        let remove: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
        let mut reading = Reading::of_files(archive.store().clone(), files, everything(now)?, Column::ALL);
        let (mut add, mut rows, mut size) = (Vec::new(), Vec::new(), 0);
        loop {
            let row = reading.next().await.transpose()?;
            // Columns that this version does not know would be lost. All files are of one day, so all are open.
            if reading.has_other_schema() {
                return Ok(None);
            }
            let is_end = row.is_none();
            if let Some(row) = row {
                size += row.size();
                rows.push(row);
            }
            if !rows.is_empty() && (is_end || rows.len() >= MAX_FILE_ROWS || size >= MAX_FILE_BYTES) {
                let file = write_file(archive, partition.clone(), std::mem::take(&mut rows)).await?;
                add.push(File { is_compacted: true, ..file });
                size = 0;
            }
            if is_end {
                break;
            }
        }
        let merged = add.len() as u64;
        let commit = Commit { version: VERSION, committed_at: now, source: None, add, remove };
        Ok(commit_removal(archive, &commit).await?.then_some(merged))
    }
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
}

impl fmt::Display for CompactReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files merged into {}", self.files_merged, self.files_written)
    }
}
