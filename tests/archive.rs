//! The archive through its public API: requests, metrics and warnings of collections, collections as runs, pages, and exact numbers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Once;
use std::time::Duration;

use hatchet::archive::{Archive, CollectReport, History, Retention, Rule};
use hatchet::embedded::{Engine, Fault};
use hatchet::model::{RunSummary, Total, Trigger, Window};
use hatchet::telemetry::{Measurement, Recorder, set_recorder};
use hatchet::worker::RunningWorker;
use hatchet::{Client, Context, ErrorKind, Outcome, RunFilter, RunId, RunStatus, Task, TaskError, Workflow};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context as LayerContext, SubscriberExt as _};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Serialize, Deserialize)]
struct Input {
    n: u32,
}

/// A task that fails for odd numbers.
fn count() -> Task<Input, u32> {
    Task::new(
        "count",
        async |input: Input, _: Context| {
            if input.n % 2 == 1 { Err(TaskError::new("odd")) } else { Ok(input.n) }
        },
    )
}

/// All runs that have ended.
fn all() -> Retention {
    Retention::older_than(Duration::ZERO)
}

fn memory() -> Archive {
    Archive::open("memory://").unwrap()
}

async fn engine() -> (Engine, Client) {
    let start = "2026-11-01T10:00:00Z".parse().unwrap();
    let engine = Engine::builder().start_time(start).retention(30 * DAY).start().await.unwrap();
    let client = engine.client();
    (engine, client)
}

async fn start(client: &Client) -> (RunningWorker, Task<Input, u32>) {
    let task = count();
    (client.worker("worker").slots(100).register(&task).build().unwrap().start().await.unwrap(), task)
}

/// Runs with the same creation time.
async fn run(client: &Client, task: &Task<Input, u32>, numbers: std::ops::Range<u32>) -> Vec<RunId> {
    let runs = client.run_many(task, numbers.map(|n| Input { n })).start().await.unwrap();
    let mut ids = Vec::new();
    for run in runs {
        let run = run.unwrap();
        run.outcome().await.unwrap();
        ids.push(run.id());
    }
    ids
}

thread_local! {
    /// The calls and retries of this test, and the numbers of runs at risk: each test has a thread of its own.
    static MEASURED: RefCell<(Vec<String>, Vec<u64>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

struct OfThread;

impl Recorder for OfThread {
    fn record(&self, measurement: &Measurement<'_>) {
        MEASURED.with_borrow_mut(|(calls, at_risk)| match measurement {
            Measurement::Call { call, .. } | Measurement::Retry { call, .. } => calls.push((*call).to_owned()),
            Measurement::RunsArchived { at_risk: runs, .. } => at_risk.push(*runs),
            _ => {}
        });
    }
}

fn measure() {
    static SET: Once = Once::new();
    SET.call_once(|| set_recorder(OfThread).unwrap());
    MEASURED.take();
}

thread_local! {
    /// The warnings of this test.
    static WARNINGS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Warnings;

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        if *event.metadata().level() == Level::WARN {
            let mut text = Text(String::new());
            event.record(&mut text);
            WARNINGS.with_borrow_mut(|warnings| warnings.push(text.0));
        }
    }
}

/// Collects warnings. The subscriber is that of all threads: a warning that first occurs in a thread without one could be disabled.
fn collect_warnings() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Warnings)).unwrap();
    });
    WARNINGS.take();
}

/// The number of warnings that contain a string.
fn warnings(part: &str) -> usize {
    WARNINGS.with_borrow(|warnings| warnings.iter().filter(|text| text.contains(part)).count())
}

