//! The final rows of tasks: how they have ended.

use super::idempotency;
use crate::embedded::core::store::{Core, End, Final, Run, RunIx, SlotOwner, State, Task, TaskKey, Turn};

/// Ends a task.
pub(crate) fn end(core: &mut Core, turn: &Turn<'_>, key: TaskKey, end: End) {
    if let Some(task) = core.runs.task_mut(key) {
        task.state = State::Ended;
    }
    add(core, turn, key, end);
    idempotency::free(core, key.run);
    release_run(core, key.run);
}

/// Frees the concurrency slots of a DAG that has ended.
fn release_run(core: &mut Core, ix: RunIx) {
    let is_limited = |run: &&Run| run.dag.is_some() && !run.version.options.concurrency.is_empty();
    if core.runs.get(ix).filter(is_limited).is_some_and(Run::has_ended) {
        core.slots.remove(SlotOwner::Run(ix));
    }
}

pub(crate) fn add(core: &mut Core, turn: &Turn<'_>, key: TaskKey, end: End) {
    let restarted = core.runs.get(key.run).is_some_and(Run::is_restarted);
    let Some(task) = core.runs.task_mut(key) else { return };
    let retry_count = task.retry_count;
    // A second output replaces the first, unless the whole run was started a second time.
    task.finals.retain(|row| {
        restarted
            || row.retry_count == retry_count
                && !(matches!(row.end, End::Completed(_)) && matches!(end, End::Completed(_)))
    });
    task.finals.push(Final { retry_count, end, at: turn.now });
    task.finals.shrink_to_fit();
    task.events.shrink_to_fit();
}

/// Shuffles the final rows of a task that completed and was then cancelled: in the real engine, their order is random.
pub(crate) fn shuffle(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey) {
    let Some(task) = core.runs.task_mut(key) else { return };
    let is_later = task.finals.iter().rev().skip(1).all(|row| row.at < turn.now);
    let was_completed = task.finals.first().is_some_and(|row| matches!(row.end, End::Completed(_)));
    if is_later && was_completed && turn.coin() {
        task.finals.rotate_right(1);
    }
}

impl Task {
    /// The final row by which its run has ended, and which REST shows. A completed one has precedence, whatever came before or after it.
    pub(crate) fn best_final(&self) -> Option<&Final> {
        // Of several completed ones, the first counts.
        self.current_finals().rev().max_by_key(|row| match row.end {
            End::Completed(_) | End::Skipped => 2,
            End::Failed(_) | End::TimedOut(_) | End::ScheduleTimedOut => 1,
            End::Cancelled => 0,
        })
    }
}
