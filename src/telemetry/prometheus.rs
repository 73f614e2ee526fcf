//! Counts measurements in memory, and renders them in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{
    ARCHIVED_RUNS, ARCHIVED_RUNS_AT_RISK, ATTEMPT_SECONDS, ATTEMPTS_ENDED, ATTEMPTS_STARTED, CALL_RETRIES,
    CALL_SECONDS, CALLS, Measurement, Recorder, STREAMS_LOST, TASK_MESSAGES_LOST, call_result, worker_gauges,
};

use crate::sync::lock;

/// The upper bounds of the buckets of histograms, in seconds.
const BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0];

/// Counts measurements, and renders them in the text format of Prometheus.
///
/// A recorder is cheap to clone; clones share the counts.
///
/// The upper bounds of the buckets of all histograms are 1, 5, 10, 25, 50, 100, 250 and 500 ms, and 1, 5, 30 and 300 s.
///
/// ```
/// use hatchet::telemetry::{PrometheusRecorder, set_recorder};
///
/// let recorder = PrometheusRecorder::new();
/// set_recorder(recorder.clone())?;
/// // To be sent for GET /metrics:
/// let body = recorder.render();
/// # Ok::<(), hatchet::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct PrometheusRecorder(Arc<Mutex<Metrics>>);

/// The labels of a time series in the text format.
type Labels = String;

#[derive(Default)]
struct Metrics {
    counters: BTreeMap<(&'static str, Labels), u64>,
    gauges: BTreeMap<(&'static str, Labels), usize>,
    histograms: BTreeMap<(&'static str, Labels), Histogram>,
}

#[derive(Default)]
struct Histogram {
    /// The number of values up to each bound.
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: Duration,
}

impl PrometheusRecorder {
    /// Creates a recorder without counts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns all metrics in the text format of Prometheus, version 0.0.4.
    pub fn render(&self) -> String {
        let metrics = lock(&self.0);
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = metrics.write(&mut text);
        text
    }

    fn with(&self, change: impl FnOnce(&mut Metrics)) {
        change(&mut lock(&self.0));
    }
}

impl Recorder for PrometheusRecorder {
    fn record(&self, measurement: &Measurement<'_>) {
        self.with(|metrics| match measurement {
            Measurement::Call { call, error, duration } => {
                let result = call_result(*error);
                metrics.count(CALLS, &[("call", call), ("result", result)]);
                metrics.observe(CALL_SECONDS, &[("call", call)], *duration);
            }
            Measurement::Retry { call } => metrics.count(CALL_RETRIES, &[("call", call)]),
            Measurement::StreamLost { stream } => metrics.count(STREAMS_LOST, &[("stream", stream)]),
            Measurement::AttemptStarted { task_name } => metrics.count(ATTEMPTS_STARTED, &[("task_name", task_name)]),
            Measurement::AttemptEnded { task_name, result, duration } => {
                metrics.count(ATTEMPTS_ENDED, &[("task_name", task_name), ("result", result.as_str())]);
                metrics.observe(ATTEMPT_SECONDS, &[("task_name", task_name)], *duration);
            }
            Measurement::TaskMessageLost => metrics.count(TASK_MESSAGES_LOST, &[]),
            Measurement::WorkerLoad { worker_name, slots, running, queued, unreported } => {
                let labels = labels(&[("worker_name", worker_name)]);
                for (name, value) in worker_gauges(*slots, *running, *queued, *unreported) {
                    metrics.gauges.insert((name, labels.clone()), value);
                }
            }
            Measurement::RunsArchived { archive, archived, at_risk } => {
                metrics.add(ARCHIVED_RUNS, &[("archive", archive)], *archived);
                let at_risk = usize::try_from(*at_risk).unwrap_or(usize::MAX);
                metrics.gauges.insert((ARCHIVED_RUNS_AT_RISK, labels(&[("archive", archive)])), at_risk);
            }
        });
    }
}

impl Metrics {
    fn count(&mut self, name: &'static str, all: &[(&str, &str)]) {
        self.add(name, all, 1);
    }

    fn add(&mut self, name: &'static str, all: &[(&str, &str)], number: u64) {
        *self.counters.entry((name, labels(all))).or_default() += number;
    }

    fn observe(&mut self, name: &'static str, all: &[(&str, &str)], value: Duration) {
        let histogram = self.histograms.entry((name, labels(all))).or_default();
        for (bucket, bound) in histogram.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(value.as_secs_f64() <= bound);
        }
        histogram.count += 1;
        histogram.sum += value;
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        let mut last = "";
        for ((name, labels), count) in &self.counters {
            header(text, name, "counter", &mut last)?;
            writeln!(text, "{name}{{{labels}}} {count}")?;
        }
        for ((name, labels), value) in &self.gauges {
            header(text, name, "gauge", &mut last)?;
            writeln!(text, "{name}{{{labels}}} {value}")?;
        }
        for ((name, labels), histogram) in &self.histograms {
            header(text, name, "histogram", &mut last)?;
            for (count, bound) in histogram.buckets.iter().zip(BUCKETS) {
                writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}")?;
            }
            writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", histogram.count)?;
            writeln!(text, "{name}_sum{{{labels}}} {}", histogram.sum.as_secs_f64())?;
            writeln!(text, "{name}_count{{{labels}}} {}", histogram.count)?;
        }
        Ok(())
    }
}

/// The type of a metric, once before its time series.
fn header<'a>(text: &mut String, name: &'a str, kind: &str, last: &mut &'a str) -> fmt::Result {
    if std::mem::replace(last, name) == name { Ok(()) } else { writeln!(text, "# TYPE {name} {kind}") }
}

