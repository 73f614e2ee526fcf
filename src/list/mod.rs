//! Queries for runs: pages, streams and counts, and commands for all matching runs.

mod bulk;
mod cursor;
mod derive;
mod items;
mod lineage;
mod query;
mod reader;
mod selection;
mod statuses;

pub use bulk::{BulkCancelBuilder, BulkReplayBuilder, RunReports};
pub use items::{RunItems, TaskItems};
#[cfg(feature = "archive")]
pub(crate) use query::check_page_size;
pub use query::{RunQuery, TaskQuery};
#[cfg(feature = "archive")]
pub(crate) use selection::fingerprint;
