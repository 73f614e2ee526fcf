//! One view over the engine and the archive.

use super::*;
use crate::embedded::Fault;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_hundred_days_of_runs_are_in_one_view() {
    let bench = Bench::new().await;
    let history = History::new(&bench.client, &bench.archive);
    let rule = Rule::older_than(2 * DAY).status(RunStatus::Failed);
    let retention = Retention::older_than(20 * DAY).workflow("other", rule);
    let mut collector = bench.archive.collect(&bench.client, retention).every(12 * HOUR).start().unwrap();
    let mut all: BTreeSet<RunId> = BTreeSet::new();
    for day in 0..100 {
        all.extend(bench.start([day * 2, day * 2 + 1]).await);
        sleep(DAY).await;
        if day % 9 == 0 {
            let seen = listed(history.runs(Window::all()).items()).await;
            assert_eq!(seen.into_keys().collect::<BTreeSet<_>>(), all, "day {day}");
        }
    }
    let round = collector.next_result().await.unwrap().unwrap();
    assert_eq!((round.dropped, round.active), (0, 0), "{round}");
    collector.shutdown().await;
    let (live, archived) = (bench.live().await, bench.archived().await);
    assert!((60..=64).contains(&live.len()), "the engine keeps 30 days: {}", live.len());
    assert!((158..=162).contains(&archived.len()), "the archive has what is older than 20 days: {}", archived.len());
    assert!(archived.keys().any(|id| live.contains_key(id)) && archived.keys().any(|id| !live.contains_key(id)));

    let failed = RunFilter::new(Window::all()).status(RunStatus::Failed);
    let seen = listed(history.runs(failed.clone()).items()).await;
    assert_eq!(seen.len(), 100);
    // A run that was archived as failed, and that has been replayed since, has the status that it has in the engine.
    let newest = *archived
        .values()
        .filter(|run| run.status == RunStatus::Failed)
        .max_by_key(|run| run.created_at)
        .map(|run| &run.id)
        .unwrap();
    bench.client.run_handle(newest).replay().send().await.unwrap().run.outcome().await.unwrap();
    sleep(Duration::from_secs(60)).await;
    let seen = listed(history.runs(failed).items()).await;
    assert_eq!((seen.len(), seen.contains_key(&newest)), (99, false));
    let first = *archived.keys().find(|id| !live.contains_key(id)).unwrap();
    assert_eq!(history.details(first).await.unwrap().id, first);
    assert_eq!(history.details(newest).await.unwrap().status, RunStatus::Completed);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_workflow_that_the_server_does_not_have_is_looked_up_in_the_archive() {
    let bench = Bench::new().await;
    bench.start([0]).await;
    let any_age = || Rule::older_than(Duration::ZERO);
    let retention = Retention::never().workflow("count", any_age()).workflow("unknown", any_age());
    assert_eq!(bench.archive.collect(&bench.client, retention).send().await.unwrap().archived, 1);
    let other = Engine::start().await.unwrap();
    let history = History::new(&other.client(), &bench.archive);
    let runs = listed(history.runs(RunFilter::new(Window::all()).workflow("count")).items()).await;
    assert_eq!(runs, bench.live().await);
    other.shutdown().await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_view_has_pages_of_any_size_and_runs_of_the_same_time() {
    let bench = Bench::new().await;
    let mut expected = BTreeSet::new();
    for round in 0..4 {
        // The runs of one call have the same creation time.
        let runs = bench.client.run_many(&bench.task, (0..5).map(|n| Input { n })).start().await.unwrap();
        for run in runs {
            let run = run.unwrap();
            run.outcome().await.unwrap();
            expected.insert(run.id());
        }
        if round != 2 {
            bench.archive.collect(&bench.client, all()).send().await.unwrap();
        }
        sleep(HOUR).await;
    }
    let history = History::new(&bench.client, &bench.archive);
    for page in [1, 2, 3, 5, 7, 20, 21] {
        let seen = listed(history.paged(page).runs(Window::all()).items()).await;
        assert_eq!(seen.into_keys().collect::<BTreeSet<_>>(), expected, "pages of {page}");
        let failed = RunFilter::new(Window::all()).status(RunStatus::Failed);
        assert_eq!(listed(history.paged(page).runs(failed).items()).await.len(), 8, "pages of {page}");
    }
    // After the engine's retention, the archive has all that were collected.
    bench.archive.collect(&bench.client, all()).send().await.unwrap();
    sleep(32 * DAY).await;
    assert!(bench.live().await.is_empty());
    for page in [1, 3, 200] {
        let seen = listed(history.paged(page).runs(Window::all()).items()).await;
        assert_eq!(seen.into_keys().collect::<BTreeSet<_>>(), expected, "pages of {page}");
    }
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_missed_in_the_view_while_runs_are_archived_and_dropped() {
    let bench = Bench::new().await;
    let mut expected = BTreeSet::new();
    for day in 0..20 {
        expected.extend(bench.start([day * 2, day * 2 + 2]).await);
        sleep(DAY).await;
    }
    let history = History::new(&bench.client, &bench.archive).paged(2);
    let mut items = history.runs(Window::all()).items();
    let mut seen = BTreeSet::new();
    let mut count = 0;
    while let Some(run) = items.next().await {
        count += 1;
        seen.insert(run.unwrap().id);
        // Between two items, runs are archived and dropped.
        if count % 3 == 0 {
            bench.other().collect(&bench.client, all()).send().await.unwrap();
            sleep(DAY).await;
        }
    }
    assert_eq!((count, seen), (expected.len(), expected));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn no_details_are_missed_or_duplicated_in_the_view_while_runs_are_archived_and_dropped() {
    // With large pages, runs are dropped between the list and the fetch of their details.
    for page in [2, 200] {
        let bench = Bench::new().await;
        let mut expected = BTreeMap::new();
        for day in 0..20 {
            for id in bench.start([day * 2, day * 2 + 1]).await {
                expected.insert(id, as_json(&bench.client.run_handle(id).details().await.unwrap()));
            }
            sleep(DAY).await;
        }
        let history = History::new(&bench.client, &bench.archive).paged(page);
        let mut runs = history.runs(Window::all()).details();
        let (mut seen, mut created_at, mut dropped) = (BTreeSet::new(), Vec::new(), 0);
        while let Some(run) = runs.next().await {
            let run = run.unwrap();
            assert_eq!(as_json(&run), expected[&run.id], "pages of {page}");
            created_at.push(run.created_at);
            assert!(seen.insert(run.id), "each run once");
            dropped += usize::from(!bench.live().await.contains_key(&run.id));
            // Between two items, runs are archived and dropped.
            if seen.len() % 3 == 0 {
                bench.other().collect(&bench.client, all()).send().await.unwrap();
                sleep(DAY).await;
            }
        }
        assert!(seen.iter().eq(expected.keys()), "pages of {page}: {} of {}", seen.len(), expected.len());
        assert!(created_at.is_sorted_by(|one, other| one >= other), "newest first");
        assert!((1..40).contains(&dropped), "pages of {page}: {dropped}");
        bench.end().await;
    }
}

/// The fetches that have begun continue while the reader does something else for longer than their timeouts.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_of_details_gets_them() {
    let bench = Bench::new().await;
    let ids = bench.start(0..12).await;
    // The first one is fetched at once, and the others need some tries.
    let (faults, call) = (bench.engine.faults(), "GET /api/v1/stable/workflow-runs/{run}");
    faults.inject(call, Fault::Delay(Duration::ZERO)).unwrap();
    faults.inject_times(call, Fault::RejectRest(503), 14).unwrap();
    let query = History::new(&bench.client, &bench.archive).runs(Window::all()).timeout(3 * SECOND);
    let (mut runs, mut found) = (query.details(), BTreeSet::new());
    while let Some(run) = runs.next().await {
        found.insert(run.unwrap().id);
        sleep(100 * SECOND).await;
    }
    assert_eq!((found, faults.planned()), (ids.into_iter().collect(), 0));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn log_lines_of_the_view_are_limited_as_in_the_engine() {
    let bench = Bench::new().await;
    let id = bench.start([0]).await[0];
    let (history, too_many) = (History::new(&bench.client, &bench.archive), RunDetails::MAX_LOGS + 1);
    bench.archive.collect(&bench.client, all()).send().await.unwrap();
    // Both have the run, and then only the archive.
    for _ in 0..2 {
        let error = history.details(id).logs(too_many).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let mut runs = history.runs(Window::all()).logs(too_many).details();
        assert_eq!(runs.next().await.unwrap().unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(runs.next().await.is_none());
        sleep(40 * DAY).await;
    }
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_unarchived_between_list_and_fetch_is_one_error() {
    let bench = Bench::new().await;
    let mut ids = Vec::new();
    for day in 0..30 {
        ids.extend(bench.start([2 * day]).await);
        sleep(DAY).await;
    }
    let history = History::new(&bench.client, &bench.archive);
    let mut runs = history.runs(Window::all()).details();
    assert_eq!(runs.next().await.unwrap().unwrap().id, ids[29]);
    sleep(10 * DAY).await;
    let (mut found, mut errors) = (1, Vec::new());
    while let Some(run) = runs.next().await {
        match run {
            Ok(_) => found += 1,
            Err(error) => errors.push(error.kind()),
        }
    }
    assert_eq!(found + errors.len(), 30);
    assert!(!errors.is_empty() && errors.iter().all(|kind| *kind == ErrorKind::RunNotFound), "{errors:?}");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_counts_of_the_view_match_its_runs_during_a_collection() {
    let bench = Bench::new().await;
    let slow = slow("slow");
    let worker = bench.client.worker("other").register(&slow).build().unwrap().start().await.unwrap();
    let history = History::new(&bench.client, &bench.archive).paged(3);
    let collector = bench.archive.collect(&bench.client, Retention::older_than(20 * DAY)).every(DAY).start().unwrap();
    let none = history.runs(Window::all()).counts_by_status().await.unwrap();
    assert_eq!((none.total(), none.get(&RunStatus::TimedOut)), (0, Some(0)));
    for day in 0..36 {
        bench.start([2 * day, 2 * day + 1]).await;
        bench.client.run(&slow, &json!({})).outcome().await.unwrap();
        sleep(DAY).await;
        if day % 7 == 0 {
            let counts = history.runs(Window::all()).counts_by_status().await.unwrap();
            for status in [RunStatus::Completed, RunStatus::Failed, RunStatus::TimedOut] {
                assert_eq!(counts.get(&status), Some(u64::from(day + 1)), "{status} on day {day}");
            }
        }
    }
    let (live, archived) = (bench.live().await.len(), bench.archived().await.len());
    assert!(live < 108 && archived < 108 && live + archived > 108, "{live} and {archived}");
    let failed = history.runs(RunFilter::new(Window::all()).status(RunStatus::Failed));
    let counts = failed.counts_by_status().await.unwrap();
    assert_eq!((counts.total(), counts.get(&RunStatus::Failed), failed.count().await.unwrap()), (36, Some(36), 36));
    collector.shutdown().await;
    worker.shutdown().await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_details_of_the_view_have_logs_if_they_are_requested() {
    let bench = Bench::new().await;
    let logging = Task::new("logging", async |_: Value, context: Context| {
        context.log("one");
        context.log("two");
        Ok(())
    });
    let worker = bench.client.worker("other").register(&logging).build().unwrap().start().await.unwrap();
    // The engine drops the first one.
    bench.client.run(&logging, &json!({})).outcome().await.unwrap();
    sleep(20 * DAY).await;
    bench.archive.collect(&bench.client, all()).logs(10).send().await.unwrap();
    sleep(20 * DAY).await;
    bench.client.run(&logging, &json!({})).outcome().await.unwrap();
    sleep(HOUR).await;
    let history = History::new(&bench.client, &bench.archive);
    for (count, expected) in [(0, vec![]), (1, vec!["one"]), (5, vec!["one", "two"])] {
        let mut runs = history.runs(Window::all()).logs(count).details();
        for _ in 0..2 {
            let details = runs.next().await.unwrap().unwrap();
            assert_eq!(details.logs.iter().map(|line| line.message.as_str()).collect::<Vec<_>>(), expected);
        }
        assert!(runs.next().await.is_none());
    }
    worker.shutdown().await;
    bench.end().await;
}
