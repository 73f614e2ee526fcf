//! What this crate reports about itself: the names of its spans, events and metrics, and the recorder of measurements.
//!
//! # Spans
//!
//! The function of each attempt runs in a span [`ATTEMPT_SPAN`] with the target [`TARGET`], at level `INFO`. Its fields are `run_id`,
//! `task_id`, `task_name`, `workflow_name`, `attempt` and `worker_id`. The function of a batch runs in a span [`BATCH_SPAN`] with the fields
//! `batch_id`, `size`, `task_name`, `workflow_name` and `worker_id`.
//!
//! Each call to the server runs in a span [`CALL_SPAN`], and the opening of each stream in a span [`STREAM_SPAN`], with the same target, at
//! level `DEBUG`. A call that is retried has one span. A stream is open when the server has sent the first message. Their fields:
//!
//! | field | value |
//! |---|---|
//! | `call` | the same as the label `call` of the metrics |
//! | `tries` | the number of tries (calls only) |
//! | `result` | `ok`, or the [kind](ErrorKind) of the error, such as `unavailable` |
//! | `grpc_code` | the number of the gRPC status, if the server rejected the request with one |
//! | `http_status` | the HTTP status, if the server or a proxy rejected the request with one |
//!
//! If the future of a call is dropped, its span has only `call`. The engine sends no request ids, so the spans have none. With the `otel`
//! feature, the span of a failed call has the status "error".
//!
//! With the `otel` feature, the span of an attempt belongs to the OpenTelemetry trace of its run. The parent of a run is the span in which
//! it is started; the metadata key `traceparent` carries its ids. The same applies to events, to schedules, and to child runs that a task
//! starts. For every other run, the engine creates a trace. Retries and replays keep the parent of the run. The feature needs a layer of the
//! crate `tracing-opentelemetry`, version 0.34. Attempts of a batch belong to no trace, because the engine does not pass on their metadata.
//!
//! # Events
//!
//! All events have a target that begins with `hatchet`. The fields `run_id`, `task_id`, `attempt` and `worker_id` identify what an event is
//! about, as far as the ids are known where the event occurs: events about a worker and its heartbeats have the id of the worker, and
//! events about attempts also have the ids of the run and the task, and the number of the attempt. The events of calls and streams have the
//! fields `call` and `stream` instead. An event about an archive has the field `archive`, its URL. The tables list all events at level
//! `INFO` or above, and some at level `DEBUG`.
//!
//! The life of a worker:
//!
//! | level | message |
//! |---|---|
//! | `INFO` | `worker is ready` |
//! | `INFO` | `worker reconnected` (with the field `after`: how long it was not connected) |
//! | `INFO` | `received a signal, shutting down; a second signal stops the worker immediately` |
//! | `WARN` | `received a second signal, stopping immediately` |
//! | `INFO` | `worker is shutting down` |
//! | `WARN` | `failed to pause the worker; stopped its heartbeats so that it gets no more assignments` |
//! | `INFO` | `worker stopped` |
//! | `ERROR` | `worker failed; shutting down` |
//! | `ERROR` | `worker stopped after a fatal error` |
//! | `ERROR` | `worker stopped after a panic` |
//! | `ERROR` | `health server thread panicked` |
//! | `WARN` | `failed to check for workflows whose names differ only in case` |
//! | `WARN` | `failed to check that the rate limits of the tasks exist` |
//! | `WARN` | `a rate limit has fewer units than an attempt of a task consumes; the task never starts` |
//! | `WARN` | `the engine's version cannot be parsed, so it is assumed to have all options` |
//!
//! The connection of a worker, and other streams:
//!
//! | level | message |
//! |---|---|
//! | `WARN` | `heartbeat failed` (three times in succession; after that, `heartbeat failed again` at level `DEBUG`) |
//! | `INFO` | `heartbeats are accepted again` |
//! | `WARN` | `runtime is blocked: sent a heartbeat from the heartbeat thread` (once until it runs again; after that, `runtime is still blocked: sent a heartbeat from the heartbeat thread` at level `DEBUG`) |
//! | `WARN` | `closed an unresponsive connection; another one responds` |
//! | `WARN` | `failed to start the heartbeat thread` |
//! | `WARN` | `failed to start the runtime of the heartbeat thread` |
//! | `WARN` | `worker was unknown to the engine; registered again` |
//! | `WARN` | `failed to register the worker again` (three times in succession; after that, `still failing to register the worker again` at level `DEBUG`) |
//! | `ERROR` | `worker stream failed` (once until it is open; after that, `worker stream is still failing` at level `DEBUG`) |
//! | `WARN` | `stream lost` (the second to fourth loss of a stream without a message in between; the first is `stream ended`, and later ones are `stream lost again`, both at level `DEBUG`) |
//! | `INFO` | `stream recovered` |
//! | `WARN` | `stream of run events failed` (three times; after that, `stream of run events failed again` at level `DEBUG`) |
//! | `WARN` | `stream of server-sent events failed` |
//! | `WARN` | `failed to decode a message of a stream` |
//! | `WARN` | `skipped invalid message of a stream` |
//! | `DEBUG` | `retrying` (a call, with the field `call`) |
//!
//! Attempts, and their results:
//!
//! | level | message |
//! |---|---|
//! | `INFO` | `attempt failed` |
//! | `WARN` | `task panicked while it was dropped` |
//! | `WARN` | `batch panicked while it was dropped` |
//! | `ERROR` | `code around a task panicked` (a layer of `tracing`, for example; the attempt has failed). A panic in the span of a batch fails the attempts like one of the function, without this event |
//! | `WARN` | `cancelled attempt still runs blocking code; it keeps its slot until its function returns` |
//! | `WARN` | `an attempt starts a child run while all default slots of its worker are taken; it holds its slot while it waits` (once for each worker) |
//! | `WARN` | `attempt was ended or reassigned by the engine` |
//! | `WARN` | `failed to check whether attempts belong to the worker; they are kept` |
//! | `WARN` | `failed to determine whether a task belongs to this workflow` |
//! | `ERROR` | `failed to decode assignment` |
//! | `ERROR` | `failed to decode a batch` |
//! | `ERROR` | `received an assignment of unknown type` |
//! | `WARN` | `failed to report results; will retry` (three times for a worker until all are accepted; after that, `still failing to report results` at level `DEBUG`) |
//! | `INFO` | `results are accepted again` (when no report of the worker is failing any longer; with the field `after`: for how long reports failed) |
//! | `ERROR` | `failed to report the end of an attempt` |
//! | `INFO` | `the engine does not accept several reports in one call` |
//! | `INFO` | `reporting the result of an attempt of an earlier process` |
//! | `WARN` | `removed expired results from the outbox file` |
//! | `ERROR` | `failed to write to the outbox file; results are sent without being stored` |
//! | `ERROR` | `failed to write to the outbox file; no longer using it` |
//! | `ERROR` | `failed to write to the outbox file in time` |
//! | `ERROR` | `failed to write to the outbox file in time; no longer using it` |
//! | `WARN` | `attempt ended before its last chunks were sent; readers may not receive them` |
//! | `WARN` | `a log line or a chunk of a task was lost` (three times in succession; after that, `another log line or chunk of a task was lost` at level `DEBUG`) |
//! | `WARN` | `some log lines or chunks of tasks could not be sent before the worker ended` |
//!
//! Runs:
//!
//! | level | message |
//! |---|---|
//! | `WARN` | `cannot confirm that a run was started` |
//! | `WARN` | `cannot confirm in time that a run was started` |
//! | `WARN` | `failed to check that a new cron exists` |
//! | `WARN` | `lost the response to a cancellation` |
//! | `WARN` | `replay failed, or its response was lost` |
//! | `WARN` | `failed to read the cancel request` |
//! | `WARN` | `failed to decode the results of a run` |
//! | `WARN` | `dropped an invalid transition` |
//! | `ERROR` | `metrics recorder panicked` |
//!
//! Archives:
//!
//! | level | message |
//! |---|---|
//! | `INFO` | `the collection has ended` |
//! | `INFO` | `the collection was stopped` |
//! | `WARN` | `a collection failed; the collector continues` |
//! | `WARN` | `failed to fetch a run for the archive` |
//! | `WARN` | `failed to commit the runs that were fetched before a collection failed` |
//! | `WARN` | `the last collection failed; the next one fetches what was not committed` (of a collector that was shut down) |
//! | `WARN` | `the collector did not commit its last runs in time; the next collection fetches them again` |
//! | `WARN` | `failed to compact files of the archive` |
//! | `WARN` | `a file of the archive cannot be merged` |
//! | `WARN` | `a file of the archive cannot be read; its runs are archived again` |
//! | `WARN` | `failed to read a stored state of the manifest; an earlier one is used` |
//! | `WARN` | `failed to store the state of the manifest; it is stored again later` |
//! | `WARN` | `the engine dropped a run before it was archived` |
//! | `WARN` | `the age is not shorter than the retention period of the engine: runs are dropped before they are archived` |
//! | `WARN` | `runs were archived only shortly before the engine would have dropped them` (with the field `at_risk`, their number) |
//! | `WARN` | `a collection failed, and the engine soon drops runs that it has found` (with the same field) |
//! | `WARN` | `the engine soon drops runs that are not old enough to be archived` (with the same field) |
//! | `WARN` | `the engine soon drops runs that have not ended` (with the same field) |
//! | `WARN` | `failed to count the runs at risk that cannot be archived yet; they are not in the report` |
//!
//! The embedded engine:
//!
//! | level | message |
//! |---|---|
//! | `WARN` | `ended stream because its reader is too slow` |
//! | `WARN` | `failed to accept connection` |
//! | `ERROR` | `embedded engine panicked and stopped` |
//!
//! # Metrics
//!
//! Set a [`Recorder`] with [`set_recorder`] to receive [measurements](Measurement). With the `metrics` feature, a `MetricsRecorder`
//! passes them on to the facade of the `metrics` crate, under these names:
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | [`CALLS`] | counter | `call`; `result`: `ok`, or the [kind](ErrorKind) of the error, such as `unavailable` |
//! | [`CALL_SECONDS`] | histogram | `call` |
//! | [`CALL_RETRIES`] | counter | `call` |
//! | [`STREAMS_LOST`] | counter | `stream` |
//! | [`ATTEMPTS_STARTED`] | counter | `task_name` |
//! | [`ATTEMPTS_ENDED`] | counter | `task_name`; `result`: `completed`, `failed`, `cancelled` or `dropped` |
//! | [`ATTEMPT_SECONDS`] | histogram | `task_name` |
//! | [`TASK_MESSAGES_LOST`] | counter | |
//! | [`ATTEMPTS_RUNNING`] | gauge | `worker_name` |
//! | [`ATTEMPTS_QUEUED`] | gauge | `worker_name` |
//! | [`WORKER_SLOTS`] | gauge | `worker_name` |
//! | [`OUTBOX_REPORTS`] | gauge | `worker_name` |
//! | [`ARCHIVED_RUNS`] | counter | `archive`: the path or the URL of the archive |
//! | [`ARCHIVED_RUNS_AT_RISK`] | gauge | `archive` |
//!
//! `call` is the name of a gRPC method, such as `TriggerWorkflow`, or a description of a REST request, such as `reading the run`. `stream`
//! is `assignments` (of a worker), `run results` or `run events`.

