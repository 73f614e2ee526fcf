//! The HTTP/2 frames that the embedded engine sends to clients in other languages. The test has its own minimal client, because the
//! client of this crate accepts more than others do.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may panic")]

mod support;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use hatchet::embedded::{Engine, Fault};
use hatchet::raw::pb::{
    SubscribeToWorkflowEventsRequest, WorkerListenRequest, WorkerRegisterRequest, WorkerRegisterResponse,
};
use hatchet::{Context, Task};
use http::{HeaderMap, Request};
use percent_encoding::percent_decode;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Records all bytes that are read.
struct Recorded {
    io: TcpStream,
    read: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Recorded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.read.lock().unwrap().extend_from_slice(&buffer.filled()[before..]);
        polled
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// One connection of a client.
struct Peer {
    requests: SendRequest<Bytes>,
    read: Arc<Mutex<Vec<u8>>>,
    token: String,
}

/// The response to one request.
#[derive(Debug)]
struct Received {
    headers: HeaderMap,
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// The frames of the stream.
    frames: Vec<&'static str>,
}

impl Received {
    fn status(&self) -> (String, String) {
        let of = self.trailers.as_ref().unwrap_or(&self.headers);
        let bytes = |name: &str| of.get(name).map(http::HeaderValue::as_bytes).unwrap_or_default();
        let text = |name: &str| percent_decode(bytes(name)).decode_utf8().unwrap().into_owned();
        (text("grpc-status"), text("grpc-message"))
    }
}

async fn engine() -> (Engine, Peer) {
    let engine = Engine::builder().listen().start().await.unwrap();
    let token = support::token(&engine);
    let (io, read) = (TcpStream::connect(engine.grpc_address().unwrap()).await.unwrap(), Arc::default());
    let recorded = Recorded { io, read: Arc::clone(&read) };
    let (requests, connection) = h2::client::handshake(recorded).await.unwrap();
    tokio::spawn(connection);
    (engine, Peer { requests, read, token })
}

impl Peer {
    /// Sends a request with one message, and reads the response to its end. Calls `meanwhile` when the headers have arrived.
    async fn call(&mut self, path: &str, message: &[u8], meanwhile: impl FnOnce()) -> Received {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        self.send(path, [&[0], &length[..], message].concat(), true, meanwhile).await
    }

    /// Sends a request whose body may stay open, and reads the response to its end.
    async fn send(&mut self, path: &str, sent: Vec<u8>, end: bool, meanwhile: impl FnOnce()) -> Received {
        let request = Request::post(format!("http://engine/{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {}", self.token));
        let mut requests = self.requests.clone().ready().await.unwrap();
        let (response, mut body) = requests.send_request(request.body(()).unwrap(), false).unwrap();
        let stream = response.stream_id().as_u32();
        body.send_data(sent.into(), end).unwrap();
        let read = async {
            let (headers, mut body) = response.await.unwrap().into_parts();
            meanwhile();
            let mut data = Vec::new();
            while let Some(part) = body.data().await {
                let part = part.unwrap();
                body.flow_control().release_capacity(part.len()).unwrap();
                data.extend_from_slice(&part);
            }
            (headers.headers, data, body.trailers().await.unwrap())
        };
        let (headers, data, trailers) =
            timeout(TIMEOUT, read).await.unwrap_or_else(|_| panic!("{path}: the response did not end"));
        Received { headers, data, trailers, frames: frames(&self.read.lock().unwrap(), stream) }
    }

    async fn call_error(&mut self, path: &str, message: &[u8]) -> (String, String) {
        let response = self.call(path, message, || ()).await;
        // Other clients map anything else to UNKNOWN.
        assert_eq!(response.frames, ["HEADERS END_STREAM"], "{path}: {response:?}");
        assert_eq!(response.headers["content-type"], "application/grpc", "{path}");
        assert!(response.trailers.is_none() && response.data.is_empty(), "{path}: {response:?}");
        response.status()
    }