#[tokio::test(start_paused = true)]
async fn each_request_of_a_collection_counts_against_its_rate() {
    measure();
    // A client that has no ids of workflows yet.
    let (engine, _) = engine_with_runs().await;
    let client = engine.client();
    let names =
        Retention::never().workflow("count", Rule::older_than(Duration::ZERO)).workflow("gone", Rule::older_than(DAY));
    // The runs at risk are counted, too.
    let too_long = Retention::older_than(60 * DAY)
        .workflow("count", Rule::older_than(Duration::ZERO))
        .workflow("gone", Rule::older_than(30 * DAY));
    for (retention, logs, rejected) in [(all(), 0, 0), (names, 10, 0), (too_long, 0, 0), (all(), 0, 12)] {
        let archive = memory();
        // A call that is rejected is sent again.
        for call in ["GET /api/v1/stable/workflow-runs/{run}", "GET /api/v1/stable/tenants/{tenant}/workflow-runs"] {
            if rejected > 0 {
                engine.faults().inject_times(call, Fault::RejectRest(503), rejected / 2).unwrap();
            }
        }
        let collection = archive.collect(&client, retention).logs(logs).requests_per_second(1).concurrency(3);
        MEASURED.take();
        let started = Instant::now();
        let report = collection.send().await.unwrap();
        assert_eq!(report.archived, 12, "{report}");
        let calls = MEASURED.take().0;
        // The first is sent at once, and then one each second. Some are in one round with others.
        let seconds = started.elapsed().as_secs();
        let count = calls.len() as u64;
        assert!(count > 40, "{calls:?}");
        assert!(seconds >= count - 1, "{count} requests in {seconds} seconds: {calls:#?}");
    }
    engine.shutdown().await;
}

/// An engine with twelve runs of three days.
async fn engine_with_runs() -> (Engine, Vec<RunId>) {
    let (engine, client) = engine().await;
    let (worker, task) = start(&client).await;
    let mut ids = Vec::new();
    for day in 0..3 {
        ids.extend(run(&client, &task, day * 4..day * 4 + 4).await);
        sleep(DAY).await;
    }
    worker.shutdown().await;
    (engine, ids)
}

