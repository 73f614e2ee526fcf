//! The REST API's JSON about runs, as far as it is read.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::fields::{optional_id, or_empty, status};
use super::task_event::TaskEvent;
use crate::model::trigger::{self, PARENT_RUN_KEY, Trigger};
use crate::model::{RunId, RunStatus, TaskId, WorkflowId, WorkflowVersionId};
use crate::time::optional_time;

type Timestamp = Option<DateTime<Utc>>;

/// A page of rows, which can be `null`.
#[derive(Debug, Deserialize)]
pub(crate) struct Rows<T> {
    pub(crate) rows: Option<Vec<T>>,
    #[serde(default)]
    pub(crate) pagination: Pagination,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pagination {
    pub(crate) num_pages: i64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Meta<I> {
    pub(crate) id: I,
    #[serde(default, rename = "createdAt", deserialize_with = "optional_time")]
    pub(crate) created_at: Timestamp,
}

/// A run.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RestRun {
    pub(crate) run: RunBody,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) tasks: Vec<RestTask>,
    /// The names of the tasks.
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) shape: Vec<ShapeItem>,
    /// The events of all tasks of a DAG run. Empty for a single-task run.
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) task_events: Vec<TaskEvent>,
    #[serde(default)]
    pub(crate) workflow_config: Option<WorkflowConfig>,
}

impl RestRun {
    /// The task that started the run as its child. All tasks of the run have it.
    pub(crate) fn parent_task(&self) -> Option<TaskId> {
        self.tasks.iter().find_map(|task| task.parent_task_external_id)
    }

    /// Whether the run is a child, and is shown without its tasks, which name its parent: REST can have a run before its tasks.
    pub(crate) fn lacks_parent(&self) -> bool {
        let is_child = || self.run.additional_metadata.as_ref().is_some_and(|all| all.contains_key(PARENT_RUN_KEY));
        self.tasks.is_empty() && is_child()
    }

    /// The run that started this one as its child, if it did and the metadata contains it.
    pub(crate) fn parent_run(&self) -> Option<RunId> {
        let metadata = self.run.additional_metadata.as_ref()?;
        match trigger::read(metadata, self.parent_task()) {
            Trigger::Child(child) => child.parent_run_id,
            _ => None,
        }
    }
}

/// A task, as its run shows it. Unlike the response for a single task, this status is reliable.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RestTask {
    pub(crate) task_external_id: TaskId,
    #[serde(deserialize_with = "status")]
    pub(crate) status: RunStatus,
    #[serde(default)]
    pub(crate) output: Option<Box<RawValue>>,
    #[serde(default)]
    pub(crate) error_message: Option<String>,
    #[serde(default, deserialize_with = "optional_id")]
    pub(crate) parent_task_external_id: Option<TaskId>,
    #[serde(default)]
    pub(crate) retry_count: Option<u32>,
}

impl RestTask {
    pub(crate) fn retry_count_or_zero(&self) -> u32 {
        self.retry_count.unwrap_or(0)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShapeItem {
    pub(crate) task_external_id: TaskId,
    pub(crate) task_name: String,
}

/// The definition that a run follows, with field names of Go.
#[derive(Debug, Deserialize)]
pub(crate) struct WorkflowConfig {
    #[serde(default, rename = "Name")]
    pub(crate) name: String,
    #[serde(default, rename = "Tasks", deserialize_with = "or_empty")]
    pub(crate) tasks: Vec<TaskConfig>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct TaskConfig {
    #[serde(default, rename = "ReadableId")]
    pub(crate) readable_id: String,
    #[serde(default, rename = "Retries")]
    pub(crate) retries: i64,
}

/// The run itself. Its `createdAt`, `startedAt` and `duration` are left out, because they do not contain what their names say.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunBody {
    pub(crate) metadata: Meta<RunId>,
    #[serde(deserialize_with = "status")]
    pub(crate) status: RunStatus,
    #[serde(default, deserialize_with = "optional_id")]
    pub(crate) workflow_id: Option<WorkflowId>,
    #[serde(default, deserialize_with = "optional_id")]
    pub(crate) workflow_version_id: Option<WorkflowVersionId>,
    #[serde(default)]
    pub(crate) additional_metadata: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    pub(crate) error_message: Option<String>,
    /// For a single-task run, the payload that the worker receives; for a DAG run, the input itself.
    #[serde(default)]
    pub(crate) input: Option<Box<RawValue>>,
}

/// The payload that a worker receives.
#[derive(Debug, Deserialize)]
pub(crate) struct Envelope {
    #[serde(default)]
    pub(crate) input: Option<Box<RawValue>>,
}

/// A row of a list of runs.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    #[serde(default)]
    pub(crate) display_name: String,
    pub(crate) metadata: Meta<Uuid>,
    #[serde(deserialize_with = "status")]
    pub(crate) status: RunStatus,
    pub(crate) workflow_id: WorkflowId,
    #[serde(default)]
    pub(crate) workflow_name: Option<String>,
    pub(crate) workflow_run_external_id: RunId,
    #[serde(default)]
    pub(crate) attempt: Option<u32>,
    #[serde(default)]
    pub(crate) retry_count: Option<u32>,
    #[serde(default, deserialize_with = "optional_id")]
    pub(crate) task_external_id: Option<TaskId>,
    #[serde(default, deserialize_with = "optional_id")]
    pub(crate) parent_task_external_id: Option<TaskId>,
    #[serde(default)]
    pub(crate) additional_metadata: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    pub(crate) error_message: Option<String>,
    #[serde(default, deserialize_with = "optional_time")]
    pub(crate) created_at: Timestamp,
    #[serde(default, deserialize_with = "optional_time")]
    pub(crate) started_at: Timestamp,
    #[serde(default, deserialize_with = "optional_time")]
    pub(crate) finished_at: Timestamp,
}

/// A line of a task's log.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogRow {
    pub(crate) created_at: DateTime<Utc>,
    #[serde(default)]
    pub(crate) attempt: Option<u32>,
    #[serde(default)]
    pub(crate) level: Option<String>,
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) metadata: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct StatusCount {
    pub(crate) status: String,
    pub(crate) count: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct WorkflowRow {
    pub(crate) metadata: Meta<WorkflowId>,
    pub(crate) name: String,
}
