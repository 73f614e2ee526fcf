//! Conditions of tasks in a workflow.

use std::collections::BTreeSet;
use std::time::Duration;

use super::expression::condition_problem;
use super::task_name::TaskName;
use crate::time::{MAX_DURATION, format_duration};

/// The key of the payload's own data.
const FILTER_PAYLOAD: &str = "filter_payload";

/// A condition of a task in a workflow: a sleep, an event, or an expression over the output of a parent.
///
/// A task [waits for](crate::Task::wait_for) conditions, or is [skipped](crate::Task::skip_if) or [cancelled](crate::Task::cancel_if) if
/// they are satisfied.
///
/// A sleep starts, and events count, only when all parents have completed: an event that was pushed earlier does not satisfy a condition.
/// The engine checks sleeps about once per second.
///
/// ```
/// use std::time::Duration;
/// use hatchet::workflow::Condition;
/// use hatchet::{Context, Task, Workflow};
///
/// let order = Task::new("order", async |(): (), _: Context| Ok(()));
/// // `ship` starts when an event reports the payment, or after a day.
/// let paid = Condition::event("order:paid").matching("input.amount > 5").named("paid");
/// let ship = Task::new("ship", async |(): (), _: Context| Ok(()))
///     .wait_for(paid.or(Condition::sleep(Duration::from_secs(24 * 3600))));
/// let flow = Workflow::<()>::new("flow").task(&order).task_after(&ship, &order);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a condition has no effect before it is added to a task"]
pub struct Condition {
    /// At least one. The engine calls it a group.
    pub(crate) alternatives: Vec<Alternative>,
    problems: Vec<String>,
}

/// One alternative of a condition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Alternative {
    pub(crate) kind: ConditionKind,
    data_key: Option<String>,
}

/// What must happen for a condition to be satisfied.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ConditionKind {
    Sleep(Duration),
    /// The key of an event, and an expression over its payload.
    Event(String, Option<String>),
    /// The name of a parent, and an expression over its output.
    Parent(String, String),
}

impl Alternative {
    /// The name of the data that satisfied the condition.
    pub(crate) fn data_key(&self) -> String {
        self.data_key.clone().unwrap_or_else(|| match &self.kind {
            ConditionKind::Sleep(length) => format!("sleep:{}", format_duration(*length)),
            ConditionKind::Event(key, _) => key.clone(),
            ConditionKind::Parent(task, _) => task.clone(),
        })
    }

    /// Whether the engine evaluates it only after all parents have completed.
    pub(crate) fn waits_after_parents(&self) -> bool {
        !matches!(self.kind, ConditionKind::Parent(..))
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        match &self.kind {
            ConditionKind::Sleep(length) if length.is_zero() || *length > MAX_DURATION => {
                problems.push(format!("sleep: expected more than 0 and at most 10 years, got {length:?}"));
            }
            ConditionKind::Event(key, expression) => {
                if key.is_empty() || key.contains(['\0', '*']) {
                    let expected = "expected a non-empty key without U+0000 or `*` (wildcards are not supported)";
                    problems.push(format!("event: {expected}, got {key:?}"));
                }
                let problem = expression.as_deref().and_then(condition_problem);
                problems.extend(problem.map(|problem| format!("event {key:?}: {problem}")));
            }
            ConditionKind::Parent(task, expression) => {
                problems.extend(condition_problem(expression).map(|problem| format!("parent {task:?}: {problem}")));
            }
            ConditionKind::Sleep(_) => {}
        }
        if let Some(key) = &self.data_key
            && (key.is_empty() || key.contains('\0') || key == FILTER_PAYLOAD)
        {
            problems.push(format!(
                "name: expected a non-empty string without U+0000, and not {FILTER_PAYLOAD:?}, got {key:?}"
            ));
        }
        problems
    }
}

impl Condition {
    fn new(kind: ConditionKind) -> Self {
        Self { alternatives: vec![Alternative { kind, data_key: None }], problems: Vec::new() }
    }

    /// Creates a condition that is satisfied after this time, which must be greater than 0 and at most 10 years.
    ///
    /// The data of the condition is an object with the field `sleep_duration`, and its default name is `sleep:` with the duration, such as
    /// `sleep:90s`.
    pub fn sleep(duration: Duration) -> Self {
        Self::new(ConditionKind::Sleep(duration))
    }

    /// Creates a condition that is satisfied by an event with exactly this key.
    ///
    /// `*` is not a wildcard here. The client's namespace is prepended to the key. The data of the condition is the payload of the event,
    /// and its default name is the key.
    pub fn event(key: impl Into<String>) -> Self {
        Self::new(ConditionKind::Event(key.into(), None))
    }

    /// Creates a condition that is satisfied if an expression over `output`, the output of a parent, is true when the parent completes.
    ///
    /// An output that is not a JSON object is the field `output._value`.
    ///
    /// An expression that cannot be evaluated counts as false, and is not reported as an error.
    pub fn parent(task: impl TaskName, expression: impl Into<String>) -> Self {
        Self::new(ConditionKind::Parent(task.task_name().to_owned(), expression.into()))
    }

