//! The server's JSON, as far as it is read. Unknown fields and unknown values never fail; absent ones have a default.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::time::optional;

type Stamp = Option<DateTime<Utc>>;

/// A page of anything. The rows can be `null`.
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
pub(crate) struct Meta {
    pub(crate) id: String,
    #[serde(default, rename = "createdAt", deserialize_with = "optional")]
    pub(crate) created_at: Stamp,
}

/// A run.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the names are the server's")]
pub(crate) struct Run {
    pub(crate) run: RunBody,
    #[serde(default, deserialize_with = "or_none")]
    pub(crate) tasks: Vec<Task>,
    /// Which task has which name.
    #[serde(default, deserialize_with = "or_none")]
    pub(crate) shape: Vec<ShapeItem>,
    /// Of a run of several tasks, what happened to them; of one task, nothing.
    #[serde(default, deserialize_with = "or_none")]
    pub(crate) task_events: Vec<TaskEvent>,
    #[serde(default)]
    pub(crate) workflow_config: Option<WorkflowConfig>,
}

/// A list that can be `null`.
fn or_none<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(source: D) -> Result<Vec<T>, D::Error> {
    Option::<Vec<T>>::deserialize(source).map(Option::unwrap_or_default)
}

/// A task, as its run shows it: unlike what is shown of it alone, this state is to be believed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the names are the server's")]
pub(crate) struct Task {
    pub(crate) task_external_id: String,
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) output: Option<Box<RawValue>>,
    #[serde(default)]
    pub(crate) error_message: Option<String>,
    #[serde(default)]
    pub(crate) parent_task_external_id: Option<String>,
    #[serde(default)]
    pub(crate) retry_count: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShapeItem {
    pub(crate) task_external_id: String,
    pub(crate) task_name: String,
}

/// The definition that a run goes by, in Go's names.
#[derive(Debug, Deserialize)]
pub(crate) struct WorkflowConfig {
    #[serde(default, rename = "Name")]
    pub(crate) name: String,
    #[serde(default, rename = "Tasks", deserialize_with = "or_none")]
    pub(crate) tasks: Vec<TaskConfig>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct TaskConfig {
    #[serde(default, rename = "ReadableId")]
    pub(crate) readable_id: String,
    #[serde(default, rename = "Retries")]
    pub(crate) retries: i64,
}

/// The run itself. Its `createdAt`, `startedAt` and `duration` are left out: none of them means what it says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunBody {
    pub(crate) metadata: Meta,
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) workflow_id: String,
    #[serde(default)]
    pub(crate) workflow_version_id: Option<String>,
    #[serde(default)]
    pub(crate) additional_metadata: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    pub(crate) error_message: Option<String>,
    /// Of a run of one task in an envelope, as the worker gets it; of several, bare.
    #[serde(default)]
    pub(crate) input: Option<Box<RawValue>>,
}

/// What a worker gets, as far as it is the run's.
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
    pub(crate) metadata: Meta,
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) workflow_id: String,
    #[serde(default)]
    pub(crate) workflow_name: Option<String>,
    pub(crate) workflow_run_external_id: String,
    #[serde(default)]
    pub(crate) attempt: Option<u32>,
    #[serde(default)]
    pub(crate) retry_count: Option<u32>,
    #[serde(default)]
    pub(crate) task_external_id: String,
    #[serde(default)]
    pub(crate) parent_task_external_id: Option<String>,
    #[serde(default)]
    pub(crate) additional_metadata: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    pub(crate) error_message: Option<String>,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) created_at: Stamp,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) started_at: Stamp,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) finished_at: Stamp,
}

/// Something that happened to a task.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TaskEvent {
    #[serde(default)]
    pub(crate) task_id: String,
    pub(crate) event_type: String,
    pub(crate) timestamp: DateTime<Utc>,
    #[serde(default)]
    pub(crate) retry_count: Option<u32>,
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) error_message: Option<String>,
    #[serde(default)]
    pub(crate) worker_id: Option<String>,
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
    pub(crate) metadata: Value,
}

#[derive(Debug, Deserialize)]
pub(crate) struct StatusCount {
    pub(crate) status: String,
    pub(crate) count: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct WorkflowRow {
    pub(crate) metadata: Meta,
    pub(crate) name: String,
}
