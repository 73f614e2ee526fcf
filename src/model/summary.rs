//! Runs and tasks in lists.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{RunId, RunStatus, TaskId, Trigger, WorkflowId, trigger};

/// A run in a list; see [`Client::runs`](crate::Client::runs).
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// use hatchet::model::Window;
///
/// for run in hatchet.runs(Window::all()).page(50).await?.items {
///     println!("{} {:?} {}", run.created_at, run.workflow_name, run.status);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunSummary {
    /// The id, for [`Client::run_handle`](crate::Client::run_handle).
    pub id: RunId,
    /// The id of the task that started the run as a child.
    pub parent_task_id: Option<TaskId>,
    /// The workflow that the run executes.
    pub workflow_id: WorkflowId,
    /// The name of the workflow, without the namespace. `None` if the server's list does not contain it.
    pub workflow_name: Option<String>,
    /// The status in the list, which can be a few seconds old.
    pub status: RunStatus,
    /// The number of the newest attempt, starting at 1.
    pub attempt: u32,
    /// The error message, if the run failed.
    pub error: Option<String>,
    /// The user's metadata.
    pub metadata: BTreeMap<String, Value>,
    /// The metadata that the engine and this crate added. The key of an event has no namespace.
    pub engine_metadata: BTreeMap<String, Value>,
    /// When the run was created. The runs of one bulk call have the same creation time.
    pub created_at: DateTime<Utc>,
    /// When the newest attempt started.
    pub started_at: Option<DateTime<Utc>>,
    /// When the run ended, if it has ended.
    pub finished_at: Option<DateTime<Utc>>,
}

impl RunSummary {
    /// Returns what started the run. The payload and the scope of an event are `None`: only the details contain them.
    pub fn trigger(&self) -> Trigger {
        trigger::read(&self.engine_metadata, self.parent_task_id)
    }

    /// Returns the id of the original run, if this is a rerun.
    pub fn original_run_id(&self) -> Option<RunId> {
        trigger::original_run_id(&self.engine_metadata)
    }
}

/// A task in a list; see [`Client::tasks`](crate::Client::tasks).
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// use hatchet::model::Window;
///
/// for task in hatchet.tasks(Window::all()).page(50).await?.items {
///     println!("{:?} of run {}: {}", task.name, task.run_id, task.status);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskSummary {
    /// The id. The task of a single-task run has the id of the run.
    pub id: TaskId,
    /// The name of the task in its workflow, if the server's list contains it.
    pub name: Option<String>,
    /// The run that the task belongs to.
    pub run_id: RunId,
    /// The workflow that the run executes.
    pub workflow_id: WorkflowId,
    /// The name of the workflow, without the namespace. `None` if the server's list does not contain it.
    pub workflow_name: Option<String>,
    /// The status in the list, which can be a few seconds old.
    pub status: RunStatus,
    /// The number of the newest attempt, starting at 1.
    pub attempt: u32,
    /// The error message, if the task failed.
    pub error: Option<String>,
    /// The user's metadata of the run.
    pub metadata: BTreeMap<String, Value>,
    /// The metadata that the engine and this crate added. The key of an event has no namespace.
    pub engine_metadata: BTreeMap<String, Value>,
    /// When the task was created.
    pub created_at: DateTime<Utc>,
    /// When the newest attempt started.
    pub started_at: Option<DateTime<Utc>>,
    /// When the task ended, if it has ended.
    pub finished_at: Option<DateTime<Utc>>,
}
