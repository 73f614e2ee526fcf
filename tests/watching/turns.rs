//! Watches and waits take turns: whoever follows thousands of runs does not delay those who follow one.

use futures_util::StreamExt as _;

use super::*;

/// A client, and handles to runs that have ended before it was created: each must be fetched, with three requests.
async fn ended_runs(setup: &Setup, count: usize) -> (Client, Vec<RunHandle<()>>) {
    let worker = setup.worker(1).await;
    worker.shutdown().await;
    let runs = setup.runs(count).await;
    let report = setup.hatchet.cancel_many(runs.iter().map(RunHandle::id)).send().await.unwrap();
    assert!(report.into_iter().all(|run| run.is_applied()));
    let other = setup.engine.client_with(Config::builder().watch_request_rate(200)).unwrap();
    let runs = runs.iter().map(|run| other.run_handle(run.id()).typed()).collect();
    (other, runs)
}

/// Waits for one second, and returns how long the future takes after that.
async fn time_of(future: impl Future<Output = bool>) -> Duration {
    sleep(SECOND).await;
    let start = Instant::now();
    assert!(future.await);
    start.elapsed()
}

/// Each stream needs 30,000 requests. Requests of at most 16 runs of each stream precede a watch or a wait, at 200 and 1000 per second.
#[tokio::test(start_paused = true)]
async fn streams_of_ten_thousand_runs_starve_neither_a_watch_nor_a_wait() {
    let setup = Setup::new(200).await;
    let (client, runs) = ended_runs(&setup, 10_000).await;
    let (one, many) = runs.split_first().unwrap();
    let (changes, outcomes) = (client.watch_many(many), client.outcomes(many));
    let streams = async { tokio::join!(changes.count(), outcomes.count()) };
    let watch = async { one.watch().next().await.is_some() };
    let wait = async { one.outcome().await.is_ok() };
    let delays = tokio::select! {
        counts = streams => unreachable!("they need 150 seconds: {counts:?}"),
        delays = async { tokio::join!(time_of(watch), time_of(wait)) } => delays,
    };
    assert_eq!(delays, (Duration::from_millis(250), Duration::from_millis(49)));
}

/// A server has restarted, and all of its users reconnect. Before each fetch of the new run, at most 16 other runs are fetched.
#[tokio::test(start_paused = true)]
async fn many_watches_of_old_runs_do_not_delay_that_of_a_new_one() {
    let setup = Setup::new(200).await;
    let (client, runs) = ended_runs(&setup, 2000).await;
    let worker = setup.worker(1).await;
    let old = futures_util::future::join_all(runs.iter().map(|run| run.watch().count()));
    let new = async {
        sleep(SECOND).await;
        let (start, watch) = (Instant::now(), client.run(&setup.short, &()).watch());
        let states: Vec<_> = watch.map(|change| change.unwrap().to_string()).collect().await;
        (states, start.elapsed())
    };
    let (states, elapsed) = tokio::select! {
        counts = old => unreachable!("they need 30 seconds: {}", counts.len()),
        new = new => new,
    };
    assert_eq!(states, ["QUEUED (attempt 1)", "RUNNING (attempt 1)", "COMPLETED (attempt 1)"]);
    assert!(elapsed < 2 * SECOND, "{elapsed:?}");
    worker.shutdown().await;
}

/// Each of the others is checked at intervals that grow to two seconds, which alone exceeds the rate.
#[tokio::test(start_paused = true)]
async fn many_watches_of_foreign_runs_do_not_delay_that_of_a_new_one() {
    let setup = Setup::new(200).await;
    setup.worker(1).await.shutdown().await;
    let foreign = foreign_runs(&setup, 2000).await;
    let new = Task::new("new", async |(): (), _: Context| {
        sleep(SECOND / 5).await;
        Ok(())
    });
    let worker = setup.hatchet.worker("new").register(&new).build().unwrap().start().await.unwrap();
    let others = futures_util::future::join_all(foreign.iter().map(|run| run.watch().count()));
    let watch = async {
        sleep(3 * SECOND).await;
        let start = Instant::now();
        let changes = setup.hatchet.run(&new, &()).watch().count().await;
        (changes, start.elapsed())
    };
    let (changes, elapsed) = tokio::select! {
        counts = others => unreachable!("they wait for a worker: {}", counts.len()),
        new = watch => new,
    };
    assert_eq!(changes, 3);
    assert!(elapsed < 2 * SECOND, "{elapsed:?}");
    worker.shutdown().await;
}

/// A watch has one fetch at a time, however often its run changes. So another watch waits for one fetch and its own three requests.
#[tokio::test(start_paused = true)]
async fn a_run_that_changes_all_the_time_does_not_starve_another_watch() {
    let setup = Setup::new(10).await;
    let busy = Task::new("busy", async |(): (), _: Context| -> Result<(), TaskError> {
        sleep(Duration::from_millis(10)).await;
        Err("again".into())
    });
    let busy = busy.retries(500);
    let worker = setup.hatchet.worker("busy").register(&busy).build().unwrap().start().await.unwrap();
    let (client, runs) = ended_runs(&setup, 1).await;
    drop(client);
    let other = setup.engine.client_with(Config::builder().watch_request_rate(10)).unwrap();
    let run = setup.hatchet.run(&busy, &()).start().await.unwrap();
    let stream = other.run_handle(run.id()).watch().count();
    let watch = async { other.run_handle(runs[0].id()).watch().next().await.is_some() };
    let delay = tokio::select! {
        count = stream => unreachable!("the run has ended after {count} changes"),
        delay = async {
            sleep(2 * SECOND).await;
            time_of(watch).await
        } => delay,
    };
    assert_eq!(delay, Duration::from_millis(400));
    worker.shutdown_with_timeout(Duration::ZERO).await;
}
