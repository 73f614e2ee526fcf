//! Runs and their tasks.

mod batches;
mod cancels;
mod children;
mod concurrency;
mod conditions;
mod dag;
mod idempotency;
mod lifecycle;
mod pauses;
mod placement;
mod rates;
mod replays;
mod retention;
