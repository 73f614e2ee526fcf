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

use crate::tasks::{Doubled, Number, double, endless};
use crate::world::{World, rows, until};

rows! {
    x5_runs_that_were_cancelled_in_their_queue_stay_cancelled_when_their_schedule_timeout_passes,
    x1_a_queued_run,
    x2_a_running_run,
    x3_the_task_is_told_has_its_grace_and_is_dropped,
    x4_tasks_after_it_do_not_start,
    x5_the_status_becomes_cancelled_on_every_path,
    x6_the_reason_and_who_are_readable_afterwards,
    x7_a_run_that_has_ended_is_left_alone,
    x8_many_by_id_with_a_report_of_each,
    x9_all_that_match_a_filter_to_the_end,
    x10_a_cancelled_run_does_not_retry,
    x11_a_cancel_that_is_not_taken_is_told,
}

const ONE: Number = Number { n: 1 };

async fn x1_a_queued_run(world: World) {
    let task = double(world.name("double"));
    world.worker(&task).await.shutdown().await;
    let run = world.hatchet.run(&task, &ONE).start().await.unwrap();
    assert!(matches!(run.cancel().send().await.unwrap().effect, Effect::Applied));
    let details = run.details().await.unwrap();
    assert_eq!((details.status.clone(), details.started_at(), details.attempt()), (RunStatus::Cancelled, None, 1));
}

async fn x2_a_running_run(world: World) {
    let task = endless(world.name("endless"));
    let worker = world.worker(&task).await;
    let run = world.hatchet.run(&task, &ONE).start().await.unwrap();
    until(&run, RunStatus::Running).await;
    assert!(matches!(run.cancel().send().await.unwrap().effect, Effect::Applied));
    assert!(matches!(run.outcome().await.unwrap(), Outcome::Cancelled(_)));
    assert_eq!(worker.shutdown().await.cancelled, 1);
}

async fn x3_the_task_is_told_has_its_grace_and_is_dropped(world: World) {
    /// Tells when it is dropped, and when that was made known before.
    struct Dropped(Option<Instant>, mpsc::UnboundedSender<Duration>);
    impl Dropped {
        fn told(&mut self) {
            self.0 = Some(Instant::now());
        }
    }
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.map(|told| self.1.send(told.elapsed()));
        }
    }
    let (sender, mut dropped) = mpsc::unbounded_channel();
    let stubborn: Task<Number, ()> = Task::new(world.name("stubborn"), move |_: Number, context: Context| {
        let mut dropped = Dropped(None, sender.clone());
        async move {
            context.cancelled().await;
            dropped.told();
            std::future::pending().await
        }
    });
    let worker =
        world.hatchet.worker(world.name("worker")).cancel_grace_period(Duration::from_secs(2)).register(&stubborn);
    let worker = worker.build().unwrap().start().await.unwrap();
    let run = world.hatchet.run(&stubborn, &ONE).start().await.unwrap();
    until(&run, RunStatus::Running).await;
    run.cancel().send().await.unwrap();
    let grace = dropped.recv().await.unwrap();
    assert!((2000..2300).contains(&grace.as_millis()), "{grace:?}");
    worker.shutdown().await;
}

async fn x4_tasks_after_it_do_not_start(world: World) {
    let begun = Arc::new(AtomicU32::new(0));
    let first: Task<Number, ()> = Task::new("first", async |_: Number, _: Context| std::future::pending().await);
    let second: Task<Number, ()> = Task::new("second", {
        let begun = Arc::clone(&begun);
        move |_: Number, _: Context| {
            begun.fetch_add(1, SeqCst);
            async { Ok(()) }
        }
    });
    let flow: Workflow<Number> = Workflow::new(world.name("flow")).task(&first).task_after(&second, ["first"]);
    let worker = world.worker(&flow).await;
    let run = world.hatchet.run(&flow, &ONE).start().await.unwrap();
    until(&run, RunStatus::Running).await;
    assert!(matches!(run.cancel().send().await.unwrap().effect, Effect::Applied));
    let details = run.details().await.unwrap();
    assert_eq!(details.status, RunStatus::Cancelled);
    assert!(details.tasks.iter().all(|task| task.status == RunStatus::Cancelled), "{:#?}", details.tasks);
    assert_eq!((begun.load(SeqCst), worker.shutdown().await.total()), (0, 1));
}

async fn x5_the_status_becomes_cancelled_on_every_path(world: World) {
    let task = endless(world.name("endless"));
    let worker = world.worker(&task).await;
    let run = world.hatchet.run(&task, &ONE).start().await.unwrap();
    let mut watch = run.watch();
    let mut last = None;
    while let Some(change) = watch.next().await {
        let change = change.unwrap();
        if *change.status() == RunStatus::Running {
            run.cancel().send().await.unwrap();
        }
        last = Some(change);
    }
    assert_eq!(last.unwrap().status(), &RunStatus::Cancelled);
    assert!(matches!(run.outcome().await.unwrap(), Outcome::Cancelled(_)));
    assert_eq!(run.details().await.unwrap().status, RunStatus::Cancelled);
    let cancelled = RunFilter::new(world.window()).workflow(task.name()).status(RunStatus::Cancelled);
    world.eventually(async || world.hatchet.runs(cancelled.clone()).page(10).await.unwrap().items.len() == 1).await;
    worker.shutdown().await;
}

