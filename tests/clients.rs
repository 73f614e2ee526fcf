//! Clients over their lifetime: several runtimes, deleted workflows, fused streams, rejected tokens.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

use std::time::Duration;

use futures_util::future::join_all;
use hatchet::embedded::{Engine, Fault, Quirks};
use hatchet::model::{CronSpec, Effect, RunAction, Window};
use hatchet::worker::RunningWorker;
use hatchet::{Client, Context, ErrorKind, Outcome, RunFilter, RunStatus, Task};
use http::Method;
use tokio::time::{Instant, advance, sleep};

const SECOND: Duration = Duration::from_secs(1);
const UNAUTHENTICATED: u16 = 16;

async fn setup() -> (Engine, Client, Task<(), u32>, RunningWorker) {
    let engine = Engine::builder().quirks(Quirks::all()).seed(7).start().await.unwrap();
    let hatchet = engine.client();
    let task = Task::new("quick", async |(): (), context: Context| Ok(context.attempt()));
    let worker = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    (engine, hatchet, task, worker)
}

/// Uses real threads, because runtimes are the subject.
#[test]
fn waits_survive_the_shutdown_of_another_callers_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (engine, hatchet, task, worker) = runtime.block_on(setup());
    for _ in 0..3 {
        let (hatchet, task) = (hatchet.clone(), task.clone());
        let elsewhere = std::thread::spawn(move || {
            let short_lived = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            short_lived.block_on(async {
                let run = hatchet.run(&task, &()).start().await.unwrap();
                let mut watch = run.watch();
                while watch.next().await.transpose().unwrap().is_some() {}
                run.result().await.unwrap()
            })
        });
        assert_eq!(elsewhere.join().unwrap(), 1);
    }
    runtime.block_on(async {
        assert_eq!(hatchet.run(&task, &()).result().await.unwrap(), 1);
        worker.shutdown().await;
        engine.shutdown().await;
    });
}

#[tokio::test(start_paused = true)]
async fn streams_are_fused() {
    let (engine, hatchet, task, worker) = setup().await;
    let run = hatchet.run(&task, &()).start().await.unwrap();
    run.result().await.unwrap();
    sleep(5 * SECOND).await;
    let all = hatchet.runs(RunFilter::new(Window::all()).workflow("quick"));

    // After their end.
    let (mut watch, mut items, mut logs, mut reports) = (run.watch(), all.items(), run.logs(), all.cancel().reports());
    while watch.next().await.transpose().unwrap().is_some() {}
    while items.next().await.transpose().unwrap().is_some() {}
    while logs.next().await.transpose().unwrap().is_some() {}
    while reports.next().await.transpose().unwrap().is_some() {}
    for _ in 0..2 {
        assert!(watch.next().await.is_none() && items.next().await.is_none());
        assert!(logs.next().await.is_none() && reports.next().await.is_none());
    }

    // After an error.
    for route in [
        "GET /api/v1/stable/workflow-runs/{run}",
        "GET /api/v1/stable/tasks/{task}/logs",
        "GET /api/v1/stable/tenants/{tenant}/workflow-runs",
    ] {
        engine.faults().inject_always(route, Fault::RejectRest(400)).unwrap();
    }
    let (mut watch, mut items, mut logs, mut reports) = (run.watch(), all.items(), run.logs(), all.replay().reports());
    assert!(watch.next().await.unwrap().is_err() && items.next().await.unwrap().is_err());
    assert!(logs.next().await.unwrap().is_err() && reports.next().await.unwrap().is_err());
    for _ in 0..2 {
        assert!(watch.next().await.is_none() && items.next().await.is_none());
        assert!(logs.next().await.is_none() && reports.next().await.is_none());
    }
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn concurrent_first_triggers_share_one_confirmation() {
    let (engine, _, task, worker) = setup().await;
    let other_client = engine.client_with(hatchet::Config::builder()).unwrap();
    let faults = engine.faults();
    let count = |planned| 1000 - planned;
    faults.inject_times("GetRunDetails", Fault::Delay(SECOND), 1000).unwrap();
    let runs = join_all((0..50).map(|_| other_client.run(&task, &()).start())).await;
    assert!(runs.iter().all(Result::is_ok));
    assert_eq!(count(faults.planned()), 1, "one confirmation for all triggers");
    other_client.run(&task, &()).start().await.unwrap();
    assert_eq!(count(faults.planned()), 1, "the workflow is known");
    advance(61 * SECOND).await;
    let start = Instant::now();
    other_client.run(&task, &()).start().await.unwrap();
    assert_eq!((count(faults.planned()), start.elapsed()), (2, SECOND), "the workflow may have been deleted");
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn deleted_workflows_are_reported() {
    let (_engine, hatchet, task, worker) = setup().await;
    hatchet.run(&task, &()).result().await.unwrap();
    worker.shutdown().await;
    let tenant = hatchet.tenant_id();
    let (_, body) = hatchet.raw_rest(Method::GET, &format!("/api/v1/tenants/{tenant}/workflows"), None).await.unwrap();
    let listed: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let id = listed.pointer("/rows/0/metadata/id").and_then(serde_json::Value::as_str).unwrap().to_owned();
    let (status, _) = hatchet.raw_rest(Method::DELETE, &format!("/api/v1/workflows/{id}"), None).await.unwrap();
    assert!(status.is_success(), "{status}");
    // Until the name is confirmed again, only a wait for the run reports it.
    let run = hatchet.run(&task, &()).start().await.unwrap();
    assert_eq!(run.result().await.unwrap_err().kind(), ErrorKind::RunNotFound);
    advance(61 * SECOND).await;
    let error = hatchet.run(&task, &()).start().await.unwrap_err();
    assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::WorkflowNotFound, true));
    let error = hatchet.run_many(&task, [(), ()]).start().await.unwrap_err();
    assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::WorkflowNotFound, true));
}