    /// Adds the requirement that an expression over `input`, the payload of the event, is true. Call this method before [`or`](Self::or).
    ///
    /// An expression that cannot be evaluated counts as false, and is not reported as an error.
    pub fn matching(mut self, expression: impl Into<String>) -> Self {
        match self.alternatives.as_mut_slice() {
            [Alternative { kind: ConditionKind::Event(_, text), .. }] => *text = Some(expression.into()),
            _ => self.problems.push("matching: expected a condition on one event, got another condition".into()),
        }
        self
    }

    /// Sets the name by which [`Context::condition_data`](crate::Context::condition_data) returns the data of a sleep or an event.
    ///
    /// Call this method before [`or`](Self::or). No two conditions of a task may have this name: the engine would keep the data of only one
    /// of them, as it does for unnamed conditions on the same event.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        match self.alternatives.as_mut_slice() {
            [alternative] if alternative.waits_after_parents() => alternative.data_key = Some(name.into()),
            _ => self
                .problems
                .push("named: expected a condition on one sleep or one event, got another condition".into()),
        }
        self
    }

    /// Returns a condition that is satisfied if this condition or `other` is satisfied.
    pub fn or(mut self, other: Self) -> Self {
        self.alternatives.extend(other.alternatives);
        self.problems.extend(other.problems);
        self
    }

    fn problems(&self) -> Vec<String> {
        self.problems.iter().cloned().chain(self.alternatives.iter().flat_map(Alternative::problems)).collect()
    }
}

/// The conditions of a task. All conditions of one action must be satisfied.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Conditions {
    pub(crate) wait_for: Vec<Condition>,
    pub(crate) skip_if: Vec<Condition>,
    pub(crate) cancel_if: Vec<Condition>,
}

impl Conditions {
    pub(crate) fn is_empty(&self) -> bool {
        self.wait_for.is_empty() && self.skip_if.is_empty() && self.cancel_if.is_empty()
    }

