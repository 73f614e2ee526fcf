//! Runs and their tasks: how they start, are queued, sent to workers, retried, and how they end.

mod admission;
pub(crate) mod announce;
mod attempts;
mod availability;
pub(crate) mod batches;
pub(crate) mod cancels;
mod children;
pub(crate) mod concurrency;
mod conditions;
mod dag;
mod delivery;
mod expressions;
mod finals;
pub(crate) mod flushes;
mod idempotency;
pub(crate) mod late;
pub(crate) mod lifecycle;
pub(crate) mod pauses;
mod payload;
mod placement;
pub(crate) mod progress;
pub(crate) mod queue;
pub(crate) mod rates;
pub(crate) mod replays;
pub(crate) mod retention;
pub(crate) mod retries;
pub(crate) mod slots;
pub(crate) mod start;
pub(crate) mod waits;
pub(crate) mod wakes;

pub(crate) use payload::stored as stored_payload;
