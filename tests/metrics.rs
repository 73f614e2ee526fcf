//! Measurements that are passed on to the crate `metrics`. The recorder of this crate is one for the process.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hatchet::embedded::{Engine, Fault};
use hatchet::telemetry::{MetricsRecorder, set_recorder};
use hatchet::{Context, Task, TaskError};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

/// All values of each metric, by its kind, name and labels.
#[derive(Debug, Clone, Default)]
struct Recorded(Arc<Mutex<BTreeMap<String, Vec<f64>>>>);

/// A metric with its labels.
struct Metric {
    name: String,
    recorded: Recorded,
}

impl Recorded {
    fn metric(&self, kind: &str, key: &Key) -> Arc<Metric> {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        Arc::new(Metric { name: format!("{kind} {} {}", key.name(), labels.join(" ")), recorded: self.clone() })
    }

    fn values(&self, name: &str) -> Vec<f64> {
        self.0.lock().unwrap().get(name).cloned().unwrap_or_default()
    }

    fn sum(&self, name: &str) -> f64 {
        self.values(name).iter().sum()
    }
}

impl Metric {
    fn add(&self, value: f64) {
        self.recorded.0.lock().unwrap().entry(self.name.clone()).or_default().push(value);
    }
}

impl CounterFn for Metric {
    fn increment(&self, value: u64) {
        self.add(f64::from(u32::try_from(value).unwrap()));
    }

    fn absolute(&self, _: u64) {
        panic!("counters are incremented");
    }
}

impl GaugeFn for Metric {
    fn increment(&self, _: f64) {
        panic!("gauges are set");
    }

    fn decrement(&self, _: f64) {
        panic!("gauges are set");
    }

    fn set(&self, value: f64) {
        self.add(value);
    }
}

impl HistogramFn for Metric {
    fn record(&self, value: f64) {
        self.add(value);
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.metric("counter", key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.metric("gauge", key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.metric("histogram", key))
    }
}

#[tokio::test(start_paused = true)]
async fn o4_measurements_reach_the_facade_of_the_crate_metrics() {
    let recorded = Recorded::default();
    metrics::set_global_recorder(recorded.clone()).unwrap();
    set_recorder(MetricsRecorder).unwrap();
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let flaky: Task<(), u32> = Task::new("flaky", async |(): (), context: Context| {
        sleep(2 * SECOND).await;
        if context.attempt() == 1 { Err(TaskError::new("as planned")) } else { Ok(context.attempt()) }
    });
    let flaky = flaky.retries(1);
    let worker = hatchet.worker("measured").register(&flaky).build().unwrap().start().await.unwrap();
    // RESOURCE_EXHAUSTED: the engine has not processed the call, so it is retried.
    engine.faults().inject("TriggerWorkflow", Fault::RejectGrpc(8)).unwrap();
    engine.faults().interrupt("ListenV2").unwrap();
    assert_eq!(hatchet.run(&flaky, &()).result().await.unwrap(), 2);
    // The engine does not accept the next result.
    engine.faults().inject_times("SendStepActionEvent", Fault::RejectGrpc(14), 5).unwrap();
    assert_eq!(hatchet.run(&flaky, &()).result().await.unwrap(), 2);
    let endless: Task<(), ()> = Task::new("endless", async |(): (), _: Context| std::future::pending().await);
    let dropped = hatchet.worker("dropped").shutdown_grace_period(SECOND).register(&endless);
    let dropped = dropped.build().unwrap().start().await.unwrap();
    hatchet.run(&endless, &()).start().await.unwrap();
    sleep(SECOND).await;
    dropped.shutdown().await;
    worker.shutdown().await;

    let all = || format!("{:#?}", recorded.0.lock().unwrap());
    for (name, expected) in [
        ("counter hatchet_attempts_started_total task_name=flaky", 4.0_f64),
        ("counter hatchet_attempts_ended_total task_name=flaky result=failed", 2.0),
        ("counter hatchet_attempts_ended_total task_name=flaky result=completed", 2.0),
        ("counter hatchet_attempts_ended_total task_name=endless result=dropped", 1.0),
        ("histogram hatchet_attempt_seconds task_name=flaky", 8.0),
        ("counter hatchet_calls_total call=TriggerWorkflow result=ok", 3.0),
        ("counter hatchet_call_retries_total call=TriggerWorkflow", 1.0),
        ("counter hatchet_streams_lost_total stream=assignments", 1.0),
    ] {
        assert_eq!(recorded.sum(name).to_bits(), expected.to_bits(), "{name}: {}", all());
    }
    let failed = "counter hatchet_calls_total call=SendStepActionEvent result=unavailable";
    assert_eq!(recorded.values(failed).len(), 5, "{}", all());
    for (name, highest) in [
        ("gauge hatchet_attempts_running worker_name=measured", 1.0),
        ("gauge hatchet_attempts_queued worker_name=measured", 0.0),
        ("gauge hatchet_outbox_reports worker_name=measured", 1.0),
    ] {
        let values = recorded.values(name);
        let max = values.iter().copied().fold(0.0, f64::max);
        assert_eq!(
            (max.to_bits(), values.last().map(|last| last.to_bits())),
            (f64::to_bits(highest), Some(0)),
            "{name}: {}",
            all()
        );
    }
    assert!(!recorded.values("histogram hatchet_call_seconds call=TriggerWorkflow").is_empty(), "{}", all());
}
