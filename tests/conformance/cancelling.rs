//! X: cancelling.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use hatchet::model::{Effect, LogLevel};
use hatchet::raw::pb::v1::admin_service_client::AdminServiceClient;
use hatchet::raw::pb::v1::{
    BaseMatchCondition, CreateTaskOpts, CreateWorkflowVersionRequest, SleepMatchCondition, TaskConditions,
};
use hatchet::{Context, ErrorKind, Outcome, RunFilter, RunId, RunStatus, Task, TaskError, Workflow};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::setup::{Setup, rows, until};
use crate::tasks::{Doubled, Number, double, endless};

rows! {
    x5_queued_runs_stay_cancelled_after_their_schedule_timeout,
    x1_queued_runs_are_cancelled,
    x2_running_runs_are_cancelled,
    x3_cancelled_tasks_are_notified_and_dropped_after_the_grace_period,
    x4_later_tasks_of_a_cancelled_dag_do_not_start,
    x5_all_api_views_show_the_run_as_cancelled,
    x6_details_contain_the_reason_and_the_requester,
    x7_ended_runs_are_not_cancelled,
    x8_many_runs_are_cancelled_by_id_with_a_report_for_each,
    x9_all_runs_that_match_a_filter_are_cancelled,
    x10_cancelled_runs_are_not_retried,
    x11_cancels_without_effect_are_reported,
}

const ONE: Number = Number { n: 1 };

async fn x1_queued_runs_are_cancelled(setup: Setup) {
    let task = double(setup.name("double"));
    setup.worker(&task).await.shutdown().await;
    let run = setup.hatchet.run(&task, &ONE).start().await.unwrap();
    assert!(matches!(run.cancel().send().await.unwrap().effect, Effect::Applied));
    let details = run.details().await.unwrap();
    assert_eq!((details.status.clone(), details.started_at(), details.attempt()), (RunStatus::Cancelled, None, 1));
}

async fn x2_running_runs_are_cancelled(setup: Setup) {
    let task = endless(setup.name("endless"));
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &ONE).start().await.unwrap();
    until(&run, RunStatus::Running).await;
    assert!(matches!(run.cancel().send().await.unwrap().effect, Effect::Applied));
    assert!(matches!(run.outcome().await.unwrap(), Outcome::Cancelled(_)));
    assert_eq!(worker.shutdown().await.cancelled, 1);
}

async fn x3_cancelled_tasks_are_notified_and_dropped_after_the_grace_period(setup: Setup) {
    /// Sends the time from the notification to the drop.
    struct Dropped(Option<Instant>, mpsc::UnboundedSender<Duration>);
    impl Dropped {
        fn notified(&mut self) {
            self.0 = Some(Instant::now());
        }
    }
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.map(|notified_at| self.1.send(notified_at.elapsed()));
        }
    }
    let (sender, mut dropped) = mpsc::unbounded_channel();
    let stubborn: Task<Number, ()> = Task::new(setup.name("stubborn"), move |_: Number, context: Context| {
        let mut dropped = Dropped(None, sender.clone());
        async move {
            context.cancelled().await;
            dropped.notified();
            std::future::pending().await
        }
    });
    let worker =
        setup.hatchet.worker(setup.name("worker")).cancel_grace_period(Duration::from_secs(2)).register(&stubborn);
    let worker = worker.build().unwrap().start().await.unwrap();
    let run = setup.hatchet.run(&stubborn, &ONE).start().await.unwrap();
    until(&run, RunStatus::Running).await;
    run.cancel().send().await.unwrap();
    let grace = dropped.recv().await.unwrap();
    assert!((2000..2300).contains(&grace.as_millis()), "{grace:?}");
    worker.shutdown().await;
}

