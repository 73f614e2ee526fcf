//! Workers whose engine is unreachable, loses streams, or rejects them. The tests use the embedded engine and paused time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use hatchet::embedded::{Engine, Fault};
use hatchet::worker::WorkerState;
use hatchet::{Client, Context, ErrorKind, Outcome, RunHandle, RunStatus, Task, TaskError};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);
const REPORTS: [&str; 2] = ["SendStepActionEvent", "SendBatchActionEvent"];
/// The code of `UNAVAILABLE`.
const UNAVAILABLE: u16 = 14;

/// Sleeps for as many seconds as its input says, and counts its attempts.
fn task(attempts: &Arc<AtomicU32>) -> Task<Seconds, u64> {
    Task::with_state("task", Arc::clone(attempts), async |attempts: Arc<AtomicU32>, input: Seconds, _: Context| {
        attempts.fetch_add(1, SeqCst);
        sleep(Duration::from_secs(input.seconds)).await;
        Ok(input.seconds)
    })
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Seconds {
    seconds: u64,
}

async fn start(hatchet: &Client, task: &Task<Seconds, u64>, seconds: u64) -> RunHandle<u64> {
    let run = hatchet.run(task, &Seconds { seconds }).start().await.unwrap();
    support::until_running(&run).await;
    run
}

fn reject_reports(engine: &Engine) {
    for call in REPORTS {
        engine.faults().inject_always(call, Fault::RejectGrpc(UNAVAILABLE)).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn w17_running_tasks_survive_lost_streams_and_a_restart() {
    let (engine, hatchet) = support::engine_with_quirks().await;
    let attempts = Arc::default();
    let task = task(&attempts);
    let worker = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    let id = worker.id();
    let run = start(&hatchet, &task, 20).await;
    for _ in 0..3 {
        assert_eq!(engine.faults().interrupt("ListenV2").unwrap(), 1);
        sleep(2 * SECOND).await;
    }
    // The engine is unreachable for ten seconds.
    for call in ["ListenV2", "Heartbeat"] {
        engine.faults().inject_always(call, Fault::RejectGrpc(UNAVAILABLE)).unwrap();
    }
    engine.faults().interrupt("ListenV2").unwrap();
    sleep(10 * SECOND).await;
    assert_eq!(worker.status().state, WorkerState::Disconnected);
    engine.faults().clear();
    worker.ready().await.unwrap();
    engine.restart_after(SECOND).await.unwrap();
    sleep(SECOND).await;
    let next = Instant::now();
    assert_eq!(hatchet.run(&task, &Seconds { seconds: 0 }).result().await.unwrap(), 0);
    assert!(next.elapsed() < 10 * SECOND, "{:?}", next.elapsed());
    assert_eq!((run.result().await.unwrap(), worker.id()), (20, id), "it was not registered again");
    assert_eq!(attempts.load(SeqCst), 2, "nothing ran twice");
    let report = worker.shutdown().await;
    assert_eq!((report.completed, report.total()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn w18_an_old_result_is_not_the_result_of_a_new_attempt() {
    let (engine, hatchet) = support::engine_with_quirks().await;
    let task: Task<(), u32> = Task::new("task", async |(): (), context: Context| {
        sleep(if context.attempt() == 1 { 60 * SECOND } else { SECOND }).await;
        Ok(context.attempt())
    })
    .timeout(600 * SECOND);
    let register = |name: &str| hatchet.worker(name).register(&task).build().unwrap().start();
    let first = register("first").await.unwrap();
    let run = hatchet.run(&task, &()).start().await.unwrap();
    support::until_running(&run).await;
    // The engine receives no heartbeats from the first worker, and assigns its attempt to the second one.
    engine.faults().inject_always("Heartbeat", Fault::RejectGrpc(UNAVAILABLE)).unwrap();
    sleep(35 * SECOND).await;
    engine.faults().clear();
    let second = register("second").await.unwrap();
    assert_eq!(run.result().await.unwrap(), 2);
    let (first, second) = (first.shutdown().await, second.shutdown().await);
    assert_eq!(run.details().await.unwrap().status, RunStatus::Completed);
    assert_eq!((first.cancelled + second.completed, first.completed), (2, 0), "{first}; {second}");
}

/// The engine does not send it again. The guide says what happens.
#[tokio::test(start_paused = true)]
async fn an_assignment_that_is_lost_in_transit_times_out_without_having_run() {
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let attempts = Arc::default();
    let task = task(&attempts).timeout(5 * SECOND);
    let worker = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    engine.faults().inject("ListenV2", Fault::LoseMessage).unwrap();
    let outcome = hatchet.run(&task, &Seconds { seconds: 1 }).start().await.unwrap().outcome().await.unwrap();
    assert!(matches!(outcome, Outcome::TimedOut(_)), "{outcome}");
    assert_eq!(attempts.load(SeqCst), 0);
    assert_eq!(worker.shutdown().await.total(), 0, "the worker was not notified of it");
}

/// Twenty runs end while reports are rejected for ten minutes.
async fn finished_work_outlives(reject: impl FnOnce(&Engine)) {
    let (engine, hatchet) = support::engine_with_quirks().await;
    let attempts = Arc::default();
    let task = task(&attempts).timeout(3600 * SECOND);
    let worker = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    let runs = hatchet.run_many(&task, (0..20).map(|_| Seconds { seconds: 2 })).start().await.unwrap();
    sleep(SECOND).await;
    reject(&engine);
    sleep(600 * SECOND).await;
    assert_eq!((worker.status().unreported, worker.status().running), (20, 0));
    engine.faults().clear();
    for run in runs {
        assert_eq!(run.unwrap().result().await.unwrap(), 2);
    }
    let report = worker.shutdown().await;
    assert_eq!((report.completed, report.total(), attempts.load(SeqCst)), (20, 20, 20), "{report}");
}

#[tokio::test(start_paused = true)]
async fn w22_finished_work_outlives_an_outage() {
    finished_work_outlives(reject_reports).await;
}

/// The database of the engine is away, so that it rejects valid tokens. Heartbeats are accepted, and the stream stays open.
#[tokio::test(start_paused = true)]
async fn results_outlive_reports_whose_token_is_rejected() {
    let (engine, hatchet) = support::engine_with_quirks().await;
    let attempts = Arc::default();
    let task = task(&attempts).timeout(3600 * SECOND);
    let worker = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    let runs =
        hatchet.run_many(&task, (0..20).map(|number| Seconds { seconds: 1 + number % 5 })).start().await.unwrap();
    sleep(SECOND / 2).await;
    for call in REPORTS {
        engine.faults().inject_always(call, Fault::RejectGrpc(16)).unwrap();
    }
    sleep(12 * SECOND).await;
    let status = worker.status();
    assert_eq!((status.state, status.unreported, status.running), (WorkerState::Connected, 20, 0));
    engine.faults().clear();
    let back = Instant::now();
    for (number, run) in runs.into_iter().enumerate() {
        let run = run.unwrap();
        assert_eq!(run.result().await.unwrap(), 1 + number as u64 % 5);
        let details = run.details().await.unwrap();
        assert_eq!((details.retry_count(), details.conflicts.len()), (0, 0), "{:?}", details.tasks);
    }
    assert!(back.elapsed() < 15 * SECOND, "{:?}", back.elapsed());
    assert_eq!(attempts.load(SeqCst), 20, "nothing ran twice");
    let report = worker.shutdown().await;
    assert_eq!((report.completed, report.total()), (20, 20), "{report}");
}

/// The database of the engine is away: a call with several reports fails with `INTERNAL`, and each report alone as an invalid one.
#[tokio::test(start_paused = true)]
async fn results_outlive_reports_that_are_rejected_while_the_database_is_away() {
    let reject = |engine: &Engine| {
        engine.faults().inject_always("SendBatchActionEvent", Fault::RejectGrpc(13)).unwrap();
        engine.faults().inject_always("SendStepActionEvent", Fault::RejectGrpc(3)).unwrap();
    };
    finished_work_outlives(reject).await;
}

#[tokio::test(start_paused = true)]
async fn b9_a_worker_with_a_full_outbox_keeps_its_results_and_takes_no_more() {
    let (engine, hatchet) = support::engine_with_quirks().await;
    let attempts = Arc::default();
    let task = task(&attempts).timeout(3600 * SECOND);
    let worker = hatchet.worker("worker").outbox_capacity(3).slots(10).register(&task).build().unwrap();
    let worker = worker.start().await.unwrap();
    reject_reports(&engine);
    let started = async |count| {
        let inputs = (0..count).map(|_| Seconds { seconds: 1 });
        let runs = hatchet.run_many(&task, inputs).start().await.unwrap();
        sleep(60 * SECOND).await;
        runs
    };
    let mut runs = started(2).await;
    assert!(!worker.status().is_outbox_full);
    runs.extend(started(1).await);
    assert!(worker.status().is_outbox_full);
    runs.extend(started(7).await);
    let status = worker.status();
    assert_eq!((status.unreported, status.queued, attempts.load(SeqCst)), (3, 7, 3));
    engine.faults().clear();
    for run in runs {
        assert_eq!(run.unwrap().result().await.unwrap(), 1);
    }
    assert_eq!(attempts.load(SeqCst), 10);
    assert_eq!(worker.shutdown().await.completed, 10);
}

/// Calls of gRPC and of REST are rejected, and the worker's stream is lost.
fn reject_everything(engine: &Engine) {
    support::reject_all_calls(engine);
    engine.faults().interrupt("ListenV2").unwrap();
}

#[tokio::test(start_paused = true)]
async fn b9_the_result_of_a_task_that_ends_while_the_engine_is_away_arrives() {
    let (engine, hatchet) = support::engine_with_quirks().await;
    let task = attempt_after(5);
    let worker = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    let run = hatchet.run(&task, &()).start().await.unwrap();
    sleep(SECOND).await;
    reject_everything(&engine);
    sleep(60 * SECOND).await;
    assert_eq!((worker.status().state, worker.status().unreported), (WorkerState::Disconnected, 1));
    engine.faults().clear();
    // The engine has assigned the task again after 30 seconds without heartbeats, so that the first result is not its result any longer.
    assert_eq!(run.result().await.unwrap(), 2);
    let report = worker.shutdown().await;
    assert_eq!((report.completed, report.cancelled, report.total()), (1, 1, 2), "{report}");
}

/// A task that sleeps, and returns the number of its attempt.
fn attempt_after(seconds: u32) -> Task<(), u32> {
    let code = move |(): (), context: Context| async move {
        sleep(seconds * SECOND).await;
        Ok(context.attempt())
    };
    Task::new(format!("attempt-after-{seconds}"), code).timeout(24 * 3600 * SECOND)
}

/// An engine that is down itself ends nothing meanwhile: the first result is that of the run, however long that takes.
#[tokio::test(start_paused = true)]
async fn b9_attempts_outlive_an_engine_that_is_down() {
    for downtime in [20, 60, 3600] {
        let (engine, hatchet) = support::engine_with_quirks().await;
        let (short, long) = (attempt_after(5), attempt_after(downtime + 30));
        let worker = hatchet.worker("worker").register(&short).build().unwrap().start().await.unwrap();
        let other = hatchet.worker("other").register(&long).build().unwrap().start().await.unwrap();
        let runs = [hatchet.run(&short, &()).start().await.unwrap(), hatchet.run(&long, &()).start().await.unwrap()];
        sleep(SECOND).await;
        engine.restart_after(downtime * SECOND).await.unwrap();
        for run in &runs {
            assert_eq!(run.result().await.unwrap(), 1, "{downtime} s");
        }
        for worker in [worker, other] {
            let report = worker.shutdown().await;
            assert_eq!((report.completed, report.total()), (1, 1), "{downtime} s: {report}");
        }
    }
}

/// A worker is shut down while it cannot reach the engine, and its task ends meanwhile.
#[tokio::test(start_paused = true)]
async fn a_worker_drains_while_it_is_disconnected() {
    for is_back in [true, false] {
        let (engine, hatchet) = support::engine_with_quirks().await;
        let attempts = Arc::default();
        let task = task(&attempts).timeout(3600 * SECOND);
        let worker = hatchet.worker("worker").shutdown_grace_period(30 * SECOND).register(&task);
        let worker = worker.build().unwrap().start().await.unwrap();
        let run = start(&hatchet, &task, 5).await;
        reject_everything(&engine);
        let begin = Instant::now();
        let back = async {
            sleep(15 * SECOND).await;
            if is_back {
                engine.faults().clear();
            }
        };
        let (report, ()) = tokio::join!(worker.shutdown(), back);
        let elapsed = begin.elapsed();
        assert_eq!((report.completed, report.total(), report.unfinished), (u64::from(is_back), 1, u64::from(!is_back)));
        if is_back {
            assert!(elapsed < 25 * SECOND, "{elapsed:?}");
            assert_eq!(run.result().await.unwrap(), 5);
        } else {
            assert!((30 * SECOND..45 * SECOND).contains(&elapsed), "{elapsed:?}");
            assert!(report.unfinished_attempts[0].is_finished, "only its report is missing");
        }
        assert_eq!(attempts.load(SeqCst), 1);
        engine.faults().clear();
    }
}

/// The cancellation is lost with the stream, and the function ends before the worker is connected again. The engine would give the run a
/// second end: completed in REST, and either in gRPC.
#[tokio::test(start_paused = true)]
async fn a_run_that_was_cancelled_during_a_short_outage_has_one_end() {
    let (engine, hatchet) = support::engine_with_quirks().await;
    let task = task(&Arc::default()).timeout(3600 * SECOND);
    let worker = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    for seconds in [5, 10, 11] {
        let run = start(&hatchet, &task, seconds).await;
        for call in REPORTS.into_iter().chain(["ListenV2", "Heartbeat"]) {
            engine.faults().inject_always(call, Fault::RejectGrpc(UNAVAILABLE)).unwrap();
        }
        engine.faults().interrupt("ListenV2").unwrap();
        sleep(SECOND).await;
        run.cancel().send().await.unwrap();
        sleep(9 * SECOND).await;
        engine.faults().clear();
        sleep(30 * SECOND).await;
        let details = run.details().await.unwrap();
        let conflicts = details.conflicts.len();
        assert_eq!((&details.status, conflicts), (&RunStatus::Cancelled, 0), "{seconds} s: {details}");
    }
    let report = worker.shutdown().await;
    assert_eq!((report.cancelled, report.total()), (3, 3), "{report}");
}

/// A file that is removed in the end, with its companions.
struct OutboxFile(PathBuf);

impl OutboxFile {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("hatchet-{name}-{}", std::process::id())))
    }
}

impl Drop for OutboxFile {
    fn drop(&mut self) {
        for suffix in ["", ".lock", ".new"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", self.0.display()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn w22_finished_work_outlives_the_process() {
    let file = OutboxFile::new("killed");
    let (engine, hatchet) = support::engine_with_quirks().await;
    let attempts = Arc::default();
    let task = task(&attempts).timeout(3600 * SECOND);
    let build = || hatchet.worker("worker").outbox_file(&file.0).register(&task).build().unwrap();
    let worker = build().start().await.unwrap();
    let run = start(&hatchet, &task, 1).await;
    reject_reports(&engine);
    while worker.status().unreported == 0 {
        sleep(SECOND / 10).await;
    }
    // The file is written on another thread.
    while !std::fs::read_to_string(&file.0).unwrap().contains("\"number\"") {
        tokio::task::yield_now().await;
    }
    drop(worker);
    sleep(SECOND).await;
    engine.faults().clear();
    let worker = build().start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), 1);
    assert_eq!(attempts.load(SeqCst), 1, "it did not run again");
    let second = build().start().await.unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Config, "the file is in use");
    worker.shutdown().await;
    let content = std::fs::read_to_string(&file.0).unwrap();
    assert!(content.lines().last().unwrap().contains("accepted"), "{content}");
}

#[tokio::test(start_paused = true)]
async fn w21_a_worker_whose_client_is_closed_ends_with_the_reason() {
    let (engine, _) = support::engine_with_quirks().await;
    let hatchet = engine.client_with(hatchet::Config::builder()).unwrap();
    let attempts = Arc::default();
    let task = task(&attempts);
    let worker = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    let mut statuses = worker.statuses();
    start(&engine.client(), &task, 3600).await;
    hatchet.close().await;
    assert_eq!(worker.stopped().await.unwrap_err().kind(), ErrorKind::Closed);
    let report = worker.shutdown().await;
    assert_eq!((report.unfinished, report.total()), (1, 1), "{report}");
    let mut last = None;
    while let Some(status) = statuses.next().await {
        last = Some(status.state);
    }
    assert_eq!(last, Some(WorkerState::Stopped));
}

#[tokio::test(start_paused = true)]
async fn w21_run_until_returns_the_reason() {
    let (engine, _) = support::engine_with_quirks().await;
    let hatchet = engine.client_with(hatchet::Config::builder()).unwrap();
    let task = task(&Arc::default());
    let running =
        tokio::spawn(hatchet.worker("worker").register(&task).build().unwrap().run_until(std::future::pending::<()>()));
    sleep(5 * SECOND).await;
    engine.faults().inject_always("Heartbeat", Fault::RejectGrpc(16)).unwrap();
    engine.faults().inject_always("ListenV2", Fault::RejectGrpc(16)).unwrap();
    engine.faults().interrupt("ListenV2").unwrap();
    let started = Instant::now();
    let error = running.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    // A token that was accepted before may be rejected for some minutes, because the database of the engine is away.
    assert!(started.elapsed() > 240 * SECOND && started.elapsed() < 420 * SECOND, "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn w24_the_delay_of_a_retry_is_applied_or_rejected() {
    for (version, is_heeded) in [("v0.110.9", false), ("v0.111.0", true)] {
        let engine = Engine::builder().version(version).start().await.unwrap();
        let hatchet = engine.client();
        let task: Task<(), u32> = Task::new("task", async |(): (), context: Context| match context.attempt() {
            1 => Err(TaskError::retry_after("overloaded", 40 * SECOND)),
            attempt => Ok(attempt),
        })
        .retries(3)
        .backoff(2.0, 2 * SECOND);
        let worker = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap();
        let started = Instant::now();
        let result = hatchet.run(&task, &()).result().await;
        let elapsed = started.elapsed();
        match (result, is_heeded) {
            (Ok(2), true) => assert!(elapsed >= 40 * SECOND && elapsed < 46 * SECOND, "{elapsed:?}"),
            (Err(error), false) => {
                let Some(Outcome::Failed(failure)) = error.outcome() else { panic!("{error:?}") };
                let expected = "overloaded (the retry after 40s needs engine v0.111.0 or later, got v0.110.9)";
                assert_eq!(failure.message.as_deref(), Some(expected));
                assert!(elapsed < SECOND, "{elapsed:?}");
            }
            (result, _) => panic!("{version}: {result:?}"),
        }
        worker.shutdown().await;
    }
}
