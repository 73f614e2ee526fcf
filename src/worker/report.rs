//! What a worker has done, when it is over.

use std::fmt;

use crate::model::{RunId, TaskId};

/// What became of the attempts that a worker was given. Every one is in exactly one of the numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WorkerReport {
    /// Ended with an output, which the engine has.
    pub completed: u64,
    /// Ended with an error, which the engine has.
    pub failed: u64,
    /// Were cancelled or timed out while they ran here. The engine had ended them before it told the worker.
    pub cancelled: u64,
    /// Did not end within the grace, or ended and could not be reported. The engine gives them to another worker half a
    /// minute after this one's last beat.
    pub left: Vec<LeftTask>,
}

/// An attempt whose end the engine has not heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftTask {
    /// Its run.
    pub run: RunId,
    /// The task.
    pub task: TaskId,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Whether its work was done, and only the report was lost.
    pub finished: bool,
}

impl WorkerReport {
    /// The number of attempts that the worker was given.
    pub fn total(&self) -> u64 {
        self.completed + self.failed + self.cancelled + self.left.len() as u64
    }
}

impl fmt::Display for WorkerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { completed, failed, cancelled, left } = self;
        write!(f, "{completed} completed, {failed} failed, {cancelled} cancelled, {} left", left.len())
    }
}