#[tokio::test(start_paused = true)]
async fn runs_near_the_retention_of_the_engine_are_a_warning_and_a_metric() {
    measure();
    collect_warnings();
    let (engine, _) = engine_with_runs().await;
    let client = engine.client();
    let archive = memory();
    // 27 days after the last run: the engine keeps runs for 30 days.
    sleep(26 * DAY).await;
    let report = archive.collect(&client, all()).dry_run().send().await.unwrap();
    assert_eq!((report.at_risk, report.engine_retention, MEASURED.take().1), (4, Some(30 * DAY), vec![]), "{report}");
    let text = "runs were archived only shortly before the engine would have dropped them";
    let before = warnings(text);
    let report = archive.collect(&client, all()).send().await.unwrap();
    assert_eq!((report.archived, report.at_risk), (12, 4), "{report}");
    assert_eq!(warnings(text), before + 1);
    // The gauge is that of the last collection, also if that archives nothing.
    assert_eq!(MEASURED.take().1.last(), Some(&4));
    let report = archive.collect(&client, all()).send().await.unwrap();
    assert_eq!((report.archived, report.at_risk, MEASURED.take().1), (0, 0, vec![0]), "{report}");
    assert_eq!(warnings(text), before + 1);

    // An age that is longer than the engine's retention. All runs are archived already.
    let text = "the age is not shorter than the retention period of the engine";
    let lost = "the engine soon drops runs that are not old enough to be archived";
    let report = archive.collect(&client, Retention::default()).send().await.unwrap();
    assert_eq!((report.is_age_too_long, warnings(text)), (true, 1), "{report}");
    let expected = "; the engine drops runs after 30 days, before they are old enough to be archived";
    assert!(report.to_string().ends_with(expected), "{report}");
    assert_eq!((report.at_risk, MEASURED.take().1, warnings(lost)), (0, vec![0], 0), "{report}");
    // Nothing is archived, so the runs will be lost.
    let rules = [
        (Retention::default(), 4),
        // Two of the four runs have failed.
        (Retention::default().workflow("count", Rule::older_than(30 * DAY).status(RunStatus::Failed)), 2),
        (Retention::default().workflow("count", Rule::never()), 0),
        (Retention::older_than(29 * DAY + HOUR), 4),
    ];
    for (retention, at_risk) in rules {
        let before = warnings(lost);
        let report = memory().collect(&client, retention).send().await.unwrap();
        assert_eq!((report.archived, report.at_risk, MEASURED.take().1), (0, at_risk, vec![at_risk]), "{report}");
        assert_eq!(warnings(lost) - before, usize::from(at_risk > 0));
    }
    // A collector whose interval is longer than what is left.
    let archive = memory();
    let mut collector = archive.collect(&client, all()).every(3 * DAY).start().unwrap();
    let report = collector.next_result().await.unwrap().unwrap();
    assert_eq!((report.archived, report.at_risk), (12, 12), "{report}");
    collector.shutdown().await;
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn runs_at_risk_are_reported_if_they_have_not_ended_and_if_the_collection_fails() {
    measure();
    collect_warnings();
    let (engine, client) = engine().await;
    let (worker, task) = start(&client).await;
    let endless = Task::new("endless", async |(): (), _: Context| {
        sleep(60 * DAY).await;
        Ok(())
    });
    let endless = endless.timeout(60 * DAY);
    let other = client.worker("other").register(&endless).build().unwrap().start().await.unwrap();
    client.run(&endless, &()).start().await.unwrap();
    run(&client, &task, 0..6).await;
    worker.shutdown().await;
    sleep(29 * DAY + HOUR).await;
    let (archived, active) =
        ("archived only shortly before the engine", "the engine soon drops runs that have not ended");
    let failed = "a collection failed, and the engine soon drops runs that it has found";
    let warned = || [warnings(archived), warnings(active), warnings(failed)];
    let report = memory().collect(&client, all()).send().await.unwrap();
    assert_eq!((report.archived, report.at_risk, MEASURED.take().1.last()), (6, 7, Some(&7)), "{report}");
    assert_eq!(warned(), [1, 1, 0]);
    // Runs of a workflow that is never archived do not count.
    let without = all().workflow("endless", Rule::never());
    assert_eq!(memory().collect(&client, without).send().await.unwrap().at_risk, 6);
    assert_eq!((MEASURED.take().1.last(), warned()), (Some(&6), [2, 1, 0]));

    let details = "GET /api/v1/stable/workflow-runs/{run}";
    engine.faults().inject_for(details, Fault::RejectRest(502), HOUR).unwrap();
    // The runs are listed after 16 seconds, and the fifth is fetched at the earliest five seconds later.
    let fail_lists = async {
        sleep(Duration::from_secs(18)).await;
        let list = "GET /api/v1/stable/tenants/{tenant}/workflow-runs";
        engine.faults().inject_for(list, Fault::RejectRest(502), HOUR).unwrap();
    };
    let archive = memory();
    let collection = archive.collect(&client, all()).requests_per_second(1).concurrency(1).send();
    let (result, ()) = tokio::join!(collection, fail_lists);
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    engine.faults().clear();
    assert_eq!((MEASURED.take().1, warned()), (vec![7], [2, 2, 1]));

    // The server drops runs after another period than the tenant shows.
    let collect = |age, period| memory().collect(&client, Retention::older_than(age)).engine_retention(period);
    let report = collect(Duration::ZERO, 60 * DAY).send().await.unwrap();
    assert_eq!((report.archived, report.at_risk, report.engine_retention), (6, 0, Some(60 * DAY)), "{report}");
    let report = collect(35 * DAY, 35 * DAY).send().await.unwrap();
    assert!(report.is_age_too_long, "{report}");
    let report = collect(35 * DAY, 36 * DAY).send().await.unwrap();
    assert!(!report.is_age_too_long, "{report}");
    other.shutdown_with_timeout(Duration::ZERO).await;
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_weekly_cron_shows_the_runs_that_its_next_collection_would_miss() {
    let (engine, client) = engine().await;
    let (worker, task) = start(&client).await;
    let collect =
        |archive: &Archive, age| archive.collect(&client, Retention::never().workflow("count", Rule::older_than(age)));
    let archives = [memory(), memory(), memory()];
    let [fits, late, daily] = &archives;
    // The last one counts as if it ran daily.
    let tasks = [
        collect(fits, 14 * DAY).collected_every(7 * DAY).task("fits"),
        collect(late, 24 * DAY).collected_every(7 * DAY).task("late"),
        collect(daily, 24 * DAY).task("daily"),
    ]
    .map(|task| task.cron("0 3 * * 0"));
    let collectors = tasks.iter().fold(client.worker("archiver"), hatchet::worker::WorkerBuilder::register);
    let collectors = collectors.build().unwrap().start().await.unwrap();
    let mut count = 0;
    for _ in 0..64 {
        count += run(&client, &task, 0..1).await.len();
        sleep(DAY).await;
    }
    let report = async |name: &str| -> CollectReport {
        let runs = client.runs(RunFilter::new(Window::all()).workflow(name)).page(1).await.unwrap();
        client.run_handle(runs.items[0].id).details().await.unwrap().output().unwrap().parse().unwrap()
    };
    // The runs of a week.
    let first = report("fits").await;
    assert_eq!((first.archived, first.at_risk), (7, 0), "{first}");
    // Each week, the engine drops one run before it is archived. Two more are dropped within eight days, and will not be old enough before.
    let second = report("late").await;
    assert_eq!((second.archived, second.at_risk), (6, 6 + 2), "{second}");
    let third = report("daily").await;
    assert_eq!((third.archived, third.at_risk), (6, 1), "{third}");
    // At the last of nine collections, 39 runs are or would be 24 days old.
    let number_of_runs = async |archive: &Archive| archive.runs(Window::all()).count().await.unwrap();
    assert_eq!((count, number_of_runs(fits).await, number_of_runs(late).await), (64, 49, 39 - 5));
    worker.shutdown().await;
    collectors.shutdown().await;
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn t4_collections_of_a_cron_are_visible_retried_and_single() {
    let (engine, client) = engine().await;
    let (worker, task) = start(&client).await;
    let archive = memory();
    let collect = archive.collect(&client, all()).task("archive-runs").cron("0 3 * * *");
    let collector = client.worker("archiver").slots(10).register(&collect).build().unwrap().start().await.unwrap();
    // An archive also has the runs that archive.
    run(&client, &task, 0..3).await;
    // The first request of the first attempt is rejected for longer than its retries take.
    let list = "GET /api/v1/stable/tenants/{tenant}/workflow-runs";
    sleep(16 * HOUR).await;
    engine.faults().inject_for(list, Fault::RejectRest(503), HOUR + Duration::from_secs(30)).unwrap();
    sleep(2 * HOUR).await;
    engine.faults().clear();
    sleep(2 * DAY).await;

    let own = RunFilter::new(Window::all()).workflow("archive-runs");
    let runs = client.runs(own.clone()).page(10).await.unwrap();
    assert_eq!(runs.items.len(), 3, "{runs:#?}");
    let first = client.run_handle(runs.items[2].id).details().await.unwrap();
    assert!(matches!(&first.trigger, Trigger::Cron(cron) if cron.expression == "0 3 * * *"), "{first}");
    assert_eq!(first.status, RunStatus::Completed);
    assert!(first.retry_count() >= 1, "{first}");
    let report: CollectReport = first.output().unwrap().parse().unwrap();
    assert_eq!((report.archived, report.dropped), (3, 0), "{report}");
    for id in [runs.items[0].id, runs.items[1].id] {
        assert_eq!(client.run_handle(id).details().await.unwrap().status, RunStatus::Completed);
    }
    // The later ones have archived those before them.
    assert_eq!(archive.runs(own).count().await.unwrap(), 2);

    // While one runs, another is cancelled: it is slowed down here.
    engine.faults().inject_for(list, Fault::Delay(Duration::from_secs(5)), HOUR).unwrap();
    let first = client.run(&collect, &()).start().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let second = client.run(&collect, &()).start().await.unwrap();
    assert!(matches!(second.outcome().await.unwrap(), Outcome::Cancelled(_)));
    assert!(matches!(first.outcome().await.unwrap(), Outcome::Completed(_)));
    worker.shutdown().await;
    collector.shutdown().await;
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_collector_varies_its_interval_and_reports_its_last_round() {
    let (engine, _) = engine_with_runs().await;
    let archive = memory();
    let mut collector = archive.collect(&engine.client(), all()).every(HOUR).start().unwrap();
    assert!(collector.last_result().is_none());
    let mut ends = Vec::new();
    for round in 0..20 {
        let report = collector.next_result().await.unwrap().unwrap();
        assert_eq!((report.archived, report.unchanged), if round == 0 { (12, 0) } else { (0, 12) }, "{report}");
        assert_eq!(collector.last_result().unwrap().unwrap(), report);
        ends.push(Instant::now());
    }
    let intervals: BTreeSet<Duration> = ends.windows(2).skip(1).map(|ends| ends[1] - ends[0]).collect();
    assert!(intervals.len() > 10, "{intervals:?}");
    // A round takes some time itself.
    let within = HOUR.mul_f64(0.89)..HOUR.mul_f64(1.11);
    assert!(intervals.iter().all(|interval| within.contains(interval)), "{intervals:?}");
    collector.shutdown().await;
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_is_aborted_warns_only_if_it_was_collecting() {
    collect_warnings();
    let (engine, _) = engine_with_runs().await;
    let client = engine.client();
    let text = "did not commit its last runs in time";
    let start = |archive: &Archive| archive.collect(&client, all()).requests_per_second(1).every(HOUR).start().unwrap();
    let archive = memory();
    let mut collector = start(&archive);
    collector.next_result().await.unwrap().unwrap();
    collector.shutdown_with_timeout(Duration::ZERO).await;
    assert_eq!(warnings(text), 0);
    let collector = start(&memory());
    sleep(Duration::from_secs(30)).await;
    collector.shutdown_with_timeout(Duration::ZERO).await;
    assert_eq!(warnings(text), 1);
    engine.shutdown().await;
}

/// Those that it has found and not fetched are still in the engine, and are fetched by the next collection.
#[tokio::test(start_paused = true)]
async fn a_collection_that_is_stopped_warns_of_the_late_runs_that_it_has_archived() {
    collect_warnings();
    let (engine, _) = engine_with_runs().await;
    sleep(26 * DAY).await;
    let archive = memory();
    let collection = archive.collect(&engine.client(), all()).requests_per_second(1).concurrency(1);
    let collector = collection.every(HOUR).start().unwrap();
    sleep(Duration::from_secs(24)).await;
    collector.shutdown().await;
    let archived = archive.runs(Window::all()).count().await.unwrap();
    assert!((1..4).contains(&archived), "{archived}");
    let late = "runs were archived only shortly before the engine would have dropped them";
    let expected = format!("at_risk={archived} ");
    let is_exact = |text: &String| text.contains(late) && text.contains(&expected);
    WARNINGS
        .with_borrow(|warnings| assert_eq!(warnings.iter().filter(|text| is_exact(text)).count(), 1, "{warnings:?}"));
    engine.shutdown().await;
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn numbers_keep_all_their_digits() {
    const NUMBERS: &str = r#"{"big":123456789012345678901234567890,"small":0.1000000000000000055}"#;
    let (engine, client) = engine().await;
    let first = Task::new("first", async |_: Value, _: Context| Ok(raw(NUMBERS)));
    let second = Task::new("second", async |_: Value, _: Context| Ok(raw("123456789012345678901234567890")));
    let dag: Workflow<Value> = Workflow::new("dag").task(&first).task_after(&second, ["first"]);
    let alone = Task::new("alone", async |_: Value, _: Context| Ok(raw(NUMBERS)));
    let worker = client.worker("worker").register(&dag).register(&alone).build().unwrap().start().await.unwrap();
    let mut ids = Vec::new();
    for run in [
        client.run(&dag, &json!({})).start().await.unwrap().id(),
        client.run(&alone, &json!({})).start().await.unwrap().id(),
    ] {
        client.run_handle(run).outcome().await.unwrap();
        ids.push(run);
    }
    sleep(Duration::from_secs(60)).await;
    let archive = memory();
    assert_eq!(archive.collect(&client, all()).send().await.unwrap().archived, 2);
    for id in ids {
        let (live, kept) = (client.run_handle(id).details().await.unwrap(), archive.details(id).await.unwrap());
        assert_eq!(kept.output().unwrap().as_str(), live.output().unwrap().as_str());
        assert!(kept.output().unwrap().as_str().contains("123456789012345678901234567890"), "{kept:?}");
        for (kept, live) in kept.tasks.iter().zip(&live.tasks) {
            let unwrapped = |text: &str| {
                text.replace("{\"_value\":123456789012345678901234567890}", "123456789012345678901234567890")
            };
            assert_eq!(kept.output().unwrap().as_str(), unwrapped(live.output().unwrap().as_str()));
        }
        let first = kept.tasks.iter().find(|task| task.name != "second").unwrap();
        assert_eq!(first.output().unwrap().as_str(), NUMBERS);
    }
    worker.shutdown().await;
    engine.shutdown().await;
}

/// The runs of all pages, each read with a token that was a string in between.
macro_rules! all_pages {
    ($query:expr, $size:expr) => {{
        let (mut runs, mut token): (Vec<RunSummary>, Option<String>) = (Vec::new(), None);
        loop {
            let query = match &token {
                Some(token) => $query.after(token.parse().unwrap()),
                None => $query,
            };
            let page = query.page($size).await.unwrap();
            assert!(page.items.len() <= $size && (page.next.is_none() || page.items.len() == $size));
            runs.extend(page.items);
            let Some(next) = page.next else { break runs };
            token = Some(next.to_string());
        }
    }};
}

#[tokio::test(start_paused = true)]
async fn pages_are_together_the_whole_archive_and_the_whole_history() {
    let (engine, client) = engine().await;
    let (worker, task) = start(&client).await;
    let archive = memory();
    // The runs of one call have the same creation time.
    for round in 0..4 {
        run(&client, &task, round * 5..round * 5 + 5).await;
        if round != 3 {
            archive.collect(&client, all()).send().await.unwrap();
        }
        sleep(10 * DAY).await;
    }
    // The engine has dropped the first round, and the archive does not have the last. Both have the others.
    let history = History::new(&client, &archive);
    let failed = || RunFilter::new(Window::all()).status(RunStatus::Failed);
    let any = || RunFilter::new(Window::all());
    let items = async |mut items: hatchet::archive::HistoryRuns| {
        let mut all = BTreeSet::new();
        while let Some(run) = items.next().await.transpose().unwrap() {
            assert!(all.insert(run.id));
        }
        all
    };
    for filter in [any(), failed(), any().workflow("count")] {
        let expected = items(history.runs(filter.clone()).items()).await;
        let archived = archive.runs(filter.clone()).count().await.unwrap();
        assert!(expected.len() as u64 > archived && archived > 0);
        for size in [1, 2, 3, 5, 7, 100] {
            let runs = all_pages!(history.runs(filter.clone()), size);
            assert!(runs.is_sorted_by(|one, other| one.created_at >= other.created_at));
            assert_eq!(runs.iter().map(|run| run.id).collect::<BTreeSet<_>>(), expected, "pages of {size}");
            assert_eq!(runs.len(), expected.len(), "each run once in pages of {size}");
            let runs = all_pages!(archive.runs(filter.clone()), size);
            assert_eq!(runs.len() as u64, archived, "pages of {size}");
            assert_eq!(runs.iter().map(|run| run.id).collect::<BTreeSet<_>>().len() as u64, archived);
        }
    }
    // Totals are bounds, unless the page has all runs.
    assert_eq!(archive.runs(any()).page(100).await.unwrap().total, Total::Exactly(15));
    assert_eq!(archive.runs(failed()).page(2).await.unwrap().total, Total::AtMost(15));
    assert_eq!(history.runs(any()).page(100).await.unwrap().total, Total::Exactly(20));
    assert_eq!(history.runs(any()).page(2).await.unwrap().total, Total::AtMost(30));
    assert_eq!(
        history
            .runs(failed())
            .after(history.runs(failed()).page(3).await.unwrap().next.unwrap())
            .count()
            .await
            .unwrap(),
        10
    );

    // The other endings continue after the token, too.
    let rest = archive.runs(any()).after(archive.runs(any()).page(3).await.unwrap().next.unwrap());
    let mut details = rest.details();
    let mut count = 0;
    while details.next().await.transpose().unwrap().is_some() {
        count += 1;
    }
    assert_eq!((count, rest.count().await.unwrap()), (12, 15));

    // A token belongs to one query.
    let archive_token = archive.runs(any()).page(3).await.unwrap().next.unwrap();
    for error in [
        archive.runs(failed()).after(archive_token.clone()).page(2).await.unwrap_err(),
        history.runs(any()).after(archive_token.clone()).page(2).await.unwrap_err(),
        client.runs(any()).after(archive_token).page(2).await.unwrap_err(),
        archive.runs(any()).page(0).await.unwrap_err(),
        history.runs(any()).page(1001).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    worker.shutdown().await;
    engine.shutdown().await;
}
