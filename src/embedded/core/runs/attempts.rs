//! The count of attempts.

use super::queue;
use crate::embedded::core::store::{Core, TaskKey};

/// Counts the next attempt. It replaces what was reported about attempts that had not begun.
pub(crate) fn next(core: &mut Core, key: TaskKey) {
    if let Some(task) = core.runs.task_mut(key) {
        let current = task.retry_count;
        task.finals.retain(|row| row.retry_count <= current);
        task.retry_count += 1;
    }
}

/// Starts the next attempt of a task that is replayed, which has all of its retries again. It must not be running.
pub(crate) fn restart(core: &mut Core, key: TaskKey) {
    let worker = queue::take_back(core, key);
    debug_assert!(worker.is_none(), "a running task was restarted");
    next(core, key);
    if let Some(task) = core.runs.task_mut(key) {
        (task.app_retries, task.lost_sends) = (0, 0);
    }
}
