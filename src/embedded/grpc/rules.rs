//! Conversion of the options of definitions, and of desired labels.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use crate::embedded::core::store::{
    Comparator, DesiredLabel, Filter, Idempotency, Label, StatusError, Sticky, WorkflowOptions,
};
use crate::rpc::pb::v1::{CreateWorkflowVersionRequest, DesiredWorkerLabels, WorkerLabelComparator};

/// The default weight of a label.
const DEFAULT_WEIGHT: i32 = 100;

/// The options of a definition.
pub(super) fn options(request: &mut CreateWorkflowVersionRequest) -> Result<WorkflowOptions, StatusError> {
    let cron_input = request.cron_input.take().map(|text| json_or_internal(text.as_bytes())).transpose()?;
    let filters = std::mem::take(&mut request.default_filters).into_iter().map(|filter| {
        let payload = filter.payload.as_deref().map(json_or_internal).transpose()?.unwrap_or_else(|| json!({}));
        Filter::new(filter.expression, filter.scope, payload)
    });
    Ok(WorkflowOptions {
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
