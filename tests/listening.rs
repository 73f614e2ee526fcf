//! A listening engine with well-behaved and misbehaving peers: its limits, and its shutdown. Uses real time, because real sockets
//! are the subject.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop on what it did not expect")]

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use futures_util::{StreamExt as _, stream};
use hatchet::config::TlsStrategy;
use hatchet::embedded::Engine;
use hatchet::model::Window;
use hatchet::raw::pb::SubscribeToWorkflowRunsRequest;
use hatchet::raw::pb::dispatcher_client::DispatcherClient;
use hatchet::worker::RunningWorker;
use hatchet::{Client, Config, Context, RunFilter, RunHandle, Task};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

const GRACE: Duration = Duration::from_millis(500);
/// The tolerance for a loaded machine.
const SLACK: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(60);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

struct Bed {
    engine: Engine,
    grpc: SocketAddr,
    rest: SocketAddr,
    token: String,
}

impl Bed {
    async fn new(grace: Duration) -> Self {
        let engine = Engine::builder().listen(0, 0).shutdown_grace_period(grace).start().await.unwrap();
        let (grpc, rest) = engine.addresses().unwrap();
        let token = engine.environment().into_iter().find(|(name, _)| *name == "HATCHET_CLIENT_TOKEN").unwrap().1;
        Self { engine, grpc, rest, token }
    }

    /// A client that connects over the sockets.
    fn client(&self) -> Client {
        let config = Config::builder()
            .tls_strategy(TlsStrategy::None)
            .token(&*self.token)
            .host_port(self.grpc.to_string())
            .server_url(format!("http://{}", self.rest));
        Client::new(config.build().unwrap()).unwrap()
    }

    fn request(&self, line: &str, headers: &str) -> String {
        format!("{line} HTTP/1.1\r\nhost: engine\r\nauthorization: Bearer {}\r\n{headers}", self.token)
    }

    fn list(&self, query: &str) -> String {
        format!("/api/v1/stable/tenants/{}/workflow-runs?only_tasks=false&{query}", self.engine.tenant())
    }
}

async fn connect(address: SocketAddr, sent: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(sent).await.unwrap();
    stream
}

/// An HTTP/2 connection with a `Register` request whose body is never sent.
async fn open_body(bed: &Bed) -> h2::client::Connection<TcpStream> {
    let io = TcpStream::connect(bed.grpc).await.unwrap();
    let (requests, mut connection) = h2::client::handshake(io).await.unwrap();
    let request = http::Request::post("http://engine/Dispatcher/Register")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {}", bed.token));
    let mut requests = requests.ready().await.unwrap();
    let sent = requests.send_request(request.body(()).unwrap(), false).unwrap();
    // The request is sent, and the connection is kept open.
    let _ = timeout(Duration::from_millis(100), poll_fn(|cx| Pin::new(&mut connection).poll(cx))).await;
    std::mem::forget((sent, requests));
    connection
}

/// Requests more than the socket buffers can hold, and reads nothing.
async fn frozen_reader(bed: &Bed) -> TcpStream {
    let task: Task<Value, ()> = Task::new("task", async |_, _: Context| Ok(()));
    let hatchet = bed.engine.client();
    let worker = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    hatchet.run_many(&task, vec![json!({"text": "x".repeat(100_000)}); 20]).start().await.unwrap();
    worker.shutdown().await;
    let mut stream = TcpStream::connect(bed.rest).await.unwrap();
    let target = bed.list("since=2000-01-01&include_payloads=true");
    let request = bed.request(&format!("GET {target}"), "\r\n");
    while timeout(Duration::from_millis(200), stream.write_all(request.as_bytes())).await.is_ok() {}
    stream
}

/// Shuts down while peers hold connections open.
async fn shut_down<P>(what: &str, peers: impl AsyncFnOnce(&Bed) -> P) {
    let bed = Bed::new(GRACE).await;
    let peers = timeout(LIMIT, peers(&bed)).await.unwrap_or_else(|_| panic!("{what}: not set up"));
    // The requests should have arrived.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begin = Instant::now();
    timeout(LIMIT, bed.engine.shutdown()).await.unwrap_or_else(|_| panic!("{what}: no end"));
    let took = begin.elapsed();
    assert!(took < GRACE + SLACK, "{what}: {took:?}");
    // Nothing answers any more.
    assert!(TcpStream::connect(bed.grpc).await.is_err() && TcpStream::connect(bed.rest).await.is_err(), "{what}");
    drop(peers);
}

#[tokio::test]
async fn shutdown_keeps_its_grace_period() {
    let half_headers = [PREFACE, SETTINGS, &[0, 0, 100, 1, 4, 0, 0, 0, 1, 0x82, 0x86]].concat();
    shut_down("nothing", async |_| ()).await;
    shut_down("TCP only", async |bed| (connect(bed.grpc, b"").await, connect(bed.rest, b"").await)).await;
    shut_down("half a preface", async |bed| connect(bed.grpc, &PREFACE[..14]).await).await;
    shut_down("a preface and no settings", async |bed| connect(bed.grpc, PREFACE).await).await;
    shut_down("an idle connection", async |bed| connect(bed.grpc, &[PREFACE, SETTINGS].concat()).await).await;
    shut_down("half of the headers", async |bed| connect(bed.grpc, &half_headers).await).await;
    shut_down("half a header", async |bed| connect(bed.rest, b"GET / HTTP/1.1\r\nhost: x\r\nx-").await).await;
    shut_down("an open body", async |bed| open_body(bed).await).await;
    shut_down("an open body of REST", async |bed| {
        let line = format!("POST {}/trigger", bed.list("").split('?').next().unwrap());
        connect(bed.rest, bed.request(&line, "content-length: 1000\r\n\r\n{").as_bytes()).await
    })
    .await;
    shut_down("a frozen reader", frozen_reader).await;
}

