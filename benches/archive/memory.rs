//! The memory of a collection, for several numbers of runs.

use std::time::Duration;

use hatchet::archive::{Archive, Retention};
use hatchet::embedded::Engine;
use hatchet::{Context, Task};

use crate::ALLOCATOR;

pub(crate) fn run(sizes: &[usize]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    println!("{:>9} {:>22}", "runs", "peak heap in bytes");
    for runs in sizes {
        runtime.block_on(collect(*runs));
    }
}

/// Collects runs, and prints how much more memory was in use than before.
async fn collect(runs: usize) {
    let directory = std::env::temp_dir().join(format!("hatchet-archive-bench-{}-{runs}", std::process::id()));
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task = Task::new("work", async |(): (), _: Context| Ok("x".repeat(100)));
    let worker = hatchet.worker("worker").slots(1000).register(&task).build().unwrap().start().await.unwrap();
    let started = hatchet.run_many(&task, vec![(); runs]).start().await.unwrap();
    for run in started {
        run.unwrap().outcome().await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let archive = Archive::open(directory.to_str().unwrap()).unwrap();
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let retention = Retention::older_than(Duration::ZERO);
    let report = archive.collect(&hatchet, retention).requests_per_second(1_000_000).send().await.unwrap();
    assert_eq!(report.archived, runs as u64);
    println!("{runs:>9} {:>22}", ALLOCATOR.peak_usage().saturating_sub(before));
    worker.shutdown().await;
    engine.shutdown().await;
    std::fs::remove_dir_all(&directory).unwrap();
}
