//! The engine itself: a deterministic state machine. Commands, the time and random numbers in; effects and the time of the
//! next timer out. No runtime, no locks, no I/O.
//!
//! Each command is a method of [`Core`] that takes a [`Turn`](store::Turn). Effects are collected until
//! [`Core::effects`] takes them. [`Core::advance`] fires the timers that are due.
//!
//! A group uses only the groups before it:
//!
//! | group | content |
//! |---|---|
//! | `expression` | CEL: its types, its evaluation, and the limits of both |
//! | `format` | durations, JSON in the two styles of the engine, cron expressions, UUIDs |
//! | `store` | the data: types, tables and indexes, timers, and [`Core`], which has all of it |
//! | `definitions` | checks and versions of workflows |
//! | `streams` | who receives results and events |
//! | `runs` | runs and tasks, from start to end |
//! | `triggers` | events, filters, schedules, crons |
//! | `workers` | connections and reports of workers |
//! | `views` | what gRPC and REST show; these change nothing |
//! | `engine` | commands and turns |

mod definitions;
mod engine;
pub(crate) mod expression;
pub(crate) mod format;
mod runs;
pub(crate) mod store;
mod streams;
#[cfg(test)]
mod tests;
mod triggers;
mod views;
mod workers;

pub(crate) use runs::stored_payload;
pub(crate) use store::Core;
pub(crate) use views::{MetadataFilter, RateLimitView, RestStatus, RunFilter, Selection, TaskView, WorkflowView};
