//! Following runs: waiting for results, and watching status changes.

mod announced;
mod beginning;
mod changes;
mod chunk_group;
mod chunk_reader;
mod chunks;
mod continuity;
mod family;
mod follower;
mod lateness;
mod lookup;
mod many;
mod matching;
mod outage;
mod reorder;
mod rerun;
mod results;
mod sse;
mod step;
mod until;
mod wait;
mod watch_failure;

#[cfg(feature = "__benches")]
pub(crate) use step::bench;

pub use changes::RunWatch;
pub use chunks::RunChunks;
pub use many::RunsWatch;
pub use matching::TagWatch;
pub use results::{RunOutcomes, RunResults};
pub use sse::ChunkSse;
