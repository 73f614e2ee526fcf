//! Schedules.

use std::sync::Arc;

use chrono::SubsecRound as _;
use uuid::Uuid;

use super::stored::{NEXT_CHECK, object, start_stored};
use crate::embedded::core::store::{
    At, Core, PausedRuns, Schedule, ScheduledRun, StatusError, Timer, TimerKey, Turn, stored,
};
use crate::embedded::quirks::Quirk;

/// Creates a schedule for each time, in order.
pub(crate) fn create(
    core: &mut Core,
    turn: &mut Turn<'_>,
    run: &ScheduledRun,
    times: &[At],
) -> Result<Vec<(Uuid, At)>, StatusError> {
    if core.workflows.find(&run.workflow).is_none() {
        return Err(StatusError::not_found("workflow not found"));
    }
    let mut created = Vec::with_capacity(times.len());
    for at in times {
        let (id, at) = (turn.uuid(), at.round_subsecs(3));
        let start = set_timer(core, turn, id, at);
        core.schedules.add(id, stored(turn.now), at, run.clone(), start);
        created.push((id, at));
    }
    Ok(created)
}

fn set_timer(core: &mut Core, turn: &Turn<'_>, id: Uuid, at: At) -> TimerKey {
    let late = at <= turn.now && core.has(Quirk::LateSchedules);
    let at = if late { turn.now + NEXT_CHECK } else { at.max(turn.now) };
    core.timers.set(at, Timer::Scheduled(id))
}

/// Moves a schedule to another time.
pub(crate) fn reschedule(core: &mut Core, turn: &Turn<'_>, id: Uuid, at: At) -> bool {
    let Some(old) = core.schedules.find(id).map(|schedule| schedule.timer) else { return false };
    core.timers.clear(old);
    let at = at.round_subsecs(3);
    let timer = set_timer(core, turn, id, at);
    if let Some(schedule) = core.schedules.find_mut(id) {
        (schedule.at, schedule.timer) = (at, timer);
    }
    true
}

pub(crate) fn delete(core: &mut Core, id: Uuid) -> bool {
    let Some(schedule) = core.schedules.remove(id) else { return false };
    core.timers.clear(schedule.timer);
    true
}

/// Deletes the schedules of a deleted workflow.
pub(crate) fn delete_all_of(core: &mut Core, workflow: &str) {
    for id in core.schedules.of(workflow).map(|schedule| schedule.id).collect::<Vec<_>>() {
        delete(core, id);
    }
}

/// A schedule is due. Its workflow may be paused and drop its run: then it waits for the end of the pause.
pub(crate) fn fire_due(core: &mut Core, turn: &mut Turn<'_>, id: Uuid) {
    let workflow = core.schedules.find(id).and_then(|schedule| core.workflows.find(&schedule.run.workflow));
    let pause = workflow.and_then(|workflow| workflow.pause.as_ref());
    if pause.is_none_or(|pause| pause.schedules == PausedRuns::Queue) {
        fire(core, turn, id);
    }
}

/// The pause of a workflow is over: its schedules that were due start their runs.
pub(crate) fn resume(core: &mut Core, turn: &mut Turn<'_>, workflow: &str) {
    let due = core.schedules.of(workflow).filter(|schedule| schedule.at <= turn.now);
    for (id, at) in due.map(|schedule| (schedule.id, schedule.at)).collect::<Vec<_>>() {
        reschedule(core, turn, id, at);
    }
}

/// Starts the run of a schedule and deletes the schedule. The run has no reference to it.
pub(crate) fn fire(core: &mut Core, turn: &mut Turn<'_>, id: Uuid) -> Option<Uuid> {
    let Schedule { timer, run, .. } = Arc::unwrap_or_clone(core.schedules.remove(id)?);
    core.timers.clear(timer);
    start_stored(core, turn, run.workflow, run.input, object(run.metadata), run.priority)
}
