//! When a collection commits what it has fetched.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
/// In requests per second. A run takes three.
const RATE: u32 = 1;

/// An engine with some runs that have succeeded.
async fn with_runs(count: u32) -> Bench {
    let bench = Bench::new().await;
    let inputs = (0..count).map(|n| Input { n: 2 * n });
    for run in bench.client.run_many(&bench.task, inputs).start().await.unwrap() {
        run.unwrap().outcome().await.unwrap();
    }
    sleep(MINUTE).await;
    bench
}

#[tokio::test(start_paused = true)]
async fn a_slow_collection_commits_every_few_minutes() {
    let bench = with_runs(300).await;
    let started = Instant::now();
    let mut batches = bench.archive.collect(&bench.client, all()).requests_per_second(RATE).batches();
    let (mut commits, mut runs) = (Vec::new(), 0);
    // Before the first commit, the fetched runs are the progress. Of those with three requests each, eight are in progress.
    assert!(tokio::time::timeout(Duration::from_secs(16 + 3 * 50), batches.next()).await.is_err());
    assert!((42..=50).contains(&batches.fetched()), "{}", batches.fetched());
    assert_eq!(batches.report().archived, 0);
    while let Some(batch) = batches.next().await.transpose().unwrap() {
        commits.push(started.elapsed());
        runs += batch.runs;
        // Another process sees them.
        assert_eq!(bench.other().runs(Window::all()).count().await.unwrap(), runs);
    }
    assert_eq!((runs, batches.report().archived, batches.fetched()), (300, 300, 300));
    // 16 requests at the start, of which the first is sent at once, one for each page of 200 runs, and three for each run. The first
    // runs are complete after eight times three requests. A commit follows five minutes later, when the eight fetches in progress are finished.
    let seconds: Vec<_> = commits.iter().map(Duration::as_secs).collect();
    assert_eq!(seconds, [15 + 1 + 3 * 108, 15 + 2 + 3 * 2 * 108, 15 + 2 + 3 * 300]);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_collector_commits_what_it_has_fetched_when_it_is_shut_down() {
    let bench = with_runs(100).await;
    let start = || bench.archive.collect(&bench.client, all()).requests_per_second(RATE).every(HOUR).start().unwrap();
    // While it looks for the first day, there is nothing to commit.
    let collector = start();
    sleep(Duration::from_secs(5)).await;
    collector.shutdown().await;
    assert_eq!(bench.archived().await.len(), 0);
    let collector = start();
    sleep(3 * MINUTE).await;
    assert_eq!(bench.archived().await.len(), 0);
    let stopped = Instant::now();
    collector.shutdown().await;
    assert_eq!(stopped.elapsed(), Duration::ZERO);
    let archived = bench.archived().await.len();
    assert!((40..60).contains(&archived), "{archived}");
    // The next one continues there. Without time, it is aborted.
    let collector = start();
    sleep(2 * MINUTE).await;
    collector.shutdown_with_timeout(Duration::ZERO).await;
    assert_eq!(bench.archived().await.len(), archived);
    let report = bench.archive.collect(&bench.client, all()).send().await.unwrap();
    assert_eq!((report.archived, report.unchanged), (100 - archived as u64, archived as u64), "{report}");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_commits_what_it_has_fetched_when_its_worker_shuts_down() {
    let bench = with_runs(100).await;
    let task = bench.archive.collect(&bench.client, all()).requests_per_second(RATE).task("archive-runs");
    let worker = bench.client.worker("archiver").register(&task).shutdown_grace_period(Duration::ZERO);
    let worker = worker.build().unwrap().start().await.unwrap();
    bench.client.run(&task, &()).start().await.unwrap();
    sleep(3 * MINUTE).await;
    assert_eq!(bench.archived().await.len(), 0);
    worker.shutdown().await;
    let archived = bench.archived().await.len();
    assert!((40..60).contains(&archived), "{archived}");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_collects_need_not_be_retried() {
    let bench = Bench::new().await;
    let task = || bench.archive.collect(&bench.client, all()).task("archive-runs");
    for task in [task(), task().retries(0), task().retries(1), task().backoff(2.0, MINUTE)] {
        drop(bench.client.worker("archiver").register(&task).build().unwrap());
    }
    bench.end().await;
}

/// The condition in the guide.
#[tokio::test(start_paused = true)]
async fn a_cancelled_task_commits_if_the_store_takes_less_than_its_grace_period() {
    for (grace, expected) in [(1, 0..1), (30, 40..60)] {
        let bench = with_runs(100).await;
        let task = bench.archive.collect(&bench.client, all()).requests_per_second(RATE).task("archive-runs");
        let worker = bench.client.worker("archiver").register(&task).shutdown_grace_period(Duration::ZERO);
        let worker = worker.cancel_grace_period(Duration::from_secs(grace));
        let worker = worker.build().unwrap().start().await.unwrap();
        bench.client.run(&task, &()).start().await.unwrap();
        sleep(3 * MINUTE).await;
        bench.store.crash().delay_by(Duration::from_millis(500));
        worker.shutdown().await;
        bench.store.crash().delay_by(Duration::ZERO);
        let archived = bench.archived().await.len();
        assert!(expected.contains(&archived), "{archived} in {grace} s");
        bench.end().await;
    }
}

/// What was fetched before an error is committed without an item, and is in the report.
#[tokio::test(start_paused = true)]
async fn runs_that_were_fetched_before_an_error_are_committed_and_reported() {
    let bench = with_runs(40).await;
    let collection = bench.archive.collect(&bench.client, all()).requests_per_second(RATE).concurrency(1);
    let mut batches = collection.batches();
    let fail = async {
        sleep(MINUTE + MINUTE / 2).await;
        for call in [FETCH, LIST] {
            bench.engine.faults().inject_for(call, Fault::RejectRest(503), HOUR).unwrap();
        }
    };
    let (first, ()) = tokio::join!(batches.next(), fail);
    let error = first.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(batches.next().await.is_none());
    let (report, archived) = (batches.report(), bench.archived().await.len() as u64);
    assert!((20..40).contains(&archived), "{archived}");
    assert_eq!((report.archived, report.fetch_errors, report.files), (archived, 5, 1), "{report}");
    bench.end().await;
}

/// When a run was archived is when it was fetched: of two collections, the one with the newer state must win.
#[tokio::test(start_paused = true)]
async fn a_run_is_archived_when_it_is_fetched() {
    let bench = with_runs(4).await;
    let started = bench.client.clock().now().timestamp_micros();
    bench.archive.collect(&bench.client, all()).requests_per_second(RATE).concurrency(1).send().await.unwrap();
    let criteria = super::super::filter::Criteria::all(bench.engine.now()).unwrap();
    let mut reading = bench.archive.reading(criteria, Column::ALL).await.unwrap();
    let mut times = Vec::new();
    while let Some(row) = reading.next().await.transpose().unwrap() {
        times.push((row.int(Column::ArchivedAt).unwrap() - started) / 1_000_000);
    }
    times.sort_unstable();
    // Seventeen requests before, and three for each run.
    assert_eq!(times, [19, 22, 25, 28]);
    bench.end().await;
}
