//! Following runs: waiting for results, and watching status changes.

mod changes;
mod follower;
mod many;
mod matching;
mod results;
mod step;
mod until;
mod wait;

pub use changes::RunWatch;
pub use many::RunsWatch;
pub use matching::TagWatch;
pub use results::{RunOutcomes, RunResults};
