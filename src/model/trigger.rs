//! What started a run.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{EventId, Payload, RunId, TaskId};

/// The metadata key with the correlation key of the schedule that started a run. The engine does not link the two.
///
/// Children inherit the metadata of their parents, except for keys with the engine's prefix. They must not inherit this key.
pub(crate) const SCHEDULE_KEY: &str = "hatchet__rs_schedule";
/// The metadata key with the id of the original of a rerun.
pub(crate) const RERUN_KEY: &str = "hatchet__rs_rerun_of";

/// What started a run.
///
/// The serialized form has the variant as `kind` (`manual`, `event`, `cron`, `schedule`, `child`), alongside the fields of the variant.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// use hatchet::model::Trigger;
///
/// if let Trigger::Event(event) = run.details().await?.trigger {
///     println!("started by {:?} with {:?}", event.key, event.payload);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Trigger {
    /// A call of an SDK, of the dashboard, or of the REST API.
    Manual,
    /// An event that the workflow listens to.
    Event(EventTrigger),
    /// A cron, at one of its recurring times.
    Cron(CronTrigger),
    /// A schedule that was created with this crate. The trigger of a run that another SDK has scheduled is
    /// [`Manual`](Self::Manual), because nothing in the run refers to the schedule.
    Schedule(ScheduleTrigger),
    /// A task of another run.
    Child(ChildTrigger),
}

/// The event that started a run.
///
/// ```
/// fn print(trigger: &hatchet::model::EventTrigger) {
///     println!("event {} with the key {:?}", trigger.event_id, trigger.key);
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EventTrigger {
    /// The id of the event, for [`Client::event_handle`](crate::Client::event_handle).
    pub event_id: EventId,
    /// The key of the event, without the namespace of the client. `None` if the metadata of the run does not contain it.
    pub key: Option<String>,
    /// The payload of the event. Only [`RunHandle::details`](crate::RunHandle::details) fetches it, if the engine's history still
    /// contains the event.
    pub payload: Option<Payload>,
    /// The scope of the event, if it has one. The scope is fetched together with the payload.
    pub scope: Option<String>,
}

/// The cron that started a run.
///
/// ```
/// fn print(trigger: &hatchet::model::CronTrigger) {
///     println!("{} at {:?}", trigger.expression, trigger.scheduled_at);
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CronTrigger {
    /// The name of the cron. `None` if it belongs to a definition.
    pub name: Option<String>,
    /// The cron expression, such as `0 2 * * *`.
    pub expression: String,
    /// The time for which the run was scheduled, in whole seconds.
    pub scheduled_at: Option<DateTime<Utc>>,
}

/// The schedule that started a run.
///
/// ```
/// use hatchet::handle::ScheduleHandle;
/// use hatchet::model::ScheduleTrigger;
///
/// fn is_from(trigger: &ScheduleTrigger, schedule: &ScheduleHandle) -> bool {
///     schedule.key() == Some(&trigger.key)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ScheduleTrigger {
    /// The correlation key of the schedule: [`ScheduleHandle::key`](crate::handle::ScheduleHandle::key).
    pub key: String,
}

/// The task that started a run as its child.
///
/// ```
/// fn print(trigger: &hatchet::model::ChildTrigger) {
///     println!("started by task {}", trigger.parent_task_id);
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChildTrigger {
    /// The id of the task that started the run.
    pub parent_task_id: TaskId,
    /// The id of the parent run, if the metadata of the child run contains it.
    pub parent_run_id: Option<RunId>,
}

/// The key of the id of the parent's run in the metadata of a child.
pub(crate) const PARENT_RUN_KEY: &str = "hatchet__parent_workflow_run_id";

/// The key of the event's key in the metadata of a run.
const EVENT_KEY: &str = "hatchet__event_key";

/// Removes the namespace from the key of the event that started a run.
pub(crate) fn remove_namespace(engine: &mut BTreeMap<String, Value>, namespace: Option<&str>) {
    if let Some(namespace) = namespace
        && let Some(Value::String(key)) = engine.get_mut(EVENT_KEY)
        && let Some(own) = key.strip_prefix(namespace)
    {
        *key = own.to_owned();
    }
}

