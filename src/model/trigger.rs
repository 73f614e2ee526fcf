//! What started a run.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use super::{EventId, Payload, RunId, TaskId};

/// The key under which this crate notes which schedule a run is of: the engine links nothing.
///
/// The engine lets children inherit their parents' metadata, but for keys that begin like its own; this one must not be.
pub(crate) const SCHEDULE_KEY: &str = "hatchet__rs_schedule";
/// The same for the run that another is a rerun of.
pub(crate) const RERUN_KEY: &str = "hatchet__rs_rerun_of";

/// What started a run.
///
/// Read from where the engine says it: a field for children, and its own metadata keys for the others. Serialized, it has what
/// it is as `kind` (`manual`, `event`, `cron`, `schedule`, `child`), beside the fields of what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Trigger {
    /// A call, by this SDK, another one, the dashboard or the REST API.
    Manual,
    /// An event that the workflow listens to.
    Event(EventTrigger),
    /// A cron expression, at one of its times.
    Cron(CronTrigger),
    /// A one-off schedule of this crate. One that was made by another SDK leaves no trace in its run, which then reads as
    /// [`Manual`](Self::Manual).
    Schedule(ScheduleTrigger),
    /// A task of another run.
    Child(ChildTrigger),
}

/// The event that started a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EventTrigger {
    /// The event.
    pub id: EventId,
    /// Its key, as the server has it: with the namespace.
    pub key: String,
    /// What it carries, and which filters it had tried. Only [`RunHandle::details`](crate::RunHandle::details) reads this, since
    /// it is in the history of events; elsewhere, and if that has forgotten the event, it is `None`.
    pub payload: Option<Payload>,
    /// As above; also `None` if the event said nothing of it.
    pub scope: Option<String>,
}

/// The cron that started a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CronTrigger {
    /// Its name; empty for a cron of a definition.
    pub name: String,
    /// Its expression.
    pub expression: String,
    /// The time that the run was due at, in whole seconds.
    pub scheduled_at: Option<DateTime<Utc>>,
}

/// The schedule that started a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ScheduleTrigger {
    /// What this crate noted in the schedule's metadata when it was made: [`ScheduleHandle::key`](crate::ScheduleHandle::key).
    pub key: String,
}

/// The task that started a run as its child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ChildTrigger {
    /// The parent's task.
    pub parent_task: TaskId,
    /// The parent's run, if the run's metadata tell it.
    pub parent_run: Option<RunId>,
}

/// Reads what started a run.
pub(crate) fn read(engine: &BTreeMap<String, Value>, parent_task: Option<TaskId>) -> Trigger {
    let text = |key: &str| engine.get(key).and_then(Value::as_str);
    if let Some(parent_task) = parent_task {
        let parent_run = text("hatchet__parent_workflow_run_id").and_then(|id| id.parse().ok());
        return Trigger::Child(ChildTrigger { parent_task, parent_run });
    }
    if let Some(id) = text("hatchet__event_id").and_then(|id| id.parse().ok()) {
        let key = text("hatchet__event_key").unwrap_or_default().to_owned();
        return Trigger::Event(EventTrigger { id, key, payload: None, scope: None });
    }
    if let Some(expression) = text("hatchet__cron_expression") {
        return Trigger::Cron(CronTrigger {
            name: text("hatchet__cron_name").unwrap_or_default().to_owned(),
            expression: expression.to_owned(),
            scheduled_at: text("hatchet__cron_scheduled_at").and_then(|at| at.parse().ok()),
        });
    }
    match text(SCHEDULE_KEY) {
        Some(key) => Trigger::Schedule(ScheduleTrigger { key: key.to_owned() }),
        None => Trigger::Manual,
    }
}

/// Reads which run another is a rerun of.
pub(crate) fn rerun_of(engine: &BTreeMap<String, Value>) -> Option<RunId> {
    engine.get(RERUN_KEY)?.as_str()?.parse().ok()
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manual => f.write_str("manual"),
            Self::Event(event) => write!(f, "event {} ({})", event.key, event.id),
            Self::Cron(cron) => write!(f, "cron {}", cron.expression),
            Self::Schedule(_) => f.write_str("schedule"),
            Self::Child(child) => write!(f, "child of task {}", child.parent_task),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "00000000-0000-4000-8001-000000000001";

    fn told(metadata: Value, parent: Option<&str>) -> String {
        let metadata = serde_json::from_value(metadata).unwrap();
        read(&metadata, parent.map(|id| id.parse().unwrap())).to_string()
    }

    #[test]
    fn each_trigger_is_told_by_what_the_engine_leaves() {
        assert_eq!(told(json!({"traceparent": "00-1"}), None), "manual");
        let event = json!({"hatchet__event_id": ID, "hatchet__event_key": "a:b"});
        assert_eq!(told(event, None), format!("event a:b ({ID})"));
        let cron = json!({"hatchet__cron_expression": "0 9 * * *", "hatchet__cron_name": "", "hatchet__cron_scheduled_at": "2026-11-23T09:00:00Z"});
        assert_eq!(told(cron.clone(), None), "cron 0 9 * * *");
        let Trigger::Cron(cron) = read(&serde_json::from_value(cron).unwrap(), None) else { panic!() };
        assert_eq!(cron.scheduled_at.unwrap().to_rfc3339(), "2026-11-23T09:00:00+00:00");
        assert_eq!(told(json!({ SCHEDULE_KEY: "k" }), None), "schedule");
        assert_eq!(told(json!({"hatchet__parent_workflow_run_id": ID}), Some(ID)), format!("child of task {ID}"));
    }

    #[test]
    fn keys_alone_make_no_child() {
        assert_eq!(
            told(json!({"hatchet__parent_workflow_run_id": ID, "hatchet__parent_step_run_id": ID}), None),
            "manual"
        );
    }
}
