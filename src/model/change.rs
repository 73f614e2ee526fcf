//! Status changes of runs and tasks.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::name::parse_name;
use super::{AttemptStatus, Outcome, RunId, RunStatus, TaskId};
use crate::error::{Error, Result};

/// An item of a watch: a new status of a run, a new status of a task of a DAG run, or a gap.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// use hatchet::model::Change;
///
/// let mut changes = run.watch();
/// while let Some(change) = changes.next().await.transpose()? {
///     match change {
///         Change::Run(run) => println!("{} at {:?}", run.attempt_status, run.changed_at),
///         Change::Task(task) => println!("{}: {}", task.task_name, task.attempt_status),
///         Change::Gap(gap) => println!("not all status changes are known: {gap}"),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Change {
    /// A new status of the run.
    Run(RunChange),
    /// A new status of a task of a DAG run. The only task of a single-task run has the status of the run.
    Task(TaskChange),
    /// Status changes that the engine did not report.
    Gap(Gap),
}

/// A new status of a run; see [`Change`].
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// use hatchet::model::Change;
///
/// let mut changes = run.watch();
/// while let Some(change) = changes.next().await.transpose()? {
///     if let Change::Run(run) = change && let Some(outcome) = run.outcome {
///         println!("the run {outcome}"); // only in the last change
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunChange {
    /// The run that has changed.
    pub run_id: RunId,
    /// The attempt and its status. Retries and replays are attempts of a single-task run. Only replays are attempts of a DAG run. In JSON,
    /// this field is `state`.
    #[serde(rename = "state")]
    pub attempt_status: AttemptStatus,
    /// The time of the change, if it is known: by the engine's clock for a queued attempt, and by the worker's clock for other statuses.
    pub changed_at: Option<DateTime<Utc>>,
    /// The error message of a failed attempt. In the last change of a failed DAG run, the error message of the task that caused the failure.
    pub error: Option<String>,
    /// The outcome of the run, in its last change. An attempt that failed and is retried has none.
    pub outcome: Option<Outcome>,
}

/// A new status of a task of a DAG run; see [`Change`].
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// use hatchet::model::Change;
///
/// let mut changes = run.watch();
/// while let Some(change) = changes.next().await.transpose()? {
///     if let Change::Task(task) = change {
///         println!("task {} of run {}: {}", task.task_name, task.run_id, task.attempt_status);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskChange {
    /// The run that the task belongs to.
    pub run_id: RunId,
    /// The task that has changed.
    pub task_id: TaskId,
    /// The name of the task in its workflow.
    pub task_name: String,
    /// The attempt and its status. Retries and replays are attempts of a task. In JSON, this field is `state`.
    #[serde(rename = "state")]
    pub attempt_status: AttemptStatus,
    /// The time of the change, if it is known: by the engine's clock for a queued attempt, and by the worker's clock for other statuses.
    pub changed_at: Option<DateTime<Utc>>,
    /// The error message of a failed attempt.
    pub error: Option<String>,
}

/// Status changes of a run or a task that the engine did not report in time; see [`Change`].
///
/// The engine's history receives the attempts of a task in any order, and some of them seconds late. A watch waits for missing attempts. If
/// they do not arrive, the watch yields a gap and continues.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// use hatchet::model::Change;
///
/// let mut changes = run.watch();
/// while let Some(change) = changes.next().await.transpose()? {
///     if let Change::Gap(gap) = change {
///         println!("{gap}"); // status changes of attempts 1 to 2 are missing
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Gap {
    /// The run whose changes may be missing.
    pub run_id: RunId,
    /// The name of the task of a DAG run whose status changes are missing. `None` if status changes of the run itself are missing.
    pub task_name: Option<String>,
    /// The first attempt that lacks status changes.
    pub first_attempt: u32,
    /// The last attempt that lacks status changes.
    pub last_attempt: u32,
}

/// The kinds of changes, for [filters](crate::stream::RunWatch::only).
///
/// ```
/// use hatchet::model::ChangeKind;
///
/// assert_eq!(serde_json::to_string(&ChangeKind::Task)?, "\"task\"");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChangeKind {
    /// A [`Change::Run`]: the status of a run or its attempt.
    Run,
    /// A [`Change::Task`]: the status of one task.
    Task,
    /// A [`Change::Gap`]: changes may be missing.
    Gap,
}

impl ChangeKind {
    const ALL: [Self; 3] = [Self::Run, Self::Task, Self::Gap];
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Run => "run",
            Self::Task => "task",
            Self::Gap => "gap",
        })
    }
}

impl FromStr for ChangeKind {
    type Err = Error;