async fn x4_later_tasks_of_a_cancelled_dag_do_not_start(setup: Setup) {
    let starts = Arc::new(AtomicU32::new(0));
    let first: Task<Number, ()> = Task::new("first", async |_: Number, _: Context| std::future::pending().await);
    let second: Task<Number, ()> = Task::new("second", {
        let starts = Arc::clone(&starts);
        move |_: Number, _: Context| {
            starts.fetch_add(1, SeqCst);
            async { Ok(()) }
        }
    });
    let flow: Workflow<Number> = Workflow::new(setup.name("flow")).task(&first).task_after(&second, ["first"]);
    let worker = setup.worker(&flow).await;
    let run = setup.hatchet.run(&flow, &ONE).start().await.unwrap();
    until(&run, RunStatus::Running).await;
    assert!(matches!(run.cancel().send().await.unwrap().effect, Effect::Applied));
    let details = run.details().await.unwrap();
    assert_eq!(details.status, RunStatus::Cancelled);
    assert!(details.tasks.iter().all(|task| task.status == RunStatus::Cancelled), "{:#?}", details.tasks);
    assert_eq!((starts.load(SeqCst), worker.shutdown().await.total()), (0, 1));
}

async fn x5_all_api_views_show_the_run_as_cancelled(setup: Setup) {
    let task = endless(setup.name("endless"));
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &ONE).start().await.unwrap();
    let mut watch = run.watch();
    let mut last = None;
    while let Some(change) = watch.next().await {
        let change = change.unwrap();
        if change.has_status(&RunStatus::Running) {
            run.cancel().send().await.unwrap();
        }
        last = Some(change);
    }
    assert!(last.unwrap().has_status(&RunStatus::Cancelled));
    assert!(matches!(run.outcome().await.unwrap(), Outcome::Cancelled(_)));
    assert_eq!(run.details().await.unwrap().status, RunStatus::Cancelled);
    let cancelled = RunFilter::new(setup.window()).workflow(task.name()).status(RunStatus::Cancelled);
    setup.eventually(async || setup.hatchet.runs(cancelled.clone()).page(10).await.unwrap().items.len() == 1).await;
    worker.shutdown().await;
}

async fn x6_details_contain_the_reason_and_the_requester(setup: Setup) {
    let task = endless(setup.name("endless"));
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &ONE).start().await.unwrap();
    until(&run, RunStatus::Running).await;
    run.cancel().reason("the customer asked").by("ada").send().await.unwrap();
    let details = setup.hatchet.run_handle(run.id()).details().logs(10).await.unwrap();
    let request = details.cancellation().unwrap();
    assert_eq!((request.reason.as_deref(), request.by.as_deref()), (Some("the customer asked"), Some("ada")));
    assert!(request.requested_at >= details.created_at.unwrap());
    // The log contains the reason too, so that the dashboard shows it.
    let lines: Vec<_> = details.logs.iter().map(|line| (line.level.clone(), line.message.as_str())).collect();
    assert_eq!(lines, [(LogLevel::Info, "Cancellation requested by ada: the customer asked")]);
    // A later cancel does not have the reason of an earlier one.
    let again = run.replay().include_cancelled().send().await.unwrap();
    until(&again.run, RunStatus::Running).await;
    let effect = run.cancel().send().await.unwrap().effect;
    assert!(matches!(effect, Effect::Applied), "{effect} {:#?}", run.details().await);
    assert_eq!(run.details().await.unwrap().cancellation(), None);
    // A cancellation without a reason and a requester has no request.
    let other = setup.hatchet.run(&task, &ONE).start().await.unwrap();
    other.cancel().send().await.unwrap();
    assert_eq!(other.details().await.unwrap().cancellation(), None);
    let long = "x".repeat(4001);
    for rejected in [run.cancel().reason(""), run.cancel().reason(&long), run.cancel().by("a\0b")] {
        assert_eq!(rejected.send().await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    worker.shutdown().await;
}

async fn x7_ended_runs_are_not_cancelled(setup: Setup) {
    let task = double(setup.name("double"));
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &ONE).start().await.unwrap();
    run.result().await.unwrap();
    let error = run.cancel().reason("too late").send().await.unwrap_err();
    assert_eq!((error.kind(), error.run_status()), (ErrorKind::RunState, Some(&RunStatus::Completed)));
    assert!(error.has_no_side_effects());
    let details = run.details().logs(10).await.unwrap();
    assert_eq!((details.conflicts.len(), details.logs.len(), details.status), (0, 0, RunStatus::Completed));
    worker.shutdown().await;
}

