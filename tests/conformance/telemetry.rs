//! O: what the crate reports about itself. The subscriber and the recorder are those of the process: each row looks for its own names, or counts.

use std::fmt::Write as _;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use hatchet::model::LogLevel;
use hatchet::telemetry::{self, Measurement, Recorder};
use hatchet::worker::{HealthServer, TaskLogLayer};
use hatchet::{Context, Task, TaskError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Instrument as _, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context as LayerContext, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use crate::setup::{Setup, rows};
use crate::tasks::Number;

rows! {
    o1_attempts_and_workers_have_spans_and_events_with_their_ids,
    o2_what_a_task_logs_with_tracing_are_its_log_lines,
    o4_attempts_and_calls_are_measured,
    o5_a_paused_worker_is_alive_and_not_ready,
}

/// One text for each span and event, and for each measurement.
static CAPTURED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Capture;

/// Captures what this program reports from now on.
fn install_capture() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let subscriber = tracing_subscriber::registry().with(Capture).with(TaskLogLayer::new());
        tracing::subscriber::set_global_default(subscriber).unwrap();
        telemetry::set_recorder(Capture).unwrap();
    });
}

/// The number of texts that contain all of these.
fn count(parts: &[&str]) -> usize {
    CAPTURED.lock().unwrap().iter().filter(|text| parts.iter().all(|part| text.contains(part))).count()
}

fn has(parts: &[&str]) -> bool {
    count(parts) > 0
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: LayerContext<'_, S>) {
        let metadata = attributes.metadata();
        if metadata.target() == telemetry::TARGET {
            let mut text = Text(format!("span {} {}", metadata.level(), metadata.name()));
            attributes.record(&mut text);
            CAPTURED.lock().unwrap().push(text.0);
        }
    }

    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        if event.metadata().target().starts_with("hatchet") {
            let mut text = Text(format!("event {}", event.metadata().level()));
            event.record(&mut text);
            CAPTURED.lock().unwrap().push(text.0);
        }
    }
}

impl Recorder for Capture {
    fn record(&self, measurement: &Measurement<'_>) {
        let text = match measurement {
            Measurement::Call { call, error: None, .. } => format!("called {call}"),
            Measurement::AttemptStarted { task_name, .. } => format!("started {task_name}"),
            Measurement::AttemptEnded { task_name, result, .. } => format!("{} {task_name}", result.name()),
            Measurement::WorkerLoad { worker_name, running, .. } => format!("load {worker_name} {running}"),
            _ => return,
        };
        CAPTURED.lock().unwrap().push(text);
    }
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
    install_capture();
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
        &["event INFO", "worker stopped", "1 completed, 1 failed attempt", &id],
    ] {
        assert!(has(expected), "{expected:?}");
    }
}

async fn o2_what_a_task_logs_with_tracing_are_its_log_lines(setup: Setup) {
    install_capture();
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
    assert_eq!((&found[0].metadata["number"], &found[2].metadata["customer"]), (&7.into(), &"acme".into()));
    worker.shutdown().await;
}

async fn o4_attempts_and_calls_are_measured(setup: Setup) {
    install_capture();
    let calls = ["called TriggerWorkflow", "called Heartbeat"];
    let before = calls.map(|call| count(&[call]));
    let task = flaky(setup.name("flaky"));
    let worker = setup.worker(&task).await;
    assert_eq!(setup.hatchet.run(&task, &Number { n: 1 }).result().await.unwrap(), 2);
    worker.shutdown().await;
    let (name, worker) = (task.name(), setup.name("worker"));
    for (call, before) in calls.iter().zip(before) {
        assert!(count(&[call]) > before, "{call}");
    }
    for expected in ["started", "failed", "completed"].map(|kind| format!("{kind} {name}")) {
        assert!(has(&[&expected]), "{expected}");
    }
    assert!(has(&[&format!("load {worker} 1")]) && has(&[&format!("load {worker} 0")]));
}

/// The status and the response of a path of the health server.
async fn get(health: &HealthServer, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(health.address()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    (response.split(' ').nth(1).unwrap().parse().unwrap(), response)
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
