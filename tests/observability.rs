//! What the crate reports about itself: spans, events, metrics, logs of tasks, health.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

#[path = "support/files.rs"]
mod files;
#[path = "support/observing.rs"]
mod observing;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use hatchet::embedded::{Engine, Fault};
use hatchet::model::{LogLevel, RateLimitWindow};
use hatchet::telemetry::{self, AttemptResult, Measurement, PrometheusRecorder, Recorder, set_recorder};
use hatchet::testing::call;
use hatchet::worker::{RunningWorker, TaskLogLayer};
use hatchet::workflow::{BatchItem, BatchOptions, RateLimit};
use hatchet::{Client, Context, Task, TaskError};
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanId, Status, TraceId, TracerProvider as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tokio::time::{sleep, timeout};
use tracing::span::{Attributes, Id};
use tracing::{Instrument as _, Subscriber, info_span};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context as LayerContext, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use observing::{Collected, Text, get};

const SECOND: Duration = Duration::from_secs(1);

fn flaky() -> Task<(), u32> {
    Task::new("flaky", async |(): (), context: Context| match context.attempt() {
        1 => Err(TaskError::new("it broke")),
        attempt => Ok(attempt),
    })
    .retries(1)
}

async fn start(hatchet: &Client, task: &Task<(), u32>) -> RunningWorker {
    hatchet.worker("observed").register(task).build().unwrap().start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn o1_spans_and_events_have_names_and_ids() {
    let collected = Collected::default();
    let subscriber = tracing_subscriber::registry().with(collected.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task = flaky();
    let worker = start(&hatchet, &task).await;
    let run = hatchet.run(&task, &()).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), 2);
    let (id, worker_id) = (run.id().to_string(), worker.id().to_string());
    engine.faults().inject_times("Heartbeat", Fault::RejectGrpc(14), 3).unwrap();
    engine.faults().interrupt("ListenV2").unwrap();
    sleep(10 * SECOND).await;
    worker.shutdown().await;
    let fields = [format!("run_id={id}"), format!("worker_id={worker_id}"), "workflow_name=\"flaky\"".to_owned()];
    let span = ["span INFO", telemetry::TARGET, telemetry::ATTEMPT_SPAN, "task_name=\"flaky\"", "task_id="];
    for attempt in ["attempt=1", "attempt=2"] {
        let all: Vec<_> = span.into_iter().chain([attempt]).chain(fields.iter().map(String::as_str)).collect();
        assert!(collected.has(&all), "{all:?}: {collected:#?}", collected = collected.texts());
    }
    for event in [
        &["event INFO", "worker is ready", &worker_id][..],
        &["event INFO", "attempt failed", &id, &worker_id, "task_id=", "attempt=1", "it broke"],
        &["event WARN", "heartbeat failed", &worker_id],
        &["event INFO", "worker reconnected", &worker_id, "after="],
        &["event INFO", "worker is shutting down", &worker_id],
        &["event INFO", "worker stopped", &worker_id, "1 completed, 1 failed attempt"],
    ] {
        assert!(collected.has(event), "{event:?}: {collected:#?}", collected = collected.texts());
    }
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_takes_the_last_slot_is_logged_once() {
    let (collected, _guard) = Collected::start();
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let child: Task<(), ()> = Task::new("child", async |(): (), _: Context| Ok(()));
    let parent: Task<(), ()> =
        Task::with_state("parent", child.clone(), async |child: Task<(), ()>, (): (), context: Context| {
            Ok(context.run(&child, &()).result().await?)
        });
    let parent = parent.timeout(5 * SECOND);
    let worker = |slots| hatchet.worker("worker").slots(slots).register(&parent).register(&child).build().unwrap();
    let count = || {
        let text = "an attempt starts a child run while all default slots of its worker are taken";
        collected.count(&["event WARN", text])
    };
    let roomy = worker(2).start().await.unwrap();
    hatchet.run(&parent, &()).result().await.unwrap();
    roomy.shutdown().await;
    assert_eq!(count(), 0);
    let full = worker(1).start().await.unwrap();
    for _ in 0..2 {
        let outcome = hatchet.run(&parent, &()).outcome().await.unwrap();
        assert!(matches!(outcome, hatchet::Outcome::TimedOut(_)), "{outcome:?}");
    }
    assert_eq!(count(), 1);
    full.shutdown().await;
}

/// The call spans, and the openings of streams, that have a result: the first has the fields of its creation, the others are recorded.
#[derive(Clone, Default)]
struct CallSpans(Arc<Mutex<Vec<(Id, String)>>>);

impl CallSpans {
    fn of(&self, start: &str) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(_, text)| text.clone()).filter(|text| text.starts_with(start)).collect()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for CallSpans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: LayerContext<'_, S>) {
        let metadata = attributes.metadata();
        if metadata.target() == telemetry::TARGET && metadata.level() == &tracing::Level::DEBUG {
            let mut text = Text(metadata.name().to_owned());
            attributes.record(&mut text);
            self.0.lock().unwrap().push((id.clone(), text.0));
        }
    }

    fn on_record(&self, id: &Id, values: &tracing::span::Record<'_>, _: LayerContext<'_, S>) {
        // Ids are reused when their spans are closed: the last one is meant.
        let mut spans = self.0.lock().unwrap();
        if let Some((_, text)) = spans.iter_mut().rev().find(|(other, _)| other == id) {
            let mut added = Text(std::mem::take(text));
            values.record(&mut added);
            *text = added.0;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn o1_calls_and_openings_of_streams_have_spans() {
    let spans = CallSpans::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(spans.clone()));
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task: Task<(), u32> = Task::new("task", async |(): (), _: Context| Ok(1));
    let worker = start(&hatchet, &task).await;
    // RESOURCE_EXHAUSTED: the engine has not processed the call, so it is retried.
    engine.faults().inject("TriggerWorkflow", Fault::RejectGrpc(8)).unwrap();
    assert_eq!(hatchet.run(&task, &()).result().await.unwrap(), 1);
    let trigger = "hatchet.call call=\"TriggerWorkflow\"";
    assert_eq!(spans.of(trigger), [format!("{trigger} tries=2 result=\"ok\"")]);
    engine.faults().inject("TriggerWorkflow", Fault::RejectGrpc(3)).unwrap();
    hatchet.run(&task, &()).start().await.unwrap_err();
    let rejected = format!("{trigger} tries=1 result=\"rejected\" grpc_code=3");
    assert_eq!(spans.of(trigger)[1..], [rejected]);
    // A REST call.
    hatchet
        .run_handle("11111111-2222-4333-8444-555555555555".parse::<hatchet::RunId>().unwrap())
        .details()
        .await
        .unwrap_err();
    let read = "hatchet.call call=\"reading the run\"";
    let not_found = format!("{read} tries=1 result=\"not_found\" http_status=404");
    assert!(spans.of(read).contains(&not_found), "{:#?}", spans.of(read));
    let listen = "hatchet.stream call=\"ListenV2\"";
    assert_eq!(spans.of(listen), [format!("{listen} result=\"ok\"")]);
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn failed_heartbeats_do_not_fill_the_log() {
    let (collected, _guard) = Collected::start();
    let engine = Engine::start().await.unwrap();
    let worker = start(&engine.client(), &flaky()).await;
    engine.faults().inject_always("Heartbeat", Fault::RejectGrpc(14)).unwrap();
    let count = |text: &str| collected.count(&[text]);
    let is_damped = async {
        while count("heartbeat failed again") < 2 {
            sleep(SECOND).await;
        }
    };
    timeout(3600 * SECOND, is_damped).await.unwrap();
    engine.faults().clear();
    sleep(60 * SECOND).await;
    assert!(worker.status().state == hatchet::worker::WorkerState::Connected);
    assert_eq!(count("heartbeats are accepted again"), 1);
    assert_eq!(collected.count(&["event WARN", "message=heartbeat failed"]), 3);
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn more_units_than_a_static_rate_limit_has_are_logged() {
    let (collected, _guard) = Collected::start();
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    hatchet.rate_limit("api", 2, RateLimitWindow::Minute).send().await.unwrap();
    let task = |name: &str, units| -> Task<(), ()> {
        Task::new(name, async |(): (), _: Context| Ok(())).rate_limit(RateLimit::new("api").units(units))
    };
    let worker = hatchet.worker("worker").register(&task("fits", 2)).register(&task("large", 3));
    worker.build().unwrap().start().await.unwrap().shutdown().await;
    let text = "a rate limit has fewer units than are consumed at once";
    let fields = ["event WARN", text, "task_name=\"large\"", "key=\"api\"", "units=3", "limit=2"];
    assert_eq!((collected.count(&fields), collected.count(&[text])), (1, 1), "{:#?}", collected.texts());
}

/// The results of all tasks fail to be reported again and again. UNAVAILABLE is about all reports, INTERNAL about each one of its own.
#[tokio::test(start_paused = true)]
async fn an_outage_with_many_running_tasks_does_not_fill_the_log() {
    for code in [14, 13] {
        let (collected, _guard) = Collected::start();
        let engine = Engine::start().await.unwrap();
        let hatchet = engine.client();
        let work: Task<(), ()> = Task::new("work", async |(): (), _: Context| {
            sleep(10 * SECOND).await;
            Ok(())
        });
        let work = work.timeout(600 * SECOND);
        let worker = hatchet.worker("worker").slots(50).register(&work).build().unwrap().start().await.unwrap();
        let runs = hatchet.run_many(&work, [(); 50]).start().await.unwrap();
        while worker.status().running < 50 {
            sleep(SECOND / 10).await;
        }
        sleep(SECOND).await;
        for call in ["SendStepActionEvent", "SendBatchActionEvent"] {
            engine.faults().inject_for(call, Fault::RejectGrpc(code), 60 * SECOND).unwrap();
        }
        sleep(30 * SECOND).await;
        assert_eq!(worker.status().unreported, 50);
        for run in runs {
            run.unwrap().result().await.unwrap();
        }
        while worker.status().unreported > 0 {
            sleep(SECOND / 10).await;
        }
        sleep(SECOND).await;
        let text = "failed to report results; will retry";
        let ids = if code == 13 { &["run_id=", "task_id=", "attempt=1"][..] } else { &[] };
        let warning = [&["event WARN", text, "worker_id="], ids].concat();
        assert_eq!((collected.count(&warning), collected.count(&["event WARN"])), (3, 3), "{:#?}", collected.texts());
        assert_eq!(collected.count(&["event INFO", "results are accepted again", "worker_id=", "after="]), 1);
        assert_eq!(worker.shutdown().await.completed, 50);
    }
}

/// The first loss is a debug message, the next three are warnings, further ones are debug messages, and the recovery is logged once.
#[tokio::test(start_paused = true)]
async fn lost_streams_do_not_fill_the_log() {
    let (collected, _guard) = Collected::start();
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let slow: Task<(), u32> = Task::new("slow", async |(): (), context: Context| {
        sleep(120 * SECOND).await;
        Ok(context.attempt())
    })
    .timeout(600 * SECOND);
    let worker = hatchet.worker("worker").register(&slow).build().unwrap().start().await.unwrap();
    let run = hatchet.run(&slow, &()).start().await.unwrap();
    let outage = async {
        sleep(10 * SECOND).await;
        engine.faults().inject_for("SubscribeToWorkflowRuns", Fault::RejectGrpc(14), 60 * SECOND).unwrap();
        engine.faults().interrupt("SubscribeToWorkflowRuns").unwrap();
    };
    let (result, ()) = tokio::join!(run.result(), outage);
    assert_eq!(result.unwrap(), 1);
    let mut events = collected.texts();
    events.retain(|text| text.starts_with("event") && text.contains("run results"));
    let kinds: Vec<_> = events
        .iter()
        .map(|text| {
            let level = text.split(' ').nth(1).unwrap();
            let message = text.split("message=").nth(1).unwrap();
            let messages = ["stream ended", "stream lost again", "stream lost", "stream recovered"];
            (level, *messages.iter().find(|known| message.starts_with(**known)).unwrap_or(&message))
        })
        .collect();
    let warning = ("WARN", "stream lost");
    assert_eq!(kinds[..4], [("DEBUG", "stream ended"), warning, warning, warning], "{events:#?}");
    let (last, others) = kinds[4..].split_last().unwrap();
    assert!(others.len() > 5 && others.iter().all(|kind| *kind == ("DEBUG", "stream lost again")), "{events:#?}");
    assert_eq!(*last, ("INFO", "stream recovered"), "{events:#?}");
    worker.shutdown().await;
}

/// The stream of events is rejected for good, and tried again every 30 seconds. Meanwhile, the runs are listed.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_rejected_for_good_does_not_fill_the_log() {
    let (collected, _guard) = Collected::start();
    let engine = Engine::start().await.unwrap();
    let worker = start(&engine.client(), &flaky()).await;
    engine.faults().inject_always("SubscribeToWorkflowEvents", Fault::RejectGrpc(12)).unwrap();
    let mut watch = engine.client().watch_matching("tag", "a");
    assert!(timeout(301 * SECOND, watch.next()).await.is_err());
    let count = |level| collected.count(&[&format!("event {level}"), "message=stream of run events failed"]);
    // After 0, 30, .. 300 seconds.
    assert_eq!((count("WARN"), count("DEBUG")), (3, 8));
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn o2_events_of_a_task_become_its_log_lines() {
    let subscriber = tracing_subscriber::registry().with(TaskLogLayer::new().max_level(LogLevel::Debug));
    let _guard = tracing::subscriber::set_default(subscriber);
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task: Task<(), u32> = Task::new("logs", async |(): (), context: Context| {
        tracing::info!(number = 7, "first");
        context.log("second");
        let inner = tracing::info_span!("inner", customer = "acme", order = tracing::field::Empty);
        inner.record("order", 8);
        async { tracing::warn!("third") }.instrument(inner.clone()).await;
        tokio::spawn(async { tracing::debug!("fourth") }.instrument(inner)).await?;
        tracing::trace!("too detailed");
        Ok(1)
    });
    let worker = start(&hatchet, &task).await;
    tracing::info!("outside of a task");
    let run = hatchet.run(&task, &()).start().await.unwrap();
    run.result().await.unwrap();
    worker.shutdown().await;
    let found: Vec<_> = run.logs().try_collect().await.unwrap();
    let texts: Vec<_> = found.iter().map(|line| (line.level.clone(), line.message.as_str())).collect();
    let expected =
        [(LogLevel::Info, "first"), (LogLevel::Info, "second"), (LogLevel::Warn, "third"), (LogLevel::Debug, "fourth")];
    assert_eq!(texts, expected);
    assert_eq!((&found[0].metadata["number"], &found[2].metadata["customer"]), (&7.into(), &"acme".into()));
    assert_eq!(found[2].metadata["order"], 8, "recorded later");
}

#[tokio::test(start_paused = true)]
async fn o2_events_of_a_function_that_a_test_calls_become_its_log_lines() {
    let subscriber = tracing_subscriber::registry().with(TaskLogLayer::new());
    let _guard = tracing::subscriber::set_default(subscriber);
    let task: Task<(), ()> = Task::new("logs", async |(): (), context: Context| {
        tracing::info!(number = 7, "first");
        context.log("second");
        sleep(SECOND).await;
        tracing::warn!("third");
        Ok(())
    });
    tracing::info!("outside of a task");
    let log = call(&task, &()).run().await.unwrap().log;
    let lines: Vec<_> = log.iter().map(|line| (line.level.clone(), line.message.as_str())).collect();
    assert_eq!(lines, [(LogLevel::Info, "first"), (LogLevel::Info, "second"), (LogLevel::Warn, "third")]);
    assert_eq!(log[0].metadata["number"], 7);
}

/// The layer must not set a level for the whole process.
#[tokio::test(start_paused = true)]
async fn o2_other_layers_still_get_detailed_events() {
    let collected = Collected::default();
    let subscriber = tracing_subscriber::registry().with(collected.clone()).with(TaskLogLayer::new());
    let _guard = tracing::subscriber::set_default(subscriber);
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let worker = start(&hatchet, &flaky()).await;
    hatchet.run(&flaky(), &()).result().await.unwrap();
    worker.shutdown().await;
    assert!(collected.has(&["span DEBUG", telemetry::CALL_SPAN]), "{:#?}", collected.texts());
}

#[tokio::test(start_paused = true)]
async fn o2_spans_of_a_task_become_its_log_lines() {
    let subscriber = tracing_subscriber::registry().with(TaskLogLayer::new().spans(true));
    let _guard = tracing::subscriber::set_default(subscriber);
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task: Task<(), u32> = Task::new("logs", async |(): (), context: Context| {
        let charge = async {
            tracing::info!("charging");
            sleep(2 * SECOND).await;
            context.log("charged");
        };
        charge.instrument(tracing::warn_span!("charge", customer = "acme")).await;
        sleep(SECOND).instrument(tracing::debug_span!("too detailed")).await;
        Ok(1)
    });
    let worker = start(&hatchet, &task).await;
    sleep(SECOND).instrument(tracing::info_span!("outside of a task")).await;
    let run = hatchet.run(&task, &()).start().await.unwrap();
    run.result().await.unwrap();
    worker.shutdown().await;
    let found: Vec<_> = run.logs().try_collect().await.unwrap();
    let texts: Vec<_> = found.iter().map(|line| (line.level.clone(), line.message.as_str())).collect();
    let expected = [(LogLevel::Info, "charging"), (LogLevel::Info, "charged"), (LogLevel::Warn, "span charge ended")];
    assert_eq!(texts, expected);
    assert_eq!((&found[2].metadata["customer"], &found[2].metadata["duration_ms"]), (&"acme".into(), &2000.into()));
}

/// The kinds of measurements, and a recorder that renders them.
#[derive(Clone)]
struct Kinds(Arc<Mutex<BTreeSet<String>>>, PrometheusRecorder);

impl Recorder for Kinds {
    fn record(&self, measurement: &Measurement<'_>) {
        let kind = match measurement {
            Measurement::Call { call, error, .. } => format!("{call} {error:?}"),
            Measurement::Retry { call, .. } => format!("retry {call}"),
            Measurement::StreamLost { stream, .. } => format!("lost {stream}"),
            Measurement::AttemptStarted { task_name, .. } => format!("started {task_name}"),
            Measurement::AttemptEnded { task_name, result, .. } => format!("{} {task_name}", result.as_str()),
            Measurement::WorkerLoad { worker_name, running, .. } => format!("{worker_name} {running}"),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().insert(kind);
        self.1.record(measurement);
    }
}

#[tokio::test]
async fn o5_health_and_metrics_report_the_state_of_the_worker() {
    let engine = Engine::start().await.unwrap();
    let worker = start(&engine.client(), &flaky()).await;
    let health = worker.health(([127, 0, 0, 1], 0)).start().await.unwrap();
    let until = async |code: u16, text: &str| loop {
        let (found, body) = get(&health, "/readyz").await;
        if found == code && body.contains(text) {
            break;
        }
        sleep(SECOND / 20).await;
    };
    until(200, "ok").await;
    worker.pause().send().await.unwrap();
    until(503, "the worker is paused").await;
    assert_eq!(get(&health, "/livez").await.0, 200);
    worker.resume().send().await.unwrap();
    until(200, "ok").await;
    let (_, metrics) = get(&health, "/metrics").await;
    assert!(metrics.contains(&format!("{} 0", telemetry::ATTEMPTS_RUNNING)), "{metrics}");
    engine.faults().inject_always("Heartbeat", Fault::RejectGrpc(14)).unwrap();
    until(503, "the worker is not connected").await;
    let (code, body) = get(&health, "/health").await;
    assert!(code == 503 && body.contains("\"state\":\"disconnected\""), "{body}");
    drop(worker);
    until(503, "the worker has stopped").await;
    assert_eq!((get(&health, "/livez").await.0, get(&health, "/nothing").await.0), (200, 404));
}

#[tokio::test]
async fn o5_a_worker_whose_outbox_is_full_is_not_ready() {
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task: Task<(), ()> = Task::new("task", async |(): (), _: Context| Ok(()));
    let worker = hatchet.worker("full").outbox_capacity(1).register(&task).build().unwrap().start().await.unwrap();
    let health = worker.health(([127, 0, 0, 1], 0)).start().await.unwrap();
    assert_eq!(get(&health, "/readyz").await.0, 200);
    for call in ["SendStepActionEvent", "SendBatchActionEvent"] {
        engine.faults().inject_always(call, Fault::RejectGrpc(14)).unwrap();
    }
    let run = hatchet.run(&task, &()).start().await.unwrap();
    while !worker.status().is_outbox_full {
        sleep(SECOND / 50).await;
    }
    let (code, body) = get(&health, "/readyz").await;
    assert!(code == 503 && body.contains("the outbox is full"), "{body}");
    let (code, body) = get(&health, "/health").await;
    assert!(code == 503 && body.contains("\"is_outbox_full\":true"), "{body}");
    assert_eq!(get(&health, "/livez").await.0, 200, "a restart would not help");
    let (_, metrics) = get(&health, "/metrics").await;
    assert!(metrics.contains(&format!("{} 1", telemetry::OUTBOX_REPORTS)), "{metrics}");
    engine.faults().clear();
    run.result().await.unwrap();
    while get(&health, "/readyz").await.0 != 200 {
        sleep(SECOND / 50).await;
    }
    worker.shutdown().await;
}

/// The only test of this program that sets the recorder of the process.
#[tokio::test]
async fn o4_calls_streams_attempts_and_slots_are_measured() {
    let recorder = PrometheusRecorder::new();
    let kinds = Kinds(Arc::default(), recorder.clone());
    set_recorder(kinds.clone()).unwrap();
    assert_eq!(set_recorder(recorder.clone()).unwrap_err().kind(), hatchet::ErrorKind::AlreadyExists);
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task = flaky();
    let worker = start(&hatchet, &task).await;
    let health = worker.health(([127, 0, 0, 1], 0)).metrics(recorder).start().await.unwrap();
    let get = async |path: &str| get(&health, path).await;
    for path in ["/livez", "/readyz", "/health"] {
        assert_eq!(get(path).await.0, 200, "{path}");
    }
    // RESOURCE_EXHAUSTED: the engine has not processed the call, so it is retried.
    engine.faults().inject("TriggerWorkflow", Fault::RejectGrpc(8)).unwrap();
    assert_eq!(hatchet.run(&task, &()).result().await.unwrap(), 2);
    engine.faults().interrupt("ListenV2").unwrap();
    engine.faults().inject_always("Heartbeat", Fault::RejectGrpc(14)).unwrap();
    let until = async |state: &str| {
        while get("/health").await.1.contains("\"healthy\":true") == (state == "unhealthy") {
            sleep(SECOND / 10).await;
        }
    };
    until("unhealthy").await;
    // The loss of the stream alone makes the worker unhealthy, before a heartbeat has failed.
    while !kinds.0.lock().unwrap().contains("Heartbeat Some(Unavailable)") {
        sleep(SECOND / 10).await;
    }
    assert_eq!((get("/livez").await.0, get("/readyz").await.0), (200, 503));
    engine.faults().clear();
    until("healthy").await;
    let metrics = get("/metrics").await.1;
    for line in [
        "hatchet_attempts_ended_total{task_name=\"flaky\",result=\"failed\"} 1",
        "hatchet_attempts_ended_total{task_name=\"flaky\",result=\"completed\"} 1",
        "hatchet_attempts_started_total{task_name=\"flaky\"} 2",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    // An attempt that is dropped with its worker.
    let endless: Task<(), ()> = Task::new("endless", async |(): (), _: Context| std::future::pending().await);
    let dropped = hatchet.worker("dropped").register(&endless).build().unwrap().start().await.unwrap();
    let run = hatchet.run(&endless, &()).start().await.unwrap();
    while !kinds.0.lock().unwrap().contains("started endless") {
        sleep(SECOND / 10).await;
    }
    drop(dropped);
    while !kinds.0.lock().unwrap().contains("dropped endless") {
        sleep(SECOND / 10).await;
    }
    run.cancel().send().await.unwrap();
    worker.shutdown().await;
    let (code, body) = get("/readyz").await;
    assert!(code == 503 && body.contains("the worker has stopped"), "{body}");
    assert_eq!(get("/nothing").await.0, 404);
    let found = kinds.0.lock().unwrap().clone();
    for kind in [
        "started flaky",
        &format!("{} flaky", AttemptResult::Failed.as_str()),
        "completed flaky",
        "observed 1",
        "observed 0",
        "retry TriggerWorkflow",
        "TriggerWorkflow None",
        "Heartbeat Some(Unavailable)",
        "lost assignments",
    ] {
        assert!(found.contains(kind), "{kind}: {found:#?}");
    }
}

/// The spans that have ended.
#[derive(Debug, Clone, Default)]
struct Spans(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Spans {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(spans);
        Ok(())
    }
}

impl Spans {
    /// The only span with this name, or the spans of the attempts of this task, in their order.
    fn of(&self, name: &str) -> Vec<SpanData> {
        let has_name = |span: &&SpanData| {
            let is_task =
                |attribute: &KeyValue| attribute.key.as_str() == "task_name" && attribute.value.as_str() == name;
            span.name == name || span.attributes.iter().any(is_task)
        };
        self.0.lock().unwrap().iter().filter(has_name).cloned().collect()
    }

    fn one(&self, name: &str) -> SpanData {
        let [span] = self.of(name).try_into().unwrap();
        span
    }
}

fn ids(span: &SpanData) -> (TraceId, SpanId) {
    (span.span_context.trace_id(), span.span_context.span_id())
}

/// The trace and the parent of a span.
fn parent(span: &SpanData) -> (TraceId, SpanId) {
    (span.span_context.trace_id(), span.parent_span_id)
}

#[tokio::test(start_paused = true)]
async fn o3_one_trace_connects_runs_retries_children_and_events() {
    let spans = Spans::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(spans.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let engine = Engine::start().await.unwrap();
    let child: Task<(), u32> = Task::new("child", async |(): (), context: Context| Ok(context.attempt()));
    let parent_task =
        Task::with_state("parent", child.clone(), async |child: Task<(), u32>, (): (), context: Context| {
            let output = context.run(&child, &()).result().await?;
            match context.attempt() {
                1 => Err(TaskError::new("as planned")),
                _ => Ok(output),
            }
        });
    let parent_task = parent_task.retries(1).on_event("order:created");
    let lone: Task<(), ()> = Task::new("lone", async |(): (), _: Context| Ok(()));
    // The client of another process, which shares nothing but the engine.
    let worker = engine.client().worker("worker").register(&parent_task).register(&child).register(&lone);
    let worker = worker.build().unwrap().start().await.unwrap();
    let hatchet = engine.client();

    let request = info_span!("request");
    let run = async {
        let run = hatchet.run(&parent_task, &()).start().await.unwrap();
        assert_eq!(run.result().await.unwrap(), 1);
        run
    };
    let run = run.instrument(request).await;
    let request = spans.one("request");
    let [first, second] = spans.of("parent").try_into().unwrap();
    assert_eq!((parent(&first), parent(&second)), (ids(&request), ids(&request)));
    assert_eq!((&first.status, &second.status), (&Status::error("as planned"), &Status::Unset));
    // It was started by the first attempt, and not again by the second one.
    assert_eq!(parent(&spans.one("child")), ids(&first));
    // The key is hidden from users.
    let details = run.details().await.unwrap();
    assert_eq!(details.metadata.len(), 0);
    let (trace, span) = ids(&request);
    assert_eq!(details.engine_metadata["traceparent"], format!("00-{trace}-{span}-01"));

    // A replay continues the trace of the run, wherever it is requested.
    spans.0.lock().unwrap().clear();
    let replayed = async {
        run.replay().send().await.unwrap();
        run.result().await.unwrap();
    };
    replayed.instrument(info_span!("operator")).await;
    assert_eq!(parent(&spans.of("parent")[0]), ids(&request));

    // The runs of an event, and their children.
    spans.0.lock().unwrap().clear();
    let push = async { hatchet.push("order:created", &serde_json::json!({})).send().await.unwrap() };
    push.instrument(info_span!("push")).await;
    while spans.of("parent").len() < 2 {
        sleep(SECOND).await;
    }
    let [first, _] = spans.of("parent").try_into().unwrap();
    assert_eq!(parent(&first), ids(&spans.one("push")));
    assert_eq!(parent(&spans.one("child")), ids(&first));

    // Many at once, and a run without a span.
    spans.0.lock().unwrap().clear();
    let many = async {
        let results = hatchet.run_many(&lone, [(), ()]).results().await.unwrap();
        assert!(results.iter().all(Result::is_ok));
    };
    many.instrument(info_span!("many")).await;
    let many = ids(&spans.one("many"));
    assert_eq!(spans.of("lone").iter().map(parent).collect::<Vec<_>>(), [many, many]);
    spans.0.lock().unwrap().clear();
    hatchet.run(&lone, &()).result().await.unwrap();
    let alone = spans.one("lone");
    assert!(alone.parent_span_is_remote && alone.span_context.trace_id() != many.0);
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_span_of_a_batch_is_marked_as_failed() {
    let spans = Spans::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(spans.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task: Task<(), u32> = Task::batch("together", BatchOptions::new(1), async |items: Vec<BatchItem<()>>| {
        Ok(items.iter().map(|_| Err(TaskError::new("as planned"))).collect())
    });
    let worker = start(&hatchet, &task).await;
    hatchet.run(&task, &()).outcome().await.unwrap();
    worker.shutdown().await;
    assert_eq!(spans.one(telemetry::BATCH_SPAN).status, Status::error("as planned"));
}

#[tokio::test(start_paused = true)]
async fn the_span_of_a_call_belongs_to_its_caller_and_is_marked_as_failed() {
    let spans = Spans::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(spans.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    engine.faults().inject("Push", Fault::RejectGrpc(3)).unwrap();
    let push = async { hatchet.push("order:created", &serde_json::json!({})).send().await.unwrap_err() };
    let error = push.instrument(info_span!("request")).await;
    let call = spans.one(telemetry::CALL_SPAN);
    assert_eq!(parent(&call), ids(&spans.one("request")));
    assert_eq!(call.status, Status::error(error.to_string()));
}

/// The names in the documentation of `telemetry` are those of the code.
#[test]
fn each_event_is_documented_and_each_documented_event_exists() {
    let documentation = std::fs::read_to_string("src/telemetry/mod.rs").unwrap();
    let rows = documentation.lines().filter_map(|line| line.strip_prefix("//! | `")?.split_once("` | `"));
    let levels = ["ERROR", "WARN", "INFO", "DEBUG"];
    let rows = rows.filter(|(level, _)| levels.contains(level));
    let documented: BTreeSet<_> =
        rows.map(|(level, row)| (level.to_owned(), row.split('`').next().unwrap().to_owned())).collect();
    let mut logged = BTreeSet::new();
    for path in files::in_directory("src") {
        let source = std::fs::read_to_string(&path).unwrap();
        for (level, event) in logged_events(&source) {
            let message =
                event.trim_end_matches([',', '\n', ' ']).strip_suffix('"').and_then(|event| event.rsplit_once('"'));
            let (_, message) = message.unwrap_or_else(|| panic!("{}: no message in {event}", path.display()));
            logged.insert((level.to_uppercase(), message.to_owned()));
        }
    }
    let unknown: Vec<_> = documented.difference(&logged).collect();
    assert!(unknown.is_empty() && documented.len() > 60, "documented, and never logged: {unknown:#?}");
    // Only some events for debugging are documented.
    let missing: Vec<_> = logged.difference(&documented).filter(|(level, _)| levels[..3].contains(&&**level)).collect();
    assert!(missing.is_empty(), "logged, and not documented: {missing:#?}");
}

/// The events of the crate that are about a run, a task or an attempt have its ids, if these are known where it occurs.
#[test]
fn o1_each_event_about_a_run_or_an_attempt_has_its_ids() {
    /// Those are about others, or the ids are what cannot be read.
    const WITHOUT: [&str; 3] =
        ["stream of run events failed", "stream of run events failed again", "failed to decode a batch"];
    let (mut count, mut without) = (0, BTreeSet::new());
    for path in files::in_directory("src") {
        for (_, event) in logged_events(&std::fs::read_to_string(&path).unwrap()) {
            let Some((fields, message)) = event.trim_end_matches([',', '\n', ' ', '"']).split_once('"') else {
                continue;
            };
            let has_word =
                |words: &[&str]| message.split(|c: char| !c.is_alphabetic()).any(|word| words.contains(&word));
            let is_about_attempt = has_word(&["attempt", "task", "assignment"]);
            if let Some(known) = WITHOUT.iter().find(|known| **known == message) {
                without.insert(*known);
            } else if is_about_attempt || has_word(&["run"]) {
                count += 1;
                let has = |name: &str| fields.contains(&format!("{name} = ")) || fields.contains(&format!(" {name},"));
                let needed = if is_about_attempt { &["run_id", "task_id", "attempt"][..] } else { &["run_id"] };
                assert!(needed.iter().all(|name| has(name)), "{}: {needed:?} in {event}", path.display());
            }
        }
    }
    assert!(count > 15, "{count}");
    assert_eq!(without.len(), WITHOUT.len(), "{without:?}");
}

/// The level of each event of a source file, and what is between its parentheses.
fn logged_events(source: &str) -> Vec<(&'static str, &str)> {
    let levels = ["error", "warn", "info", "debug", "trace"];
    // What tests log is not documented.
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let events = source.split("tracing::").filter_map(|rest| {
        levels.iter().find_map(|level| Some((*level, rest.strip_prefix(level)?.strip_prefix("!(")?)))
    });
    events.map(|(level, rest)| (level, &rest[..length_of_arguments(rest)])).collect()
}

/// The number of bytes before the parenthesis that closes the arguments of a macro.
fn length_of_arguments(source: &str) -> usize {
    let (mut depth, mut is_text) = (1, false);
    let closing = source.char_indices().find(|(_, character)| {
        match character {
            '"' => is_text = !is_text,
            '(' if !is_text => depth += 1,
            ')' if !is_text => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    closing.unwrap().0
}
