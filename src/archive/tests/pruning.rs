//! What a query does not read.

use std::sync::Arc;

use super::super::decode::FileReader;
use super::super::schema::Cell;
use super::super::writing::write_file;
use super::files::file_reads;
use super::*;

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
    let day = RunFilter::new(Window::between(at("2026-11-02T00:00:00Z"), at("2026-11-02T23:59:59Z")));
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
