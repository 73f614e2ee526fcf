//! W6 and W7: concurrency limits and rate limits.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hatchet::embedded::{Engine, Quirks};
use hatchet::model::{RateLimitWindow, TimeoutKind};
use hatchet::worker::{RunningWorker, WorkerBuilder};
use hatchet::workflow::Runnable;
use hatchet::workflow::{Concurrency, ConcurrencyStrategy, RateLimit, WorkflowRef};
use hatchet::{Client, Context, ErrorKind, Outcome, RunHandle, RunStatus, Task, Workflow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::setup::{Setup, rows, until};

rows! {
    w6_further_runs_of_a_key_wait,
    w6_newer_runs_cancel_older_ones,
    w6_new_runs_are_cancelled,
    w6_of_the_runs_that_wait_the_newest_or_the_oldest_are_kept,
    w6_several_limits_apply_one_after_the_other,
    w6_a_workflow_holds_its_place_until_its_end,
    w6_a_newer_run_of_a_workflow_cancels_older_ones,
    w6_an_expression_sets_the_limit_of_a_key,
    w6_workflows_share_a_limit_by_its_name,
    w6_a_run_that_waits_too_long_times_out,
    w6_a_key_that_cannot_be_evaluated_fails_the_task,
    w7_static_limits_restore_their_units,
    w7_dynamic_limits_have_their_own_keys,
    w7_limits_that_do_not_exist_are_rejected,
}

/// The message of a run that a limit cancels.
const EXCEEDS: &str = "Cancelled due to concurrency strategy";

#[derive(Clone, Serialize, Deserialize)]
struct Job {
    key: String,
    millis: u64,
}

fn job(key: &str, millis: u64) -> Job {
    Job { key: key.into(), millis }
}

/// How many attempts of each key run now, and how many ran at most at the same time.
type Running = Arc<Mutex<HashMap<String, (u32, u32)>>>;

/// Sleeps, and counts how many of its attempts do so at the same time.
fn work(name: String, running: &Running) -> Task<Job, ()> {
    let running = Arc::clone(running);
    Task::new(name, move |job: Job, _: Context| {
        let running = Arc::clone(&running);
        async move {
            {
                let mut running = running.lock().unwrap();
                let (now, max) = running.entry(job.key.clone()).or_default();
                *now += 1;
                *max = (*max).max(*now);
            }
            sleep(Duration::from_millis(job.millis)).await;
            running.lock().unwrap().get_mut(&job.key).unwrap().0 -= 1;
            Ok(())
        }
    })
}

fn limit(strategy: ConcurrencyStrategy, max_runs: u32) -> Concurrency {
    Concurrency::new("input.key", strategy).max_runs(max_runs)
}

async fn start<O: serde::de::DeserializeOwned>(setup: &Setup, task: &Task<Job, O>, job: Job) -> RunHandle<O> {
    setup.hatchet.run(task, &job).start().await.unwrap()
}

async fn message<O: serde::de::DeserializeOwned>(run: &RunHandle<O>) -> Option<String> {
    match run.outcome().await.unwrap() {
        Outcome::Cancelled(cancellation) => cancellation.message,
        other => panic!("{other:?}"),
    }
}

async fn w6_further_runs_of_a_key_wait(setup: Setup) {
    let running = Running::default();
    let task = work(setup.name("work"), &running).concurrency(limit(ConcurrencyStrategy::GroupRoundRobin, 2));
    let worker = setup.worker(&task).await;
    let mut runs = Vec::new();
    for at in 0..6 {
        runs.push(start(&setup, &task, job(if at == 5 { "b" } else { "a" }, 300)).await);
    }
    for run in &runs {
        assert!(matches!(run.outcome().await.unwrap(), Outcome::Completed(_)));
    }
    let max = |key: &str| running.lock().unwrap()[key].1;
    assert_eq!((max("a"), max("b")), (2, 1));
    worker.shutdown().await;
}

async fn w6_newer_runs_cancel_older_ones(setup: Setup) {
    let task =
        work(setup.name("work"), &Running::default()).concurrency(limit(ConcurrencyStrategy::CancelInProgress, 1));
    let worker = setup.worker(&task).await;
    let first = start(&setup, &task, job("a", 60_000)).await;
    let other = start(&setup, &task, job("b", 60_000)).await;
    until(&first, RunStatus::Running).await;
    let second = start(&setup, &task, job("a", 100)).await;
    assert_eq!(message(&first).await.as_deref(), Some(EXCEEDS));
    assert!(matches!(second.outcome().await.unwrap(), Outcome::Completed(_)));
    let details = first.details().await.unwrap();
    assert_eq!((details.status, details.tasks[0].attempts.len()), (RunStatus::Cancelled, 1));
    assert_eq!(other.details().await.unwrap().status, RunStatus::Running, "another key");
    other.cancel().send().await.unwrap();
    worker.shutdown().await;
}

async fn w6_new_runs_are_cancelled(setup: Setup) {
    let task = work(setup.name("work"), &Running::default()).concurrency(limit(ConcurrencyStrategy::CancelNewest, 1));
    let worker = setup.worker(&task).await;
    let first = start(&setup, &task, job("a", 3000)).await;
    until(&first, RunStatus::Running).await;
    let second = start(&setup, &task, job("a", 100)).await;
    assert_eq!(message(&second).await.as_deref(), Some(EXCEEDS));
    let details = second.details().await.unwrap();
    assert!(details.started_at().is_none(), "it never started");
    assert!(matches!(first.outcome().await.unwrap(), Outcome::Completed(_)));
    // The place is free again.
    assert!(matches!(start(&setup, &task, job("a", 100)).await.outcome().await.unwrap(), Outcome::Completed(_)));
    worker.shutdown().await;
}

/// A newer embedded engine, if the test does not run on a real one.
async fn newer_engine(setup: &Setup, version: &str) -> Option<Engine> {
    match &setup.engine {
        Some(_) => Some(Engine::builder().quirks(Quirks::all()).version(version).start().await.unwrap()),
        None => None,
    }
}

async fn w6_of_the_runs_that_wait_the_newest_or_the_oldest_are_kept(setup: Setup) {
    let newer = newer_engine(&setup, "v0.105.16").await;
    let hatchet = newer.as_ref().map_or_else(|| setup.hatchet.clone(), Engine::client);
    // Each name, with the number of those of five waiting runs that are kept.
    for (strategy, kept) in [
        (ConcurrencyStrategy::CancelQueuedExceptNewest, [3, 4]),
        (ConcurrencyStrategy::CancelQueuedExceptOldest, [0, 1]),
    ] {
        let task = work(setup.name(&strategy.to_string()), &Running::default()).concurrency(limit(strategy, 2));
        let flow = Workflow::<Job>::new(setup.name(&format!("flow-{strategy}")))
            .task(&work("first".into(), &Running::default()))
            .task_after(&work("last".into(), &Running::default()), "first")
            .concurrency(limit(strategy, 2));
        let worker = hatchet.worker(setup.name("worker")).slots(10).register(&task).register(&flow).build().unwrap();
        let old = setup.hatchet.worker(setup.name("old")).register(&task).build().unwrap().start().await;
        if let Err(error) = old {
            let text = format!("the concurrency strategy {strategy}: expected engine v0.105.16 or later, got v0.104.7");
            assert!(error.to_string().contains(&text), "{error}");
            assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Unimplemented, true));
            if newer.is_none() {
                return setup.skipped(&text);
            }
        }
        let worker = worker.start().await.unwrap();
        queued_runs(&hatchet, &task, kept).await;
        queued_runs(&hatchet, &flow, kept).await;
        worker.shutdown().await;
    }
}

