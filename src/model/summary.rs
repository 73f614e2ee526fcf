//! Runs as lists show them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use super::{RunId, RunStatus, TaskId, Trigger, WorkflowId, trigger};

/// A row of a list: a run, or a task if the filter asked for [tasks](crate::RunFilter::tasks).
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct RunSummary {
    /// The run.
    pub id: RunId,
    /// The task, in a list of tasks.
    pub task: Option<TaskId>,
    /// The task's name in its workflow, in a list of tasks.
    pub task_name: Option<String>,
    /// The task that started it as a child.
    pub parent_task: Option<TaskId>,
    /// Its workflow.
    pub workflow: WorkflowId,
    /// The workflow's name, without the namespace.
    pub workflow_name: String,
    /// Its state.
    pub status: RunStatus,
    /// The number of its newest attempt, from 1.
    pub attempt: u32,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// The user's metadata.
    pub metadata: BTreeMap<String, Value>,
    /// The keys that the engine and this crate added.
    pub engine_metadata: BTreeMap<String, Value>,
    /// When it was created. Runs of one bulk call share this to the microsecond.
    pub created_at: DateTime<Utc>,
    /// When work on the newest attempt began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended, if it has.
    pub finished_at: Option<DateTime<Utc>>,
    /// Whether its workflow is of another namespace than the client.
    #[serde(skip)]
    pub(crate) is_foreign: bool,
}

impl RunSummary {
    /// The unique id of the row. The task of a single-task run has the id of its run.
    pub(crate) fn key(&self) -> TaskId {
        self.task.unwrap_or_else(|| self.id.into())
    }

    /// What started it, as far as the list reports it.
    pub fn trigger(&self) -> Trigger {
        trigger::read(&self.engine_metadata, self.parent_task)
    }

    /// What it is a rerun of, if it is one.
    pub fn rerun_of(&self) -> Option<RunId> {
        trigger::rerun_of(&self.engine_metadata)
    }
}
