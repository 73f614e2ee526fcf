//! Definitions: what can be run, by which rules, and what a task is given when it runs.

mod context;
mod dag;
mod definition;
mod handler;
mod probe;
mod task;
mod triggers;

pub use context::Context;
pub use dag::Workflow;
pub use definition::Definition;
pub(crate) use definition::TaskDefinition;
pub use handler::{TaskError, TaskResult};
pub use task::Task;
pub use triggers::Sticky;