/// Reads the trigger of a run from its metadata and its parent task.
pub(crate) fn read(engine: &BTreeMap<String, Value>, parent_task: Option<TaskId>) -> Trigger {
    let text = |key: &str| engine.get(key).and_then(Value::as_str);
    if let Some(parent_task) = parent_task {
        let parent_run_id = text(PARENT_RUN_KEY).and_then(|id| id.parse().ok());
        return Trigger::Child(ChildTrigger { parent_task_id: parent_task, parent_run_id });
    }
    if let Some(id) = text("hatchet__event_id").and_then(|id| id.parse().ok()) {
        let key = text(EVENT_KEY).filter(|key| !key.is_empty()).map(str::to_owned);
        return Trigger::Event(EventTrigger { event_id: id, key, payload: None, scope: None });
    }
    if let Some(expression) = text("hatchet__cron_expression") {
        return Trigger::Cron(CronTrigger {
            name: text("hatchet__cron_name").filter(|name| !name.is_empty()).map(str::to_owned),
            expression: expression.to_owned(),
            scheduled_at: text("hatchet__cron_scheduled_at").and_then(|at| at.parse().ok()),
        });
    }
    match text(SCHEDULE_KEY) {
        Some(key) => Trigger::Schedule(ScheduleTrigger { key: key.to_owned() }),
        None => Trigger::Manual,
    }
}

/// Reads the id of the original of a rerun.
pub(crate) fn original_run_id(engine: &BTreeMap<String, Value>) -> Option<RunId> {
    engine.get(RERUN_KEY)?.as_str()?.parse().ok()
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manual => f.write_str("manual"),
            Self::Event(EventTrigger { key: Some(key), event_id, .. }) => write!(f, "event {key} ({event_id})"),
            Self::Event(event) => write!(f, "event {}", event.event_id),
            Self::Cron(cron) => write!(f, "cron {}", cron.expression),
            Self::Schedule(_) => f.write_str("schedule"),
            Self::Child(child) => write!(f, "child of task {}", child.parent_task_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "00000000-0000-4000-8001-000000000001";

    fn text(metadata: Value, parent: Option<&str>) -> String {
        let metadata = serde_json::from_value(metadata).unwrap();
        read(&metadata, parent.map(|id| id.parse().unwrap())).to_string()
    }

    #[test]
    fn each_trigger_is_read_from_the_metadata() {
        assert_eq!(text(json!({"traceparent": "00-1"}), None), "manual");
        let event = json!({"hatchet__event_id": ID, "hatchet__event_key": "a:b"});
        assert_eq!(text(event, None), format!("event a:b ({ID})"));
        for event in [json!({"hatchet__event_id": ID}), json!({"hatchet__event_id": ID, "hatchet__event_key": ""})] {
            let Trigger::Event(event) = read(&serde_json::from_value(event).unwrap(), None) else { panic!() };
            assert_eq!(event.key, None);
            assert_eq!(Trigger::Event(event).to_string(), format!("event {ID}"));
        }
        let cron = json!({"hatchet__cron_expression": "0 9 * * *", "hatchet__cron_name": "", "hatchet__cron_scheduled_at": "2026-11-23T09:00:00Z"});
        assert_eq!(text(cron.clone(), None), "cron 0 9 * * *");
        let Trigger::Cron(cron) = read(&serde_json::from_value(cron).unwrap(), None) else { panic!() };
        assert_eq!(cron.scheduled_at.unwrap().to_rfc3339(), "2026-11-23T09:00:00+00:00");
        assert_eq!(text(json!({ SCHEDULE_KEY: "k" }), None), "schedule");
        assert_eq!(text(json!({"hatchet__parent_workflow_run_id": ID}), Some(ID)), format!("child of task {ID}"));
    }

    #[test]
    fn metadata_keys_alone_do_not_make_a_child() {
        assert_eq!(
            text(json!({"hatchet__parent_workflow_run_id": ID, "hatchet__parent_step_run_id": ID}), None),
            "manual"
        );
    }
}
