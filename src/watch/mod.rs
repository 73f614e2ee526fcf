//! Following runs: waiting for results, and watching status changes.

mod changes;
mod tracker;
mod wait;

pub use changes::RunWatch;