/// Starts two runs, and five more while those are running. Of these, some are kept, and the others are cancelled before they start.
async fn queued_runs<O: serde::de::DeserializeOwned>(
    hatchet: &Client,
    runnable: &impl Runnable<Input = Job, Output = O>,
    kept: [usize; 2],
) {
    let start = async |millis| hatchet.run(runnable, &job("a", millis)).start().await.unwrap();
    let running = [start(3000).await, start(3000).await];
    for run in &running {
        until(run, RunStatus::Running).await;
    }
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(start(100).await);
    }
    for (number, run) in waiting.iter().enumerate() {
        match run.outcome().await.unwrap() {
            Outcome::Completed(_) => assert!(kept.contains(&number), "{number}"),
            Outcome::Cancelled(cancellation) => {
                assert!(!kept.contains(&number), "{number}");
                assert_eq!(cancellation.message.as_deref(), Some(EXCEEDS));
                assert!(run.details().await.unwrap().started_at().is_none(), "it never started");
            }
            other => panic!("{other:?}"),
        }
    }
    for run in &running {
        assert!(matches!(run.outcome().await.unwrap(), Outcome::Completed(_)));
    }
}

async fn w6_several_limits_apply_one_after_the_other(setup: Setup) {
    let running = Running::default();
    let all = Concurrency::new("'all'", ConcurrencyStrategy::GroupRoundRobin).max_runs(2);
    let task =
        work(setup.name("work"), &running).concurrency(limit(ConcurrencyStrategy::GroupRoundRobin, 1)).concurrency(all);
    let worker = setup.worker(&task).await;
    let begin = Instant::now();
    let mut runs = Vec::new();
    for key in ["a", "a", "b", "c"] {
        runs.push(start(&setup, &task, job(key, 1000)).await);
    }
    for run in &runs {
        assert!(matches!(run.outcome().await.unwrap(), Outcome::Completed(_)));
    }
    assert_eq!(running.lock().unwrap()["a"].1, 1);
    // Four runs of one second, two at a time.
    assert!(begin.elapsed() >= Duration::from_millis(1900), "{:?}", begin.elapsed());
    worker.shutdown().await;
}

