//! Tasks of DAGs that wait for sleeps and events after their parents have ended.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::conditions::{Decision, decide_by_waits, is_true};
use crate::embedded::core::format::duration;
use crate::embedded::core::store::{Core, On, TaskKey, Timer, Turn, Wait, Waits};
use crate::embedded::quirks::Quirk;

/// Starts the wait of a task, and its sleeps.
pub(crate) fn start(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey) {
    let Some(step) = core.runs.get(key.run).and_then(|run| run.version.steps.get(usize::from(key.index))) else {
        return;
    };
    let sleeps = (0..).zip(&step.definition.conditions).filter_map(|(index, condition)| match &condition.on {
        On::Sleep(text) => Some((index, duration::parse(text).unwrap_or_default())),
        _ => None,
    });
    let late_timeouts = core.has(Quirk::LateTimeouts);
    let timers = sleeps.map(|(index, length)| {
        // The engine checks sleeps less often than timeouts.
        let late = if late_timeouts { 700 + (turn.random)() % 200 } else { 0 };
        let late = Duration::from_millis(u64::try_from(late).unwrap_or_default());
        core.timers.set(turn.now + length + late, Timer::Wake(key, index))
    });
    let wait = Wait { met: Vec::new(), timers: timers.collect(), data: Map::new() };
    core.waiting.insert(key);
    if let Some(node) = core.runs.node_mut(key) {
        node.waits = Waits::Conditions;
        node.wait = Some(Box::new(wait));
    }
}

/// Ends the wait of a task.
pub(crate) fn end(core: &mut Core, key: TaskKey) {
    core.waiting.remove(&key);
    let Some(wait) = core.runs.node_mut(key).and_then(|node| node.wait.as_deref_mut()) else { return };
    for timer in std::mem::take(&mut wait.timers) {
        core.timers.clear(timer);
    }
}

/// The conditions of waiting tasks that an event satisfies. Empty for the tasks that it does not concern.
pub(crate) fn met_by_event(core: &Core, key: TaskKey, event: &str, payload: &Value) -> Vec<u16> {
    let Some(step) = core.runs.task(key).and_then(|(run, task)| run.step(task)) else { return Vec::new() };
    let fits = |on: &On| matches!(on, On::Event(wanted, expression) if wanted == event && is_true(expression, payload));
    let conditions = (0..).zip(&step.definition.conditions);
    conditions.filter(|(_, condition)| fits(&condition.on)).map(|(index, _)| index).collect()
}

/// Records that some conditions of a waiting task are satisfied, by an event's payload or by a sleep. Returns the decision of the task
/// if that decides it.
pub(crate) fn satisfy(core: &mut Core, key: TaskKey, met: &[u16], payload: Option<&Value>) -> Option<Decision> {
    let version = std::sync::Arc::clone(&core.runs.get(key.run)?.version);
    let step = version.steps.get(usize::from(key.index))?;
    let node = core.runs.node_mut(key).filter(|node| node.waits == Waits::Conditions)?;
    let wait = node.wait.as_deref_mut()?;
    for index in met {
        // Only the first event that satisfies a condition counts.
        if wait.met.contains(index) {
            continue;
        }
        let Some(condition) = step.definition.conditions.get(usize::from(*index)) else { continue };
        let data = match &condition.on {
            On::Sleep(text) => json!({"sleep_duration": text}),
            _ => payload.cloned().unwrap_or_default(),
        };
        wait.met.push(*index);
        // A task without parents does not get the data of its conditions.
        if !step.parents.is_empty() {
            wait.data.insert(condition.data_key.clone(), data);
        }
    }
    decide_by_waits(step, &wait.met)
}
