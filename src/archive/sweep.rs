//! Deleting files that are not part of an archive.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_core::Stream;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};

use super::handle::Archive;
use super::manifest::{REMOVED_FOR, RUNS};
use super::progress::{OperationStream, SteppedOperation};
use super::store::Object;
use super::text::{Count, Length};
use super::unfinished::UnfinishedFile;
use crate::error::{Error, Result};

/// The default of [`SweepBuilder::grace_period`].
const DEFAULT_GRACE_PERIOD: Duration = Duration::from_secs(24 * 3600);
/// The number of files that are deleted for an item of the stream.
const FILES_PER_ITEM: usize = 100;

impl Archive {
    /// Returns a builder for a sweep, which deletes files that are not part of the archive: files that a compaction or an expiry has
    /// removed, and files that were written but not committed because of a crash, including those that a killed process left incomplete in
    /// a local directory.
    ///
    /// The sweep also deletes old parts of the manifest: its stored states except for the newest two, and the commits before these.
    ///
    /// ```no_run
    /// # async fn example(archive: hatchet::archive::Archive) -> hatchet::Result<()> {
    /// println!("{}", archive.sweep().send().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn sweep(&self) -> SweepBuilder {
        SweepBuilder { archive: self.clone(), grace_period: DEFAULT_GRACE_PERIOD }
    }
}

/// A builder for a sweep, which deletes unused files; see [`Archive::sweep`].
///
/// [`send`](Self::send) deletes them.
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
#[must_use = "nothing is deleted until `send` is awaited or the stream from `batches` is polled"]
pub struct SweepBuilder {
    archive: Archive,
    grace_period: Duration,
}

impl SweepBuilder {
    /// Sets how long a file must have been unused before it is deleted: since it was removed, or since it was written if it was never
    /// committed.
    ///
    /// The default is 24 hours, and the maximum is 90 days. The period must be longer than any query and longer than any commit of a
    /// collection or compaction. Otherwise, files in use may be deleted, and a commit in progress may be lost. The period is measured by
    /// the clocks of this process, of the processes that remove files, and of the store.
    pub fn grace_period(mut self, period: Duration) -> Self {
        self.grace_period = period;
        self
    }

    /// Deletes the files, and returns a report.
    ///
    /// If the sweep fails, the files that were deleted before the error are not reported; with [`batches`](Self::batches), the report is
    /// available.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the grace period is over 90 days. [`Storage`](crate::ErrorKind::Storage),
    /// [`Corrupt`](crate::ErrorKind::Corrupt) and [`Timeout`](crate::ErrorKind::Timeout) if the archive cannot be read, or a file cannot be
    /// deleted. [`Corrupt`](crate::ErrorKind::Corrupt) if the manifest is lost: nothing is deleted then.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, some files may have been deleted, and the sweep can be started again.
    pub async fn send(self) -> Result<SweepReport> {
        let mut batches = self.batches();
        while batches.next().await.transpose()?.is_some() {}
        Ok(batches.report())
    }

    /// Returns a stream that deletes the files while it is polled, with one item for every 100 deleted files, and one for the rest.
    ///
    /// An error is the last item; see [`send`](Self::send).
    pub fn batches(self) -> SweptBatches {
        SweptBatches(OperationStream::of(async move { Ok(Box::new(self.start().await?)) }))
    }

    async fn start(self) -> Result<Sweeper> {
        let grace_period = TimeDelta::from_std(self.grace_period).unwrap_or(TimeDelta::MAX);
        if grace_period > REMOVED_FOR {
            let problem = format!("expected at most 90 days, got {}", Length(self.grace_period));
            return Err(Error::invalid("grace period", problem));
        }
        Sweeper::start(self.archive, grace_period).await
    }
}

struct Sweeper {
    archive: Archive,
    /// What is unused since this time or longer is deleted.
    last: DateTime<Utc>,
    /// What killed processes have left in a local directory.
    unfinished: VecDeque<UnfinishedFile>,
    /// The data files to delete.
    files: VecDeque<Object>,
    /// The files of the manifest to delete, in this order. They are known when the data files are deleted.
    manifest: Option<VecDeque<Object>>,
    report: SweepReport,
}

impl Sweeper {
    async fn start(archive: Archive, grace_period: TimeDelta) -> Result<Self> {
        let last = Utc::now() - grace_period;
        // The list is older than the state: a file that is committed in between is in the state.
        let mut files = archive.store().list(RUNS, None).await?;
        let state = archive.log().complete_state().await?;
        files.retain(|file| {
            let unused_since = || state.removed.get(&file.path).copied().unwrap_or(file.modified_at);
            !state.files.contains_key(&file.path) && unused_since() <= last
        });
        let unfinished = archive.store().unfinished(last).await?.into();
        Ok(Self { archive, last, unfinished, files: files.into(), manifest: None, report: SweepReport::default() })
    }

