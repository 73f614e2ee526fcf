//! What parents, sleeps and events decide about a task: whether it is queued, skipped or cancelled.
//!
//! Conditions of one action and one group are alternatives; all groups of an action must be satisfied. There are two
//! stages: first the parents, with the conditions on their outputs; then sleeps and events, which start when the parents have ended.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::embedded::core::expression::{Expression, Names};
use crate::embedded::core::store::{ConditionAction, On, Run, Step, Task};

/// What happens to a task that has waited for its parents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Queue,
    Skip,
    Cancel,
}

/// The origin of a group of conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Written(u16),
    OfParent(u16),
    AllParents,
}

/// The groups of each action, and whether they are satisfied.
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

    fn decision(&self) -> Option<Decision> {
        [
            (ConditionAction::Skip, Decision::Skip),
            (ConditionAction::Cancel, Decision::Cancel),
            (ConditionAction::Queue, Decision::Queue),
        ]
        .into_iter()
        .find_map(|(action, decision)| self.is_complete(action).then_some(decision))
    }
}

/// What the parents of a task decide about it, or `None` if that depends on parents that have not ended.
pub(crate) fn decide_by_parents(run: &Run, step: &Step, only_objects: bool) -> Option<Decision> {
    use ConditionAction::{Cancel, Queue, Skip};
    let mut groups = Groups::default();
    let on_parents = |action| {
        step.definition.conditions.iter().filter_map(move |condition| match &condition.on {
            On::Parent(parent, expression) if condition.action == action => Some((condition, parent, expression)),
            _ => None,
        })
    };
    let any_skips = on_parents(Skip).next().is_some();
    for parent in step.parents.iter().copied() {
        let task = run.ended(parent);
        let name = run.version.steps.get(usize::from(parent)).map(|step| &*step.readable_id).unwrap_or_default();
        let output = task.and_then(Task::output).map(|text| serde_json::from_str(text).unwrap_or_default());
        // An output that is neither an object nor null does not reach the tasks that depend on it.
        let output = output.filter(|output: &Value| !only_objects || output.is_object() || output.is_null());
        let is_true = |expression: &Expression| output.as_ref().is_some_and(|output| is_true(expression, output));
        let failed_or_cancelled = task.is_some_and(|task| task.has_failed() || task.is_cancelled());
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
            groups.add(Cancel, Group::AllParents, failed_or_cancelled);
        }
        for action in [Queue, Skip, Cancel] {
            for (group, expression) in of(action) {
                groups.add(action, group, is_true(expression) || action == Cancel && failed_or_cancelled);
            }
        }
    }
    if step.parents.is_empty() { Some(Decision::Queue) } else { groups.decision() }
}

/// What the sleeps and events of a task decide about it, or `None` if that depends on conditions that are not satisfied.
pub(crate) fn decide_by_waits(step: &Step, met: &[u16]) -> Option<Decision> {
    let mut groups = Groups::default();
    for (index, condition) in (0..).zip(&step.definition.conditions).filter(|(_, condition)| condition.is_late()) {
        groups.add(condition.action, Group::Written(condition.group), met.contains(&index));
    }
    groups.decision()
}

/// Evaluates the expression of a condition on an output or a payload.
pub(crate) fn is_true(expression: &Expression, data: &Value) -> bool {
    expression.is_true(&Names(&[("input", data), ("output", data)]))
}

impl Task {
    /// Whether the tasks that depend on it take it for skipped. Only its output counts, whoever wrote it.
    fn is_skipped(&self) -> bool {
        let output = self.output().and_then(|text| serde_json::from_str::<Value>(text).ok());
        output.is_some_and(|output| output.get("skipped") == Some(&Value::Bool(true)))
    }
}
