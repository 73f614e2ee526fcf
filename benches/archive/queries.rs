//! Queries of a large archive: the time and the bytes that are read.

use std::time::{Duration, Instant};

use hatchet::archive::{Archive, Retention};
use hatchet::embedded::Engine;
use hatchet::model::Window;
use hatchet::{Client, Context, RunFilter, RunId, RunStatus, Task, TaskError};
use serde::{Deserialize, Serialize};

const DAY: Duration = Duration::from_secs(24 * 3600);
const DAYS: usize = 100;
const WORKFLOWS: usize = 10;

#[derive(Serialize, Deserialize)]
struct Input {
    number: usize,
}

/// A task that fails for one run in a hundred.
fn task(workflow: usize) -> Task<Input, usize> {
    Task::new(format!("workflow-{workflow}"), async |input: Input, _: Context| {
        if input.number.is_multiple_of(100) { Err(TaskError::new("failed")) } else { Ok(input.number) }
    })
}

pub(crate) fn run(runs: usize) {
    let directory = std::env::temp_dir().join(format!("hatchet-archive-bench-{}", std::process::id()));
    let url = directory.to_str().unwrap().to_owned();
    let virtual_time = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let started = Instant::now();
    let ids = virtual_time.block_on(fill(&url, runs));
    let size: u64 = total_size(&directory.join("runs"));
    let per_run = size / runs.max(1) as u64;
    println!("{runs} runs archived in {:.1?}: {size} bytes, {per_run} for each run", started.elapsed());
    let real_time = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    real_time.block_on(query(&url, ids));
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Archives the runs day by day. The engine drops them after two days. Returns the oldest and the newest run.
async fn fill(url: &str, runs: usize) -> (RunId, RunId) {
    let engine =
        Engine::builder().start_time("2026-01-01T00:00:00Z".parse().unwrap()).retention(2 * DAY).start().await.unwrap();
    let hatchet = engine.client();
    let tasks: Vec<_> = (0..WORKFLOWS).map(task).collect();
    let worker = tasks.iter().fold(hatchet.worker("worker").slots(1000), hatchet::worker::WorkerBuilder::register);
    let worker = worker.build().unwrap().start().await.unwrap();
    let archive = Archive::open(url).unwrap();
    let (mut oldest, mut newest) = (None, None);
    for day in 0..DAYS {
        for task in &tasks {
            newest = Some(start(&hatchet, task, runs / DAYS / WORKFLOWS).await);
            oldest = oldest.or(newest);
        }
        tokio::time::sleep(DAY).await;
        let retention = Retention::older_than(Duration::ZERO);
        let collection = archive.collect(&hatchet, retention).requests_per_second(1_000_000).concurrency(32);
        let report = collection.send().await.unwrap();
        assert!(report.dropped == 0, "day {day}: {report}");
    }
    archive.compact().send().await.unwrap();
    archive.sweep().grace_period(Duration::ZERO).send().await.unwrap();
    worker.shutdown().await;
    engine.shutdown().await;
    oldest.zip(newest).expect("runs")
}

async fn start(hatchet: &Client, task: &Task<Input, usize>, count: usize) -> RunId {
    let inputs = (0..count).map(|number| Input { number });
    let runs = hatchet.run_many(task, inputs).metadata("tenant", "acme").start().await.unwrap();
    let mut last = None;
    for run in runs {
        let run = run.unwrap();
        run.outcome().await.unwrap();
        last = Some(run.id());
    }
    last.expect("a run")
}

async fn query(url: &str, (oldest, newest): (RunId, RunId)) {
    let day = |day: &str| format!("{day}T00:00:00Z").parse().unwrap();
    let all = RunFilter::new(Window::all());
    let one_day = RunFilter::new(Window::since(day("2026-02-01")).until(day("2026-02-02")));
    let queries = [
        ("all runs", all.clone()),
        ("one workflow", all.clone().workflow("workflow-3")),
        ("failed runs", all.clone().status(RunStatus::Failed)),
        ("one day", one_day.clone()),
        ("failed runs of one workflow on one day", one_day.workflow("workflow-3").status(RunStatus::Failed)),
    ];
    println!("{:<40} {:>9} {:>12} {:>12}", "query", "runs", "read", "time");
    for (name, filter) in queries {
        // A new `Archive`, so that no state is cached.
        let archive = Archive::open(url).unwrap();
        let started = Instant::now();
        let count = archive.runs(filter).count().await.unwrap();
        println!("{name:<40} {count:>9} {:>12} {:>12.1?}", archive.bytes_read(), started.elapsed());
    }
    for (name, id) in [("the newest run by its id", newest), ("the oldest run by its id", oldest)] {
        let archive = Archive::open(url).unwrap();
        let started = Instant::now();
        archive.details(id).await.unwrap();
        println!("{name:<40} {:>9} {:>12} {:>12.1?}", 1, archive.bytes_read(), started.elapsed());
    }
}

fn total_size(directory: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| if entry.path().is_dir() { total_size(&entry.path()) } else { entry.metadata().unwrap().len() })
        .sum()
}
