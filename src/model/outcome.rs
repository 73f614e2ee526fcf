//! How a run ended. A run that failed is data, not an error.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Payload, RunStatus};

/// How a run ended. Serialized, it has its state as `status`, beside the fields of what is in it.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<String>) -> hatchet::Result<()> {
/// use hatchet::Outcome;
///
/// match run.outcome().await? {
///     Outcome::Completed(done) => println!("{}", done.output.parse::<String>()?),
///     Outcome::Failed(failure) => eprintln!("{}", failure.message),
///     Outcome::Cancelled(_) => eprintln!("cancelled"),
///     Outcome::TimedOut(timeout) => eprintln!("{:?} timeout", timeout.kind),
///     other => eprintln!("{other}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum Outcome {
    /// With an output.
    Completed(Completed),
    /// With an error of one of its tasks.
    Failed(Failure),
    /// By a cancellation.
    Cancelled(Cancellation),
    /// By a timeout.
    TimedOut(Timeout),
}

/// A run that ended well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Completed {
    /// The output. For a DAG run, it is an object with the outputs of the tasks by task name.
    pub output: Payload,
}

/// A run that ended with an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Failure {
    /// The task that failed, by its name in the workflow, if it is known.
    pub task: Option<String>,
    /// The error's text as the worker sent it. Empty when the engine gave no text, for example after it had taken the
    /// task from ten workers in turn.
    pub message: String,
}

/// A run that was cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Cancellation {
    /// What the engine says about it, such as `Cancelled due to concurrency strategy`. Empty for a cancel by request.
    pub message: String,
    /// Why it was cancelled, by whom and when, if that was said with this crate: see
    /// [`CancelBuilder::reason`](crate::CancelBuilder::reason). Only [`RunHandle::details`](crate::RunHandle::details) reads
    /// it, since it is in the tasks' logs; elsewhere it is `None`.
    pub request: Option<CancelRequest>,
}

/// What was said when a run was cancelled. It is kept in the log of the run's tasks, and so seen in the dashboard, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CancelRequest {
    /// Why.
    pub reason: Option<String>,
    /// Who wanted it.
    pub by: Option<String>,
    /// When, by the engine's clock.
    pub at: DateTime<Utc>,
}

/// A run that timed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Timeout {
    /// What passed.
    pub kind: TimeoutKind,
    /// The task it happened to, by its name in the workflow, if it is known.
    pub task: Option<String>,
    /// What the engine says about it, such as `Task exceeded timeout of 2s`. May be empty.
    pub message: String,
}

/// Which limit a run ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TimeoutKind {
    /// The task ran for longer than its timeout.
    Execution,
    /// The task waited for a worker for longer than its schedule timeout.
    Schedule,
}

impl Outcome {
    /// The state that this end is.
    pub fn status(&self) -> RunStatus {
        match self {
            Self::Completed(_) => RunStatus::Completed,
            Self::Failed(_) => RunStatus::Failed,
            Self::Cancelled(_) => RunStatus::Cancelled,
            Self::TimedOut(_) => RunStatus::TimedOut,
        }
    }

    /// The output, if the run completed.
    pub fn output(&self) -> Option<&Payload> {
        match self {
            Self::Completed(completed) => Some(&completed.output),
            _ => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, message) = match self {
            Self::Completed(_) => return f.write_str("completed"),
            Self::Failed(failure) => ("failed", &failure.message),
            Self::Cancelled(cancellation) => ("was cancelled", &cancellation.message),
            Self::TimedOut(Timeout { kind: TimeoutKind::Schedule, message, .. }) => {
                ("timed out while it waited for a worker", message)
            }
            Self::TimedOut(timeout) => ("timed out", &timeout.message),
        };
        if message.is_empty() { f.write_str(what) } else { write!(f, "{what}: {message}") }
    }
}
