//! Status changes of runs and tasks.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{AttemptStatus, Outcome, RunId, RunStatus};

/// A new status of a run or of one of its tasks.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// let mut changes = run.watch();
/// while let Some(change) = changes.next().await.transpose()? {
///     println!("{change} at {:?}", change.changed_at);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Change {
    /// The id of the run.
    pub run_id: RunId,
    /// The name of the task of a DAG run that has the new status. `None` if the run itself has it.
    pub task_name: Option<String>,
    /// The attempt and its status. Retries and replays are attempts of a task and of a single-task run. Only replays are attempts of a
    /// DAG run.
    pub state: AttemptStatus,
    /// The time of the change, if it is known: by the engine's clock for a queued attempt, and by the worker's clock for the others.
    pub changed_at: Option<DateTime<Utc>>,
    /// The error message of a failed attempt.
    pub error: Option<String>,
    /// The outcome of the run, in its last change. An attempt that failed and is retried has none.
    pub outcome: Option<Outcome>,
}

impl Change {
    /// Returns the new status.
    pub fn status(&self) -> &RunStatus {
        &self.state.status
    }

    /// Returns the number of the attempt, starting at 1.
    pub fn attempt(&self) -> u32 {
        self.state.attempt
    }

    /// Returns whether the run has ended with this change.
    pub fn is_final(&self) -> bool {
        self.outcome.is_some()
    }
}

/// `RUNNING (attempt 1)`, with the name of the task in front if it is the change of a task.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(task) = &self.task_name {
            write!(f, "{task}: ")?;
        }
        self.state.fmt(f)
    }
}
