//! Archives over the embedded engine, on virtual time.

mod commits;
mod files;
mod manifest;
mod messages;
mod payloads;
mod progress;
mod property;
mod pruning;
mod versions;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::crash::Crash;
use super::encode::encode_columns;
use super::manifest::{Commit, File, Partition, VERSION};
use super::schema::{Column, Row};
use super::store::Store;
use super::*;
use crate::client::Client;
use crate::embedded::{Engine, Fault};
use crate::error::{ErrorKind, Result};
use crate::model::{Page, PageToken, RunDetails, RunFilter, RunId, RunStatus, RunSummary, Window};
use crate::worker::RunningWorker;
use crate::workflow::{Context, Task, TaskError, Workflow};

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);
/// A request for the details of a run.
const FETCH: &str = "GET /api/v1/stable/workflow-runs/{run}";
const LIST: &str = "GET /api/v1/stable/tenants/{tenant}/workflow-runs";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Input {
    n: u32,
}

/// Archives everything that has ended.
fn all() -> Retention {
    Retention::older_than(Duration::ZERO)
}

/// A task that times out.
fn slow(name: &str) -> Task<Value, ()> {
    Task::new(name, async |_: Value, _: Context| {
        sleep(DAY).await;
        Ok(())
    })
    .timeout(Duration::from_secs(5))
}

struct Bench {
    engine: Engine,
    client: Client,
    worker: RunningWorker,
    task: Task<Input, Vec<u32>>,
    store: Store,
    archive: Archive,
}

impl Bench {
    async fn new() -> Self {
        Self::keeping(30 * DAY).await
    }

    /// With an engine that keeps runs for this time.
    async fn keeping(retention: Duration) -> Self {
        let start = "2026-11-01T10:00:00Z".parse().unwrap();
        let engine = Engine::builder().start_time(start).retention(retention).start().await.unwrap();
        let client = engine.client();
        // Odd numbers fail at first: a replay succeeds.
        let task = Task::new("count", async |input: Input, context: Context| {
            if input.n % 2 == 1 && context.attempt() == 1 { Err(TaskError::new("odd")) } else { Ok(vec![input.n]) }
        });
        let worker = client.worker("worker").register(&task).build().unwrap().start().await.unwrap();
        let store = Store::open("memory://", Vec::new()).unwrap();
        let archive = Archive::over(store.clone());
        Self { engine, client, worker, task, store, archive }
    }

    /// Another process with the same archive.
    fn other(&self) -> Archive {
        Archive::over(self.store.clone())
    }

    fn crashing(&self, crash: &Crash) -> Archive {
        Archive::over(self.store.crashing(crash.clone()))
    }

    async fn start(&self, numbers: impl IntoIterator<Item = u32>) -> Vec<RunId> {
        let mut ids = Vec::new();
        for n in numbers {
            let run = self.client.run(&self.task, &Input { n }).metadata("n", n.to_string()).start().await.unwrap();
            run.outcome().await.unwrap();
            ids.push(run.id());
        }
        ids
    }

    /// The runs of the engine, as the list shows them.
    async fn live(&self) -> BTreeMap<RunId, RunSummary> {
        listed(self.client.runs(Window::all()).items()).await
    }

    async fn archived(&self) -> BTreeMap<RunId, RunSummary> {
        listed(self.other().runs(Window::all()).items()).await
    }

    async fn end(self) {
        self.worker.shutdown().await;
        self.engine.shutdown().await;
    }
}

/// The runs of a stream, which must be newest first and contain each run once.
async fn listed(runs: impl futures_core::Stream<Item = Result<RunSummary>>) -> BTreeMap<RunId, RunSummary> {
    let runs: Vec<RunSummary> =
        futures_util::StreamExt::collect::<Vec<_>>(runs).await.into_iter().map(Result::unwrap).collect();
    assert!(runs.is_sorted_by(|one, other| one.created_at >= other.created_at), "newest first");
    let count = runs.len();
    let runs: BTreeMap<_, _> = runs.into_iter().map(|run| (run.id, run)).collect();
    assert_eq!(runs.len(), count, "each run once");
    runs
}