async fn w6_a_workflow_holds_its_place_until_its_end(setup: Setup) {
    let flow = |name: &str, strategy| {
        let nap = |name: &str| work(name.to_owned(), &Running::default());
        let flow = Workflow::<Job>::new(setup.name(name)).task(&nap("first")).task_after(&nap("last"), "first");
        flow.concurrency(limit(strategy, 1))
    };
    let waiting = flow("waiting", ConcurrencyStrategy::GroupRoundRobin);
    let newest = flow("newest", ConcurrencyStrategy::CancelNewest);
    let worker = setup.hatchet.worker(setup.name("worker")).register(&waiting).register(&newest).build().unwrap();
    let worker = worker.start().await.unwrap();
    let start = async |flow: &Workflow<Job>, millis| setup.hatchet.run(flow, &job("a", millis)).start().await.unwrap();
    let (one, two) = (start(&waiting, 500).await, start(&waiting, 100).await);
    for run in [&one, &two] {
        assert!(matches!(run.outcome().await.unwrap(), Outcome::Completed(_)));
    }
    let (one, two) = (one.details().await.unwrap(), two.details().await.unwrap());
    assert!(two.task("first").unwrap().attempts[0].started_at >= one.task("last").unwrap().attempts[0].finished_at);

    let one = start(&newest, 2000).await;
    until(&one, RunStatus::Running).await;
    let two = start(&newest, 100).await;
    assert_eq!(message(&two).await.as_deref(), Some(EXCEEDS));
    let details = two.details().await.unwrap();
    let statuses: Vec<_> = details.tasks.iter().map(|task| task.status.clone()).collect();
    assert_eq!(statuses, [RunStatus::Cancelled, RunStatus::Cancelled]);
    assert!(matches!(one.outcome().await.unwrap(), Outcome::Completed(_)));
    worker.shutdown().await;
}

async fn w6_a_newer_run_of_a_workflow_cancels_older_ones(setup: Setup) {
    let nap = |name: &str| work(name.to_owned(), &Running::default());
    let flow = Workflow::<Job>::new(setup.name("flow")).task(&nap("first")).task_after(&nap("last"), "first");
    let flow = flow.concurrency(limit(ConcurrencyStrategy::CancelInProgress, 1));
    let worker = setup.worker(&flow).await;
    let start = async |key, millis| setup.hatchet.run(&flow, &job(key, millis)).start().await.unwrap();
    let (first, other) = (start("a", 60_000).await, start("b", 60_000).await);
    until(&first, RunStatus::Running).await;
    until(&other, RunStatus::Running).await;
    let second = start("a", 50).await;
    assert_eq!(message(&first).await.as_deref(), Some(EXCEEDS));
    assert!(matches!(second.outcome().await.unwrap(), Outcome::Completed(_)));
    let details = first.details().await.unwrap();
    let has_started =
        |name: &str| details.task(name).unwrap().attempts.iter().any(|attempt| attempt.started_at.is_some());
    assert_eq!((has_started("first"), has_started("last")), (true, false), "{details:?}");
    assert!(details.tasks.iter().all(|task| task.status == RunStatus::Cancelled), "{details:?}");
    assert_eq!(other.details().await.unwrap().status, RunStatus::Running, "another key");
    other.cancel().send().await.unwrap();
    worker.shutdown().await;
}

/// A worker, unless the engine is too old for its limits.
async fn start_if_supported(setup: &Setup, worker: WorkerBuilder) -> Option<RunningWorker> {
    match worker.build().unwrap().start().await {
        Ok(worker) => Some(worker),
        Err(error) => {
            assert!(setup.engine.is_none() && error.kind() == ErrorKind::Unimplemented, "{error}");
            setup.skipped(&error);
            None
        }
    }
}

