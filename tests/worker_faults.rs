//! Workers whose calls fail at random, are slow, or all fail for a while: each run ends once, with its result, and the report adds up. The
//! tests use the embedded engine and paused time.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may panic")]

mod support;

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use futures_util::TryStreamExt as _;
use hatchet::embedded::{Engine, Fault, Faults};
use hatchet::worker::WorkerReport;
use hatchet::workflow::{BatchItem, BatchOptions};
use hatchet::{Client, Context, RunHandle, RunStatus, Task, TaskError, Worker};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);
/// More calls than a test makes.
const PLANNED: usize = 1_000_000;
const BULK_START: &str = "BulkTriggerWorkflow";
const STREAMS: [&str; 3] = ["ListenV2", "SubscribeToWorkflowEvents", "SubscribeToWorkflowRuns"];

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Job {
    number: usize,
    millis: u64,
}

/// How often each job was executed.
type Executions = Arc<Mutex<Vec<u32>>>;

/// Sleeps, logs, sends a chunk, and returns the number of its job.
fn task(executions: &Executions) -> Task<Job, usize> {
    let task =
        Task::with_state("task", Arc::clone(executions), async |executions: Executions, job: Job, context: Context| {
            executions.lock().unwrap()[job.number] += 1;
            context.log(format!("job {}", job.number));
            context.put("a chunk").await?;
            // It may fail like any call.
            drop(context.refresh_timeout(SECOND).send().await);
            sleep(Duration::from_millis(job.millis)).await;
            Ok(job.number)
        });
    task.timeout(24 * 3600 * SECOND).schedule_timeout(24 * 3600 * SECOND)
}

/// The number of the first child.
const FIRST_CHILD: usize = 100;

/// Starts a child for its job, and waits for it. If the child cannot be started, it fails and is retried: the first child of each attempt
/// is the same run.
fn parent(child: &Task<Job, usize>, executions: &Executions) -> Task<Job, usize> {
    let state = (child.clone(), Arc::clone(executions));
    let parent = Task::with_state(
        "parent",
        state,
        async |(child, executions): (Task<Job, usize>, Executions), job: Job, context: Context| {
            executions.lock().unwrap()[job.number] += 1;
            let number = job.number + FIRST_CHILD;
            let child_job = Job { number, ..job };
            let run = if job.number.is_multiple_of(2) {
                context.run(&child, &child_job).start().await?
            } else {
                let mut runs = context.run_many(&child, [child_job]).start().await?;
                runs.remove(0)?
            };
            // The engine keeps the slot all the same, as a quirk.
            drop(context.release_slot().send().await);
            Ok(run.result().await? - FIRST_CHILD)
        },
    );
    parent.retries(50).timeout(24 * 3600 * SECOND).schedule_timeout(24 * 3600 * SECOND)
}

/// A batch task whose jobs with odd numbers fail once: a failure is reported with the number of its attempt, which the worker has to fetch.
fn batch_task(executions: &Executions) -> Task<Job, usize> {
    let executions = Arc::clone(executions);
    let options = BatchOptions::new(5).max_interval(SECOND);
    let task = Task::batch("batch", options, move |items: Vec<BatchItem<Job>>| {
        let executions = Arc::clone(&executions);
        async move {
            sleep(SECOND).await;
            let mut executions = executions.lock().unwrap();
            let execute = |number: usize| {
                executions[number] += 1;
                if number % 2 == 1 && executions[number] == 1 { Err(TaskError::new("once")) } else { Ok(number) }
            };
            Ok(items.into_iter().map(|item| item.input.number).map(execute).collect())
        }
    });
    task.retries(50).timeout(24 * 3600 * SECOND).schedule_timeout(24 * 3600 * SECOND)
}

fn executions(count: usize) -> Executions {
    Arc::new(Mutex::new(vec![0; count]))
}

async fn start_jobs(hatchet: &Client, task: &Task<Job, usize>, millis: &[u64]) -> Vec<RunHandle<usize>> {
    let jobs = millis.iter().enumerate().map(|(number, millis)| Job { number, millis: *millis });
    hatchet.run_many(task, jobs).start().await.unwrap().into_iter().map(Result::unwrap).collect()
}

/// Each run has completed once, with the result of its job.
async fn check_results(runs: &[RunHandle<usize>]) {
    for (number, run) in runs.iter().enumerate() {
        assert_eq!(run.result().await.unwrap(), number);
    }
    // The engine shows ends late.
    sleep(10 * SECOND).await;
    for run in runs {
        let details = run.details().await.unwrap();
        assert_eq!((details.status.clone(), details.conflicts.len()), (RunStatus::Completed, 0), "{details:?}");
        let attempts = &details.tasks[0].attempts;
        assert_eq!(attempts.iter().filter(|attempt| attempt.status == RunStatus::Completed).count(), 1, "{attempts:?}");
    }
}

/// Makes all calls fail for some time, and cuts all streams.
async fn outage(engine: &Engine, length: Duration) {
    support::reject_all_calls(engine);
    for stream in STREAMS {
        engine.faults().interrupt(stream).unwrap();
    }
    sleep(length).await;
    engine.faults().clear();
}

