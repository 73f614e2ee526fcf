//! How an attempt ends: it completes, fails, times out or is cancelled.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::queue::DEFAULT_TIMEOUT;
use super::{announce, delivery, finals, late, progress, queue, rates, retries};
use crate::embedded::core::store::{At, Core, End, EventKind, State, TaskEventKind, TaskKey, Turn};
use crate::embedded::quirks::Quirk;

/// The end of an attempt, as its worker reported it.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) at: At,
    pub(crate) worker: Option<Uuid>,
    pub(crate) output: Arc<str>,
    /// Not announced to event streams.
    pub(crate) quiet: bool,
}

#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Arc<str>,
    pub(crate) retry: Retry,
    /// Not announced to event streams.
    pub(crate) quiet: bool,
}

/// Whether another attempt may follow a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    Never,
    /// After this delay, or after the backoff of the definition.
    After(Option<Duration>),
}

pub(crate) fn complete(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey, completion: Completion) {
    let Completion { at, worker, output, quiet } = completion;
    core.record(key, TaskEventKind::Finished, at, worker, None);
    progress::release(core, turn, key);
    if !quiet {
        announce::task_end(core, turn, key, EventKind::Completed, Arc::clone(&output));
    }
    progress::end(core, turn, key, End::Completed(output));
}

pub(crate) fn fail(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey, failure: Failure) {
    let Failure { error, retry, quiet } = failure;
    core.record(key, TaskEventKind::Failed, turn.now, None, Some(&error));
    let worker = queue::take_back(core, key);
    if !quiet {
        announce::task_end(core, turn, key, EventKind::Failed, Arc::clone(&error));
    }
    let is_retried = match retry {
        Retry::After(delay) if worker.is_some() => retries::retry(core, turn, key, delay),
        _ => false,
    };
    if is_retried {
        // For a task of a DAG, the engine announces the end of the task's own id, which no stream watches.
        if core.has(Quirk::EarlyEnd) && core.runs.get(key.run).is_some_and(|run| run.dag.is_none()) {
            announce::run_end(core, turn, key.run, EventKind::Failed);
        }
        progress::assign_to_freed(core, turn, worker);
    } else {
        // The tasks that follow get a slot later.
        progress::assign_to_freed(core, turn, worker);
        progress::end(core, turn, key, End::Failed(error));
    }
}

pub(crate) fn execution_timeout(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey) {
    let batch = core.batches.members(key);
    if !batch.is_empty() {
        batch_timeout(core, turn, &batch);
        return;
    }
    let text: Arc<str> = format!("Task exceeded timeout of {}", timeout_text(core, key)).into();
    core.record(key, TaskEventKind::TimedOut, turn.now, None, Some(&text));
    delivery::send_cancel(core, key);
    let worker = queue::take_back(core, key);
    let is_retried = retries::retry(core, turn, key, None);
    progress::assign_to_freed(core, turn, worker);
    if !is_retried {
        progress::end(core, turn, key, End::TimedOut(text));
    }
}

/// The timeout of a task, as it was defined.
fn timeout_text(core: &Core, key: TaskKey) -> &str {
    let step = core.runs.task(key).and_then(|(run, task)| run.step(task));
    step.map(|step| &*step.definition.timeout).filter(|text| !text.is_empty()).unwrap_or(DEFAULT_TIMEOUT)
}

/// The timeout of one task of a batch has passed: all that have not ended fail.
fn batch_timeout(core: &mut Core, turn: &mut Turn<'_>, batch: &[TaskKey]) {
    let mut freed = None;
    let mut texts = Vec::with_capacity(batch.len());
    for key in batch {
        let State::Running { worker, .. } = core.runs.task(*key).map_or(State::Ended, |(_, task)| task.state.clone())
        else {
            continue;
        };
        let timeout = core.workers.get(&worker).and_then(|holder| holder.timeout(*key));
        let text: Arc<str> = if timeout.is_none_or(|timeout| timeout <= turn.now) {
            format!("Task failed due to batch timeout, exceeded timeout of {}", timeout_text(core, *key)).into()
        } else {
            // The engine has this text instead of the timeout of those that have extended theirs.
            "Task exceeded timeout of batch timeout".into()
        };
        core.record(*key, TaskEventKind::TimedOut, turn.now, None, Some(&text));
        delivery::send_cancel(core, *key);
        freed = queue::take_back(core, *key).or(freed);
        texts.push((*key, text));
    }
    let ended: Vec<_> = texts.into_iter().filter(|(key, _)| !retries::retry(core, turn, *key, None)).collect();
    progress::assign_to_freed(core, turn, freed);
    for (key, text) in ended {
        progress::end(core, turn, key, End::TimedOut(text));
    }
}

pub(crate) fn schedule_timeout(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey) {
    if let Some(until) = rates::postpone_timeout(core, turn, key) {
        return queue::postpone_timeout(core, key, until);
    }
    core.record(key, TaskEventKind::ScheduleTimedOut, turn.now, None, None);
    queue::take_back(core, key);
    announce::task_end(core, turn, key, EventKind::Cancelled, "".into());
    progress::end(core, turn, key, End::ScheduleTimedOut);
}

/// Cancels one task. [`cancels`](super::cancels) cancels several together.
pub(crate) fn cancel(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey) {
    let ended = core.runs.task(key).is_none_or(|(_, task)| task.state == State::Ended);
    if ended && !core.has(Quirk::TwoFinalRows) {
        return;
    }
    if ended {
        core.record(key, TaskEventKind::Cancelled, turn.now, None, None);
        late::end_again(core, turn, key, End::Cancelled, false);
        finals::shuffle(core, turn, key);
        return;
    }
    let worker = stop(core, turn, key, None);
    progress::end(core, turn, key, End::Cancelled);
    progress::assign_to_freed(core, turn, worker);
}

/// The first part of a cancel: notifies the worker, and takes the task from it or from its queue. The task has not ended before it has a
/// final row. Returns the worker that has a free slot now.
pub(crate) fn stop(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey, message: Option<&str>) -> Option<Uuid> {
    core.record(key, TaskEventKind::Cancelled, turn.now, None, message);
    delivery::send_cancel(core, key);
    late::keep_schedule_timeout(core, turn, key);
    queue::take_back(core, key)
}
