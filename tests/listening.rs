//! A listening engine with well-behaved and misbehaving peers: its limits, and its shutdown. Uses real time, because real sockets
//! are the subject.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

mod support;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use futures_util::{StreamExt as _, stream};
use hatchet::embedded::Engine;
use hatchet::model::Window;
use hatchet::raw::pb::SubscribeToWorkflowRunsRequest;
use hatchet::raw::pb::dispatcher_client::DispatcherClient;
use hatchet::worker::RunningWorker;
use hatchet::{Client, Context, RunFilter, RunHandle, Task};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

const GRACE_PERIOD: Duration = Duration::from_millis(500);
/// The tolerance for a loaded machine.
const TOLERANCE: Duration = Duration::from_secs(5);
/// The timeout of each step.
const TIMEOUT: Duration = Duration::from_secs(60);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

struct TestEngine {
    inner: Engine,
    grpc: SocketAddr,
    rest: SocketAddr,
    token: String,
}

impl TestEngine {
    async fn new(grace: Duration) -> Self {
        let engine = Engine::builder().listen().shutdown_grace_period(grace).start().await.unwrap();
        let (grpc, rest) = (engine.grpc_address().unwrap(), engine.rest_address().unwrap());
        let token = support::token(&engine);
        Self { inner: engine, grpc, rest, token }
    }

    /// A client that connects over the sockets.
    fn client(&self) -> Client {
        Client::new(support::config(&self.inner).build().unwrap()).unwrap()
    }

    fn request(&self, line: &str, headers: &str) -> String {
        format!("{line} HTTP/1.1\r\nhost: engine\r\nauthorization: Bearer {}\r\n{headers}", self.token)
    }

    fn list(&self, query: &str) -> String {
        format!("/api/v1/stable/tenants/{}/workflow-runs?only_tasks=false&{query}", self.inner.tenant_id())
    }
}

async fn connect(address: SocketAddr, sent: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(sent).await.unwrap();
    stream
}

/// An HTTP/2 connection with a `Register` request whose body is never sent.
async fn open_body(engine: &TestEngine) -> h2::client::Connection<TcpStream> {
    let io = TcpStream::connect(engine.grpc).await.unwrap();
    let (requests, mut connection) = h2::client::handshake(io).await.unwrap();
    let request = http::Request::post("http://engine/Dispatcher/Register")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {}", engine.token));
    let mut requests = requests.ready().await.unwrap();
    let sent = requests.send_request(request.body(()).unwrap(), false).unwrap();
    // The request is sent, and the connection is kept open.
    let _ = timeout(Duration::from_millis(100), poll_fn(|cx| Pin::new(&mut connection).poll(cx))).await;
    std::mem::forget((sent, requests));
    connection
}

/// Requests more than the socket buffers can hold, and reads nothing.
async fn frozen_reader(engine: &TestEngine) -> TcpStream {
    let task: Task<Value, ()> = Task::new("task", async |_, _: Context| Ok(()));
    let hatchet = engine.inner.client();
    let worker = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    hatchet.run_many(&task, vec![json!({"text": "x".repeat(100_000)}); 20]).start().await.unwrap();
    worker.shutdown().await;
    let mut stream = TcpStream::connect(engine.rest).await.unwrap();
    let target = engine.list("since=2000-01-01&include_payloads=true");
    let request = engine.request(&format!("GET {target}"), "\r\n");
    while timeout(Duration::from_millis(200), stream.write_all(request.as_bytes())).await.is_ok() {}
    stream
}

/// Shuts down while peers hold connections open.
async fn shut_down<P>(what: &str, peers: impl AsyncFnOnce(&TestEngine) -> P) {
    let engine = TestEngine::new(GRACE_PERIOD).await;
    let peers =
        timeout(TIMEOUT, peers(&engine)).await.unwrap_or_else(|_| panic!("{what}: the peers were not set up in time"));
    // The requests should have arrived.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let start = Instant::now();
    timeout(TIMEOUT, engine.inner.shutdown()).await.unwrap_or_else(|_| panic!("{what}: the shutdown did not end"));
    let elapsed = start.elapsed();
    assert!(elapsed < GRACE_PERIOD + TOLERANCE, "{what}: {elapsed:?}");
    // The listeners are closed.
    assert!(TcpStream::connect(engine.grpc).await.is_err() && TcpStream::connect(engine.rest).await.is_err(), "{what}");
    drop(peers);
}

