//! Definitions in the server's JSON.

use serde_json::{Value, json};

use super::json::extend;
use crate::embedded::core::store::{Cel, Concurrency, LimitStrategy, Run, Step, TaskLimit, Window};

/// The definition of a run's version, as its details show it.
pub(super) fn of_run(run: &Run) -> Value {
    // The limits of a workflow with one task are those of the task.
    let of_only_task = if run.dag.is_some() { &[] } else { &*run.version.options.concurrency };
    let step_config = |step| step_config(step, of_only_task);
    let tasks: Vec<_> = run.version.steps.iter().filter(|step| !step.on_failure).map(step_config).collect();
    let mut config = json!({
        "CronInput": null,
        "CronTriggers": null,
        "DefaultPriority": run.version.default_priority,
        "EventTriggers": null,
        "Name": &*run.version.name,
        "Sticky": null,
        "Tasks": tasks,
        "description": run.version.description,
    });
    if run.dag.is_some() && !run.version.options.concurrency.is_empty() {
        extend(&mut config, json!({"concurrency": limits(run.version.options.concurrency.iter())}));
    }
    if let Some(step) = run.version.steps.iter().find(|step| step.on_failure) {
        extend(&mut config, json!({"onFailureJob": step_config(step)}));
    }
    config
}

/// Concurrency limits as the definition has them.
fn limits<'a>(limits: impl Iterator<Item = &'a Concurrency>) -> Value {
    let limit = |limit: &Concurrency| {
        json!({
            "Expression": limit.expression.text,
            "LimitStrategy": limit.strategy.map(LimitStrategy::name),
            "MaxRuns": limit.max_runs,
        })
    };
    limits.map(limit).collect()
}

fn rate_limit(limit: &TaskLimit) -> Value {
    let text = |cel: &Option<Cel>| cel.as_ref().map(|cel| cel.text.clone());
    json!({
        "Duration": limit.window.map(Window::name),
        "Key": limit.key,
        "KeyExpr": text(&limit.key_expression),
        "LimitExpr": text(&limit.limit_expression),
        "Units": limit.units,
        "UnitsExpr": text(&limit.units_expression),
    })
}

fn step_config(step: &Step, more_limits: &[Concurrency]) -> Value {
    let mut config = json!({
        "Action": &*step.action,
        "DesiredWorkerLabels": null,
        "Parents": step.definition.parents,
        "RateLimits": step.definition.rate_limits.iter().map(rate_limit).collect::<Vec<_>>(),
        "ReadableId": &*step.readable_id,
        "Retries": step.definition.retries,
        "RetryBackoffFactor": step.definition.backoff_factor,
        "RetryBackoffMaxSeconds": step.definition.backoff_max_seconds,
        "ScheduleTimeout": step.definition.schedule_timeout,
        "Timeout": step.definition.timeout,
        "TriggerConditions": [],
    });
    if !more_limits.is_empty() || !step.definition.concurrency.is_empty() {
        let all = more_limits.iter().chain(&step.definition.concurrency);
        extend(&mut config, json!({"concurrency": limits(all)}));
    }
    config
}
