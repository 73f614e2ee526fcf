//! What a turn causes outside the core: messages on streams, and their ends.

use std::sync::Arc;

use uuid::Uuid;

use super::ids::StreamId;
use super::requests::{EventRef, ParentLink};
use super::status_error::StatusError;
use super::turn::At;

#[derive(Debug)]
pub(crate) enum Effect {
    Send(StreamId, Message),
    /// End a stream, with a status if it ends in an error.
    End(StreamId, Result<(), StatusError>),
}

#[derive(Debug)]
pub(crate) enum Message {
    Action(Box<Action>),
    Batch(Box<BatchAction>),
    Result(RunResult),
    Event(RunEvent),
}

/// An assignment for a worker, or its cancellation.
#[derive(Debug)]
pub(crate) struct Action {
    pub(crate) cancel: bool,
    pub(crate) run: Uuid,
    pub(crate) task: Uuid,
    pub(crate) step: Uuid,
    pub(crate) readable_id: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) payload: String,
    pub(crate) retry_count: i32,
    pub(crate) metadata: String,
    pub(crate) priority: i32,
    pub(crate) workflow: Uuid,
    pub(crate) version: Uuid,
    pub(crate) parent: Option<ParentLink>,
    pub(crate) event: Option<EventRef>,
}

/// An assignment of a batch.
#[derive(Debug)]
pub(crate) struct BatchAction {
    pub(crate) id: Uuid,
    /// The name of the action.
    pub(crate) name: Arc<str>,
    /// The key of the tasks; empty if it is blank.
    pub(crate) key: Box<str>,
    /// Why it was assigned now.
    pub(crate) reason: String,
    pub(crate) at: At,
    /// The number of its tasks.
    pub(crate) size: usize,
    pub(crate) payload: String,
}

/// How a run ended, for the streams that wait for its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunResult {
    pub(crate) run: Uuid,
    pub(crate) at: At,
    pub(crate) tasks: Vec<TaskResult>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskResult {
    pub(crate) task: Uuid,
    pub(crate) readable_id: Arc<str>,
    pub(crate) end: Result<Arc<str>, Arc<str>>,
}

/// Something that happened to a run, for the streams that watch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunEvent {
    pub(crate) run: Uuid,
    pub(crate) resource: Resource,
    pub(crate) kind: EventKind,
    pub(crate) at: At,
    pub(crate) payload: Arc<str>,
    pub(crate) retry_count: Option<i32>,
    pub(crate) index: Option<i64>,
    pub(crate) hangup: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    Run,
    Task(Uuid),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    Started,
    Completed,
    Failed,
    Cancelled,
    Stream,
}
