//! A worker, with and without a collection at the same time.

use std::time::{Duration, Instant};

use hatchet::archive::{Archive, Retention};
use hatchet::embedded::Engine;
use hatchet::{Client, Context, Outcome, Task};

/// The number of runs in one measurement.
const RUNS: usize = 5000;
const ROUNDS: usize = 5;

/// `old_runs`: the number of runs that are collected.
pub(crate) fn run(old_runs: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let engine = Engine::start().await.unwrap();
        let hatchet = engine.client();
        let task = Task::new("work", async |(): (), _: Context| Ok(()));
        let worker = hatchet.worker("worker").slots(100).register(&task).build().unwrap().start().await.unwrap();
        work(&hatchet, &task, old_runs).await;
        let (mut alone, mut together) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            alone.push(work(&hatchet, &task, RUNS).await);
            let archive = Archive::open("memory://").unwrap();
            let retention = Retention::older_than(Duration::ZERO);
            let collector = archive.collect(&hatchet, retention).every(Duration::from_secs(3600)).start().unwrap();
            together.push(work(&hatchet, &task, RUNS).await);
            // Otherwise, it was not there the whole time.
            assert!(collector.last_result().is_none(), "the collection ended before the work: use more runs");
            collector.shutdown().await;
        }
        let median = |times: &mut Vec<Duration>| {
            times.sort();
            times.get(times.len() / 2).copied().unwrap_or_default().as_secs_f64()
        };
        let (alone, together) = (median(&mut alone), median(&mut together));
        let rate = |seconds: f64| f64::from(u32::try_from(RUNS).unwrap_or(u32::MAX)) / seconds;
        println!(
            "a worker on an engine with {old_runs} runs: {:.0} tasks/s alone, {:.0} with a collection of 200 requests/s, time ratio {:.2}",
            rate(alone),
            rate(together),
            together / alone
        );
        worker.shutdown().await;
        engine.shutdown().await;
    });
}

async fn work(hatchet: &Client, task: &Task<(), ()>, count: usize) -> Duration {
    let started = Instant::now();
    let outcomes = hatchet.run_many(task, (0..count).map(|_| ())).outcomes().await.unwrap();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Outcome::Completed(_)))));
    started.elapsed()
}