    pub(crate) fn by_action(&self) -> [(&'static str, &[Condition]); 3] {
        [("wait_for", &self.wait_for), ("skip_if", &self.skip_if), ("cancel_if", &self.cancel_if)]
    }

    /// The same conditions with other keys of events.
    pub(crate) fn with_event_keys(mut self, key: impl Fn(&str) -> String) -> Self {
        for condition in self.wait_for.iter_mut().chain(&mut self.skip_if).chain(&mut self.cancel_if) {
            for alternative in &mut condition.alternatives {
                if let ConditionKind::Event(name, _) = &alternative.kind {
                    // The data keeps the name that the user wrote.
                    alternative.data_key = Some(alternative.data_key());
                    let key = key(name);
                    if let ConditionKind::Event(name, _) = &mut alternative.kind {
                        *name = key;
                    }
                }
            }
        }
        self
    }

    /// Names that several conditions have. Without names, conditions on one event may differ in their expressions only.
    fn repeated_names(&self) -> impl Iterator<Item = String> {
        let all = self.by_action().into_iter().flat_map(|(_, conditions)| conditions);
        let all: Vec<_> =
            all.flat_map(|condition| &condition.alternatives).filter(|one| one.waits_after_parents()).collect();
        let is_repeated = |name: &&String| all.iter().filter(|other| other.data_key() == **name).count() > 1;
        let repeated: BTreeSet<_> =
            all.iter().filter_map(|one| one.data_key.clone()).filter(|name| is_repeated(&name)).collect();
        repeated.into_iter().map(|name| {
            format!("name: expected each name once, got {name:?} twice: the engine would keep the data of only one condition")
        })
    }

    /// What the engine would reject or misinterpret, for a task with these parents.
    pub(crate) fn problems(&self, parents: &[String]) -> Vec<String> {
        let mut problems = Vec::new();
        for (action, conditions) in self.by_action() {
            for condition in conditions {
                problems.extend(condition.problems().into_iter().map(|problem| format!("{action}: {problem}")));
                for alternative in &condition.alternatives {
                    if let ConditionKind::Parent(task, _) = &alternative.kind
                        && !parents.contains(task)
                    {
                        problems.push(format!("{action}: expected a parent of the task, got {task:?}"));
                    }
                }
            }
        }
        problems.extend(self.repeated_names());
        let waits_after_parents =
            |condition: &Condition| condition.alternatives.iter().any(Alternative::waits_after_parents);
        for condition in self.wait_for.iter().filter(|condition| waits_after_parents(condition)) {
            // The engine evaluates parents before it starts to wait for sleeps and events, and requires both.
            if !condition.alternatives.iter().all(Alternative::waits_after_parents) {
                let expected = "expected alternatives on parents only, or on sleeps and events only";
                problems.push(format!("wait_for: {expected}, got both: the engine would require both"));
            }
        }
        // The engine starts to wait for sleeps and events only together with those that let the task run.
        if !self.wait_for.iter().any(waits_after_parents) {
            for (action, conditions) in [("skip_if", &self.skip_if), ("cancel_if", &self.cancel_if)] {
                if conditions.iter().any(waits_after_parents) {
                    problems.push(format!(
                        "{action}: expected a sleep or an event in wait_for together with one in {action}, got none: the task would never run"
                    ));
                }
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn waiting(wait_for: Condition) -> Conditions {
        Conditions { wait_for: vec![wait_for], ..Conditions::default() }
    }

    #[test]
    fn conditions_that_the_engine_would_misinterpret_are_rejected() {
        let parents = ["a".to_owned(), "b".to_owned()];
        let fine = Conditions {
            wait_for: vec![
                Condition::event("paid").named("p").or(Condition::sleep(SECOND)),
                Condition::parent("a", "output.x"),
            ],
            skip_if: vec![Condition::parent("a", "output.x > 1").or(Condition::event("skip"))],
            cancel_if: vec![Condition::event("stop").matching("input.x == 1")],
        };
        assert_eq!(fine.problems(&parents), Vec::<String>::new());
        for (condition, problem) in [
            (Condition::sleep(Duration::ZERO), "wait_for: sleep: expected more than 0 and at most 10 years, got 0ns"),
            (
                Condition::event("k:*"),
                "wait_for: event: expected a non-empty key without U+0000 or `*` (wildcards are not supported), got \"k:*\"",
            ),
            (
                Condition::event(""),
                "wait_for: event: expected a non-empty key without U+0000 or `*` (wildcards are not supported), got \"\"",
            ),
            (
                Condition::event("k").matching("("),
                "wait_for: event \"k\": expected a CEL expression, got \"(\": at character 2: expected an operand, got the end",
            ),
            (Condition::parent("a", ""), "wait_for: parent \"a\": expected a CEL expression, got \"\""),
            (Condition::parent("c", "true"), "wait_for: expected a parent of the task, got \"c\""),
            (
                Condition::sleep(SECOND).matching("true"),
                "wait_for: matching: expected a condition on one event, got another condition",
            ),
            (
                Condition::parent("a", "true").named("x"),
                "wait_for: named: expected a condition on one sleep or one event, got another condition",
            ),
            (
                Condition::event("k").named("filter_payload"),
                "wait_for: name: expected a non-empty string without U+0000, and not \"filter_payload\", got \"filter_payload\"",
            ),
            (
                Condition::parent("a", "'true'"),
                "wait_for: parent \"a\": expected a CEL expression that returns a boolean, got \"'true'\"",
            ),
            (
                Condition::event("k").matching("1"),
                "wait_for: event \"k\": expected a CEL expression that returns a boolean, got \"1\"",
            ),
            (
                Condition::parent("a", "true").or(Condition::sleep(SECOND)),
                "wait_for: expected alternatives on parents only, or on sleeps and events only, got both: the engine would require both",
            ),
        ] {
            assert_eq!(waiting(condition).problems(&parents), [problem]);
        }
    }

    #[test]
    fn a_name_is_that_of_one_condition() {
        let two = |first: Condition, second: Condition| {
            let skip_if = vec![second];
            Conditions { skip_if, ..waiting(first) }.problems(&[])
        };
        let problem =
            "name: expected each name once, got \"paid\" twice: the engine would keep the data of only one condition";
        let paid = || Condition::event("paid");
        assert_eq!(two(Condition::sleep(SECOND).named("paid"), paid().named("paid")), [problem]);
        assert_eq!(two(Condition::sleep(SECOND).named("paid"), paid()), [problem], "it has the name by default");
        assert_eq!(two(paid().matching("input.x == 1"), paid()), Vec::<String>::new());
        assert_eq!(two(paid().named("p"), paid()), Vec::<String>::new());
    }

    #[test]
    fn tasks_that_would_never_run_are_rejected() {
        let events = || vec![Condition::event("k")];
        let both =
            Conditions { skip_if: events(), cancel_if: events(), wait_for: vec![Condition::parent("a", "true")] };
        assert_eq!(
            both.problems(&["a".to_owned()]),
            ["skip_if", "cancel_if"].map(|action| format!(
                "{action}: expected a sleep or an event in wait_for together with one in {action}, got none: the task would never run"
            ))
        );
    }

    #[test]
    fn data_has_the_name_that_the_user_wrote() {
        let conditions = waiting(Condition::event("paid").or(Condition::sleep(SECOND * 90)))
            .with_event_keys(|key| format!("ns_{key}"));
        let alternatives = &conditions.wait_for[0].alternatives;
        assert_eq!(alternatives[0].kind, ConditionKind::Event("ns_paid".into(), None));
        let keys: Vec<_> = alternatives.iter().map(Alternative::data_key).collect();
        assert_eq!(keys, ["paid", "sleep:90s"]);
    }
}
