//! Sending assigned tasks to workers.

use std::time::Duration;

use uuid::Uuid;

use super::{attempts, payload, queue};
use crate::embedded::core::store::{Core, Effect, Message, State, TaskEvent, TaskEventKind, TaskKey, Timer, Turn};
use crate::embedded::quirks::Quirk;

/// How often the engine tries to send a task to a worker, after the first try.
const MAX_RESENDS: u8 = 10;
/// The pauses before those tries, in milliseconds.
const RESEND_PAUSES_MS: [u64; 10] = [100, 150, 250, 600, 900, 1500, 3000, 3000, 4000, 4000];
/// The error of a task that could not be sent.
pub(crate) const SEND_FAILED: &str =
    "Could not send task to worker. This likely means that too many slots have been configured on the worker";

/// The result of sending a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Sent,
    /// The worker's stream is gone. The task is sent again later.
    Delayed,
    /// The same happened too often: the task must fail.
    GivenUp,
}

/// Starts an attempt on a worker that has reserved a slot for it.
pub(crate) fn start(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey, worker: Uuid) -> Delivery {
    let at = queue::timeout_noticed(core, turn, queue::execution_timeout(core, key));
    let timer = core.timers.set(at, Timer::Execution(key));
    if let Some(task) = core.runs.task_mut(key) {
        if let State::Queued { timer: Some(timer), .. } = task.state {
            core.timers.clear(timer);
        }
        task.state = State::Running { worker, timer };
    }
    core.record(key, TaskEventKind::Assigned, turn.now, Some(worker), None);
    delay_queued_timestamp(core, turn, key);
    let Some(holder) = core.workers.get(&worker) else { return Delivery::Sent };
    let Some(stream) = holder.streams().first().copied() else { return lose(core, turn, key) };
    core.record(key, TaskEventKind::Sent, turn.now, Some(worker), Some("Sent task run to the assigned worker"));
    if let Some(action) = payload::action(core, key, false) {
        core.effects.push(Effect::Send(stream, Message::Action(Box::new(action))));
    }
    Delivery::Sent
}

/// Asks the worker of a running task to cancel it.
pub(crate) fn send_cancel(core: &mut Core, key: TaskKey) {
    let Some((_, task)) = core.runs.task(key) else { return };
    let State::Running { worker, .. } = task.state else { return };
    let Some(holder) = core.workers.get(&worker).filter(|holder| !holder.has_released(key)) else { return };
    for stream in holder.streams().to_vec() {
        if let Some(action) = payload::action(core, key, true) {
            core.effects.push(Effect::Send(stream, Message::Action(Box::new(action))));
        }
    }
}

/// A task was assigned to a worker whose stream has ended unnoticed.
fn lose(core: &mut Core, turn: &Turn<'_>, key: TaskKey) -> Delivery {
    core.record(key, TaskEventKind::Failed, turn.now, None, Some(SEND_FAILED));
    // The worker cannot be sent any other task either.
    queue::take_back(core, key);
    let Some(task) = core.runs.task_mut(key) else { return Delivery::Delayed };
    let tries = task.lost_sends;
    task.lost_sends += 1;
    if tries >= MAX_RESENDS {
        return Delivery::GivenUp;
    }
    attempts::next(core, key);
    let pause = RESEND_PAUSES_MS.get(usize::from(tries)).copied().unwrap_or(4000);
    queue::wait(core, turn, key, Duration::from_millis(pause));
    Delivery::Delayed
}

/// If a task is assigned as soon as it is queued, its queueing may get a later timestamp than its assignment.
fn delay_queued_timestamp(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey) {
    if !core.has(Quirk::LateTimestamps) {
        return;
    }
    let Some(task) = core.runs.task_mut(key) else { return };
    let retry_count = task.retry_count;
    let is_queued_now = |event: &&mut TaskEvent| {
        event.kind == TaskEventKind::Queued && event.retry_count == retry_count && event.at == turn.now
    };
    if let Some(queued) = task.events.iter_mut().find(is_queued_now)
        && turn.coin()
    {
        queued.at += Duration::from_millis(3);
    }
}
