//! Reports that come too late or too early: the real engine adds another final row.

use std::sync::Arc;

use super::{announce, finals, progress};
use crate::embedded::core::store::{Core, End, Final, State, TaskEventKind, TaskKey, Timer, Turn};
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

/// A worker reports the end of an attempt that has not begun: REST shows that the task has ended, and nothing else happens.
pub(crate) fn end_early(core: &mut Core, turn: &Turn<'_>, key: TaskKey, end: End, retry_count: i32) {
    if !core.has(Quirk::EarlyReports) {
        return;
    }
    let Some(task) = core.runs.task_mut(key) else { return };
    if retry_count > task.retry_count && task.state != State::Ended {
        task.finals.retain(|row| row.retry_count <= task.retry_count);
        task.finals.push(Final { retry_count, end, at: turn.now });
    }
}

/// Adds another final row to a task, and announces the status of its run.
fn add(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey, end: End) {
    let kind = end.kind();
    finals::add(core, turn, key, end);
    match core.runs.get(key.run) {
        Some(run) if run.dag.is_none() => announce::run_end(core, turn, key.run, kind),
        Some(run) if run.has_ended() => {
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
    if turn.below(TIMED_OUT_ONE_IN) == 0 {
        let timer = core.timers.set(at, Timer::TimedOutCancel(key));
        core.kept_timeouts.insert(key, timer);
    }
}

/// Adds a scheduling timeout to a task that was cancelled while queued.
pub(crate) fn schedule_timeout(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey) {
    core.kept_timeouts.remove(&key);
    core.record(key, TaskEventKind::ScheduleTimedOut, turn.now, None, None);
    add(core, turn, key, End::ScheduleTimedOut);
}
