//! A server that responds by a script, for the unit tests of drivers: each call gets the response that a function returns for it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody};
use hyper::body::Frame;
use prost::Message;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::body::Body;
use tower::ServiceExt as _;

use crate::client::Client;
use crate::config::{Config, ConfigBuilder};
use crate::time::Clock;
use crate::transport::Wire;

/// A token with a tenant and addresses, and a signature that nobody checks.
const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiI3MDdkMDg1NS04MGFiLTRlMWYtYTE1Ni1mMWM0NTQ2Y2JmNTIiLCJncnBjX2Jyb2FkY2F\
zdF9hZGRyZXNzIjoibG9jYWxob3N0OjcwNzciLCJzZXJ2ZXJfdXJsIjoiaHR0cHM6Ly9sb2NhbGhvc3Q6ODA4MCJ9.c2ln";

/// What the server does with a call.
pub(crate) enum Scripted {
    /// The message of a gRPC call.
    Message(Vec<u8>),
    /// A gRPC status.
    Status(i32),
    /// The messages of a stream, each at a time after its start. The stream stays open after the last one, unless there is a status.
    Stream(Vec<(Duration, Vec<u8>)>, Option<i32>),
    /// The messages of a stream that ends as soon as the client has ended its own.
    StreamOfBoth(Vec<(Duration, Vec<u8>)>),
    /// One message for each message that the client has sent within a time. The stream stays open.
    Echo(Duration, fn(Bytes) -> Vec<u8>),
    /// The status and the body of a REST call.
    Rest(u16, String),
    /// A gRPC status with a message.
    Rejection(i32, &'static str),
    /// A gRPC status with a delay that the client must wait for.
    Pushback(i32, Duration),
    /// A response after a delay.
    After(Duration, Box<Scripted>),
    /// There is no response.
    Hangs,
}

impl Scripted {
    pub(crate) fn message(message: &impl Message) -> Self {
        Self::Message(message.encode_to_vec())
    }

    pub(crate) fn after(delay: Duration, response: Self) -> Self {
        Self::After(delay, Box::new(response))
    }

    /// Whether the response is a message, sooner or later.
    fn is_message(&self) -> bool {
        match self {
            Self::Message(_) => true,
            Self::After(_, next) => next.is_message(),
            _ => false,
        }
    }

    /// An empty message: all of its fields have their defaults.
    pub(crate) fn empty() -> Self {
        Self::Message(Vec::new())
    }
}

/// The calls that were made: when, how often, and the messages of gRPC calls that were answered with a message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<HashMap<String, Made>>>);

#[derive(Debug, Default)]
struct Made {
    times: Vec<Instant>,
    bodies: Vec<Bytes>,
}

impl Calls {
    fn add(&self, name: &str) -> usize {
        let mut calls = self.0.lock().unwrap();
        let made = calls.entry(name.to_owned()).or_default();
        made.times.push(Instant::now());
        made.times.len()
    }

    async fn add_body(&self, name: &str, body: Body) {
        let body = body.collect().await.unwrap().to_bytes();
        self.0.lock().unwrap().entry(name.to_owned()).or_default().bodies.push(body);
    }

    pub(crate) fn messages<M: Message + Default>(&self, name: &str) -> Vec<M> {
        let calls = self.0.lock().unwrap();
        let bodies = calls.get(name).into_iter().flat_map(|made| &made.bodies);
        // After the prefix of the frame.
        bodies.map(|body| M::decode(body.slice(5..)).unwrap()).collect()
    }

    /// The names of all calls that were made.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        self.times(name).len()
    }

    pub(crate) fn times(&self, name: &str) -> Vec<Instant> {
        self.0.lock().unwrap().get(name).map(|made| made.times.clone()).unwrap_or_default()
    }
}

/// A client of a scripted server. `response` gets the name of a call and its number, starting at 1. The name is the method in gRPC, such as
/// `Register`, and method and path in REST, such as `PATCH /api/v1/workers/…`. Every heartbeat
/// is sent.
pub(crate) fn client(response: impl Fn(&str, usize) -> Scripted + Send + Sync + 'static) -> (Client, Calls) {
    client_with(Config::builder(), response)
}