#[cfg(feature = "metrics")]
mod facade;
mod prometheus;
mod spans;
mod trace;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

#[cfg(feature = "metrics")]
pub use facade::MetricsRecorder;
pub use prometheus::PrometheusRecorder;
pub(crate) use spans::{attempt_span, call_span, record_result, stream_span};
pub(crate) use trace::{EVENT_TRACEPARENT, TRACEPARENT, continue_trace, current_traceparent, mark_failed};

/// The target of the spans.
pub const TARGET: &str = "hatchet";

/// The number of failures in succession that are logged as warnings. Further ones are debug messages: an outage must not fill the log.
pub(crate) const MAX_WARNINGS: u32 = 3;
/// The name of the span in which the function of an attempt runs.
pub const ATTEMPT_SPAN: &str = "hatchet.attempt";
/// The name of the span in which the function of a batch runs.
pub const BATCH_SPAN: &str = "hatchet.batch";

/// The name of the span of a call, with its retries.
pub const CALL_SPAN: &str = "hatchet.call";
/// The name of the span in which a stream is opened.
pub const STREAM_SPAN: &str = "hatchet.stream";

/// The name of the metric for the number of calls.
pub const CALLS: &str = "hatchet_calls_total";
/// The name of the metric for the duration of calls with their retries, in seconds.
pub const CALL_SECONDS: &str = "hatchet_call_seconds";
/// The name of the metric for the number of retries of calls.
pub const CALL_RETRIES: &str = "hatchet_call_retries_total";
/// The name of the metric for the number of times that a stream was lost. A lost stream is reopened.
pub const STREAMS_LOST: &str = "hatchet_streams_lost_total";
/// The name of the metric for the number of attempts that a worker of this process has started.
pub const ATTEMPTS_STARTED: &str = "hatchet_attempts_started_total";
/// The name of the metric for the number of attempts whose function has ended.
pub const ATTEMPTS_ENDED: &str = "hatchet_attempts_ended_total";
/// The name of the metric for the time that the functions of attempts ran, in seconds.
pub const ATTEMPT_SECONDS: &str = "hatchet_attempt_seconds";
/// The name of the metric for the number of log lines and chunks of tasks that were lost, because too many were queued or the
/// engine rejected them.
pub const TASK_MESSAGES_LOST: &str = "hatchet_task_messages_lost_total";
/// The name of the metric for the number of attempts that are running on a worker.
pub const ATTEMPTS_RUNNING: &str = "hatchet_attempts_running";
/// The name of the metric for the number of attempts that are assigned to a worker and wait for a slot, or for space in its outbox.
pub const ATTEMPTS_QUEUED: &str = "hatchet_attempts_queued";
/// The name of the metric for the number of slots of a worker, of all types.
pub const WORKER_SLOTS: &str = "hatchet_worker_slots";
/// The name of the metric for the number of reports of ended attempts that the engine has not accepted yet.
pub const OUTBOX_REPORTS: &str = "hatchet_outbox_reports";
/// The name of the metric for the number of runs that were archived.
pub const ARCHIVED_RUNS: &str = "hatchet_archived_runs_total";
/// The name of the metric for the number of runs that the engine drops within 24 hours, or within 24 hours after the next collection: runs
/// that the last collection archived, and runs that are not old enough to be archived or have not ended.
pub const ARCHIVED_RUNS_AT_RISK: &str = "hatchet_archived_runs_at_risk";

