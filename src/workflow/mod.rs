//! Definitions: what can be run, by which rules, and what a task is given when it runs.

mod context;
mod definition;
mod handler;
mod task;
mod triggers;

pub(crate) use context::Assignment;
pub use context::Context;
pub(crate) use definition::Definition;
pub use handler::{TaskError, TaskResult};
pub use task::Task;
pub use triggers::Sticky;