/// The same with a configuration.
pub(crate) fn client_with(
    config: ConfigBuilder,
    response: impl Fn(&str, usize) -> Scripted + Send + Sync + 'static,
) -> (Client, Calls) {
    let (response, calls) = (Arc::new(response), Calls::default());
    let (over_rest, rest_calls) = (Arc::clone(&response), calls.clone());
    let grpc_calls = calls.clone();
    let grpc = tower::service_fn(move |request: Request<Body>| {
        let name = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let response = response(&name, grpc_calls.add(&name));
        let calls = grpc_calls.clone();
        async move {
            // Otherwise, the request's body is kept: the stream of ids ends with it.
            if !response.is_message() {
                return Ok::<_, Infallible>(respond(response, request).await);
            }
            let (parts, body) = request.into_parts();
            calls.add_body(&name, body).await;
            Ok(respond(response, Request::from_parts(parts, Body::empty())).await)
        }
    });
    let rest = tower::service_fn(move |request: Request<Body>| {
        let name = format!("{} {}", request.method(), request.uri().path());
        let response = over_rest(&name, rest_calls.add(&name));
        async move { Ok::<_, Infallible>(respond(response, request).await) }
    });
    let wire = |never: Infallible| match never {};
    let config = config.token(TOKEN).build().unwrap();
    let client = Client::over(config, Wire::new(grpc.map_err(wire)), Wire::new(rest.map_err(wire)), Clock::System);
    (client.unwrap(), calls)
}

async fn respond(mut response: Scripted, request: Request<Body>) -> Response<Body> {
    while let Scripted::After(delay, next) = response {
        sleep(delay).await;
        response = *next;
    }
    match response {
        Scripted::Message(message) => streamed(vec![(Duration::ZERO, message)], Some(0), request),
        Scripted::Status(code) => {
            let response = Response::builder().header(CONTENT_TYPE, "application/grpc").header("grpc-status", code);
            response.body(Body::empty()).unwrap()
        }
        Scripted::Stream(messages, end) => streamed(messages, end, request),
        Scripted::StreamOfBoth(messages) => {
            let body = request.into_body();
            let ended = async move { drop(body.collect().await) };
            streamed(messages, None, Request::new(Body::empty())).map(|frames| {
                let frames = BodyStream::new(frames).take_until(Box::pin(ended));
                Body::new(StreamBody::new(frames.chain(stream::once(async { Ok(trailers(0)) }))))
            })
        }
        Scripted::Echo(within, echo) => {
            let mut body = request.into_body();
            let mut received = BytesMut::new();
            let read = async {
                while let Some(Ok(frame)) = body.frame().await {
                    received.extend_from_slice(&frame.into_data().unwrap());
                }
            };
            assert!(tokio::time::timeout(within, read).await.is_err(), "the client has ended the stream");
            let mut messages = Vec::new();
            while let Some(prefix) = received.get(1..5) {
                let length = u32::from_be_bytes(prefix.try_into().unwrap()) as usize;
                received.advance(5);
                messages.push((Duration::ZERO, echo(received.split_to(length).freeze())));
            }
            streamed(messages, None, Request::new(body))
        }
        Scripted::Rejection(code, message) => {
            let response = Response::builder().header(CONTENT_TYPE, "application/grpc").header("grpc-status", code);
            response.header("grpc-message", message).body(Body::empty()).unwrap()
        }
        Scripted::Pushback(code, delay) => {
            let response = Response::builder().header(CONTENT_TYPE, "application/grpc").header("grpc-status", code);
            response.header("retry-after", delay.as_secs()).body(Body::empty()).unwrap()
        }
        Scripted::Rest(status, body) => {
            Response::builder().status(status).body(Body::new(Full::new(Bytes::from(body)))).unwrap()
        }
        Scripted::After(..) | Scripted::Hangs => {
            sleep(Duration::from_secs(1_000_000)).await;
            Response::new(Body::empty())
        }
    }
}

type Frames = Pin<Box<dyn futures_core::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

fn trailers(code: i32) -> Frame<Bytes> {
    Frame::trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.into())]))
}

fn streamed(messages: Vec<(Duration, Vec<u8>)>, end: Option<i32>, request: Request<Body>) -> Response<Body> {
    let started = Instant::now();
    let frames = stream::iter(messages).then(move |(at, message)| async move {
        sleep_until(started + at).await;
        let mut frame = BytesMut::new();
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.len()).unwrap());
        frame.extend_from_slice(&message);
        Ok(Frame::data(frame.freeze()))
    });
    let last = stream::once(async move {
        let _request = request;
        let Some(code) = end else { return std::future::pending().await };
        Ok(trailers(code))
    });
    let body: Frames = Box::pin(frames.chain(last));
    Response::builder().header(CONTENT_TYPE, "application/grpc").body(Body::new(StreamBody::new(body))).unwrap()
}

