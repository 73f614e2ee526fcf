//! Events of runs, from the stream of run events.

use chrono::{DateTime, Utc};

use crate::error::Error;
use crate::model::{Chunk, ChunkContent, RunId, TaskId, attempt_number, parse_id};
use crate::rpc::pb;

/// An event of a run. What it says about the run is not reliable: it only means that something has changed.
#[derive(Debug, Clone)]
pub(crate) struct RunEvent {
    pub(crate) run: RunId,
    pub(crate) at: Option<DateTime<Utc>>,
    pub(crate) kind: RunEventKind,
    /// Whether the engine ends the stream after this event.
    pub(crate) is_last: bool,
}

/// Two streams deliver the same event, and end after different ones.
impl PartialEq for RunEvent {
    fn eq(&self, other: &Self) -> bool {
        (self.run, self.at, &self.kind) == (other.run, other.at, &other.kind)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RunEventKind {
    /// A task was created, and may still be queued.
    TaskCreated(TaskId),
    /// An attempt of a task has ended, as its worker has reported: its chunks are those up to the time of this event. Other ends, such as
    /// timeouts, reach the worker later.
    AttemptEnded {
        task: TaskId,
        /// Its number, starting at 1.
        attempt: Option<u32>,
        is_completed: bool,
    },
    /// The run has ended. The engine also sends this after a failed attempt that is retried, and when a DAG run starts.
    RunEnded { is_completed: bool },
    /// Nothing that this crate knows has changed.
    Changed,
    /// A chunk of a task's stream.
    Chunk(Chunk),
}

impl TryFrom<pb::WorkflowEvent> for RunEvent {
    type Error = Error;

    fn try_from(event: pb::WorkflowEvent) -> Result<Self, Error> {
        use pb::ResourceEventType as Type;
        let is_task = event.resource_type() == pb::ResourceType::StepRun;
        let is_run = event.resource_type() == pb::ResourceType::WorkflowRun;
        let attempt = event.retry_count.and_then(|count| u32::try_from(count).ok()).map(attempt_number);
        let run = parse_id(&event.workflow_run_id)?;
        let at = event.event_timestamp.as_ref();
        let at = at.and_then(|at| DateTime::from_timestamp(at.seconds, u32::try_from(at.nanos).ok()?));
        let kind = match event.event_type() {
            Type::Stream => parse_id(&event.resource_id).map_or(RunEventKind::Changed, |task_id| {
                let (index, content) = (event.event_index, ChunkContent::decode(event.event_payload));
                RunEventKind::Chunk(Chunk { run_id: run, task_id, index, sent_at: at, content })
            }),
            Type::Started if is_task => {
                parse_id(&event.resource_id).map_or(RunEventKind::Changed, RunEventKind::TaskCreated)
            }
            kind @ (Type::Completed | Type::Failed) if is_task => {
                let is_completed = kind == Type::Completed;
                let ended = |task| RunEventKind::AttemptEnded { task, attempt, is_completed };
                parse_id(&event.resource_id).map_or(RunEventKind::Changed, ended)
            }
            Type::Completed if is_run => RunEventKind::RunEnded { is_completed: true },
            Type::Failed | Type::Cancelled if is_run => RunEventKind::RunEnded { is_completed: false },
            _ => RunEventKind::Changed,
        };
        Ok(Self { run, at, kind, is_last: event.hangup })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_tasks_and_ends_of_runs_are_distinguished() {
        use pb::{ResourceEventType as Type, ResourceType as Resource};
        let id = "00000000-0000-4000-8001-000000000001";
        let kind = |resource: Resource, kind: Type, resource_id: &str| {
            let event = pb::WorkflowEvent {
                workflow_run_id: id.into(),
                resource_type: resource.into(),
                event_type: kind.into(),
                resource_id: resource_id.into(),
                retry_count: Some(1),
                ..Default::default()
            };
            RunEvent::try_from(event).unwrap().kind
        };
        let created = RunEventKind::TaskCreated(id.parse().unwrap());
        assert_eq!(kind(Resource::StepRun, Type::Started, id), created);
        assert_eq!(kind(Resource::StepRun, Type::Started, "no id"), RunEventKind::Changed);
        assert_eq!(kind(Resource::WorkflowRun, Type::Started, id), RunEventKind::Changed);
        let ended = RunEventKind::AttemptEnded { task: id.parse().unwrap(), attempt: Some(2), is_completed: false };
        assert_eq!(kind(Resource::StepRun, Type::Failed, id), ended);
        assert_eq!(kind(Resource::StepRun, Type::Cancelled, id), RunEventKind::Changed);
        for (end, is_completed) in [(Type::Completed, true), (Type::Failed, false), (Type::Cancelled, false)] {
            assert_eq!(kind(Resource::WorkflowRun, end, id), RunEventKind::RunEnded { is_completed });
        }
        let RunEventKind::Chunk(chunk) = kind(Resource::StepRun, Type::Stream, id) else { panic!() };
        assert_eq!((chunk.run_id.to_string(), chunk.index), (id.to_owned(), None));
        assert!(RunEvent::try_from(pb::WorkflowEvent::default()).is_err());
    }
}
