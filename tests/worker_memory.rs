//! The memory of a worker. It is a binary of its own whose tests run one after the other, because all tests of a binary share the allocator.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests may panic and print")]

#[path = "../benches/bare_worker.rs"]
mod bare_worker;
mod support;

use std::time::Duration;

use hatchet::embedded::Engine;
use hatchet::model::Window;
use hatchet::{Client, Context, RunStatus, Task};
use peak_alloc::PeakAlloc;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::sleep;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const SECOND: Duration = Duration::from_secs(1);
const SLOTS: u32 = 500;
/// The goal for each slot that runs an attempt, in bytes.
const MAX_BYTES: usize = 8192;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Job {
    is_chatty: bool,
}

fn endless() -> Task<(), ()> {
    let task = Task::new("endless", async |(): (), _: Context| std::future::pending().await);
    task.timeout(24 * 3600 * SECOND)
}

/// An engine that knows the task.
async fn engine() -> (Engine, Client) {
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let worker = hatchet.worker("worker").register(&endless()).build().unwrap().start().await.unwrap();
    worker.shutdown().await;
    (engine, hatchet)
}

/// Starts a run for each slot, and returns the bytes that each of them needs.
async fn each_slot(hatchet: &Client) -> usize {
    let before = ALLOCATOR.current_usage();
    drop(hatchet.run_many(&endless(), vec![(); SLOTS as usize]).start().await.unwrap());
    while hatchet.runs(Window::all()).counts_by_status().await.unwrap().get(&RunStatus::Running) != Some(SLOTS.into()) {
        sleep(SECOND).await;
    }
    sleep(60 * SECOND).await;
    ALLOCATOR.current_usage().saturating_sub(before) / SLOTS as usize
}

/// The memory of the engine for an attempt, whose worker only receives it.
async fn bare_slot() -> usize {
    let (engine, hatchet) = engine().await;
    let each = tokio::select! {
        each = each_slot(&hatchet) => each,
        never = bare_worker::receive(&hatchet, "endless", SLOTS as usize) => match never {},
    };
    engine.shutdown().await;
    each
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_runs_an_attempt_needs_less_than_8_kib() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let bare = bare_slot().await;
    let (engine, hatchet) = engine().await;
    let worker = hatchet.worker("worker").slots(SLOTS).register(&endless()).build().unwrap().start().await.unwrap();
    let each = each_slot(&hatchet).await - bare;
    eprintln!("bytes for each slot that runs an attempt: {each}, and {bare} in the engine");
    assert!((500..MAX_BYTES).contains(&each), "{each}");
    worker.shutdown_with_timeout(Duration::ZERO).await;
    engine.shutdown().await;
}

/// Attempts end and write log lines until nothing more fits into the outbox and the buffer of log lines.
#[tokio::test(start_paused = true)]
async fn an_outage_of_an_hour_needs_no_more_memory_than_its_first_minutes() {
    const RUNS: usize = 300;
    let _guard = ONE_AT_A_TIME.lock().await;
    let (engine, hatchet) = support::engine_with_quirks().await;
    let task = Task::new("task", async |Job { is_chatty }: Job, context: Context| {
        let output = "x".repeat(1024);
        sleep(10 * SECOND).await;
        // In five minutes more than the 16 MiB that wait at most.
        if is_chatty {
            loop {
                (0..40).for_each(|_| context.log(&output));
                sleep(SECOND / 2).await;
            }
        }
        Ok(output)
    });
    let task = task.timeout(24 * 3600 * SECOND).schedule_timeout(24 * 3600 * SECOND);
    let worker = hatchet.worker("worker").slots(100).outbox_capacity(50).register(&task);
    let worker = worker.build().unwrap().start().await.unwrap();
    let inputs = (0..RUNS).map(|number| Job { is_chatty: number == 0 });
    let runs = hatchet.run_many(&task, inputs).start().await.unwrap();
    sleep(5 * SECOND).await;
    support::reject_all_calls(&engine);
    sleep(300 * SECOND).await;
    let early = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    sleep(3600 * SECOND).await;
    let peak = ALLOCATOR.peak_usage();
    engine.faults().clear();
    let status = worker.status();
    eprintln!("{early} bytes after five minutes, at most {peak} in the next hour: {status:?}");
    assert!(status.is_outbox_full && status.unreported == 99, "{status:?}");
    assert!(peak < early + (64 << 10), "{early}, then {peak}");
    for run in runs.into_iter().skip(1) {
        assert_eq!(run.unwrap().result().await.unwrap().len(), 1024);
    }
    worker.shutdown_with_timeout(Duration::ZERO).await;
    engine.shutdown().await;
}