/// Half of the attempts end while no call succeeds, and half of them after that.
async fn run_through_outage(length: Duration) -> (Vec<u32>, WorkerReport) {
    let (engine, hatchet) = support::engine_with_quirks().await;
    let executions = executions(20);
    let task = task(&executions);
    let worker = hatchet.worker("worker").slots(30).register(&task).build().unwrap().start().await.unwrap();
    let length_millis = u64::try_from(length.as_millis()).unwrap();
    let millis: Vec<_> = (0..20).map(|n| length_millis / 2 + n % 2 * (length_millis / 2 + 5000)).collect();
    let runs = start_jobs(&hatchet, &task, &millis).await;
    while executions.lock().unwrap().iter().sum::<u32>() < 20 {
        sleep(SECOND / 10).await;
    }
    outage(&engine, length).await;
    check_results(&runs).await;
    let report = worker.shutdown().await;
    let executions = executions.lock().unwrap().clone();
    (executions, report)
}

#[tokio::test(start_paused = true)]
async fn w17_results_outlive_20_seconds_without_any_call() {
    let (executions, report) = run_through_outage(20 * SECOND).await;
    assert_eq!(executions, [1; 20], "nothing ran twice");
    assert_eq!((report.completed, report.total()), (20, 20), "{report}");
}

/// After 30 seconds without heartbeats, the engine assigns the attempts again. So they are cancelled, unless the engine has accepted and
/// ignored their results before the worker could ask for them: each run ends once, with the result of its second attempt.
#[tokio::test(start_paused = true)]
async fn w17_runs_end_once_after_a_minute_and_after_an_hour_without_any_call() {
    for length in [60 * SECOND, 3600 * SECOND] {
        let (executions, report) = run_through_outage(length).await;
        assert!(executions.iter().all(|count| (1..=2).contains(count)), "{length:?}: {executions:?}");
        let total = u64::from(executions.iter().sum::<u32>());
        assert_eq!((report.completed + report.cancelled, report.total()), (total, total), "{length:?}: {report}");
        assert!((20..=30).contains(&report.completed), "{length:?}: {report}");
    }
}

/// Makes a part of the calls fail with `UNAVAILABLE`: before the engine processes them, or after it.
fn fail_at_random(engine: &Engine, call: &str, percent: u8, rng: &mut Rng) {
    // The stream of a lost response would be open in the engine only.
    let is_stream = STREAMS.contains(&call);
    for _ in 0..150 {
        let mut successes = 0;
        while rng.u8(..100) >= percent {
            successes += 1;
        }
        if successes > 0 {
            engine.faults().inject_times(call, Fault::Delay(Duration::ZERO), successes).unwrap();
        }
        let is_rejected = is_stream || rng.bool();
        let fault = if is_rejected { support::unavailable(call) } else { Fault::LoseResponse };
        engine.faults().inject(call, fault).unwrap();
    }
}

