//! What satisfied conditions and cancels do to tasks of DAGs that wait.

use serde_json::Value;

use super::conditions::Decision;
use super::{announce, dag, progress, waits};
use crate::embedded::core::store::{Core, State, TaskKey, Turn, Waits};
use crate::embedded::quirks::Quirk;

/// A sleep of a task is over.
pub(crate) fn wake(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey, condition: u16) {
    satisfy(core, turn, key, &[condition], None);
}

/// An event has arrived, which may satisfy conditions of waiting tasks.
pub(crate) fn event_arrives(core: &mut Core, turn: &mut Turn<'_>, event: &str, payload: &Value) {
    let waiting: Vec<_> = core.waiting.iter().copied().collect();
    for key in waiting {
        let met = waits::met_by_event(core, key, event, payload);
        satisfy(core, turn, key, &met, Some(payload));
    }
}

fn satisfy(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey, met: &[u16], payload: Option<&Value>) {
    let Some(decision) = waits::satisfy(core, key, met, payload) else { return };
    waits::end(core, key);
    if dag::create(core, turn, key, decision) {
        progress::hand_out(core, turn, key);
    }
    progress::follow(core, turn, key.run);
    announce::if_ended(core, turn, key.run);
}

/// Cancels the tasks of a DAG that have not been created yet, as far as a cancellation affects them. The others follow from the tasks
/// that they depend on. Returns whether any was cancelled.
pub(crate) fn cancel(core: &mut Core, turn: &mut Turn<'_>, keys: impl IntoIterator<Item = TaskKey>) -> bool {
    let mut any = false;
    let ignores_cancels = core.has(Quirk::UncancellableWaits);
    for key in keys {
        let Some(run) = core.runs.get(key.run) else { continue };
        let Some(step) = run.version.steps.get(usize::from(key.index)) else { continue };
        let waits = run.dag.as_ref().map_or(Waits::Nothing, |dag| dag.waits(key.index));
        let stuck = || !step.on_failure && step.parents.iter().all(|parent| run.ended(*parent).is_some());
        let is_new = run.tasks.get(usize::from(key.index)).is_some_and(|task| task.state == State::Absent);
        let cancelled = match waits {
            Waits::Nothing => false,
            Waits::Parents => is_new && stuck(),
            Waits::Conditions => !ignores_cancels,
        };
        if cancelled {
            any = true;
            waits::end(core, key);
            dag::create(core, turn, key, Decision::Cancel);
        }
    }
    any
}
