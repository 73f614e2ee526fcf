//! `EventsService`: events, and log lines of tasks.

use tonic::codec::CompressionEncoding;

use super::convert::NewEvent;
use super::pb::events_service_client::EventsServiceClient;
use super::pb::{BulkPushEventRequest, Event, Events as ManyEvents, PushEventRequest, PutLogRequest, PutLogResponse};
use super::{Limits, stub, unary};
use crate::config::RequestOptions;
use crate::error::Result;
use crate::model::{EventId, TaskId, parse_id};
use crate::transport::{Call, Caller, GrpcWire};

#[derive(Clone)]
pub(crate) struct Events {
    stub: EventsServiceClient<GrpcWire>,
    caller: Caller,
    max_send: usize,
}

impl Events {
    pub(super) fn new(wire: &GrpcWire, limits: &Limits, caller: Caller) -> Self {
        Self { stub: stub!(EventsServiceClient<GrpcWire>, wire, limits), caller, max_send: limits.send }
    }

    pub(super) fn with(&self, options: RequestOptions) -> Self {
        Self { caller: self.caller.with(options), ..self.clone() }
    }

    /// The most bytes that a message may have.
    pub(crate) fn max_send(&self) -> usize {
        self.max_send
    }

    /// Takes an event in, and returns its id.
    pub(crate) async fn push(&self, event: NewEvent) -> Result<EventId> {
        parse_id(&self.send_push(&event.0).await?.event_id)
    }

    unary! { send_push, push, once, "Push", PushEventRequest => Event }

    /// Takes many events in, all or none, and returns their ids in their order.
    pub(crate) async fn bulk_push(&self, events: Vec<NewEvent>) -> Result<Vec<Result<EventId>>> {
        let request = BulkPushEventRequest { events: events.into_iter().map(|event| event.0).collect() };
        let answer = self.send_bulk_push(&request).await?;
        Ok(answer.events.into_iter().map(|event| parse_id(&event.event_id)).collect())
    }

    unary! { send_bulk_push, bulk_push, once, "BulkPush", BulkPushEventRequest => ManyEvents }

    /// Adds a line to a task's log, in whatever state the task is. The metadata is the text of a JSON object.
    pub(crate) async fn put_log(
        &self,
        task: TaskId,
        level: &str,
        message: String,
        metadata: String,
        attempt: u32,
    ) -> Result<()> {
        let request = PutLogRequest {
            task_run_external_id: task.into(),
            message,
            level: Some(level.to_owned()),
            metadata,
            task_retry_count: i32::try_from(attempt.saturating_sub(1)).ok(),
            ..Default::default()
        };
        self.send_put_log(&request).await.map(drop)
    }

    unary! {
        /// A line that comes twice does little harm; one that is lost does.
        send_put_log, put_log, idempotent, "PutLog", PutLogRequest => PutLogResponse
    }
}
