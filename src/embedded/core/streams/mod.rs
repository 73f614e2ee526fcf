//! Streams of results and of events: who receives what.

pub(crate) mod chunks;
pub(crate) mod events;
pub(crate) mod results;
