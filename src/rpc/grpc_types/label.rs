//! Labels of workers, and what is wanted of them.

use crate::rpc::pb;
use crate::rpc::pb::v1::{DesiredWorkerLabels, WorkerLabelComparator};

/// A label's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LabelValue {
    Text(String),
    Number(i32),
}

/// How a worker's label is compared with the wanted value. The worker's is on the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparator {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// What is wanted of one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DesiredLabel {
    pub(crate) value: LabelValue,
    pub(crate) comparator: Comparator,
    pub(crate) required: bool,
    pub(crate) weight: Option<i32>,
}

impl From<LabelValue> for pb::WorkerLabels {
    fn from(value: LabelValue) -> Self {
        match value {
            LabelValue::Text(text) => Self { str_value: Some(text), int_value: None },
            LabelValue::Number(number) => Self { str_value: None, int_value: Some(number) },
        }
    }
}

impl From<DesiredLabel> for DesiredWorkerLabels {
    fn from(label: DesiredLabel) -> Self {
        let pb::WorkerLabels { str_value, int_value } = label.value.into();
        let comparator = match label.comparator {
            Comparator::Equal => WorkerLabelComparator::Equal,
            Comparator::NotEqual => WorkerLabelComparator::NotEqual,
            Comparator::Greater => WorkerLabelComparator::GreaterThan,
            Comparator::GreaterOrEqual => WorkerLabelComparator::GreaterThanOrEqual,
            Comparator::Less => WorkerLabelComparator::LessThan,
            Comparator::LessOrEqual => WorkerLabelComparator::LessThanOrEqual,
        };
        Self {
            str_value,
            int_value,
            required: Some(label.required),
            comparator: Some(comparator as i32),
            weight: label.weight,
        }
    }
}
