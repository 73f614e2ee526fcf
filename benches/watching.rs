//! Counts the calls of watches: for runs that are short, and for runs that wait.
//!
//! ```text
//! cargo bench --bench watching
//! ```
//!
//! The clock is virtual, so the numbers of calls are the same on each machine. *Real time* is what the program needed, with the engine and
//! the worker in the same process.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a command-line program, which exits on a failure, and which measures real time"
)]

use std::time::Duration;

use hatchet::embedded::{Engine, Fault};
use hatchet::{Client, Config, Context, RunHandle, Task};
use tokio::time::{sleep, timeout};

const PLANNED: usize = 100_000_000;
const CALLS: [(&str, &str); 4] = [
    ("GetRunDetails", "details over gRPC"),
    ("GET /api/v1/stable/workflow-runs/{run}", "runs over REST"),
    ("GET /api/v1/stable/tasks/{task}/task-events", "task events"),
    ("GET /api/v1/stable/tenants/{tenant}/workflow-runs", "lists"),
];

fn main() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    println!(
        "{:>7}  {:<12} {:>9} {:>9} {:>12} {:>8} {:>12}",
        "watches", "runs", "virtual", "real", "calls", "lists", "calls/run"
    );
    for count in [1, 100, 1000, 10_000] {
        runtime.block_on(short(count));
    }
    for count in [1, 1000, 10_000] {
        runtime.block_on(waiting(count));
    }
}

async fn setup() -> (Engine, Client, Task<(), ()>) {
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client_with(Config::builder().watch_request_rate(1000)).unwrap();
    let short = Task::new("short", async |(): (), _: Context| {
        sleep(Duration::from_millis(200)).await;
        Ok(())
    });
    (engine, hatchet, short)
}

/// Counts the calls from now on.
fn count(engine: &Engine) {
    engine.faults().clear();
    for (call, _) in CALLS {
        engine.faults().inject_times(call, Fault::Delay(Duration::ZERO), PLANNED).unwrap();
    }
}

fn calls(engine: &Engine) -> usize {
    PLANNED * CALLS.len() - engine.faults().planned()
}

async fn start(hatchet: &Client, task: &Task<(), ()>, count: usize) -> Vec<RunHandle<()>> {
    let runs = hatchet.run_many(task, vec![(); count]).start().await.unwrap();
    runs.into_iter().map(Result::unwrap).collect()
}

/// Runs of 200 ms, on 100 slots.
async fn short(number: usize) {
    let (engine, hatchet, task) = setup().await;
    let worker = engine.client().worker("worker").slots(100).register(&task).build().unwrap().start().await.unwrap();
    hatchet.run(&task, &()).result().await.unwrap();
    count(&engine);
    let (began, real) = (tokio::time::Instant::now(), std::time::Instant::now());
    let runs = start(&hatchet, &task, number).await;
    let (mut watch, mut changes) = (hatchet.watch_many(&runs), 0);
    while let Some(change) = watch.next().await {
        change.unwrap();
        changes += 1;
    }
    assert_eq!(changes, 3 * number);
    print(number, "of 200 ms", began.elapsed(), real.elapsed(), calls(&engine), calls(&engine) - 3 * number);
    worker.shutdown().await;
    engine.shutdown().await;
}

/// Runs that nobody executes, for a minute.
async fn waiting(number: usize) {
    let (engine, hatchet, task) = setup().await;
    engine.client().worker("worker").register(&task).build().unwrap().start().await.unwrap().shutdown().await;
    let runs = start(&hatchet, &task, number).await;
    count(&engine);
    let (began, real) = (tokio::time::Instant::now(), std::time::Instant::now());
    let mut watch = hatchet.watch_many(&runs);
    for _ in 0..number {
        watch.next().await.unwrap().unwrap();
    }
    assert!(timeout(Duration::from_secs(60), watch.next()).await.is_err());
    print(number, "queued", began.elapsed(), real.elapsed(), calls(&engine), calls(&engine));
    engine.shutdown().await;
}

fn print(number: usize, runs: &str, elapsed: Duration, real: Duration, calls: usize, lists: usize) {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let each = calls as f64 / number as f64;
    println!("{number:>7}  {runs:<12} {elapsed:>9.1?} {real:>9.1?} {calls:>12} {lists:>8} {each:>12.2}");
}
