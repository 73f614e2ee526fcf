//! Conditions of tasks, as they are sent.

use std::collections::BTreeSet;

use uuid::Builder;

use crate::model::Conditions;
use crate::model::condition::{Alternative, Condition, ConditionKind};
use crate::rpc::pb::v1::{
    Action, BaseMatchCondition, ParentOverrideMatchCondition, SleepMatchCondition, TaskConditions,
    UserEventMatchCondition,
};
use crate::time::format_duration;

/// The conditions of a task with these parents. `None` if there are none.
pub(super) fn conditions(conditions: &Conditions, parents: &[String]) -> Option<TaskConditions> {
    let mut message = TaskConditions::default();
    let kinds = [
        (Action::Queue, &conditions.wait_for),
        (Action::Skip, &conditions.skip_if),
        (Action::Cancel, &conditions.cancel_if),
    ];
    for (action, conditions) in kinds {
        for condition in conditions {
            let group = Group { action, id: new_id() };
            condition.alternatives.iter().for_each(|alternative| group.add(alternative, &mut message));
            if action == Action::Cancel {
                group.add_other_parents(condition, parents, &mut message);
            }
        }
    }
    (!conditions.is_empty()).then_some(message)
}

/// The conditions of one action that are alternatives. Groups have different ids, because the engine would merge them otherwise.
struct Group {
    action: Action,
    id: String,
}

impl Group {
    fn base(&self, data_key: String, expression: &str) -> BaseMatchCondition {
        let (action, or_group_id, expression) = (self.action.into(), self.id.clone(), expression.to_owned());
        BaseMatchCondition { readable_data_key: data_key, action, or_group_id, expression }
    }

    fn add(&self, alternative: &Alternative, message: &mut TaskConditions) {
        match &alternative.kind {
            ConditionKind::Sleep(length) => message.sleep_conditions.push(SleepMatchCondition {
                base: Some(self.base(alternative.data_key(), "")),
                sleep_for: format_duration(*length),
            }),
            ConditionKind::Event(key, expression) => message.user_event_conditions.push(UserEventMatchCondition {
                base: Some(self.base(alternative.data_key(), expression.as_deref().unwrap_or_default())),
                user_event_key: key.clone(),
                ..UserEventMatchCondition::default()
            }),
            ConditionKind::Parent(task, expression) => self.add_parent(task, expression, message),
        }
    }

    fn add_parent(&self, task: &str, expression: &str, message: &mut TaskConditions) {
        message.parent_override_conditions.push(ParentOverrideMatchCondition {
            base: Some(self.base(task.to_owned(), expression)),
            parent_readable_id: task.to_owned(),
        });
    }

    /// Adds a condition that is never true for each parent that a cancellation does not mention.
    ///
    /// The engine adds "the parent has failed or was cancelled" to each condition on a parent, and has a group of its own for the other
    /// parents. It cancels a task only if all groups are satisfied. So a condition on one of two parents would have no effect, and the task
    /// would wait forever after a failure. With all parents in each group, there is no other group.
    fn add_other_parents(&self, condition: &Condition, parents: &[String], message: &mut TaskConditions) {
        let mentioned: BTreeSet<_> = condition
            .alternatives
            .iter()
            .filter_map(|alternative| match &alternative.kind {
                ConditionKind::Parent(task, _) => Some(task),
                _ => None,
            })
            .collect();
        if mentioned.is_empty() {
            return;
        }
        for parent in parents.iter().filter(|parent| !mentioned.contains(parent)) {
            self.add_parent(parent, "false", message);
        }
    }
}

/// A random UUID.
fn new_id() -> String {
    Builder::from_random_bytes(fastrand::u128(..).to_le_bytes()).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn alternatives_share_a_group_and_conditions_do_not() {
        let sleep = Condition::sleep(Duration::from_secs(90));
        let all = Conditions {
            wait_for: vec![
                Condition::event("paid").matching("input.x > 1").named("p").or(sleep),
                Condition::event("b"),
            ],
            skip_if: vec![Condition::parent("a", "output.x == 1")],
            cancel_if: Vec::new(),
        };
        let message = conditions(&all, &["a".into(), "b".into()]).unwrap();
        let [paid, other] = message.user_event_conditions.as_slice() else { panic!() };
        let (paid, sleep) = (paid.base.as_ref().unwrap(), &message.sleep_conditions[0]);
        assert_eq!(
            (paid.readable_data_key.as_str(), paid.expression.as_str(), paid.action()),
            ("p", "input.x > 1", Action::Queue)
        );
        assert_eq!((&paid.or_group_id, sleep.sleep_for.as_str()), (&sleep.base.as_ref().unwrap().or_group_id, "90s"));
        assert!(other.base.as_ref().unwrap().or_group_id != paid.or_group_id);
        assert!(paid.or_group_id.parse::<uuid::Uuid>().is_ok());
        let [skip] = message.parent_override_conditions.as_slice() else { panic!() };
        assert_eq!((skip.parent_readable_id.as_str(), skip.base.as_ref().unwrap().action()), ("a", Action::Skip));
        assert_eq!(conditions(&Conditions::default(), &["a".into()]), None);
    }

    #[test]
    fn a_cancellation_mentions_all_parents() {
        let all = Conditions {
            cancel_if: vec![Condition::parent("a", "output.x == 1"), Condition::event("stop")],
            ..Conditions::default()
        };
        let message = conditions(&all, &["a".into(), "b".into()]).unwrap();
        let parents: Vec<_> = message
            .parent_override_conditions
            .iter()
            .map(|parent| (parent.parent_readable_id.as_str(), parent.base.as_ref().unwrap()))
            .map(|(task, base)| (task, base.expression.as_str(), base.or_group_id.as_str()))
            .collect();
        let id = parents[0].2;
        assert_eq!(parents, [("a", "output.x == 1", id), ("b", "false", id)]);
    }
}