/// The gauges of a worker with their values.
pub(crate) fn worker_gauges(
    slots: usize,
    running: usize,
    queued: usize,
    unreported: usize,
) -> [(&'static str, usize); 4] {
    [(WORKER_SLOTS, slots), (ATTEMPTS_RUNNING, running), (ATTEMPTS_QUEUED, queued), (OUTBOX_REPORTS, unreported)]
}

/// A value that this crate has counted or measured.
///
/// ```
/// use hatchet::telemetry::{Measurement, Recorder};
///
/// struct Slow;
///
/// impl Recorder for Slow {
///     fn record(&self, measurement: &Measurement<'_>) {
///         if let Measurement::Call { call, duration, .. } = measurement
///             && duration.as_secs() >= 1
///         {
///             println!("{call} took {duration:?}");
///         }
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Measurement<'a> {
    /// A call has ended, with all its retries.
    #[non_exhaustive]
    Call {
        /// The name of the gRPC method, or a description of the REST request.
        call: &'a str,
        /// The kind of the error, or `None` if the call has succeeded.
        error: Option<ErrorKind>,
        /// The duration of the call, including its retries.
        duration: Duration,
    },
    /// A call is retried.
    #[non_exhaustive]
    Retry {
        /// The name of the gRPC method, or a description of the REST request.
        call: &'a str,
    },
    /// A stream broke and is being reopened.
    #[non_exhaustive]
    StreamLost {
        /// The name of the stream: `assignments`, `run results` or `run events`.
        stream: &'a str,
    },
    /// A worker has started an attempt.
    #[non_exhaustive]
    AttemptStarted {
        /// The name of the task.
        task_name: &'a str,
    },
    /// The function of an attempt has ended.
    #[non_exhaustive]
    AttemptEnded {
        /// The name of the task.
        task_name: &'a str,
        /// How the function ended.
        result: AttemptResult,
        /// How long the function ran.
        duration: Duration,
    },
    /// A log line or a chunk of a task was lost.
    TaskMessageLost,
    /// The number of attempts or of reports of a worker has changed.
    #[non_exhaustive]
    WorkerLoad {
        /// The name of the worker.
        worker_name: &'a str,
        /// The number of slots, of all types.
        slots: usize,
        /// The number of running attempts.
        running: usize,
        /// The number of attempts that wait for a slot, or for space in the outbox.
        queued: usize,
        /// The number of reports of ended attempts that the engine has not accepted yet.
        unreported: usize,
    },
    /// Runs have been committed to an archive.
    #[non_exhaustive]
    RunsArchived {
        /// The path or the URL of the archive, without credentials.
        archive: &'a str,
        /// The number of runs that were committed.
        archived: u64,
        /// The number of runs that the engine drops within 24 hours, or within 24 hours after the next collection: runs that this
        /// collection has archived so far, and runs that are not old enough to be archived or have not ended.
        at_risk: u64,
    },
}

