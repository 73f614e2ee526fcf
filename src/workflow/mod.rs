//! Definitions of tasks and workflows, and the context of a running task.

mod check;
mod conditions;
mod context;
mod context_parents;
mod dag;
mod defaults;
mod definition;
mod engine;
mod graph;
mod handler;
mod options;
mod parents;
mod probe;
#[cfg(feature = "schemars")]
mod schema;
mod sticky;
mod task;
mod triggers;
mod workflow_options;

pub use crate::model::concurrency::{Concurrency, ConcurrencyStrategy};
pub use crate::model::condition::Condition;
pub use crate::model::event_filter::EventFilter;
pub use crate::model::rate_limit::RateLimit;
pub use crate::model::task_name::TaskName;
pub use context::Context;
pub use dag::Workflow;
pub use defaults::TaskDefaults;
pub use definition::Definition;
pub(crate) use definition::TaskDefinition;
pub(crate) use engine::check_engine;
pub use handler::{TaskError, TaskResult};
pub use parents::Parents;
pub use sticky::Sticky;
pub use task::Task;

pub use crate::run::{Runnable, WorkflowRef};
