//! Definitions of tasks and workflows, and the context of a running task.

mod batch;
mod check;
mod context;
mod context_control;
mod context_output;
mod context_parents;
mod current;
mod dag;
mod defaults;
mod definition;
mod engine;
mod full_slots;
mod graph;
mod handler;
mod output;
mod parents;
mod probe;
mod setters;
mod start_options;
mod sticky;
mod stop;
mod task;
mod task_options;
mod variants;
mod workflow_options;

pub use crate::model::batch::BatchOptions;
pub use crate::model::concurrency::{Concurrency, ConcurrencyStrategy};
pub use crate::model::condition::Condition;
pub use crate::model::event_filter::EventFilter;
pub use crate::model::rate_limit::RateLimit;
pub use crate::model::task_name::TaskName;
pub use batch::BatchItem;
pub(crate) use context::AttemptContext;
pub use context::Context;
pub(crate) use context::WorkerLabels;
#[cfg(feature = "tracing-subscriber")]
pub(crate) use current::current_context;
pub(crate) use current::in_context;
pub use dag::Workflow;
pub use defaults::TaskDefaults;
pub use definition::Definition;
pub(crate) use definition::TaskDefinition;
pub(crate) use engine::{check_engine, version_without_retry_delays};
pub(crate) use full_slots::FullSlots;
pub use handler::{TaskError, TaskResult};
pub(crate) use output::{MessageOrigin, TaskContent, TaskMessage, TaskOutput};
pub use parents::Parents;
pub use sticky::Sticky;
pub use stop::CancelCause;
pub(crate) use stop::Stop;
pub use task::Task;

pub use crate::run::{Runnable, WorkflowRef};
