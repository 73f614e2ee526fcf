//! Maintenance: merging small files, removing old ones, and deleting what no commit has.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::handle::Archive;
use super::log::refused;
use super::manifest::{Commit, Conflict, File, Partition, VERSION};
use super::reading::Reading;
use super::retention::Retention;
use super::schema::Column;
use super::writing::{MAX_FILE_BYTES, MAX_FILE_ROWS, everything, write_file};
use crate::error::{Error, Result};
use crate::time::MAX_DURATION;

/// The default of [`SweepBuilder::grace_period`].
const GRACE_PERIOD: Duration = Duration::from_secs(24 * 3600);
/// The folder of the data files.
const RUNS: &str = "runs";

impl Archive {
    /// Prepares a compaction: the files of each workflow and day are merged into one, or a few large ones. Queries then read less, and
    /// external tools see each run once.
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

    /// Prepares to remove archived runs that are older than a retention. A day of a workflow is removed as a whole, when its last run
    /// has this age. Nothing expires unless this is called.
    ///
    /// ```no_run
    /// # async fn example(archive: hatchet::archive::Archive) -> hatchet::Result<()> {
    /// use std::time::Duration;
    /// use hatchet::archive::{Retention, Rule};
    ///
    /// let years = |count: u32| Duration::from_secs(365 * 24 * 3600) * count;
    /// let retention = Retention::older_than(years(2)).workflow("audit", Rule::keep_forever());
    /// println!("{}", archive.expire(retention).dry_run().send().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn expire(&self, retention: Retention) -> ExpireBuilder {
        ExpireBuilder { archive: self.clone(), retention, is_dry_run: false }
    }

    /// Prepares to delete the files that are not part of the archive: those that were removed by a compaction or have expired, and those
    /// that a crash has left behind.
    ///
    /// ```no_run
    /// # async fn example(archive: hatchet::archive::Archive) -> hatchet::Result<()> {
    /// println!("{}", archive.sweep().send().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn sweep(&self) -> SweepBuilder {
        SweepBuilder { archive: self.clone(), grace_period: GRACE_PERIOD }
    }
}

/// A compaction that is about to start; see [`Archive::compact`].
///
/// ```no_run
/// # async fn example(archive: hatchet::archive::Archive) -> hatchet::Result<()> {
/// let report = archive.compact().send().await?;
/// println!("{} files are left", report.files_after);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is merged before `send`"]
pub struct CompactBuilder {
    archive: Archive,
}

