//! What pauses of workflows do to tasks.

use std::time::Duration;

use chrono::TimeDelta;
use uuid::Uuid;

use super::{lifecycle, progress, queue};
use crate::embedded::core::store::{Core, End, Pause, State, TaskKey, Turn};
use crate::embedded::quirks::Quirk;

/// How long after a pause new runs of a workflow still start, if it had other runs in the time before.
const LATE_BY: Duration = Duration::from_millis(3400);
const RECENT_RUN_AGE: TimeDelta = TimeDelta::seconds(5);
const EXPIRED: &str = "paused workflow queue item TTL expired.";

/// Pauses a workflow. Its queued tasks wait for the end of the pause, and those that are queued later do, too.
pub(crate) fn pause(core: &mut Core, turn: &mut Turn<'_>, workflow: Uuid, pause: Pause) {
    let is_late = core.has(Quirk::LatePause) && has_recent_run(core, turn, workflow);
    if !set(core, workflow, Some(Pause { from: turn.now, ..pause })) {
        return;
    }
    let of_workflow = |key: &TaskKey| core.runs.get(key.run).is_some_and(|run| run.version.workflow == workflow);
    let mut queued: Vec<_> = core.queues.entries().filter(|(_, key)| of_workflow(key)).collect();
    queued.sort_unstable_by_key(|(order, _)| order.number);
    for (order, key) in queued {
        queue::enter_queue(core, turn, key, order.urgency.0);
    }
    if is_late {
        set(core, workflow, Some(Pause { from: turn.now + LATE_BY, ..pause }));
    }
}

fn has_recent_run(core: &Core, turn: &Turn<'_>, workflow: Uuid) -> bool {
    let runs = core.runs.newest_first(None);
    let mut recent = runs.take_while(|run| turn.now.signed_duration_since(run.created) < RECENT_RUN_AGE);
    recent.any(|run| run.version.workflow == workflow)
}

/// Ends the pause of a workflow: its tasks are queued again.
pub(crate) fn unpause(core: &mut Core, turn: &mut Turn<'_>, workflow: Uuid) {
    set(core, workflow, None);
    let waiting = core.paused.iter().copied();
    let place = |key: TaskKey| {
        let (run, task) = core.runs.task(key).filter(|(run, _)| run.version.workflow == workflow)?;
        let State::Paused { urgency, .. } = task.state else { return None };
        Some(((run.created(task), key), urgency))
    };
    let mut waiting: Vec<_> = waiting.filter_map(place).collect();
    waiting.sort_unstable();
    for ((_, key), urgency) in &waiting {
        queue::enter_queue(core, turn, *key, *urgency);
    }
    for ((_, key), _) in waiting {
        progress::offer(core, turn, key);
    }
}

fn set(core: &mut Core, workflow: Uuid, pause: Option<Pause>) -> bool {
    let Some(found) = core.workflows.by_id_mut(workflow) else { return false };
    found.pause = pause;
    true
}

/// A task has waited for too long for the end of a pause.
pub(crate) fn expire(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey) {
    let worker = lifecycle::stop(core, turn, key, Some(EXPIRED));
    progress::end(core, turn, key, End::Cancelled);
    progress::assign_to_freed(core, turn, worker);
}
