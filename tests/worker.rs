//! The worker where the engine or a task does what it should not. Paused time, on the embedded engine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop on what it did not expect")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use hatchet::embedded::{Engine, Quirks};
use hatchet::raw::pb::WorkerUnsubscribeRequest;
use hatchet::raw::pb::dispatcher_client::DispatcherClient;
use hatchet::raw::pb::v1::CancelTasksRequest;
use hatchet::raw::pb::v1::admin_service_client::AdminServiceClient;
use hatchet::{Client, Context, Outcome, RunHandle, RunStatus, Task, TaskError};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

async fn engine() -> (Engine, Client) {
    let engine = Engine::builder().quirks(Quirks::all()).seed(7).start().await.unwrap();
    let hatchet = engine.client();
    (engine, hatchet)
}

async fn cancel<O>(run: &RunHandle<O>) {
    let request = CancelTasksRequest { external_ids: vec![run.id().to_string()], filter: None };
    AdminServiceClient::new(run.client().raw_channel()).cancel_tasks(request).await.unwrap();
}

async fn until_running<O>(run: &RunHandle<O>) {
    let mut watch = run.watch();
    while *watch.next().await.unwrap().unwrap().status() != RunStatus::Running {}
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_task_is_told_and_then_dropped() {
    let (_engine, hatchet) = engine().await;
    let told = Arc::new(AtomicU32::new(0));
    let stubborn: Task<(), ()> = Task::new("stubborn", {
        let told = Arc::clone(&told);
        move |(): (), context: Context| {
            let told = Arc::clone(&told);
            async move {
                context.cancelled().await;
                told.fetch_add(1, SeqCst);
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
    until_running(&run).await;
    cancel(&run).await;
    assert!(matches!(run.outcome().await.unwrap(), Outcome::Cancelled(_)));
    let begin = Instant::now();
    let report = worker.shutdown().await;
    assert_eq!((report.cancelled, report.total(), told.load(SeqCst)), (1, 1, 1));
    assert!(
        begin.elapsed() <= 3 * SECOND,
        "{:?}: the drain waits for the grace of a cancel, not for its own",
        begin.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn what_ends_after_its_cancel_is_not_reported() {
    let (_engine, hatchet) = engine().await;
    let late: Task<(), u8> = Task::new("late", async |(): (), context: Context| {
        context.cancelled().await;
        Ok(1)
    });
    let worker = hatchet.worker("worker").register(&late).build().unwrap().start().await.unwrap();
    let run = hatchet.run(&late, &()).start().await.unwrap();
    until_running(&run).await;
    cancel(&run).await;
    assert!(matches!(run.outcome().await.unwrap(), Outcome::Cancelled(_)));
    // With this engine's quirks, a late report would have left a second end beside the first.
    sleep(600 * SECOND).await;
    let details = run.details().await.unwrap();
    assert_eq!((details.status, details.conflicts.len()), (RunStatus::Cancelled, 0));
    assert_eq!(worker.shutdown().await.cancelled, 1);
}

/// Counts down when an attempt is gone, however it goes.
struct Leaves(Arc<AtomicU32>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// The engine frees a slot the moment it cancels; the cancelled attempt takes a moment to go.
#[tokio::test(start_paused = true)]
async fn never_more_at_once_than_slots() {
    let (_engine, hatchet) = engine().await;
    let (now, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let stubborn: Task<(), ()> = Task::new("stubborn", {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        move |(): (), _: Context| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                let _leaves = Leaves(now);
                sleep(5 * SECOND).await;
                Ok(())
            }
        }
    });
    let worker = hatchet.worker("worker").slots(1).register(&stubborn).build().unwrap().start().await.unwrap();
    let first = hatchet.run(&stubborn, &()).start().await.unwrap();
    until_running(&first).await;
    let second = hatchet.run(&stubborn, &()).start().await.unwrap();
    cancel(&first).await;
    assert!(matches!(second.outcome().await.unwrap(), Outcome::Completed(_)));
    assert_eq!(most.load(SeqCst), 1);
    let report = worker.shutdown().await;
    assert_eq!((report.completed, report.cancelled), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_timed_out_attempt_is_gone_before_the_next_begins() {
    let (_engine, hatchet) = engine().await;
    let now = Arc::new(AtomicU32::new(0));
    let slow: Task<(), u32> = Task::new("slow", {
        let now = Arc::clone(&now);
        move |(): (), context: Context| {
            let now = Arc::clone(&now);
            async move {
                let beside = now.fetch_add(1, SeqCst);
                if context.attempt() == 1 {
                    context.cancelled().await;
                    sleep(SECOND / 2).await;
                }
                now.fetch_sub(1, SeqCst);
                Ok(beside)
            }
        }
    })
    .timeout(SECOND)
    .retries(1);
    let worker = hatchet.worker("worker").register(&slow).build().unwrap().start().await.unwrap();
    let run = hatchet.run(&slow, &()).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), 0, "nothing ran beside it");
    assert_eq!(run.details().await.unwrap().retry_count(), 1);
    worker.shutdown().await;
}

/// Another's Unsubscribe: the stream stays open and hears nothing more, and beats are refused.
#[tokio::test(start_paused = true)]
async fn a_worker_that_the_engine_has_put_aside_comes_back() {
    let (_engine, hatchet) = engine().await;
    let echo: Task<(), u8> = Task::new("echo", async |(): (), _: Context| Ok(1));
    let worker = hatchet.worker("worker").register(&echo).build().unwrap().start().await.unwrap();
    let request = WorkerUnsubscribeRequest { worker_id: worker.id().to_string() };
    DispatcherClient::new(hatchet.raw_channel()).unsubscribe(request).await.unwrap();
    let begin = Instant::now();
    assert_eq!(hatchet.run(&echo, &()).start().await.unwrap().result().await.unwrap(), 1);
    assert!(begin.elapsed() < 5 * SECOND, "{:?}", begin.elapsed());
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_output_that_is_too_big_is_a_failure_that_says_so() {
    let (_engine, hatchet) = engine().await;
    let big: Task<(), String> = Task::new("big", async |(): (), _: Context| Ok("x".repeat(5_000_000))).retries(3);
    let worker = hatchet.worker("worker").register(&big).build().unwrap().start().await.unwrap();
    let run = hatchet.run(&big, &()).start().await.unwrap();
    let Outcome::Failed(failure) = run.outcome().await.unwrap() else { panic!() };
    assert!(failure.message.starts_with("the task's output could not be sent: "), "{}", failure.message);
    assert_eq!(run.details().await.unwrap().retry_count(), 0, "the same again would be as big");
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_not_to_be_tried_again_is_not() {
    let (_engine, hatchet) = engine().await;
    let wrong: Task<(), ()> =
        Task::new("wrong", async |(): (), _: Context| Err(TaskError::non_retryable("for good"))).retries(3);
    let worker = hatchet.worker("worker").register(&wrong).build().unwrap().start().await.unwrap();
    let run = hatchet.run(&wrong, &()).start().await.unwrap();
    assert_eq!(run.result().await.unwrap_err().outcome().unwrap().to_string(), "failed: for good");
    assert_eq!(run.details().await.unwrap().retry_count(), 0);
    assert_eq!(worker.shutdown().await.failed, 1);
}

/// Time is virtual: an hour of waiting takes a moment.
#[tokio::test(start_paused = true)]
async fn the_backoff_of_retries_is_waited_for() {
    let (_engine, hatchet) = engine().await;
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
    let begin = Instant::now();
    assert_eq!(hatchet.run(&shaky, &()).start().await.unwrap().result().await.unwrap(), 4);
    // 60 s, and then what is longer than half an hour and is cut to it.
    let wait = (60 + 1800 + 1800) * SECOND;
    assert!((wait..wait + 60 * SECOND).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn reports_name_the_worker() {
    let (_engine, hatchet) = engine().await;
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
    sleep(SECOND).await;
    let path = format!("/api/v1/stable/tasks/{}/task-events?limit=100", run.id());
    let (_, rows) = hatchet.raw_rest(http::Method::GET, &path, None).await.unwrap();
    let rows: serde_json::Value = serde_json::from_slice(&rows).unwrap();
    let mut found = Vec::new();
    for row in rows["rows"].as_array().unwrap() {
        let kind = row["eventType"].as_str().unwrap();
        // Of a failure, the engine keeps no worker.
        if ["STARTED", "FINISHED"].contains(&kind) {
            assert_eq!(row["workerId"].as_str(), Some(worker.id().to_string().as_str()), "{row}");
            found.push(kind.to_owned());
        }
    }
    found.sort();
    assert_eq!(found, ["FINISHED", "STARTED", "STARTED"]);
    worker.shutdown().await;
}