async fn x8_many_runs_are_cancelled_by_id_with_a_report_for_each(setup: Setup) {
    let (short, slow) = (double(setup.name("double")), endless(setup.name("endless")));
    let worker = setup.hatchet.worker(setup.name("worker")).register(&short).register(&slow);
    let worker = worker.build().unwrap().start().await.unwrap();
    let done = setup.hatchet.run(&short, &ONE).start().await.unwrap();
    done.result().await.unwrap();
    let running = setup.hatchet.run_many(&slow, vec![ONE; 3]).start().await.unwrap();
    let running: Vec<_> = running.into_iter().map(|run| run.unwrap().id()).collect();
    let unknown: RunId = "00000000-0000-4000-8009-000000000009".parse().unwrap();
    let ids = [running[0], done.id(), running[1], unknown, running[2]];
    let reports = setup.hatchet.cancel_many(ids).reason("all of them").send().await.unwrap();
    let effects: Vec<_> = reports.iter().map(|report| (report.run_id, report.effect.to_string())).collect();
    let expected = ["applied", "skipped: the run is COMPLETED", "applied", "not found", "applied"];
    assert_eq!(effects, ids.into_iter().zip(expected.map(str::to_owned)).collect::<Vec<_>>());
    worker.shutdown().await;
}

async fn x9_all_runs_that_match_a_filter_are_cancelled(setup: Setup) {
    let task = double(setup.name("double"));
    setup.worker(&task).await.shutdown().await;
    let count = if setup.engine.is_some() { 1100 } else { 450 };
    let runs = setup.hatchet.run_many(&task, vec![ONE; count]).metadata("batch", "x9").start().await.unwrap();
    assert!(runs.iter().all(Result::is_ok));
    let filter = RunFilter::new(setup.window()).workflow(task.name()).metadata("batch", "x9");
    let query = setup.hatchet.runs(filter);
    setup.eventually(async || query.count().await.unwrap().to_string() == count.to_string()).await;
    // The first batches are cancelled while their first reports are read, and the others with one command. The list may still contain
    // some of the first.
    let mut reports = query.cancel().reason("bad deploy").reports();
    for _ in 0..10 {
        assert!(reports.next().await.unwrap().unwrap().is_applied());
    }
    drop(reports);
    let report = query.cancel().reason("bad deploy").send().await.unwrap();
    assert_eq!(report.total(), report.applied + report.skipped, "{report}");
    let cancelled = async || query.counts_by_status().await.unwrap().get(&RunStatus::Cancelled) == Some(count as u64);
    setup.eventually(cancelled).await;
}

async fn x10_cancelled_runs_are_not_retried(setup: Setup) {
    let starts = Arc::new(AtomicU32::new(0));
    let shaky: Task<Number, ()> = Task::new(setup.name("shaky"), {
        let starts = Arc::clone(&starts);
        move |_: Number, context: Context| {
            starts.fetch_add(1, SeqCst);
            async move {
                context.cancelled().await;
                Err(TaskError::new("cancelled"))
            }
        }
    })
    .retries(5);
    let worker = setup.worker(&shaky).await;
    let run = setup.hatchet.run(&shaky, &ONE).start().await.unwrap();
    until(&run, RunStatus::Running).await;
    run.cancel().send().await.unwrap();
    // A retry would start immediately, because the worker is idle.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let details = run.details().await.unwrap();
    assert_eq!((details.status.clone(), details.retry_count(), starts.load(SeqCst)), (RunStatus::Cancelled, 0, 1));
    worker.shutdown().await;
}

/// Stores a workflow whose second task waits for a sleep, which this crate cannot define yet.
async fn put_waiting_workflow(setup: &Setup, name: &str) {
    let sleep = |seconds: u32| TaskConditions {
        sleep_conditions: vec![SleepMatchCondition {
            base: Some(BaseMatchCondition {
                readable_data_key: "nap".into(),
                action: 1, // QUEUE
                or_group_id: "00000000-0000-4000-8000-000000000001".into(),
                expression: String::new(),
            }),
            sleep_for: format!("{seconds}s"),
        }],
        ..Default::default()
    };
    let task = |name: &str, parents: &[&str], conditions| CreateTaskOpts {
        readable_id: name.into(),
        action: format!("{}:{name}", setup.name("waiting")).to_lowercase(),
        timeout: "60s".into(),
        parents: parents.iter().map(|parent| (*parent).to_owned()).collect(),
        conditions,
        ..Default::default()
    };
    let request = CreateWorkflowVersionRequest {
        name: name.into(),
        tasks: vec![task("a", &[], None), task("b", &["a"], Some(sleep(30)))],
        ..Default::default()
    };
    AdminServiceClient::new(setup.hatchet.raw_channel()).put_workflow(request).await.unwrap();
}

