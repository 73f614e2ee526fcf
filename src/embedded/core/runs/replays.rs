//! Replays: another attempt of what has ended.

use std::time::Duration;

use uuid::Uuid;

use super::{admission, announce, attempts, progress};
use crate::embedded::core::store::{Core, Replay, Run, RunIx, State, TaskEventKind, TaskKey, Timer, Turn, Waits};
use crate::embedded::quirks::Quirk;

const REPLAYED: &str = "Task was replayed, resetting task result.";
/// The maximum number of replays of one call that are not lost.
const MAX_REPLAYS: usize = 200;
/// The number of replays of one call that are carried out immediately.
const IMMEDIATE_REPLAYS: usize = 10;
/// How long each of the others takes.
const REPLAY_DURATION: Duration = Duration::from_millis(30);
/// The maximum time in milliseconds between a call's last replay and its end.
const MAX_CALL_TAIL_MS: u32 = 60;

/// The result of a call that replays.
#[derive(Debug)]
pub(crate) struct Replayed {
    /// The tasks that were asked for and exist, even if their replays are lost.
    pub(crate) tasks: Vec<Uuid>,
    /// Whether timers were set, of which the first may be due.
    pub(crate) set_timers: bool,
}

/// Replays runs or tasks. Ignores unknown ids.
pub(crate) fn replay(core: &mut Core, turn: &mut Turn<'_>, ids: &[Uuid]) -> Replayed {
    let known: Vec<_> = ids.iter().filter_map(|id| find(core, *id)).collect();
    let mut tasks = Vec::with_capacity(known.len());
    for replay in &known {
        match replay {
            Replay::Run(ix) => tasks.extend(core.runs.get(*ix).into_iter().flat_map(Run::present).map(|task| task.id)),
            Replay::Step(key) => tasks.extend(core.runs.task(*key).map(|(_, task)| task.id)),
        }
    }
    if core.has(Quirk::LostReplays) {
        return Replayed { tasks, set_timers: set_timers(core, turn, &known) };
    }
    for replay in known {
        replay_now(core, turn, replay);
    }
    Replayed { tasks, set_timers: false }
}

/// What an id means: a run or, for a task of a DAG, a step.
fn find(core: &Core, id: Uuid) -> Option<Replay> {
    match core.runs.task_key(id) {
        Some(key) if core.runs.get(key.run)?.dag.is_some() => Some(Replay::Step(key)),
        Some(key) => Some(Replay::Run(key.run)),
        None => core.runs.index(id).map(Replay::Run),
    }
}

/// Sets timers for the first replays of a call. All are lost if those of an earlier call are not done.
fn set_timers(core: &mut Core, turn: &mut Turn<'_>, replays: &[Replay]) -> bool {
    if replays.is_empty() || core.replays_until.is_some_and(|until| until > turn.now) {
        return false;
    }
    let mut due = turn.now;
    for (replay, index) in replays.iter().take(MAX_REPLAYS).zip(0..) {
        if index >= IMMEDIATE_REPLAYS {
            due += REPLAY_DURATION;
        }
        core.timers.set(due, Timer::Replay(*replay));
    }
    core.replays_until = Some(due + Duration::from_millis(turn.below(MAX_CALL_TAIL_MS).into()));
    true
}

/// Replays what has ended or is queued. A running task, and one between two attempts, stays as it is.
pub(crate) fn replay_now(core: &mut Core, turn: &mut Turn<'_>, replay: Replay) {
    let (Replay::Run(ix) | Replay::Step(TaskKey { run: ix, .. })) = replay;
    let Some(run) = core.runs.get(ix) else { return };
    if run.dag.is_some() {
        replay_dag(core, turn, ix, replay);
        return;
    }
    let key = TaskKey { run: ix, index: 0 };
    if run.tasks.first().is_some_and(|task| {
        matches!(
            task.state,
            State::Ended | State::Queued { .. } | State::Batched { .. } | State::Limited { .. } | State::Paused { .. }
        )
    }) {
        record(core, turn, key);
        attempts::restart(core, key);
        if admission::begin(core, turn, key) {
            progress::offer(core, turn, key);
        } else {
            announce::if_ended(core, turn, ix);
        }
    }
}

/// A DAG is replayed only if all of its tasks have ended.
fn replay_dag(core: &mut Core, turn: &mut Turn<'_>, ix: RunIx, replay: Replay) {
    let Some(run) = core.runs.get(ix).filter(|run| run.has_ended()) else { return };
    let steps: Vec<u16> = match replay {
        Replay::Run(_) => run.tasks.iter().map(|task| task.step).collect(),
        Replay::Step(key) => with_dependents(run, key.index),
    };
    let hides_waits = core.has(Quirk::HiddenReplayWaits);
    if let Some(dag) = core.runs.dag_mut(ix) {
        dag.hides_waits = hides_waits;
    }
    // All are recorded as replayed now, including those that restart only after others.
    for index in steps {
        let key = TaskKey { run: ix, index };
        let Some(node) = core.runs.node_mut(key) else { continue };
        node.waits = Waits::Parents;
        if node.created.is_some() {
            record(core, turn, key);
        }
    }
    progress::follow(core, turn, ix);
    announce::if_ended(core, turn, ix);
}

fn record(core: &mut Core, turn: &Turn<'_>, key: TaskKey) {
    core.record(key, TaskEventKind::Replayed, turn.now, None, Some(REPLAYED));
}

/// A step and all steps that depend on it, directly or indirectly.
fn with_dependents(run: &Run, index: u16) -> Vec<u16> {
    let mut found = vec![index];
    let mut next_index = 0;
    while let Some(parent) = found.get(next_index).copied() {
        let next = run.steps().filter(|(_, step)| step.parents.contains(&parent));
        let next: Vec<u16> = next.map(|(index, _)| index).filter(|index| !found.contains(index)).collect();
        found.extend(next);
        next_index += 1;
    }
    found
}
