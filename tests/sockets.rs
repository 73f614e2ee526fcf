//! The embedded engine over TCP, as for another process. Uses real time, because it uses real sockets.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

mod support;

use std::time::Duration;

use hatchet::config::{Compression, ConfigBuilder, RetryPolicy};
use hatchet::embedded::Engine;
use hatchet::model::Window;
use hatchet::{Client, Context, ErrorKind, RunFilter, Task};
use tokio::time::Instant;

async fn listening() -> (Engine, ConfigBuilder) {
    let engine = Engine::builder().listen().start().await.unwrap();
    let config = support::config(&engine);
    (engine, config)
}

fn connect(config: ConfigBuilder) -> Client {
    Client::new(config.build().unwrap()).unwrap()
}

/// Executes a run, and reads it over gRPC and REST.
async fn execute_run(hatchet: Client) {
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
async fn runs_work_over_tcp() {
    let (_engine, config) = listening().await;
    execute_run(connect(config)).await;
}

#[tokio::test]
async fn runs_work_over_tcp_with_gzip() {
    let (_engine, config) = listening().await;
    execute_run(connect(config.compression(Compression::Gzip))).await;
}

#[tokio::test]
async fn tokens_of_another_engine_are_rejected() {
    let (_engine, config) = listening().await;
    let (_other, foreign) = listening().await;
    let token = foreign.build().unwrap().token().expose().to_owned();
    let hatchet = connect(config.token(token));
    let rest = hatchet.runs(Window::all()).count().await.unwrap_err();
    assert_eq!((rest.kind(), rest.http_status()), (ErrorKind::Unauthenticated, Some(403)));
    let unknown = "00000000-0000-4000-8001-000000000001".parse().unwrap();
    let grpc = hatchet.run_handle(unknown).details().await.unwrap_err();
    assert_eq!((grpc.kind(), grpc.grpc_code()), (ErrorKind::Unauthenticated, Some(16)));
    // A worker must not retry a permanent error.
    let task: Task<(), ()> = Task::new("work", async |(): (), _: Context| Ok(()));
    let error = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
}

#[tokio::test]
async fn calls_without_a_listener_have_no_side_effects() {
    let (engine, config) = listening().await;
    engine.shutdown().await;
    // With few retries, the calls end before their deadline. A deadline that passes during a try is a timeout.
    let hatchet = connect(config.retry(RetryPolicy::max_retries(2)));
    let error = hatchet.runs(Window::all()).count().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.has_no_side_effects() && error.is_transient());
    let unknown = "00000000-0000-4000-8001-000000000001".parse().unwrap();
    let error = hatchet.run_handle(unknown).details().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.has_no_side_effects() && error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn watches_wait_and_workers_end_after_the_engine_has_stopped() {
    let (engine, config) = listening().await;
    let hatchet = connect(config.rpc_timeout(Duration::from_secs(1)));
    let (worker, run) = support::start_stuck_run(&hatchet).await;
    let mut watch = run.watch();
    while !watch.next().await.unwrap().unwrap().has_status(&hatchet::RunStatus::Running) {}
    engine.shutdown().await;
    // A server that restarts is back within a minute.
    assert!(tokio::time::timeout(Duration::from_secs(3), watch.next()).await.is_err());
    let report = worker.shutdown().await;
    assert_eq!((report.total(), report.unfinished), (1, 1), "the task could not be reported");
}

/// The results of runs that have ended do not wait for the next poll of the engine.
#[tokio::test]
async fn results_of_ended_runs_are_immediate() {
    let (_engine, config) = listening().await;
    let hatchet = connect(config);
    let echo: Task<(), u8> = Task::new("echo", async |(): (), _: Context| Ok(1));
    let worker = hatchet.worker("worker").register(&echo).build().unwrap().start().await.unwrap();
    let runs = hatchet.run_many(&echo, vec![(); 50]).start().await.unwrap();
    let last = runs.last().unwrap().as_ref().unwrap();
    last.result().await.unwrap();
    let start = Instant::now();
    for run in &runs {
        assert_eq!(run.as_ref().unwrap().result().await.unwrap(), 1);
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?} instead of 50 polls of one second", start.elapsed());
    worker.shutdown().await;
}

/// A future that is not polled must not hold a shared resource.
#[tokio::test]
async fn unpolled_watches_do_not_block_others() {
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let echo: Task<(), u8> = Task::new("echo", async |(): (), _: Context| Ok(1));
    let worker = hatchet.worker("worker").register(&echo).build().unwrap().start().await.unwrap();
    let runs = hatchet.run_many(&echo, vec![(); 1500]).start().await.unwrap();
    let watches = runs.iter().map(|run| run.as_ref().unwrap().watch());
    let mut watches = futures_util::stream::select_all(watches);
    // Each watch has started its first fetch, which stays incomplete.
    let _ = futures_util::FutureExt::now_or_never(futures_util::StreamExt::next(&mut watches));
    let last = runs.last().unwrap().as_ref().unwrap();
    assert_eq!(last.result().await.unwrap(), 1);
    drop(watches);
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn waits_end_when_the_engine_is_dropped() {
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let (worker, run) = support::start_stuck_run(&hatchet).await;
    let wait = tokio::spawn(async move { run.outcome().await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(engine);
    let error = wait.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    drop(worker);
}