/// How the function of an attempt ended.
///
/// ```
/// use hatchet::telemetry::AttemptResult;
///
/// assert_eq!(AttemptResult::Completed.as_str(), "completed");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttemptResult {
    /// The function returned an output.
    Completed,
    /// The function returned an error, or panicked.
    Failed,
    /// The engine had already ended the attempt.
    Cancelled,
    /// The worker shut down before the function ended.
    Dropped,
}

impl AttemptResult {
    /// Returns the name: `completed`, `failed`, `cancelled` or `dropped`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Dropped => "dropped",
        }
    }
}

impl fmt::Display for AttemptResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for AttemptResult {
    type Err = Error;

    /// Parses a name such as `completed`.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for any other string.
    fn from_str(name: &str) -> Result<Self> {
        match name {
            "completed" => Ok(Self::Completed),
            "failed" => Ok(Self::Failed),
            "cancelled" => Ok(Self::Cancelled),
            "dropped" => Ok(Self::Dropped),
            _ => {
                let expected = "expected one of completed, failed, cancelled, dropped";
                Err(Error::invalid("attempt result", format_args!("{expected}, got {name:?}")))
            }
        }
    }
}

/// Receives the measurements of this process; see [`set_recorder`].
///
/// A recorder is called often and from many threads: it must be fast, and must not block.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use hatchet::telemetry::{Measurement, Recorder};
///
/// #[derive(Default)]
/// struct Retries(AtomicU64);
///
/// impl Recorder for Retries {
///     fn record(&self, measurement: &Measurement<'_>) {
///         if let Measurement::Retry { .. } = measurement {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
/// ```
pub trait Recorder: Send + Sync + 'static {
    /// Records a measurement.
    fn record(&self, measurement: &Measurement<'_>);
}

