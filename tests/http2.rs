//! The HTTP/2 frames that the embedded engine sends to clients of other languages. The client here is a minimal one, because this
//! crate's own client accepts more than others do.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop on what it did not expect"
)]

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

const LIMIT: Duration = Duration::from_secs(10);

/// Keeps a copy of all bytes that are read.
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
struct Answer {
    headers: HeaderMap,
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// The frames of the stream.
    frames: Vec<&'static str>,
}

impl Answer {
    fn status(&self) -> (String, String) {
        let of = self.trailers.as_ref().unwrap_or(&self.headers);
        let bytes = |name: &str| of.get(name).map(http::HeaderValue::as_bytes).unwrap_or_default();
        let text = |name: &str| percent_decode(bytes(name)).decode_utf8().unwrap().into_owned();
        (text("grpc-status"), text("grpc-message"))
    }
}

async fn engine() -> (Engine, Peer) {
    let engine = Engine::builder().listen(0, 0).start().await.unwrap();
    let token = engine.environment().into_iter().find(|(name, _)| *name == "HATCHET_CLIENT_TOKEN").unwrap().1;
    let (io, read) = (TcpStream::connect(engine.addresses().unwrap().0).await.unwrap(), Arc::default());
    let recorded = Recorded { io, read: Arc::clone(&read) };
    let (requests, connection) = h2::client::handshake(recorded).await.unwrap();
    tokio::spawn(connection);
    (engine, Peer { requests, read, token })
}

impl Peer {
    /// Sends a request with one message, and reads the response to its end. Calls `meanwhile` when the headers have arrived.
    async fn ask(&mut self, path: &str, message: &[u8], meanwhile: impl FnOnce()) -> Answer {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        self.send(path, [&[0], &length[..], message].concat(), true, meanwhile).await
    }

    /// The same with a body that may stay open.
    async fn send(&mut self, path: &str, sent: Vec<u8>, end: bool, meanwhile: impl FnOnce()) -> Answer {
        let request = Request::post(format!("http://engine/{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {}", self.token));
        let mut requests = self.requests.clone().ready().await.unwrap();
        let (answer, mut body) = requests.send_request(request.body(()).unwrap(), false).unwrap();
        let stream = answer.stream_id().as_u32();
        body.send_data(sent.into(), end).unwrap();
        let read = async {
            let (headers, mut body) = answer.await.unwrap().into_parts();
            meanwhile();
            let mut data = Vec::new();
            while let Some(part) = body.data().await {
                let part = part.unwrap();
                body.flow_control().release_capacity(part.len()).unwrap();
                data.extend_from_slice(&part);
            }
            (headers.headers, data, body.trailers().await.unwrap())
        };
        let (headers, data, trailers) = timeout(LIMIT, read).await.unwrap_or_else(|_| panic!("{path}: no end"));
        Answer { headers, data, trailers, frames: frames(&self.read.lock().unwrap(), stream) }
    }

    async fn refused(&mut self, path: &str, message: &[u8]) -> (String, String) {
        let answer = self.ask(path, message, || ()).await;
        // Other clients map anything else to UNKNOWN.
        assert_eq!(answer.frames, ["HEADERS END_STREAM"], "{path}: {answer:?}");
        assert_eq!(answer.headers["content-type"], "application/grpc", "{path}");
        assert!(answer.trailers.is_none() && answer.data.is_empty(), "{path}: {answer:?}");
        answer.status()
    }

