//! The whole life of an archive in one store: collections at the same time, queries, compaction, expiry, sweep.
//!
//! By default, the store is a directory. To test another one, name it in `HATCHET_ARCHIVE_TEST_URL`, set its options as for
//! [`Archive::open`](hatchet::archive::Archive::open), and enable its feature:
//!
//! ```text
//! HATCHET_ARCHIVE_TEST_URL=s3://bucket/test AWS_REGION=… AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… \
//!     cargo test --test archive_store --features archive-s3 -- --nocapture
//! ```
//!
//! The bucket or container must exist. Each test uses a prefix of its own below the URL, in which some small objects of the manifest remain.
//! The tests run in real time, because the store does.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests may panic and print")]

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use hatchet::archive::{Archive, CollectReport, History, Retention, Rule};
use hatchet::embedded::Engine;
use hatchet::model::Window;
use hatchet::{Client, Context, ErrorKind, Result, RunFilter, RunId, RunStatus, Task, TaskError};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

const URL_ENV: &str = "HATCHET_ARCHIVE_TEST_URL";
const WORKFLOWS: u32 = 4;
const RUNS: u32 = 6;
const STOPS: u32 = 10;

#[derive(Serialize, Deserialize)]
struct Input {
    n: u32,
}

/// The URL of an empty archive, and its directory if it is one.
fn url() -> (String, Option<std::path::PathBuf>) {
    let name = uuid::Uuid::new_v4();
    if let Ok(url) = std::env::var(URL_ENV) {
        return (format!("{}/{name}", url.trim_end_matches('/')), None);
    }
    eprintln!("{URL_ENV} is not set: only a directory is tested, and no other store");
    let directory = std::env::temp_dir().join(format!("hatchet-archive-{name}"));
    (directory.to_str().unwrap().to_owned(), Some(directory))
}

/// A task that fails for odd numbers.
fn task(workflow: u32) -> Task<Input, u32> {
    Task::new(
        format!("count-{workflow}"),
        async |input: Input, _: Context| {
            if input.n % 2 == 1 { Err(TaskError::new("odd")) } else { Ok(input.n) }
        },
    )
}

async fn start(client: &Client, tasks: &[Task<Input, u32>], numbers: std::ops::Range<u32>) -> BTreeSet<RunId> {
    let mut ids = BTreeSet::new();
    for task in tasks {
        for run in client.run_many(task, numbers.clone().map(|n| Input { n })).start().await.unwrap() {
            let run = run.unwrap();
            run.outcome().await.unwrap();
            ids.insert(run.id());
        }
    }
    ids
}

fn all() -> Retention {
    Retention::older_than(Duration::ZERO)
}

async fn ids(archive: &Archive, filter: impl Into<RunFilter>) -> BTreeSet<RunId> {
    let (mut items, mut ids) = (archive.runs(filter).items(), BTreeSet::new());
    while let Some(run) = items.next().await.transpose().unwrap() {
        assert!(ids.insert(run.id), "each run once");
    }
    ids
}

