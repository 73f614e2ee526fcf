//! Many runs: a filter to pages, to one stream, to numbers.

mod bulk;
mod cursor;
mod derive;
mod items;
mod lineage;
mod query;

pub use bulk::{BulkCancel, BulkReplay, RunReports};
pub use items::RunItems;
pub use query::{Page, RunQuery, StatusCounts, Total};