impl CompactBuilder {
    /// Merges the files. They are read until [`sweep`](Archive::sweep) deletes them: readers that have started are not disturbed.
    ///
    /// # Errors
    /// [`Storage`](crate::ErrorKind::Storage) and [`Corrupt`](crate::ErrorKind::Corrupt) if a file cannot be read or written. The files of a
    /// partition with a damaged file are left as they are; the error is returned after the other partitions.
    ///
    /// # Cancel safety
    /// This method is cancel safe: a compaction that is stopped can be repeated. Nothing is lost or doubled.
    pub async fn send(self) -> Result<CompactReport> {
        let state = self.archive.log().state().await?;
        let mut partitions: BTreeMap<Partition, Vec<File>> = BTreeMap::new();
        for file in state.files() {
            partitions.entry(file.partition.clone()).or_default().push(file.clone());
        }
        let (mut report, mut failed) = (CompactReport::default(), None);
        for (partition, files) in partitions {
            // Files of the maximum size are not merged again.
            let rows: u64 = files.iter().map(|file| file.rows).sum();
            if files.len() < 2 || rows.div_ceil(MAX_FILE_ROWS as u64) >= files.len() as u64 {
                continue;
            }
            let count = files.len() as u64;
            match self.merge(partition, files).await {
                Ok(Some(merged)) => {
                    report.files_before += count;
                    report.files_after += merged;
                }
                // Another process has merged them.
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(report), Err)
    }

    /// Merges the files of a partition. Returns the number of new files, or `None` if another process has removed one of the old.
    async fn merge(&self, partition: Partition, files: Vec<File>) -> Result<Option<u64>> {
        let (archive, now) = (&self.archive, Utc::now());
        let remove: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
        let mut reading = Reading::of_files(archive.store().clone(), files, everything(now)?, Column::ALL);
        let (mut add, mut rows, mut size) = (Vec::new(), Vec::new(), 0);
        loop {
            let row = reading.next().await.transpose()?;
            let is_end = row.is_none();
            if let Some(row) = row {
                size += row.size();
                rows.push(row);
            }
            if !rows.is_empty() && (is_end || rows.len() >= MAX_FILE_ROWS || size >= MAX_FILE_BYTES) {
                add.push(write_file(archive, partition.clone(), std::mem::take(&mut rows)).await?);
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

/// Expired runs that are about to be removed; see [`Archive::expire`].
///
/// ```no_run
/// # async fn example(archive: hatchet::archive::Archive) -> hatchet::Result<()> {
/// use hatchet::archive::Retention;
///
/// println!("{}", archive.expire(Retention::default()).send().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is removed before `send`"]
pub struct ExpireBuilder {
    archive: Archive,
    retention: Retention,
    is_dry_run: bool,
}

impl ExpireBuilder {
    /// Only counts the runs that would be removed.
    pub fn dry_run(mut self) -> Self {
        self.is_dry_run = true;
        self
    }

    /// Removes the runs from the archive. [`sweep`](Archive::sweep) deletes their files. Ages are those by the system's clock.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if a rule has statuses or is without payloads, because days expire as a whole.
    /// [`Storage`](crate::ErrorKind::Storage) and [`Corrupt`](crate::ErrorKind::Corrupt) if the manifest cannot be read or written.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the runs may have been removed.
    pub async fn send(self) -> Result<ExpireReport> {
        self.retention.check_ages_only()?;
        let now = Utc::now();
        loop {
            let state = self.archive.log().state().await?;
            let is_expired = |file: &&File| {
                let last = self.retention.of(&file.partition.workflow).last_due(now);
                last.is_some_and(|last| file.max_created_at <= last)
            };
            // A file of a partition that has a newer one stays: it would be only a part of its day.
            let expired: Vec<&File> = state
                .files()
                .filter(is_expired)
                .filter(|file| {
                    state.files().filter(|other| other.partition == file.partition).all(|other| is_expired(&other))
                })
                .collect();
            let report = ExpireReport {
                runs: expired.iter().map(|file| file.rows).sum(),
                files: expired.len() as u64,
                bytes: expired.iter().map(|file| file.bytes).sum(),
                is_dry_run: self.is_dry_run,
            };
            if self.is_dry_run || expired.is_empty() {
                return Ok(report);
            }
            let remove = expired.iter().map(|file| file.path.clone()).collect();
            let commit = Commit { version: VERSION, committed_at: now, source: None, add: Vec::new(), remove };
            if self.archive.log().commit(&state, &commit).await? {
                return Ok(report);
            }
        }
    }
}

/// Files that are about to be deleted; see [`Archive::sweep`].
///
/// ```no_run
/// # async fn example(archive: hatchet::archive::Archive) -> hatchet::Result<()> {
/// use std::time::Duration;
///
/// println!("{}", archive.sweep().grace_period(Duration::from_secs(3600)).send().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is deleted before `send`"]
pub struct SweepBuilder {
    archive: Archive,
    grace_period: Duration,
}

impl SweepBuilder {
    /// Sets how long ago a file must have been removed or written, by the clocks of this process and of the store. The default is 24 hours,
    /// the maximum ten years. It must be longer than any query and any collection takes: their files would be deleted.
    pub fn grace_period(mut self, time: Duration) -> Self {
        self.grace_period = time;
        self
    }

    /// Deletes the files.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for the grace period. [`Storage`](crate::ErrorKind::Storage) and
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if the archive cannot be read, or a file cannot be deleted.
    ///
    /// # Cancel safety
    /// This method is cancel safe: what was not deleted is deleted the next time.
    pub async fn send(self) -> Result<SweepReport> {
        if self.grace_period > MAX_DURATION {
            let problem = format_args!("expected at most 10 years, got {:?}", self.grace_period);
            return Err(Error::invalid("grace period", problem));
        }
        let store = self.archive.store();
        let last = Utc::now() - TimeDelta::from_std(self.grace_period).unwrap_or(TimeDelta::MAX);
        // The list is older than the state: a file that is committed in between is in the state.
        let objects = store.list(RUNS, None).await?;
        let state = self.archive.log().state().await?;
        let mut report = SweepReport::default();
        for object in objects.into_iter().filter(|object| !state.files.contains_key(&object.path)) {
            let unused_since = state.removed.get(&object.path).copied().unwrap_or(object.modified_at);
            if unused_since <= last {
                store.delete(&object.path).await?;
                report.files += 1;
                report.bytes += object.bytes;
            }
        }
        Ok(report)
    }
}

/// What a compaction did.
///
/// ```
/// assert_eq!(hatchet::archive::CompactReport::default().to_string(), "0 files merged into 0");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CompactReport {
    /// The number of files that were merged.
    pub files_before: u64,
    /// The number of files that they were merged into.
    pub files_after: u64,
}

impl fmt::Display for CompactReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files merged into {}", self.files_before, self.files_after)
    }
}

/// What has expired.
///
/// ```
/// assert_eq!(hatchet::archive::ExpireReport::default().to_string(), "0 runs in 0 files removed");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExpireReport {
    /// The number of runs.
    pub runs: u64,
    /// The number of files.
    pub files: u64,
    /// The size of the files in bytes.
    pub bytes: u64,
    /// Whether nothing was removed because of [`dry_run`](ExpireBuilder::dry_run).
    pub is_dry_run: bool,
}

impl fmt::Display for ExpireReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_dry_run { "to remove" } else { "removed" };
        write!(f, "{} runs in {} files {what}", self.runs, self.files)
    }
}

/// What was deleted.
///
/// ```
/// assert_eq!(hatchet::archive::SweepReport::default().to_string(), "0 files with 0 bytes deleted");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SweepReport {
    /// The number of files.
    pub files: u64,
    /// The size of the files in bytes.
    pub bytes: u64,
}

impl fmt::Display for SweepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files with {} bytes deleted", self.files, self.bytes)
    }
}
