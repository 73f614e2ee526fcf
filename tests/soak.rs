//! Very many tasks, and very many waits. Ignored by default, because they take minutes:
//!
//! ```text
//! cargo test --release --test soak -- --ignored --nocapture --test-threads=1
//! ```
//!
//! `HATCHET_SOAK_TASKS` is the number of tasks over which memory is measured, 1 000 000 by default.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests may panic")]

use std::collections::HashMap;
use std::time::Duration;

use hatchet::embedded::{Engine, Fault};
use hatchet::{Context, Task, TaskError};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The number of tasks that are started together.
const ROUND: u64 = 5000;
/// The memory is compared after this many tasks: then all bounded memories are full.
const WARM_UP: u64 = 60_000;
/// What the memory may grow by after that.
const MAX_GROWTH: usize = 1 << 20;
const RETENTION: Duration = Duration::from_secs(3600);
/// The engine drops the runs of a day together.
const PAUSE: Duration = Duration::from_secs(26 * 3600);

/// A worker, its client and an engine that drops old runs: some tasks fail and are retried, log, and start children.
#[tokio::test(start_paused = true)]
#[ignore = "it takes minutes"]
async fn memory_is_flat_over_very_many_tasks() {
    let tasks = std::env::var("HATCHET_SOAK_TASKS").map_or(1_000_000, |tasks| tasks.parse().unwrap());
    assert!(tasks >= 2 * WARM_UP, "expected at least {} tasks, got {tasks}", 2 * WARM_UP);
    let engine = Engine::builder().retention(RETENTION).start().await.unwrap();
    let hatchet = engine.client();
    let child: Task<(), u32> = Task::new("child", async |(): (), context: Context| Ok(context.attempt()));
    let task = Task::with_state("task", child.clone(), async |child: Task<(), u32>, (): (), context: Context| {
        match u128::from_be_bytes(*uuid_of(&context).as_bytes()) % 100 {
            0 if context.attempt() == 1 => Err(TaskError::new("as planned")),
            1 => Ok(context.run(&child, &()).result().await?),
            2 => {
                context.log("a line");
                Ok(2)
            }
            _ => Ok(1),
        }
    });
    let task = task.retries(1);
    let worker = hatchet.worker("soak").register(&task).register(&child).build().unwrap().start().await.unwrap();
    let (mut done, mut first) = (0, None);
    while done < tasks {
        let results = hatchet.run_many(&task, (0..ROUND).map(|_| ())).results().await.unwrap();
        assert!(results.iter().all(Result::is_ok));
        drop(results);
        done += ROUND;
        // All of them are too old then.
        tokio::time::sleep(PAUSE).await;
        let heap = ALLOCATOR.current_usage();
        if done % (10 * ROUND) == 0 {
            eprintln!("{done} tasks: {} KiB", heap / 1024);
        }
        if done >= WARM_UP {
            let first = *first.get_or_insert(heap);
            let max = first + MAX_GROWTH;
            assert!(heap < max, "{done} tasks: expected less than {max} bytes, got {heap}");
        }
    }
    let report = worker.shutdown().await;
    assert!(report.completed >= tasks && report.unfinished == 0, "{report}");
    engine.shutdown().await;
}

fn uuid_of(context: &Context) -> uuid::Uuid {
    context.task_id().into()
}

/// As many waits on one stream, all of which are answered.
#[tokio::test(start_paused = true)]
#[ignore = "it takes a minute, and minutes without optimizations"]
async fn b4_waits_for_100_000_runs_are_answered_at_once() {
    const RUNS: usize = 100_000;
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task: Task<Number, usize> = Task::new("task", async |Number { n }: Number, _: Context| Ok(n));
    let worker = || hatchet.worker("worker").slots(1000).register(&task).build().unwrap().start();
    worker().await.unwrap().shutdown().await;
    let runs = hatchet.run_many(&task, (0..RUNS).map(|n| Number { n })).start().await.unwrap();
    let runs: Vec<_> = runs.into_iter().map(Result::unwrap).collect();
    let numbers: HashMap<_, _> = runs.iter().zip(0..).map(|(run, n)| (run.id(), n)).collect();
    assert_eq!(numbers.len(), RUNS);
    engine.faults().inject_times("SubscribeToWorkflowRuns", Fault::Delay(Duration::ZERO), RUNS).unwrap();
    let (mut results, mut answered) = (hatchet.results(&runs), HashMap::new());
    // All of them wait before the first run can end.
    assert!(tokio::time::timeout(Duration::from_secs(60), results.next()).await.is_err());
    let worker = worker().await.unwrap();
    while let Some((run, result)) = results.next().await {
        assert!(answered.insert(run, result.unwrap()).is_none(), "{run} was answered twice");
    }
    assert_eq!(answered, numbers);
    assert_eq!(engine.faults().planned(), RUNS - 1, "one stream");
    assert_eq!(worker.shutdown().await.completed, RUNS as u64);
    engine.shutdown().await;
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Number {
    n: usize,
}