/// The value of the label `result` of a call.
fn call_result(error: Option<ErrorKind>) -> &'static str {
    error.map_or("ok", ErrorKind::as_str)
}

static RECORDER: OnceLock<Box<dyn Recorder>> = OnceLock::new();

/// Sets the recorder of this process. A recorder cannot be replaced. Without a recorder, nothing is measured.
///
/// ```
/// use hatchet::telemetry::{PrometheusRecorder, set_recorder};
///
/// let recorder = PrometheusRecorder::new();
/// set_recorder(recorder.clone())?;
/// println!("{}", recorder.render());
/// # Ok::<(), hatchet::Error>(())
/// ```
///
/// # Errors
/// [`AlreadyExists`](ErrorKind::AlreadyExists) if a recorder is already set.
pub fn set_recorder(recorder: impl Recorder) -> Result<()> {
    let text = "a recorder is already set for this process";
    RECORDER.set(Box::new(recorder)).map_err(|_| Error::new(ErrorKind::AlreadyExists, text).without_side_effects())
}

/// Whether measurements are received.
pub(crate) fn is_recorded() -> bool {
    RECORDER.get().is_some()
}

pub(crate) fn record(measurement: &Measurement<'_>) {
    let Some(recorder) = RECORDER.get() else { return };
    // A recorder that panics must not end a worker or a call.
    if catch_unwind(AssertUnwindSafe(|| recorder.record(measurement))).is_err() {
        tracing::error!("metrics recorder panicked");
    }
}
