//! Labels of workers, and requirements on them.

use crate::model::{Comparator, DesiredLabel, LabelValue};
use crate::rpc::pb;
use crate::rpc::pb::v1::{DesiredWorkerLabels, WorkerLabelComparator};

impl From<LabelValue> for pb::WorkerLabels {
    fn from(value: LabelValue) -> Self {
        match value {
            LabelValue::String(text) => Self { str_value: Some(text), int_value: None },
            LabelValue::Integer(number) => Self { str_value: None, int_value: Some(number) },
        }
    }
}

impl From<DesiredLabel> for DesiredWorkerLabels {
    fn from(label: DesiredLabel) -> Self {
        let pb::WorkerLabels { str_value, int_value } = label.value.into();
        let comparator = match label.comparator {
            Comparator::Equal => WorkerLabelComparator::Equal,
            Comparator::NotEqual => WorkerLabelComparator::NotEqual,
            Comparator::GreaterThan => WorkerLabelComparator::GreaterThan,
            Comparator::GreaterThanOrEqual => WorkerLabelComparator::GreaterThanOrEqual,
            Comparator::LessThan => WorkerLabelComparator::LessThan,
            Comparator::LessThanOrEqual => WorkerLabelComparator::LessThanOrEqual,
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
