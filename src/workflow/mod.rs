//! Definitions of tasks and workflows, and the context of a running task.

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

pub use crate::run::{Runnable, WorkflowRef};