/// A start fails if one of its calls does.
async fn start(build: impl Fn() -> Worker) -> hatchet::worker::RunningWorker {
    for _ in 0..20 {
        match build().start().await {
            Ok(worker) => return worker,
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
    }
    panic!("the worker did not start in 20 tries")
}

#[tokio::test(start_paused = true)]
async fn calls_that_fail_at_random_lose_nothing() {
    for percent in [10, 30] {
        for seed in 1..=2 {
            let (engine, hatchet) = support::engine_with_quirks().await;
            let mut rng = Rng::with_seed(seed);
            // The jitter of the crate.
            fastrand::seed(seed);
            // A bulk start is not repeated if it may have had an effect: that of the test succeeds.
            for call in Faults::calls().filter(|call| *call != BULK_START) {
                fail_at_random(&engine, call, percent, &mut rng);
            }
            let (attempts, in_batches) = (executions(20), executions(20));
            let executions = executions(FIRST_CHILD + 20);
            let task = task(&executions);
            let parent = parent(&task, &attempts);
            let batch = batch_task(&in_batches);
            let worker = hatchet.worker("worker").slots(40).register(&task).register(&parent).register(&batch);
            let worker = start(|| worker.clone().build().unwrap()).await;
            let millis: Vec<_> = (0..100).map(|_| rng.u64(..3000)).collect();
            let runs = start_jobs(&hatchet, &task, &millis).await;
            let jobs = (0..20).map(|number| Job { number, millis: 100 });
            let parents = hatchet.run_many(&parent, jobs).start().await.unwrap();
            let batched = start_jobs(&hatchet, &batch, &[100; 20]).await;
            fail_at_random(&engine, BULK_START, percent, &mut rng);
            // Its stream is lost now and then, too.
            let results = async {
                check_results(&runs).await;
                for (number, run) in parents.into_iter().map(Result::unwrap).chain(batched).enumerate() {
                    assert_eq!(run.result().await.unwrap(), number % 20);
                }
            };
            let mut labels = 0;
            let lost = async {
                loop {
                    sleep(7 * SECOND).await;
                    engine.faults().interrupt("ListenV2").unwrap();
                }
            };
            let labelled = async {
                for count in 0_i32.. {
                    sleep(SECOND).await;
                    labels += i32::from(worker.set_labels([("count", count)]).send().await.is_ok());
                }
            };
            tokio::select! {
                () = results => {}
                () = lost => {}
                () = labelled => {}
            }
            let report = worker.shutdown().await;
            let context = format!("{percent} %, seed {seed}: {report}");
            assert_eq!(*executions.lock().unwrap(), [1; FIRST_CHILD + 20], "{context}");
            let attempts = u64::from(attempts.lock().unwrap().iter().sum::<u32>());
            // The next attempt cancels one whose failure was accepted although the call failed.
            let failed = report.failed + report.cancelled;
            assert_eq!((report.completed, failed, report.unfinished), (160, attempts - 20 + 10, 0), "{context}");
            for (number, count) in in_batches.lock().unwrap().iter().enumerate() {
                assert_eq!(*count, if number % 2 == 1 { 2 } else { 1 }, "{context}");
            }
            assert!(labels > 5, "{context}: {labels}");
            engine.faults().clear();
            // A line whose response was lost is there twice.
            for (number, run) in runs.iter().enumerate() {
                let lines: Vec<_> = run.logs().map_ok(|line| line.message).try_collect().await.unwrap();
                assert!(!lines.is_empty() && lines.iter().all(|line| *line == format!("job {number}")), "{lines:?}");
            }
        }
    }
}

/// A heartbeat has a deadline of two seconds. Longer delays are those of an engine that is not reached at all.
#[tokio::test(start_paused = true)]
async fn a_slow_engine_loses_nothing() {
    for seconds in [2, 5] {
        let (engine, hatchet) = support::engine_with_quirks().await;
        for call in Faults::calls() {
            let delay = if call == "Heartbeat" { SECOND * 3 / 2 } else { seconds * SECOND };
            engine.faults().inject_always(call, Fault::Delay(delay)).unwrap();
        }
        let executions = executions(50);
        let task = task(&executions);
        let worker = hatchet.worker("worker").slots(10).register(&task).build().unwrap().start().await.unwrap();
        let started = Instant::now();
        let runs = start_jobs(&hatchet, &task, &[1000; 50]).await;
        // The engine also takes that long to open the worker's stream again, and rejects its heartbeats meanwhile.
        assert!(engine.faults().interrupt("ListenV2").unwrap() > 0);
        for (number, run) in runs.iter().enumerate() {
            assert_eq!(run.result().await.unwrap(), number);
        }
        // Five rounds, each with the delays of a chunk, of the extended timeout and of the reports.
        let elapsed = started.elapsed();
        assert!(elapsed < (30 + 5 * 5 * seconds) * SECOND, "{seconds}: {elapsed:?}");
        check_results(&runs).await;
        let (report, elapsed) = {
            let started = Instant::now();
            (worker.shutdown().await, started.elapsed())
        };
        assert_eq!((report.completed, report.total()), (50, 50), "{seconds}: {report}");
        assert!(elapsed < 20 * SECOND, "{seconds}: {elapsed:?}");
        assert_eq!(*executions.lock().unwrap(), [1; 50], "{seconds}");
    }
}

/// The numbers of calls that report one event, and of those that report several.
async fn reporting_calls(batch_reports: bool) -> [usize; 2] {
    const REPORTS: [&str; 2] = ["SendStepActionEvent", "SendBatchActionEvent"];
    let (engine, hatchet) = support::engine_with_quirks().await;
    let ended = Arc::new(AtomicU32::new(0));
    let task: Task<(), ()> =
        Task::with_state("task", Arc::clone(&ended), async |ended: Arc<AtomicU32>, (): (), _: Context| {
            sleep(SECOND).await;
            ended.fetch_add(1, SeqCst);
            Ok(())
        });
    let worker = hatchet.worker("worker").batch_reports(batch_reports).register(&task);
    let worker = worker.build().unwrap().start().await.unwrap();
    let counts = async |call: &str| {
        engine.faults().clear();
        engine.faults().inject_times(call, Fault::Delay(Duration::ZERO), PLANNED).unwrap();
        ended.store(0, SeqCst);
        let results = hatchet.run_many(&task, vec![(); 100]).results().await.unwrap();
        assert!(results.iter().all(Result::is_ok));
        assert_eq!(ended.load(SeqCst), 100);
        PLANNED - engine.faults().planned()
    };
    let [one, several] = REPORTS;
    let counts = [counts(one).await, counts(several).await];
    assert_eq!(worker.shutdown().await.completed, 200);
    counts
}

#[tokio::test(start_paused = true)]
async fn reports_are_sent_singly_if_batches_are_disabled() {
    let [one, several] = reporting_calls(false).await;
    assert_eq!((one, several), (200, 0), "the start and the end of each attempt");
    let [one, several] = reporting_calls(true).await;
    assert!(one < 20 && (1..20).contains(&several), "{one}, {several}");
}
