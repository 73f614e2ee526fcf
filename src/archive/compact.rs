//! Merging small files.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::StreamExt as _;

use super::compactor::{CompactOptions, Compactor};
use super::handle::Archive;
use super::progress::OperationStream;
use super::report::{CompactReport, CompactedPartition};
use crate::error::Result;

impl Archive {
    /// Returns a builder for a compaction: the files of each workflow and day are merged into one file, or into a few of the maximum size.
    ///
    /// Queries then read fewer files. The merged files stay in the store until [`sweep`](Self::sweep) deletes them. Until then, a tool that
    /// reads all files of the directory sees their runs twice; [`files`](Self::files) lists the current files.
    ///
    /// ```no_run
    /// # async fn example(archive: hatchet::archive::Archive) -> hatchet::Result<()> {
    /// println!("{}", archive.compact().send().await?); // 240 files merged into 12
    /// # Ok(())
    /// # }
    /// ```
    pub fn compact(&self) -> CompactBuilder {
        CompactBuilder { options: CompactOptions::new(self.clone()) }
    }
}

/// A builder for a compaction, which merges small files; see [`Archive::compact`].
///
/// [`send`](Self::send) starts it, and returns a report.
///
/// ```no_run
/// # async fn example(archive: hatchet::archive::Archive) -> hatchet::Result<()> {
/// let report = archive.compact().send().await?;
/// println!("{} files merged", report.files_merged);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is merged until `send` is awaited or the stream from `partitions` is polled"]
pub struct CompactBuilder {
    options: CompactOptions,
}

impl CompactBuilder {
    /// Limits the rows of a file, for tests.
    #[cfg(test)]
    pub(super) fn max_rows(mut self, rows: usize) -> Self {
        self.options.max_rows = rows;
        self
    }

    /// Limits the files of a commit, for tests.
    #[cfg(test)]
    pub(super) fn commit_files(mut self, files: usize) -> Self {
        self.options.commit_files = files;
        self
    }

    /// Also removes the files that are damaged or missing, with the runs in them that cannot be read.
    ///
    /// By default, they stay in the archive, so that they can be restored from a backup. [Collect](Archive::collect) again afterwards: runs
    /// that the engine still has are then archived in other files.
    ///
    /// What can be read of a damaged file is kept, by row group: up to 2000 runs, or 8 MiB. If only inputs, outputs or log lines of a row
    /// group are damaged, its runs are kept with the other columns. The next collection archives these runs again, too, if the engine still
    /// has them.
    pub fn discard_damaged(mut self) -> Self {
        self.options.discards_damaged = true;
        self
    }

    /// Merges the files, and returns a report.
    ///
    /// The old files are not deleted, so queries that have started are not affected; [`sweep`](Archive::sweep) deletes them. Files that a
    /// newer version of this crate has written are left unchanged. Damaged files are named in the report.
    ///
    /// The files of several workflows and days are replaced in one commit. If the compaction fails, changes that were committed before the
    /// error remain, but are not reported; with [`partitions`](Self::partitions), the report is available.
    ///
    /// # Errors
    /// [`Storage`](crate::ErrorKind::Storage), [`Corrupt`](crate::ErrorKind::Corrupt) and [`Timeout`](crate::ErrorKind::Timeout) if the
    /// manifest cannot be read or written, or if a file cannot be read or written although it is not damaged. The files of that workflow
    /// and day are then left unchanged. The files of the other workflows and days are merged first, and the last error is returned.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, the compaction can be started again, and no run is lost or duplicated. Files that
    /// were written but not committed are deleted by [`sweep`](Archive::sweep).
    pub async fn send(self) -> Result<CompactReport> {
        let archive = self.options.archive.url().to_owned();
        let (mut partitions, mut failed) = (self.partitions(), None);
        while let Some(partition) = partitions.next().await {
            if let Err(error) = partition {
                tracing::warn!(%error, archive, "failed to compact files of the archive");
                failed = Some(error);
            }
        }
        failed.map_or_else(|| Ok(partitions.report()), Err)
    }

    /// Returns a stream that merges the files while it is polled, with one item for each partition (a workflow and a day) whose files were
    /// read: those that need a merge, or all with [`discard_damaged`](Self::discard_damaged).
    ///
    /// Partitions that are committed together are returned one after another.
    ///
    /// An item is an error if the files of a partition cannot be merged. The stream then continues with the other partitions. An error of
    /// the manifest ends the stream; see [`send`](Self::send).
    pub fn partitions(self) -> CompactedPartitions {
        CompactedPartitions(OperationStream::of(async move { Ok(Box::new(Compactor::start(self.options).await?)) }))
    }
}

/// A stream of the partitions of a compaction; see [`CompactBuilder::partitions`].
///
/// Dropping the stream stops the compaction; committed changes remain.
///
/// ```no_run
/// # async fn example(archive: hatchet::archive::Archive) {
/// let mut partitions = archive.compact().partitions();
/// while let Some(partition) = partitions.next().await {
///     match partition {
///         Ok(it) => println!("{:?} {}: {} files merged", it.workflow_name, it.day, it.files_merged),
///         Err(error) => eprintln!("{error}"), // the others are merged
///     }
/// }
/// println!("{}", partitions.report());
/// # }
/// ```
#[must_use = "nothing is merged before the stream is polled"]
pub struct CompactedPartitions(OperationStream<CompactedPartition, CompactReport>);

impl CompactedPartitions {
    /// Returns the next workflow and day when its files are committed, or `None` at the end.
    ///
    /// # Errors
    /// The errors of [`CompactBuilder::send`]. The stream continues with the next workflow and day, unless the manifest cannot be read or written.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, the compaction continues with the next call.
    pub async fn next(&mut self) -> Option<Result<CompactedPartition>> {
        self.0.next().await
    }

    /// Returns the counts of everything that was committed up to the last item that the stream has returned, including an error.
    pub fn report(&self) -> CompactReport {
        self.0.report()
    }
}

impl Stream for CompactedPartitions {
    type Item = Result<CompactedPartition>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for CompactedPartitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompactedPartitions").field("report", &self.report()).finish_non_exhaustive()
    }
}
