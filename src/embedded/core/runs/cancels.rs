//! Cancels of runs and tasks.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use uuid::Uuid;

use super::{announce, finals, lifecycle, progress, wakes};
use crate::embedded::core::store::{
    Core, End, EventKind, Run, RunIx, SlotOwner, State, TaskEventKind, TaskKey, Timer, Turn, Waits,
};
use crate::embedded::quirks::Quirk;

/// How long each cancellation of a large call takes: 2000 take a little more than six seconds.
const CANCEL_DURATION: Duration = Duration::from_millis(3);

/// The message of a cancellation because of a concurrency limit.
const EXCEEDS_LIMIT: &str = "Cancelled due to concurrency strategy";

/// What one id of a call means.
enum Target {
    Stopped(TaskKey),
    /// A task that has ended before, perhaps because it is in the call twice.
    Ended(TaskKey),
    Dag(Dag),
}

/// A DAG and its tasks, before it is cancelled.
struct Dag {
    run: RunIx,
    had_ended: bool,
    ended: Vec<TaskKey>,
    /// Those that are stopped.
    active: Vec<TaskKey>,
}

/// Cancels runs or tasks. Ignores unknown ids.
pub(crate) fn cancel(core: &mut Core, turn: &mut Turn<'_>, ids: &[Uuid]) {
    let together = if core.has(Quirk::SlowCancels) { ids.len().min(1) } else { ids.len() };
    let (now, later) = ids.split_at_checked(together).unwrap_or((ids, &[]));
    cancel_together(core, turn, now);
    for (id, index) in later.iter().zip(1..) {
        core.timers.set(turn.now + CANCEL_DURATION * index, Timer::Cancel(*id));
    }
}

pub(crate) fn cancel_together(core: &mut Core, turn: &mut Turn<'_>, ids: &[Uuid]) {
    let mut together = Together::default();
    for id in ids {
        if let Some(target) = find(core, *id) {
            together.stop(core, turn, target, None);
        }
    }
    for worker in together.end(core, turn) {
        progress::assign_to(core, turn, worker);
    }
}

/// Cancels those that exceed a concurrency limit. Returns the workers that have free slots now.
pub(crate) fn cancel_exceeding(core: &mut Core, turn: &mut Turn<'_>, owners: &[SlotOwner]) -> BTreeSet<Uuid> {
    let mut together = Together::default();
    for owner in owners {
        core.slots.remove(*owner);
        let target = match owner {
            SlotOwner::Task(key) if is_active(core, *key) => Target::Stopped(*key),
            SlotOwner::Task(_) => continue,
            SlotOwner::Run(ix) => {
                let tasks = core.runs.get(*ix).into_iter().flat_map(Run::present);
                let keys = tasks.map(|task| TaskKey { run: *ix, index: task.step });
                let active = keys.filter(|key| is_active(core, *key)).collect();
                Target::Dag(Dag { run: *ix, had_ended: false, ended: Vec::new(), active })
            }
        };
        together.stop(core, turn, target, Some(EXCEEDS_LIMIT));
    }
    for key in &together.stopped {
        announce::task_end(core, turn, *key, EventKind::Cancelled, "".into());
    }
    together.end(core, turn)
}

/// What is cancelled together. Everything is stopped before anything ends and other tasks are assigned: otherwise a slot that becomes free
/// would get a task that is cancelled next.
#[derive(Default)]
struct Together {
    freed: BTreeSet<Uuid>,
    stopped: Vec<TaskKey>,
    targets: Vec<Target>,
}

impl Together {
    fn stop(&mut self, core: &mut Core, turn: &mut Turn<'_>, target: Target, message: Option<&str>) {
        let active = match &target {
            Target::Stopped(key) => std::slice::from_ref(key),
            Target::Ended(_) => &[],
            Target::Dag(dag) => &*dag.active,
        };
        for key in active {
            self.freed.extend(lifecycle::stop(core, turn, *key, message));
            self.stopped.push(*key);
        }
        self.targets.push(target);
    }

    /// Ends what has been stopped, and what follows from that. Returns the workers that have free slots now.
    fn end(self, core: &mut Core, turn: &mut Turn<'_>) -> BTreeSet<Uuid> {
        for key in self.stopped {
            finals::end(core, turn, key, End::Cancelled);
        }
        let mut followed = HashSet::new();
        for target in self.targets {
            match target {
                Target::Stopped(key) if followed.insert(key.run) => progress::after_end(core, turn, key.run),
                Target::Stopped(_) => {}
                Target::Ended(key) => lifecycle::cancel(core, turn, key),
                Target::Dag(dag) => end_dag(core, turn, dag),
            }
        }
        self.freed
    }
}

fn is_active(core: &Core, key: TaskKey) -> bool {
    core.runs.task(key).is_some_and(|(_, task)| task.state != State::Ended)
}

fn find(core: &Core, id: Uuid) -> Option<Target> {
    if let Some(key) = core.runs.task_key(id) {
        return Some(if is_active(core, key) { Target::Stopped(key) } else { Target::Ended(key) });
    }
    let ix = core.runs.index(id)?;
    let run = core.runs.get(ix)?;
    let keys = run.present().map(|task| TaskKey { run: ix, index: task.step });
    let (active, ended) = keys.partition(|key| is_active(core, *key));
    Some(Target::Dag(Dag { run: ix, had_ended: run.has_ended(), ended, active }))
}

/// Ends the tasks of a DAG that have been stopped. What happens to the others follows from that.
fn end_dag(core: &mut Core, turn: &mut Turn<'_>, dag: Dag) {
    let Dag { run, had_ended, ended, active } = dag;
    if core.has(Quirk::TwoFinalRows) {
        for key in ended {
            core.record(key, TaskEventKind::Cancelled, turn.now, None, None);
            finals::end(core, turn, key, End::Cancelled);
            finals::shuffle(core, turn, key);
        }
    }
    if !active.is_empty() {
        progress::after_end(core, turn, run);
    }
    let waiting = waiting(core, run);
    let any = wakes::cancel(core, turn, waiting);
    progress::follow(core, turn, run);
    if any || had_ended && core.has(Quirk::TwoFinalRows) {
        announce::if_ended(core, turn, run);
    }
}

/// The tasks of a DAG that wait for something.
fn waiting(core: &Core, ix: RunIx) -> Vec<TaskKey> {
    let nodes = core.runs.get(ix).and_then(|run| run.dag.as_ref()).into_iter().flat_map(|dag| &dag.nodes);
    let waiting = (0..).zip(nodes).filter(|(_, node)| node.waits != Waits::Nothing);
    waiting.map(|(index, _)| TaskKey { run: ix, index }).collect()
}
