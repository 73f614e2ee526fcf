//! The engine's checks of a definition, with its error texts.

use super::{graph, options};
use crate::embedded::core::format::duration;
use crate::embedded::core::format::validation::Problems;
use crate::embedded::core::store::{Code, Definition, On, StatusError, TaskDefinition};
use crate::model::engine_version::EngineVersion;

/// Checks a definition in the order of the real engine. What that answers with INTERNAL is answered so here, too.
pub(crate) fn check(definition: &Definition) -> Result<(), StatusError> {
    let mut problems = Problems::default();
    problems.name("Name", &definition.name);
    if let Some(priority) = definition.default_priority {
        problems.range("DefaultPriority", priority, 1, 3);
    }
    let named = definition.tasks.iter().enumerate().map(|(index, task)| (format!("Tasks[{index}]"), task));
    for (field, task) in named.chain(definition.on_failure.iter().map(|task| ("OnFailure".to_owned(), task))) {
        if task.readable_id.is_empty() || task.action.is_empty() {
            return Err(StatusError::internal());
        }
        problems.name(&format!("{field}.ReadableId"), &task.readable_id);
        check_action(&field, &task.action, &mut problems)?;
        check_limits(&field, task, &mut problems);
        options::check_concurrency(&format!("{field}."), &task.concurrency, &mut problems);
        options::check_rate_limits(&field, &task.rate_limits, &mut problems);
        options::check_batch(&field, task.batch.as_ref(), &mut problems);
    }
    options::check(&definition.options, &mut problems);
    problems.into_result("CreateWorkflowVersionOpts")?;
    graph::check(definition)?;
    options::check_further(&definition.options)
}

/// Rejects fields that this version of the engine ignores.
pub(crate) fn reject_unknown_fields(definition: &Definition) -> Result<(), StatusError> {
    let of_tasks = definition.tasks.iter().chain(&definition.on_failure).flat_map(|task| &task.concurrency);
    let unknown = definition.options.concurrency.iter().chain(of_tasks).find_map(|limit| limit.unknown_field);
    match unknown {
        Some(field) => Err(StatusError {
            code: Code::Unimplemented,
            message: format!(
                "the field `{field}` of concurrency limits needs engine {} or later",
                EngineVersion::SHARED_LIMITS
            ),
        }),
        None => Ok(()),
    }
}

fn check_action(field: &str, action: &str, problems: &mut Problems) -> Result<(), StatusError> {
    let parts: Vec<_> = action.split(':').collect();
    if !(2..=3).contains(&parts.len()) {
        return Err(StatusError::internal());
    }
    // The engine converts only the first letter of the service to lower case before it searches for it.
    if parts.first().is_some_and(|service| service.chars().skip(1).any(char::is_uppercase)) {
        return Err(StatusError::internal());
    }
    if parts.iter().take(2).any(|part| part.is_empty()) {
        let text = "Invalid action ID. Action IDs must be in the format <integrationId>:<verb>";
        problems.add(&format!("{field}.Action"), text);
    }
    Ok(())
}

fn check_limits(field: &str, task: &TaskDefinition, problems: &mut Problems) {
    let mut add = |name: &str, problem: &str| problems.add(&format!("{field}.{name}"), problem);
    if !task.timeout.is_empty() && duration::parse(&task.timeout).is_none() {
        add("Timeout", duration::REJECTION);
    }
    if task.schedule_timeout.as_deref().is_some_and(|text| duration::parse(text).is_none()) {
        add("ScheduleTimeout", duration::REJECTION);
    }
    for (kind, units) in &task.slots {
        if kind.is_empty() {
            add("SlotRequests[]", "on condition 'required'");
        } else if *units < 1 {
            add(&format!("SlotRequests[{kind}]"), "on condition 'gt' [ 0 ]: got invalid type");
        }
    }
    if task.retries < 0 {
        add("Retries", &format!("on condition 'min' [ 0 ]: got {}", task.retries));
    }
    for (index, condition) in task.conditions.iter().enumerate() {
        let mut add = |name: &str, problem: &str| add(&format!("TriggerConditions[{index}].{name}"), problem);
        if condition.is_late() && condition.data_key.is_empty() {
            add("ReadableDataKey", "on condition 'required'");
        }
        if let On::Sleep(text) = &condition.on
            && duration::parse(text).is_none()
        {
            add("SleepDuration", duration::REJECTION);
        }
    }
    match task.backoff_factor {
        Some(factor) if factor < 1.0 => add("RetryBackoffFactor", "on condition 'min' [ 1 ]: got invalid type"),
        Some(factor) if factor > 1000.0 => add("RetryBackoffFactor", "on condition 'max' [ 1000 ]: got invalid type"),
        _ => {}
    }
    match task.backoff_max_seconds {
        Some(max) if max < 1 => {
            add("RetryBackoffMaxSeconds", &format!("on condition 'min' [ 1 ]: got {max}"));
        }
        Some(max) if max > 86400 => {
            add("RetryBackoffMaxSeconds", &format!("on condition 'max' [ 86400 ]: got {max}"));
        }
        _ => {}
    }
}
