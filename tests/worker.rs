//! The worker with tasks and engines that misbehave. The tests use the embedded engine and paused time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use hatchet::embedded::{Engine, Fault, Quirk, Quirks};
use hatchet::model::{TaskId, Trigger, WorkflowId};
use hatchet::raw::pb::WorkerUnsubscribeRequest;
use hatchet::raw::pb::dispatcher_client::DispatcherClient;
use hatchet::raw::pb::v1::CancelTasksRequest;
use hatchet::raw::pb::v1::admin_service_client::AdminServiceClient;
use hatchet::worker::WorkerState;
use hatchet::{Config, Context, ErrorKind, Outcome, RunHandle, RunId, RunStatus, Task, TaskError, Workflow};
use serde_json::json;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

async fn cancel<O>(run: &RunHandle<O>) {
    let request = CancelTasksRequest { external_ids: vec![run.id().to_string()], filter: None };
    AdminServiceClient::new(run.client().raw_channel()).cancel_tasks(request).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn cancelled_tasks_are_notified_and_then_dropped() {
    let (_engine, hatchet) = support::engine_with_quirks().await;
    let notified = Arc::new(AtomicU32::new(0));
    let stubborn: Task<(), ()> = Task::new("stubborn", {
        let notified = Arc::clone(&notified);
        move |(): (), context: Context| {
            let notified = Arc::clone(&notified);
            async move {
                context.cancelled().await;
                notified.fetch_add(1, SeqCst);
                std::future::pending().await
            }
        }
    });
    let worker = hatchet
        .worker("worker")
        .cancel_grace_period(2 * SECOND)
        .register(&stubborn)
        .build()
        .unwrap()
        .start()
        .await
        .unwrap();
    let run = hatchet.run(&stubborn, &()).start().await.unwrap();
    support::until_running(&run).await;
    cancel(&run).await;
    assert!(matches!(run.outcome().await.unwrap(), Outcome::Cancelled(_)));
    let start = Instant::now();
    let report = worker.shutdown().await;
    assert_eq!((report.cancelled, report.total(), notified.load(SeqCst)), (1, 1, 1));
    assert!(
        start.elapsed() <= 3 * SECOND,
        "{:?}: the shutdown waits for the grace period of the cancellation, and not for its own",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn results_after_a_cancel_are_not_reported() {
    let (_engine, hatchet) = support::engine_with_quirks().await;
    let late: Task<(), u8> = Task::new("late", async |(): (), context: Context| {
        context.cancelled().await;
        Ok(1)
    });
    let worker = hatchet.worker("worker").register(&late).build().unwrap().start().await.unwrap();
    let run = hatchet.run(&late, &()).start().await.unwrap();
    support::until_running(&run).await;
    cancel(&run).await;
    assert!(matches!(run.outcome().await.unwrap(), Outcome::Cancelled(_)));
    // With the quirks of this engine, a late report would add a second end.
    sleep(600 * SECOND).await;
    let details = run.details().await.unwrap();
    assert_eq!((details.status, details.conflicts.len()), (RunStatus::Cancelled, 0));
    assert_eq!(worker.shutdown().await.cancelled, 1);
}

/// Decrements the number of running attempts when it is dropped.
struct RunningGuard(Arc<AtomicU32>);

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// The engine frees a slot when it cancels an attempt, which ends later.
#[tokio::test(start_paused = true)]
async fn concurrent_attempts_do_not_exceed_the_slots() {
    let (_engine, hatchet) = support::engine_with_quirks().await;
    let (running, max) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let stubborn: Task<(), ()> = Task::new("stubborn", {
        let (running, max) = (Arc::clone(&running), Arc::clone(&max));
        move |(): (), _: Context| {
            let (running, max) = (Arc::clone(&running), Arc::clone(&max));
            async move {
                max.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                let _guard = RunningGuard(running);
                sleep(5 * SECOND).await;
                Ok(())
            }
        }
    });
    let worker = hatchet.worker("worker").slots(1).register(&stubborn).build().unwrap().start().await.unwrap();
    let first = hatchet.run(&stubborn, &()).start().await.unwrap();
    support::until_running(&first).await;
    let second = hatchet.run(&stubborn, &()).start().await.unwrap();
    cancel(&first).await;
    assert!(matches!(second.outcome().await.unwrap(), Outcome::Completed(_)));
    assert_eq!(max.load(SeqCst), 1);
    let report = worker.shutdown().await;
    assert_eq!((report.completed, report.cancelled), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn timed_out_attempts_end_before_the_next_attempt() {
    let (_engine, hatchet) = support::engine_with_quirks().await;
    let running = Arc::new(AtomicU32::new(0));
    let slow: Task<(), u32> = Task::new("slow", {
        let running = Arc::clone(&running);
        move |(): (), context: Context| {
            let running = Arc::clone(&running);
            async move {
                let others = running.fetch_add(1, SeqCst);
                if context.attempt() == 1 {
                    context.cancelled().await;
                    sleep(SECOND / 2).await;
                }
                running.fetch_sub(1, SeqCst);
                Ok(others)
            }
        }
    })
    .timeout(SECOND)
    .retries(1);
    let worker = hatchet.worker("worker").register(&slow).build().unwrap().start().await.unwrap();
    let run = hatchet.run(&slow, &()).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), 0, "no other attempt was running");
    assert_eq!(run.details().await.unwrap().retry_count(), 1);
    worker.shutdown().await;
}

/// Another client unsubscribes the worker: its stream stays open without messages, and its heartbeats are rejected.
#[tokio::test(start_paused = true)]
async fn unsubscribed_workers_reopen_their_streams() {
    let quirks = Quirks::all().without(Quirk::UndetectedUnsubscribe);
    let engine = Engine::builder().quirks(quirks).seed(7).start().await.unwrap();
    let hatchet = engine.client();
    let echo: Task<(), u8> = Task::new("echo", async |(): (), _: Context| Ok(1));
    let worker = hatchet.worker("worker").register(&echo).build().unwrap().start().await.unwrap();
    let request = WorkerUnsubscribeRequest { worker_id: worker.id().to_string() };
    DispatcherClient::new(hatchet.raw_channel()).unsubscribe(request).await.unwrap();
    let start = Instant::now();
    assert_eq!(hatchet.run(&echo, &()).start().await.unwrap().result().await.unwrap(), 1);
    assert!(start.elapsed() < 5 * SECOND, "{:?}", start.elapsed());
    worker.shutdown().await;
}

/// The same, and the engine does not notice: it accepts the heartbeats, and assigns tasks to the silent stream, where they fail.
#[tokio::test(start_paused = true)]
async fn silent_streams_that_the_engine_believes_in_are_replaced() {
    let engine = Engine::builder().quirks(Quirk::UndetectedUnsubscribe).start().await.unwrap();
    let hatchet = engine.client();
    let echo: Task<(), u8> = Task::new("echo", async |(): (), _: Context| Ok(1));
    let worker = hatchet.worker("worker").register(&echo).build().unwrap().start().await.unwrap();
    let request = WorkerUnsubscribeRequest { worker_id: worker.id().to_string() };
    DispatcherClient::new(hatchet.raw_channel()).unsubscribe(request).await.unwrap();
    let error = hatchet.run(&echo, &()).result().await.unwrap_err();
    assert!(matches!(error.outcome(), Some(Outcome::Failed(_))), "{error}");
    // The idle limit is five minutes, extended by up to a quarter.
    sleep(380 * SECOND).await;
    assert_eq!(hatchet.run(&echo, &()).result().await.unwrap(), 1);
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn outputs_that_are_too_large_fail_the_task() {
    let (_engine, hatchet) = support::engine_with_quirks().await;
    let big: Task<(), String> = Task::new("big", async |(): (), _: Context| Ok("x".repeat(5_000_000))).retries(3);
    let worker = hatchet.worker("worker").register(&big).build().unwrap().start().await.unwrap();
    let run = hatchet.run(&big, &()).start().await.unwrap();
    let Outcome::Failed(failure) = run.outcome().await.unwrap() else { panic!() };
    assert!(failure.to_string().starts_with("failed: the task's output could not be sent: "), "{failure}");
    assert_eq!(run.details().await.unwrap().retry_count(), 0, "a retry would have the same output");
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn non_retryable_errors_are_not_retried() {
    let (_engine, hatchet) = support::engine_with_quirks().await;
    let wrong: Task<(), ()> =
        Task::new("wrong", async |(): (), _: Context| Err(TaskError::non_retryable("permanent"))).retries(3);
    let worker = hatchet.worker("worker").register(&wrong).build().unwrap().start().await.unwrap();
    let run = hatchet.run(&wrong, &()).start().await.unwrap();
    assert_eq!(run.result().await.unwrap_err().outcome().unwrap().to_string(), "failed: permanent");
    assert_eq!(run.details().await.unwrap().retry_count(), 0);
    assert_eq!(worker.shutdown().await.failed, 1);
}

#[tokio::test(start_paused = true)]
async fn retries_have_a_backoff() {
    let (_engine, hatchet) = support::engine_with_quirks().await;
    let shaky: Task<(), u32> =
        Task::new(
            "shaky",
            async |(): (), context: Context| {
                if context.attempt() < 4 { Err(TaskError::new("not yet")) } else { Ok(context.attempt()) }
            },
        )
        .retries(5)
        .backoff(60.0, 1800 * SECOND)
        .schedule_timeout(3600 * SECOND);
    let worker = hatchet.worker("worker").register(&shaky).build().unwrap().start().await.unwrap();
    let start = Instant::now();
    assert_eq!(hatchet.run(&shaky, &()).start().await.unwrap().result().await.unwrap(), 4);
    // 60 s, and then twice the maximum of 1800 s.
    let wait = (60 + 1800 + 1800) * SECOND;
    assert!((wait..wait + 60 * SECOND).contains(&start.elapsed()), "{:?}", start.elapsed());
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn reports_name_the_worker() {
    let (_engine, hatchet) = support::engine_with_quirks().await;
    let task: Task<(), ()> =
        Task::new(
            "task",
            async |(): (), context: Context| {
                if context.attempt() == 1 { Err(TaskError::new("not yet")) } else { Ok(()) }
            },
        )
        .retries(1);
    let worker = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    let run = hatchet.run(&task, &()).start().await.unwrap();
    run.result().await.unwrap();
    // REST shows the second attempt a second late.
    sleep(2 * SECOND).await;
    let path = format!("/api/v1/stable/tasks/{}/task-events?limit=100", run.id());
    let (_, rows) = hatchet.raw_rest(http::Method::GET, &path, None).await.unwrap();
    let rows: serde_json::Value = serde_json::from_slice(&rows).unwrap();
    let mut found = Vec::new();
    for row in rows["rows"].as_array().unwrap() {
        let kind = row["eventType"].as_str().unwrap();
        // The engine does not store the worker of a failure.
        if ["STARTED", "FINISHED"].contains(&kind) {
            assert_eq!(row["workerId"].as_str(), Some(worker.id().to_string().as_str()), "{row}");
            found.push(kind.to_owned());
        }
    }
    found.sort();
    assert_eq!(found, ["FINISHED", "STARTED", "STARTED"]);
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_runs_until_a_signal_shows_its_status() {
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let noop: Task<(), ()> = Task::new("noop", async |(): (), _: Context| Ok(()));
    let worker = hatchet.worker("worker").register(&noop).build().unwrap().start().await.unwrap();
    let mut statuses = worker.statuses();
    let states = async {
        let mut states = Vec::new();
        while let Some(status) = statuses.next().await {
            if states.last() != Some(&status.state) {
                states.push(status.state);
            }
        }
        states
    };
    let run = hatchet.run(&noop, &()).start().await.unwrap();
    let signal = async { run.result().await.unwrap() };
    let (report, states) = tokio::join!(worker.run_until(signal), states);
    assert_eq!(report.unwrap().completed, 1);
    assert_eq!(states, [WorkerState::Connected, WorkerState::Draining, WorkerState::Stopped]);

    // It ends by itself if it cannot continue.
    let worker = hatchet.worker("worker").register(&noop).build().unwrap().start().await.unwrap();
    hatchet.close().await;
    let error = worker.run_until(std::future::pending::<()>()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_needs_more_slots_than_its_worker_has_is_rejected() {
    let engine = Engine::start().await.unwrap();
    let large: Task<(), ()> = Task::new("large", async |(): (), _: Context| Ok(())).slots(3);
    let error = engine.client().worker("worker").slots(2).register(&large).build().unwrap_err();
    let expected = "task \"large\": slots: expected at most 2 of type \"default\", as many as the worker has, got 3";
    assert!(error.to_string().ends_with(expected), "{error}");
    assert!(engine.client().worker("worker").slots(3).register(&large).build().is_ok());
}

/// Whatever the code returns after the grace period is no end of its own: the task runs again on another worker.
#[tokio::test(start_paused = true)]
async fn what_a_shutdown_cuts_off_runs_again_elsewhere() {
    for returns_ok in [true, false] {
        let (_engine, hatchet) = support::engine_with_quirks().await;
        let task: Task<(), String> = Task::new("task", move |(): (), context: Context| async move {
            if context.attempt() > 1 {
                return Ok(format!("done by attempt {}", context.attempt()));
            }
            context.cancelled().await;
            if returns_ok { Ok("not done".to_owned()) } else { Err(TaskError::non_retryable("cut off")) }
        });
        let build =
            |name: &str| hatchet.worker(name).shutdown_grace_period(2 * SECOND).register(&task).build().unwrap();
        let first = build("first").start().await.unwrap();
        let run = hatchet.run(&task, &()).start().await.unwrap();
        support::until_running(&run).await;
        let started = Instant::now();
        let report = first.shutdown().await;
        assert_eq!(started.elapsed(), 2 * SECOND, "the code ends at once");
        assert_eq!((report.unfinished, report.total()), (1, 1), "{report}");
        let [unfinished] = &report.unfinished_attempts[..] else { panic!("{report:?}") };
        assert_eq!((unfinished.run_id, unfinished.attempt, unfinished.is_finished), (run.id(), 1, false));
        let second = build("second").start().await.unwrap();
        assert_eq!(run.result().await.unwrap(), "done by attempt 2");
        let details = run.details().await.unwrap();
        assert_eq!((details.status, details.conflicts.len()), (RunStatus::Completed, 0), "{:?}", details.tasks);
        assert_eq!(second.shutdown().await.completed, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_can_be_given_another_grace_period() {
    let (_engine, hatchet) = support::engine_with_quirks().await;
    let slow: Task<(), ()> = Task::new("slow", async |(): (), _: Context| {
        sleep(60 * SECOND).await;
        Ok(())
    });
    for (grace, expected) in [(10, (0, 1)), (120, (1, 0))] {
        let worker = hatchet.worker("worker").shutdown_grace_period(30 * SECOND).register(&slow).build().unwrap();
        let worker = worker.start().await.unwrap();
        let run = hatchet.run(&slow, &()).start().await.unwrap();
        support::until_running(&run).await;
        let running = Instant::now();
        let report = worker.shutdown_with_timeout(grace * SECOND).await;
        assert_eq!((report.completed, report.unfinished), expected, "{report}");
        // The attempt is dropped after the grace period of a cancellation, one second.
        let elapsed = running.elapsed();
        if grace == 10 {
            assert_eq!(elapsed, 11 * SECOND);
        } else {
            assert!((58 * SECOND..=61 * SECOND).contains(&elapsed), "{elapsed:?}");
        }
    }
}

/// What the context of an attempt reports: names, ids, attempts, trigger.
#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Reported {
    task_name: String,
    workflow_name: String,
    workflow_id: Option<WorkflowId>,
    run_id: RunId,
    handle_id: RunId,
    attempts: (u32, u32),
    trigger: Trigger,
}

impl Reported {
    fn by(context: &Context) -> Self {
        Self {
            task_name: context.task_name().to_owned(),
            workflow_name: context.workflow_name().to_owned(),
            workflow_id: context.workflow_id(),
            run_id: context.run_id(),
            handle_id: context.run_handle().id(),
            attempts: (context.attempt(), context.max_attempts()),
            trigger: context.trigger(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_context_describes_its_attempt() {
    let (engine, _) = support::engine_with_quirks().await;
    let hatchet = engine.client_with(Config::builder().namespace("acme_")).unwrap();
    let step: Task<serde_json::Value, Reported> =
        Task::new("step", async |_: serde_json::Value, context: Context| match context.attempt() {
            1 => Err(TaskError::new("as planned")),
            _ => Ok(Reported::by(&context)),
        });
    let flow: Workflow<serde_json::Value> = Workflow::new("flow").task(&step.retries(4)).on_event("order:created");
    let other: Task<serde_json::Value, (Reported, TaskId)> = Task::with_state(
        "other",
        flow.clone(),
        async |flow: Workflow<serde_json::Value>, _: serde_json::Value, context: Context| {
            let output = context.run(&flow, &json!({})).result().await?;
            Ok((serde_json::from_value(output["step"].clone())?, context.task_id()))
        },
    );
    let worker = hatchet.worker("worker").register(&flow).register(&other).build().unwrap().start().await.unwrap();
    let check = async |seen: Reported, trigger: Trigger| {
        let details = hatchet.run_handle(seen.run_id).details().await.unwrap();
        assert!(details.workflow_id.is_some());
        let expected = Reported {
            task_name: "step".into(),
            workflow_name: "flow".into(),
            workflow_id: details.workflow_id,
            run_id: details.id,
            handle_id: details.id,
            attempts: (2, 5),
            trigger,
        };
        assert_eq!(seen, expected);
    };

    let run = hatchet.run(&flow, &json!({})).start().await.unwrap();
    let seen: Reported = serde_json::from_value(run.result().await.unwrap()["step"].clone()).unwrap();
    assert_eq!(seen.run_id, run.id());
    check(seen, Trigger::Manual).await;

    let parent = hatchet.run(&other, &json!({})).start().await.unwrap();
    let (seen, parent_task_id) = parent.result().await.unwrap();
    let Trigger::Child(child) = &seen.trigger else { panic!("{seen:?}") };
    assert_eq!((child.parent_task_id, child.parent_run_id), (parent_task_id, Some(parent.id())));
    let trigger = seen.trigger.clone();
    check(seen, trigger).await;

    let event = hatchet.push("order:created", &json!({})).send().await.unwrap();
    let run = loop {
        match &event.runs().await.unwrap()[..] {
            [run] => break run.clone(),
            _ => sleep(SECOND).await,
        }
    };
    let output: serde_json::Value = run.result().await.unwrap();
    let seen: Reported = serde_json::from_value(output["step"].clone()).unwrap();
    let Trigger::Event(trigger) = &seen.trigger else { panic!("{seen:?}") };
    assert_eq!((trigger.event_id, trigger.key.as_deref()), (event.id(), Some("order:created")));
    let trigger = seen.trigger.clone();
    check(seen, trigger).await;
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn dropping_run_until_ends_a_worker_at_once() {
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task: Task<(), u32> = Task::new("task", async |(): (), context: Context| match context.attempt() {
        1 => std::future::pending().await,
        attempt => Ok(attempt),
    });
    let build = || hatchet.worker("worker").register(&task).build().unwrap();
    let worker = build().start().await.unwrap();
    let run = hatchet.run(&task, &()).start().await.unwrap();
    // The grace period is 30 seconds.
    tokio::select! {
        report = worker.run_until(sleep(SECOND)) => panic!("{report:?}"),
        () = sleep(3 * SECOND) => {}
    }
    // Another worker gets the attempt that was cut off.
    let next = build().start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), 2);
    next.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_can_cancel_its_own_run() {
    let (_engine, hatchet) = support::engine_with_quirks().await;
    let task: Task<(), ()> = Task::new("task", async |(): (), context: Context| {
        context.run_handle().cancel().reason("there is nothing to do").send().await?;
        std::future::pending().await
    });
    let worker = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    let outcome = hatchet.run(&task, &()).outcome().await.unwrap();
    assert!(matches!(outcome, Outcome::Cancelled(_)), "{outcome:?}");
    assert_eq!(worker.shutdown().await.cancelled, 1);
}

/// Each message on the stream arrives twice: the assignments, and the cancellation of the first attempt, whose retry follows.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_assigned_twice_runs_once() {
    let (engine, hatchet) = support::engine_with_quirks().await;
    let executions = Arc::new(AtomicU32::new(0));
    let task: Task<(), u32> =
        Task::with_state("task", Arc::clone(&executions), async |count: Arc<AtomicU32>, (): (), context: Context| {
            count.fetch_add(1, SeqCst);
            if context.attempt() == 1 {
                context.cancelled().await;
            }
            sleep(SECOND).await;
            Ok(context.attempt())
        })
        .timeout(5 * SECOND)
        .retries(1);
    let worker = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    // The first attempt is assigned and times out, and the second one is assigned.
    engine.faults().inject_times("ListenV2", Fault::DuplicateMessage, 3).unwrap();
    let run = hatchet.run(&task, &()).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), 2);
    assert_eq!((engine.faults().planned(), executions.load(SeqCst)), (0, 2));
    // Nothing follows that changes it.
    sleep(60 * SECOND).await;
    let details = run.details().await.unwrap();
    assert_eq!((details.status, details.conflicts.len()), (RunStatus::Completed, 0), "{:?}", details.tasks);
    let report = worker.shutdown().await;
    assert_eq!((report.completed, report.cancelled, report.total()), (1, 1, 2), "{report}");
}

/// With the quirk, the engine accepts the request and keeps the slot, as engines up to v0.104.7 do.
#[tokio::test(start_paused = true)]
async fn a_released_slot_is_used_by_another_attempt() {
    for is_released in [true, false] {
        let quirks = Quirks::all();
        let quirks = if is_released { quirks.without(Quirk::UnreleasedSlots) } else { quirks };
        let engine = Engine::builder().quirks(quirks).seed(7).start().await.unwrap();
        let hatchet = engine.client();
        let waits: Task<(), ()> = Task::new("waits", async |(): (), context: Context| {
            context.release_slot().send().await?;
            sleep(60 * SECOND).await;
            Ok(())
        });
        let short: Task<(), ()> = Task::new("short", async |(): (), _: Context| Ok(()));
        let worker = hatchet.worker("worker").slots(1).register(&waits).register(&short);
        let worker = worker.build().unwrap().start().await.unwrap();
        let first = hatchet.run(&waits, &()).start().await.unwrap();
        support::until_running(&first).await;
        let started = Instant::now();
        hatchet.run(&short, &()).result().await.unwrap();
        let elapsed = started.elapsed();
        assert_eq!(elapsed < 10 * SECOND, is_released, "{elapsed:?}");
        first.result().await.unwrap();
        let report = worker.shutdown().await;
        assert_eq!((report.completed, report.total()), (2, 2), "{report}");
    }
}