    async fn register(&mut self) -> Vec<u8> {
        let worker =
            WorkerRegisterRequest { worker_name: "worker".into(), actions: vec!["a:b".into()], ..Default::default() };
        let response = self.call("Dispatcher/Register", &worker.encode_to_vec(), || ()).await;
        assert_eq!(response.status(), status("0", ""));
        assert_eq!(response.frames, ["HEADERS", "DATA", "HEADERS END_STREAM"]);
        let worker_id = WorkerRegisterResponse::decode(&response.data[5..]).unwrap().worker_id;
        WorkerListenRequest { worker_id }.encode_to_vec()
    }
}

fn status(code: &str, text: &str) -> (String, String) {
    (code.to_owned(), text.to_owned())
}

/// The frames of a stream that have been read so far.
fn frames(mut bytes: &[u8], stream: u32) -> Vec<&'static str> {
    let mut found = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        bytes = &rest[length..];
        // Without WINDOW_UPDATE frames.
        if id == stream && head[3] != 8 {
            found.push(match (head[3], head[4] & 1 == 1) {
                (0, false) => "DATA",
                (0, true) => "DATA END_STREAM",
                (1, false) => "HEADERS",
                (1, true) => "HEADERS END_STREAM",
                (3, _) => "RST_STREAM",
                (other, _) => panic!("frame {other}"),
            });
        }
    }
    found
}

const STREAMS: [&str; 6] = [
    "Dispatcher/Listen",
    "Dispatcher/ListenV2",
    "Dispatcher/SubscribeToWorkflowEvents",
    "Dispatcher/SubscribeToWorkflowRuns",
    "v1.V1Dispatcher/DurableTask",
    "v1.V1Dispatcher/ListenForDurableEvent",
];

