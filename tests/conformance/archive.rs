//! Rows t1 to t7 and b10: the archive.
//!
//! The tests archive only the runs of their own workflows, because a real engine has many others.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::task::Poll;
use std::time::Duration;

use hatchet::archive::{Archive, CollectBuilder, History, Retention, Rule};
use hatchet::model::Window;
use hatchet::{Context, ErrorKind, RunFilter, RunHandle, RunId, RunStatus, Task, TaskError};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::RowAccessor as _;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::setup::{Setup, rows};
use crate::tasks::Number;

rows! {
    t1_runs_older_than_an_age_are_archived,
    t2_archived_runs_are_read_by_id_and_with_the_same_filters,
    t3_active_runs_are_not_archived,
    t4_collections_run_regularly_in_a_process_and_as_a_task,
    t5_the_request_rate_is_limited,
    t6_a_collection_that_is_stopped_and_repeated_archives_each_run_once,
    t7_all_runs_before_a_date_are_archived_on_demand,
    b10_other_tools_can_read_the_archive,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A task that fails for odd numbers.
fn count(setup: &Setup) -> Task<Number, i64> {
    Task::new(
        setup.name("count"),
        async |input: Number, _: Context| {
            if input.n % 2 == 1 { Err(TaskError::new("odd")) } else { Ok(input.n) }
        },
    )
}

/// All runs of these tasks that have ended, at any age.
fn of(names: &[&str]) -> Retention {
    let any_age = || Rule::older_than(Duration::ZERO);
    names.iter().fold(Retention::never(), |retention, name| retention.workflow(*name, any_age()))
}

/// Starts runs one after the other, and waits until the list shows their end.
async fn ended(setup: &Setup, task: &Task<Number, i64>, numbers: std::ops::Range<i64>) -> Vec<RunHandle<i64>> {
    let mut runs = Vec::new();
    for n in numbers {
        let run = setup.hatchet.run(task, &Number { n }).metadata("parity", (n % 2).to_string()).start().await.unwrap();
        run.outcome().await.unwrap();
        runs.push(run);
    }
    let filter = RunFilter::new(setup.window()).workflow(task.name());
    setup
        .eventually(async || {
            let mut items = setup.hatchet.runs(filter.clone()).items();
            let mut ended = BTreeSet::new();
            while let Some(run) = items.next().await.transpose().unwrap() {
                ended.extend((run.status.is_final() && run.finished_at.is_some()).then_some(run.id));
            }
            runs.iter().all(|run| ended.contains(&run.id()))
        })
        .await;
    runs
}

async fn archived(archive: &Archive, filter: impl Into<RunFilter>) -> Vec<RunId> {
    let mut items = archive.runs(filter).items();
    let mut ids = Vec::new();
    while let Some(run) = items.next().await {
        ids.push(run.unwrap().id);
    }
    ids
}

fn memory() -> Archive {
    Archive::open("memory://").unwrap()
}

async fn t1_runs_older_than_an_age_are_archived(setup: Setup) {
    let (task, archive) = (count(&setup), memory());
    let worker = setup.worker(&task).await;
    let runs = ended(&setup, &task, 0..2).await;
    // The default of 90 days is a test on virtual time: a real engine has no runs of this age.
    let collect = |rule: Rule| archive.collect(&setup.hatchet, Retention::never().workflow(task.name(), rule));
    assert_eq!(collect(Rule::older_than(90 * DAY)).send().await.unwrap().archived, 0);
    assert_eq!(collect(Rule::never()).send().await.unwrap().archived, 0);
    let failed = Rule::older_than(Duration::ZERO).status(RunStatus::Failed);
    assert_eq!(collect(failed).send().await.unwrap().archived, 1);
    sleep(Duration::from_secs(1)).await;
    collect(Rule::older_than(Duration::from_secs(1))).send().await.unwrap();
    let ids: BTreeSet<_> = archived(&archive, Window::all()).await.into_iter().collect();
    assert!(runs.iter().all(|run| ids.contains(&run.id())), "{ids:?}");
    worker.shutdown().await;
}

async fn t2_archived_runs_are_read_by_id_and_with_the_same_filters(setup: Setup) {
    let (task, archive) = (count(&setup), memory());
    let worker = setup.worker(&task).await;
    let runs = ended(&setup, &task, 0..6).await;
    archive.collect(&setup.hatchet, of(&[task.name()])).send().await.unwrap();
    let later = ended(&setup, &task, 6..8).await;
    let history = History::new(&setup.hatchet, &archive);
    for run in &runs {
        let (live, kept) = (run.details().await.unwrap(), archive.details(run.id()).await.unwrap());
        assert_eq!(serde_json::to_value(&kept).unwrap(), serde_json::to_value(&live).unwrap());
        assert_eq!(history.details(run.id()).await.unwrap().status, live.status);
    }
    let error = archive.details(later[0].id()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RunNotFound);
    assert_eq!(history.details(later[0].id()).await.unwrap().id, later[0].id());

    let own = RunFilter::new(setup.window()).workflow(task.name());
    for filter in [own.clone(), own.clone().status(RunStatus::Failed), own.clone().metadata("parity", "0")] {
        let live = crate::setup::ids(&setup.hatchet, filter.clone()).await;
        let of_first = |id: &&RunId| runs.iter().any(|run| run.id() == **id);
        // The order of runs that were created at the same time has no meaning.
        let expected: BTreeSet<_> = live.iter().filter(of_first).copied().collect();
        let kept = archived(&archive, filter.clone()).await;
        assert_eq!((kept.len(), kept.into_iter().collect()), (expected.len(), expected.clone()), "{filter:?}");
        assert_eq!(archive.runs(filter.clone()).count().await.unwrap(), expected.len() as u64);
        let mut items = history.runs(filter).items();
        let mut seen = Vec::new();
        while let Some(run) = items.next().await {
            seen.push(run.unwrap());
        }
        assert!(seen.is_sorted_by(|one, other| one.created_at >= other.created_at));
        let seen: Vec<_> = seen.into_iter().map(|run| run.id).collect();
        assert_eq!(seen.len(), live.len(), "each run once");
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), live.into_iter().collect());
    }
    worker.shutdown().await;
}