/// The responses about one single-task run.
pub(crate) mod single_task_run {
    use serde_json::json;

    use super::{Calls, Scripted};
    use crate::client::Client;
    use crate::model::RunId;
    use crate::rpc::pb;

    const ID: &str = "00000000-0000-4000-8001-000000000001";
    pub(crate) const REST: &str = "GET /api/v1/stable/workflow-runs/00000000-0000-4000-8001-000000000001";
    const EVENTS: &str = "GET /api/v1/stable/tasks/00000000-0000-4000-8001-000000000001/task-events";

    pub(crate) fn id() -> RunId {
        ID.parse().unwrap()
    }

    /// The run in gRPC.
    pub(crate) fn grpc(status: pb::v1::RunStatus) -> Scripted {
        grpc_with_metadata(status, &json!({}))
    }

    pub(crate) fn grpc_with_metadata(status: pb::v1::RunStatus, metadata: &serde_json::Value) -> Scripted {
        use pb::v1::RunStatus::{Cancelled, Completed, Failed};

        let status_number = status as i32;
        let task = pb::v1::TaskRunDetail { external_id: ID.into(), status: status_number, ..Default::default() };
        let output = (status == Completed).then(|| "{}".into());
        let task = pb::v1::TaskRunDetail { error: Some(String::new()), output, ..task };
        Scripted::message(&pb::v1::GetRunDetailsResponse {
            status: status_number,
            done: [Cancelled, Completed, Failed].contains(&status),
            task_runs: [("work".to_owned(), task)].into(),
            additional_metadata: metadata.to_string().into_bytes(),
            ..Default::default()
        })
    }

    /// The run in REST, with the number of its attempt.
    pub(crate) fn rest(status: &str, attempt: u32) -> Scripted {
        let task = json!({
            "taskExternalId": ID, "taskName": "work", "status": status, "output": {}, "retryCount": attempt - 1,
        });
        let body = json!({ "run": { "metadata": { "id": ID }, "status": status }, "shape": [task], "tasks": [task] });
        Scripted::Rest(200, body.to_string())
    }

    /// A list of runs in REST that contains only this one.
    pub(crate) fn list(status: &str, attempt: u32) -> Scripted {
        let row = json!({
            "workflowId": ID, "workflowRunExternalId": ID, "taskExternalId": ID, "status": status, "retryCount": attempt - 1,
            "metadata": { "id": ID }, "taskInsertedAt": "2026-11-23T14:00:00Z", "createdAt": "2026-11-23T14:00:00Z",
        });
        Scripted::Rest(200, json!({ "rows": [row], "pagination": {} }).to_string())
    }

    /// The events of its task in REST: the kind and the number of the attempt of each, oldest first.
    pub(crate) fn events(events: &[(&str, u32)]) -> Scripted {
        let row = |(at, (kind, attempt)): (usize, &(&str, u32))| {
            json!({
                "eventType": kind, "timestamp": format!("2026-11-23T14:00:{at:02}Z"), "retryCount": attempt - 1,
                "message": "", "errorMessage": "",
            })
        };
        let rows: Vec<_> = events.iter().enumerate().map(row).rev().collect();
        Scripted::Rest(200, json!({ "rows": rows }).to_string())
    }

    /// A client, and the calls that were made, of a server that answers reads of the run with these responses, by the number of the call,
    /// and `CancelTasks` and `ReplayTasks` with the last.
    pub(crate) fn client(
        grpc: impl Fn(usize) -> Scripted + Send + Sync + 'static,
        rest: impl Fn(usize) -> Scripted + Send + Sync + 'static,
        events: impl Fn(usize) -> Scripted + Send + Sync + 'static,
        command: impl Fn(usize) -> Scripted + Send + Sync + 'static,
    ) -> (Client, Calls) {
        super::client(move |call, count| match call {
            "GetRunDetails" => grpc(count),
            "CancelTasks" | "ReplayTasks" => command(count),
            REST => rest(count),
            EVENTS => events(count),
            other => panic!("{other} is not expected"),
        })
    }
}
