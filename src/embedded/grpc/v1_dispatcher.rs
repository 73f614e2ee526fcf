//! `v1.V1Dispatcher`: durable tasks, which are not implemented.

use tonic::{Request, Response, Status, Streaming};

use super::{GrpcApi, Stream, not_yet};
use crate::rpc::pb::v1::v1_dispatcher_server::V1Dispatcher;
use crate::rpc::pb::v1::{
    DurableEvent, DurableTaskRequest, DurableTaskResponse, ListenForDurableEventRequest, RegisterDurableEventRequest,
    RegisterDurableEventResponse,
};

#[tonic::async_trait]
impl V1Dispatcher for GrpcApi {
    type DurableTaskStream = Stream<DurableTaskResponse>;
    type ListenForDurableEventStream = Stream<DurableEvent>;

    async fn durable_task(
        &self,
        _: Request<Streaming<DurableTaskRequest>>,
    ) -> Result<Response<Self::DurableTaskStream>, Status> {
        not_yet("DurableTask")
    }

    async fn register_durable_event(
        &self,
        _: Request<RegisterDurableEventRequest>,
    ) -> Result<Response<RegisterDurableEventResponse>, Status> {
        not_yet("RegisterDurableEvent")
    }

    async fn listen_for_durable_event(
        &self,
        _: Request<Streaming<ListenForDurableEventRequest>>,
    ) -> Result<Response<Self::ListenForDurableEventStream>, Status> {
        not_yet("ListenForDurableEvent")
    }
}
