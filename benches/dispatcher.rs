//! A server that accepts a worker, gives it assignments, and passes on the reports it receives.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use hatchet::raw::pb::v1::CreateWorkflowVersionResponse;
use hatchet::raw::pb::{
    ActionEventResponse, AssignedAction, HeartbeatResponse, StepActionEvent, WorkerRegisterResponse,
};
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

/// The id of everything.
pub(crate) const ID: &str = "00000000-0000-4000-8001-000000000001";

pub(crate) struct Dispatcher {
    pub(crate) address: SocketAddr,
    /// What the worker gets on its stream.
    pub(crate) assignments: mpsc::UnboundedSender<AssignedAction>,
    /// The reports of the worker, and when they were received.
    pub(crate) reports: mpsc::UnboundedReceiver<(std::time::Instant, StepActionEvent)>,
}

#[derive(Clone)]
struct Server {
    assignments: Arc<Mutex<mpsc::UnboundedReceiver<AssignedAction>>>,
    reports: mpsc::UnboundedSender<(std::time::Instant, StepActionEvent)>,
}

impl Dispatcher {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (assignments, assigned) = mpsc::unbounded_channel();
        let (sender, reports) = mpsc::unbounded_channel();
        let server = Server { assignments: Arc::new(Mutex::new(assigned)), reports: sender };
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tcp.set_nodelay(true).unwrap();
                tokio::spawn(server.clone().serve(tcp));
            }
        });
        Self { address, assignments, reports }
    }
}

impl Server {
    async fn serve(self, tcp: TcpStream) {
        let mut connection = h2::server::handshake(tcp).await.unwrap();
        while let Some(Ok((request, responder))) = connection.accept().await {
            // The connection must be polled meanwhile.
            tokio::spawn(self.clone().respond(request, responder));
        }
    }

    async fn respond(self, request: Request<RecvStream>, mut responder: SendResponse<Bytes>) {
        let path = request.uri().path().to_owned();
        if path == "/Dispatcher/ListenV2" {
            return self.assign(responder).await;
        }
        let (mut body, mut data) = (request.into_body(), BytesMut::new());
        while let Some(part) = body.data().await {
            let part = part.unwrap();
            data.extend_from_slice(&part);
            body.flow_control().release_capacity(part.len()).unwrap();
        }
        let id = || ID.to_owned();
        match path.as_str() {
            "/Dispatcher/Register" => {
                respond(responder, &WorkerRegisterResponse { worker_id: id(), ..Default::default() });
            }
            "/v1.AdminService/PutWorkflow" => {
                respond(responder, &CreateWorkflowVersionResponse { id: id(), workflow_id: id() });
            }
            "/Dispatcher/Heartbeat" => respond(responder, &HeartbeatResponse {}),
            "/Dispatcher/SendStepActionEvent" => {
                let _ = self.reports.send((Instant::now().into_std(), StepActionEvent::decode(&data[5..]).unwrap()));
                respond(responder, &ActionEventResponse::default());
            }
            _ => {
                let mut unimplemented = headers();
                unimplemented.headers_mut().insert("grpc-status", HeaderValue::from_static("12"));
                drop(responder.send_response(unimplemented, true));
            }
        }
    }

    async fn assign(self, mut responder: SendResponse<Bytes>) {
        let mut body = responder.send_response(headers(), false).unwrap();
        let mut assignments = self.assignments.lock().await;
        loop {
            tokio::select! {
                biased;
                // The worker reads another stream, or none.
                _ = poll_fn(|cx| body.poll_reset(cx)) => return,
                assigned = assignments.recv() => match assigned {
                    Some(assigned) => body.send_data(frame(&assigned), false).unwrap(),
                    None => return,
                },
            }
        }
    }
}

fn headers() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

/// A message as gRPC frames it.
fn frame(message: &impl Message) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut frame).unwrap();
    frame.freeze()
}

fn respond(mut responder: SendResponse<Bytes>, message: &impl Message) {
    let mut body: SendStream<Bytes> = responder.send_response(headers(), false).unwrap();
    body.send_data(frame(message), false).unwrap();
    let mut status = HeaderMap::new();
    status.insert("grpc-status", HeaderValue::from_static("0"));
    body.send_trailers(status).unwrap();
}
