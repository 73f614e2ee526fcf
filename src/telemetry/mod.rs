//! What this crate reports about itself: the names of its spans, events and metrics, and the recorder of measurements.
//!
//! # Spans
//!
//! The code of each attempt runs in a span [`ATTEMPT_SPAN`] with the target [`TARGET`] and the level `INFO`. Its fields are `run`,
//! `task`, `task_name`, `workflow`, `attempt` and `worker`.
//!
//! # Events
//!
//! All events have a target that begins with `hatchet`. An event about a run has the field `run`, one about an attempt also `attempt`,
//! and one about a worker `worker`. The start and the end of a worker, the loss of a connection, failed attempts and shutdowns are
//! events with the level `INFO` or above.
//!
//! # Metrics
//!
//! Set a [`Recorder`] with [`set_recorder`] to receive [measurements](Measurement). With the feature `metrics`, a `MetricsRecorder`
//! passes them on to the facade of the crate `metrics`, under these names:
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | [`CALLS`] | counter | `call`, `result`: `ok`, or the kind of the error |
//! | [`CALL_SECONDS`] | histogram | `call` |
//! | [`CALL_RETRIES`] | counter | `call` |
//! | [`STREAMS_LOST`] | counter | `stream` |
//! | [`ATTEMPTS_STARTED`] | counter | `task` |
//! | [`ATTEMPTS_ENDED`] | counter | `task`, `result`: `completed`, `failed`, `cancelled` or `dropped` |
//! | [`ATTEMPT_SECONDS`] | histogram | `task` |
//! | [`SLOTS_USED`] | gauge | `worker`: the name of the worker |
//! | [`OUTBOX_REPORTS`] | gauge | `worker`: the name of the worker |

#[cfg(feature = "metrics")]
mod facade;
mod prometheus;

use std::sync::OnceLock;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

#[cfg(feature = "metrics")]
pub use facade::MetricsRecorder;
pub use prometheus::PrometheusRecorder;

/// The target of the spans.
pub const TARGET: &str = "hatchet";
/// The name of the span in which the code of an attempt runs.
pub const ATTEMPT_SPAN: &str = "hatchet.attempt";

/// The number of calls.
pub const CALLS: &str = "hatchet_calls_total";
/// The duration of calls with their retries, in seconds.
pub const CALL_SECONDS: &str = "hatchet_call_seconds";
/// The number of retries of calls.
pub const CALL_RETRIES: &str = "hatchet_call_retries_total";
/// The number of times that a stream was lost. It is reopened.
pub const STREAMS_LOST: &str = "hatchet_streams_lost_total";
/// The number of attempts that a worker of this process has started.
pub const ATTEMPTS_STARTED: &str = "hatchet_attempts_started_total";
/// The number of attempts of which the code has ended.
pub const ATTEMPTS_ENDED: &str = "hatchet_attempts_ended_total";
/// How long the code of attempts ran, in seconds.
pub const ATTEMPT_SECONDS: &str = "hatchet_attempt_seconds";
/// The number of attempts that run on a worker.
pub const SLOTS_USED: &str = "hatchet_slots_used";
/// The number of ends of attempts that the engine has not accepted yet.
pub const OUTBOX_REPORTS: &str = "hatchet_outbox_reports";

/// Something that this crate has counted or measured.
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
        /// The name of the call.
        call: &'a str,
        /// The kind of its error. `None` if it has succeeded.
        error: Option<ErrorKind>,
        /// How long it took.
        duration: Duration,
    },
    /// A call is made again.
    #[non_exhaustive]
    Retry {
        /// The name of the call.
        call: &'a str,
    },
    /// A stream was lost.
    #[non_exhaustive]
    StreamLost {
        /// The name of the stream.
        stream: &'a str,
    },
    /// A worker has started an attempt.
    #[non_exhaustive]
    AttemptStarted {
        /// The name of the task.
        task: &'a str,
    },
    /// The code of an attempt has ended.
    #[non_exhaustive]
    AttemptEnded {
        /// The name of the task.
        task: &'a str,
        /// How it has ended.
        result: AttemptResult,
        /// How long the code ran.
        duration: Duration,
    },
    /// The number of attempts on a worker has changed.
    #[non_exhaustive]
    Worker {
        /// The name of the worker.
        worker: &'a str,
        /// The number of attempts that run.
        running: usize,
        /// The number of ends of attempts that the engine has not accepted yet.
        unreported: usize,
    },
}

/// How the code of an attempt has ended.
///
/// ```
/// use hatchet::telemetry::AttemptResult;
///
/// assert_eq!(AttemptResult::Completed.name(), "completed");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttemptResult {
    /// With an output.
    Completed,
    /// With an error or a panic.
    Failed,
    /// The engine had ended the attempt before.
    Cancelled,
    /// The worker shut down before its end.
    Dropped,
}

impl AttemptResult {
    /// Returns the name: `completed`, `failed`, `cancelled` or `dropped`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Dropped => "dropped",
        }
    }
}

/// Receives the measurements of this process; see [`set_recorder`]. It is called often and from many threads: it must be fast, and must
/// not block.
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
    /// Takes a measurement.
    fn record(&self, measurement: &Measurement<'_>);
}

static RECORDER: OnceLock<Box<dyn Recorder>> = OnceLock::new();

/// Sets the recorder of this process. Without one, nothing is measured.
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
/// [`AlreadyExists`](ErrorKind::AlreadyExists) if there is one already.
pub fn set_recorder(recorder: impl Recorder) -> Result<()> {
    let text = "a recorder of this process is already set";
    RECORDER.set(Box::new(recorder)).map_err(|_| Error::new(ErrorKind::AlreadyExists, text).without_side_effects())
}

/// Whether measurements are received.
pub(crate) fn is_recorded() -> bool {
    RECORDER.get().is_some()
}

pub(crate) fn record(measurement: &Measurement<'_>) {
    if let Some(recorder) = RECORDER.get() {
        recorder.record(measurement);
    }
}
