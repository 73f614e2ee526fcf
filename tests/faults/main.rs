//! Failed calls, lost responses and interrupted streams at chosen times. Nothing that was accepted is lost, and an unknown effect is
//! reported as unknown. The tests use the embedded engine and paused time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

#[path = "../support/files.rs"]
mod files;
mod requests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use futures_util::StreamExt as _;
use hatchet::config::RetryPolicy;
use hatchet::embedded::{Engine, Fault, Quirks};
use hatchet::model::{CronSpec, Effect, Idempotency};
use hatchet::worker::RunningWorker;
use hatchet::{Client, Context, ErrorKind, RunStatus, Task};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);
const UNAVAILABLE: u16 = 14;
const INTERNAL: u16 = 13;
const PERMISSION_DENIED: u16 = 7;

struct Setup {
    engine: Engine,
    hatchet: Client,
    task: Task<(), u32>,
    started: Arc<AtomicU32>,
}

/// A task that takes ten seconds, and counts its starts.
async fn setup() -> (Setup, RunningWorker) {
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
    (Setup { engine, hatchet, task, started }, worker)
}

/// The responses of several starts are lost, or their requests.
#[tokio::test(start_paused = true)]
async fn a_start_with_a_key_is_repeated_until_it_is_known() {
    let (setup, worker) = setup().await;
    let day = 24 * 3600 * SECOND;
    let task = setup.task.clone().idempotency(Idempotency::for_time("'slow:' + additional_metadata.key", day));
    setup.hatchet.worker("keyed").register(&task).build().unwrap().start().await.unwrap().shutdown().await;
    for (number, fault) in [Fault::LoseResponse, Fault::RejectGrpc(UNAVAILABLE)].into_iter().enumerate() {
        setup.engine.faults().inject_times("TriggerWorkflow", fault, 3).unwrap();
        let run = setup.hatchet.run(&task, &()).metadata("key", number.to_string());
        let run = run.start_or_existing().await.unwrap();
        assert_eq!((run.result().await.unwrap(), setup.engine.run_count().await), (1, number + 1));
        assert_eq!(setup.engine.faults().planned(), 0);
    }
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn tasks_survive_the_interruption_of_their_workers_stream() {
    let (setup, worker) = setup().await;
    let id = worker.id();
    let run = setup.hatchet.run(&setup.task, &()).start().await.unwrap();
    sleep(5 * SECOND).await;
    setup.engine.faults().interrupt("ListenV2").unwrap();
    sleep(SECOND).await;
    let start = Instant::now();
    let second = setup.hatchet.run(&setup.task, &()).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), 1, "the first attempt continued");
    assert_eq!(second.result().await.unwrap(), 1);
    assert!(start.elapsed() < 11 * SECOND, "{:?}: the second run was not delayed", start.elapsed());
    assert_eq!(setup.started.load(SeqCst), 2, "each task was executed once");
    assert_eq!(worker.id(), id);
    assert_eq!(worker.shutdown().await.completed, 2);
}

#[tokio::test(start_paused = true)]
async fn reports_are_retried_and_count_once() {
    let (setup, worker) = setup().await;
    for fault in [Fault::RejectGrpc(INTERNAL), Fault::RejectGrpc(UNAVAILABLE), Fault::LoseResponse] {
        let run = setup.hatchet.run(&setup.task, &()).start().await.unwrap();
        sleep(5 * SECOND).await;
        setup.engine.faults().inject_times("SendStepActionEvent", fault.clone(), 3).unwrap();
        assert_eq!(run.result().await.unwrap(), 1, "{fault:?}");
        sleep(SECOND).await;
        let details = run.details().await.unwrap();
        assert_eq!((details.retry_count(), details.conflicts.len()), (0, 0));
        assert_eq!(details.status, RunStatus::Completed);
        assert_eq!(setup.engine.faults().planned(), 0, "{fault:?}: all faults were applied");
    }
    assert_eq!(setup.started.load(SeqCst), 3);
    assert_eq!(worker.shutdown().await.completed, 3);
}

#[tokio::test(start_paused = true)]
async fn lost_heartbeats_do_not_end_a_task() {
    let (setup, worker) = setup().await;
    let run = setup.hatchet.run(&setup.task, &()).start().await.unwrap();
    // The engine reassigns tasks after 30 seconds without an accepted heartbeat. This is a little less.
    setup.engine.faults().inject_times("Heartbeat", Fault::RejectGrpc(UNAVAILABLE), 12).unwrap();
    assert_eq!(run.result().await.unwrap(), 1);
    sleep(30 * SECOND).await;
    assert_eq!(setup.engine.faults().planned(), 0);
    assert_eq!(setup.started.load(SeqCst), 1);
    assert_eq!(worker.shutdown().await.completed, 1);
}

