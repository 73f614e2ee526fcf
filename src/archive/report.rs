//! What a collection or a compaction did.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

use super::manifest::{File, Partition};
use super::text::{Count, Length};

/// What a collection did; see [`CollectBuilder::send`](super::CollectBuilder::send).
///
/// ```no_run
/// # async fn example(collection: hatchet::archive::CollectBuilder) -> hatchet::Result<()> {
/// let report = collection.send().await?;
/// if report.at_risk > 0 {
///     eprintln!("the engine soon drops {} of these runs, or of those that are not old enough", report.at_risk);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CollectReport {
    /// The number of runs that were archived, or that would be archived if this is a [dry run](super::CollectBuilder::dry_run).
    pub archived: u64,
    /// The number of these runs by workflow name, without the namespace.
    pub archived_by_workflow: BTreeMap<String, u64>,
    /// The number of runs that were already archived and have not changed since, including those that another process has archived in the
    /// meantime.
    pub unchanged: u64,
    /// The number of runs that were replayed between being listed and being fetched. A later collection archives them.
    pub active: u64,
    /// The number of runs whose details could not be fetched, for example because the server did not respond in time. The errors are
    /// logged. A later collection fetches them again.
    pub fetch_errors: u64,
    /// The number of runs that the engine dropped between being listed and being fetched. They are lost.
    pub dropped: u64,
    /// The number of runs that the engine drops within 24 hours or, if the [interval](super::CollectBuilder::collected_every) of the
    /// collections is known, within 24 hours after the next collection. They are runs that this collection archived, and runs that are not
    /// archived because they are not old enough or have not ended; of the latter, the server counts up to 20,000 for each rule. A shorter
    /// [`Retention`](super::Retention) archives runs at risk earlier, unless they have not ended. With
    /// [`before`](super::CollectBuilder::before), only runs that were archived are counted. If the collection failed or was stopped, runs
    /// that it had found and not archived yet are counted, too. Runs that could not be counted at the start are not included; this is
    /// logged. It is 0 if the engine's retention period is unknown.
    pub at_risk: u64,
    /// The number of files that were written.
    pub files: u64,
    /// The size of these files in bytes.
    pub bytes: u64,
    /// Whether nothing was archived because of [`dry_run`](super::CollectBuilder::dry_run).
    pub is_dry_run: bool,
    /// The engine's retention period, if it was [set](super::CollectBuilder::engine_retention), or if the server reports it. The server
    /// reports the default that the tenant was created with; older servers report nothing.
    pub engine_retention: Option<Duration>,
    /// Whether the age of a rule is not shorter than the engine's retention period, so that the engine drops runs before they are archived.
    /// It is `false` if the retention period is unknown.
    pub is_age_too_long: bool,
}

impl fmt::Display for CollectReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_dry_run { "to archive" } else { "archived" };
        write!(f, "{} {what}, {} unchanged", self.archived, self.unchanged)?;
        let others = [
            (self.active, "active"),
            (self.fetch_errors, "could not be fetched"),
            (self.dropped, "dropped by the engine"),
            (self.at_risk, "at risk"),
        ];
        others.iter().filter(|(count, _)| *count > 0).try_for_each(|(count, what)| write!(f, ", {count} {what}"))?;
        match self.engine_retention.filter(|_| self.is_age_too_long) {
            Some(retention) => {
                write!(
                    f,
                    "; the engine drops runs after {}, before they are old enough to be archived",
                    Length(retention)
                )
            }
            None => Ok(()),
        }
    }
}

/// Runs that were committed together; see [`CollectBuilder::batches`](super::CollectBuilder::batches).
///
/// ```
/// fn print(batch: &hatchet::archive::CollectedBatch) {
///     println!("{} runs since {}", batch.runs, batch.min_created_at);
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CollectedBatch {
    /// The number of runs that were committed.
    pub runs: u64,
    /// The number of files that were written.
    pub files: u64,
    /// The total size of these files, in bytes.
    pub bytes: u64,
    /// The earliest creation time of these runs.
    pub min_created_at: DateTime<Utc>,
    /// The latest creation time of these runs.
    pub max_created_at: DateTime<Utc>,
}

/// The result of a compaction; see [`CompactBuilder::send`](super::CompactBuilder::send).
///
/// ```
/// assert_eq!(hatchet::archive::CompactReport::default().to_string(), "0 files merged into 0");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CompactReport {
    /// The number of files that were merged, without damaged files and files that needed no merge.
    pub files_merged: u64,
    /// The number of new files. They contain the runs of the merged files, and what could be read of damaged files.
    pub files_written: u64,
    /// The number of damaged and missing files that were removed: all of them with
    /// [`discard_damaged`](super::CompactBuilder::discard_damaged), and none without.
    pub files_discarded: u64,
    /// The paths of damaged and missing files among those that were read. Without
    /// [`discard_damaged`](super::CompactBuilder::discard_damaged), only the files of workflows and days that need a merge are read.
    pub damaged_files: Vec<String>,
}

impl fmt::Display for CompactReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} merged into {}", Count(self.files_merged, "file"), self.files_written)?;
        let left = (self.damaged_files.len() as u64).saturating_sub(self.files_discarded);
        for (count, what) in [(self.files_discarded, "removed"), (left, "left")] {
            if count > 0 {
                write!(f, ", {} {what}", Count(count, "damaged file"))?;
            }
        }
        Ok(())
    }
}

/// A partition (a workflow and a day) whose files were compacted; see [`CompactBuilder::partitions`](super::CompactBuilder::partitions).
///
/// ```
/// fn print(day: &hatchet::archive::CompactedPartition) {
///     println!("{} {}: {} files", day.workflow_name.as_deref().unwrap_or("?"), day.day, day.files_written);
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CompactedPartition {
    /// The name of the workflow, without the namespace. `None` if the engine had no name for the runs.
    pub workflow_name: Option<String>,
    /// The day on which the runs were created, in UTC.
    pub day: NaiveDate,
    /// The number of files that were merged, without damaged files. It is 0 if the files were left unchanged: because none is damaged,
    /// because those that are not damaged need no merge, or because another process has merged them.
    pub files_merged: u64,
    /// The number of new files. They contain the runs of the merged files, and what could be read of damaged files.
    pub files_written: u64,
    /// The number of damaged and missing files that were removed because of
    /// [`discard_damaged`](super::CompactBuilder::discard_damaged).
    pub files_discarded: u64,
    /// The number of runs in the new files.
    pub runs: u64,
    /// The total size of the new files, in bytes.
    pub bytes: u64,
    /// The paths of damaged and missing files.
    pub damaged_files: Vec<String>,
}

impl CompactedPartition {
    pub(super) fn of(partition: Partition, add: &[File], remove: &[String], damaged: &[String]) -> Self {
        let discarded = remove.iter().filter(|path| damaged.contains(path)).count();
        Self {
            day: partition.day,
            workflow_name: partition.workflow_name(),
            files_merged: (remove.len() - discarded) as u64,
            files_written: add.len() as u64,
            files_discarded: discarded as u64,
            runs: add.iter().map(|file| file.rows).sum(),
            bytes: add.iter().map(|file| file.bytes).sum(),
            damaged_files: damaged.to_vec(),
        }
    }
}
