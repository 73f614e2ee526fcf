//! The bridge to the facade of the `metrics` crate.

use metrics::{counter, gauge, histogram};

use super::{
    ARCHIVED_RUNS, ARCHIVED_RUNS_AT_RISK, ATTEMPT_SECONDS, ATTEMPTS_ENDED, ATTEMPTS_STARTED, CALL_RETRIES,
    CALL_SECONDS, CALLS, Measurement, Recorder, STREAMS_LOST, TASK_MESSAGES_LOST, call_result, worker_gauges,
};

/// Passes measurements on to the recorder that is installed for the `metrics` crate.
///
/// ```
/// use hatchet::telemetry::{MetricsRecorder, set_recorder};
///
/// set_recorder(MetricsRecorder)?;
/// # Ok::<(), hatchet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MetricsRecorder;

impl Recorder for MetricsRecorder {
    fn record(&self, measurement: &Measurement<'_>) {
        match measurement {
            Measurement::Call { call, error, duration } => {
                counter!(CALLS, "call" => (*call).to_owned(), "result" => call_result(*error)).increment(1);
                histogram!(CALL_SECONDS, "call" => (*call).to_owned()).record(*duration);
            }
            Measurement::Retry { call } => counter!(CALL_RETRIES, "call" => (*call).to_owned()).increment(1),
            Measurement::StreamLost { stream } => {
                counter!(STREAMS_LOST, "stream" => (*stream).to_owned()).increment(1);
            }
            Measurement::AttemptStarted { task_name } => {
                counter!(ATTEMPTS_STARTED, "task_name" => (*task_name).to_owned()).increment(1);
            }
            Measurement::AttemptEnded { task_name, result, duration } => {
                counter!(ATTEMPTS_ENDED, "task_name" => (*task_name).to_owned(), "result" => result.as_str())
                    .increment(1);
                histogram!(ATTEMPT_SECONDS, "task_name" => (*task_name).to_owned()).record(*duration);
            }
            Measurement::TaskMessageLost => counter!(TASK_MESSAGES_LOST).increment(1),
            Measurement::WorkerLoad { worker_name, slots, running, queued, unreported } => {
                for (name, value) in worker_gauges(*slots, *running, *queued, *unreported) {
                    gauge!(name, "worker_name" => (*worker_name).to_owned()).set(as_float(value));
                }
            }
            Measurement::RunsArchived { archive, archived, at_risk } => {
                let at_risk = as_float(usize::try_from(*at_risk).unwrap_or(usize::MAX));
                counter!(ARCHIVED_RUNS, "archive" => (*archive).to_owned()).increment(*archived);
                gauge!(ARCHIVED_RUNS_AT_RISK, "archive" => (*archive).to_owned()).set(at_risk);
            }
        }
    }
}

fn as_float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