fn labels(all: &[(&str, &str)]) -> Labels {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let all: Vec<_> = all.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    all.join(",")
}

impl fmt::Debug for PrometheusRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrometheusRecorder")
    }
}

#[cfg(test)]
mod tests {
    use super::super::AttemptResult;
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn metrics_have_the_text_format_of_prometheus() {
        let recorder = PrometheusRecorder::new();
        let millis = Duration::from_millis;
        for (error, duration) in [(None, millis(3)), (None, millis(20)), (Some(ErrorKind::Timeout), millis(30_000))] {
            recorder.record(&Measurement::Call { call: "Push", error, duration });
        }
        let result = AttemptResult::Failed;
        recorder.record(&Measurement::AttemptEnded { task_name: "a\"b", result, duration: millis(1) });
        recorder.record(&Measurement::TaskMessageLost);
        for (running, queued, unreported) in [(3, 0, 1), (2, 5, 0)] {
            recorder.record(&Measurement::WorkerLoad { worker_name: "w", slots: 3, running, queued, unreported });
        }
        // Two archives of one process do not replace each other's numbers.
        for (archive, archived, at_risk) in [("s3://runs/a", 5, 3), ("s3://runs/b", 7, 0), ("s3://runs/a", 1, 2)] {
            recorder.record(&Measurement::RunsArchived { archive, archived, at_risk });
        }
        let text = recorder.render();
        for line in [
            "# TYPE hatchet_calls_total counter",
            "hatchet_calls_total{call=\"Push\",result=\"ok\"} 2",
            "hatchet_calls_total{call=\"Push\",result=\"timeout\"} 1",
            "hatchet_attempts_ended_total{task_name=\"a\\\"b\",result=\"failed\"} 1",
            "# TYPE hatchet_attempts_running gauge",
            "hatchet_attempts_running{worker_name=\"w\"} 2",
            "hatchet_attempts_queued{worker_name=\"w\"} 5",
            "hatchet_worker_slots{worker_name=\"w\"} 3",
            "hatchet_outbox_reports{worker_name=\"w\"} 0",
            "hatchet_task_messages_lost_total{} 1",
            "hatchet_archived_runs_total{archive=\"s3://runs/a\"} 6",
            "hatchet_archived_runs_at_risk{archive=\"s3://runs/a\"} 2",
            "hatchet_archived_runs_at_risk{archive=\"s3://runs/b\"} 0",
            "# TYPE hatchet_call_seconds histogram",
            "hatchet_call_seconds_bucket{call=\"Push\",le=\"0.005\"} 1",
            "hatchet_call_seconds_bucket{call=\"Push\",le=\"0.025\"} 2",
            "hatchet_call_seconds_bucket{call=\"Push\",le=\"30\"} 3",
            "hatchet_call_seconds_bucket{call=\"Push\",le=\"+Inf\"} 3",
            "hatchet_call_seconds_sum{call=\"Push\"} 30.023",
            "hatchet_call_seconds_count{call=\"Push\"} 3",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert_eq!(text.matches("# TYPE hatchet_calls_total").count(), 1);
    }
}
