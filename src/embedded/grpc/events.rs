//! `EventsService`.

use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::admin::stored_json;
use super::{GrpcApi, respond, sized, time};
use crate::embedded::core::store::{At, PushedEvent};
use crate::rpc::pb::events_service_server::EventsService;
use crate::rpc::pb::{
    BulkPushEventRequest, Event, Events, PushEventRequest, PutLogRequest, PutLogResponse, PutStreamEventRequest,
    PutStreamEventResponse, ReplayEventRequest,
};
use crate::time::to_proto;

/// The error of a bulk push with an empty key. A single push accepts it.
const NO_KEY: &str = "Invalid request: events failing validation error 400: 1 error occurred:\n\t* validation failed on field 'CreateEventOpts.Key': on condition 'required'\n\n";

#[tonic::async_trait]
impl EventsService for GrpcApi {
    async fn push(&self, request: Request<PushEventRequest>) -> Result<Response<Event>, Status> {
        let request = sized(request)?;
        let pushed = pushed(&request)?;
        let (id, at) = self.core.call(move |core, turn| core.push(turn, pushed)).await?;
        respond(stored_event(self.tenant, request, id, at))
    }

    async fn bulk_push(&self, request: Request<BulkPushEventRequest>) -> Result<Response<Events>, Status> {
        let events = sized(request)?.events;
        match events.len() {
            0 => return Err(Status::invalid_argument("No events to ingest")),
            count @ 1001.. => {
                return Err(Status::invalid_argument(format!(
                    "Invalid request: too many events - {count} is over maximum (1000)"
                )));
            }
            _ => {}
        }
        // With one invalid event, none is stored.
        let all = events.iter().map(pushed).collect::<Result<Vec<_>, Status>>()?;
        if all.iter().any(|event| event.key.is_empty()) {
            return Err(Status::invalid_argument(NO_KEY));
        }
        let ids = self
            .core
            .call(move |core, turn| all.into_iter().map(|event| core.push(turn, event)).collect::<Vec<_>>())
            .await?;
        let events =
            events.into_iter().zip(ids).map(|(event, (id, at))| stored_event(self.tenant, event, id, at)).collect();
        respond(Events { events })
    }

    async fn replay_single_event(&self, _: Request<ReplayEventRequest>) -> Result<Response<Event>, Status> {
        Err(Status::unimplemented("ReplaySingleEvent is not implemented"))
    }

    async fn put_log(&self, request: Request<PutLogRequest>) -> Result<Response<PutLogResponse>, Status> {
        let request = sized(request)?;
        let task = task(&request.task_run_external_id)?;
        self.core
            .call(move |core, turn| {
                core.put_log(
                    turn,
                    task,
                    &request.message,
                    request.level.as_deref(),
                    &request.metadata,
                    request.task_retry_count,
                )
            })
            .await??;
        respond(PutLogResponse {})
    }

    async fn put_stream_event(
        &self,
        request: Request<PutStreamEventRequest>,
    ) -> Result<Response<PutStreamEventResponse>, Status> {
        let request = sized(request)?;
        let task = task(&request.task_run_external_id)?;
        self.core
            .call(move |core, turn| {
                core.chunk(turn, task, &request.message, request.event_index, time(request.created_at))
            })
            .await??;
        respond(PutStreamEventResponse {})
    }
}

/// Validates an event in the order and with the error texts of the engine.
fn pushed(request: &PushEventRequest) -> Result<PushedEvent, Status> {
    let metadata = stored_json(request.additional_metadata.as_deref().unwrap_or_default(), "additionalMetadata")?;
    let payload = stored_json(&request.payload, "payload")?;
    if let Some(priority) = request.priority.filter(|priority| !(1..=3).contains(priority)) {
        return Err(Status::invalid_argument(format!("priority must be between 1 and 3, got {priority}")));
    }
    let (key, scope) = (request.key.clone(), request.scope.clone());
    Ok(PushedEvent { key, payload, metadata, priority: request.priority, scope })
}

/// The response: the event as it was sent, with the engine's id and time, and without its scope and its runs.
fn stored_event(tenant: Uuid, request: PushEventRequest, id: Uuid, at: At) -> Event {
    Event {
        tenant_id: tenant.to_string(),
        event_id: id.to_string(),
        key: request.key,
        payload: request.payload,
        event_timestamp: Some(to_proto(at)),
        additional_metadata: request.additional_metadata,
        scope: None,
    }
}

fn task(text: &str) -> Result<Uuid, Status> {
    text.parse().map_err(|_| Status::invalid_argument("task external run id is not a valid uuid"))
}