#[tokio::test]
async fn errors_are_one_frame() {
    let (engine, mut peer) = engine().await;
    let unknown = "00000000-0000-4000-8000-000000000001";
    let listen = |worker: &str| WorkerListenRequest { worker_id: worker.into() }.encode_to_vec();
    assert_eq!(peer.call_error("Dispatcher/ListenV2", &listen(unknown)).await, status("5", "not found"));
    let text = "invalid worker ID format: x";
    assert_eq!(peer.call_error("Dispatcher/ListenV2", &listen("x")).await, status("3", text));
    let text = "either workflow run id or additional meta key-value must be provided";
    assert_eq!(peer.call_error("Dispatcher/SubscribeToWorkflowEvents", &[]).await, status("3", text));
    let invalid = SubscribeToWorkflowEventsRequest { workflow_run_id: Some("x".into()), ..Default::default() };
    let (code, _) = peer.call_error("Dispatcher/SubscribeToWorkflowEvents", &invalid.encode_to_vec()).await;
    assert_eq!(code, "3");
    for path in ["Dispatcher/Listen", "v1.V1Dispatcher/DurableTask", "v1.V1Dispatcher/ListenForDurableEvent"] {
        assert_eq!(peer.call_error(path, &[]).await.0, "12", "{path}");
    }
    for path in ["Dispatcher/Nothing", "Unknown/ListenV2", "v1.AdminService/BranchDurableTask"] {
        assert_eq!(peer.call_error(path, &[]).await.0, "12", "{path}");
    }
    for path in STREAMS {
        let method = path.rsplit('/').next().unwrap();
        engine.faults().inject(method, Fault::RejectGrpc(8)).unwrap();
        engine.faults().inject(method, Fault::LoseResponse).unwrap();
        assert_eq!(peer.call_error(path, &[]).await.0, "8", "{path}");
    }
    peer.token = "wrong".into();
    for path in STREAMS.into_iter().chain(["Dispatcher/Heartbeat", "EventsService/Push"]) {
        engine.faults().clear();
        assert_eq!(peer.call_error(path, &[]).await, status("16", "invalid auth token"), "{path}");
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn unauthenticated_request_messages_are_not_read() {
    let (engine, mut peer) = engine().await;
    // Five bytes declare the length of the message. The message itself is never sent.
    let size: u32 = 5_000_000;
    let prefix = [&[0], &size.to_be_bytes()[..]].concat();
    let response = peer.send("EventsService/Push", prefix.clone(), false, || ()).await;
    let text = "grpc: received message larger than max (5000000 vs. 4194304)";
    assert_eq!((response.status(), response.frames[0]), (status("8", text), "HEADERS END_STREAM"));
    peer.token = "wrong".into();
    let response = peer.send("EventsService/Push", prefix, false, || ()).await;
    assert_eq!((response.status(), response.frames[0]), (status("16", "invalid auth token"), "HEADERS END_STREAM"));
    engine.shutdown().await;
}

/// An error text that repeats parts of the request must not displace the code.
#[tokio::test]
async fn long_status_texts_are_truncated() {
    let (engine, mut peer) = engine().await;
    for name in ["x", "€"] {
        let worker = WorkerListenRequest { worker_id: name.repeat(100_000) };
        let (code, text) = peer.call_error("Dispatcher/ListenV2", &worker.encode_to_vec()).await;
        assert_eq!(code, "3");
        assert!(text.starts_with(&format!("invalid worker ID format: {name}{name}")), "{text}");
        assert!(text.ends_with(&format!("{name}… (cut)")) && text.len() < 4096, "{text}");
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn streams_without_a_message_end_with_one_frame() {
    let (engine, mut peer) = engine().await;
    let worker = peer.register().await;
    let cut = tokio::spawn(async move { peer.call_error("Dispatcher/ListenV2", &worker).await });
    // The client cannot observe when the stream is open: its headers are sent with its first message.
    while !cut.is_finished() {
        engine.faults().interrupt("ListenV2").unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(cut.await.unwrap(), status("14", "the stream was interrupted"));
    engine.shutdown().await;
}

/// An engine with a stream that has sent a message, and the task that returns the response when it has ended.
async fn opened() -> (Engine, JoinHandle<Received>) {
    let (engine, mut peer) = engine().await;
    let hatchet = engine.client();
    let stuck: Task<(), ()> = Task::new("stuck", async |(): (), _: Context| std::future::pending().await);
    let worker = hatchet.worker("worker").shutdown_grace_period(Duration::ZERO).register(&stuck).build().unwrap();
    let worker = worker.start().await.unwrap();
    let request = SubscribeToWorkflowEventsRequest {
        additional_meta_key: Some("tag".into()),
        additional_meta_value: Some("x".into()),
        ..Default::default()
    };
    let (opened, mut is_open) = oneshot::channel();
    let response = tokio::spawn(async move {
        let opened = || opened.send(()).unwrap();
        peer.call("Dispatcher/SubscribeToWorkflowEvents", &request.encode_to_vec(), opened).await
    });
    while is_open.try_recv().is_err() {
        hatchet.run(&stuck, &()).metadata("tag", "x").start().await.unwrap();
    }
    drop(worker);
    (engine, response)
}

#[tokio::test]
async fn open_streams_end_with_trailers() {
    for (is_cut, expected) in [(true, status("14", "the stream was interrupted")), (false, status("0", ""))] {
        let (engine, response) = opened().await;
        if is_cut {
            engine.faults().interrupt("SubscribeToWorkflowEvents").unwrap();
        } else {
            engine.shutdown().await;
        }
        let response = response.await.unwrap();
        assert_eq!(response.status(), expected);
        let (last, rest) = response.frames.split_last().unwrap();
        assert_eq!((*last, rest[0]), ("HEADERS END_STREAM", "HEADERS"), "{:?}", response.frames);
        assert!(rest[1..].iter().all(|frame| *frame == "DATA") && rest.len() > 1, "{:?}", response.frames);
    }
}