#[tokio::test]
async fn shutdown_ends_within_the_grace_period() {
    let half_headers = [PREFACE, SETTINGS, &[0, 0, 100, 1, 4, 0, 0, 0, 1, 0x82, 0x86]].concat();
    shut_down("nothing", async |_| ()).await;
    shut_down("TCP only", async |engine| (connect(engine.grpc, b"").await, connect(engine.rest, b"").await)).await;
    shut_down("half a preface", async |engine| connect(engine.grpc, &PREFACE[..14]).await).await;
    shut_down("a preface and no settings", async |engine| connect(engine.grpc, PREFACE).await).await;
    shut_down("an idle connection", async |engine| connect(engine.grpc, &[PREFACE, SETTINGS].concat()).await).await;
    shut_down("half of the headers", async |engine| connect(engine.grpc, &half_headers).await).await;
    shut_down("half a header", async |engine| connect(engine.rest, b"GET / HTTP/1.1\r\nhost: x\r\nx-").await).await;
    shut_down("an open body", async |engine| open_body(engine).await).await;
    shut_down("an open body of REST", async |engine| {
        let line = format!("POST {}/trigger", engine.list("").split('?').next().unwrap());
        connect(engine.rest, engine.request(&line, "content-length: 1000\r\n\r\n{").as_bytes()).await
    })
    .await;
    shut_down("a frozen reader", frozen_reader).await;
}

#[tokio::test]
async fn shutdown_does_not_wait_for_responsive_clients() {
    let engine = TestEngine::new(TIMEOUT).await;
    let hatchet = engine.client();
    let stuck: Task<(), ()> = Task::new("stuck", async |(): (), _: Context| std::future::pending().await);
    let worker = hatchet.worker("worker").shutdown_grace_period(Duration::ZERO).register(&stuck).build().unwrap();
    let worker = worker.start().await.unwrap();
    let run = hatchet.run(&stuck, &()).start().await.unwrap();
    let mut watch = run.watch();
    watch.next().await.unwrap().unwrap();
    hatchet.runs(RunFilter::new(Window::all())).page(5).await.unwrap();
    let start = Instant::now();
    engine.inner.shutdown().await;
    assert!(start.elapsed() < TOLERANCE, "{:?}", start.elapsed());
    drop(worker);
}

/// Uses two threads, so that the engine reads requests faster than it responds. Each waiting request is a small frame, and h2
/// closes a connection that buffers too many of those.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_concurrent_starts_succeed() {
    let engine = TestEngine::new(GRACE_PERIOD).await;
    let hatchet = engine.client();
    let echo: Task<Value, Value> = Task::new("echo", async |input, _: Context| Ok(input));
    hatchet.worker("worker").register(&echo).build().unwrap().start().await.unwrap().shutdown().await;
    let starts: Vec<_> = (0..10_000)
        .map(|number| {
            let (hatchet, echo) = (hatchet.clone(), echo.clone());
            tokio::spawn(async move { hatchet.run(&echo, &json!({ "number": number })).start().await })
        })
        .collect();
    let started = try_join_all(starts).await.unwrap();
    assert_eq!(started.iter().filter_map(|run| run.as_ref().err()).count(), 0);
    assert_eq!(engine.inner.run_count().await, 10_000);
}

/// A task with its worker, and a run of it that has completed.
async fn completed(hatchet: &Client) -> (Task<(), ()>, RunningWorker, RunHandle<()>) {
    let echo: Task<(), ()> = Task::new("echo", async |(): (), _: Context| Ok(()));
    let worker = hatchet.worker("worker").register(&echo).build().unwrap().start().await.unwrap();
    let run = hatchet.run(&echo, &()).start().await.unwrap();
    run.result().await.unwrap();
    (echo, worker, run)
}

