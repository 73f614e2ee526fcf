//! How a run ended. A failed run is data, not an error.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Payload, RunStatus};

/// How a run or a task ended.
///
/// The serialized form has the status as `status`, alongside the fields of the variant.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<String>) -> hatchet::Result<()> {
/// use hatchet::Outcome;
///
/// match run.outcome().await? {
///     Outcome::Completed(completed) => println!("{}", completed.output.parse::<String>()?),
///     Outcome::Failed(failure) => println!("{failure}"),
///     Outcome::Cancelled(cancellation) => println!("{cancellation}"),
///     Outcome::TimedOut(timeout) => println!("{timeout}"),
///     other => println!("{other}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum Outcome {
    /// The run completed with an output.
    Completed(Completed),
    /// The run failed with the error of a task.
    Failed(Failure),
    /// A request or the engine ended the run early, for example because of a concurrency limit.
    Cancelled(Cancellation),
    /// A task exceeded its execution timeout, or waited for a worker for longer than its schedule timeout.
    TimedOut(Timeout),
}

/// The outcome of a run that completed.
///
/// ```
/// fn print(completed: &hatchet::model::Completed) -> hatchet::Result<()> {
///     println!("{}", completed.output.parse::<String>()?);
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Completed {
    /// The output. For a DAG run, it is an object with the outputs of the tasks by task name. For a run that was archived
    /// without payloads, it is `null`.
    pub output: Payload,
}

/// The outcome of a run that failed.
///
/// ```
/// fn print(failure: &hatchet::model::Failure) {
///     println!("{:?} in task {:?}", failure.message, failure.task_name);
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Failure {
    /// The name of the task that failed, if it is known.
    pub task_name: Option<String>,
    /// The error message from the worker, if the engine has one. The engine has none, for example, for a task that failed because it had
    /// been reassigned ten times.
    pub message: Option<String>,
}

/// The outcome of a run that was cancelled.
///
/// ```
/// fn print(cancellation: &hatchet::model::Cancellation) {
///     if let Some(request) = &cancellation.request {
///         println!("{:?}, by {:?}", request.reason, request.by);
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cancellation {
    /// The engine's message, such as `Cancelled due to concurrency strategy`. A cancellation by request has none.
    pub message: Option<String>,
    /// The last cancellation request with a [reason or an author](crate::builder::CancelBuilder::reason). The engine does not record which
    /// request ended the run. Only [`RunHandle::details`](crate::RunHandle::details) sets this field, because the request is in the logs of
    /// the tasks.
    pub request: Option<CancelRequest>,
}

/// The reason and the author of a request to cancel a run.
///
/// They are stored in the logs of the run's tasks, where the dashboard shows them, too.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// if let Some(request) = run.details().await?.cancellation() {
///     println!("{:?}", request.reason);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CancelRequest {
    /// The reason that the caller gave, if any.
    pub reason: Option<String>,
    /// The author of the cancellation, if the caller named one.
    pub by: Option<String>,
    /// The time of the request, by the engine's clock.
    pub requested_at: DateTime<Utc>,
}

/// The outcome of a run that timed out.
///
/// ```
/// use hatchet::model::{Timeout, TimeoutKind};
///
/// fn waited_for_a_worker(timeout: &Timeout) -> bool {
///     timeout.kind == TimeoutKind::Schedule
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Timeout {
    /// Which timeout passed.
    pub kind: TimeoutKind,
    /// The name of the task that timed out, if it is known.
    pub task_name: Option<String>,
    /// The message of the engine, such as `Task exceeded timeout of 2s`, if it has one.
    pub message: Option<String>,
}

/// Which limit a task exceeded; see [`Timeout`].
///
/// ```
/// use hatchet::model::TimeoutKind;
///
/// assert_eq!(TimeoutKind::Schedule.to_string(), "schedule");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TimeoutKind {
    /// The [execution timeout](crate::Task::timeout): the task ran for too long.
    Execution,
    /// The [schedule timeout](crate::Task::schedule_timeout): the task waited for a worker for too long.
    Schedule,
}

impl Outcome {
    /// Returns the final status that corresponds to this outcome.
    pub fn status(&self) -> RunStatus {
        match self {
            Self::Completed(_) => RunStatus::Completed,
            Self::Failed(_) => RunStatus::Failed,
            Self::Cancelled(_) => RunStatus::Cancelled,
            Self::TimedOut(_) => RunStatus::TimedOut,
        }
    }

    /// Returns the output, if the run completed.
    pub fn output(&self) -> Option<&Payload> {
        match self {
            Self::Completed(completed) => Some(&completed.output),
            _ => None,
        }
    }
}

/// What happened, with the message if there is one: `failed: out of paper`.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed(_) => f.write_str("completed"),
            Self::Failed(failure) => failure.fmt(f),
            Self::Cancelled(cancellation) => cancellation.fmt(f),
            Self::TimedOut(timeout) => timeout.fmt(f),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with("failed", self.message.as_deref(), f)
    }
}

impl fmt::Display for Cancellation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with("was cancelled", self.message.as_deref(), f)
    }
}

/// The reason and the author: `bad deploy (by ada)`.
impl fmt::Display for CancelRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.reason, &self.by) {
            (Some(reason), Some(by)) => write!(f, "{reason} (by {by})"),
            (Some(reason), None) => f.write_str(reason),
            (None, Some(by)) => write!(f, "by {by}"),
            (None, None) => f.write_str("without a reason"),
        }
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            TimeoutKind::Execution => "timed out",
            TimeoutKind::Schedule => "timed out while it waited for a worker",
        };
        write_with(what, self.message.as_deref(), f)
    }
}

fn write_with(what: &str, message: Option<&str>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(what)?;
    message.map_or(Ok(()), |message| write!(f, ": {message}"))
}

impl fmt::Display for TimeoutKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Execution => "execution",
            Self::Schedule => "schedule",
        })
    }
}
