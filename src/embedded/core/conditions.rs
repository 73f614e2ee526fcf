//! What tasks of a DAG wait for, are skipped by and are cancelled by.
//!
//! Conditions of one action and one group are alternatives; all groups of an action must be satisfied. There are two
//! stages: first the parents, with what a definition says about their outputs; then sleeps and events, which count from
//! the end of the parents.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::dag::Fate;
use super::expression::{Expression, Names, Problem};
use super::store::{Run, State, Step, Task, TaskKey, Wait, Waits};
use super::timers::Timer;
use super::types::{Fault, Turn};
use super::{Core, Quirk, duration};

/// What expressions of conditions may use. Both are the output, or the payload, that is looked at.
const NAMES: [&str; 2] = ["input", "output"];

/// Reads what a condition says. No text is always true, and what is no CEL never is. What may be CEL and cannot be followed
/// here is said to be.
pub(crate) fn expression(text: &str) -> Result<Expression, Fault> {
    if text.is_empty() {
        return Ok(Expression::constant(true));
    }
    match Expression::parse(text, &NAMES) {
        Err(Problem::Broken) => Ok(Expression::constant(false)),
        Err(Problem::Missing) => Err(Fault::unimplemented(&format!("conditions like `{text}`"))),
        Ok(expression) => Ok(expression),
    }
}

fn is_true(expression: &Expression, of: &Value) -> bool {
    expression.is_true(&Names(&NAMES.map(|name| (name, of))))
}

/// One condition of a task.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition {
    pub(crate) action: ConditionAction,
    /// Conditions of one group have one number.
    pub(crate) group: u16,
    /// Under which name the task finds what satisfied it.
    pub(crate) data_key: String,
    pub(crate) on: On,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum On {
    /// A parent's output.
    Parent(String, Expression),
    /// A time, as it was written.
    Sleep(String),
    /// An event's key, exactly, and its payload.
    Event(String, Expression),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ConditionAction {
    Queue,
    Cancel,
    Skip,
}

/// What a group of conditions stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Written(u16),
    OfParent(u16),
    AllParents,
}

/// Which groups there are for each action, and whether they are satisfied.
#[derive(Debug, Default)]
struct Groups(BTreeMap<(ConditionAction, Group), bool>);

impl Groups {
    fn add(&mut self, action: ConditionAction, group: Group, satisfied: bool) {
        *self.0.entry((action, group)).or_default() |= satisfied;
    }

    fn is_complete(&self, action: ConditionAction) -> bool {
        let mut groups = self.0.iter().filter(|((other, _), _)| *other == action).peekable();
        groups.peek().is_some() && groups.all(|(_, satisfied)| *satisfied)
    }

    fn fate(&self) -> Option<Fate> {
        [
            (ConditionAction::Skip, Fate::Skip),
            (ConditionAction::Cancel, Fate::Cancel),
            (ConditionAction::Queue, Fate::Queue),
        ]
        .into_iter()
        .find_map(|(action, fate)| self.is_complete(action).then_some(fate))
    }
}

impl Condition {
    pub(super) fn is_late(&self) -> bool {
        !matches!(self.on, On::Parent(..))
    }
}

impl Step {
    fn conditions(&self) -> &[Condition] {
        &self.definition.conditions
    }

    /// Whether it waits for something else when its parents have ended.
    pub(super) fn has_late_conditions(&self) -> bool {
        self.conditions().iter().any(Condition::is_late)
    }
}

impl Run {
    /// What becomes of a task by its parents.
    pub(super) fn fate_by_parents(&self, step: &Step, only_objects: bool) -> Option<Fate> {
        use ConditionAction::{Cancel, Queue, Skip};
        let mut groups = Groups::default();
        let on_parents = |action| {
            step.conditions().iter().filter_map(move |condition| match &condition.on {
                On::Parent(parent, expression) if condition.action == action => Some((condition, parent, expression)),
                _ => None,
            })
        };
        let any_skips = on_parents(Skip).next().is_some();
        for parent in step.parents.iter().copied() {
            let task = self.ended(parent);
            let name = self.version.steps.get(usize::from(parent)).map(|step| &*step.readable_id).unwrap_or_default();
            let output = task.and_then(Task::output).map(|text| serde_json::from_str(text).unwrap_or_default());
            // Of anything but an object, or nothing, the followers do not hear.
            let output = output.filter(|output: &Value| !only_objects || output.is_object() || output.is_null());
            let is_true = |expression: &Expression| output.as_ref().is_some_and(|output| is_true(expression, output));
            let unhappy = task.is_some_and(|task| task.has_failed() || task.is_cancelled());
            let of = |action| {
                on_parents(action)
                    .filter(move |(_, of, _)| *of == name)
                    .map(|(condition, _, text)| (Group::Written(condition.group), text))
            };

            if of(Queue).next().is_none() {
                groups.add(Queue, Group::OfParent(parent), output.is_some());
            }
            if !any_skips {
                groups.add(Skip, Group::OfParent(parent), task.is_some_and(Task::is_skipped));
            }
            if of(Cancel).next().is_none() {
                groups.add(Cancel, Group::AllParents, unhappy);
            }
            for action in [Queue, Skip, Cancel] {
                for (group, expression) in of(action) {
                    groups.add(action, group, is_true(expression) || action == Cancel && unhappy);
                }
            }
        }
        if step.parents.is_empty() { Some(Fate::Queue) } else { groups.fate() }
    }
}

