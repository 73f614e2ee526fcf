//! What a collection did.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What a collection did; see [`CollectBuilder::send`](super::CollectBuilder::send).
///
/// ```no_run
/// # async fn example(collection: hatchet::archive::CollectBuilder) -> hatchet::Result<()> {
/// let report = collection.send().await?;
/// if report.at_risk > 0 {
///     eprintln!("{} runs were archived only shortly before the engine drops them", report.at_risk);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CollectReport {
    /// The number of runs that were archived, or that would have been in a [dry run](super::CollectBuilder::dry_run).
    pub archived: u64,
    /// The number of runs that were archived before and have not changed since.
    pub unchanged: u64,
    /// The number of runs that had ended in the list, but run again. They are archived by a later collection.
    pub active: u64,
    /// The number of runs that the engine dropped before they could be fetched. They are lost.
    pub dropped: u64,
    /// The number of archived runs that the engine drops within a day, or within the interval of
    /// [`every`](super::CollectBuilder::every) and a day. A shorter [`Retention`](super::Retention) archives them earlier. It is 0 if the engine's retention is unknown.
    pub at_risk: u64,
    /// The number of files that were written.
    pub files: u64,
    /// The size of these files in bytes.
    pub bytes: u64,
    /// Whether nothing was archived because of [`dry_run`](super::CollectBuilder::dry_run).
    pub is_dry_run: bool,
    /// The engine's retention, if the server shows it. Servers before 0.105 do not.
    pub engine_retention: Option<Duration>,
    /// Whether runs of some workflow are to be archived only after the engine has dropped them.
    pub is_retention_too_long: bool,
}

impl fmt::Display for CollectReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_dry_run { "to archive" } else { "archived" };
        write!(f, "{} {what}, {} unchanged", self.archived, self.unchanged)?;
        let others = [(self.active, "active"), (self.dropped, "dropped by the engine"), (self.at_risk, "at risk")];
        others.iter().filter(|(count, _)| *count > 0).try_for_each(|(count, what)| write!(f, ", {count} {what}"))
    }
}

/// Runs that were committed together; see [`CollectBuilder::batches`](super::CollectBuilder::batches).
///
/// ```
/// fn print(batch: &hatchet::archive::CollectedBatch) {
///     println!("{} runs since {}", batch.runs, batch.first_created_at);
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CollectedBatch {
    /// The number of runs.
    pub runs: u64,
    /// The number of files.
    pub files: u64,
    /// The size of the files in bytes.
    pub bytes: u64,
    /// When the first run was created.
    pub first_created_at: DateTime<Utc>,
    /// When the last run was created.
    pub last_created_at: DateTime<Utc>,
}
