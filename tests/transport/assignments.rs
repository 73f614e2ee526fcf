//! A server that assigns to a worker what the worker does not have.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::server::SendResponse;
use hatchet::raw::pb::v1::CreateWorkflowVersionResponse;
use hatchet::raw::pb::{
    ActionEventResponse, ActionType, AssignedAction, HeartbeatResponse, StepActionEvent, StepActionEventType,
    WorkerRegisterResponse,
};
use hatchet::{Context, Task};
use http::{HeaderMap, Response};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::servers::{listen, setup};

const ID: &str = "00000000-0000-4000-8001-000000000001";

/// A message as gRPC frames it.
fn frame(message: &impl Message) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut frame).unwrap();
    frame.freeze()
}

fn respond(mut responder: SendResponse<Bytes>, message: &impl Message) {
    let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut body = responder.send_response(response, false).unwrap();
    body.send_data(frame(message), false).unwrap();
    let mut status = HeaderMap::new();
    status.insert("grpc-status", "0".parse().unwrap());
    body.send_trailers(status).unwrap();
}

/// A server that accepts a worker and its reports, and gives it one assignment.
async fn dispatcher(assigned: AssignedAction) -> (SocketAddr, mpsc::UnboundedReceiver<StepActionEvent>) {
    let (listener, address) = listen().await;
    let (sender, reports) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (assigned, sender) = (assigned.clone(), sender.clone());
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(tcp).await.unwrap();
                let mut streams = Vec::new();
                while let Some(Ok((request, mut responder))) = connection.accept().await {
                    let path = request.uri().path().to_owned();
                    if path == "/Dispatcher/ListenV2" {
                        let response = Response::builder().header("content-type", "application/grpc");
                        let mut body = responder.send_response(response.body(()).unwrap(), false).unwrap();
                        body.send_data(frame(&assigned), false).unwrap();
                        streams.push(body);
                        continue;
                    }
                    let sender = sender.clone();
                    // The connection must be polled meanwhile.
                    tokio::spawn(async move {
                        let (mut body, mut data) = (request.into_body(), BytesMut::new());
                        while let Some(part) = body.data().await {
                            data.extend_from_slice(&part.unwrap());
                        }
                        match path.as_str() {
                            "/Dispatcher/Register" => respond(
                                responder,
                                &WorkerRegisterResponse { worker_id: ID.into(), ..Default::default() },
                            ),
                            "/v1.AdminService/PutWorkflow" => respond(
                                responder,
                                &CreateWorkflowVersionResponse { id: ID.into(), workflow_id: ID.into() },
                            ),
                            "/Dispatcher/Heartbeat" => respond(responder, &HeartbeatResponse {}),
                            "/Dispatcher/SendStepActionEvent" => {
                                let _ = sender.send(StepActionEvent::decode(&data[5..]).unwrap());
                                respond(responder, &ActionEventResponse::default());
                            }
                            other => panic!("{other}"),
                        }
                    });
                }
            });
        }
    });
    (address, reports)
}

/// The engine may assign an action that an earlier version of the worker had. A retry would not help.
#[tokio::test]
async fn an_unknown_action_is_a_failure_that_names_it() {
    let assigned = AssignedAction {
        action_type: ActionType::StartStepRun as i32,
        action_id: "orders:refund".into(),
        action_payload: r#"{"input":{}}"#.into(),
        workflow_run_id: ID.into(),
        task_run_external_id: ID.into(),
        retry_count: 2,
        ..Default::default()
    };
    let setup = setup().await;
    let (address, mut reports) = dispatcher(assigned).await;
    let charge: Task<(), ()> = Task::new("charge", async |(): (), _: Context| panic!("it is another action"));
    let worker = setup.client(address).worker("worker").register(&charge.retries(3)).build().unwrap();
    let worker = worker.start().await.unwrap();
    let mut report = async || timeout(Duration::from_secs(20), reports.recv()).await.unwrap().unwrap();
    assert_eq!(report().await.event_type(), StepActionEventType::StepEventTypeStarted);
    let failed = report().await;
    assert_eq!(failed.event_type(), StepActionEventType::StepEventTypeFailed);
    assert_eq!(failed.event_payload, "this worker has no task for the action orders:refund");
    assert_eq!((failed.should_not_retry, failed.retry_count), (Some(true), Some(2)));
    assert_eq!((failed.action_id.as_str(), failed.task_run_external_id.as_str()), ("orders:refund", ID));
    let status = worker.status();
    assert_eq!((status.running, status.queued), (0, 0), "its slot is free again");
    drop(worker);
}
