//! Archives over the embedded engine, on virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::crash::Crash;
use super::encode::encode_columns;
use super::manifest::{Commit, File, Partition, VERSION};
use super::schema::{Column, Row};
use super::store::Store;
use super::*;
use crate::client::Client;
use crate::embedded::Engine;
use crate::error::{ErrorKind, Result};
use crate::model::{RunDetails, RunFilter, RunId, RunStatus, RunSummary, Window};
use crate::worker::RunningWorker;
use crate::workflow::{Context, Task, TaskError, Workflow};

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Input {
    n: u32,
}

/// Archives everything that has ended.
fn all() -> Retention {
    Retention::older_than(Duration::ZERO)
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
        let start = "2026-11-01T10:00:00Z".parse().unwrap();
        let engine = Engine::builder().now(start).retention(30 * DAY).start().await.unwrap();
        let client = engine.client();
        // Odd numbers fail at first: a replay succeeds.
        let task = Task::new("count", async |input: Input, context: Context| {
            if input.n % 2 == 1 && context.attempt() == 1 { Err(TaskError::new("odd")) } else { Ok(vec![input.n]) }
        });
        let worker = client.worker("worker").register(&task).build().unwrap().start().await.unwrap();
        let store = Store::open("memory://").unwrap();
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
    let slow = Task::new("slow-1.x", async |(): (), _: Context| {
        sleep(DAY).await;
        Ok(())
    })
    .timeout(Duration::from_secs(5))
    .on_event("order:created");
    let worker = client.worker("other").register(&dag).register(&slow).build().unwrap().start().await.unwrap();
    bench.start(0..3).await;
    let dag_run = client.run(&dag, &Input { n: 7 }).metadata("s", "1").start().await.unwrap();
    dag_run.outcome().await.unwrap();
    let event = client.push("order:created", &json!({})).send().await.unwrap();
    let cancelled = client.run(&slow, &()).start().await.unwrap();
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
        RunFilter::new(Window::between(DateTime::UNIX_EPOCH, live[&dag_run.id()].created_at)),
    ] {
        let expected = listed(client.runs(filter.clone()).items()).await;
        assert_eq!(listed(bench.archive.runs(filter.clone()).items()).await, expected, "{filter:?}");
        assert_eq!(bench.archive.runs(filter).count().await.unwrap(), expected.len() as u64);
    }
    let unknown = uuid::Uuid::new_v4().into();
    assert_eq!(bench.archive.details(unknown).await.unwrap_err().kind(), ErrorKind::RunNotFound);
    worker.shutdown().await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_collection_can_be_repeated_and_a_replayed_run_is_archived_again() {
    let bench = Bench::new().await;
    let ids = bench.start(0..4).await;
    let dry = bench.archive.collect(&bench.client, all()).dry_run().send().await.unwrap();
    assert_eq!((dry.archived, dry.files, rows(&bench.archive).await), (4, 0, 0), "{dry}");
    assert_eq!(bench.archive.collect(&bench.client, all()).send().await.unwrap().archived, 4);
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
    assert_eq!(report, CompactReport { files_merged: 2, files_written: 1 });
    assert_eq!((rows(&bench.archive).await, bench.archived().await), (4, bench.live().await));
    assert_eq!(listed(bench.archive.runs(failed).items()).await.len(), 1);
    assert_eq!(bench.archive.compact().send().await.unwrap(), CompactReport::default());
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn payloads_can_be_left_out() {
    let bench = Bench::new().await;
    let ids = bench.start(0..2).await;
    let rule = Rule::older_than(Duration::ZERO).without_payloads();
    bench.archive.collect(&bench.client, Retention::default().default_rule(rule)).send().await.unwrap();
    let details = bench.archive.details(ids[0]).await.unwrap();
    assert_eq!((details.input.as_str(), details.output().unwrap().as_str()), ("null", "null"));
    assert!(!format!("{details:?}").contains("[0]"), "{details:?}");
    assert_eq!(bench.archived().await, bench.live().await);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_at_any_step_no_run_is_lost_or_duplicated() {
    let bench = Bench::new().await;
    bench.start(0..5).await;
    let mut crashes = 0;
    for step in 0.. {
        // An archive of its own for each step.
        let store = Store::open("memory://").unwrap();
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
async fn after_a_crash_of_a_compaction_no_run_is_lost_or_duplicated() {
    let bench = Bench::new().await;
    for n in 0..3 {
        bench.start([n]).await;
        bench.archive.collect(&bench.client, all()).send().await.unwrap();
    }
    let expected = bench.archived().await;
    for step in 0.. {
        let crash = Crash::at(step);
        let result = bench.crashing(&crash).compact().send().await;
        assert_eq!(
            (bench.archived().await, rows(&bench.other()).await),
            (expected.clone(), 3),
            "{:?}",
            crash.operations()
        );
        if !crash.has_happened() {
            result.unwrap();
            assert!(step > 10);
            break;
        }
    }
    assert_eq!(bench.archive.files(Window::all()).await.unwrap().len(), 1);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn concurrent_collectors_archive_each_run_once() {
    let bench = Bench::new().await;
    bench.start(0..10).await;
    let archives: Vec<_> = (0..3).map(|_| bench.other()).collect();
    let reports = join_all(archives.iter().map(|archive| archive.collect(&bench.client, all()).send())).await;
    let total: u64 = reports.into_iter().map(|report| report.unwrap().archived).sum();
    assert_eq!((total, rows(&bench.archive).await), (10, 10));
    assert_eq!(bench.archived().await, bench.live().await);
    bench.end().await;
}

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
async fn active_runs_are_not_archived_and_runs_at_risk_are_counted() {
    let bench = Bench::new().await;
    let ids = bench.start([0]).await;
    let Bench { engine, client, worker, task, store, archive } = bench;
    worker.shutdown().await;
    let waiting = client.run(&task, &Input { n: 2 }).start().await.unwrap();
    let report = archive.collect(&client, all()).send().await.unwrap();
    assert_eq!((report.archived, report.at_risk, report.engine_retention), (1, 0, Some(30 * DAY)), "{report}");
    assert!(!report.is_retention_too_long);
    assert_eq!(listed(archive.runs(Window::all()).items()).await.into_keys().collect::<Vec<_>>(), ids);
    assert_eq!(waiting.details().await.unwrap().status, RunStatus::Queued);
    let report = Archive::over(store.clone()).collect(&client, Retention::default()).send().await.unwrap();
    assert_eq!((report.archived, report.is_retention_too_long), (0, true), "{report}");
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
        bench.archive.collect(&bench.client, Retention::older_than(4000 * DAY)),
    ] {
        assert_eq!(builder.send().await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(collect().every(Duration::ZERO).start().unwrap_err().kind(), ErrorKind::InvalidInput);
    for url in ["nope://bucket", "s3:///"] {
        let error = Archive::open(url).unwrap_err();
        assert!(error.to_string().contains(url), "{error}");
    }
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_file_is_named_and_the_others_are_read() {
    let folder = std::env::temp_dir().join(format!("hatchet-archive-{}", uuid::Uuid::new_v4()));
    for url in ["memory://", folder.to_str().unwrap()] {
        let mut bench = Bench::new().await;
        bench.store = Store::open(url).unwrap();
        bench.archive = bench.other();
        let mut ids = Vec::new();
        for n in [0, 2, 4] {
            ids.extend(bench.start([n]).await);
            sleep(DAY).await;
        }
        bench.archive.collect(&bench.client, all()).send().await.unwrap();
        let live = bench.live().await;
        for damage in 0..5 {
            let file = bench.archive.files(Window::all()).await.unwrap().remove(1);
            let content = bench.store.read(&file.path).await.unwrap();
            let length = content.len();
            let damaged: Option<bytes::Bytes> = match damage {
                0 => Some(content.slice(..length - 100)),
                1 => Some(vec![0; length].into()),
                2 => Some(bytes::Bytes::new()),
                3 => Some([&content[..100], &[255; 200], &content[300..]].concat().into()),
                _ => None,
            };
            match damaged {
                Some(damaged) => bench.store.put(&file.path, damaged).await.unwrap(),
                None => bench.store.delete(&file.path).await.unwrap(),
            }
            let archive = bench.other();
            let mut runs = archive.runs(Window::all()).details();
            let (mut good, mut errors) = (0, Vec::new());
            while let Some(run) = runs.next().await {
                match run {
                    Ok(_) => good += 1,
                    Err(error) => errors.push(error),
                }
            }
            assert_eq!((good, errors.len()), (2, 1), "damage {damage}: {errors:?}");
            assert_eq!(errors[0].kind(), ErrorKind::Corrupt, "damage {damage}: {errors:?}");
            assert!(errors[0].to_string().contains(&file.path), "{}", errors[0]);
            // Its runs are archived again, and are then found by their ids.
            let report = archive.collect(&bench.client, all()).send().await.unwrap();
            assert_eq!((report.archived, report.unchanged), (1, 2), "damage {damage}: {report}");
            for id in &ids {
                assert_eq!(archive.details(*id).await.unwrap().id, *id);
            }
            // The damaged file is replaced for the next damage.
            let state = archive.log().state().await.unwrap();
            let remove = vec![file.path.clone()];
            let commit = Commit { version: VERSION, committed_at: Utc::now(), source: None, add: Vec::new(), remove };
            assert!(archive.log().commit(&state, &commit).await.unwrap());
            assert_eq!(bench.archived().await, live);
        }
        bench.end().await;
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_fetched_does_not_stop_the_others() {
    let bench = Bench::new().await;
    let ids = bench.start(0..3).await;
    // The first request of the first run is answered with an error that is not transient.
    let call = "GET /api/v1/stable/workflow-runs/{run}";
    bench.engine.faults().inject(call, crate::embedded::Fault::RefuseRest(400)).unwrap();
    let report = bench.archive.collect(&bench.client, all()).concurrency(1).send().await.unwrap();
    assert_eq!((report.archived, report.failed), (2, 1), "{report}");
    let report = bench.archive.collect(&bench.client, all()).send().await.unwrap();
    assert_eq!((report.archived, report.unchanged, report.failed), (1, 2, 0), "{report}");
    assert_eq!(bench.archived().await.into_keys().collect::<BTreeSet<_>>(), ids.into_iter().collect());
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_archive_without_its_manifest_is_not_swept() {
    let bench = Bench::new().await;
    bench.start([0]).await;
    bench.archive.collect(&bench.client, all()).send().await.unwrap();
    for object in bench.store.list("manifest", None).await.unwrap() {
        bench.store.delete(&object.path).await.unwrap();
    }
    let error = bench.other().sweep().grace_period(Duration::ZERO).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(bench.store.list("runs", None).await.unwrap().len(), 1);
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
async fn nothing_is_missed_in_the_view_while_the_collector_and_the_retention_work() {
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
async fn files_with_older_and_newer_schemas_are_read() {
    let bench = Bench::new().await;
    let ids = bench.start([0, 2]).await;
    bench.archive.collect(&bench.client, all()).send().await.unwrap();
    let state = bench.archive.log().state().await.unwrap();
    let file = state.files().next().unwrap();
    let reader = super::decode::FileReader::open(&bench.store, file).await.unwrap();
    let rows: Vec<Row> = reader.rows(0, Column::ALL).await.unwrap();
    for (columns, version) in [(super::convert::SUMMARY_COLUMNS, "0"), (Column::ALL, "2")] {
        let mut columns = columns.to_vec();
        columns.push(Column::Trigger);
        columns.sort();
        columns.dedup();
        let content = encode_columns(&rows, &columns, version).unwrap();
        let path = Partition::of("count", bench.engine.now()).path(version);
        let bytes = content.len() as u64;
        bench.store.put(&path, content).await.unwrap();
        let state = bench.archive.log().state().await.unwrap();
        let remove = state.files().map(|file| file.path.clone()).collect();
        let add = vec![File { path, bytes, ..file.clone() }];
        let commit = Commit { version: VERSION, committed_at: Utc::now(), source: None, add, remove };
        assert!(bench.archive.log().commit(&state, &commit).await.unwrap());
        assert_eq!(bench.archived().await, bench.live().await);
        assert_eq!(bench.archive.details(ids[0]).await.unwrap().status, RunStatus::Completed);
    }
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn days_expire_as_a_whole_and_files_are_deleted_after_a_grace_period() {
    // Ages are measured by the system clock, so the engine starts in 2001.
    let engine = Engine::builder().now("2001-01-01T10:00:00Z".parse().unwrap()).start().await.unwrap();
    let client = engine.client();
    let task = Task::new("count", async |input: Input, _: Context| Ok(input.n));
    let kept = Task::new("kept", async |input: Input, _: Context| Ok(input.n));
    let worker = client.worker("worker").register(&task).register(&kept).build().unwrap().start().await.unwrap();
    for task in [&task, &kept] {
        client.run(task, &Input { n: 1 }).result().await.unwrap();
    }
    let archive = Archive::open("memory://").unwrap();
    archive.collect(&client, all()).send().await.unwrap();
    let retention = Retention::older_than(365 * DAY).workflow("kept", Rule::never());
    let dry = archive.expire(retention.clone()).dry_run().send().await.unwrap();
    assert_eq!((dry.runs, rows(&archive).await), (1, 2), "{dry}");
    assert_eq!(archive.expire(retention.clone()).send().await.unwrap().runs, 1);
    assert_eq!(rows(&archive).await, 1);
    assert_eq!(archive.expire(retention).send().await.unwrap(), ExpireReport::default());
    assert_eq!(archive.sweep().send().await.unwrap(), SweepReport::default());
    assert_eq!(archive.sweep().grace_period(Duration::ZERO).send().await.unwrap().files, 1);
    assert_eq!(listed(archive.runs(Window::all()).items()).await.len(), 1);
    worker.shutdown().await;
    engine.shutdown().await;
}

/// What happens in the property test.
#[derive(Debug, Clone)]
enum Action {
    Start(u32),
    Replay(usize),
    Collect,
    CollectAndCrash(usize),
    CollectTwice,
    Compact,
    CompactAndCrash(usize),
    Sweep,
    Wait(u32),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0u32..10).prop_map(Action::Start),
        2 => any::<usize>().prop_map(Action::Replay),
        2 => Just(Action::Collect),
        2 => (0usize..30).prop_map(Action::CollectAndCrash),
        1 => Just(Action::CollectTwice),
        1 => Just(Action::Compact),
        1 => (0usize..30).prop_map(Action::CompactAndCrash),
        1 => Just(Action::Sweep),
        3 => (1u32..200).prop_map(Action::Wait),
    ]
}

async fn apply(bench: &Bench, actions: Vec<Action>) {
    let client = &bench.client;
    let mut expected: BTreeMap<RunId, RunSummary> = BTreeMap::new();
    for action in actions {
        match action {
            // The runs of one call have the same creation time.
            Action::Start(n) => {
                let runs = client.run_many(&bench.task, [Input { n }, Input { n: n + 1 }]).start().await.unwrap();
                for run in runs {
                    run.unwrap().outcome().await.unwrap();
                }
            }
            Action::Replay(at) => {
                let live: Vec<_> = bench.live().await.into_keys().collect();
                if let Some(id) = live.get(at % live.len().max(1)) {
                    client.run_handle(*id).replay().send().await.unwrap().run.outcome().await.unwrap();
                    sleep(Duration::from_secs(60)).await;
                }
            }
            Action::Collect => drop(bench.other().collect(client, all()).send().await.unwrap()),
            Action::CollectAndCrash(step) => {
                drop(bench.crashing(&Crash::at(step)).collect(client, all()).send().await);
            }
            Action::CollectTwice => {
                let (one, other) = (bench.other(), bench.other());
                let (one, other) = tokio::join!(one.collect(client, all()).send(), other.collect(client, all()).send());
                one.unwrap();
                other.unwrap();
            }
            Action::Compact => drop(bench.other().compact().send().await.unwrap()),
            Action::CompactAndCrash(step) => drop(bench.crashing(&Crash::at(step)).compact().send().await),
            Action::Sweep => drop(bench.other().sweep().grace_period(Duration::ZERO).send().await.unwrap()),
            Action::Wait(hours) => {
                // Nothing may be dropped before it is archived.
                expected.extend(bench.live().await);
                bench.other().collect(client, all()).send().await.unwrap();
                sleep(HOUR * hours).await;
            }
        }
        expected.extend(bench.live().await);
        let history = History::new(client, &bench.archive).paged(3);
        assert_eq!(listed(history.runs(Window::all()).items()).await, expected);
        let failed = RunFilter::new(Window::all()).status(RunStatus::Failed);
        let seen = listed(history.runs(failed).items()).await;
        let is_failed = |(_, run): &(&RunId, &RunSummary)| run.status == RunStatus::Failed;
        assert!(expected.iter().filter(is_failed).eq(seen.iter()), "{seen:?}");
    }
    bench.other().collect(client, all()).send().await.unwrap();
    assert_eq!(bench.archived().await, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn the_view_has_every_ended_run_once_in_its_newest_state(actions in proptest::collection::vec(action(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new().await;
            apply(&bench, actions).await;
            bench.end().await;
        });
    }
}