fn archived(reports: Vec<Result<CollectReport>>) -> u64 {
    reports.into_iter().map(|report| report.unwrap().archived).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_lives_in_a_store() {
    let (url, directory) = url();
    // Each of them has a state of its own, as in a process of its own.
    let open = || Archive::open(&url).unwrap();
    // Archived runs expire by the system clock, so the engine starts in 2001.
    let engine = Engine::builder().start_time("2001-01-01T10:00:00Z".parse().unwrap()).start().await.unwrap();
    let client = engine.client();
    let tasks: Vec<_> = (0..WORKFLOWS).map(task).collect();
    let worker = tasks.iter().fold(client.worker("worker").slots(20), hatchet::worker::WorkerBuilder::register);
    let worker = worker.build().unwrap().start().await.unwrap();
    let mut expected = start(&client, &tasks, 0..RUNS).await;

    // An empty archive can be read.
    assert_eq!(ids(&open(), Window::all()).await, BTreeSet::new());
    let unknown = RunId::from(uuid::Uuid::new_v4());
    assert_eq!(open().details(unknown).await.unwrap_err().kind(), ErrorKind::RunNotFound);

    // Collectors of different workflows write commits of the same number.
    let collectors: Vec<_> = tasks.iter().map(|task| (open(), task.name().to_owned())).collect();
    let reports = join_all(collectors.iter().map(|(archive, workflow)| {
        let retention = Retention::never().workflow(workflow, Rule::older_than(Duration::ZERO));
        archive.collect(&client, retention).send()
    }));
    assert_eq!(archived(reports.await), expected.len() as u64);
    assert_eq!(ids(&open(), Window::all()).await, expected);

    // Collectors of the same runs.
    expected.extend(start(&client, &tasks, RUNS..2 * RUNS).await);
    let collectors: Vec<_> = (0..3).map(|_| open()).collect();
    let reports = join_all(collectors.iter().map(|archive| archive.collect(&client, all()).send())).await;
    assert_eq!(archived(reports), u64::from(WORKFLOWS * RUNS));
    let archive = open();
    let files = archive.files(Window::all()).await.unwrap();
    assert_eq!(files.iter().map(|file| file.rows).sum::<u64>(), expected.len() as u64);
    assert!(files.len() > WORKFLOWS as usize, "{} files", files.len());

    // What is read is what the engine has.
    assert_eq!(ids(&archive, Window::all()).await, expected);
    let failed = RunFilter::new(Window::all()).workflow(tasks[0].name()).status(RunStatus::Failed);
    assert_eq!(archive.runs(failed.clone()).count().await.unwrap(), u64::from(RUNS));
    assert_eq!(History::new(&client, &archive).runs(failed).count().await.unwrap(), u64::from(RUNS));
    for id in expected.iter().take(3) {
        let (kept, live) = (archive.details(*id).await.unwrap(), client.run_handle(*id).details().await.unwrap());
        assert_eq!(serde_json::to_value(&kept).unwrap(), serde_json::to_value(&live).unwrap());
    }
    let again = archive.collect(&client, all()).send().await.unwrap();
    assert_eq!((again.archived, again.unchanged), (0, expected.len() as u64), "{again}");

    // Compactions at the same time: each file is merged once.
    let (one, other) = (open(), open());
    let (one, other) = tokio::join!(one.compact().send(), other.compact().send());
    assert_eq!(one.unwrap().files_written + other.unwrap().files_written, u64::from(WORKFLOWS));
    assert_eq!(archive.files(Window::all()).await.unwrap().len(), WORKFLOWS as usize);
    assert_eq!(ids(&open(), Window::all()).await, expected);
    let swept = archive.sweep().grace_period(Duration::ZERO).send().await.unwrap();
    assert!(swept.files >= files.len() as u64, "{swept}");
    assert_eq!(ids(&open(), Window::all()).await, expected);

    // The runs of one workflow stay.
    let old = Duration::from_secs(365 * 24 * 3600);
    let retention = Retention::older_than(old).workflow(tasks[0].name(), Rule::never());
    let removed = archive.expire(retention).send().await.unwrap();
    assert_eq!(removed.runs, u64::from(2 * RUNS * (WORKFLOWS - 1)), "{removed}");
    assert_eq!(ids(&open(), Window::all()).await.len() as u64, u64::from(2 * RUNS));
    assert_eq!(archive.expire(Retention::older_than(old)).send().await.unwrap().runs, u64::from(2 * RUNS));
    let swept = archive.sweep().grace_period(Duration::ZERO).send().await.unwrap();
    assert_eq!(swept.files, u64::from(WORKFLOWS), "{swept}");
    assert_eq!(ids(&open(), Window::all()).await, BTreeSet::new());
    eprintln!("tested with {url}: {} bytes were read", archive.bytes_read());

    worker.shutdown().await;
    engine.shutdown().await;
    if let Some(directory) = directory {
        std::fs::remove_dir_all(directory).unwrap();
    }
}

/// What was committed stays, the next collection archives the rest, and a sweep deletes what is not committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collections_in_a_store_are_stopped_at_any_time() {
    let (url, directory) = url();
    let engine = Engine::builder().start_time("2001-01-01T10:00:00Z".parse().unwrap()).start().await.unwrap();
    let client = engine.client();
    let tasks = [task(0), task(1)];
    let worker = client.worker("worker").slots(20).register(&tasks[0]).register(&tasks[1]);
    let worker = worker.build().unwrap().start().await.unwrap();
    let mut expected = start(&client, &tasks, 0..RUNS).await;
    let started = Instant::now();
    let report = Archive::open(&url).unwrap().collect(&client, all()).requests_per_second(10_000).send().await.unwrap();
    assert_eq!(report.archived, expected.len() as u64, "{report}");
    let duration = started.elapsed();

    let (mut stopped, mut complete) = (0, 0);
    for step in 1..=STOPS {
        expected.extend(start(&client, &tasks, step * RUNS..(step + 1) * RUNS).await);
        let archives = [Archive::open(&url).unwrap(), Archive::open(&url).unwrap()];
        let limits = [duration * 2 * step / STOPS, duration * 2 * (STOPS - step) / STOPS];
        let collections = archives
            .iter()
            .zip(limits)
            .map(|(archive, limit)| timeout(limit, archive.collect(&client, all()).requests_per_second(10_000).send()));
        for result in join_all(collections).await {
            match result {
                Ok(report) => {
                    report.unwrap();
                    complete += 1;
                }
                Err(_) => stopped += 1,
            }
        }
        assert!(ids(&Archive::open(&url).unwrap(), Window::all()).await.is_subset(&expected));
    }
    let archive = Archive::open(&url).unwrap();
    archive.collect(&client, all()).requests_per_second(10_000).send().await.unwrap();
    let rows = async || archive.files(Window::all()).await.unwrap().iter().map(|file| file.rows).sum::<u64>();
    assert_eq!((ids(&archive, Window::all()).await, rows().await), (expected.clone(), expected.len() as u64));
    let swept = archive.sweep().grace_period(Duration::ZERO).send().await.unwrap();
    assert_eq!((ids(&archive, Window::all()).await, rows().await), (expected.clone(), expected.len() as u64));
    // Where they were stopped depends on the time. `src/archive/crash.rs` stops each step.
    eprintln!("{stopped} collections were stopped, {complete} were not; {swept}");

    worker.shutdown().await;
    engine.shutdown().await;
    if let Some(directory) = directory {
        std::fs::remove_dir_all(directory).unwrap();
    }
}