#[tokio::test(start_paused = true)]
async fn runs_are_not_cancelled_if_the_second_fetch_fails() {
    let (engine, hatchet, _, worker) = setup().await;
    let endless: Task<(), ()> = Task::new("endless", async |(): (), _: Context| std::future::pending().await);
    let other = hatchet
        .worker("other")
        .shutdown_grace_period(Duration::ZERO)
        .register(&endless)
        .build()
        .unwrap()
        .start()
        .await
        .unwrap();
    let run = hatchet.run(&endless, &()).start().await.unwrap();
    sleep(SECOND).await;
    // The first fetch succeeds and the second one fails: the run may have ended in between.
    engine.faults().inject("PutLog", Fault::Delay(SECOND)).unwrap();
    engine.faults().inject("GetRunDetails", Fault::Delay(Duration::ZERO)).unwrap();
    engine.faults().inject("GetRunDetails", Fault::RejectGrpc(13)).unwrap();
    let error = run.cancel().reason("customer asked").send().await.unwrap_err();
    // The reason has been written to the run's log.
    assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Server, false), "{error:?}");
    sleep(30 * SECOND).await;
    assert_eq!(run.details().await.unwrap().status, RunStatus::Running);
    other.shutdown().await;
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn cancelling_a_thousand_runs_is_bounded_in_time_and_calls() {
    let (engine, hatchet, task, worker) = setup().await;
    worker.shutdown().await;
    let runs = hatchet.run_many(&task, (0..1000).map(|_| ())).start().await.unwrap();
    let ids: Vec<_> = runs.iter().map(|run| run.as_ref().unwrap().id()).collect();
    sleep(5 * SECOND).await;
    let planned = 1_000_000;
    engine.faults().inject_times("GetRunDetails", Fault::Delay(Duration::from_millis(5)), planned).unwrap();
    let start = Instant::now();
    let reports = hatchet.cancel_many(ids.clone()).send().await.unwrap();
    let (elapsed, calls) = (start.elapsed(), planned - engine.faults().planned());
    engine.faults().clear();
    assert_eq!(reports.iter().map(|report| report.run_id).collect::<Vec<_>>(), ids);
    assert!(
        reports.iter().all(|report| matches!(report.effect, Effect::Applied) && report.action == RunAction::Cancel)
    );
    assert!(elapsed < 20 * SECOND, "{elapsed:?}");
    assert!(calls < 12_000, "{calls} calls of GetRunDetails");
}

