//! Definitions, as they are stored.

use crate::rpc::pb::v1::{CreateTaskOpts, CreateWorkflowVersionRequest};

/// A workflow's definition. All names and actions are as the server is to know them.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewWorkflow {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) default_priority: Option<i32>,
    pub(crate) tasks: Vec<NewTask>,
    /// The one that runs when another has failed.
    pub(crate) on_failure: Option<NewTask>,
}

/// A task's definition.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewTask {
    pub(crate) name: String,
    pub(crate) action: String,
    /// In the server's grammar, as the schedule timeout.
    pub(crate) timeout: String,
    pub(crate) schedule_timeout: String,
    pub(crate) retries: i32,
    pub(crate) backoff_factor: Option<f32>,
    pub(crate) backoff_max_seconds: Option<i32>,
    /// The names of the tasks that it follows.
    pub(crate) parents: Vec<String>,
}

impl From<NewWorkflow> for CreateWorkflowVersionRequest {
    fn from(workflow: NewWorkflow) -> Self {
        Self {
            name: workflow.name,
            description: workflow.description,
            default_priority: workflow.default_priority,
            tasks: workflow.tasks.into_iter().map(Into::into).collect(),
            on_failure_task: workflow.on_failure.map(Into::into),
            ..Default::default()
        }
    }
}

impl From<NewTask> for CreateTaskOpts {
    fn from(task: NewTask) -> Self {
        Self {
            readable_id: task.name,
            action: task.action,
            timeout: task.timeout,
            schedule_timeout: Some(task.schedule_timeout),
            retries: task.retries,
            backoff_factor: task.backoff_factor,
            backoff_max_seconds: task.backoff_max_seconds,
            parents: task.parents,
            ..Default::default()
        }
    }
}
