//! What a query does not read.

use std::sync::Arc;

use super::super::decode::FileReader;
use super::super::schema::Cell;
use super::super::writing::write_file;
use super::files::file_reads;
use super::*;
use crate::model::trigger::RERUN_KEY;

#[tokio::test(start_paused = true)]
async fn only_the_files_of_the_matching_days_workflows_and_statuses_are_read() {
    let bench = Bench::new().await;
    let other: Task<Input, u32> = Task::new("other", async |input: Input, _: Context| Ok(input.n));
    let worker = bench.client.worker("other").register(&other).build().unwrap().start().await.unwrap();
    for n in 0..3 {
        bench.start([2 * n]).await;
        bench.client.run(&other, &Input { n }).result().await.unwrap();
        sleep(DAY).await;
    }
    bench.archive.collect(&bench.client, all()).send().await.unwrap();
    let at = |text: &str| -> DateTime<Utc> { text.parse().unwrap() };
    let day = RunFilter::new(Window::since(at("2026-11-02T00:00:00Z")).until(at("2026-11-02T23:59:59Z")));
    let any = RunFilter::new(Window::all());
    for (filter, runs, files) in [
        (any.clone(), 6, 6),
        (day.clone(), 2, 2),
        (any.clone().workflow("count"), 3, 3),
        (day.clone().workflow("count"), 1, 1),
        (day.clone().workflow("count").status(RunStatus::Completed), 1, 1),
        (day.workflow("count").status(RunStatus::Failed), 0, 0),
        (any.clone().status(RunStatus::Failed), 0, 0),
        (any.workflow("unknown"), 0, 0),
    ] {
        let log = Crash::default();
        assert_eq!(bench.crashing(&log).runs(filter.clone()).count().await.unwrap(), runs, "{filter:?}");
        assert_eq!(file_reads(&log), files, "{filter:?}: {:?}", log.operations());
    }
    worker.shutdown().await;
    bench.end().await;
}

/// A file without a wanted status is read only if it can have newer versions of runs that have one.
#[tokio::test(start_paused = true)]
async fn statuses_exclude_files_of_a_day_with_several_files() {
    let bench = Bench::new().await;
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.extend(bench.start([n]).await);
        sleep(HOUR).await;
        bench.archive.collect(&bench.client, all()).send().await.unwrap();
    }
    let read = async |status| {
        let log = Crash::default();
        let filter = RunFilter::new(Window::all()).status(status);
        let runs = listed(bench.crashing(&log).runs(filter.clone()).items()).await;
        assert_eq!(runs, listed(bench.client.runs(filter).items()).await);
        (runs.len(), file_reads(&log))
    };
    assert_eq!(read(RunStatus::Failed).await, (2, 2));
    assert_eq!(read(RunStatus::Completed).await, (2, 2));
    assert_eq!(read(RunStatus::Cancelled).await, (0, 0));
    // A run that failed, and completed when it was replayed: its old version is no match, and its new one is.
    bench.client.run_handle(ids[1]).replay().send().await.unwrap().run.outcome().await.unwrap();
    sleep(HOUR).await;
    bench.archive.collect(&bench.client, all()).send().await.unwrap();
    assert_eq!(read(RunStatus::Failed).await, (1, 3));
    assert_eq!(read(RunStatus::Completed).await, (3, 4));
    bench.end().await;
}

/// Runs are selected by their parents and by tags of the engine and of this crate, as those of the engine are.
#[tokio::test(start_paused = true)]
async fn children_and_reruns_are_found_in_the_archive() {
    let bench = Bench::new().await;
    let task = bench.task.clone();
    let parent =
        Task::with_state("parent", task, async |child: Task<Input, Vec<u32>>, input: Input, context: Context| {
            Ok(context.run(&child, &Input { n: input.n + 2 }).result().await?)
        });
    let worker = bench.client.worker("other").register(&parent).build().unwrap().start().await.unwrap();
    let parents = [0, 2].map(|n| bench.client.run(&parent, &Input { n }));
    let mut ids = Vec::new();
    for run in parents {
        let run = run.start().await.unwrap();
        run.outcome().await.unwrap();
        ids.push(run.id());
    }
    let original = bench.start([8]).await[0];
    for _ in 0..2 {
        bench.client.run_handle(original).rerun().start().await.unwrap().outcome().await.unwrap();
    }
    sleep(HOUR).await;
    assert_eq!(bench.archive.collect(&bench.client, all()).send().await.unwrap().archived, 7);
    let any = || RunFilter::new(Window::all());
    let reruns = |id: RunId| any().own_metadata(RERUN_KEY, &id.to_string());
    for (filter, count) in [
        (any().parent(ids[0]), 1),
        (any().parent(ids[1]), 1),
        (any().parent(ids[1]).status(RunStatus::Failed), 0),
        (any().parent(original), 0),
        (reruns(original), 2),
        (reruns(original).workflow("count"), 2),
        (reruns(ids[0]), 0),
    ] {
        let runs = listed(bench.archive.runs(filter.clone()).items()).await;
        assert_eq!(runs.len(), count, "{filter:?}");
        assert_eq!(runs, listed(bench.client.runs(filter).items()).await);
    }
    worker.shutdown().await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn only_the_row_groups_of_the_matching_times_are_read() {
    const ROWS: usize = 20_000;
    let bench = Bench::new().await;
    bench.start([0]).await;
    bench.archive.collect(&bench.client, all()).send().await.unwrap();
    let state = bench.archive.log().state().await.unwrap();
    let old = state.files().next().unwrap();
    let row = FileReader::open(&bench.store, old).await.unwrap().rows(0, Column::ALL).await.unwrap().remove(0);
    let newest = row.int(Column::CreatedAt).unwrap();
    let rows = (0..ROWS).map(|at| {
        let mut row = row.clone();
        row.set(Column::RunId, Cell::Text(uuid::Uuid::new_v4().to_string()));
        row.set(Column::CreatedAt, Cell::Int(newest - 1000 * i64::try_from(at).unwrap()));
        row
    });
    let file = write_file(&bench.archive, old.partition.clone(), Arc::new(rows.collect())).await.unwrap();
    let remove = vec![old.path.clone()];
    let commit = Commit { version: VERSION, committed_at: Utc::now(), source: None, add: vec![file], remove };
    assert!(bench.archive.log().commit(&state, &commit).await.unwrap());

    let read = async |window: Window| {
        let archive = bench.other();
        archive.files(Window::all()).await.unwrap();
        let before = archive.bytes_read();
        let count = archive.runs(window).count().await.unwrap();
        (count, archive.bytes_read() - before)
    };
    let (count, all) = read(Window::all()).await;
    assert_eq!(count, ROWS as u64);
    let (count, few) = read(Window::since(DateTime::from_timestamp_micros(newest - 9000).unwrap())).await;
    assert_eq!(count, 10);
    assert!(2 * few < all, "{few} of {all} bytes");
    bench.end().await;
}
