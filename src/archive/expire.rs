//! Removing old runs from an archive.

use std::collections::BTreeSet;
use std::fmt;

use chrono::Utc;
use serde::{Deserialize, Serialize};

use super::handle::Archive;
use super::manifest::{Commit, File, Partition, VERSION};
use super::retention::Retention;
use super::text::Count;
use crate::error::Result;

impl Archive {
    /// Returns a builder for an expiry, which removes the archived runs that a [`Retention`] selects.
    ///
    /// The runs of a workflow and a day are removed together, when the newest of them is old enough. Runs are never removed without this
    /// call.
    ///
    /// The ages must be longer than the engine's retention period. Otherwise, the engine still has runs that were removed, and the next
    /// [`collect`](Self::collect) archives them again.
    ///
    /// ```no_run
    /// # async fn example(archive: hatchet::archive::Archive) -> hatchet::Result<()> {
    /// use std::time::Duration;
    /// use hatchet::archive::{Retention, Rule};
    ///
    /// let years = |count: u32| Duration::from_secs(365 * 24 * 3600) * count;
    /// let retention = Retention::older_than(years(2)).workflow("audit", Rule::never());
    /// println!("{}", archive.expire(retention).dry_run().send().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn expire(&self, retention: Retention) -> ExpireBuilder {
        ExpireBuilder { archive: self.clone(), retention, is_dry_run: false }
    }
}

/// A builder for an expiry, which removes old runs; see [`Archive::expire`].
///
/// [`send`](Self::send) removes them.
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
#[must_use = "nothing is removed until `send` is awaited"]
pub struct ExpireBuilder {
    archive: Archive,
    retention: Retention,
    is_dry_run: bool,
}

impl ExpireBuilder {
    /// Only counts the runs that would be removed. Nothing is changed.
    pub fn dry_run(mut self) -> Self {
        self.is_dry_run = true;
        self
    }

    /// Removes the runs from the archive, all of them in one commit: either all or none are removed.
    ///
    /// [`sweep`](Archive::sweep) deletes their files. Ages are measured by the system clock, or by the clock of
    /// [`with_clock_of`](Archive::with_clock_of).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if an age is over ten years, or if a rule has statuses or is without payloads,
    /// because the runs of whole days are removed. [`Storage`](crate::ErrorKind::Storage), [`Corrupt`](crate::ErrorKind::Corrupt) and
    /// [`Timeout`](crate::ErrorKind::Timeout) if the manifest cannot be read or written.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, the runs may have been removed, and the removal can be started again.
    pub async fn send(self) -> Result<ExpireReport> {
        self.retention.check_ages_only()?;
        let now = self.archive.now();
        loop {
            let state = self.archive.log().state().await?;
            let is_expired = |file: &File| {
                let last = self.retention.of(&file.partition.workflow).last_due(now);
                last.is_some_and(|last| file.max_created_at <= last)
            };
            // A file of a day with newer runs stays: days are removed together.
            let kept: BTreeSet<&Partition> =
                state.files().filter(|file| !is_expired(file)).map(|file| &file.partition).collect();
            let expired: Vec<&File> = state.files().filter(|file| !kept.contains(&file.partition)).collect();
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
            let commit = Commit { version: VERSION, committed_at: Utc::now(), source: None, add: Vec::new(), remove };
            if self.archive.log().commit(&state, &commit).await? {
                return Ok(report);
            }
        }
    }
}

/// The result of an expiry; see [`ExpireBuilder::send`].
///
/// ```
/// assert_eq!(hatchet::archive::ExpireReport::default().to_string(), "0 runs in 0 files removed");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExpireReport {
    /// The number of runs that were removed, or that would be removed if this is a dry run.
    pub runs: u64,
    /// The number of files of these runs.
    pub files: u64,
    /// The total size of these files, in bytes.
    pub bytes: u64,
    /// Whether nothing was removed because of [`dry_run`](ExpireBuilder::dry_run).
    pub is_dry_run: bool,
}

impl fmt::Display for ExpireReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_dry_run { "to remove" } else { "removed" };
        write!(f, "{} in {} {what}", Count(self.runs, "run"), Count(self.files, "file"))
    }
}