async fn x11_cancels_without_effect_are_reported(setup: Setup) {
    let name = setup.name("waiting");
    let a = Task::new("a", async |_: Number, _: Context| Ok(1));
    let b = Task::new("b", async |_: Number, _: Context| Ok(2));
    let flow: Workflow<Number> = Workflow::new(&name).task(&a).task_after(&b, ["a"]);
    let worker = setup.worker(&flow).await;
    put_waiting_workflow(&setup, &name).await;
    // The engine uses the previous version for some more seconds.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let run = setup.hatchet.run(&flow, &ONE).start().await.unwrap();
    setup
        .eventually(async || {
            let details = run.details().await.unwrap();
            details.task("a").is_some_and(|a| a.status == RunStatus::Completed)
        })
        .await;
    let effect = run.cancel().within(Duration::from_secs(3)).send().await.unwrap().effect;
    assert!(matches!(effect, Effect::NoEffect(_)), "{effect}");
    let Outcome::Completed(_) = run.outcome().await.unwrap() else { panic!("the run should complete") };
    worker.shutdown().await;
}

/// After the cancellation, the engine stores a schedule timeout for some runs, and REST shows those as failed.
async fn x5_queued_runs_stay_cancelled_after_their_schedule_timeout(setup: Setup) {
    let task = double(setup.name("double")).schedule_timeout(Duration::from_secs(4));
    setup.worker(&task).await.shutdown().await;
    let runs = setup.hatchet.run_many(&task, (0..60).map(|n| Number { n })).start().await.unwrap();
    let ids: std::collections::BTreeSet<_> = runs.into_iter().map(|run| run.unwrap().id()).collect();
    for report in setup.hatchet.cancel_many(ids.iter().copied()).send().await.unwrap() {
        assert!(report.is_applied(), "{report}");
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let all = RunFilter::new(setup.window()).workflow(task.name());
    let by_status = async |status| {
        let (mut items, mut found) =
            (setup.hatchet.runs(all.clone().status(status)).items(), std::collections::BTreeSet::new());
        while let Some(run) = items.next().await {
            let run = run.unwrap();
            assert!(found.insert(run.id), "each run is listed once");
        }
        found
    };
    assert_eq!(by_status(RunStatus::Cancelled).await, ids);
    assert!(by_status(RunStatus::Failed).await.is_empty() && by_status(RunStatus::TimedOut).await.is_empty());
    let cancelled = setup.hatchet.runs(all.clone().status(RunStatus::Cancelled));
    assert_eq!(cancelled.count().await.unwrap(), hatchet::model::Total::Exactly(60));
    let page = cancelled.page(50).await.unwrap();
    assert_eq!((page.items.len(), page.total), (50, hatchet::model::Total::Exactly(60)));
    for id in &ids {
        let run = setup.hatchet.run_handle(*id).typed::<Doubled>();
        let details = run.details().await.unwrap();
        assert_eq!(details.status, RunStatus::Cancelled);
        // A different status in REST is a conflict.
        assert!(
            details
                .conflicts
                .iter()
                .all(|conflict| { (&conflict.grpc, &conflict.rest) == (&RunStatus::Cancelled, &RunStatus::Failed) })
        );
        assert!(matches!(run.outcome().await.unwrap(), Outcome::Cancelled(_)));
    }
    if setup.engine.is_some() {
        let counts = setup.hatchet.runs(all.clone()).counts_by_status().await.unwrap();
        assert!(counts.get(&RunStatus::Failed) > Some(0), "the embedded engine shows some as failed: {counts}");
    }
    // They are not replayed with failed runs.
    let report =
        setup.hatchet.runs(all.status(RunStatus::Failed).status(RunStatus::TimedOut)).replay().send().await.unwrap();
    assert_eq!(report.total(), 0, "{report}");
}
