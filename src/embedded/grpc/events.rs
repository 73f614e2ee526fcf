//! `EventsService`.

use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Engine, answer, not_yet, sized, time};
use crate::rpc::pb::events_service_server::EventsService;
use crate::rpc::pb::{
    BulkPushEventRequest, Event, Events, PushEventRequest, PutLogRequest, PutLogResponse, PutStreamEventRequest,
    PutStreamEventResponse, ReplayEventRequest,
};

#[tonic::async_trait]
impl EventsService for Engine {
    async fn push(&self, _: Request<PushEventRequest>) -> Result<Response<Event>, Status> {
        not_yet("Push")
    }

    async fn bulk_push(&self, _: Request<BulkPushEventRequest>) -> Result<Response<Events>, Status> {
        not_yet("BulkPush")
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
        answer(PutLogResponse {})
    }

    async fn put_stream_event(
        &self,
        request: Request<PutStreamEventRequest>,
    ) -> Result<Response<PutStreamEventResponse>, Status> {
        let request = sized(request)?;
        let task = task(&request.task_run_external_id)?;
        // The engine lets any bytes in and then breaks the reader's stream over them; here they are refused at the door.
        let text = String::from_utf8(request.message).map_err(|_| {
            Status::unimplemented("the embedded engine does not implement chunks that are not UTF-8 yet")
        })?;
        self.core
            .call(move |core, turn| core.chunk(turn, task, &text, request.event_index, time(request.created_at)))
            .await??;
        answer(PutStreamEventResponse {})
    }
}

fn task(text: &str) -> Result<Uuid, Status> {
    text.parse().map_err(|_| Status::invalid_argument("task external run id is not a valid uuid"))
}
