//! Measurements, and the health of a worker.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use hatchet::embedded::{Engine, Fault};
use hatchet::telemetry::{AttemptResult, Measurement, PrometheusRecorder, Recorder, set_recorder};
use hatchet::{Context, Task, telemetry};
use tokio::time::sleep;

use super::observing::get;
use super::{SECOND, flaky, start};

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