#[tokio::test(start_paused = true)]
async fn temporarily_rejected_tokens_lose_no_reports() {
    let (engine, hatchet, task, worker) = setup().await;
    let slow: Task<(), u32> = Task::new("slow", async |(): (), context: Context| {
        sleep(3 * SECOND).await;
        Ok(context.attempt())
    });
    let other = hatchet.worker("other").register(&slow).build().unwrap().start().await.unwrap();
    let runs = join_all((0..20).map(|_| hatchet.run(&slow, &()).start())).await;
    sleep(SECOND).await;
    // The engine's database is unavailable: all valid tokens are rejected.
    let calls = [
        "SendStepActionEvent",
        "SendBatchActionEvent",
        "GetRunDetails",
        "Heartbeat",
        "ListenV2",
        "SubscribeToWorkflowRuns",
        "TriggerWorkflow",
    ];
    for call in calls {
        engine.faults().inject_always(call, Fault::RejectGrpc(UNAUTHENTICATED)).unwrap();
    }
    engine.faults().interrupt("ListenV2").unwrap();
    engine.faults().interrupt("SubscribeToWorkflowRuns").unwrap();
    let waits = join_all(runs.iter().map(|run| run.as_ref().unwrap().result()));
    let started_meanwhile = hatchet.run(&task, &()).start();
    let recovery = async {
        sleep(12 * SECOND).await;
        engine.faults().clear();
    };
    let (waits, started_meanwhile, ()) = tokio::join!(waits, started_meanwhile, recovery);
    for wait in waits {
        assert_eq!(wait.unwrap(), 1, "the result of the first attempt was delivered");
    }
    // A trigger has a deadline, and shares the retry budget with all other calls.
    match started_meanwhile {
        Ok(run) => assert_eq!(run.result().await.unwrap(), 1),
        Err(error) => assert!(error.is_transient() && error.has_no_side_effects(), "{error:?}"),
    }
    let report = other.shutdown().await;
    assert_eq!((report.completed, report.total()), (20, 20), "{report}");
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn never_accepted_tokens_fail_immediately() {
    let (engine, _, task, worker) = setup().await;
    let other_client = engine.client_with(hatchet::Config::builder()).unwrap();
    engine.faults().inject_always("TriggerWorkflow", Fault::RejectGrpc(UNAUTHENTICATED)).unwrap();
    let start = Instant::now();
    let error = other_client.run(&task, &()).start().await.unwrap_err();
    assert_eq!((error.kind(), start.elapsed()), (ErrorKind::Unauthenticated, Duration::ZERO));
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn bulk_replays_return_handles_of_the_new_attempts() {
    let (_engine, hatchet, task, worker) = setup().await;
    let runs = join_all((0..5).map(|_| hatchet.run(&task, &()).start())).await;
    let ids: Vec<_> = runs.iter().map(|run| run.as_ref().unwrap().id()).collect();
    join_all(runs.iter().map(|run| run.as_ref().unwrap().result())).await;
    sleep(5 * SECOND).await;
    for report in hatchet.replay_many(ids).send().await.unwrap() {
        assert_eq!((report.attempt, report.to_string()), (Some(2), format!("{}: replayed", report.run_id)));
        let Outcome::Completed(done) = report.handle(&hatchet).outcome().await.unwrap() else { panic!() };
        assert_eq!(done.output.parse::<u32>().unwrap(), 2, "the result of the new attempt");
    }
    worker.shutdown().await;
}

/// Futures, handles and streams can be spawned and shared. This is checked by the compiler.
#[tokio::test(start_paused = true)]
async fn futures_and_handles_are_send() {
    fn is_send<T: Send>(_: T) {}
    fn is_shared<T: Send + Sync + 'static>(_: &T) {}
    let (engine, hatchet, task, worker) = setup().await;
    let run = hatchet.run(&task, &()).start().await.unwrap();
    is_shared(&engine);
    is_shared(&hatchet);
    is_shared(&task);
    is_shared(&worker);
    is_shared(&run);
    is_send(hatchet.run(&task, &()).start());
    is_send(hatchet.run(&task, &()).result());
    is_send(hatchet.run_many(&task, [(), ()]).start());
    is_send(hatchet.run_many(&task, [(), ()]).results());
    is_send(run.outcome());
    is_send(run.result());
    is_send(run.details());
    is_send(run.watch());
    is_send(run.logs());
    is_send(run.children());
    is_send(run.cancel().reason("why").send());
    is_send(run.replay().send());
    is_send(run.rerun().start());
    is_send(hatchet.cancel_many([run.id()]).send());
    is_send(hatchet.replay_many([run.id()]).send());
    let all = hatchet.runs(Window::all());
    is_send(all.page(1));
    is_send(all.count());
    is_send(all.counts_by_status());
    is_send(all.items());
    is_send(all.cancel().send());
    is_send(all.replay().reports());
    is_send(hatchet.push("key", &serde_json::json!({})).send());
    is_send(hatchet.push_many("key", [serde_json::json!({})]).send());
    is_send(hatchet.schedule(&task, &(), chrono::DateTime::UNIX_EPOCH).send());
    is_send(hatchet.cron(&task, &(), CronSpec::new("name", "* * * * *")).send());
    is_send(hatchet.schedules().get());
    is_send(hatchet.crons().get());
    let build = || hatchet.worker("other").register(&task).build().unwrap();
    is_send(build().start());
    is_send(build().run_until(std::future::pending::<()>()));
    is_send(worker.shutdown());
    is_send(engine.shutdown());
}

/// A failed wait does not undo the start of a run.
#[tokio::test(start_paused = true)]
async fn failed_waits_have_possible_side_effects() {
    let (engine, hatchet, task, worker) = setup().await;
    let slow: Task<(), ()> = Task::new("slow", async |(): (), _: Context| {
        sleep(3600 * SECOND).await;
        Ok(())
    });
    let other = hatchet
        .worker("other")
        .shutdown_grace_period(Duration::ZERO)
        .register(&slow)
        .build()
        .unwrap()
        .start()
        .await
        .unwrap();
    let (one, many) = (hatchet.run(&slow, &()).result(), hatchet.run_many(&slow, [(), ()]).results());
    let stop = async {
        sleep(5 * SECOND).await;
        drop((worker, other));
        engine.shutdown().await;
    };
    let (one, many, ()) = tokio::join!(one, many, stop);
    let errors = many.unwrap().into_iter().map(Result::unwrap_err).chain([one.unwrap_err()]);
    for error in errors {
        assert!(!error.has_no_side_effects(), "{error:?}");
    }
    drop(task);
}
