//! What is known of a run: fetched from all API views, resolved to one state, and assembled for the user.
//!
//! The steps are one file each, in this order: `evidence` holds what was fetched, `view` indexes it by task, `attempts` reads the
//! events of a task, `staleness` decides whether REST is behind, `outcome` and `resolve` decide how the run ended, `assemble` builds
//! the details, and `fetch` repeats it all until the responses are consistent.

mod assemble;
mod attempts;
mod details;
mod evidence;
mod fetch;
#[cfg(test)]
mod fixtures;
mod logs;
mod outcome;
mod resolve;
mod staleness;
mod view;

pub use details::DetailsBuilder;
#[cfg(feature = "archive")]
pub(crate) use details::check_logs;
pub(crate) use fetch::{RunFetch, if_found, newest_attempts};
pub use logs::LogItems;
pub(crate) use logs::cancel_line;
pub(crate) use resolve::{may_be_timeout, resolve_from_stream};