async fn w6_an_expression_sets_the_limit_of_a_key(setup: Setup) {
    let newer = newer_engine(&setup, "v0.106.5").await;
    let hatchet = newer.as_ref().map_or_else(|| setup.hatchet.clone(), Engine::client);
    let running = Running::default();
    let by_input = Concurrency::new("input.key", ConcurrencyStrategy::GroupRoundRobin);
    let task =
        work(setup.name("work"), &running).concurrency(by_input.max_runs_expression("input.millis > 300.0 ? 3 : 1"));
    let worker = hatchet.worker(setup.name("worker")).slots(10).register(&task);
    let Some(worker) = start_if_supported(&setup, worker).await else { return };
    for (key, millis, expected) in [("narrow", 200, 1), ("wide", 400, 3)] {
        let runs = hatchet.run_many(&task, (0..4).map(|_| job(key, millis))).results().await.unwrap();
        assert!(runs.iter().all(Result::is_ok));
        assert_eq!(running.lock().unwrap()[key].1, expected, "{key}");
    }
    worker.shutdown().await;
}

async fn w6_workflows_share_a_limit_by_its_name(setup: Setup) {
    let newer = newer_engine(&setup, "v0.106.5").await;
    let hatchet = newer.as_ref().map_or_else(|| setup.hatchet.clone(), Engine::client);
    let running = Running::default();
    let shared = || limit(ConcurrencyStrategy::GroupRoundRobin, 1).name(setup.name("shared")).tenant_scoped();
    let (one, two) = (
        work(setup.name("one"), &running).concurrency(shared()),
        work(setup.name("two"), &running).concurrency(shared()),
    );
    let worker = hatchet.worker(setup.name("worker")).slots(10).register(&one).register(&two);
    let Some(worker) = start_if_supported(&setup, worker).await else { return };
    let mut runs = Vec::new();
    for task in [&one, &two, &one, &two] {
        runs.push(hatchet.run(task, &job("a", 200)).start().await.unwrap());
    }
    runs.push(hatchet.run(&one, &job("b", 200)).start().await.unwrap());
    for run in &runs {
        run.result().await.unwrap();
    }
    let most = running.lock().unwrap().iter().map(|(key, (_, most))| (key.clone(), *most)).collect::<BTreeMap<_, _>>();
    assert_eq!(most, BTreeMap::from([("a".into(), 1), ("b".into(), 1)]));
    worker.shutdown().await;
}

async fn w6_a_run_that_waits_too_long_times_out(setup: Setup) {
    let task = work(setup.name("work"), &Running::default())
        .concurrency(limit(ConcurrencyStrategy::GroupRoundRobin, 1))
        .schedule_timeout(Duration::from_secs(2));
    let worker = setup.worker(&task).await;
    let first = start(&setup, &task, job("a", 5000)).await;
    until(&first, RunStatus::Running).await;
    let second = start(&setup, &task, job("a", 100)).await;
    let Outcome::TimedOut(timeout) = second.outcome().await.unwrap() else { panic!() };
    assert_eq!(timeout.kind, TimeoutKind::Schedule);
    assert!(matches!(first.outcome().await.unwrap(), Outcome::Completed(_)));
    worker.shutdown().await;
}

async fn w6_a_key_that_cannot_be_evaluated_fails_the_task(setup: Setup) {
    let task = work(setup.name("work"), &Running::default())
        .concurrency(Concurrency::new("input.missing", ConcurrencyStrategy::CancelNewest))
        .retries(2);
    let worker = setup.worker(&task).await;
    let run = start(&setup, &task, job("a", 100)).await;
    let Outcome::Failed(failure) = run.outcome().await.unwrap() else { panic!() };
    let text = "failed to parse step expression (input.missing): no such key: missing";
    assert_eq!(failure.message.as_deref(), Some(text));
    assert_eq!(run.details().await.unwrap().attempt(), 1);
    worker.shutdown().await;
}

/// Returns its input.
fn echo(name: String) -> Task<Value, Value> {
    Task::new(name, async |input: Value, _: Context| Ok(input))
}

