//! What follows when a slot becomes free, when a task is queued, and when a task ends.
//!
//! These follow from each other: the end of a task lets others be queued and frees a slot, so tasks are assigned; and an assigned
//! task that cannot be sent may end. Therefore they are in one module.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::delivery::{Delivery, SEND_FAILED};
use super::{announce, dag, delivery, finals, placement, queue};
use crate::embedded::core::store::{Core, End, RunIx, TaskEventKind, TaskKey, Timer, Turn};
use crate::embedded::quirks::Quirk;

/// How long a queued task of a DAG is not assigned after its parents have ended.
const DEPENDENT_DELAY: Duration = Duration::from_millis(20);

/// Assigns queued tasks of an action to workers, as long as there are both.
pub(crate) fn assign(core: &mut Core, turn: &mut Turn<'_>, action: &str) {
    for (key, worker) in placement::pick(core, turn, action) {
        if delivery::start(core, turn, key, worker) == Delivery::GivenUp {
            end(core, turn, key, End::Failed(SEND_FAILED.into()));
        }
    }
    placement::record_unassigned(core, turn, action);
    core.batches.offer(action);
}

/// Assigns tasks from all queues of a worker that has a free slot or is active again.
pub(crate) fn assign_to(core: &mut Core, turn: &mut Turn<'_>, worker: Uuid) {
    let Some(profile) = core.workers.get(&worker).map(|worker| Arc::clone(&worker.profile)) else { return };
    for action in profile.actions.iter().filter(|action| core.has_work(action)).collect::<Vec<_>>() {
        assign(core, turn, action);
    }
}

/// Assigns a queued task to a worker, if there is one.
pub(crate) fn offer(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey) {
    if let Some(action) = queue::action_of(core, key) {
        assign(core, turn, &action);
    }
}

/// Assigns a new task to a worker, if there is one, and announces it.
pub(crate) fn hand_out(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey) {
    offer(core, turn, key);
    announce::if_new(core, key);
}

/// Assigns tasks to the worker that a task was taken from. This comes after the next attempt of the task is in its queue, because
/// retries come before all other tasks.
pub(crate) fn assign_to_freed(core: &mut Core, turn: &mut Turn<'_>, worker: Option<Uuid>) {
    if let Some(worker) = worker {
        assign_to(core, turn, worker);
    }
}

/// Removes a task from its queue or its worker, whose slot gets another task.
pub(crate) fn release(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey) {
    let worker = queue::take_back(core, key);
    assign_to_freed(core, turn, worker);
}

/// Fails a task that is not running: an expression of one of its limits cannot be evaluated any more.
pub(crate) fn fail_queued(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey, problem: &str) {
    core.record(key, TaskEventKind::Failed, turn.now, None, Some(problem));
    queue::take_back(core, key);
    end(core, turn, key, End::Failed(problem.into()));
}

/// Ends a task, and with it perhaps its run.
pub(crate) fn end(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey, end: End) {
    finals::end(core, turn, key, end);
    after_end(core, turn, key.run);
}

/// What follows from the ends of some tasks of a run.
pub(crate) fn after_end(core: &mut Core, turn: &mut Turn<'_>, run: RunIx) {
    follow(core, turn, run);
    announce::if_ended(core, turn, run);
}

/// Creates the tasks of a DAG that follow from the current state of the others, and assigns them to workers.
pub(crate) fn follow(core: &mut Core, turn: &mut Turn<'_>, run: RunIx) {
    for key in dag::unfold(core, turn, run) {
        if core.has(Quirk::LateDependents) {
            core.timers.set(turn.now + DEPENDENT_DELAY, Timer::Offer(key));
        } else {
            offer(core, turn, key);
        }
        announce::if_new(core, key);
    }
}
