//! Who gets the concurrency slots that have become free, and who is cancelled because of a limit.

use super::{cancels, concurrency, lifecycle, progress, queue};
use crate::embedded::core::store::{Core, GroupId, Rank, Run, Scope, SlotOwner, State, TaskKey, Turn};

/// Decides in all groups whose slots have changed. This comes at the end of a turn, so that of those that have arrived together,
/// the most urgent get the slots.
pub(crate) fn update(core: &mut Core, turn: &mut Turn<'_>) {
    loop {
        let changed = core.slots.take_changed();
        if changed.is_empty() {
            return;
        }
        let (mut filled, mut cancelled) = (Vec::new(), Vec::new());
        for id in changed {
            end_late(core, turn, &id);
            let Some(group) = core.slots.group(&id) else { continue };
            let decision = concurrency::decide(group);
            for rank in decision.filled {
                core.slots.fill(&id, rank);
                filled.push((rank, id.scope));
            }
            cancelled.extend(decision.cancelled.iter().map(|rank| rank.owner));
        }
        let freed = cancels::cancel_exceeding(core, turn, &cancelled);
        // All are queued before the first is assigned, so that the urgent ones come first.
        filled.sort_unstable();
        let passed: Vec<_> = filled.into_iter().flat_map(|(rank, scope)| advance(core, turn, rank, scope)).collect();
        for key in passed {
            progress::offer(core, turn, key);
        }
        for worker in freed {
            progress::assign_to(core, turn, worker);
        }
    }
}

/// The tasks that wait for the slot of an owner.
fn waiting(core: &Core, owner: SlotOwner, scope: Scope) -> Vec<(TaskKey, u16, u8)> {
    let keys: Vec<_> = match owner {
        SlotOwner::Task(key) => vec![key],
        SlotOwner::Run(run) => {
            let tasks = core.runs.get(run).into_iter().flat_map(Run::present);
            tasks.map(|task| TaskKey { run, index: task.step }).collect()
        }
    };
    let place = |key: TaskKey| {
        let (run, task) = core.runs.task(key)?;
        let State::Limited { limit, urgency, .. } = task.state else { return None };
        let (waits_in, _) = concurrency::limits(core, run, task).nth(usize::from(limit))?;
        (waits_in == scope).then_some((key, limit, urgency))
    };
    keys.into_iter().filter_map(place).collect()
}

/// Lets the tasks of an owner that has got a slot pass to their next limits. Returns those that are in their queues now.
fn advance(core: &mut Core, turn: &mut Turn<'_>, rank: Rank, scope: Scope) -> Vec<TaskKey> {
    let mut queued = Vec::new();
    for (key, limit, urgency) in waiting(core, rank.owner, scope) {
        if let Err(problem) = queue::enter(core, turn, key, limit.saturating_add(1), urgency) {
            progress::fail_queued(core, turn, key, &problem);
        }
        if core.runs.task(key).is_some_and(|(_, task)| matches!(task.state, State::Queued { .. })) {
            queued.push(key);
        }
    }
    queued
}

/// Ends the tasks of a group whose schedule timeout has passed while they waited, if these have no timers.
fn end_late(core: &mut Core, turn: &mut Turn<'_>, id: &GroupId) {
    let owners: Vec<_> =
        core.slots.group(id).into_iter().flat_map(|group| &group.waiting).map(|rank| rank.owner).collect();
    for (key, ..) in owners.into_iter().flat_map(|owner| waiting(core, owner, id.scope)).collect::<Vec<_>>() {
        let state = core.runs.task(key).map(|(_, task)| &task.state);
        if matches!(state, Some(State::Limited { timer: None, until, .. }) if *until <= turn.now) {
            lifecycle::schedule_timeout(core, turn, key);
        }
    }
}
