//! Conversion of the options of definitions, and of desired labels.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use crate::embedded::core::format::validation::Problems;
use crate::embedded::core::store::{
    Comparator, Concurrency, DesiredLabel, Filter, Idempotency, Label, LimitStrategy, StatusError, Sticky,
    WorkflowOptions,
};
use crate::model::engine_version::EngineVersion;
use crate::rpc::pb::v1::{
    self as pb, ConcurrencyLimitStrategy, CreateWorkflowVersionRequest, DesiredWorkerLabels, WorkerLabelComparator,
};

/// The default weight of a label.
const DEFAULT_WEIGHT: i32 = 100;

/// The options of a definition.
pub(super) fn options(
    request: &mut CreateWorkflowVersionRequest,
    version: EngineVersion,
) -> Result<WorkflowOptions, StatusError> {
    let cron_input = request.cron_input.take().map(|text| json_or_internal(text.as_bytes())).transpose()?;
    let filters = std::mem::take(&mut request.default_filters).into_iter().map(|filter| {
        let payload = filter.payload.as_deref().map(json_or_internal).transpose()?.unwrap_or_else(|| json!({}));
        Filter::new(filter.expression, filter.scope, payload)
    });
    let concurrency = request.concurrency.take().into_iter().chain(std::mem::take(&mut request.concurrency_arr));
    let missing = "CEL expression is required for concurrency";
    Ok(WorkflowOptions {
        concurrency: self::concurrency("", concurrency.collect(), missing, version)?,
        filters: filters.collect::<Result<_, StatusError>>()?,
        events: std::mem::take(&mut request.event_triggers),
        crons: std::mem::take(&mut request.cron_triggers),
        cron_input,
        sticky: request.sticky.take().map(sticky).transpose()?,
        idempotency: request
            .idempotency
            .take()
            .map(|config| Idempotency::new(config.expression, config.ttl_ms, config.method.unwrap_or_default()))
            .transpose()?,
    })
}

/// Concurrency limits of a workflow or a task. `of` is the prefix of their fields, and `missing` the error of one without an expression.
pub(super) fn concurrency(
    of: &str,
    limits: Vec<pb::Concurrency>,
    missing: &str,
    version: EngineVersion,
) -> Result<Vec<Concurrency>, StatusError> {
    let convert = |(index, limit): (usize, pb::Concurrency)| {
        if limit.expression.is_empty() {
            return Err(StatusError::invalid(missing));
        }
        let strategy =
            limit.limit_strategy.map(|number| strategy(&format!("{of}Concurrency[{index}]"), number, version));
        let unknown = [
            ("name", limit.name.is_some()),
            ("is_tenant_scoped", limit.is_tenant_scoped.is_some()),
            ("max_runs_expression", limit.max_runs_expression.is_some()),
        ];
        let is_known = version >= EngineVersion::SHARED_LIMITS;
        let unknown = unknown.into_iter().filter(|_| !is_known).find_map(|(name, is_set)| is_set.then_some(name));
        let new = Concurrency::new(limit.expression, limit.max_runs, strategy.transpose()?, unknown)?;
        if !is_known {
            return Ok(new);
        }
        let is_tenant_scoped = limit.is_tenant_scoped.unwrap_or_default();
        let new = Concurrency { name: limit.name, is_tenant_scoped, ..new };
        match limit.max_runs_expression {
            Some(expression) => new.with_max_runs_expression(expression),
            None => Ok(new),
        }
    };
    limits.into_iter().enumerate().map(convert).collect()
}

/// The strategies that the engine has in this version. It has names for two more.
fn strategy(field: &str, number: i32, version: EngineVersion) -> Result<LimitStrategy, StatusError> {
    use ConcurrencyLimitStrategy as Known;
    let got = match Known::try_from(number) {
        Ok(Known::CancelInProgress) => return Ok(LimitStrategy::CancelInProgress),
        Ok(Known::GroupRoundRobin) => return Ok(LimitStrategy::GroupRoundRobin),
        Ok(Known::CancelNewest) => return Ok(LimitStrategy::CancelNewest),
        Ok(Known::CancelQueuedExceptNewest) if version >= EngineVersion::QUEUED_STRATEGIES => {
            return Ok(LimitStrategy::CancelQueuedExceptNewest);
        }
        Ok(Known::CancelQueuedExceptOldest) if version >= EngineVersion::QUEUED_STRATEGIES => {
            return Ok(LimitStrategy::CancelQueuedExceptOldest);
        }
        Ok(named @ (Known::DropNewest | Known::QueueNewest)) => named.as_str_name().to_owned(),
        _ => number.to_string(),
    };
    let mut problems = Problems::default();
    problems.add(
        &format!("{field}.LimitStrategy"),
        &format!("on condition 'oneof' [ CANCEL_IN_PROGRESS GROUP_ROUND_ROBIN CANCEL_NEWEST ]: got '{got}'"),
    );
    problems.into_result("CreateWorkflowVersionOpts").and(Err(StatusError::internal()))
}

fn json_or_internal(text: &[u8]) -> Result<Value, StatusError> {
    serde_json::from_slice(text).map_err(|_| StatusError::internal())
}

fn sticky(number: i32) -> Result<Sticky, StatusError> {
    match number {
        0 => Ok(Sticky::Soft),
        1 => Ok(Sticky::Hard),
        other => Err(StatusError::invalid(format!(
            "Validation failed with the following errors:\n0: validation failed on field 'CreateWorkflowVersionOpts.Sticky': on condition 'oneof' [ SOFT HARD ]: got '{other}'\n"
        ))),
    }
}

/// The desired labels of workers, by key.
pub(super) fn labels(labels: HashMap<String, DesiredWorkerLabels>) -> BTreeMap<String, DesiredLabel> {
    labels.into_iter().map(|(key, label)| (key, desired(label))).collect()
}

fn desired(label: DesiredWorkerLabels) -> DesiredLabel {
    let comparator = match label.comparator() {
        WorkerLabelComparator::Equal => Comparator::Equal,
        WorkerLabelComparator::NotEqual => Comparator::NotEqual,
        WorkerLabelComparator::GreaterThan => Comparator::Greater,
        WorkerLabelComparator::GreaterThanOrEqual => Comparator::GreaterOrEqual,
        WorkerLabelComparator::LessThan => Comparator::Less,
        WorkerLabelComparator::LessThanOrEqual => Comparator::LessOrEqual,
    };
    DesiredLabel {
        required: label.required.unwrap_or(false),
        comparator,
        weight: label.weight.unwrap_or(DEFAULT_WEIGHT),
        value: match (label.str_value, label.int_value) {
            (Some(text), _) => Label::Text(text),
            (None, Some(number)) => Label::Number(number),
            (None, None) => Label::Nothing,
        },
    }
}
