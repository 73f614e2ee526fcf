//! Accidents at chosen moments: what is accepted is not lost, and what cannot be known is said. Paused time, on the embedded
//! engine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop on what it did not expect")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use futures_util::StreamExt as _;
use hatchet::config::RetryPolicy;
use hatchet::embedded::{Engine, Fault, Quirks};
use hatchet::model::{CronSpec, Effect};
use hatchet::worker::RunningWorker;
use hatchet::{Client, Context, ErrorKind, RunStatus, Task};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);
const UNAVAILABLE: u16 = 14;
const INTERNAL: u16 = 13;
const PERMISSION_DENIED: u16 = 7;

struct Stage {
    engine: Engine,
    hatchet: Client,
    task: Task<(), u32>,
    started: Arc<AtomicU32>,
}

/// A task that takes ten seconds, and counts how often it was begun.
async fn stage() -> (Stage, RunningWorker) {
    let engine = Engine::builder().quirks(Quirks::all()).seed(7).start().await.unwrap();
    let (hatchet, started) = (engine.client(), Arc::new(AtomicU32::new(0)));
    let task = Task::new("slow", {
        let started = Arc::clone(&started);
        move |(): (), context: Context| {
            started.fetch_add(1, SeqCst);
            async move {
                sleep(10 * SECOND).await;
                Ok(context.attempt())
            }
        }
    });
    let worker = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    (Stage { engine, hatchet, task, started }, worker)
}

#[tokio::test(start_paused = true)]
async fn a_task_goes_on_when_its_workers_stream_is_cut_and_new_ones_come_at_once() {
    let (stage, worker) = stage().await;
    let id = worker.id();
    let run = stage.hatchet.run(&stage.task, &()).start().await.unwrap();
    sleep(5 * SECOND).await;
    stage.engine.faults().cut("ListenV2").unwrap();
    sleep(SECOND).await;
    let begun = Instant::now();
    let second = stage.hatchet.run(&stage.task, &()).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), 1, "the first attempt went on");
    assert_eq!(second.result().await.unwrap(), 1);
    assert!(begun.elapsed() < 11 * SECOND, "{:?}: the second had no long wait", begun.elapsed());
    assert_eq!(stage.started.load(SeqCst), 2, "nothing ran twice");
    assert_eq!(worker.id(), id);
    assert_eq!(worker.shutdown().await.completed, 2);
}

#[tokio::test(start_paused = true)]
async fn an_end_is_reported_over_refusals_and_lost_answers_and_counts_once() {
    let (stage, worker) = stage().await;
    for fault in [Fault::Refuse(INTERNAL), Fault::Refuse(UNAVAILABLE), Fault::LoseAnswer] {
        let run = stage.hatchet.run(&stage.task, &()).start().await.unwrap();
        sleep(5 * SECOND).await;
        stage.engine.faults().inject("SendStepActionEvent", fault.clone(), 3).unwrap();
        assert_eq!(run.result().await.unwrap(), 1, "{fault:?}");
        sleep(SECOND).await;
        let details = run.details().await.unwrap();
        assert_eq!((details.retry_count(), details.conflicts.len()), (0, 0));
        assert_eq!(details.status, RunStatus::Completed);
        assert_eq!(stage.engine.faults().planned(), 0, "{fault:?}: each was met");
    }
    assert_eq!(stage.started.load(SeqCst), 3);
    assert_eq!(worker.shutdown().await.completed, 3);
}

