//! Runs of DAGs: which tasks are created after others have ended.

use std::time::Duration;

use super::conditions::{Decision, decide_by_parents};
use super::{admission, announce, attempts, finals, waits};
use crate::embedded::core::store::{
    Condition, Core, End, Run, RunIx, Step, TaskEventKind, TaskKey, Timer, Turn, Waits, stored,
};
use crate::embedded::quirks::Quirk;

/// How long after its start a DAG is announced as ended.
const EARLY_END_DELAY: Duration = Duration::from_millis(80);

/// The time between the creation and the end of a task that is skipped or cancelled when it is created. It differs by task.
fn end_delay(index: u16) -> Duration {
    Duration::from_millis(20) + Duration::from_micros(70) * u32::from(index)
}

/// What the other tasks of a run decide about a task, or `None` if that depends on tasks that have not ended.
fn decision(run: &Run, index: u16, step: &Step, only_objects: bool) -> Option<Decision> {
    if !step.on_failure {
        return decide_by_parents(run, step, only_objects);
    }
    let others: Vec<_> = run.steps().filter(|(other, _)| *other != index).map(|(other, _)| run.ended(other)).collect();
    if others.iter().flatten().any(|task| task.has_failed()) {
        return Some(Decision::Queue);
    }
    others.iter().all(Option::is_some).then_some(Decision::Skip)
}

/// Creates, skips or cancels all tasks about which their parents have decided, and those for which that decides. Returns the tasks that
/// are in their queues now.
pub(crate) fn unfold(core: &mut Core, turn: &mut Turn<'_>, ix: RunIx) -> Vec<TaskKey> {
    let mut queued = Vec::new();
    let only_objects = core.has(Quirk::StuckDependents);
    loop {
        let Some(run) = core.runs.get(ix) else { return queued };
        let Some(dag) = &run.dag else { return queued };
        let waiting = run.steps().filter(|(index, _)| dag.waits(*index) == Waits::Parents);
        let decisions: Vec<_> = waiting
            .filter_map(|(index, step)| {
                let has_late_conditions = step.definition.conditions.iter().any(Condition::is_late);
                Some((index, decision(run, index, step, only_objects)?, has_late_conditions))
            })
            .collect();
        if decisions.is_empty() {
            return queued;
        }
        for (index, decision, has_late_conditions) in decisions {
            let key = TaskKey { run: ix, index };
            if decision == Decision::Queue && has_late_conditions {
                waits::start(core, turn, key);
                continue;
            }
            if create(core, turn, key, decision) {
                queued.push(key);
            }
        }
    }
}

/// Creates a task that has waited, or restarts it if it is replayed. Returns whether it is in its queue.
pub(crate) fn create(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey, decision: Decision) -> bool {
    let Some(node) = core.runs.node_mut(key) else { return false };
    node.waits = Waits::Nothing;
    let is_new = node.created.is_none();
    node.created.get_or_insert(stored(turn.now));
    if !is_new {
        attempts::restart(core, key);
    }
    let (kind, end) = match decision {
        Decision::Queue => {
            let is_queued = admission::begin(core, turn, key);
            if !is_queued && is_new {
                announce::creation(core, key);
            }
            return is_queued;
        }
        Decision::Skip => (TaskEventKind::Skipped, End::Skipped),
        Decision::Cancel => (TaskEventKind::Cancelled, End::Cancelled),
    };
    let at = if core.has(Quirk::LateCreationTimes) && is_new { turn.now + end_delay(key.index) } else { turn.now };
    core.record(key, kind, at, None, None);
    finals::end(core, turn, key, end);
    if is_new {
        announce::creation(core, key);
    }
    false
}

/// Schedules the early announcement of a DAG's end: the real engine takes the first change of its state for that.
pub(crate) fn expect_early_end(core: &mut Core, turn: &Turn<'_>, ix: RunIx) {
    let is_dag = core.runs.get(ix).is_some_and(|run| run.dag.is_some());
    if is_dag && core.has(Quirk::EarlyDagEnd) {
        core.timers.set(turn.now + EARLY_END_DELAY, Timer::EarlyEnd(ix));
    }
}
