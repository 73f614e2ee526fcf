//! An archive of runs that outlive the engine's retention period.
//!
//! The engine drops runs after its retention period, which is 30 days by default. An [`Archive`] keeps copies of them in Parquet files, in a
//! local directory or in an object store. This crate can query them, and so can every other tool that reads Parquet.
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
//! // The runs of the engine and of the archive. A run that both have is returned once.
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
//! Each call of [`Archive::open`] with `memory://` creates an empty store, which the clones of the archive share. An operation of a store that
//! takes longer than 120 seconds fails with [`Timeout`](crate::ErrorKind::Timeout). A store must support conditional writes:
//! creating an object that exists must fail. This is checked before the first commit.
//!
//! The options of a cloud store, such as its credentials and endpoint, are read from environment variables, or passed to
//! [`Archive::open_with_options`]. These are the most important ones; the crate `object_store` documents all of them in
//! `AmazonS3ConfigKey`, `GoogleConfigKey` and `AzureConfigKey`.
//!
//! | store | variables | options |
//! |---|---|---|
//! | S3 | `AWS_*` | `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`; a compatible store also needs `AWS_ENDPOINT`, and `AWS_ALLOW_HTTP=true` if it has no TLS |
//! | Google Cloud Storage | `GOOGLE_*` | `GOOGLE_SERVICE_ACCOUNT` (a file) or `GOOGLE_SERVICE_ACCOUNT_KEY` (its content), `GOOGLE_APPLICATION_CREDENTIALS` |
//! | Azure Blob Storage | `AZURE_*` | `AZURE_STORAGE_ACCOUNT_NAME`, and `AZURE_STORAGE_ACCOUNT_KEY` or `AZURE_STORAGE_SAS_TOKEN` |
//!
//! Without credentials, those of the machine are used: an instance role, or a managed identity. Profiles in `~/.aws` are not read.
//!
//! # Files
//!
//! | path | content |
//! |---|---|
//! | `runs/workflow=<name>/day=<date>/<uuid>.parquet` | runs of one workflow that were created on one day (UTC), newest first; the name is percent-encoded |
//! | `manifest/commits/<number>.json` | the files that a commit adds and removes; if several processes write the same number, only the first succeeds |
//! | `manifest/states/<number>.json` | the list of all files after this commit, so that the commits before it need not be read |
//!
//! Files that were not committed are not part of the archive. [`Archive::files`] lists the committed files for other tools.
//!
//! # Schema
//!
//! This is version 1. Columns are never removed, and their meaning never changes. Times are in microseconds, in UTC. JSON values are stored
//! as strings.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `run_id` | string | the id of the run |
//! | `created_at` | time | when the run was created |
//! | `workflow_name`, `workflow_id`, `workflow_version_id` | string | the workflow, its name without the namespace |
//! | `status` | string | `COMPLETED`, `FAILED`, `CANCELLED` or `TIMED_OUT` |
//! | `attempt` | integer | the number of the newest attempt, starting at 1 |
//! | `started_at`, `finished_at` | time | when the newest attempt started, and when the run ended |
//! | `queued_ms`, `ran_ms`, `elapsed_ms` | integer | milliseconds: the sum of the queue times of all attempts, the sum of their execution times, and the time from the creation to the end |
//! | `retry_count` | integer | the highest retry count of the tasks |
//! | `error` | string | the error message of a failed run |
//! | `cancel_reason`, `cancelled_by` | string | the reason and the author of the cancellation |
//! | `trigger` | JSON | what started the run: [`Trigger`](crate::model::Trigger) |
//! | `event_id`, `parent_run_id`, `parent_task_id`, `original_run_id` | string | the ids of the event that started the run, of the parent of a child run, and of the original of a rerun |
//! | `metadata` | map of strings | the user's metadata; a value that is not a string is its JSON |
//! | `non_string_metadata` | JSON | the metadata whose values are not strings |
//! | `engine_metadata` | JSON | the metadata that the engine and this crate added |
//! | `input`, `output` | JSON | the input, and the output of a completed run; null without [payloads](Rule::without_payloads) |
//! | `outcome` | JSON | how the run ended, without its output: [`Outcome`](crate::model::Outcome) |
//! | `tasks` | JSON | the tasks with their attempts: [`TaskDetails`](crate::model::TaskDetails) |
//! | `logs` | JSON | the log lines that were [requested](CollectBuilder::logs): [`LogLine`](crate::model::LogLine) |
//! | `conflicts` | JSON | the conflicts between the server's API views: [`Conflict`](crate::model::Conflict) |
//! | `archived_at` | time | when the row was written; 1970-01-01 if a [damaged file](CompactBuilder::discard_damaged) has lost its input, output or log lines |

mod collect;
mod collection;
mod collector;
mod compact;
mod compactor;
mod compare;
mod convert;
#[cfg(test)]
mod crash;
mod days;
mod decode;
mod encode;
mod exact;
mod expire;
mod filter;
mod handle;
mod history;
mod history_stream;
mod log;
mod lookup;
mod manifest;
mod open;
mod paging;
mod progress;
mod query;
mod reading;
mod report;
mod retention;
mod schema;
mod store;
mod sweep;
#[cfg(test)]
mod tests;
mod text;
mod unfinished;
mod writing;

pub use self::collect::{CollectBuilder, CollectedBatches};
pub use self::collector::{CollectorBuilder, RunningCollector};
pub use self::compact::{CompactBuilder, CompactedPartitions};
pub use self::expire::{ExpireBuilder, ExpireReport};
pub use self::handle::Archive;
pub use self::history::{History, HistoryDetails, HistoryDetailsBuilder, HistoryQuery, HistoryRuns};
pub use self::lookup::ArchiveFile;
pub use self::query::{ArchiveQuery, ArchivedDetails, ArchivedRuns};
pub use self::report::{CollectReport, CollectedBatch, CompactReport, CompactedPartition};
pub use self::retention::{Retention, Rule};
pub use self::sweep::{SweepBuilder, SweepReport, SweptBatch, SweptBatches};