#[tokio::test(start_paused = true)]
async fn lost_beats_neither_end_a_task_nor_make_a_new_worker() {
    let (stage, worker) = stage().await;
    let run = stage.hatchet.run(&stage.task, &()).start().await.unwrap();
    // Half a minute without an accepted beat is when the engine gives tasks away: this is just below it.
    stage.engine.faults().inject("Heartbeat", Fault::Refuse(UNAVAILABLE), 12).unwrap();
    assert_eq!(run.result().await.unwrap(), 1);
    sleep(30 * SECOND).await;
    assert_eq!(stage.engine.faults().planned(), 0);
    assert_eq!(stage.started.load(SeqCst), 1);
    assert_eq!(worker.shutdown().await.completed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_trigger_whose_answer_is_lost_may_have_happened_and_is_not_made_again() {
    let (stage, worker) = stage().await;
    stage.engine.faults().inject("TriggerWorkflow", Fault::LoseAnswer, 1).unwrap();
    let error = stage.hatchet.run(&stage.task, &()).start().await.unwrap_err();
    assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Unavailable, false));
    assert_eq!(stage.engine.run_count().await, 1, "it has happened, once");
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_outlasts_a_cut_stream() {
    let (stage, worker) = stage().await;
    let run = stage.hatchet.run(&stage.task, &()).start().await.unwrap();
    let begun = Instant::now();
    let cuts = async {
        for _ in 0..8 {
            sleep(SECOND).await;
            stage.engine.faults().cut("SubscribeToWorkflowRuns").unwrap();
            stage.engine.faults().cut("SubscribeToWorkflowEvents").unwrap();
        }
    };
    let (result, ()) = tokio::join!(run.result(), cuts);
    assert_eq!(result.unwrap(), 1);
    assert!(begun.elapsed() < 12 * SECOND, "{:?}", begun.elapsed());
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_comes_too_late_is_a_timeout_that_says_so() {
    let (stage, worker) = stage().await;
    stage.engine.faults().inject("TriggerWorkflow", Fault::Delay(3600 * SECOND), 1).unwrap();
    let begun = Instant::now();
    let error = stage.hatchet.run(&stage.task, &()).start().await.unwrap_err();
    assert!(error.is_timeout() && !error.has_no_side_effects(), "{error}");
    assert_eq!(begun.elapsed(), 30 * SECOND);
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_told_by_what_is_seen_and_not_by_its_answer() {
    let (stage, worker) = stage().await;
    let run = stage.hatchet.run(&stage.task, &()).start().await.unwrap();
    stage.engine.faults().inject("CancelTasks", Fault::LoseAnswer, 1).unwrap();
    assert!(matches!(run.cancel().send().await.unwrap().effect, Effect::Applied));

    let run = stage.hatchet.run(&stage.task, &()).start().await.unwrap();
    sleep(SECOND).await;
    stage.engine.faults().inject("CancelTasks", Fault::Refuse(INTERNAL), 1).unwrap();
    let effect = run.cancel().within(3 * SECOND).send().await.unwrap().effect;
    assert!(matches!(effect, Effect::NoEffect(RunStatus::Running)), "{effect}");
    assert_eq!(run.result().await.unwrap(), 1);
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_before_its_cancel_comes_is_told_with_its_end() {
    let (stage, worker) = stage().await;
    let run = stage.hatchet.run(&stage.task, &()).start().await.unwrap();
    sleep(8 * SECOND).await;
    stage.engine.faults().inject("CancelTasks", Fault::Delay(5 * SECOND), 1).unwrap();
    let effect = run.cancel().send().await.unwrap().effect;
    assert!(matches!(effect, Effect::FinishedFirst(RunStatus::Completed)), "{effect}");
    sleep(SECOND).await;
    assert_eq!(run.result().await.unwrap(), 1, "the end stays, whatever the late cancel wrote beside it");
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_whose_answer_is_lost_is_not_made_twice() {
    let (stage, worker) = stage().await;
    let run = stage.hatchet.run(&stage.task, &()).start().await.unwrap();
    run.result().await.unwrap();
    stage.engine.faults().inject("ReplayTasks", Fault::LoseAnswer, 1).unwrap();
    let again = run.replay().send().await.unwrap();
    assert_eq!((again.attempt, again.run.result().await.unwrap()), (2, 2));
    assert_eq!(stage.started.load(SeqCst), 2);
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_is_lost_is_sent_again_and_after_three_times_not_taken() {
    let (stage, worker) = stage().await;
    let runs = stage.hatchet.run_many(&stage.task, [(), ()]).start().await.unwrap();
    let runs: Vec<_> = runs.into_iter().map(Result::unwrap).collect();
    for run in &runs {
        run.result().await.unwrap();
    }
    let both = || stage.hatchet.replay_many(runs.iter().map(hatchet::RunHandle::id));
    stage.engine.faults().inject("ReplayTasks", Fault::Refuse(INTERNAL), 3).unwrap();
    let begun = Instant::now();
    for report in both().send().await.unwrap() {
        assert!(matches!(report.effect, Effect::NoEffect(RunStatus::Completed)), "{}", report.effect);
    }
    let waited = begun.elapsed();
    assert!(waited > 45 * SECOND && waited < 50 * SECOND, "{waited:?}: three times a quarter of a minute");
    assert_eq!(stage.engine.faults().planned(), 0);

    stage.engine.faults().inject("ReplayTasks", Fault::Refuse(INTERNAL), 2).unwrap();
    assert!(both().send().await.unwrap().iter().all(hatchet::model::RunReport::is_applied));
    assert_eq!(stage.engine.faults().planned(), 0);
    assert_eq!(stage.started.load(SeqCst), 4, "each once more");
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_cannot_be_asked_about_is_unknown_and_not_sent_again() {
    let (stage, worker) = stage().await;
    let run = stage.hatchet.run(&stage.task, &()).start().await.unwrap();
    run.result().await.unwrap();
    stage.engine.faults().inject("ReplayTasks", Fault::Delay(SECOND), 1).unwrap();
    let unwell = async {
        // Between the look before the replay, and the looks after it.
        sleep(SECOND / 2).await;
        stage.engine.faults().inject("GET /api/v1/stable/workflow-runs/{run}", Fault::Refuse(500), 1000).unwrap();
    };
    let (reports, ()) = tokio::join!(stage.hatchet.replay_many([run.id()]).send(), unwell);
    let report = reports.unwrap().remove(0);
    let Effect::Unknown(error) = &report.effect else { panic!("{}", report.effect) };
    assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Server, false), "{error}");
    sleep(60 * SECOND).await;
    assert_eq!(stage.started.load(SeqCst), 2, "it was sent once");
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_cron_is_gone_when_the_list_says_so_and_not_when_the_server_is_unwell() {
    let (stage, worker) = stage().await;
    let cron = stage.hatchet.cron(&stage.task, &(), CronSpec::new("daily", "0 9 * * *")).send().await.unwrap();
    let route = "/api/v1/tenants/{tenant}/workflows/crons/{cron}";
    for method in ["PATCH", "DELETE"] {
        stage.engine.faults().inject(&format!("{method} {route}"), Fault::Refuse(500), 1).unwrap();
    }
    for error in [cron.pause().await.unwrap_err(), cron.delete().await.unwrap_err()] {
        assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Server, false), "{error}");
    }
    assert_eq!(stage.engine.faults().planned(), 0);
    // It is there by the list, which then tells all about it; if that fails too, the first error stands.
    let list = "GET /api/v1/tenants/{tenant}/workflows/crons";
    stage.engine.faults().inject(&format!("GET {route}"), Fault::Refuse(500), 1).unwrap();
    assert_eq!(cron.details().await.unwrap().id, cron.id());
    stage.engine.faults().inject(&format!("GET {route}"), Fault::Refuse(500), 1).unwrap();
    stage.engine.faults().inject(list, Fault::Refuse(500), 1).unwrap();
    assert_eq!(cron.details().await.unwrap_err().kind(), ErrorKind::Server);
    assert_eq!(stage.engine.faults().planned(), 0);

    cron.delete().await.unwrap();
    let error = cron.details().await.unwrap_err();
    assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::NotFound, true), "{error}");
    for error in [cron.pause().await.unwrap_err(), cron.delete().await.unwrap_err()] {
        assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::NotFound, false), "{error}");
    }
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_before_the_act_has_done_nothing_and_says_so() {
    let (stage, worker) = stage().await;
    let run = stage.hatchet.run(&stage.task, &()).start().await.unwrap();
    // One that has not looked the workflow up yet.
    let fresh = stage.engine.client_with(hatchet::Config::builder()).unwrap();
    let (lookup, look) = ("GET /api/v1/tenants/{tenant}/workflows", "GET /api/v1/stable/workflow-runs/{run}");
    for route in [lookup, look] {
        stage.engine.faults().inject(route, Fault::Refuse(503), 1000).unwrap();
    }
    let of_workflow = hatchet::RunFilter::new(hatchet::model::Window::all()).workflow(stage.task.name());
    for error in [
        fresh.runs(of_workflow).count().await.unwrap_err(),
        run.cancel().reason("unknown").send().await.unwrap_err(),
        run.rerun().start().await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Unavailable, true), "{error}");
    }
    stage.engine.faults().clear();
    assert_eq!(run.result().await.unwrap(), 1, "it was not cancelled");
    assert_eq!(stage.started.load(SeqCst), 1, "and nothing else was started");
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_gone_is_not_asked_again_and_again() {
    let (Stage { engine, hatchet, task, .. }, worker) = stage().await;
    let run = hatchet.run(&task, &()).start().await.unwrap();
    worker.shutdown().await;
    engine.shutdown().await;
    let begun = Instant::now();
    for error in [
        hatchet.runs(hatchet::model::Window::all()).count().await.unwrap_err(),
        run.details().await.unwrap_err(),
        hatchet.run(&task, &()).start().await.unwrap_err(),
        run.outcome().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_reason_that_is_written_while_the_run_is_looked_at_is_not_missed() {
    let (stage, worker) = stage().await;
    let run = stage.hatchet.run(&stage.task, &()).start().await.unwrap();
    sleep(SECOND).await;
    // The log is read at once, and what gRPC says of the state comes seconds later.
    stage.engine.faults().inject("GetRunDetails", Fault::Delay(5 * SECOND), 1).unwrap();
    let cancelled = async {
        sleep(SECOND).await;
        run.cancel().reason("late").send().await.unwrap();
    };
    let (details, ()) = tokio::join!(run.details(), cancelled);
    let details = details.unwrap();
    assert_eq!(details.status, RunStatus::Cancelled);
    assert_eq!(details.cancellation().unwrap().reason.as_deref(), Some("late"));
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_get_better_is_not_looked_at_until_the_time_is_over() {
    let (stage, worker) = stage().await;
    let run = stage.hatchet.run(&stage.task, &()).start().await.unwrap();
    stage.engine.faults().inject("CancelTasks", Fault::Delay(SECOND), 1).unwrap();
    let expired = async {
        // Between the look before the cancel, and the looks after it.
        sleep(SECOND / 2).await;
        stage.engine.faults().inject("GetRunDetails", Fault::Refuse(PERMISSION_DENIED), 1000).unwrap();
    };
    let begun = Instant::now();
    let (reports, ()) = tokio::join!(stage.hatchet.cancel_many([run.id()]).send(), expired);
    let report = reports.unwrap().remove(0);
    let Effect::Unknown(error) = &report.effect else { panic!("{report}") };
    assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Unauthenticated, false), "{error}");
    assert!(begun.elapsed() < 2 * SECOND, "{:?}", begun.elapsed());
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_has_its_own_deadline_and_retries() {
    let (stage, worker) = stage().await;
    let faults = stage.engine.faults();
    let run = stage.hatchet.run(&stage.task, &()).timeout(20 * SECOND).start().await.unwrap();
    let start = Instant::now();
    faults.inject("TriggerWorkflow", Fault::Delay(5 * SECOND), 1).unwrap();
    let error = stage.hatchet.run(&stage.task, &()).timeout(SECOND).start().await.unwrap_err();
    assert_eq!((error.kind(), error.has_no_side_effects(), start.elapsed()), (ErrorKind::Timeout, false, SECOND));
    assert_eq!(run.result().await.unwrap(), 1, "the wait is not limited by the deadline of the trigger");
    let watched: Vec<_> =
        stage.hatchet.run(&stage.task, &()).watch().map(|change| change.unwrap().to_string()).collect().await;
    assert_eq!(watched, ["QUEUED (attempt 1)", "RUNNING (attempt 1)", "COMPLETED (attempt 1)"]);
    let outcome = stage.hatchet.run(&stage.task, &()).outcome().await.unwrap();
    assert_eq!(outcome.to_string(), "completed");
    faults.inject("TriggerWorkflow", Fault::Refuse(PERMISSION_DENIED), 1).unwrap();
    let mut refused = stage.hatchet.run(&stage.task, &()).watch();
    assert_eq!(refused.next().await.unwrap().unwrap_err().kind(), ErrorKind::Unauthenticated);
    assert!(refused.next().await.is_none());

    let run = stage.hatchet.run(&stage.task, &()).start().await.unwrap();
    for (policy, expected) in [(RetryPolicy::none(), 1), (RetryPolicy::max_retries(2), 3)] {
        faults.inject("GetRunDetails", Fault::Refuse(UNAVAILABLE), 10).unwrap();
        let error = run.cancel().retry(policy).send().await.unwrap_err();
        assert_eq!((error.kind(), 10 - faults.planned()), (ErrorKind::Unavailable, expected), "{policy:?}");
        faults.clear();
    }
    for invalid in [Duration::ZERO, 25 * 3600 * SECOND] {
        let error = stage.hatchet.run(&stage.task, &()).timeout(invalid).start().await.unwrap_err();
        assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::InvalidInput, true));
    }
    worker.shutdown().await;
}
