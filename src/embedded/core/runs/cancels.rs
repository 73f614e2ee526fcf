//! Cancels of runs and tasks.

use std::time::Duration;

use uuid::Uuid;

use super::{announce, finals, lifecycle, progress, wakes};
use crate::embedded::core::store::{Core, End, RunIx, State, TaskEventKind, TaskKey, Timer, Turn, Waits};
use crate::embedded::quirks::Quirk;

/// How long each cancel of a large call takes: 2000 take a little more than six seconds.
const CANCEL_DURATION: Duration = Duration::from_millis(3);

/// Cancels runs or tasks. Ignores unknown ids.
pub(crate) fn cancel(core: &mut Core, turn: &mut Turn<'_>, ids: &[Uuid]) {
    let slow = core.has(Quirk::SlowCancels);
    for (id, index) in ids.iter().zip(0..) {
        if slow && index > 0 {
            core.timers.set(turn.now + CANCEL_DURATION * index, Timer::Cancel(*id));
        } else {
            cancel_one(core, turn, *id);
        }
    }
}

pub(crate) fn cancel_one(core: &mut Core, turn: &mut Turn<'_>, id: Uuid) {
    if let Some(key) = core.runs.task_key(id) {
        lifecycle::cancel(core, turn, key);
    } else if let Some(run) = core.runs.index(id) {
        cancel_dag(core, turn, run);
    }
}

/// Cancels the tasks that have been created. What happens to the others follows from that.
fn cancel_dag(core: &mut Core, turn: &mut Turn<'_>, ix: RunIx) {
    let Some(run) = core.runs.get(ix) else { return };
    let was_ended = run.is_ended();
    let (mut ended, mut active) = (Vec::new(), Vec::new());
    for task in run.present() {
        let key = TaskKey { run: ix, index: task.step };
        if task.state == State::Ended { ended.push(key) } else { active.push(key) }
    }
    if core.has(Quirk::TwoFinalRows) {
        for key in ended {
            core.record(key, TaskEventKind::Cancelled, turn.now, None, None);
            finals::end(core, turn, key, End::Cancelled);
            finals::shuffle(core, turn, key);
        }
    }
    for key in active {
        lifecycle::cancel(core, turn, key);
    }
    let waiting = waiting(core, ix);
    let any = wakes::cancel(core, turn, waiting);
    progress::follow(core, turn, ix);
    if any || was_ended && core.has(Quirk::TwoFinalRows) {
        announce::if_ended(core, turn, ix);
    }
}

/// The tasks of a DAG that wait for something.
fn waiting(core: &Core, ix: RunIx) -> Vec<TaskKey> {
    let nodes = core.runs.get(ix).and_then(|run| run.dag.as_ref()).into_iter().flat_map(|dag| &dag.nodes);
    let waiting = (0..).zip(nodes).filter(|(_, node)| node.waits != Waits::Nothing);
    waiting.map(|(index, _)| TaskKey { run: ix, index }).collect()
}
