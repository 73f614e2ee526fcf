//! The definition of a workflow, as a client sends it.

use std::collections::BTreeMap;

use super::batches::BatchOptions;
use super::concurrency::Concurrency;
use super::conditions::Condition;
use super::labels::DesiredLabel;
use super::options::WorkflowOptions;
use super::rate_limits::TaskLimit;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Definition {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) default_priority: Option<i32>,
    pub(crate) input_json_schema: Option<Vec<u8>>,
    /// At least one. Their order makes no difference.
    pub(crate) tasks: Vec<TaskDefinition>,
    /// The task that runs when another has failed.
    pub(crate) on_failure: Option<TaskDefinition>,
    pub(crate) options: WorkflowOptions,
}

impl Definition {
    /// The tasks, with the one that runs when another has failed.
    pub(crate) fn all_tasks(&self) -> impl Iterator<Item = &TaskDefinition> + Clone {
        self.tasks.iter().chain(&self.on_failure)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TaskDefinition {
    pub(crate) readable_id: String,
    pub(crate) action: String,
    /// The names of the tasks that it depends on.
    pub(crate) parents: Vec<String>,
    pub(crate) conditions: Vec<Condition>,
    /// As it was written; empty if it was not set.
    pub(crate) timeout: String,
    pub(crate) schedule_timeout: Option<String>,
    pub(crate) retries: i32,
    pub(crate) backoff_factor: Option<f32>,
    pub(crate) backoff_max_seconds: Option<i32>,
    pub(crate) concurrency: Vec<Concurrency>,
    pub(crate) rate_limits: Vec<TaskLimit>,
    /// The slots that it takes on a worker. Empty means one of the default type.
    pub(crate) slots: BTreeMap<String, i32>,
    /// Requirements and preferences for a worker.
    pub(crate) labels: BTreeMap<String, DesiredLabel>,
    /// For a task whose runs are assigned to workers in batches.
    pub(crate) batch: Option<BatchOptions>,
}
