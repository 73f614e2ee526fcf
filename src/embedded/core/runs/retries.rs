//! The next attempt of a task, after a failure or the loss of its worker.

use std::time::Duration;

use uuid::Uuid;

use super::{attempts, progress, queue};
use crate::embedded::core::format::duration;
use crate::embedded::core::store::{Core, TaskEventKind, TaskKey, Turn};
use crate::embedded::quirks::Quirk;

/// How long a task stays in a queue that the engine does not check.
const IDLE_QUEUE_DELAY: Duration = Duration::from_secs(5);
/// The maximum backoff of a definition that has none.
const DEFAULT_MAX_BACKOFF_SECONDS: i32 = 86_400;
/// The urgency of retries, which is higher than all priorities of runs.
const RETRY_URGENCY: u8 = 4;

/// Starts the next attempt if the definition allows one more, after this delay or the backoff of the definition.
pub(crate) fn retry(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey, delay: Option<Duration>) -> bool {
    let Some((run, task)) = core.runs.task(key) else { return false };
    let Some(step) = run.step(task) else { return false };
    let number = task.app_retries + 1;
    if number > step.definition.retries {
        return false;
    }
    let backoff = step.definition.backoff_factor.map(|factor| {
        let max = step.definition.backoff_max_seconds.unwrap_or(DEFAULT_MAX_BACKOFF_SECONDS);
        let length = Duration::from_secs_f64(f64::from(factor).powi(number).min(f64::from(max)));
        // The engine truncates it to milliseconds.
        Duration::from_millis(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
    });
    let delay = delay.or(backoff);
    let text = match delay {
        None => format!("This is retry number {number}."),
        Some(delay) => {
            let at = (turn.now + delay).format("%Y-%m-%dT%H:%M:%SZ");
            format!("This is retry number {number}. Retrying in {} ({at}).", duration::text(delay))
        }
    };
    if let Some(task) = core.runs.task_mut(key) {
        task.app_retries = number;
    }
    attempts::next(core, key);
    core.record(key, TaskEventKind::Retrying, turn.now, None, Some(&text));
    match delay {
        None => enqueue_recorded(core, turn, key),
        Some(delay) => queue::wait(core, turn, key, delay),
    }
    true
}

/// Queues a task whose delay before the next attempt is over.
pub(crate) fn requeue(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey) {
    let Some((_, task)) = core.runs.task(key) else { return };
    if core.has(Quirk::SlowBackoffQueue) && task.lost_sends == 0 && task.event(TaskEventKind::Queued).is_none() {
        // It counts as queued from now on, but the engine does not check its queue.
        core.record(key, TaskEventKind::Queued, turn.now, None, None);
        queue::wait(core, turn, key, IDLE_QUEUE_DELAY);
    } else {
        enqueue_recorded(core, turn, key);
    }
}

/// A worker has been silent for too long: starts the next attempt of a task that it has.
pub(crate) fn reassign(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey, worker: Uuid) {
    let text = "Worker did not send a heartbeat for 30 seconds";
    core.record(key, TaskEventKind::Reassigned, turn.now, Some(worker), Some(text));
    let worker = queue::take_back(core, key);
    attempts::next(core, key);
    enqueue(core, turn, key);
    progress::assign_to_freed(core, turn, worker);
}

fn enqueue_recorded(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey) {
    core.record(key, TaskEventKind::Queued, turn.now, None, None);
    enqueue(core, turn, key);
}

fn enqueue(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey) {
    match queue::enqueue(core, turn, key, Some(RETRY_URGENCY)) {
        Ok(()) => progress::offer(core, turn, key),
        Err(problem) => progress::fail_queued(core, turn, key, &problem),
    }
}