    /// Deletes the next file. Returns `false` if there is none.
    async fn delete_next(&mut self) -> Result<bool> {
        let store = self.archive.store();
        if let Some(file) = self.unfinished.pop_front() {
            store.delete_unfinished(&file).await?;
            self.report.files += 1;
            self.report.bytes += file.bytes;
            return Ok(true);
        }
        if let Some(file) = self.files.pop_front() {
            store.delete(&file.path).await?;
            self.report.files += 1;
            self.report.bytes += file.bytes;
            return Ok(true);
        }
        let manifest = match &mut self.manifest {
            Some(manifest) => manifest,
            None => self.manifest.insert(self.archive.log().unused(self.last).await?.into()),
        };
        let Some(file) = manifest.pop_front() else { return Ok(false) };
        store.delete(&file.path).await?;
        self.report.manifest_files += 1;
        self.report.bytes += file.bytes;
        Ok(true)
    }
}

impl SteppedOperation for Sweeper {
    type Item = SweptBatch;
    type Report = SweepReport;

    /// Deletes a batch of files.
    async fn step(&mut self) -> Result<Option<SweptBatch>> {
        let before = self.report.clone();
        for _ in 0..FILES_PER_ITEM {
            if !self.delete_next().await? {
                break;
            }
        }
        let batch = SweptBatch {
            files: self.report.files - before.files,
            manifest_files: self.report.manifest_files - before.manifest_files,
            bytes: self.report.bytes - before.bytes,
        };
        Ok((batch.files + batch.manifest_files > 0).then_some(batch))
    }

    fn report(&self) -> &SweepReport {
        &self.report
    }
}

/// A stream of the deletions of a sweep; see [`SweepBuilder::batches`].
///
/// The stream ends after an error. Dropping it stops the sweep; the next sweep deletes the other files.
///
/// ```no_run
/// # async fn example(archive: hatchet::archive::Archive) -> hatchet::Result<()> {
/// let mut batches = archive.sweep().batches();
/// while let Some(batch) = batches.next().await.transpose()? {
///     println!("{} bytes", batch.bytes);
/// }
/// println!("{}", batches.report());
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is deleted before the stream is polled"]
pub struct SweptBatches(OperationStream<SweptBatch, SweepReport>);

impl SweptBatches {
    /// Returns the next batch when its files are deleted, or `None` at the end.
    ///
    /// # Errors
    /// The errors of [`SweepBuilder::send`]. An error is the last item.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, the sweep continues with the next call.
    pub async fn next(&mut self) -> Option<Result<SweptBatch>> {
        self.0.next().await
    }

    /// Returns the counts up to the last item that the stream has returned.
    ///
    /// If the last item is an error, the files that were deleted before the error are included.
    pub fn report(&self) -> SweepReport {
        self.0.report()
    }
}

impl Stream for SweptBatches {
    type Item = Result<SweptBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for SweptBatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SweptBatches").field("report", &self.report()).finish_non_exhaustive()
    }
}

/// Files that were deleted; see [`SweepBuilder::batches`].
///
/// ```
/// fn print(batch: &hatchet::archive::SweptBatch) {
///     println!("{} files, {} bytes", batch.files + batch.manifest_files, batch.bytes);
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SweptBatch {
    /// The number of data files that were deleted, including incomplete files in a local directory.
    pub files: u64,
    /// The number of files of the manifest that were deleted.
    pub manifest_files: u64,
    /// The total size of these files, in bytes.
    pub bytes: u64,
}

/// The result of a sweep; see [`SweepBuilder::send`].
///
/// ```
/// assert_eq!(hatchet::archive::SweepReport::default().to_string(), "0 data files and 0 manifest files deleted, 0 bytes");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SweepReport {
    /// The number of data files that were deleted, including incomplete files in a local directory.
    pub files: u64,
    /// The number of files of the manifest that were deleted.
    pub manifest_files: u64,
    /// The total size of these files, in bytes.
    pub bytes: u64,
}

impl fmt::Display for SweepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, manifest_files, bytes } = self;
        let (files, manifest_files) = (Count(*files, "data file"), Count(*manifest_files, "manifest file"));
        write!(f, "{files} and {manifest_files} deleted, {bytes} bytes")
    }
}