async fn t3_active_runs_are_not_archived(setup: Setup) {
    let (task, archive) = (count(&setup), memory());
    let worker = setup.worker(&task).await;
    let done = ended(&setup, &task, 0..1).await;
    worker.shutdown().await;
    let waiting = setup.hatchet.run(&task, &Number { n: 2 }).start().await.unwrap();
    setup.eventually(async || waiting.details().await.is_ok_and(|details| details.created_at.is_some())).await;
    let collect = || archive.collect(&setup.hatchet, of(&[task.name()])).send();
    assert_eq!(collect().await.unwrap().archived, 1);
    assert_eq!(archived(&archive, Window::all()).await, [done[0].id()]);
    assert_eq!(waiting.details().await.unwrap().status, RunStatus::Queued);
    waiting.cancel().send().await.unwrap();
    setup.eventually(async || collect().await.unwrap().archived == 1).await;
    assert_eq!(archive.details(waiting.id()).await.unwrap().status, RunStatus::Cancelled);
}

async fn t4_collections_run_regularly_in_a_process_and_as_a_task(setup: Setup) {
    let (task, archive) = (count(&setup), memory());
    let collect = archive.collect(&setup.hatchet, of(&[task.name()])).task(setup.name("archive")).cron("0 3 * * *");
    let worker = setup.hatchet.worker(setup.name("worker")).register(&task).register(&collect);
    let worker = worker.build().unwrap().start().await.unwrap();
    let crons = setup.hatchet.crons().workflow(collect.name()).get().await.unwrap();
    assert_eq!(crons.iter().map(|cron| cron.expression.as_str()).collect::<Vec<_>>(), ["0 3 * * *"]);
    ended(&setup, &task, 0..2).await;
    let report = setup.hatchet.run(&collect, &()).result().await.unwrap();
    assert_eq!((report.archived, report.unchanged), (2, 0), "{report}");

    let interval = Duration::from_secs(2);
    let mut collector = archive.collect(&setup.hatchet, of(&[task.name()])).every(interval).start().unwrap();
    let first = collector.next_result().await.unwrap().unwrap();
    assert_eq!((first.archived, first.unchanged), (0, 2), "{first}");
    ended(&setup, &task, 2..4).await;
    // A round may have begun before the runs ended.
    let mut new = 0;
    while new < 2 {
        new += collector.next_result().await.unwrap().unwrap().archived;
    }
    assert_eq!((new, archived(&archive, Window::all()).await.len()), (2, 4));
    assert!(collector.last_result().is_some_and(|round| round.is_ok()));
    collector.shutdown().await;
    worker.shutdown().await;
}

