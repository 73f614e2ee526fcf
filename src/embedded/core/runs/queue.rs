//! How tasks enter and leave their queues, and the timeouts of queued and running tasks.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{batches, concurrency, rates};
use crate::embedded::core::format::duration;
use crate::embedded::core::store::{At, Core, SlotOwner, State, TaskKey, Timer, Turn};
use crate::embedded::quirks::Quirk;

/// The timeouts of a definition that has none.
pub(crate) const DEFAULT_TIMEOUT: &str = "5m";
const DEFAULT_SCHEDULE_TIMEOUT: &str = "5m";
/// The interval at which the engine checks timeouts.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Puts a task into its queue, with the given urgency or with that of its run, as soon as its concurrency limits allow it. Starts its
/// schedule timeout. An error is that of an expression.
pub(crate) fn enqueue(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey, urgency: Option<u8>) -> Result<(), String> {
    let Some(urgency) = core.runs.get(key.run).map(|run| urgency.unwrap_or(run.priority)) else { return Ok(()) };
    if let Some(timer) = core.kept_timeouts.remove(&key) {
        core.timers.clear(timer);
    }
    enter(core, turn, key, 0, urgency)
}

/// Makes a task wait under the first of its concurrency limits, from a position on, under which it has no slot. A task that has slots
/// under all of them enters its queue. Its schedule timeout starts again at each limit and in the queue. An error is that of an expression.
pub(crate) fn enter(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey, from: u16, urgency: u8) -> Result<(), String> {
    let Some(limit) = concurrency::wait(core, key, from, urgency)? else {
        enter_queue(core, turn, key, urgency);
        return Ok(());
    };
    leave(core, key);
    let until = schedule_timeout(core, turn, key);
    let has_timer = !core.has(Quirk::LateLimitTimeouts);
    let timer = has_timer.then(|| core.timers.set(until, Timer::Schedule(key)));
    set_state(core, key, State::Limited { limit, urgency, until, timer });
    Ok(())
}

/// Puts a task that has all of its concurrency slots into its queue. If its workflow is paused, it waits for the end of the pause.
pub(crate) fn enter_queue(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey, urgency: u8) {
    leave(core, key);
    if let Some(until) = paused_until(core, turn, key) {
        core.paused.insert(key);
        let timer = core.timers.set(until, Timer::Expire(key));
        set_state(core, key, State::Paused { urgency, timer });
        return;
    }
    let Some(action) = action_of(core, key) else { return };
    rates::prepare(core, turn, key);
    let until = schedule_timeout(core, turn, key);
    let order = core.queues.push(action, urgency, key);
    let timer = Some(core.timers.set(until, Timer::Schedule(key)));
    set_state(core, key, State::Queued { timer, order });
}

/// Sets another time for the schedule timeout of a queued task.
pub(crate) fn postpone_timeout(core: &mut Core, key: TaskKey, until: At) {
    if let Some(State::Queued { order, .. }) = core.runs.task(key).map(|(_, task)| &task.state) {
        let order = *order;
        let timer = Some(core.timers.set(until, Timer::Schedule(key)));
        set_state(core, key, State::Queued { timer, order });
    }
}

fn set_state(core: &mut Core, key: TaskKey, state: State) {
    if let Some(task) = core.runs.task_mut(key) {
        task.state = state;
    }
}

/// When a task that is queued now times out.
fn schedule_timeout(core: &Core, turn: &mut Turn<'_>, key: TaskKey) -> At {
    let step = core.runs.task(key).and_then(|(run, task)| run.step(task));
    let text = step.and_then(|step| step.definition.schedule_timeout.as_deref()).unwrap_or(DEFAULT_SCHEDULE_TIMEOUT);
    timeout_noticed(core, turn, duration::parse(text).unwrap_or_default())
}

/// Until when a task of a paused workflow may wait for the end of the pause.
fn paused_until(core: &Core, turn: &Turn<'_>, key: TaskKey) -> Option<At> {
    let (run, task) = core.runs.task(key)?;
    let pause = core.workflows.pause_of(&run.version).filter(|pause| pause.from <= turn.now)?;
    Some((run.created(task) + pause.ttl).max(turn.now))
}

/// Removes a task from its queue, or from where it waits for it. Its concurrency slots stay.
fn leave(core: &mut Core, key: TaskKey) {
    let Some((_, task)) = core.runs.task(key) else { return };
    let timer = match task.state {
        State::Queued { timer, order } => {
            if let Some(action) = action_of(core, key) {
                core.queues.remove(&action, order);
            }
            rates::forget(core, key);
            timer
        }
        State::Batched { timer } => {
            batches::leave(core, key);
            timer
        }
        State::Limited { timer, .. } => timer,
        State::Paused { timer, .. } => {
            core.paused.remove(&key);
            Some(timer)
        }
        _ => None,
    };
    if let Some(timer) = timer {
        core.timers.clear(timer);
    }
}

/// Delays the next attempt of a task that is neither queued nor running.
pub(crate) fn wait(core: &mut Core, turn: &Turn<'_>, key: TaskKey, delay: Duration) {
    let timer = core.timers.set(turn.now + delay, Timer::Requeue(key));
    if let Some(task) = core.runs.task_mut(key) {
        task.state = State::Backoff { timer };
    }
}

/// Removes a task from its queue, its worker, its batch or its backoff, with the timers of these and its concurrency slots, and marks it as ended.
/// Returns the worker that has a free slot now.
pub(crate) fn take_back(core: &mut Core, key: TaskKey) -> Option<Uuid> {
    core.slots.remove(SlotOwner::Task(key));
    leave(core, key);
    let task = core.runs.task_mut(key)?;
    match std::mem::replace(&mut task.state, State::Ended) {
        State::Running { worker, timer } => {
            core.timers.clear(timer);
            batches::leave(core, key);
            if let Some(holder) = core.workers.get_mut(&worker) {
                holder.free(key);
            }
            Some(worker)
        }
        State::Backoff { timer } => {
            core.timers.clear(timer);
            None
        }
        _ => None,
    }
}

pub(crate) fn action_of(core: &Core, key: TaskKey) -> Option<Arc<str>> {
    let (run, task) = core.runs.task(key)?;
    Some(Arc::clone(&run.step(task)?.action))
}

/// The execution timeout of a task.
pub(crate) fn execution_timeout(core: &Core, key: TaskKey) -> Duration {
    let text = core.runs.task(key).and_then(|(run, task)| run.step(task)).map(|step| &*step.definition.timeout);
    duration::parse(text.filter(|text| !text.is_empty()).unwrap_or(DEFAULT_TIMEOUT)).unwrap_or_default()
}

/// When the engine notices that a timeout has passed: it checks about once per second. A timeout of zero is noticed at the next
/// check, because a retried task with a zero timeout would otherwise keep the clock at one instant forever.
pub(crate) fn timeout_noticed(core: &Core, turn: &mut Turn<'_>, timeout: Duration) -> At {
    let timeout = if timeout.is_zero() { CHECK_INTERVAL } else { timeout };
    let late = if core.has(Quirk::LateTimeouts) { (turn.random)() % 1000 } else { 0 };
    turn.now + timeout + Duration::from_millis(u64::try_from(late).unwrap_or_default())
}
