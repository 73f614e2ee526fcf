//! Definitions of tasks and workflows, and the context of a running task.

mod context;
mod context_control;
mod context_output;
mod current;
mod dag;
mod definition;
mod handler;
mod output;
mod probe;
mod task;
mod triggers;
mod variants;

pub(crate) use context::AttemptContext;
pub use context::Context;
#[cfg(feature = "tracing-subscriber")]
pub(crate) use current::current_context;
pub(crate) use current::in_context;
pub use dag::Workflow;
pub use definition::Definition;
pub(crate) use definition::TaskDefinition;
pub use handler::{TaskError, TaskResult};
pub(crate) use output::{TaskContent, TaskMessage, TaskOutput};
pub use task::Task;
pub use triggers::Sticky;

pub use crate::run::{Runnable, WorkflowRef};
