//! `EventsService`: pushes events, and writes log lines of tasks.

use chrono::{DateTime, Utc};

use super::convert::NewEvent;
use super::pb::{
    BulkPushEventRequest, Event, Events as ManyEvents, PushEventRequest, PutLogRequest, PutLogResponse,
    PutStreamEventRequest, PutStreamEventResponse,
};
use super::{Method, Unary};
use crate::error::Result;
use crate::model::{EventId, LogLevel, TaskId, parse_id};
use crate::time::to_proto;
use crate::transport::Caller;

static PUSH: Method<PushEventRequest, Event> = Method::once("Push", "/EventsService/Push");
static BULK_PUSH: Method<BulkPushEventRequest, ManyEvents> = Method::once("BulkPush", "/EventsService/BulkPush");
/// A duplicate log line is harmless; a lost one is not.
static PUT_LOG: Method<PutLogRequest, PutLogResponse> = Method::idempotent("PutLog", "/EventsService/PutLog");
/// A worker sends its lines and chunks again by itself, for as long as an outage takes.
static PUT_LOG_ONCE: Method<PutLogRequest, PutLogResponse> = Method::single("PutLog", "/EventsService/PutLog");
static PUT_CHUNK_ONCE: Method<PutStreamEventRequest, PutStreamEventResponse> =
    Method::single("PutStreamEvent", "/EventsService/PutStreamEvent");

pub(crate) struct Events {
    unary: Unary,
}

impl Events {
    pub(super) fn new(unary: Unary) -> Self {
        Self { unary }
    }

    pub(super) fn with(&self, change: impl Fn(&Caller) -> Caller) -> Self {
        Self { unary: self.unary.with(change) }
    }

    /// The maximum size of a message in bytes.
    pub(crate) fn max_send(&self) -> usize {
        self.unary.limits().send
    }

    /// Pushes an event, and returns its id.
    pub(crate) async fn push(&self, event: NewEvent) -> Result<EventId> {
        parse_id(&self.unary.call(&PUSH, event.0).await?.event_id)
    }

    /// Pushes many events, all or none, and returns their ids in order.
    pub(crate) async fn bulk_push(&self, events: Vec<NewEvent>) -> Result<Vec<Result<EventId>>> {
        let request = BulkPushEventRequest { events: events.into_iter().map(|event| event.0).collect() };
        let response = self.unary.call(&BULK_PUSH, request).await?;
        Ok(response.events.into_iter().map(|event| parse_id(&event.event_id)).collect())
    }

    /// Adds a line to a task's log, in whatever state the task is.
    pub(crate) async fn put_log(&self, line: NewLogLine) -> Result<()> {
        self.unary.call(&PUT_LOG, line.into()).await.map(drop)
    }

    /// The same without retries.
    pub(crate) async fn put_log_once(&self, line: NewLogLine) -> Result<()> {
        self.unary.call(&PUT_LOG_ONCE, line.into()).await.map(drop)
    }

    /// Sends a chunk to those who follow the run, without retries. The engine delivers chunks of one task in the order of their indexes, and
    /// loses some.
    pub(crate) async fn put_chunk_once(
        &self,
        task: TaskId,
        at: DateTime<Utc>,
        index: i64,
        chunk: String,
    ) -> Result<()> {
        let request = PutStreamEventRequest {
            task_run_external_id: task.into(),
            created_at: Some(to_proto(at)),
            message: chunk.into_bytes(),
            metadata: String::new(),
            event_index: Some(index),
        };
        self.unary.call(&PUT_CHUNK_ONCE, request).await.map(drop)
    }
}

/// A line for the log of a task.
#[derive(Debug, Clone)]
pub(crate) struct NewLogLine {
    pub(crate) task: TaskId,
    /// The number of the attempt, starting at 1.
    pub(crate) attempt: u32,
    pub(crate) level: LogLevel,
    pub(crate) message: String,
    /// The text of a JSON object.
    pub(crate) metadata: String,
}

impl From<NewLogLine> for PutLogRequest {
    fn from(line: NewLogLine) -> Self {
        Self {
            task_run_external_id: line.task.into(),
            message: line.message,
            level: Some(line.level.to_string()),
            metadata: line.metadata,
            task_retry_count: i32::try_from(line.attempt.saturating_sub(1)).ok(),
            ..Self::default()
        }
    }
}
