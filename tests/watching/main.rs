//! How many calls watches make: it must not grow with the number of runs that wait.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may panic")]

mod tags;
mod turns;

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use hatchet::embedded::{Engine, Fault, Quirks};
use hatchet::raw::pb::v1::TriggerWorkflowRequest;
use hatchet::raw::pb::workflow_service_client::WorkflowServiceClient;
use hatchet::worker::RunningWorker;
use hatchet::workflow::Condition;
use hatchet::{Client, Config, Context, ErrorKind, RunHandle, RunStatus, Task, TaskError, Workflow};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);
const PLANNED: usize = 10_000_000;
/// The calls of watches.
const CALLS: [&str; 4] = [
    "GetRunDetails",
    "GET /api/v1/stable/tasks/{task}/task-events",
    "GET /api/v1/stable/tenants/{tenant}/workflow-runs",
    "GET /api/v1/stable/workflow-runs/{run}",
];

/// An engine that counts the calls of watches.
struct Setup {
    engine: Engine,
    hatchet: Client,
    short: Task<(), ()>,
}

impl Setup {
    async fn new(rate: u32) -> Self {
        Self::with_quirks(rate, Quirks::none()).await
    }

    async fn with_quirks(rate: u32, quirks: Quirks) -> Self {
        let engine = Engine::builder().quirks(quirks).seed(7).start().await.unwrap();
        let hatchet = engine.client_with(Config::builder().watch_request_rate(rate)).unwrap();
        let short = Task::new("short", async |(): (), _: Context| {
            sleep(Duration::from_millis(200)).await;
            Ok(())
        });
        Self { engine, hatchet, short }
    }

    async fn worker(&self, slots: u32) -> RunningWorker {
        let worker = self.engine.client().worker("worker").slots(slots).register(&self.short);
        worker.build().unwrap().start().await.unwrap()
    }

    async fn runs(&self, count: usize) -> Vec<RunHandle<()>> {
        let runs = self.hatchet.run_many(&self.short, vec![(); count]).start().await.unwrap();
        runs.into_iter().map(Result::unwrap).collect()
    }

    fn count_calls(&self) {
        self.engine.faults().clear();
        for call in CALLS {
            self.engine.faults().inject_times(call, Fault::Delay(Duration::ZERO), PLANNED).unwrap();
        }
    }

    fn calls(&self) -> usize {
        PLANNED * CALLS.len() - self.engine.faults().planned()
    }
}

/// Also with the defects of the real engine.
#[tokio::test(start_paused = true)]
async fn a_watch_of_a_short_run_makes_few_calls() {
    for quirks in [Quirks::none(), Quirks::all()] {
        let setup = Setup::with_quirks(200, quirks).await;
        let worker = setup.worker(10).await;
        // The first run of a workflow is confirmed by a call.
        setup.hatchet.run(&setup.short, &()).result().await.unwrap();
        // The three requests for the details.
        for _ in 0..50 {
            setup.count_calls();
            let watch = setup.hatchet.run(&setup.short, &()).watch();
            let states: Vec<_> = watch.map(|change| change.unwrap().to_string()).collect().await;
            assert_eq!(states, ["QUEUED (attempt 1)", "RUNNING (attempt 1)", "COMPLETED (attempt 1)"]);
            assert_eq!(setup.calls(), 3);
        }
        worker.shutdown().await;
    }
}