/// What becomes of a task by its sleeps and events, of which some are satisfied.
fn fate_by_waits(step: &Step, met: &[u16]) -> Option<Fate> {
    let mut groups = Groups::default();
    for (at, condition) in (0..).zip(step.conditions()).filter(|(_, condition)| condition.is_late()) {
        groups.add(condition.action, Group::Written(condition.group), met.contains(&at));
    }
    groups.fate()
}

impl Core {
    /// The parents have ended, and the sleeps begin.
    pub(super) fn begin_wait(&mut self, turn: &mut Turn<'_>, key: TaskKey) {
        let Some(step) = self.runs.get(key.run).and_then(|run| run.version.steps.get(usize::from(key.place))) else {
            return;
        };
        let sleeps = (0..).zip(step.conditions()).filter_map(|(at, condition)| match &condition.on {
            On::Sleep(text) => Some((at, duration::parse(text).unwrap_or_default())),
            _ => None,
        });
        let sleeps: Vec<(u16, Duration)> = sleeps.collect();
        let timers = sleeps.into_iter().map(|(at, length)| {
            // Sleeps are looked at more seldom than timeouts.
            let late = if self.quirks.has(Quirk::LateTimeouts) { 700 + (turn.random)() % 200 } else { 0 };
            let late = Duration::from_millis(u64::try_from(late).unwrap_or_default());
            self.timers.set(turn.now + length + late, Timer::Wake(key, at))
        });
        let wait = Wait { met: Vec::new(), timers: timers.collect(), data: Map::new() };
        self.waiting.insert(key);
        if let Some(place) = self.runs.place_mut(key) {
            place.waits = Waits::Conditions;
            place.wait = Some(Box::new(wait));
        }
    }

    /// Nothing more is waited for.
    pub(super) fn end_wait(&mut self, key: TaskKey) {
        self.waiting.remove(&key);
        let Some(wait) = self.runs.place_mut(key).and_then(|place| place.wait.as_deref_mut()) else { return };
        for timer in std::mem::take(&mut wait.timers) {
            self.timers.clear(timer);
        }
    }

    pub(super) fn wake(&mut self, turn: &mut Turn<'_>, key: TaskKey, at: u16) {
        self.satisfy(turn, key, &[(at, None)]);
    }

    /// An event has come. Tells all tasks that wait for one like it.
    pub(super) fn event_arrives(&mut self, turn: &mut Turn<'_>, event: &str, payload: &Value) {
        let waiting: Vec<_> = self.waiting.iter().copied().collect();
        for key in waiting {
            let Some(step) = self.runs.task(key).and_then(|(run, task)| run.step(task)) else { continue };
            let fits = |condition: &Condition| matches!(&condition.on, On::Event(wanted, expression) if wanted == event && is_true(expression, payload));
            let met: Vec<_> = (0..)
                .zip(step.conditions())
                .filter(|(_, condition)| fits(condition))
                .map(|(at, _)| (at, Some(payload)))
                .collect();
            self.satisfy(turn, key, &met);
        }
    }

    /// Notes that some conditions are satisfied, and does what follows from it.
    fn satisfy(&mut self, turn: &mut Turn<'_>, key: TaskKey, met: &[(u16, Option<&Value>)]) {
        let Some(run) = self.runs.get(key.run) else { return };
        let version = std::sync::Arc::clone(&run.version);
        let Some(step) = version.steps.get(usize::from(key.place)) else { return };
        let Some(place) = self.runs.place_mut(key).filter(|place| place.waits == Waits::Conditions) else { return };
        let Some(wait) = place.wait.as_deref_mut() else { return };
        for (at, payload) in met {
            let Some(condition) = step.conditions().get(usize::from(*at)) else { continue };
            let data = match (&condition.on, payload) {
                (On::Sleep(text), _) => json!({"sleep_duration": text}),
                (_, payload) => payload.cloned().unwrap_or_default(),
            };
            wait.met.push(*at);
            // A task that comes first finds nothing of what it has waited for.
            if !step.parents.is_empty() {
                wait.data.insert(condition.data_key.clone(), data);
            }
        }
        let Some(fate) = fate_by_waits(step, &wait.met) else { return };
        self.end_wait(key);
        self.begin(turn, key, fate);
        if fate == Fate::Queue {
            self.hand_out(turn, key);
        }
        self.follow(turn, key.run);
        self.finish(turn, key.run);
    }

    /// What a cancel does to the tasks of a DAG that are not there yet, beside what follows from its other tasks.
    pub(super) fn cancel_waits(&mut self, turn: &mut Turn<'_>, keys: impl Iterator<Item = TaskKey>) -> bool {
        let mut any = false;
        let deaf = self.has(Quirk::DeafWaits);
        for key in keys {
            let Some(run) = self.runs.get(key.run) else { continue };
            let Some(step) = run.version.steps.get(usize::from(key.place)) else { continue };
            let waits = run.dag.as_ref().map_or(Waits::Nothing, |dag| dag.waits(key.place));
            let stuck = || !step.on_failure && step.parents.iter().all(|parent| run.ended(*parent).is_some());
            let is_new = run.tasks.get(usize::from(key.place)).is_some_and(|task| task.state == State::Absent);
            let cancelled = match waits {
                Waits::Nothing => false,
                Waits::Parents => is_new && stuck(),
                Waits::Conditions => !deaf,
            };
            if cancelled {
                any = true;
                self.end_wait(key);
                self.begin(turn, key, Fate::Cancel);
            }
        }
        any
    }
}