async fn w7_static_limits_restore_their_units(setup: Setup) {
    let key = setup.name("api");
    let api = setup.hatchet.rate_limit(&key, 3, RateLimitWindow::Minute).send().await.unwrap();
    let task = echo(setup.name("echo"))
        .rate_limit(RateLimit::new(&key))
        .rate_limit(RateLimit::dynamic(format!("'{key}:' + input.user"), RateLimitWindow::Year).limit(100));
    let worker = setup.worker(&task).await;
    let (begin, mut runs) = (Instant::now(), Vec::new());
    for _ in 0..4 {
        runs.push(setup.hatchet.run(&task, &json!({"user": "ada"})).start().await.unwrap());
    }
    for run in &runs[..3] {
        run.result().await.unwrap();
    }
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    // A real engine stores the remaining units a moment later.
    setup.eventually(async || api.details().await.unwrap().remaining == 0).await;
    let details = api.details().await.unwrap();
    assert_eq!((details.key.as_str(), details.limit, details.remaining), (key.as_str(), 3, 0));
    assert_eq!((details.window, details.last_refill_at.is_some()), (Some(RateLimitWindow::Minute), true));
    assert_eq!(runs[3].details().await.unwrap().status, RunStatus::Queued);
    runs[3].result().await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(55), "{:?}", begin.elapsed());
    // A limit that is used cannot be deleted.
    let error = setup.hatchet.rate_limit_handle(&key).delete().send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    worker.shutdown().await;
}

async fn w7_dynamic_limits_have_their_own_keys(setup: Setup) {
    let prefix = setup.name("tokens");
    let tokens = RateLimit::dynamic(format!("'{prefix}:' + input.user"), RateLimitWindow::Day);
    let task = echo(setup.name("echo")).rate_limit(tokens.limit(10).units_expression("input.n"));
    let task = task.schedule_timeout(Duration::from_secs(8));
    let worker = setup.worker(&task).await;
    let start =
        async |user: &str, n: i32| setup.hatchet.run(&task, &json!({"user": user, "n": n})).start().await.unwrap();
    start("ada", 6).await.result().await.unwrap();
    start("bob", 10).await.result().await.unwrap();
    let limits = async || setup.hatchet.rate_limits().key_contains(&prefix).get().await.unwrap();
    setup.eventually(async || limits().await.iter().any(|limit| limit.remaining == 0)).await;
    let limits = limits().await;
    let left: Vec<_> = limits.iter().map(|limit| (limit.key.clone(), limit.limit, limit.remaining)).collect();
    assert_eq!(left, [(format!("{prefix}:ada"), 10, 4), (format!("{prefix}:bob"), 10, 0)]);
    // It does not hold up others, and waits for the next day: until then its schedule timeout has no effect.
    let waiting = start("ada", 5).await;
    start("ada", 4).await.result().await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(waiting.details().await.unwrap().status, RunStatus::Queued);
    assert!(waiting.cancel().send().await.unwrap().is_applied());
    // A key that is not a string fails the task.
    let run = setup.hatchet.run(&task, &json!({"user": 1, "n": 1})).start().await.unwrap();
    let Outcome::Failed(failure) = run.outcome().await.unwrap() else { panic!() };
    let text = format!("failed to parse step expression ('{prefix}:' + input.user): no such overload");
    assert_eq!(failure.message, Some(text));
    worker.shutdown().await;
}

async fn w7_limits_that_do_not_exist_are_rejected(setup: Setup) {
    let key = setup.name("nothing");
    let task = echo(setup.name("echo")).rate_limit(RateLimit::new(&key));
    let worker = || setup.hatchet.worker(setup.name("worker")).register(&task).build().unwrap();
    let error = worker().start().await.unwrap_err();
    assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::NotFound, true));
    let text = format!("task {:?}: rate limit {key:?}: expected a limit that exists, got none", task.name());
    assert!(error.to_string().starts_with(&text), "{error}");
    let any: WorkflowRef<Value, Value> = WorkflowRef::new(task.name());
    let error = setup.hatchet.run(&any, &json!({})).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WorkflowNotFound, "nothing was stored");
    let error = setup.hatchet.rate_limit_handle(&key).details().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);

    let invalid = setup.hatchet.rate_limit("", 1, RateLimitWindow::Second).send().await.unwrap_err();
    assert_eq!(invalid.to_string(), "invalid rate limit: expected a non-empty key without U+0000, got \"\"");
    let invalid = setup.hatchet.rate_limit("a", u32::MAX, RateLimitWindow::Second).send().await.unwrap_err();
    assert_eq!(invalid.to_string(), "invalid rate limit: expected at most 2147483647 units, got 4294967295");

    let limit = setup.hatchet.rate_limit(&key, 5, RateLimitWindow::Hour).send().await.unwrap();
    worker().start().await.unwrap().shutdown().await;
    // A changed limit keeps its key.
    setup.hatchet.rate_limit(&key, 0, RateLimitWindow::Hour).send().await.unwrap();
    assert_eq!(limit.details().await.unwrap().limit, 0);
}