async fn x6_the_reason_and_who_are_readable_afterwards(world: World) {
    let task = endless(world.name("endless"));
    let worker = world.worker(&task).await;
    let run = world.hatchet.run(&task, &ONE).start().await.unwrap();
    until(&run, RunStatus::Running).await;
    run.cancel().reason("the customer asked").by("ada").send().await.unwrap();
    let details = world.hatchet.run_handle(run.id()).details().logs(10).await.unwrap();
    let request = details.cancellation().unwrap();
    assert_eq!((request.reason.as_deref(), request.by.as_deref()), (Some("the customer asked"), Some("ada")));
    assert!(request.requested_at >= details.created_at.unwrap());
    // In the log, where the dashboard shows it, too.
    let lines: Vec<_> = details.logs.iter().map(|line| (line.level.clone(), line.message.as_str())).collect();
    assert_eq!(lines, [(LogLevel::Info, "Cancellation requested by ada: the customer asked")]);
    // What was said of an earlier end is not said of a later one.
    let again = run.replay().even_if_cancelled().send().await.unwrap();
    until(&again.run, RunStatus::Running).await;
    let effect = run.cancel().send().await.unwrap().effect;
    assert!(matches!(effect, Effect::Applied), "{effect} {:#?}", run.details().await);
    assert_eq!(run.details().await.unwrap().cancellation(), None);
    // A run that was cancelled without a word has none.
    let other = world.hatchet.run(&task, &ONE).start().await.unwrap();
    other.cancel().send().await.unwrap();
    assert_eq!(other.details().await.unwrap().cancellation(), None);
    let long = "x".repeat(4001);
    for refused in [run.cancel().reason(""), run.cancel().reason(&long), run.cancel().by("a\0b")] {
        assert_eq!(refused.send().await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    worker.shutdown().await;
}

async fn x7_a_run_that_has_ended_is_left_alone(world: World) {
    let task = double(world.name("double"));
    let worker = world.worker(&task).await;
    let run = world.hatchet.run(&task, &ONE).start().await.unwrap();
    run.result().await.unwrap();
    let error = run.cancel().reason("too late").send().await.unwrap_err();
    assert_eq!((error.kind(), error.run_status()), (ErrorKind::RunState, Some(&RunStatus::Completed)));
    assert!(error.has_no_side_effects());
    let details = run.details().logs(10).await.unwrap();
    assert_eq!((details.conflicts.len(), details.logs.len(), details.status), (0, 0, RunStatus::Completed));
    worker.shutdown().await;
}

async fn x8_many_by_id_with_a_report_of_each(world: World) {
    let (fine, slow) = (double(world.name("double")), endless(world.name("endless")));
    let worker = world.hatchet.worker(world.name("worker")).register(&fine).register(&slow);
    let worker = worker.build().unwrap().start().await.unwrap();
    let done = world.hatchet.run(&fine, &ONE).start().await.unwrap();
    done.result().await.unwrap();
    let going = world.hatchet.run_many(&slow, vec![ONE; 3]).start().await.unwrap();
    let going: Vec<_> = going.into_iter().map(|run| run.unwrap().id()).collect();
    let nobody: RunId = "00000000-0000-4000-8009-000000000009".parse().unwrap();
    let ids = [going[0], done.id(), going[1], nobody, going[2]];
    let reports = world.hatchet.cancel_many(ids).reason("all of them").send().await.unwrap();
    let seen: Vec<_> = reports.iter().map(|report| (report.run_id, report.effect.to_string())).collect();
    let expected = ["applied", "skipped, because it is COMPLETED", "applied", "not found", "applied"];
    assert_eq!(seen, ids.into_iter().zip(expected.map(str::to_owned)).collect::<Vec<_>>());
    worker.shutdown().await;
}

async fn x9_all_that_match_a_filter_to_the_end(world: World) {
    let task = double(world.name("double"));
    world.worker(&task).await.shutdown().await;
    let count = if world.engine.is_some() { 1100 } else { 450 };
    let runs = world.hatchet.run_many(&task, vec![ONE; count]).metadata("batch", "x9").start().await.unwrap();
    assert!(runs.iter().all(Result::is_ok));
    let filter = RunFilter::new(world.window()).workflow(task.name()).metadata("batch", "x9");
    let query = world.hatchet.runs(filter);
    world.eventually(async || query.count().await.unwrap().to_string() == count.to_string()).await;
    // The first while it is read, as progress; the rest in one go.
    let mut reports = query.cancel().reason("bad deploy").reports().unwrap();
    for _ in 0..10 {
        assert!(reports.next().await.unwrap().unwrap().is_applied());
    }
    drop(reports);
    let report = query.cancel().reason("bad deploy").send().await.unwrap();
    assert_eq!(report.total(), report.applied, "{report}");
    let cancelled = async || query.counts_by_status().await.unwrap().get(&RunStatus::Cancelled) == Some(count as u64);
    world.eventually(cancelled).await;
}

async fn x10_a_cancelled_run_does_not_retry(world: World) {
    let begun = Arc::new(AtomicU32::new(0));
    let shaky: Task<Number, ()> = Task::new(world.name("shaky"), {
        let begun = Arc::clone(&begun);
        move |_: Number, context: Context| {
            begun.fetch_add(1, SeqCst);
            async move {
                context.cancelled().await;
                Err(TaskError::new("told to stop"))
            }
        }
    })
    .retries(5);
    let worker = world.worker(&shaky).await;
    let run = world.hatchet.run(&shaky, &ONE).start().await.unwrap();
    until(&run, RunStatus::Running).await;
    run.cancel().send().await.unwrap();
    // It has nothing else to do: a retry would begin at once.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let details = run.details().await.unwrap();
    assert_eq!((details.status.clone(), details.retry_count(), begun.load(SeqCst)), (RunStatus::Cancelled, 0, 1));
    worker.shutdown().await;
}

/// A workflow whose second task waits for time to pass, which this crate cannot define yet.
async fn waiting(world: &World, name: &str) {
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
        action: format!("{}:{name}", world.name("waiting")).to_lowercase(),
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
    AdminServiceClient::new(world.hatchet.raw_channel()).put_workflow(request).await.unwrap();
}

async fn x11_a_cancel_that_is_not_taken_is_told(world: World) {
    let name = world.name("waiting");
    let a = Task::new("a", async |_: Number, _: Context| Ok(1));
    let b = Task::new("b", async |_: Number, _: Context| Ok(2));
    let flow: Workflow<Number> = Workflow::new(&name).task(&a).task_after(&b, ["a"]);
    let worker = world.worker(&flow).await;
    waiting(&world, &name).await;
    // The engine starts runs by the old version for some seconds more.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let run = world.hatchet.run(&flow, &ONE).start().await.unwrap();
    world
        .eventually(async || {
            let details = run.details().await.unwrap();
            details.task("a").is_some_and(|a| a.status == RunStatus::Completed)
        })
        .await;
    let effect = run.cancel().within(Duration::from_secs(3)).send().await.unwrap().effect;
    assert!(matches!(effect, Effect::NoEffect(_)), "{effect}");
    let Outcome::Completed(_) = run.outcome().await.unwrap() else { panic!("it goes on to its end") };
    worker.shutdown().await;
}

/// The engine writes a schedule timeout after the cancel of some of them, and REST then shows those as failed.
async fn x5_runs_that_were_cancelled_in_their_queue_stay_cancelled_when_their_schedule_timeout_passes(world: World) {
    let task = double(world.name("double")).schedule_timeout(Duration::from_secs(4));
    world.worker(&task).await.shutdown().await;
    let runs = world.hatchet.run_many(&task, (0..60).map(|n| Number { n })).start().await.unwrap();
    let ids: std::collections::BTreeSet<_> = runs.into_iter().map(|run| run.unwrap().id()).collect();
    for report in world.hatchet.cancel_many(ids.iter().copied()).send().await.unwrap() {
        assert!(report.is_applied(), "{report}");
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let all = RunFilter::new(world.window()).workflow(task.name());
    let by_status = async |status| {
        let (mut items, mut found) =
            (world.hatchet.runs(all.clone().status(status)).items(), std::collections::BTreeSet::new());
        while let Some(run) = items.next().await {
            let run = run.unwrap();
            assert!(found.insert(run.id), "each once");
        }
        found
    };
    assert_eq!(by_status(RunStatus::Cancelled).await, ids);
    assert!(by_status(RunStatus::Failed).await.is_empty() && by_status(RunStatus::TimedOut).await.is_empty());
    let cancelled = world.hatchet.runs(all.clone().status(RunStatus::Cancelled));
    assert_eq!(cancelled.count().await.unwrap(), hatchet::model::Total::Exactly(60));
    let page = cancelled.page(50).await.unwrap();
    assert_eq!((page.items.len(), page.total), (50, hatchet::model::Total::Exactly(60)));
    for id in &ids {
        let run = world.hatchet.run_handle(*id).typed::<Doubled>();
        let details = run.details().await.unwrap();
        assert_eq!(details.status, RunStatus::Cancelled);
        // Where REST says otherwise, that is told.
        assert!(
            details
                .conflicts
                .iter()
                .all(|conflict| { (&conflict.grpc, &conflict.rest) == (&RunStatus::Cancelled, &RunStatus::Failed) })
        );
        assert!(matches!(run.outcome().await.unwrap(), Outcome::Cancelled(_)));
    }
    if world.engine.is_some() {
        let counts = world.hatchet.runs(all.clone()).counts_by_status().await.unwrap();
        assert!(counts.get(&RunStatus::Failed) > Some(0), "the embedded engine shows some as failed: {counts}");
    }
    // They are not replayed with the failed ones.
    let report =
        world.hatchet.runs(all.status(RunStatus::Failed).status(RunStatus::TimedOut)).replay().send().await.unwrap();
    assert_eq!(report.total(), 0, "{report}");
}