    /// Parses `run`, `task` or `gap`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for any other string.
    fn from_str(name: &str) -> Result<Self> {
        parse_name("change kind", &Self::ALL, name)
    }
}

impl Change {
    /// Returns whether this is a change of the run or of one of its tasks, or a gap.
    pub fn kind(&self) -> ChangeKind {
        match self {
            Self::Run(_) => ChangeKind::Run,
            Self::Task(_) => ChangeKind::Task,
            Self::Gap(_) => ChangeKind::Gap,
        }
    }

    /// Returns the id of the run that the change belongs to.
    pub fn run_id(&self) -> RunId {
        match self {
            Self::Run(change) => change.run_id,
            Self::Task(change) => change.run_id,
            Self::Gap(gap) => gap.run_id,
        }
    }

    /// Returns the name of the task of a DAG run that the change belongs to, or `None` if it belongs to the run itself.
    pub fn task_name(&self) -> Option<&str> {
        match self {
            Self::Run(_) => None,
            Self::Task(change) => Some(&change.task_name),
            Self::Gap(gap) => gap.task_name.as_deref(),
        }
    }

    /// Returns the attempt and its new status, or `None` for a gap.
    pub fn attempt_status(&self) -> Option<&AttemptStatus> {
        match self {
            Self::Run(change) => Some(&change.attempt_status),
            Self::Task(change) => Some(&change.attempt_status),
            Self::Gap(_) => None,
        }
    }

    /// Returns the new status, or `None` for a gap.
    pub fn status(&self) -> Option<&RunStatus> {
        self.attempt_status().map(|attempt| &attempt.status)
    }

    /// Returns whether the run or the task now has this status. Returns `false` for a gap.
    pub fn has_status(&self, status: &RunStatus) -> bool {
        self.status() == Some(status)
    }

    /// Returns the number of the attempt, starting at 1. For a gap, this is the last attempt that lacks status changes.
    pub fn attempt(&self) -> u32 {
        match self {
            Self::Run(change) => change.attempt_status.attempt,
            Self::Task(change) => change.attempt_status.attempt,
            Self::Gap(gap) => gap.last_attempt,
        }
    }

    /// Returns the time of the change, if it is known.
    pub fn changed_at(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Run(change) => change.changed_at,
            Self::Task(change) => change.changed_at,
            Self::Gap(_) => None,
        }
    }

    /// Returns the error message of a failed attempt.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Run(change) => change.error.as_deref(),
            Self::Task(change) => change.error.as_deref(),
            Self::Gap(_) => None,
        }
    }

    /// Returns the outcome of the run, if the run has ended with this change.
    pub fn outcome(&self) -> Option<&Outcome> {
        match self {
            Self::Run(change) => change.outcome.as_ref(),
            Self::Task(_) | Self::Gap(_) => None,
        }
    }

    /// Returns whether the run has ended with this change.
    pub fn is_final(&self) -> bool {
        self.outcome().is_some()
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(task) = &self.task_name {
            write!(f, "{task}: ")?;
        }
        match (self.first_attempt, self.last_attempt) {
            (first, last) if first == last => write!(f, "status changes of attempt {first} are missing"),
            (first, last) => write!(f, "status changes of attempts {first} to {last} are missing"),
        }
    }
}

/// `RUNNING (attempt 1)`, with the name of the task in front if it is the change of a task.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(change) => change.attempt_status.fmt(f),
            Self::Task(change) => write!(f, "{}: {}", change.task_name, change.attempt_status),
            Self::Gap(gap) => gap.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_shown_on_one_line() {
        let id = uuid::Uuid::from_u128(1);
        let attempt_status = AttemptStatus::new(2, RunStatus::Running);
        let (run_id, task_id) = (RunId::from(id), TaskId::from(id));
        let run =
            RunChange { run_id, attempt_status: attempt_status.clone(), changed_at: None, error: None, outcome: None };
        let task = TaskChange { run_id, task_id, task_name: "a".into(), attempt_status, changed_at: None, error: None };
        let gap = |task_name: Option<&str>, first_attempt, last_attempt| {
            Change::Gap(Gap { run_id, task_name: task_name.map(Into::into), first_attempt, last_attempt })
        };
        for (change, text) in [
            (Change::Run(run), "RUNNING (attempt 2)"),
            (Change::Task(task), "a: RUNNING (attempt 2)"),
            (gap(None, 1, 1), "status changes of attempt 1 are missing"),
            (gap(Some("a"), 1, 3), "a: status changes of attempts 1 to 3 are missing"),
        ] {
            assert_eq!(change.to_string(), text);
            assert_eq!((change.is_final(), change.run_id()), (false, run_id));
        }
    }
}
