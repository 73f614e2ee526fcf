//! Accidents at chosen moments: what is accepted is not lost, and what cannot be known is said. Paused time, on the embedded
//! engine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop on what it did not expect")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use hatchet::embedded::{Engine, Fault, Quirks};
use hatchet::{Client, Context, ErrorKind, RunStatus, RunningWorker, Task};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);
const UNAVAILABLE: u16 = 14;
const INTERNAL: u16 = 13;

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
    stage.engine.faults().cut("ListenV2");
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
        stage.engine.faults().inject("SendStepActionEvent", fault.clone(), 3);
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
    stage.engine.faults().inject("Heartbeat", Fault::Refuse(UNAVAILABLE), 12);
    assert_eq!(run.result().await.unwrap(), 1);
    sleep(30 * SECOND).await;
    assert_eq!(stage.engine.faults().planned(), 0);
    assert_eq!(stage.started.load(SeqCst), 1);
    assert_eq!(worker.shutdown().await.completed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_trigger_whose_answer_is_lost_may_have_happened_and_is_not_made_again() {
    let (stage, worker) = stage().await;
    stage.engine.faults().inject("TriggerWorkflow", Fault::LoseAnswer, 1);
    let error = stage.hatchet.run(&stage.task, &()).start().await.unwrap_err();
    assert_eq!((error.kind(), error.never_reached_server()), (ErrorKind::Unavailable, false));
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
            stage.engine.faults().cut("SubscribeToWorkflowRuns");
            stage.engine.faults().cut("SubscribeToWorkflowEvents");
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
    stage.engine.faults().inject("TriggerWorkflow", Fault::Delay(3600 * SECOND), 1);
    let begun = Instant::now();
    let error = stage.hatchet.run(&stage.task, &()).start().await.unwrap_err();
    assert!(error.is_timeout() && !error.never_reached_server(), "{error}");
    assert_eq!(begun.elapsed(), 30 * SECOND);
    worker.shutdown().await;
}