#[tokio::test]
async fn shutdown_does_not_wait_for_responsive_clients() {
    let bed = Bed::new(LIMIT).await;
    let hatchet = bed.client();
    let stuck: Task<(), ()> = Task::new("stuck", async |(): (), _: Context| std::future::pending().await);
    let worker = hatchet.worker("worker").shutdown_grace_period(Duration::ZERO).register(&stuck).build().unwrap();
    let worker = worker.start().await.unwrap();
    let run = hatchet.run(&stuck, &()).start().await.unwrap();
    let mut watch = run.watch();
    watch.next().await.unwrap().unwrap();
    hatchet.runs(RunFilter::new(Window::all())).page(5).await.unwrap();
    let begin = Instant::now();
    bed.engine.shutdown().await;
    assert!(begin.elapsed() < SLACK, "{:?}", begin.elapsed());
    drop(worker);
}

/// Uses two threads, so that the engine reads requests faster than it answers them. Each waiting request is a small frame, and h2
/// closes a connection that buffers too many of those.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_concurrent_starts_succeed() {
    let bed = Bed::new(GRACE).await;
    let hatchet = bed.client();
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
    assert_eq!(bed.engine.run_count().await, 10_000);
}

/// A task with its worker, and a run of it that has completed.
async fn completed(hatchet: &Client) -> (Task<(), ()>, RunningWorker, RunHandle<()>) {
    let echo: Task<(), ()> = Task::new("echo", async |(): (), _: Context| Ok(()));
    let worker = hatchet.worker("worker").register(&echo).build().unwrap().start().await.unwrap();
    let run = hatchet.run(&echo, &()).start().await.unwrap();
    run.result().await.unwrap();
    (echo, worker, run)
}

/// The same on one stream: each message is a small frame.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_messages_on_one_stream_are_accepted() {
    let bed = Bed::new(GRACE).await;
    let hatchet = bed.client();
    let (_, worker, run) = completed(&hatchet).await;
    let nobody = |number: u128| SubscribeToWorkflowRunsRequest { workflow_run_id: Uuid::from_u128(number).to_string() };
    let last = SubscribeToWorkflowRunsRequest { workflow_run_id: run.id().to_string() };
    let questions = (1..10_000).map(nobody).chain([last]);
    // Each message is sent separately, so that they are not combined into one frame. Then the stream stays open.
    let questions = stream::iter(questions).then(|question| async {
        tokio::task::yield_now().await;
        question
    });
    let mut dispatcher = DispatcherClient::new(hatchet.raw_channel());
    let answers = dispatcher.subscribe_to_workflow_runs(questions.chain(stream::pending()));
    let mut answers = timeout(LIMIT, answers).await.unwrap().unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    assert_eq!(answer.workflow_run_id, run.id().to_string());
    worker.shutdown().await;
}

#[tokio::test]
async fn dropped_calls_do_not_affect_others() {
    let bed = Bed::new(GRACE).await;
    let hatchet = bed.client();
    let (echo, worker, run) = completed(&hatchet).await;
    bed.engine.faults().inject("Register", hatchet::embedded::Fault::Delay(Duration::ZERO), 1000).unwrap();
    let reads = join_all((0..2000).map(|_| async { run.details().await.is_ok() }));
    // Long enough to send the requests, too short for all responses.
    let _ = timeout(Duration::from_millis(20), reads).await;
    run.details().await.unwrap();
    hatchet.run(&echo, &()).start().await.unwrap().result().await.unwrap();
    assert_eq!(bed.engine.faults().planned(), 1000, "the worker did not have to register again");
    assert_eq!(worker.shutdown().await.completed, 2);
}

/// The response so far, once there is some.
async fn answer(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    timeout(LIMIT, stream.read_buf(&mut bytes)).await.unwrap().unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn unauthenticated_request_bodies_are_not_read() {
    let bed = Bed::new(GRACE).await;
    let tenant = format!("/api/v1/tenants/{}", bed.engine.tenant());
    let stable = tenant.replace("/v1/", "/v1/stable/");
    let nobody = "00000000-0000-4000-8000-000000000001";
    for (line, expected) in [
        (format!("POST {stable}/workflow-runs/trigger"), 403),
        (format!("POST {stable}/tasks/cancel"), 403),
        (format!("POST {tenant}/workflows/scheduled/bulk-update"), 403),
        // The engine checks the resource first, so anyone learns that it does not exist.
        (format!("PATCH /api/v1/workers/{nobody}"), 404),
        (format!("PATCH {tenant}/workflows/scheduled/{nobody}"), 404),
    ] {
        let request = format!("{line} HTTP/1.1\r\nhost: engine\r\ncontent-length: 1000000\r\n\r\n");
        let answer = answer(connect(bed.rest, request.as_bytes()).await).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{line}: {answer}");
    }
}

#[tokio::test]
async fn large_messages_and_bodies_are_refused() {
    let bed = Bed::new(GRACE).await;
    let line = format!("POST {}/trigger", bed.list("").split('?').next().unwrap());
    let request = bed.request(&line, "content-length: 100000000\r\n\r\n");
    let said = answer(connect(bed.rest, request.as_bytes()).await).await;
    assert!(said.starts_with("HTTP/1.1 413 "), "{said}");
    let limit = |limit: u32| bed.request(&format!("GET {}", bed.list(&format!("limit={limit}"))), "\r\n");
    let said = answer(connect(bed.rest, limit(5000).as_bytes()).await).await;
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    let said = answer(connect(bed.rest, limit(10_001).as_bytes()).await).await;
    assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
}
