//! Many runs: a filter to pages, to one stream, to numbers.

mod cursor;
mod derive;
mod items;
mod query;

pub use items::RunItems;
pub use query::{Page, RunQuery, StatusCounts, Total};
