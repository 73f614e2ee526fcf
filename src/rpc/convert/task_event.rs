//! The events of tasks in the REST API.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};

use super::fields::optional_id;
use crate::model::{TaskId, WorkerId};

/// The kinds with a meaning for this crate, by their names in the API.
const KINDS: &[(&str, TaskEventKind)] = &[
    ("CREATED", TaskEventKind::Created),
    ("QUEUED", TaskEventKind::Queued),
    ("RETRYING", TaskEventKind::Retrying),
    ("REQUEUED_NO_WORKER", TaskEventKind::RequeuedNoWorker),
    ("REQUEUED_RATE_LIMIT", TaskEventKind::RequeuedRateLimit),
    ("WAITING_FOR_BATCH", TaskEventKind::WaitingForBatch),
    ("BATCH_FLUSHED", TaskEventKind::BatchFlushed),
    ("ASSIGNED", TaskEventKind::Assigned),
    ("SENT_TO_WORKER", TaskEventKind::SentToWorker),
    ("ACKNOWLEDGED", TaskEventKind::Acknowledged),
    ("STARTED", TaskEventKind::Started),
    ("FINISHED", TaskEventKind::Finished),
    ("SKIPPED", TaskEventKind::Skipped),
    ("FAILED", TaskEventKind::Failed),
    ("REASSIGNED", TaskEventKind::Reassigned),
    ("COULD_NOT_SEND_TO_WORKER", TaskEventKind::CouldNotSendToWorker),
    ("CANCELLED", TaskEventKind::Cancelled),
    ("TIMED_OUT", TaskEventKind::TimedOut),
    ("SCHEDULING_TIMED_OUT", TaskEventKind::SchedulingTimedOut),
    ("RETRIED_BY_USER", TaskEventKind::RetriedByUser),
];

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TaskEventKind {
    Created,
    Queued,
    /// Another attempt follows a failure. It is an event of the new attempt.
    Retrying,
    RequeuedNoWorker,
    RequeuedRateLimit,
    WaitingForBatch,
    /// The attempt was assigned in a batch. Its message contains the id of the batch.
    BatchFlushed,
    Assigned,
    SentToWorker,
    Acknowledged,
    Started,
    Finished,
    Skipped,
    Failed,
    /// The engine took the attempt from its worker.
    Reassigned,
    CouldNotSendToWorker,
    Cancelled,
    TimedOut,
    SchedulingTimedOut,
    /// A replay: another attempt follows. It is an event of the attempt before.
    RetriedByUser,
    /// A kind that changes nothing, or that this crate does not know.
    Other(String),
}

impl TaskEventKind {
    pub(crate) fn from_name(name: &str) -> Self {
        let known = KINDS.iter().find(|(known, _)| *known == name);
        known.map_or_else(|| Self::Other(name.to_owned()), |(_, kind)| kind.clone())
    }
}

/// An event of a task.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TaskEvent {
    #[serde(default, deserialize_with = "optional_id")]
    pub(crate) task_id: Option<TaskId>,
    #[serde(rename = "eventType", deserialize_with = "kind")]
    pub(crate) kind: TaskEventKind,
    pub(crate) timestamp: DateTime<Utc>,
    #[serde(default)]
    pub(crate) retry_count: Option<u32>,
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) error_message: Option<String>,
    #[serde(default, deserialize_with = "optional_id")]
    pub(crate) worker_id: Option<WorkerId>,
}

fn kind<'de, D: Deserializer<'de>>(source: D) -> Result<TaskEventKind, D::Error> {
    Cow::<'de, str>::deserialize(source).map(|name| TaskEventKind::from_name(&name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_name_and_each_kind_is_listed_once() {
        let names: BTreeSet<_> = KINDS.iter().map(|(name, _)| name).collect();
        let kinds: BTreeSet<_> = KINDS.iter().map(|(_, kind)| kind).collect();
        assert_eq!((names.len(), kinds.len()), (KINDS.len(), KINDS.len()));
    }

    #[test]
    fn an_unknown_kind_is_carried() {
        let event = r#"{"eventType":"NEW_KIND","timestamp":"2026-11-23T14:00:00Z"}"#;
        let event: TaskEvent = serde_json::from_str(event).unwrap();
        assert_eq!(event.kind, TaskEventKind::Other("NEW_KIND".into()));
    }
}
