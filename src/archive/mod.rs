//! An archive of runs that outlives the engine's retention.
//!
//! The engine drops runs after a retention, which is 30 days by default. An [`Archive`] keeps them in Parquet files, in a local folder or in
//! an object store, where it can query them, and so can every tool that reads Parquet.
//!
//! ```
//! use std::time::Duration;
//! use hatchet::archive::{Archive, History, Retention};
//! use hatchet::model::Window;
//!
//! # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
//! let archive = Archive::open("/var/lib/hatchet-archive")?;
//! let report = archive.collect(&hatchet, Retention::older_than(Duration::from_secs(20 * 24 * 3600))).send().await?;
//! println!("{report}");
//!
//! // Runs of the engine and of the archive, each once.
//! let mut runs = History::new(&hatchet, &archive).runs(Window::all()).items();
//! while let Some(run) = runs.next().await {
//!     println!("{}", run?.id);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Stores
//!
//! | URL | feature |
//! |---|---|
//! | a path, or `file:///path` | `archive` |
//! | `memory://`, for tests | `archive` |
//! | `s3://bucket/path` | `archive-s3` |
//! | `gs://bucket/path` | `archive-gcs` |
//! | `az://container/path` | `archive-azure` |
//!
//! Credentials are read from the environment: `AWS_ACCESS_KEY_ID`, `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME`, and the
//! others that the crate `object_store` documents.
//!
//! # Files
//!
//! | path | content |
//! |---|---|
//! | `runs/workflow=<name>/day=<date>/<id>.parquet` | runs of one workflow that were created on one day in UTC, newest first |
//! | `manifest/commits/<number>.json` | which files were added and removed; the first to create a number has it |
//! | `manifest/states/<number>.json` | all files after some commits, which saves reading the commits before |
//!
//! Only files that were committed are part of the archive: [`Archive::files`] lists them for other tools.
//!
//! # Schema
//!
//! Version 1. Columns are never removed and never change their meaning. Times are in microseconds and in UTC, JSON is text.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `run_id` | text | the id of the run |
//! | `created_at` | time | when the run was created |
//! | `workflow_name`, `workflow_id`, `workflow_version_id` | text | the workflow, its name without the namespace |
//! | `status` | text | `COMPLETED`, `FAILED`, `CANCELLED` or `TIMED_OUT` |
//! | `attempt` | integer | the number of the newest attempt, starting at 1 |
//! | `started_at`, `finished_at` | time | when the newest attempt started, and when the run ended |
//! | `queued_ms`, `ran_ms`, `elapsed_ms` | integer | the sums of the queue times and of the execution times of all attempts, and the time from the creation to the end |
//! | `retry_count` | integer | the highest retry count of the tasks |
//! | `error` | text | the error message of a failed run |
//! | `cancel_reason`, `cancelled_by` | text | the reason and the author of a cancel |
//! | `trigger` | JSON | what started the run: [`Trigger`](crate::model::Trigger) |
//! | `event_id`, `parent_run_id`, `parent_task_id`, `original_run_id` | text | the event, the parent and the original (of a rerun) of the run |
//! | `metadata` | map of text | the user's metadata; values that are not strings are JSON |
//! | `metadata_values` | JSON | the values of the metadata that are not strings |
//! | `engine_metadata` | JSON | the metadata of the engine and of this crate |
//! | `input`, `output` | JSON | the input, and the output of a completed run |
//! | `outcome` | JSON | how the run ended, without its output: [`Outcome`](crate::model::Outcome) |
//! | `tasks` | JSON | the tasks with their attempts: [`TaskDetails`](crate::model::TaskDetails) |
//! | `logs` | JSON | the log lines that were [requested](CollectBuilder::logs): [`LogLine`](crate::model::LogLine) |
//! | `conflicts` | JSON | conflicts between the server's API views: [`Conflict`](crate::model::Conflict) |
//! | `archived_at` | time | when the row was written |

mod collect;
mod compact;
mod convert;
#[cfg(test)]
mod crash;
mod decode;
mod encode;
mod filter;
mod handle;
mod history;
mod log;
mod lookup;
mod manifest;
mod query;
mod reading;
mod report;
mod retention;
mod schedule;
mod schema;
mod store;
#[cfg(test)]
mod tests;
mod writing;

pub use self::collect::{CollectBuilder, CollectedBatches};
pub use self::compact::{CompactBuilder, CompactReport, ExpireBuilder, ExpireReport, SweepBuilder, SweepReport};
pub use self::handle::Archive;
pub use self::history::{History, HistoryQuery, HistoryRuns};
pub use self::lookup::ArchiveFile;
pub use self::query::{ArchiveQuery, ArchivedDetails, ArchivedRuns};
pub use self::report::{CollectReport, CollectedBatch};
pub use self::retention::{Retention, Rule};
pub use self::schedule::RunningCollector;
