//! Ends of tasks that have already ended: the real engine adds another final row.

use std::sync::Arc;

use super::{announce, finals, progress};
use crate::embedded::core::store::{Core, End, State, TaskEventKind, TaskKey, Timer, Turn};
use crate::embedded::quirks::Quirk;

/// One in this many tasks that are cancelled while queued gets a scheduling timeout later (measured: 83 of 383).
const TIMED_OUT_ONE_IN: u32 = 5;

/// A worker reports another end of a task: stores and announces it as if it were the first.
pub(crate) fn end_again(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey, end: End, quiet: bool) {
    if !core.has(Quirk::TwoFinalRows) {
        return;
    }
    if let End::Completed(text) | End::Failed(text) = &end
        && !quiet
    {
        announce::task_end(core, turn, key, end.kind(), Arc::clone(text));
    }
    add(core, turn, key, end);
}

/// Adds another final row to a task, and announces the status of its run.
fn add(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey, end: End) {
    let kind = end.kind();
    finals::add(core, turn, key, end);
    match core.runs.get(key.run) {
        Some(run) if run.dag.is_none() => announce::run_end(core, turn, key.run, kind),
        Some(run) if run.is_ended() => {
            let kind = run.end_kind();
            announce::run_end(core, turn, key.run, kind);
        }
        _ => progress::follow(core, turn, key.run),
    }
}

/// Keeps the schedule timeout of some tasks that are cancelled while queued.
pub(crate) fn keep_schedule_timeout(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey) {
    let Some((_, task)) = core.runs.task(key).filter(|_| core.has(Quirk::TimedOutCancels)) else { return };
    let State::Queued { timer: Some((at, _)), .. } = task.state else { return };
    let retry_count = task.retry_count;
    if turn.below(TIMED_OUT_ONE_IN) == 0 {
        core.timers.set(at, Timer::TimedOutCancel(key, retry_count));
    }
}

/// Adds a scheduling timeout to a task that was cancelled while queued, if it is still in the same attempt.
pub(crate) fn schedule_timeout(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey, retry_count: i32) {
    let same_attempt =
        core.runs.task(key).is_some_and(|(_, task)| task.retry_count == retry_count && task.state == State::Ended);
    if same_attempt {
        core.record(key, TaskEventKind::ScheduleTimedOut, turn.now, None, None);
        add(core, turn, key, End::ScheduleTimedOut);
    }
}
