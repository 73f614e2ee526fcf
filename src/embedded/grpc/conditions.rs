//! Conversion of the conditions in definitions.

use uuid::Uuid;

use crate::embedded::core::store::{Condition, ConditionAction, On, StatusError};
use crate::rpc::pb::v1::{Action, TaskConditions};

/// The maximum number of conditions of a task. The engine has no known limit. The embedded engine evaluates all of them for each event.
const MAX_CONDITIONS: usize = 1000;

/// Converts conditions in the engine's order: events, sleeps, parents. Conditions without a base are ignored.
pub(super) fn conditions(task: &str, request: TaskConditions) -> Result<Vec<Condition>, StatusError> {
    let events = request.user_event_conditions.into_iter().filter_map(|event| {
        let base = event.base?;
        Some((On::event(event.user_event_key, &base.expression), base))
    });
    let sleeps =
        request.sleep_conditions.into_iter().filter_map(|sleep| Some((Ok(On::Sleep(sleep.sleep_for)), sleep.base?)));
    let parents = request.parent_override_conditions.into_iter().filter_map(|parent| {
        let base = parent.base?;
        Some((On::parent(parent.parent_readable_id, &base.expression), base))
    });
    let mut groups: Vec<Option<Uuid>> = Vec::new();
    let mut found = Vec::new();
    for (on, base) in events.chain(sleeps).chain(parents) {
        if found.len() >= MAX_CONDITIONS {
            return Err(StatusError::unimplemented(&format!("tasks with more than {MAX_CONDITIONS} conditions")));
        }
        let action = action(base.action, &format!("{task}.TriggerConditions[{}]", found.len()))?;
        found.push(Condition {
            action,
            group: group(&base.or_group_id, &mut groups)?,
            data_key: base.readable_data_key,
            on: on?,
        });
    }
    Ok(found)
}

fn action(number: i32, field: &str) -> Result<ConditionAction, StatusError> {
    match Action::try_from(number) {
        Ok(Action::Queue) => Ok(ConditionAction::Queue),
        Ok(Action::Cancel) => Ok(ConditionAction::Cancel),
        Ok(Action::Skip) => Ok(ConditionAction::Skip),
        other => {
            let got = other.map_or_else(|_| number.to_string(), |action| action.as_str_name().to_owned());
            Err(StatusError::invalid(format!(
                "Validation failed with the following errors:\n0: validation failed on field 'CreateWorkflowVersionOpts.{field}.Action': on condition 'oneof' [ QUEUE CANCEL SKIP ]: got '{got}'\n"
            )))
        }
    }
}

/// The number of a group: the same for the same id, and a new one without an id.
fn group(text: &str, groups: &mut Vec<Option<Uuid>>) -> Result<u16, StatusError> {
    let id = if text.is_empty() { None } else { Some(text.parse::<Uuid>().map_err(|_| StatusError::internal())?) };
    let known = groups.iter().position(|other| id.is_some() && *other == id);
    let place = known.unwrap_or_else(|| {
        groups.push(id);
        groups.len().saturating_sub(1)
    });
    u16::try_from(place).map_err(|_| StatusError::internal())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::core::store::Code;
    use crate::rpc::pb::v1::{
        BaseMatchCondition, ParentOverrideMatchCondition, SleepMatchCondition, UserEventMatchCondition,
    };

    fn base(action: Action, group: &str, expression: &str) -> BaseMatchCondition {
        let (or_group_id, expression) = (group.to_owned(), expression.to_owned());
        BaseMatchCondition { readable_data_key: "k".into(), action: action.into(), or_group_id, expression }
    }

    fn sleep(base: Option<BaseMatchCondition>) -> TaskConditions {
        let sleep = SleepMatchCondition { base, sleep_for: "1s".into() };
        TaskConditions { sleep_conditions: vec![sleep], ..Default::default() }
    }

    #[test]
    fn conditions_of_one_group_have_one_number() {
        let [one, other] = ["1c2d3e4f-0000-4000-8000-000000000001", "1c2d3e4f-0000-4000-8000-000000000002"];
        let event =
            |base| UserEventMatchCondition { base: Some(base), user_event_key: "e".into(), ..Default::default() };
        let request = TaskConditions {
            user_event_conditions: vec![event(base(Action::Queue, one, "")), event(base(Action::Queue, "", ""))],
            parent_override_conditions: vec![ParentOverrideMatchCondition {
                base: Some(base(Action::Skip, other, "output.x")),
                parent_readable_id: "a".into(),
            }],
            ..sleep(Some(base(Action::Queue, one, "")))
        };
        let read = conditions("Tasks[0]", request).unwrap();
        assert_eq!(read.iter().map(|condition| condition.group).collect::<Vec<_>>(), [0, 1, 0, 2]);
        assert!(conditions("Tasks[0]", sleep(None)).unwrap().is_empty());
    }

    #[test]
    fn invalid_and_unsupported_conditions_are_rejected() {
        let rejection = conditions("Tasks[1]", sleep(Some(base(Action::Create, "", "")))).unwrap_err();
        let text = "'CreateWorkflowVersionOpts.Tasks[1].TriggerConditions[0].Action': on condition 'oneof' [ QUEUE CANCEL SKIP ]: got 'CREATE'\n";
        assert!(rejection.code == Code::InvalidArgument && rejection.message.ends_with(text), "{rejection:?}");
        assert_eq!(
            conditions("Tasks[0]", sleep(Some(base(Action::Queue, "zz", "")))).unwrap_err().code,
            Code::Internal
        );
        let parent = ParentOverrideMatchCondition {
            base: Some(base(Action::Skip, "", "output.x.matches('a')")),
            ..Default::default()
        };
        let request = TaskConditions { parent_override_conditions: vec![parent], ..Default::default() };
        assert_eq!(conditions("Tasks[0]", request).unwrap_err().code, Code::Unimplemented);
    }
}
