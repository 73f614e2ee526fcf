//! The memory of a wait for a run. It is a binary of its own with one test, because all tests of a binary share the allocator.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests may panic and print")]

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use hatchet::embedded::Engine;
use hatchet::raw::pb::SubscribeToWorkflowRunsRequest;
use hatchet::raw::pb::dispatcher_client::DispatcherClient;
use hatchet::{Client, Context, RunHandle, Task};
use peak_alloc::PeakAlloc;
use tokio::task::JoinSet;
use tokio::time::sleep;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const WAITERS: usize = 2000;
/// The goal for each, in bytes.
const MAX_BYTES: usize = 1024;
/// After this time, all waits have been probed, and the memory for that has been freed.
const STABLE_AFTER: Duration = Duration::from_secs(60);

fn noop() -> Task<(), ()> {
    Task::new("noop", async |(): (), _: Context| Ok(()))
}

/// An engine that knows the workflow and has no worker, so that the runs of a measurement never end.
async fn engine() -> (Engine, Client) {
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let worker = hatchet.worker("worker").register(&noop()).build().unwrap().start().await.unwrap();
    hatchet.run(&noop(), &()).result().await.unwrap();
    worker.shutdown().await;
    sleep(STABLE_AFTER).await;
    (engine, hatchet)
}

async fn start(hatchet: &Client) -> Vec<RunHandle<()>> {
    let runs = hatchet.run_many(&noop(), vec![(); WAITERS]).start().await.unwrap();
    sleep(STABLE_AFTER).await;
    runs.into_iter().map(Result::unwrap).collect()
}

/// The bytes for each of the waiters that were allocated since then.
fn each_since(before: usize) -> usize {
    ALLOCATOR.current_usage().saturating_sub(before) / WAITERS
}

/// The memory of the engine for each run that a stream of results waits for, with the stub of the client.
async fn bare_wait() -> usize {
    let (engine, hatchet) = engine().await;
    let runs = start(&hatchet).await;
    let before = ALLOCATOR.current_usage();
    let request = |run: &RunHandle<()>| SubscribeToWorkflowRunsRequest { workflow_run_id: run.id().to_string() };
    let requests = stream::iter(runs.iter().map(request).collect::<Vec<_>>()).chain(stream::pending());
    let mut dispatcher = DispatcherClient::new(hatchet.raw_channel());
    let listening = tokio::spawn(async move {
        // The headers are sent with the first result, which never arrives.
        let _ = dispatcher.subscribe_to_workflow_runs(requests).await;
    });
    sleep(STABLE_AFTER).await;
    let each = each_since(before);
    listening.abort();
    engine.shutdown().await;
    each
}

/// The memory of both sides for each pending `outcome()`, without its handle.
async fn waits(start_waits: impl FnOnce(Vec<RunHandle<()>>) -> JoinSet<()>) -> usize {
    let (engine, hatchet) = engine().await;
    let runs = start(&hatchet).await;
    let before = ALLOCATOR.current_usage();
    let mut tasks = start_waits(runs);
    sleep(STABLE_AFTER).await;
    let each = each_since(before);
    assert!(tasks.try_join_next().is_none(), "all of them wait");
    drop(tasks);
    engine.shutdown().await;
    each
}

/// The memory of both sides for each run that is started, and perhaps awaited in a task of its own, including the handle.
async fn started(is_awaited: bool) -> usize {
    let (engine, hatchet) = engine().await;
    let before = ALLOCATOR.current_usage();
    let mut tasks = JoinSet::new();
    for _ in 0..WAITERS {
        let start = hatchet.run(&noop(), &()).start();
        tasks.spawn(async move {
            let run = start.await.unwrap();
            if is_awaited {
                drop(run.outcome().await);
            }
        });
    }
    if !is_awaited {
        while tasks.join_next().await.is_some() {}
    }
    sleep(STABLE_AFTER).await;
    let each = each_since(before);
    assert_eq!(tasks.len(), if is_awaited { WAITERS } else { 0 });
    drop(tasks);
    engine.shutdown().await;
    each
}

#[tokio::test(start_paused = true)]
async fn a_wait_needs_less_than_a_kibibyte() {
    let bare = bare_wait().await;
    let joined = waits(|runs| {
        let mut one = JoinSet::new();
        one.spawn(async move { drop(join_all(runs.iter().map(RunHandle::outcome)).await) });
        one
    });
    let joined = joined.await - bare;
    let spawned =
        waits(|runs| runs.into_iter().map(|run| async move { drop(run.outcome().await) }).collect()).await - bare;
    let queued = started(false).await;
    let own_start = started(true).await - queued - bare;
    eprintln!("bytes for each wait: {joined} in one task, {spawned} in a task for each, {own_start} with the start");
    for bytes in [joined, spawned, own_start] {
        // A wait has a waiter and a future.
        assert!((100..MAX_BYTES).contains(&bytes), "{bytes}");
    }
}