    async fn register(&mut self) -> Vec<u8> {
        let worker =
            WorkerRegisterRequest { worker_name: "worker".into(), actions: vec!["a:b".into()], ..Default::default() };
        let answer = self.ask("Dispatcher/Register", &worker.encode_to_vec(), || ()).await;
        assert_eq!(answer.status(), status("0", ""));
        assert_eq!(answer.frames, ["HEADERS", "DATA", "HEADERS END_STREAM"]);
        let worker_id = WorkerRegisterResponse::decode(&answer.data[5..]).unwrap().worker_id;
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
async fn refusals_are_one_frame() {
    let (engine, mut peer) = engine().await;
    let nobody = "00000000-0000-4000-8000-000000000001";
    let listen = |worker: &str| WorkerListenRequest { worker_id: worker.into() }.encode_to_vec();
    assert_eq!(peer.refused("Dispatcher/ListenV2", &listen(nobody)).await, status("5", "not found"));
    let text = "invalid worker ID format: x";
    assert_eq!(peer.refused("Dispatcher/ListenV2", &listen("x")).await, status("3", text));
    let text = "either workflow run id or additional meta key-value must be provided";
    assert_eq!(peer.refused("Dispatcher/SubscribeToWorkflowEvents", &[]).await, status("3", text));
    let bad = SubscribeToWorkflowEventsRequest { workflow_run_id: Some("x".into()), ..Default::default() };
    let (code, _) = peer.refused("Dispatcher/SubscribeToWorkflowEvents", &bad.encode_to_vec()).await;
    assert_eq!(code, "3");
    for path in ["Dispatcher/Listen", "v1.V1Dispatcher/DurableTask", "v1.V1Dispatcher/ListenForDurableEvent"] {
        assert_eq!(peer.refused(path, &[]).await.0, "12", "{path}");
    }
    for path in ["Dispatcher/Nothing", "Nobody/ListenV2", "v1.AdminService/BranchDurableTask"] {
        assert_eq!(peer.refused(path, &[]).await.0, "12", "{path}");
    }
    for path in STREAMS {
        let method = path.rsplit('/').next().unwrap();
        engine.faults().inject(method, Fault::Refuse(8), 1).unwrap();
        engine.faults().inject(method, Fault::LoseAnswer, 1).unwrap();
        assert_eq!(peer.refused(path, &[]).await.0, "8", "{path}");
    }
    peer.token = "wrong".into();
    for path in STREAMS.into_iter().chain(["Dispatcher/Heartbeat", "EventsService/Push"]) {
        engine.faults().clear();
        assert_eq!(peer.refused(path, &[]).await, status("16", "invalid auth token"), "{path}");
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn unauthenticated_request_messages_are_not_read() {
    let (engine, mut peer) = engine().await;
    // Five bytes declare the length of the message. The message itself is never sent.
    let size: u32 = 5_000_000;
    let announced = [&[0], &size.to_be_bytes()[..]].concat();
    let answer = peer.send("EventsService/Push", announced.clone(), false, || ()).await;
    let text = "grpc: received message larger than max (5000000 vs. 4194304)";
    assert_eq!((answer.status(), answer.frames[0]), (status("8", text), "HEADERS END_STREAM"));
    peer.token = "wrong".into();
    let answer = peer.send("EventsService/Push", announced, false, || ()).await;
    assert_eq!((answer.status(), answer.frames[0]), (status("16", "invalid auth token"), "HEADERS END_STREAM"));
    engine.shutdown().await;
}

/// A refusal that repeats parts of the request must not lose its code.
#[tokio::test]
async fn long_status_texts_are_truncated() {
    let (engine, mut peer) = engine().await;
    for name in ["x", "€"] {
        let worker = WorkerListenRequest { worker_id: name.repeat(100_000) };
        let (code, text) = peer.refused("Dispatcher/ListenV2", &worker.encode_to_vec()).await;
        assert_eq!(code, "3");
        assert!(text.starts_with(&format!("invalid worker ID format: {name}{name}")), "{text}");
        assert!(text.ends_with(&format!("{name}… (cut)")) && text.len() < 4096, "{text}");
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn streams_that_are_interrupted_before_their_first_message_are_one_frame() {
    let (engine, mut peer) = engine().await;
    let worker = peer.register().await;
    let cut = tokio::spawn(async move { peer.refused("Dispatcher/ListenV2", &worker).await });
    // The client cannot observe when the stream is open: its headers are sent with its first message.
    while !cut.is_finished() {
        engine.faults().cut("ListenV2").unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(cut.await.unwrap(), status("14", "the stream was cut"));
    engine.shutdown().await;
}

/// An engine with a stream that has sent a message, and the task that returns the response when it has ended.
async fn opened() -> (Engine, JoinHandle<Answer>) {
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
    let answer = tokio::spawn(async move {
        let opened = || opened.send(()).unwrap();
        peer.ask("Dispatcher/SubscribeToWorkflowEvents", &request.encode_to_vec(), opened).await
    });
    while is_open.try_recv().is_err() {
        hatchet.run(&stuck, &()).metadata("tag", "x").start().await.unwrap();
    }
    drop(worker);
    (engine, answer)
}

#[tokio::test]
async fn open_streams_end_with_trailers() {
    for (is_cut, expected) in [(true, status("14", "the stream was cut")), (false, status("0", ""))] {
        let (engine, answer) = opened().await;
        if is_cut {
            engine.faults().cut("SubscribeToWorkflowEvents").unwrap();
        } else {
            engine.shutdown().await;
        }
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), expected);
        let (last, rest) = answer.frames.split_last().unwrap();
        assert_eq!((*last, rest[0]), ("HEADERS END_STREAM", "HEADERS"), "{:?}", answer.frames);
        assert!(rest[1..].iter().all(|frame| *frame == "DATA") && rest.len() > 1, "{:?}", answer.frames);
    }
}
