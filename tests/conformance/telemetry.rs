//! O: what the crate reports about itself. The subscriber and the recorder are those of the process: each row looks for its own names, or counts.

use std::sync::{LazyLock, Once};
use std::time::Duration;

use hatchet::model::LogLevel;
use hatchet::telemetry::{self, Measurement, Recorder};
use hatchet::worker::TaskLogLayer;
use hatchet::{Context, Task, TaskError};
use tokio::time::sleep;
use tracing::Instrument as _;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::observing::{Collected, get};
use crate::setup::{Setup, rows};
use crate::tasks::Number;

rows! {
    o1_attempts_and_workers_have_spans_and_events_with_their_ids,
    o2_what_a_task_logs_with_tracing_are_its_log_lines,
    o4_attempts_and_calls_are_measured,
    o5_a_paused_worker_is_alive_and_not_ready,
}

static COLLECTED: LazyLock<Collected> = LazyLock::new(Collected::default);

/// Adds measurements to what is collected.
struct Measurements;

impl Recorder for Measurements {
    fn record(&self, measurement: &Measurement<'_>) {
        COLLECTED.add(match measurement {
            Measurement::Call { call, error: None, .. } => format!("called {call}"),
            Measurement::AttemptStarted { task_name, .. } => format!("started {task_name}"),
            Measurement::AttemptEnded { task_name, result, .. } => format!("{} {task_name}", result.as_str()),
            Measurement::WorkerLoad { worker_name, running, .. } => format!("load {worker_name} {running}"),
            _ => return,
        });
    }
}

/// Collects what this program reports from now on.
fn collect() -> &'static Collected {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let subscriber = tracing_subscriber::registry().with(COLLECTED.clone()).with(TaskLogLayer::new());
        tracing::subscriber::set_global_default(subscriber).unwrap();
        telemetry::set_recorder(Measurements).unwrap();
    });
    &COLLECTED
}

/// Fails once.
fn flaky(name: String) -> Task<Number, u32> {
    Task::new(name, async |_: Number, context: Context| match context.attempt() {
        1 => Err(TaskError::new("it broke")),
        attempt => Ok(attempt),
    })
    .retries(1)
}

async fn o1_attempts_and_workers_have_spans_and_events_with_their_ids(setup: Setup) {
    let collected = collect();
    let task = flaky(setup.name("flaky"));
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &Number { n: 1 }).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), 2);
    let (run, id) = (format!("run_id={}", run.id()), format!("worker_id={}", worker.id()));
    worker.shutdown().await;
    let name = format!("task_name={:?}", task.name());
    for expected in [
        &["span INFO", telemetry::ATTEMPT_SPAN, "attempt=1", &run, &id, &name, "task_id="][..],
        &["span INFO", telemetry::ATTEMPT_SPAN, "attempt=2", &run, &id, &name, "task_id="],
        &["event INFO", "worker is ready", &id],
        &["event INFO", "attempt failed", "attempt=1", "it broke", &run, &id, "task_id="],
        &["event INFO", "worker is shutting down", &id],
        &["event INFO", "worker stopped", "attempts: 1 completed, 1 failed", &id],
    ] {
        assert!(collected.has(expected), "{expected:?}");
    }
}

async fn o2_what_a_task_logs_with_tracing_are_its_log_lines(setup: Setup) {
    collect();
    let task: Task<Number, u32> = Task::new(setup.name("logs"), async |_: Number, context: Context| {
        tracing::info!(number = 7, "first");
        context.log("second");
        async { tracing::warn!("third") }.instrument(tracing::info_span!("inner", customer = "acme")).await;
        Ok(1)
    });
    let worker = setup.worker(&task).await;
    tracing::info!("outside of a task");
    let run = setup.hatchet.run(&task, &Number { n: 1 }).start().await.unwrap();
    run.result().await.unwrap();
    let lines = async || {
        let (mut items, mut lines) = (run.logs(), Vec::new());
        while let Some(line) = items.next().await {
            lines.push(line.unwrap());
        }
        lines
    };
    let found = setup.fetch_until(lines, |lines| lines.len() == 3).await;
    let texts: Vec<_> = found.iter().map(|line| (line.level.clone(), line.message.as_str())).collect();
    assert_eq!(texts, [(LogLevel::Info, "first"), (LogLevel::Info, "second"), (LogLevel::Warn, "third")]);
    assert_eq!(
        (&found[0].metadata.as_ref().unwrap()["number"], &found[2].metadata.as_ref().unwrap()["customer"]),
        (&7.into(), &"acme".into())
    );
    worker.shutdown().await;
}

async fn o4_attempts_and_calls_are_measured(setup: Setup) {
    let collected = collect();
    let calls = ["called TriggerWorkflow", "called Heartbeat"];
    let before = calls.map(|call| collected.count(&[call]));
    let task = flaky(setup.name("flaky"));
    let worker = setup.worker(&task).await;
    assert_eq!(setup.hatchet.run(&task, &Number { n: 1 }).result().await.unwrap(), 2);
    worker.shutdown().await;
    let (name, worker) = (task.name(), setup.name("worker"));
    for (call, before) in calls.iter().zip(before) {
        assert!(collected.count(&[call]) > before, "{call}");
    }
    for expected in ["started", "failed", "completed"].map(|kind| format!("{kind} {name}")) {
        assert!(collected.has(&[&expected]), "{expected}");
    }
    assert!(collected.has(&[&format!("load {worker} 1")]) && collected.has(&[&format!("load {worker} 0")]));
}

async fn o5_a_paused_worker_is_alive_and_not_ready(setup: Setup) {
    setup.use_real_time();
    let worker = setup.worker(&flaky(setup.name("flaky"))).await;
    let health = worker.health(([127, 0, 0, 1], 0)).start().await.unwrap();
    // The status changes when the worker has handled the command.
    let until = async |code: u16, text: &str| loop {
        let (found, body) = get(&health, "/readyz").await;
        if found == code && body.contains(text) {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    };
    until(200, "ok").await;
    worker.pause().send().await.unwrap();
    until(503, "the worker is paused").await;
    let (code, body) = get(&health, "/health").await;
    assert!(code == 503 && body.contains(&worker.id().to_string()), "{body}");
    assert_eq!((get(&health, "/livez").await.0, get(&health, "/nothing").await.0), (200, 404));
    worker.resume().send().await.unwrap();
    until(200, "ok").await;
    let (_, metrics) = get(&health, "/metrics").await;
    assert!(metrics.contains(&format!("{} 0", telemetry::ATTEMPTS_RUNNING)), "{metrics}");
    drop(worker);
    until(503, "the worker has stopped").await;
}