/// The second watch begins after a list that has shown its run already.
#[tokio::test(start_paused = true)]
async fn each_watch_gets_the_state_that_its_run_has_had_for_a_while() {
    let setup = Setup::new(200).await;
    let endless: Task<(), ()> = Task::new("endless", async |(): (), _: Context| std::future::pending().await);
    let worker = setup.hatchet.worker("worker").register(&endless).build().unwrap().start().await.unwrap();
    let runs = setup.hatchet.run_many(&endless, vec![(); 3]).start().await.unwrap();
    let start = Instant::now();
    for run in runs {
        let mut watch = run.unwrap().watch();
        while !watch.next().await.unwrap().unwrap().has_status(&RunStatus::Running) {}
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    worker.shutdown_with_timeout(Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn many_watches_of_short_runs_share_their_lists() {
    let setup = Setup::new(1000).await;
    let worker = setup.worker(20).await;
    setup.count_calls();
    let runs = setup.runs(1000).await;
    let mut watch = setup.hatchet.watch_many(&runs);
    let mut changes = 0;
    while let Some(change) = watch.next().await {
        change.unwrap();
        changes += 1;
    }
    assert_eq!(changes, 3000);
    // Three for each run, and a list now and then.
    assert!(setup.calls() < 3500, "{}", setup.calls());
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn waiting_runs_cost_the_same_whatever_their_number() {
    let mut calls = Vec::new();
    for count in [10, 1000] {
        let setup = Setup::new(200).await;
        setup.worker(1).await.shutdown().await;
        let runs = setup.runs(count).await;
        setup.count_calls();
        let mut watch = setup.hatchet.watch_many(&runs);
        for _ in 0..count {
            assert!(watch.next().await.unwrap().unwrap().has_status(&RunStatus::Queued));
        }
        let first = setup.calls();
        assert!(tokio::time::timeout(60 * SECOND, watch.next()).await.is_err());
        calls.push((first, setup.calls() - first));
    }
    assert!(calls[1].0 <= calls[0].0 + 1, "one list, of which a full page is followed by another: {calls:?}");
    assert!(calls[1].1 <= calls[0].1 + 10, "{calls:?}");
    assert!(calls[0].1 < 45, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn the_rate_of_requests_is_bounded() {
    let setup = Setup::new(50).await;
    let worker = setup.worker(100).await;
    let runs = setup.runs(100).await;
    for run in &runs {
        run.result().await.unwrap();
    }
    // Another client, so that each run must be fetched: 300 requests.
    let other = setup.engine.client_with(Config::builder().watch_request_rate(50)).unwrap();
    setup.count_calls();
    let start = Instant::now();
    let handles: Vec<_> = runs.iter().map(|run| other.run_handle(run.id())).collect();
    let changes: Vec<_> = other.watch_many(&handles).collect().await;
    assert_eq!((changes.len(), setup.calls()), (300, 300));
    assert_eq!(start.elapsed(), 5 * SECOND, "one second's requests at once, and then 50 per second");
    worker.shutdown().await;
}

/// As users do: the public streams are streams of `tokio_stream`, too.
#[tokio::test(start_paused = true)]
async fn streams_combine_with_those_of_tokio_stream() {
    use tokio_stream::{StreamExt, StreamMap};

    let setup = Setup::new(200).await;
    let worker = setup.worker(1).await;
    let (first, second) = (setup.runs(1).await.remove(0), setup.runs(1).await.remove(0));
    let mut watches = StreamMap::new();
    watches.insert("first", first.watch());
    watches.insert("second", second.watch());
    let changes: Vec<_> = StreamExt::collect(watches).await;
    let of = |name| -> Vec<_> {
        let changes = changes.iter().filter(|(key, _)| *key == name);
        changes.map(|(_, change)| change.as_ref().unwrap().to_string()).collect()
    };
    for name in ["first", "second"] {
        assert_eq!(of(name), ["QUEUED (attempt 1)", "RUNNING (attempt 1)", "COMPLETED (attempt 1)"]);
    }
    // One stream of changes and chunks.
    let third = setup.runs(1).await.remove(0);
    let changes = StreamExt::map(third.watch(), |change| change.unwrap().to_string());
    let chunks = StreamExt::map(third.chunks(), |_| "a chunk".to_owned());
    let merged = StreamExt::merge(changes, chunks).timeout(SECOND);
    let merged: Vec<_> = StreamExt::collect(merged).await;
    assert_eq!(merged.iter().filter(|item| item.is_ok()).count(), 3, "{merged:?}");
    worker.shutdown().await;
}

/// Starts runs as another SDK does: without a tag of a client of this crate.
async fn foreign_runs(setup: &Setup, count: usize) -> Vec<RunHandle<()>> {
    setup.worker(1).await.shutdown().await;
    let mut workflows = WorkflowServiceClient::new(setup.hatchet.raw_channel());
    let mut runs = Vec::new();
    for _ in 0..count {
        let additional_metadata = Some(r#"{"tenant":"acme"}"#.into());
        let request = TriggerWorkflowRequest {
            name: "short".into(),
            input: "{}".into(),
            additional_metadata,
            ..Default::default()
        };
        let run = workflows.trigger_workflow(request).await.unwrap().into_inner().workflow_run_id;
        runs.push(setup.hatchet.run_handle(run.parse().unwrap()).typed());
    }
    runs
}

/// Runs of other SDKs share the list of a tag, if it is watched.
#[tokio::test(start_paused = true)]
async fn waiting_runs_of_other_sdks_share_the_list_of_a_watched_tag() {
    let setup = Setup::new(200).await;
    let runs = foreign_runs(&setup, 20).await;
    let mut tenant = setup.hatchet.watch_matching("tenant", "acme");
    assert!(tenant.next().await.unwrap().unwrap().has_status(&RunStatus::Queued));
    setup.count_calls();
    let mut watch = setup.hatchet.watch_many(&runs);
    for _ in 0..20 {
        assert!(watch.next().await.unwrap().unwrap().has_status(&RunStatus::Queued));
    }
    assert!(tokio::time::timeout(60 * SECOND, watch.next()).await.is_err());
    assert!(setup.calls() < 120, "{}", setup.calls());
    let worker = setup.worker(20).await;
    let states: Vec<_> = watch.map(|change| change.unwrap().to_string()).collect().await;
    assert_eq!(states.len(), 40);
    worker.shutdown().await;
}

/// Otherwise, they share the list of their workflow after a few seconds.
#[tokio::test(start_paused = true)]
async fn waiting_runs_of_other_sdks_share_the_list_of_their_workflow() {
    let mut calls = Vec::new();
    for count in [1, 20, 200] {
        let setup = Setup::new(1000).await;
        let runs = foreign_runs(&setup, count).await;
        let mut watch = setup.hatchet.watch_many(&runs);
        for _ in 0..count {
            assert!(watch.next().await.unwrap().unwrap().has_status(&RunStatus::Queued));
        }
        assert!(tokio::time::timeout(10 * SECOND, watch.next()).await.is_err());
        setup.count_calls();
        assert!(tokio::time::timeout(60 * SECOND, watch.next()).await.is_err());
        calls.push(setup.calls());
        let worker = setup.worker(u32::try_from(count).unwrap()).await;
        let states: Vec<_> = watch.map(|change| change.unwrap().to_string()).collect().await;
        assert_eq!(states.len(), 2 * count, "{states:?}");
        assert_eq!(states.iter().filter(|state| state.starts_with("COMPLETED")).count(), count);
        worker.shutdown().await;
    }
    // A list every two seconds.
    assert!(calls.iter().all(|count| *count == calls[0] && *count <= 31), "{calls:?}");
}

/// The second task waits for a quarter of an hour. Until then it does not exist, so that no list has a task of the run.
#[tokio::test(start_paused = true)]
async fn runs_that_wait_between_two_tasks_leave_most_requests_to_others() {
    const COUNT: usize = 500;
    let setup = Setup::new(200).await;
    let first = Task::new("first", async |(): (), _: Context| Ok(()));
    let second = Task::new("second", async |(): (), _: Context| Ok(())).wait_for(Condition::sleep(900 * SECOND));
    let workflow = Workflow::<()>::new("waiting").task(&first).task_after(&second, &first);
    let worker = setup.engine.client().worker("worker").slots(1000).register(&workflow).register(&setup.short);
    let worker = worker.build().unwrap().start().await.unwrap();
    let runs = setup.hatchet.run_many(&workflow, vec![(); COUNT]).start().await.unwrap();
    let runs: Vec<_> = runs.into_iter().map(Result::unwrap).collect();
    let mut watches = setup.hatchet.watch_many(&runs);
    let (mut changes, mut calls, start) = (HashMap::new(), Vec::new(), Instant::now());
    let mut read = async |until: Duration| {
        let deadline = start + until;
        while let Ok(Some(change)) = tokio::time::timeout_at(deadline, watches.next()).await {
            let change = change.unwrap();
            changes.entry(change.run_id()).or_insert_with(Vec::new).push((change.to_string(), start.elapsed()));
        }
    };
    read(120 * SECOND).await;
    for minute in 3..6 {
        setup.count_calls();
        read(60 * minute * SECOND).await;
        calls.push(setup.calls());
    }
    // A tenth of the requests per second, and the lists.
    assert!(calls.iter().all(|calls| (100..=1300).contains(calls)), "{calls:?}");
    // Another watch does not wait for them.
    let began = Instant::now();
    let other = setup.hatchet.run(&setup.short, &()).watch();
    let states: Vec<_> = other.map(|change| change.unwrap().to_string()).collect().await;
    assert_eq!(states.len(), 3);
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    read(1000 * SECOND).await;
    assert_eq!(changes.len(), COUNT);
    for changes in changes.values() {
        let texts: Vec<_> = changes.iter().map(|(text, _)| text.as_str()).collect();
        let of_task =
            |task: &str| ["QUEUED", "RUNNING", "COMPLETED"].map(|status| format!("{task}: {status} (attempt 1)"));
        let [first, second] = ["first", "second"].map(of_task);
        let mut expected = vec!["QUEUED (attempt 1)".to_owned(), "RUNNING (attempt 1)".to_owned()];
        expected.extend(first.into_iter().chain(second));
        expected.push("COMPLETED (attempt 1)".to_owned());
        assert_eq!(texts, expected);
        // The end is announced, so that it is known soon although all runs end at the same time.
        let (_, ended) = changes.last().unwrap();
        assert!((900 * SECOND..920 * SECOND).contains(ended), "{ended:?}");
    }
    worker.shutdown().await;
}

/// The pauses before a lost stream is reopened grow to five seconds. The start of a run waits for less.
#[tokio::test(start_paused = true)]
async fn no_chunk_of_a_run_that_starts_right_after_an_outage_is_lost() {
    let setup = Setup::new(200).await;
    let talk: Task<(), ()> = Task::new("talk", async |(): (), context: Context| {
        for number in 0..5 {
            context.put(number.to_string()).await?;
        }
        Ok(())
    });
    let endless: Task<(), ()> = Task::new("endless", async |(): (), _: Context| std::future::pending().await);
    let worker = setup.engine.client().worker("worker").slots(10).register(&talk).register(&endless);
    let worker = worker.build().unwrap().start().await.unwrap();
    for outage in 20..26 {
        let mut watch = setup.hatchet.run(&endless, &()).watch();
        while !watch.next().await.unwrap().unwrap().has_status(&RunStatus::Running) {}
        setup.engine.faults().inject_always("SubscribeToWorkflowEvents", Fault::RejectGrpc(14)).unwrap();
        setup.engine.faults().interrupt("SubscribeToWorkflowEvents").unwrap();
        // The watch waits meanwhile.
        assert!(tokio::time::timeout(outage * SECOND, watch.next()).await.is_err());
        setup.engine.faults().clear();
        let items: Vec<_> =
            setup.hatchet.run(&talk, &()).chunks().map(|item| item.unwrap().to_string()).collect().await;
        assert_eq!(items, ["0", "1", "2", "3", "4"], "after {outage} s");
    }
    worker.shutdown_with_timeout(Duration::ZERO).await;
}

/// The first watch has taken the events of the run.
#[tokio::test(start_paused = true)]
async fn a_run_can_be_watched_again_right_after_its_end() {
    let setup = Setup::new(200).await;
    let worker = setup.worker(10).await;
    for waits_first in [true, false] {
        let run = setup.hatchet.run(&setup.short, &()).start().await.unwrap();
        if waits_first {
            run.outcome().await.unwrap();
        }
        for _ in 0..3 {
            let start = Instant::now();
            let states: Vec<_> = run.watch().map(|change| change.unwrap().to_string()).collect().await;
            assert_eq!(states, ["QUEUED (attempt 1)", "RUNNING (attempt 1)", "COMPLETED (attempt 1)"]);
            assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
        }
        let start = Instant::now();
        run.until(RunStatus::Running).await.unwrap();
        run.until(RunStatus::Completed).await.unwrap();
        assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    }
    worker.shutdown().await;
}

/// The engine ends the stream of events with each of the short runs.
#[tokio::test(start_paused = true)]
async fn a_watch_beside_short_runs_makes_few_lists() {
    let setup = Setup::new(200).await;
    let waiting: Task<(), ()> = Task::new("waiting", async |(): (), _: Context| Ok(()));
    setup.hatchet.worker("other").register(&waiting).build().unwrap().start().await.unwrap().shutdown().await;
    let worker = setup.worker(10).await;
    let mut watch = setup.hatchet.run(&waiting, &()).watch();
    assert!(watch.next().await.unwrap().unwrap().has_status(&RunStatus::Queued));
    let others = async {
        for _ in 0..150 {
            setup.hatchet.run(&setup.short, &()).result().await.unwrap();
        }
    };
    setup.engine.faults().inject_times(CALLS[2], Fault::Delay(Duration::ZERO), PLANNED).unwrap();
    let start = Instant::now();
    tokio::select! {
        change = watch.next() => panic!("{change:?}"),
        () = others => {}
    }
    assert!(start.elapsed() >= 30 * SECOND);
    // One each second, for the losses, and some for starts.
    let lists = PLANNED - setup.engine.faults().planned();
    assert!((30..=60).contains(&lists), "{lists} lists");
    worker.shutdown().await;
}

/// No list shows it: the run had ended before, and has ended again.
#[tokio::test(start_paused = true)]
async fn a_replay_during_a_loss_is_returned_by_a_watch_that_follows_replays() {
    let setup = Setup::new(200).await;
    let worker = setup.worker(10).await;
    let run = setup.hatchet.run(&setup.short, &()).start().await.unwrap();
    let mut watch = run.watch().follow_replays();
    let mut read = async |count: usize| {
        let mut texts = Vec::new();
        while texts.len() < count {
            let change = tokio::time::timeout(60 * SECOND, watch.next()).await.expect("it is not missed");
            texts.push(change.unwrap().unwrap().to_string());
        }
        texts
    };
    assert_eq!(read(3).await, ["QUEUED (attempt 1)", "RUNNING (attempt 1)", "COMPLETED (attempt 1)"]);
    let events = "SubscribeToWorkflowEvents";
    setup.engine.faults().inject_always(events, Fault::Delay(5 * SECOND)).unwrap();
    setup.engine.faults().interrupt(events).unwrap();
    let replay = async {
        // Another client replays it, and it ends.
        setup.engine.client().run_handle(run.id()).replay().send().await.unwrap();
        sleep(3 * SECOND).await;
        setup.engine.faults().clear();
    };
    let (texts, ()) = tokio::join!(read(3), replay);
    assert_eq!(texts, ["QUEUED (attempt 2)", "RUNNING (attempt 2)", "COMPLETED (attempt 2)"]);
    worker.shutdown().await;
}

/// The error of one run does not end the streams of several: they return it with the id of the run, and continue.
#[tokio::test(start_paused = true)]
async fn the_error_of_one_run_names_it_and_ends_only_its_changes() {
    let setup = Setup::new(200).await;
    let worker = setup.worker(10).await;
    let since = setup.engine.now() - chrono::TimeDelta::hours(1);
    let mut runs = Vec::new();
    for _ in 0..3 {
        let run = setup.hatchet.run(&setup.short, &()).metadata("tenant", "acme").start().await.unwrap();
        run.result().await.unwrap();
        runs.push(run.id());
    }
    let other = setup.engine.client();
    let handles: Vec<_> = runs.iter().map(|run| other.run_handle(*run)).collect();
    let many = other.watch_many(&handles).boxed();
    let tagged = other.watch_matching("tenant", "acme").since(since).boxed();
    for stream in [many, tagged] {
        // The first of the three fetches.
        setup.engine.faults().inject(CALLS[3], Fault::RejectRest(400)).unwrap();
        let items: Vec<_> = stream.take(7).collect().await;
        let errors: Vec<_> = items.iter().filter_map(|item| item.as_ref().err()).collect();
        let [error] = errors[..] else { panic!("expected one error, got {items:?}") };
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        let failed = error.run_id().unwrap();
        for run in &runs {
            let of_run = items.iter().filter_map(|item| item.as_ref().ok()).filter(|change| change.run_id() == *run);
            assert_eq!(of_run.count(), if *run == failed { 0 } else { 3 }, "{items:?}");
        }
    }
    worker.shutdown().await;
}

/// A cancelled run is fetched, because the stream does not say that it was cancelled.
#[tokio::test(start_paused = true)]
async fn waits_keep_to_their_own_request_rate() {
    const COUNT: usize = 100;
    let setup = Setup::new(200).await;
    setup.worker(1).await.shutdown().await;
    let runs = setup.runs(COUNT).await;
    for run in &runs {
        run.cancel().send().await.unwrap();
    }
    // Three requests for each run, of which those of one second are sent at once.
    for (rate, seconds) in [(100_000, 0), (100, 2), (10, 29)] {
        let other = setup.engine.client_with(Config::builder().wait_request_rate(rate)).unwrap();
        setup.count_calls();
        let start = Instant::now();
        let handles: Vec<_> = runs.iter().map(|run| other.run_handle(run.id())).collect();
        let outcomes = futures_util::future::join_all(handles.iter().map(RunHandle::outcome)).await;
        assert!(outcomes.iter().all(|outcome| outcome.as_ref().unwrap().status() == RunStatus::Cancelled));
        assert_eq!((start.elapsed(), setup.calls()), (seconds * SECOND, 3 * COUNT), "{rate} per second");
    }
}

/// A run whose workflow has many others is checked individually: that costs less than to list all of them.
#[tokio::test(start_paused = true)]
async fn a_waiting_run_in_a_long_queue_costs_one_request_each_time() {
    let setup = Setup::new(1000).await;
    setup.worker(1).await.shutdown().await;
    // Three pages.
    setup.runs(2500).await;
    let run = foreign_runs(&setup, 1).await.remove(0);
    let mut watch = run.watch();
    assert!(watch.next().await.unwrap().unwrap().has_status(&RunStatus::Queued));
    assert!(tokio::time::timeout(10 * SECOND, watch.next()).await.is_err());
    setup.count_calls();
    assert!(tokio::time::timeout(60 * SECOND, watch.next()).await.is_err());
    // A check every two seconds, and a page of the list each minute.
    assert!((30..=33).contains(&setup.calls()), "{}", setup.calls());
    let worker = setup.worker(3000).await;
    let start = Instant::now();
    let states: Vec<_> = watch.map(|change| change.unwrap().to_string()).collect().await;
    assert_eq!(states, ["RUNNING (attempt 1)", "COMPLETED (attempt 1)"]);
    assert!(start.elapsed() < 3 * SECOND, "{:?}", start.elapsed());
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_several_runs_watches_each_once_and_follows_their_replays() {
    let setup = Setup::new(200).await;
    let worker = setup.worker(2).await;
    let runs = setup.runs(2).await;
    let twice = [&runs[0], &runs[1], &runs[0]];
    assert_eq!(setup.hatchet.watch_many(twice).count().await, 6, "three changes of each run");
    let mut watch = setup.hatchet.watch_many(twice).follow_replays();
    let mut ended = async |count: usize| {
        let mut ended = Vec::new();
        while ended.len() < count {
            let change = watch.next().await.unwrap().unwrap();
            ended.extend(change.is_final().then(|| (change.run_id(), change.attempt())));
        }
        ended
    };
    assert_eq!(ended(2).await.len(), 2);
    runs[1].replay().send().await.unwrap();
    assert_eq!(ended(1).await, [(runs[1].id(), 2)]);
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_change_of_a_failed_dag_run_has_the_error_of_its_task() {
    let setup = Setup::new(200).await;
    let first = Task::new("first", async |(): (), _: Context| -> Result<(), TaskError> { Err("no stock".into()) });
    let flow: Workflow<()> = Workflow::new("flow").task(&first).task_after(&setup.short, ["first"]);
    let worker = setup.hatchet.worker("flows").register(&flow).build().unwrap().start().await.unwrap();
    let changes: Vec<_> = setup.hatchet.run(&flow, &()).watch().map(Result::unwrap).collect().await;
    assert_eq!(changes.last().and_then(hatchet::model::Change::error), Some("no stock"), "{changes:?}");
    worker.shutdown().await;
}
