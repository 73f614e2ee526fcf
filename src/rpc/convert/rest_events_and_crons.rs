//! The REST API's JSON about events, schedules and crons, as far as it is read and written.

use std::collections::BTreeMap;
use std::hash::Hash;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::rest_run::Meta;
use crate::model::{CronId, EventId, RunId, ScheduleId, WorkflowId};
use crate::time::optional_time;

type Timestamp = Option<DateTime<Utc>>;

/// A row of a list, with its id.
pub(crate) trait Row {
    type Id: Eq + Hash;

    fn id(&self) -> Self::Id;
}

/// An event.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    pub(crate) metadata: Meta<EventId>,
    pub(crate) key: String,
    #[serde(default)]
    pub(crate) payload: Option<Box<RawValue>>,
    #[serde(default)]
    pub(crate) additional_metadata: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    pub(crate) scope: Option<String>,
    #[serde(default, deserialize_with = "optional_time")]
    pub(crate) seen_at: Timestamp,
    /// Null if there are none.
    #[serde(default)]
    pub(crate) triggered_runs: Option<Vec<TriggeredRun>>,
    #[serde(default)]
    pub(crate) workflow_run_summary: RunCounts,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TriggeredRun {
    pub(crate) workflow_run_id: RunId,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RunCounts {
    pub(crate) queued: u64,
    pub(crate) running: u64,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
}

/// A schedule that has not started its run yet.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ScheduleRow {
    pub(crate) metadata: Meta<ScheduleId>,
    pub(crate) trigger_at: DateTime<Utc>,
    pub(crate) workflow_id: WorkflowId,
    pub(crate) workflow_name: String,
    #[serde(default)]
    pub(crate) input: Option<Box<RawValue>>,
    #[serde(default)]
    pub(crate) additional_metadata: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    pub(crate) priority: Option<i32>,
}

impl Row for ScheduleRow {
    type Id = ScheduleId;

    fn id(&self) -> ScheduleId {
        self.metadata.id
    }
}

/// A cron, of a definition or not.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CronRow {
    pub(crate) metadata: Meta<CronId>,
    pub(crate) cron: String,
    #[serde(default)]
    pub(crate) name: String,
    pub(crate) method: String,
    pub(crate) enabled: bool,
    pub(crate) workflow_id: WorkflowId,
    pub(crate) workflow_name: String,
    #[serde(default)]
    pub(crate) input: Option<Box<RawValue>>,
    #[serde(default)]
    pub(crate) additional_metadata: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    pub(crate) priority: Option<i32>,
}

impl Row for CronRow {
    type Id = CronId;

    fn id(&self) -> CronId {
        self.metadata.id
    }
}

/// A cron that is to be made.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewCron {
    pub(crate) cron_name: String,
    pub(crate) cron_expression: String,
    /// JSON, as strings.
    pub(crate) input: Box<RawValue>,
    pub(crate) additional_metadata: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<i32>,
}
