//! The memory of a collection. It is a binary of its own, because all tests of a binary share the allocator.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests may panic and print")]

use std::time::Duration;

use hatchet::archive::{Archive, Retention};
use hatchet::embedded::Engine;
use hatchet::{Context, Task};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// A collection commits when it has fetched this much: 64 MiB by default, which takes too long without optimizations.
const COMMIT_BYTES: usize = 4 << 20;
const OUTPUT_BYTES: usize = 64 << 10;
/// The runs of three commits.
const RUNS: usize = 3 * COMMIT_BYTES / OUTPUT_BYTES;

/// The peak of the heap while runs are collected, beyond what was in use before, and the number of commits.
async fn peak_of_collection(runs: usize) -> (usize, usize) {
    let directory = std::env::temp_dir().join(format!("hatchet-archive-{}", uuid::Uuid::new_v4()));
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task = Task::new("work", async |(): (), _: Context| Ok("x".repeat(OUTPUT_BYTES)));
    let worker = hatchet.worker("worker").slots(100).register(&task).build().unwrap().start().await.unwrap();
    for run in hatchet.run_many(&task, vec![(); runs]).start().await.unwrap() {
        run.unwrap().outcome().await.unwrap();
    }
    worker.shutdown().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    // In a directory, so that the files are not in memory.
    let archive = Archive::open(directory.to_str().unwrap()).unwrap();
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let collection = archive.collect(&hatchet, Retention::older_than(Duration::ZERO)).requests_per_second(1_000_000);
    let mut batches = collection.commit_bytes(COMMIT_BYTES).batches();
    let (mut commits, mut archived) = (0, 0);
    while let Some(batch) = batches.next().await.transpose().unwrap() {
        commits += 1;
        archived += batch.runs;
    }
    let peak = ALLOCATOR.peak_usage() - before;
    assert_eq!(archived, runs as u64);
    engine.shutdown().await;
    std::fs::remove_dir_all(&directory).unwrap();
    (peak, commits)
}

#[tokio::test(start_paused = true)]
async fn t5_memory_of_a_collection_does_not_grow_with_the_number_of_runs() {
    let (once, commits) = peak_of_collection(RUNS).await;
    assert!(commits >= 3, "{commits}");
    let (twice, commits) = peak_of_collection(2 * RUNS).await;
    assert!(commits >= 6, "{commits}");
    eprintln!("peak of the heap: {once} bytes for {RUNS} runs, {twice} for {}", 2 * RUNS);
    // What is collected is larger than the memory that this needs.
    assert!(twice < 2 * RUNS * OUTPUT_BYTES, "{twice} bytes");
    assert!(twice * 10 <= once * 13, "{twice} bytes for twice as many runs, {once} before");
}