/// All rows of the committed files.
async fn rows(archive: &Archive) -> u64 {
    archive.files(Window::all()).await.unwrap().iter().map(|file| file.rows).sum()
}

/// The JSON of the details, as other programs see it.
fn as_json(details: &RunDetails) -> Value {
    serde_json::to_value(details).unwrap()
}

#[tokio::test(start_paused = true)]
async fn archived_runs_equal_those_of_the_engine() {
    let bench = Bench::new().await;
    let client = &bench.client;
    let dag = {
        let first = Task::new("first", async |input: Input, _: Context| Ok(input));
        let second = Task::new("second", async |_: Input, _: Context| Ok("text".to_owned()));
        Workflow::new("dag").task(&first).task_after(&second, ["first"])
    };
    let slow = slow("slow-1.x").on_event("order:created");
    let worker = client.worker("other").register(&dag).register(&slow).build().unwrap().start().await.unwrap();
    bench.start(0..3).await;
    let dag_run = client.run(&dag, &Input { n: 7 }).metadata("s", "1").start().await.unwrap();
    dag_run.outcome().await.unwrap();
    let event = client.push("order:created", &json!({})).send().await.unwrap();
    let cancelled = client.run(&slow, &json!({})).start().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    cancelled.cancel().reason("not needed").by("ada").send().await.unwrap();
    sleep(Duration::from_secs(60)).await;

    let live = bench.live().await;
    let mut details = BTreeMap::new();
    for id in live.keys() {
        details.insert(*id, client.run_handle(*id).details().await.unwrap());
    }
    let report = bench.archive.collect(client, all()).send().await.unwrap();
    assert_eq!((report.archived, report.unchanged, report.active), (6, 0, 0), "{report}");
    assert_eq!(bench.archived().await, live);
    for (id, expected) in &details {
        let archived = bench.archive.details(*id).await.unwrap();
        assert_eq!(as_json(&archived), as_json(expected));
        assert_eq!(archived.elapsed(), expected.elapsed());
    }
    let mut streamed = bench.archive.runs(Window::all()).details();
    let mut count = 0;
    while let Some(run) = streamed.next().await.transpose().unwrap() {
        assert_eq!(as_json(&run), as_json(&details[&run.id]));
        count += 1;
    }
    assert_eq!(count, 6);

    // The same filters have the same results.
    let any = RunFilter::new(Window::all());
    for filter in [
        any.clone().workflow("count"),
        any.clone().workflow("slow-1.x").workflow("dag"),
        any.clone().status(RunStatus::Failed),
        any.clone().status(RunStatus::TimedOut).status(RunStatus::Cancelled),
        any.clone().metadata("n", "1"),
        any.clone().metadata("s", "1").metadata("n", "1"),
        any.clone().any_metadata("s", "1").any_metadata("n", "1"),
        any.clone().event(event.id()),
        RunFilter::new(Window::since(live[&cancelled.id()].created_at)),
        RunFilter::new(Window::all().until(live[&dag_run.id()].created_at)),
    ] {
        let expected = listed(client.runs(filter.clone()).items()).await;
        assert_eq!(listed(bench.archive.runs(filter.clone()).items()).await, expected, "{filter:?}");
        assert_eq!(bench.archive.runs(filter).count().await.unwrap(), expected.len() as u64);
    }
    let unknown = uuid::Uuid::new_v4().into();
    let error = bench.archive.details(unknown).await.unwrap_err();
    assert_eq!((error.kind(), error.run_id()), (ErrorKind::RunNotFound, Some(unknown)));
    assert_eq!(error.to_string(), format!("the archive has no run {unknown}"));
    let error = History::new(&bench.client, &bench.archive).details(unknown).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RunNotFound);
    assert_eq!(error.to_string(), format!("neither the engine nor the archive has run {unknown}"));
    worker.shutdown().await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_collection_can_be_repeated_and_a_replayed_run_is_archived_again() {
    let bench = Bench::new().await;
    let ids = bench.start(0..4).await;
    let dry = bench.archive.collect(&bench.client, all()).dry_run().send().await.unwrap();
    assert_eq!((dry.archived, dry.files, rows(&bench.archive).await), (4, 0, 0), "{dry}");
    let report = bench.archive.collect(&bench.client, all()).send().await.unwrap();
    assert_eq!((report.archived, &report.archived_by_workflow), (4, &[("count".to_owned(), 4)].into()), "{report}");
    assert_eq!(dry.archived_by_workflow, report.archived_by_workflow);
    let again = bench.archive.collect(&bench.client, all()).send().await.unwrap();
    assert_eq!((again.archived, again.unchanged), (0, 4), "{again}");

    let replayed = bench.client.run_handle(ids[1]).replay().send().await.unwrap();
    replayed.run.outcome().await.unwrap();
    sleep(Duration::from_secs(60)).await;
    let report = bench.archive.collect(&bench.client, all()).send().await.unwrap();
    assert_eq!((report.archived, report.unchanged), (1, 3), "{report}");
    assert_eq!(bench.archived().await, bench.live().await);
    assert_eq!(bench.archive.details(ids[1]).await.unwrap().status, RunStatus::Completed);
    // The old version matches no filter, although its file says that it has a failed run.
    let failed = RunFilter::new(Window::all()).status(RunStatus::Failed);
    assert_eq!(listed(bench.archive.runs(failed.clone()).items()).await.into_keys().collect::<Vec<_>>(), [ids[3]]);
    assert_eq!(rows(&bench.archive).await, 5);
    let report = bench.archive.compact().send().await.unwrap();
    assert_eq!(report, CompactReport { files_merged: 2, files_written: 1, ..CompactReport::default() });
    assert_eq!((rows(&bench.archive).await, bench.archived().await), (4, bench.live().await));
    assert_eq!(listed(bench.archive.runs(failed).items()).await.len(), 1);
    assert_eq!(bench.archive.compact().send().await.unwrap(), CompactReport::default());
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_at_any_step_no_run_is_lost_or_duplicated() {
    let bench = Bench::new().await;
    bench.start(0..5).await;
    let mut crashes = 0;
    for step in 0.. {
        // An archive of its own for each step.
        let store = Store::open("memory://", Vec::new()).unwrap();
        let crash = Crash::at(step);
        let crashing = Archive::over(store.crashing(crash.clone()));
        let result = crashing.collect(&bench.client, all()).send().await;
        let archive = Archive::over(store.clone());
        if !crash.has_happened() {
            assert_eq!(result.unwrap().archived, 5);
            break;
        }
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Storage, "{:?}", crash.operations());
        crashes += 1;
        let report = archive.collect(&bench.client, all()).send().await.unwrap();
        assert_eq!(report.archived + report.unchanged, 5, "after {:?}", crash.operations());
        assert_eq!(listed(archive.runs(Window::all()).items()).await, bench.live().await);
        assert_eq!(rows(&archive).await, 5);
        // What the crash left behind is deleted, and nothing else.
        archive.sweep().grace_period(Duration::ZERO).send().await.unwrap();
        assert_eq!(listed(archive.runs(Window::all()).items()).await, bench.live().await);
        let files = archive.files(Window::all()).await.unwrap().len();
        assert_eq!(store.list("runs", None).await.unwrap().len(), files);
    }
    assert!(crashes > 10, "{crashes} crashes");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn concurrent_collectors_archive_each_run_once() {
    let bench = Bench::new().await;
    bench.start(0..10).await;
    let archives: Vec<_> = (0..3).map(|_| bench.other()).collect();
    let reports = join_all(archives.iter().map(|archive| archive.collect(&bench.client, all()).send())).await;
    let reports: Vec<_> = reports.into_iter().map(Result::unwrap).collect();
    let total: u64 = reports.iter().map(|report| report.archived).sum();
    assert_eq!((total, rows(&bench.archive).await), (10, 10));
    assert!(reports.iter().all(|report| report.archived + report.unchanged == 10), "{reports:?}");
    assert_eq!(bench.archived().await, bench.live().await);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn active_runs_are_not_archived_and_runs_at_risk_are_counted() {
    let bench = Bench::new().await;
    let ids = bench.start([0]).await;
    let Bench { engine, client, worker, task, store, archive } = bench;
    worker.shutdown().await;
    let waiting = client.run(&task, &Input { n: 2 }).start().await.unwrap();
    let report = archive.collect(&client, all()).send().await.unwrap();
    assert_eq!((report.archived, report.at_risk, report.engine_retention), (1, 0, Some(30 * DAY)), "{report}");
    assert!(!report.is_age_too_long);
    assert_eq!(listed(archive.runs(Window::all()).items()).await.into_keys().collect::<Vec<_>>(), ids);
    assert_eq!(waiting.details().await.unwrap().status, RunStatus::Queued);
    let report = Archive::over(store.clone()).collect(&client, Retention::default()).send().await.unwrap();
    assert_eq!((report.archived, report.is_age_too_long), (0, true), "{report}");
    sleep(29 * DAY + HOUR).await;
    let other = Archive::open("memory://").unwrap();
    let report = other.collect(&client, all()).send().await.unwrap();
    assert_eq!((report.archived, report.at_risk), (2, 2), "{report}");
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn all_runs_before_a_date_are_archived_on_demand() {
    let bench = Bench::new().await;
    let before = bench.start([0, 2]).await;
    sleep(HOUR).await;
    let date = bench.engine.now();
    bench.start([4]).await;
    let report = bench.archive.collect(&bench.client, Retention::default()).before(date).send().await.unwrap();
    assert_eq!(report.archived, 2);
    assert_eq!(bench.archived().await.into_keys().collect::<BTreeSet<_>>(), before.into_iter().collect());
    let kept = Retention::default().workflow("count", Rule::never());
    let report = bench.archive.collect(&bench.client, kept).before(bench.engine.now()).send().await.unwrap();
    assert_eq!((report.archived, report.unchanged), (0, 0));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_archive_has_one_namespace() {
    let bench = Bench::new().await;
    bench.start([0]).await;
    bench.archive.collect(&bench.client, all()).send().await.unwrap();
    let other = bench.engine.client_with(crate::config::Config::builder().namespace("other")).unwrap();
    let task = bench.task.clone();
    let worker = other.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    other.run(&task, &Input { n: 0 }).result().await.unwrap();
    let error = bench.archive.collect(&other, all()).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    worker.shutdown().await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn options_are_checked() {
    let bench = Bench::new().await;
    let collect = || bench.archive.collect(&bench.client, all());
    for builder in [
        collect().concurrency(0),
        collect().concurrency(65),
        collect().requests_per_second(0),
        collect().logs(1001),
        collect().collected_every(4000 * DAY),
        collect().engine_retention(Duration::ZERO),
        collect().engine_retention(4000 * DAY),
        bench.archive.collect(&bench.client, Retention::older_than(4000 * DAY)),
    ] {
        assert_eq!(builder.send().await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(collect().every(Duration::ZERO).start().unwrap_err().kind(), ErrorKind::InvalidInput);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_fetched_does_not_stop_the_others() {
    let bench = Bench::new().await;
    let ids = bench.start(0..3).await;
    // The first request of the first run is answered with an error that is not transient.
    bench.engine.faults().inject(FETCH, Fault::RejectRest(400)).unwrap();
    let report = bench.archive.collect(&bench.client, all()).concurrency(1).send().await.unwrap();
    assert_eq!((report.archived, report.fetch_errors), (2, 1), "{report}");
    let report = bench.archive.collect(&bench.client, all()).send().await.unwrap();
    assert_eq!((report.archived, report.unchanged, report.fetch_errors), (1, 2, 0), "{report}");
    assert_eq!(bench.archived().await.into_keys().collect::<BTreeSet<_>>(), ids.into_iter().collect());
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_for_which_the_server_does_not_respond_does_not_stop_the_others() {
    const SECOND: Duration = Duration::from_secs(1);
    let bench = Bench::new().await;
    bench.start(0..7).await;
    // A fetch is repeated once after a timeout. After five runs, it may be the server, which still returns others here.
    for errors in [1_u64, 4, 5, 6, 7] {
        let archive = Archive::open("memory://").unwrap();
        let (before, after) = (errors.min(5), errors.saturating_sub(5));
        let delay = |fault, times| bench.engine.faults().inject_times(FETCH, fault, usize::try_from(times).unwrap());
        delay(Fault::Delay(HOUR), 2 * before).unwrap();
        if after > 0 {
            delay(Fault::Delay(Duration::ZERO), 1).unwrap();
            delay(Fault::Delay(HOUR), 2 * after).unwrap();
        }
        let report = archive.collect(&bench.client, all()).concurrency(1).timeout(SECOND).send().await.unwrap();
        assert_eq!(bench.engine.faults().planned(), 0);
        assert_eq!((report.archived, report.fetch_errors), (7 - errors, errors), "{report}");
        let report = archive.collect(&bench.client, all()).send().await.unwrap();
        assert_eq!((report.archived, report.unchanged, report.fetch_errors), (errors, 7 - errors, 0), "{report}");
    }
    for (fault, expected) in [
        (Fault::RejectRest(500), ErrorKind::Server),
        (Fault::RejectRest(502), ErrorKind::Unavailable),
        (Fault::Delay(HOUR), ErrorKind::Timeout),
    ] {
        bench.engine.faults().inject_for(FETCH, fault.clone(), 10 * HOUR).unwrap();
        let collection = bench.archive.collect(&bench.client, all()).concurrency(1).timeout(SECOND);
        let mut batches = collection.requests_per_second(1).batches();
        // The runs are listed after 16 seconds, and the fifth is fetched at the earliest five seconds later.
        let lists = async {
            sleep(18 * SECOND).await;
            bench.engine.faults().inject_for(LIST, fault, 10 * HOUR).unwrap();
        };
        let (batch, ()) = tokio::join!(batches.next(), lists);
        let error = batch.unwrap().unwrap_err();
        assert_eq!(error.kind(), expected, "{error}");
        let report = batches.report();
        assert_eq!((report.archived, report.fetch_errors), (0, 5), "{report}");
        bench.engine.faults().clear();
    }
    bench.end().await;
}

/// The server still lists runs, so each of the many runs would wait for its timeout.
#[tokio::test(start_paused = true)]
async fn a_collection_ends_if_the_server_returns_no_run() {
    const SECOND: Duration = Duration::from_secs(1);
    let bench = Bench::new().await;
    let ids = bench.start(0..100).await;
    sleep(60 * SECOND).await;
    let collect = || bench.archive.collect(&bench.client, all()).timeout(SECOND);
    bench.engine.faults().inject_for(FETCH, Fault::Delay(HOUR), DAY).unwrap();
    let (started, mut batches) = (Instant::now(), collect().batches());
    let error = batches.next().await.unwrap().unwrap_err();
    // Each fetch is repeated once, after a random pause of at most 50 ms. Eight are sent at the same time, then one after each of the first
    // four results, and then three of other runs.
    assert_eq!((error.kind(), started.elapsed().as_secs()), (ErrorKind::Timeout, 2 + 2 + 2));
    let expected = "12 runs in a row and 3 other runs could not be fetched: ";
    assert!(error.to_string().starts_with(expected) && error.is_transient(), "{error}");
    assert!(batches.next().await.is_none());
    assert_eq!(batches.report().fetch_errors, 12);
    bench.engine.faults().clear();
    assert_eq!(collect().send().await.unwrap().archived, ids.len() as u64);
    bench.end().await;
}

/// One workflow whose runs the server cannot return must not end each collection.
#[tokio::test(start_paused = true)]
async fn runs_of_other_workflows_show_whether_the_server_returns_any() {
    let bench = Bench::new().await;
    bench.start(0..1).await;
    let [run] = <[_; 1]>::try_from(bench.client.runs(Window::all()).newest(1).await.unwrap()).unwrap();
    let run_of = |number: u128, workflow: &str| {
        let id = uuid::Uuid::from_u128(number).into();
        RunSummary { id, workflow_name: Some(workflow.to_owned()), ..run.clone() }
    };
    let unreached = [1, 2].map(|number| (run_of(number, "poison").id, "poison".to_owned()));
    let probes = |runs: &[RunSummary]| {
        let ids = super::collection::probes(&unreached, runs.iter()).into_iter();
        ids.map(|id| uuid::Uuid::from(id).as_u128()).collect::<Vec<_>>()
    };
    let poison: Vec<_> = (1..9).map(|number| run_of(number, "poison")).collect();
    assert_eq!(probes(&poison), [3, 4, 5], "there are no others");
    let others = [run_of(20, "healthy"), run_of(21, "healthy"), run_of(22, "other")];
    assert_eq!(probes(&[&poison[..], &others].concat()), [20, 22, 3]);
    bench.end().await;
}

/// What is at risk is only a part of the report.
#[tokio::test(start_paused = true)]
async fn runs_are_archived_if_those_at_risk_cannot_be_counted() {
    let bench = Bench::new().await;
    bench.start(0..3).await;
    // The count of the runs that have not ended is the first list. The next ones find the runs.
    bench.engine.faults().inject(LIST, Fault::RejectRest(400)).unwrap();
    let report = bench.archive.collect(&bench.client, all()).send().await.unwrap();
    assert_eq!((report.archived, report.at_risk, report.engine_retention), (3, 0, Some(30 * DAY)), "{report}");
    assert_eq!(bench.engine.faults().planned(), 0);
    bench.end().await;
}

/// The engine's API for workers and its REST API can keep runs for different times.
#[tokio::test(start_paused = true)]
async fn runs_that_only_rest_still_has_are_archived_and_read_completely() {
    let bench = Bench::new().await;
    let client = &bench.client;
    let dag = {
        let first = Task::new("first", async |input: Input, _: Context| Ok(input));
        let second =
            Task::new("second", async |_: Input, _: Context| Err::<(), _>(TaskError::new("broken"))).retries(1);
        Workflow::new("dag").task(&first).task_after(&second, ["first"])
    };
    let slow = slow("slow");
    // It has retries left, and does not use them.
    let final_failure = async |_: Value, _: Context| Err::<(), _>(TaskError::non_retryable("final"));
    let given_up = Task::new("given-up", final_failure).retries(3);
    let worker = client.worker("other").slots(10).register(&dag).register(&slow).register(&given_up);
    let worker = worker.build().unwrap().start().await.unwrap();
    let mut ids = bench.start(0..2).await;
    ids.push(client.run(&dag, &Input { n: 7 }).metadata("s", "1").start().await.unwrap().id());
    ids.push(client.run(&slow, &json!({})).start().await.unwrap().id());
    ids.push(client.run(&given_up, &json!({ "a": [1] })).start().await.unwrap().id());
    let cancelled = client.run(&slow, &json!({})).start().await.unwrap();
    ids.push(cancelled.id());
    sleep(Duration::from_secs(1)).await;
    cancelled.cancel().reason("not needed").send().await.unwrap();
    sleep(HOUR).await;
    let mut expected = Vec::new();
    for id in &ids {
        expected.push(as_json(&client.run_handle(*id).details().await.unwrap()));
    }
    bench.engine.faults().inject_for("GetRunDetails", Fault::RejectGrpc(5), 10 * DAY).unwrap();
    let started = Instant::now();
    let report = bench.archive.collect(client, all()).requests_per_second(10_000).send().await.unwrap();
    assert_eq!((report.archived, report.dropped, report.fetch_errors), (6, 0, 0), "{report}");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    for (id, expected) in ids.iter().zip(expected) {
        assert_eq!(as_json(&client.run_handle(*id).details().await.unwrap()), expected);
        assert_eq!(as_json(&bench.archive.details(*id).await.unwrap()), expected);
    }
    // Without a response of REST, the run is not known to be lost.
    bench.engine.faults().inject_for(FETCH, Fault::RejectRest(400), HOUR).unwrap();
    let error = client.run_handle(ids[0]).details().await.unwrap_err();
    assert_ne!(error.kind(), ErrorKind::RunNotFound, "{error}");
    bench.engine.faults().clear();
    let unknown = client.run_handle(uuid::Uuid::new_v4().into()).details().await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::RunNotFound);
    worker.shutdown().await;
    bench.end().await;
}