async fn t5_the_request_rate_is_limited(setup: Setup) {
    let (task, archive) = (count(&setup), memory());
    let worker = setup.worker(&task).await;
    ended(&setup, &task, 0..20).await;
    let started = Instant::now();
    let collection = archive.collect(&setup.hatchet, of(&[task.name()])).requests_per_second(20).concurrency(2);
    let report = collection.send().await.unwrap();
    assert_eq!(report.archived, 20, "{report}");
    // Each run takes at least two requests, and the requests of one second may be sent at once.
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    worker.shutdown().await;
}

async fn t6_a_collection_that_is_stopped_and_repeated_archives_each_run_once(setup: Setup) {
    let (task, directory) = (count(&setup), Directory::new());
    let archive = Archive::open(directory.0.to_str().unwrap()).unwrap();
    let worker = setup.worker(&task).await;
    let runs = ended(&setup, &task, 0..6).await;
    let collect = || -> CollectBuilder { archive.collect(&setup.hatchet, of(&[task.name()])) };
    // It is dropped after more and more polls, until one is complete. Until something is committed, each begins again.
    let mut stopped = 0;
    for polls in 0.. {
        let mut collection = std::pin::pin!(collect().requests_per_second(10_000).concurrency(1).send());
        let mut left = polls;
        let is_complete = std::future::poll_fn(|cx| {
            if left == 0 {
                return Poll::Ready(false);
            }
            left -= 1;
            collection.as_mut().poll(cx).map(|report| report.is_ok())
        });
        if is_complete.await {
            break;
        }
        stopped += 1;
    }
    // Whether some were stopped after they had written a file depends on how fast the disk is. Unit tests stop them at each step.
    assert!(stopped > 10, "{stopped}");
    let (one, other) = tokio::join!(collect().send(), collect().send());
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(collect().send().await.unwrap().unchanged, 6, "{one} and {other}");
    let ids: BTreeSet<_> = archived(&archive, Window::all()).await.into_iter().collect();
    assert_eq!(ids, runs.iter().map(RunHandle::id).collect());
    let files = archive.files(Window::all()).await.unwrap();
    assert_eq!(files.iter().map(|file| file.rows).sum::<u64>(), 6);
    archive.compact().send().await.unwrap();
    archive.sweep().grace_period(Duration::ZERO).send().await.unwrap();
    assert_eq!(archived(&archive, Window::all()).await.len(), 6);
    worker.shutdown().await;
}

async fn t7_all_runs_before_a_date_are_archived_on_demand(setup: Setup) {
    let (task, archive) = (count(&setup), memory());
    let worker = setup.worker(&task).await;
    let before = ended(&setup, &task, 0..3).await;
    sleep(Duration::from_millis(50)).await;
    let last = ended(&setup, &task, 3..4).await.remove(0);
    let date = last.details().await.unwrap().created_at.unwrap();
    // The age does not matter.
    let retention = Retention::never().workflow(task.name(), Rule::older_than(90 * DAY));
    let mut batches = archive.collect(&setup.hatchet, retention).before(date).batches();
    let batch = batches.next().await.unwrap().unwrap();
    assert_eq!((batch.runs, batch.max_created_at < date), (3, true));
    assert!(batches.next().await.is_none());
    assert_eq!(batches.report().archived, 3);
    let ids: BTreeSet<_> = archived(&archive, Window::all()).await.into_iter().collect();
    assert_eq!(ids, before.iter().map(RunHandle::id).collect());
    worker.shutdown().await;
}