#[tokio::test(start_paused = true)]
async fn triggers_with_a_lost_response_are_not_retried() {
    let (setup, worker) = setup().await;
    setup.engine.faults().inject("TriggerWorkflow", Fault::LoseResponse).unwrap();
    let error = setup.hatchet.run(&setup.task, &()).start().await.unwrap_err();
    assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Unavailable, false));
    assert_eq!(setup.engine.run_count().await, 1, "the run was created once");
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn waits_survive_interrupted_streams() {
    let (setup, worker) = setup().await;
    let run = setup.hatchet.run(&setup.task, &()).start().await.unwrap();
    let start = Instant::now();
    let cuts = async {
        for _ in 0..8 {
            sleep(SECOND).await;
            setup.engine.faults().interrupt("SubscribeToWorkflowRuns").unwrap();
            setup.engine.faults().interrupt("SubscribeToWorkflowEvents").unwrap();
        }
    };
    let (result, ()) = tokio::join!(run.result(), cuts);
    assert_eq!(result.unwrap(), 1);
    assert!(start.elapsed() < 12 * SECOND, "{:?}", start.elapsed());
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn delayed_calls_time_out() {
    let (setup, worker) = setup().await;
    setup.engine.faults().inject("TriggerWorkflow", Fault::Delay(3600 * SECOND)).unwrap();
    let start = Instant::now();
    let error = setup.hatchet.run(&setup.task, &()).start().await.unwrap_err();
    assert!(error.is_timeout() && !error.has_no_side_effects(), "{error}");
    assert_eq!(start.elapsed(), 30 * SECOND);
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_effect_of_a_cancel_depends_on_the_observed_status() {
    let (setup, worker) = setup().await;
    let run = setup.hatchet.run(&setup.task, &()).start().await.unwrap();
    setup.engine.faults().inject("CancelTasks", Fault::LoseResponse).unwrap();
    assert!(matches!(run.cancel().send().await.unwrap().effect, Effect::Applied));

    let run = setup.hatchet.run(&setup.task, &()).start().await.unwrap();
    sleep(SECOND).await;
    setup.engine.faults().inject("CancelTasks", Fault::RejectGrpc(INTERNAL)).unwrap();
    let effect = run.cancel().within(3 * SECOND).send().await.unwrap().effect;
    assert!(matches!(effect, Effect::NoEffect(RunStatus::Running)), "{effect}");
    assert_eq!(run.result().await.unwrap(), 1);
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn cancels_of_runs_that_finish_first_report_their_status() {
    let (setup, worker) = setup().await;
    let run = setup.hatchet.run(&setup.task, &()).start().await.unwrap();
    sleep(8 * SECOND).await;
    setup.engine.faults().inject("CancelTasks", Fault::Delay(5 * SECOND)).unwrap();
    let effect = run.cancel().send().await.unwrap().effect;
    assert!(matches!(effect, Effect::FinishedFirst(RunStatus::Completed)), "{effect}");
    sleep(SECOND).await;
    assert_eq!(run.result().await.unwrap(), 1, "the late cancel does not change the outcome");
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn replays_with_a_lost_response_are_not_repeated() {
    let (setup, worker) = setup().await;
    let run = setup.hatchet.run(&setup.task, &()).start().await.unwrap();
    run.result().await.unwrap();
    setup.engine.faults().inject("ReplayTasks", Fault::LoseResponse).unwrap();
    let again = run.replay().send().await.unwrap();
    assert_eq!((again.attempt, again.run.result().await.unwrap()), (2, 2));
    assert_eq!(setup.started.load(SeqCst), 2);
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn lost_replays_are_sent_three_times() {
    let (setup, worker) = setup().await;
    let runs = setup.hatchet.run_many(&setup.task, [(), ()]).start().await.unwrap();
    let runs: Vec<_> = runs.into_iter().map(Result::unwrap).collect();
    for run in &runs {
        run.result().await.unwrap();
    }
    let both = || setup.hatchet.replay_many(runs.iter().map(hatchet::RunHandle::id));
    setup.engine.faults().inject_times("ReplayTasks", Fault::RejectGrpc(INTERNAL), 3).unwrap();
    let start = Instant::now();
    for report in both().send().await.unwrap() {
        assert!(matches!(report.effect, Effect::NoEffect(RunStatus::Completed)), "{}", report.effect);
    }
    let waited = start.elapsed();
    assert!(waited > 45 * SECOND && waited < 50 * SECOND, "{waited:?}: three times 15 seconds");
    assert_eq!(setup.engine.faults().planned(), 0);

    setup.engine.faults().inject_times("ReplayTasks", Fault::RejectGrpc(INTERNAL), 2).unwrap();
    assert!(both().send().await.unwrap().iter().all(hatchet::model::RunReport::is_applied));
    assert_eq!(setup.engine.faults().planned(), 0);
    assert_eq!(setup.started.load(SeqCst), 4, "each run was replayed once");
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn replays_without_an_observed_status_have_an_unknown_effect() {
    let (setup, worker) = setup().await;
    let run = setup.hatchet.run(&setup.task, &()).start().await.unwrap();
    run.result().await.unwrap();
    setup.engine.faults().inject("ReplayTasks", Fault::Delay(SECOND)).unwrap();
    let failing = async {
        // Between the fetch before the replay, and the fetches after it.
        sleep(SECOND / 2).await;
        setup
            .engine
            .faults()
            .inject_times("GET /api/v1/stable/workflow-runs/{run}", Fault::RejectRest(500), 1000)
            .unwrap();
    };
    let (reports, ()) = tokio::join!(setup.hatchet.replay_many([run.id()]).send(), failing);
    let report = reports.unwrap().remove(0);
    let Effect::Unknown(error) = &report.effect else { panic!("{}", report.effect) };
    assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Server, false), "{error}");
    sleep(60 * SECOND).await;
    assert_eq!(setup.started.load(SeqCst), 2, "the replay was sent once");
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn crons_are_missing_only_if_the_list_lacks_them() {
    let (setup, worker) = setup().await;
    let cron = setup.hatchet.cron(&setup.task, &(), CronSpec::new("daily", "0 9 * * *")).send().await.unwrap();
    let route = "/api/v1/tenants/{tenant}/workflows/crons/{cron}";
    for method in ["PATCH", "DELETE"] {
        setup.engine.faults().inject(&format!("{method} {route}"), Fault::RejectRest(500)).unwrap();
    }
    for error in [cron.pause().send().await.unwrap_err(), cron.delete().send().await.unwrap_err()] {
        assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Server, false), "{error}");
    }
    assert_eq!(setup.engine.faults().planned(), 0);
    // The list contains the cron with all details. If the list fails too, the first error is returned.
    let list = "GET /api/v1/tenants/{tenant}/workflows/crons";
    setup.engine.faults().inject(&format!("GET {route}"), Fault::RejectRest(500)).unwrap();
    assert_eq!(cron.details().await.unwrap().id, cron.id());
    setup.engine.faults().inject(&format!("GET {route}"), Fault::RejectRest(500)).unwrap();
    setup.engine.faults().inject(list, Fault::RejectRest(500)).unwrap();
    assert_eq!(cron.details().await.unwrap_err().kind(), ErrorKind::Server);
    assert_eq!(setup.engine.faults().planned(), 0);

    cron.delete().send().await.unwrap();
    let error = cron.details().await.unwrap_err();
    assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::NotFound, true), "{error}");
    for error in [cron.pause().send().await.unwrap_err(), cron.delete().send().await.unwrap_err()] {
        assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::NotFound, false), "{error}");
    }
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn failed_lookups_have_no_side_effects() {
    let (setup, worker) = setup().await;
    let run = setup.hatchet.run(&setup.task, &()).start().await.unwrap();
    // This client has not fetched the workflow yet.
    let other_client = setup.engine.client_with(hatchet::Config::builder()).unwrap();
    let (workflows, run_details) = ("GET /api/v1/tenants/{tenant}/workflows", "GET /api/v1/stable/workflow-runs/{run}");
    for route in [workflows, run_details] {
        setup.engine.faults().inject_times(route, Fault::RejectRest(503), 1000).unwrap();
    }
    let of_workflow = hatchet::RunFilter::new(hatchet::model::Window::all()).workflow(setup.task.name());
    for error in [
        other_client.runs(of_workflow).count().await.unwrap_err(),
        run.cancel().reason("unknown").send().await.unwrap_err(),
        run.rerun().start().await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Unavailable, true), "{error}");
    }
    setup.engine.faults().clear();
    assert_eq!(run.result().await.unwrap(), 1, "the run was not cancelled");
    assert_eq!(setup.started.load(SeqCst), 1, "no other run was started");
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn calls_to_a_stopped_engine_are_not_retried() {
    let (Setup { engine, hatchet, task, .. }, worker) = setup().await;
    let run = hatchet.run(&task, &()).start().await.unwrap();
    worker.shutdown().await;
    engine.shutdown().await;
    let start = Instant::now();
    for error in [
        hatchet.runs(hatchet::model::Window::all()).count().await.unwrap_err(),
        run.details().await.unwrap_err(),
        hatchet.run(&task, &()).start().await.unwrap_err(),
        run.outcome().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn details_contain_a_reason_that_is_written_during_the_fetch() {
    let (setup, worker) = setup().await;
    let run = setup.hatchet.run(&setup.task, &()).start().await.unwrap();
    sleep(SECOND).await;
    // The log is read immediately, and the gRPC status is received five seconds later.
    setup.engine.faults().inject("GetRunDetails", Fault::Delay(5 * SECOND)).unwrap();
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
async fn a_cancellation_writes_its_reason_although_a_call_fails() {
    let (setup, worker) = setup().await;
    let run = setup.hatchet.run(&setup.task, &()).start().await.unwrap();
    setup.engine.faults().inject_times("PutLog", Fault::RejectGrpc(UNAVAILABLE), 2).unwrap();
    let report = run.cancel().reason("a bad deploy").send().await.unwrap();
    assert_eq!(report.effect, Effect::Applied);
    let details = run.details().await.unwrap();
    assert_eq!(details.cancellation().unwrap().reason.as_deref(), Some("a bad deploy"));
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn permanent_errors_end_the_observation_of_a_cancel() {
    let (setup, worker) = setup().await;
    let run = setup.hatchet.run(&setup.task, &()).start().await.unwrap();
    setup.engine.faults().inject("CancelTasks", Fault::Delay(SECOND)).unwrap();
    let expired = async {
        // Between the fetch before the cancellation, and the fetches after it.
        sleep(SECOND / 2).await;
        setup.engine.faults().inject_times("GetRunDetails", Fault::RejectGrpc(PERMISSION_DENIED), 1000).unwrap();
    };
    let start = Instant::now();
    let (reports, ()) = tokio::join!(setup.hatchet.cancel_many([run.id()]).send(), expired);
    let report = reports.unwrap().remove(0);
    let Effect::Unknown(error) = &report.effect else { panic!("{report}") };
    assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Unauthenticated, false), "{error}");
    assert!(start.elapsed() < 2 * SECOND, "{:?}", start.elapsed());
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn requests_have_their_own_deadline_and_retries() {
    let (setup, worker) = setup().await;
    let faults = setup.engine.faults();
    let run = setup.hatchet.run(&setup.task, &()).timeout(20 * SECOND).start().await.unwrap();
    let start = Instant::now();
    faults.inject("TriggerWorkflow", Fault::Delay(5 * SECOND)).unwrap();
    let error = setup.hatchet.run(&setup.task, &()).timeout(SECOND).start().await.unwrap_err();
    assert_eq!((error.kind(), error.has_no_side_effects(), start.elapsed()), (ErrorKind::Timeout, false, SECOND));
    assert_eq!(run.result().await.unwrap(), 1, "the wait is not limited by the deadline of the trigger");
    let watched: Vec<_> =
        setup.hatchet.run(&setup.task, &()).watch().map(|change| change.unwrap().to_string()).collect().await;
    assert_eq!(watched, ["QUEUED (attempt 1)", "RUNNING (attempt 1)", "COMPLETED (attempt 1)"]);
    let outcome = setup.hatchet.run(&setup.task, &()).outcome().await.unwrap();
    assert_eq!(outcome.to_string(), "completed");
    faults.inject("TriggerWorkflow", Fault::RejectGrpc(PERMISSION_DENIED)).unwrap();
    let mut rejected = setup.hatchet.run(&setup.task, &()).watch();
    assert_eq!(rejected.next().await.unwrap().unwrap_err().kind(), ErrorKind::Unauthenticated);
    assert!(rejected.next().await.is_none());

    let run = setup.hatchet.run(&setup.task, &()).start().await.unwrap();
    for (policy, expected) in [(RetryPolicy::none(), 1), (RetryPolicy::max_retries(2), 3)] {
        faults.inject_times("GetRunDetails", Fault::RejectGrpc(UNAVAILABLE), 10).unwrap();
        let error = run.cancel().retry(policy).send().await.unwrap_err();
        assert_eq!((error.kind(), 10 - faults.planned()), (ErrorKind::Unavailable, expected), "{policy:?}");
        faults.clear();
    }
    for invalid in [Duration::ZERO, 25 * 3600 * SECOND] {
        let error = setup.hatchet.run(&setup.task, &()).timeout(invalid).start().await.unwrap_err();
        assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::InvalidInput, true));
    }
    worker.shutdown().await;
}
