//! The engine's checks of what a definition has beside its tasks.

use std::collections::HashSet;

use crate::embedded::core::format::cron::CronSchedule;
use crate::embedded::core::format::validation::Problems;
use crate::embedded::core::store::{
    BatchOptions, Concurrency, Core, Definition, StatusError, TaskDefinition, TaskLimit, WorkflowOptions,
};

/// The checks of the engine's validator.
pub(crate) fn check(options: &WorkflowOptions, problems: &mut Problems) {
    for (index, text) in options.crons.iter().enumerate() {
        if CronSchedule::of_definition(text).is_none() {
            problems.add(&format!("CronTriggers[{index}]"), "Invalid cron expression");
        }
    }
    check_concurrency("", &options.concurrency, problems);
    let Some(idempotency) = &options.idempotency else { return };
    if idempotency.expression.text.is_empty() {
        problems.add("Idempotency.Expression", "on condition 'required'");
    } else if idempotency.expression.parsed.is_none() {
        problems.add("Idempotency.Expression", "Invalid CEL expression");
    }
    match idempotency.ttl_ms {
        0 => problems.add("Idempotency.TTLMs", "on condition 'required'"),
        ..0 => problems.add("Idempotency.TTLMs", "on condition 'min' [ 1 ]: got invalid type"),
        _ => {}
    }
    if !(0..=1).contains(&idempotency.method) {
        problems.add("Idempotency.Method", "on condition 'oneof' [ TTL STATUS ]: got invalid type");
    }
}

/// The checks of concurrency limits. `of` is the prefix of their fields.
pub(crate) fn check_concurrency(of: &str, limits: &[Concurrency], problems: &mut Problems) {
    for (index, limit) in limits.iter().enumerate() {
        let expressions =
            [("Expression", Some(&limit.expression)), ("MaxRunsExpression", limit.max_runs_expression.as_ref())];
        for (name, _) in expressions.iter().filter(|(_, cel)| cel.is_some_and(|cel| cel.parsed.is_none())) {
            problems.add(&format!("{of}Concurrency[{index}].{name}"), "Invalid CEL expression");
        }
    }
}

/// The checks of limits with `max_runs_expression`, and of tenant-scoped limits. They are not in the engine that is reproduced, but in later ones.
/// What these reject was read from the source of the engine (`pkg/repository/workflow.go`), and not measured.
pub(crate) fn check_dynamic_and_shared_limits(core: &Core, definition: &Definition) -> Result<(), StatusError> {
    let of_workflow = &definition.options.concurrency;
    let mut all = of_workflow.iter().chain(definition.all_tasks().flat_map(|task| &task.concurrency));
    if all.any(|limit| limit.is_tenant_scoped && limit.name.as_deref().is_none_or(str::is_empty)) {
        return Err(StatusError::invalid("a name is required for tenant-scoped concurrency"));
    }
    if definition.all_tasks().nth(1).is_some() {
        for limit in of_workflow {
            if let Some(name) = limit.shared_name() {
                return Err(StatusError::invalid(format!(
                    "tenant-scoped concurrency (name {name}) is not supported at the workflow level unless the workflow is a single task or uses the DAG operator"
                )));
            }
            if limit.max_runs_expression.is_some() {
                return Err(StatusError::invalid(
                    "max_runs_expression is not supported at the workflow level unless the workflow is a single task",
                ));
            }
        }
    }
    check_order(core, definition)
}

/// Rejects limits that tasks of other workflows share in another order: two tasks could wait for each other.
fn check_order(core: &Core, definition: &Definition) -> Result<(), StatusError> {
    let own = shared_names(definition);
    let others = core.workflows.oldest_first().filter(|(name, _)| *name != definition.name);
    for other in others.flat_map(|(_, workflow)| shared_names(&workflow.definition)).chain(own.clone()) {
        let position = |name: &&str| other.iter().position(|other| other == name);
        for names in &own {
            let common: Vec<_> = names.iter().filter_map(|name| Some((*name, position(name)?))).collect();
            let mut pairs = common.iter().zip(common.iter().skip(1));
            if let Some(((first, _), (second, _))) = pairs.find(|((_, before), (_, after))| before > after) {
                return Err(StatusError::invalid(format!(
                    "tenant-scoped concurrency {first} and {second} must have the same order in all tasks"
                )));
            }
        }
    }
    Ok(())
}

/// The names of the shared limits of each task, in order.
fn shared_names(definition: &Definition) -> Vec<Vec<&str>> {
    let of_workflow = definition.options.concurrency.iter().filter_map(Concurrency::shared_name);
    definition
        .all_tasks()
        .map(|task| of_workflow.clone().chain(task.concurrency.iter().filter_map(Concurrency::shared_name)).collect())
        .collect()
}

/// The checks of the rate limits of a task, which has the field `of`.
pub(crate) fn check_rate_limits(of: &str, limits: &[TaskLimit], problems: &mut Problems) {
    for (index, limit) in limits.iter().enumerate() {
        let mut add = |name: &str, problem: &str| problems.add(&format!("{of}.RateLimits[{index}].{name}"), problem);
        if limit.key.is_empty() {
            add("Key", "on condition 'required'");
        }
        let expressions = [
            ("KeyExpr", &limit.key_expression),
            ("UnitsExpr", &limit.units_expression),
            ("LimitExpr", &limit.limit_expression),
        ];
        for (name, expression) in expressions {
            if expression.as_ref().is_some_and(|expression| expression.parsed.is_none()) {
                add(name, "Invalid CEL expression");
            }
        }
    }
}

/// The checks of the batches of a task, which has the field `of`. The key is not checked.
pub(crate) fn check_batch(of: &str, batch: Option<&BatchOptions>, problems: &mut Problems) {
    let Some(batch) = batch else { return };
    let field = |name: &str| format!("{of}.BatchConfig.{name}");
    match batch.max_size {
        0 => problems.add(&field("BatchMaxSize"), "on condition 'required'"),
        size => problems.range(&field("BatchMaxSize"), size, 1, 100_000),
    }
    problems.range(&field("BatchMaxInterval"), batch.max_interval_ms, 1, 86_400_000);
    problems.range(&field("BatchGroupMaxRuns"), batch.group_max_runs, 1, 10_000);
}

/// Rejects static rate limits that do not exist, and two limits of a task with one key: the engine's database does.
pub(crate) fn check_known_rate_limits(core: &Core, tasks: &[&TaskDefinition]) -> Result<(), StatusError> {
    let is_known = |limit: &TaskLimit| limit.is_dynamic() || core.rate_limits.get(&limit.key).is_some();
    let is_valid = |task: &&TaskDefinition| {
        let mut keys = HashSet::new();
        task.rate_limits.iter().all(|limit| is_known(limit) && keys.insert(&limit.key))
    };
    if tasks.iter().all(is_valid) { Ok(()) } else { Err(StatusError::internal()) }
}

/// Duplicates, which the engine's validator accepts and its database rejects.
pub(crate) fn check_further(options: &WorkflowOptions) -> Result<(), StatusError> {
    let has_duplicates = |texts: &[String]| {
        let mut known = HashSet::new();
        !texts.iter().all(|text| known.insert(text))
    };
    if has_duplicates(&options.events) || has_duplicates(&options.crons) {
        return Err(StatusError::internal());
    }
    Ok(())
}
