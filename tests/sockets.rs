//! The embedded engine over TCP: what another process would meet. Real time, since real sockets are the subject.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop on what it did not expect")]

use std::time::Duration;

use hatchet::config::{Compression, ConfigBuilder, TlsStrategy};
use hatchet::embedded::Engine;
use hatchet::model::Window;
use hatchet::{Client, Config, Context, ErrorKind, RunFilter, Task};
use tokio::time::Instant;

async fn listening() -> (Engine, ConfigBuilder) {
    let engine = Engine::builder().listen(0, 0).start().await.unwrap();
    let mut config = Config::builder().tls_strategy(TlsStrategy::None);
    for (name, value) in engine.environment() {
        config = match name {
            "HATCHET_CLIENT_TOKEN" => config.token(value),
            "HATCHET_CLIENT_HOST_PORT" => config.host_port(value),
            "HATCHET_CLIENT_SERVER_URL" => config.server_url(value),
            _ => config,
        };
    }
    (engine, config)
}

fn connect(config: ConfigBuilder) -> Client {
    Client::new(config.build().unwrap()).unwrap()
}

/// From a definition to a row in the list, over both protocols.
async fn work(hatchet: Client) {
    let echo: Task<serde_json::Value, serde_json::Value> = Task::new("echo", async |input, _: Context| Ok(input));
    let worker = hatchet.worker("worker").register(&echo).build().unwrap().start().await.unwrap();
    let input = serde_json::json!({"text": "x".repeat(100_000)});
    let run = hatchet.run(&echo, &input).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), input);
    let mut watch = run.watch();
    let mut states = 0;
    while let Some(change) = watch.next().await {
        change.unwrap();
        states += 1;
    }
    assert_eq!(states, 3);
    assert_eq!(hatchet.runs(RunFilter::new(Window::all()).workflow("echo")).page(5).await.unwrap().items.len(), 1);
    assert_eq!(worker.shutdown().await.completed, 1);
}

#[tokio::test]
async fn a_run_over_tcp() {
    let (_engine, config) = listening().await;
    work(connect(config)).await;
}

#[tokio::test]
async fn a_run_over_tcp_with_gzip() {
    let (_engine, config) = listening().await;
    work(connect(config.compression(Compression::Gzip))).await;
}

#[tokio::test]
async fn a_token_of_another_engine_is_refused_by_both_protocols() {
    let (_engine, config) = listening().await;
    let (_other, foreign) = listening().await;
    let token = foreign.build().unwrap().token().expose().to_owned();
    let hatchet = connect(config.token(token));
    let rest = hatchet.runs(Window::all()).count().await.unwrap_err();
    assert_eq!((rest.kind(), rest.http_status()), (ErrorKind::Unauthenticated, Some(403)));
    let nobody = "00000000-0000-4000-8001-000000000001".parse().unwrap();
    let grpc = hatchet.run_handle(nobody).details().await.unwrap_err();
    assert_eq!((grpc.kind(), grpc.grpc_code()), (ErrorKind::Unauthenticated, Some(16)));
    // A worker must not wait for ever for something that cannot come.
    let task: Task<(), ()> = Task::new("work", async |(): (), _: Context| Ok(()));
    let error = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
}

#[tokio::test]
async fn where_nobody_listens_nothing_was_sent() {
    let (engine, config) = listening().await;
    engine.shutdown().await;
    let hatchet = connect(config.rpc_timeout(Duration::from_secs(1)));
    let begin = Instant::now();
    let error = hatchet.runs(Window::all()).count().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.has_no_side_effects() && error.is_transient());
    let nobody = "00000000-0000-4000-8001-000000000001".parse().unwrap();
    let error = hatchet.run_handle(nobody).details().await.unwrap_err();
    assert!(error.has_no_side_effects(), "{error:?}");
    assert!(begin.elapsed() < Duration::from_secs(10), "and within the deadline of each call");
}

#[tokio::test]
async fn when_the_engine_goes_the_waiting_are_told_in_the_end_and_streams_end_well() {
    let (engine, config) = listening().await;
    let hatchet = connect(config.rpc_timeout(Duration::from_secs(1)));
    let stuck: Task<(), ()> = Task::new("stuck", async |(): (), _: Context| std::future::pending().await);
    let worker = hatchet
        .worker("worker")
        .shutdown_grace_period(Duration::ZERO)
        .register(&stuck)
        .build()
        .unwrap()
        .start()
        .await
        .unwrap();
    let run = hatchet.run(&stuck, &()).start().await.unwrap();
    let mut watch = run.watch();
    while *watch.next().await.unwrap().unwrap().status() != hatchet::RunStatus::Running {}
    engine.shutdown().await;
    let error = watch.next().await.unwrap().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}");
    assert!(watch.next().await.is_none(), "an error ends a watch");
    let report = worker.shutdown().await;
    assert_eq!((report.total(), report.unfinished), (1, 1), "what nobody could be told of is left");
}

/// Many ended runs, one after the other: each was over before it was asked about, and none waits for the engine's next
/// round.
#[tokio::test]
async fn results_of_runs_that_have_ended_come_at_once() {
    let (_engine, config) = listening().await;
    let hatchet = connect(config);
    let echo: Task<(), u8> = Task::new("echo", async |(): (), _: Context| Ok(1));
    let worker = hatchet.worker("worker").register(&echo).build().unwrap().start().await.unwrap();
    let runs = hatchet.run_many(&echo, vec![(); 50]).start().await.unwrap();
    let last = runs.last().unwrap().as_ref().unwrap();
    last.result().await.unwrap();
    let begin = Instant::now();
    for run in &runs {
        assert_eq!(run.as_ref().unwrap().result().await.unwrap(), 1);
    }
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}, and not 50 rounds of a second", begin.elapsed());
    worker.shutdown().await;
}

/// A future that is not polled holds nothing that others need.
#[tokio::test]
async fn watches_that_nobody_polls_hold_up_nobody() {
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let echo: Task<(), u8> = Task::new("echo", async |(): (), _: Context| Ok(1));
    let worker = hatchet.worker("worker").register(&echo).build().unwrap().start().await.unwrap();
    let runs = hatchet.run_many(&echo, vec![(); 1500]).start().await.unwrap();
    let watches = runs.iter().map(|run| run.as_ref().unwrap().watch());
    let mut watches = futures_util::stream::select_all(watches);
    // Each has begun its first look, and is left in the middle of it.
    let _ = futures_util::FutureExt::now_or_never(futures_util::StreamExt::next(&mut watches));
    let last = runs.last().unwrap().as_ref().unwrap();
    assert_eq!(last.result().await.unwrap(), 1);
    drop(watches);
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn waits_end_when_the_engine_is_gone() {
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let stuck: Task<(), ()> = Task::new("stuck", async |(): (), _: Context| std::future::pending().await);
    let worker = hatchet
        .worker("worker")
        .shutdown_grace_period(Duration::ZERO)
        .register(&stuck)
        .build()
        .unwrap()
        .start()
        .await
        .unwrap();
    let run = hatchet.run(&stuck, &()).start().await.unwrap();
    let wait = tokio::spawn(async move { run.outcome().await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(engine);
    let error = wait.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    drop(worker);
}
