//! Deleting files that are not part of an archive.

use std::fmt;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::handle::Archive;
use super::log::corrupt;
use super::manifest::REMOVED_FOR;
use crate::error::{Error, Result};

/// The default of [`SweepBuilder::grace_period`].
const DEFAULT_GRACE_PERIOD: Duration = Duration::from_secs(24 * 3600);
/// The folder of the data files.
const RUNS: &str = "runs";

impl Archive {
    /// Prepares to delete files that are not part of the archive: files that a compaction or an expiry has removed, and files that were
    /// written but not committed because of a crash. Old parts of the manifest are deleted, too: all but the newest two of its stored states,
    /// and the commits before these.
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

/// A deletion of unused files that is about to start; see [`Archive::sweep`].
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
    /// Sets how long a file must have been unused before it is deleted: since it was removed, or since it was written if it was never
    /// committed. The default is 24 hours, and the maximum is 90 days. It must be longer than any query or collection takes; otherwise, files
    /// that are still in use may be deleted, and a commit in progress may be lost. It is measured by the clocks of this process, of the
    /// processes that remove files, and of the store.
    pub fn grace_period(mut self, period: Duration) -> Self {
        self.grace_period = period;
        self
    }

    /// Deletes the files.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the grace period is over 90 days. [`Storage`](crate::ErrorKind::Storage),
    /// [`Corrupt`](crate::ErrorKind::Corrupt) and [`Timeout`](crate::ErrorKind::Timeout) if the archive cannot be read, or a file cannot be
    /// deleted. [`Corrupt`](crate::ErrorKind::Corrupt) if there are files but no manifest: nothing is deleted then.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, some files may have been deleted, and the sweep can be started again.
    pub async fn send(self) -> Result<SweepReport> {
        let grace_period = TimeDelta::from_std(self.grace_period).unwrap_or(TimeDelta::MAX);
        if grace_period > REMOVED_FOR {
            let problem = format_args!("expected at most 90 days, got {:?}", self.grace_period);
            return Err(Error::invalid("grace period", problem));
        }
        let store = self.archive.store();
        let last = Utc::now() - grace_period;
        // The list is older than the state: a file that is committed in between is in the state.
        let objects = store.list(RUNS, None).await?;
        let state = self.archive.log().state().await?;
        if state.commits == 0 && !objects.is_empty() {
            return Err(corrupt(
                "manifest",
                &format_args!("expected a manifest for the {} files in the folder `{RUNS}`, got none", objects.len()),
            ));
        }
        let mut report = SweepReport::default();
        for object in objects.into_iter().filter(|object| !state.files.contains_key(&object.path)) {
            let unused_since = state.removed.get(&object.path).copied().unwrap_or(object.modified_at);
            if unused_since <= last {
                store.delete(&object.path).await?;
                report.files += 1;
                report.bytes += object.bytes;
            }
        }
        for object in self.archive.log().unused(last).await? {
            store.delete(&object.path).await?;
            report.manifest_files += 1;
            report.bytes += object.bytes;
        }
        Ok(report)
    }
}

/// The result of a sweep; see [`SweepBuilder::send`].
///
/// ```
/// assert_eq!(hatchet::archive::SweepReport::default().to_string(), "0 data files and 0 manifest files deleted, 0 bytes");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SweepReport {
    /// The number of data files that were deleted.
    pub files: u64,
    /// The number of files of the manifest that were deleted.
    pub manifest_files: u64,
    /// Their total size, in bytes.
    pub bytes: u64,
}

impl fmt::Display for SweepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, manifest_files, bytes } = self;
        write!(f, "{files} data files and {manifest_files} manifest files deleted, {bytes} bytes")
    }
}