/// Each message on the stream is a small frame.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_messages_on_one_stream_are_accepted() {
    let engine = TestEngine::new(GRACE_PERIOD).await;
    let hatchet = engine.client();
    let (_, worker, run) = completed(&hatchet).await;
    let unknown =
        |number: u128| SubscribeToWorkflowRunsRequest { workflow_run_id: Uuid::from_u128(number).to_string() };
    let last = SubscribeToWorkflowRunsRequest { workflow_run_id: run.id().to_string() };
    let requests = (1..10_000).map(unknown).chain([last]);
    // Each message is sent separately, so that they are not combined into one frame. Then the stream stays open.
    let requests = stream::iter(requests).then(|request| async {
        tokio::task::yield_now().await;
        request
    });
    let mut dispatcher = DispatcherClient::new(hatchet.raw_channel());
    let responses = dispatcher.subscribe_to_workflow_runs(requests.chain(stream::pending()));
    let mut responses = timeout(TIMEOUT, responses).await.unwrap().unwrap().into_inner();
    let response = responses.message().await.unwrap().unwrap();
    assert_eq!(response.workflow_run_id, run.id().to_string());
    worker.shutdown().await;
}

#[tokio::test]
async fn dropped_calls_do_not_affect_others() {
    let engine = TestEngine::new(GRACE_PERIOD).await;
    let hatchet = engine.client();
    let (echo, worker, run) = completed(&hatchet).await;
    engine.inner.faults().inject_times("Register", hatchet::embedded::Fault::Delay(Duration::ZERO), 1000).unwrap();
    let reads = join_all((0..2000).map(|_| async { run.details().await.is_ok() }));
    // Long enough to send the requests, too short for all responses.
    let _ = timeout(Duration::from_millis(20), reads).await;
    run.details().await.unwrap();
    hatchet.run(&echo, &()).start().await.unwrap().result().await.unwrap();
    assert_eq!(engine.inner.faults().planned(), 1000, "the worker did not have to register again");
    assert_eq!(worker.shutdown().await.completed, 2);
}

/// The first bytes of the response.
async fn response(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    timeout(TIMEOUT, stream.read_buf(&mut bytes)).await.unwrap().unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn unauthenticated_request_bodies_are_not_read() {
    let engine = TestEngine::new(GRACE_PERIOD).await;
    let tenant = format!("/api/v1/tenants/{}", engine.inner.tenant_id());
    let stable = tenant.replace("/v1/", "/v1/stable/");
    let unknown = "00000000-0000-4000-8000-000000000001";
    for (line, expected) in [
        (format!("POST {stable}/workflow-runs/trigger"), 403),
        (format!("POST {stable}/tasks/cancel"), 403),
        (format!("POST {tenant}/workflows/scheduled/bulk-update"), 403),
        // The engine checks the resource first, so even a request without a token gets its error.
        (format!("PATCH /api/v1/workers/{unknown}"), 404),
        (format!("PATCH {tenant}/workflows/scheduled/{unknown}"), 404),
    ] {
        let request = format!("{line} HTTP/1.1\r\nhost: engine\r\ncontent-length: 1000000\r\n\r\n");
        let response = response(connect(engine.rest, request.as_bytes()).await).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {expected} ")), "{line}: {response}");
    }
}

#[tokio::test]
async fn large_messages_and_bodies_are_rejected() {
    let engine = TestEngine::new(GRACE_PERIOD).await;
    let line = format!("POST {}/trigger", engine.list("").split('?').next().unwrap());
    let request = engine.request(&line, "content-length: 100000000\r\n\r\n");
    let received = response(connect(engine.rest, request.as_bytes()).await).await;
    assert!(received.starts_with("HTTP/1.1 413 "), "{received}");
    let limit = |limit: u32| engine.request(&format!("GET {}", engine.list(&format!("limit={limit}"))), "\r\n");
    let received = response(connect(engine.rest, limit(5000).as_bytes()).await).await;
    assert!(received.starts_with("HTTP/1.1 200 "), "{received}");
    let received = response(connect(engine.rest, limit(10_001).as_bytes()).await).await;
    assert!(received.starts_with("HTTP/1.1 400 "), "{received}");
}