/// A directory that is deleted at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("hatchet-archive-{}", uuid::Uuid::new_v4())))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn b10_other_tools_can_read_the_archive(setup: Setup) {
    let (task, directory) = (count(&setup), Directory::new());
    let archive = Archive::open(directory.0.to_str().unwrap()).unwrap();
    let worker = setup.worker(&task).await;
    let runs = ended(&setup, &task, 0..3).await;
    archive.collect(&setup.hatchet, of(&[task.name()])).send().await.unwrap();
    let files = archive.files(Window::all()).await.unwrap();
    assert_eq!(files.iter().map(|file| file.rows).sum::<u64>(), 3);

    let mut found = BTreeSet::new();
    for file in &files {
        assert_eq!(file.workflow_name.as_deref(), Some(task.name()));
        for row in read_with_parquet(&directory.0.join(&file.path)) {
            let value: Value = serde_json::from_str(&row[2]).unwrap();
            assert_eq!(row[3], (value["n"].as_i64().unwrap() % 2).to_string());
            found.insert((row[0].clone(), row[1].clone()));
        }
    }
    let mut expected = BTreeSet::new();
    for run in &runs {
        expected.insert((run.id().to_string(), run.details().await.unwrap().status.to_string()));
    }
    assert_eq!(found, expected);
    for (modules, script) in [("duckdb", DUCKDB), ("pandas, pyarrow", PANDAS)] {
        if let Some(found) = read_with_python(modules, script, &directory.0) {
            assert_eq!(found, expected, "{modules}");
        }
    }
    worker.shutdown().await;
}

/// The id, the status, the input and the tag `parity` of each row.
fn read_with_parquet(path: &Path) -> Vec<[String; 4]> {
    let reader = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let columns = ["run_id", "status", "input", "metadata"];
    let rows = reader.get_row_iter(None).unwrap().map(Result::unwrap);
    rows.map(|row| {
        let at = |name: &str| row.get_column_iter().position(|(column, _)| column == name).unwrap();
        let text = |name: &str| row.get_string(at(name)).unwrap().clone();
        let tags = row.get_map(at(columns[3])).unwrap();
        let tag = tags.entries().iter().find(|(key, _)| key.to_string() == "\"parity\"").unwrap();
        [text("run_id"), text("status"), text("input"), tag.1.to_string().replace('"', "")]
    })
    .collect()
}

/// Prints the id and the status of each run. `DuckDB` finds the workflow and the day in the paths.
const DUCKDB: &str = r#"
query = """
    select run_id, status from read_parquet(?, hive_partitioning = true)
    where day = created_at::date and workflow = workflow_name
    and (input->>'n')::int % 2 = metadata['parity']::int and finished_at >= created_at
"""
for row in duckdb.execute(query, [sys.argv[1] + "/runs/*/*/*.parquet"]).fetchall():
    print(*row)
"#;

/// The same with pandas.
const PANDAS: &str = r#"
runs = pandas.read_parquet(sys.argv[1] + "/runs")
assert (runs["workflow"].astype(str) == runs["workflow_name"]).all(), runs["workflow"]
assert (pandas.to_datetime(runs["day"].astype(str)).dt.date == runs["created_at"].dt.date).all(), runs["day"]
assert (runs["finished_at"] >= runs["created_at"]).all()
for run in runs.itertuples():
    assert json.loads(run.input)["n"] % 2 == int(dict(run.metadata)["parity"]), run
    print(run.run_id, run.status)
"#;

/// Runs a script of Python. `None` if one of its modules is not installed, which is a failure with `CI_STRICT=1`, as in `.ci/run`.
fn read_with_python(modules: &str, script: &str, directory: &Path) -> Option<BTreeSet<(String, String)>> {
    let missing = |problem: &str| {
        eprintln!("skipped: the archive is not read with the Python modules {modules}: {problem}");
        let is_strict = std::env::var("CI_STRICT").is_ok_and(|value| !value.is_empty());
        assert!(!is_strict, "CI_STRICT is set: expected the Python modules {modules}, got {problem}");
    };
    let script = format!("import json, sys\nimport {modules}\n{script}");
    let Ok(output) = std::process::Command::new("python3").args(["-c", &script]).arg(directory).output() else {
        missing("python3 is not installed");
        return None;
    };
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let problem = error.lines().find(|line| line.contains("No module named"));
        assert!(problem.is_some(), "{error}");
        missing(problem.unwrap_or_default());
        return None;
    }
    let text = String::from_utf8(output.stdout).unwrap();
    Some(
        text.lines().map(|line| line.split_once(' ').map(|(id, status)| (id.into(), status.into())).unwrap()).collect(),
    )
}
