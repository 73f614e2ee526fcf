//! Queries for runs: pages, streams and counts, and commands for all matching runs.

mod bulk;
mod cursor;
mod derive;
mod items;
mod lineage;
mod query;

pub use bulk::{BulkCancel, BulkReplay, RunReports};
pub use items::RunItems;
pub use query::RunQuery;
