//! Following runs: results through one stream for all, state changes from history, hints from one stream of events.
//!
//! Events are hints, details are truth: what a stream says is a reason to look and never the answer itself.

mod changes;
mod hints;
mod link;
mod pool;
mod reconnect;
mod results;
mod tracker;
mod wait;

pub use changes::{Change, RunWatch};
pub(crate) use link::{Link, LinkEvent};
