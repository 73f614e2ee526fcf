//! Labels of workers, and what tasks and runs want of them.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::rpc::grpc_types;
use crate::rpc::grpc_types::Comparator;

/// The value of a worker's label: a text or a whole number. The two are never the same, `"1"` is not 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelValue(pub(crate) grpc_types::LabelValue);

impl From<&str> for LabelValue {
    fn from(text: &str) -> Self {
        Self(grpc_types::LabelValue::Text(text.to_owned()))
    }
}

impl From<String> for LabelValue {
    fn from(text: String) -> Self {
        Self(grpc_types::LabelValue::Text(text))
    }
}

impl From<i32> for LabelValue {
    fn from(number: i32) -> Self {
        Self(grpc_types::LabelValue::Number(number))
    }
}

/// What is wanted of one label of a worker.
///
/// Without [`required`](Self::required) it is a preference: workers that have it come first, and any other will do. With
/// it, a task for which there is no such worker waits until its schedule timeout.
///
/// ```
/// use hatchet::DesiredLabel;
///
/// let large = DesiredLabel::equal("large").required();
/// let roomy = DesiredLabel::at_least(64).weight(200);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct DesiredLabel(pub(crate) grpc_types::DesiredLabel);

impl DesiredLabel {
    fn new(value: LabelValue, comparator: Comparator) -> Self {
        Self(grpc_types::DesiredLabel { value: value.0, comparator, required: false, weight: None })
    }

    /// Just this value.
    pub fn equal(value: impl Into<LabelValue>) -> Self {
        Self::new(value.into(), Comparator::Equal)
    }

    /// Another value of the same kind. A worker without the label does not have it.
    pub fn not_equal(value: impl Into<LabelValue>) -> Self {
        Self::new(value.into(), Comparator::NotEqual)
    }

    /// A larger number.
    pub fn more_than(number: i32) -> Self {
        Self::new(number.into(), Comparator::Greater)
    }

    /// This number or a larger one.
    pub fn at_least(number: i32) -> Self {
        Self::new(number.into(), Comparator::GreaterOrEqual)
    }

    /// A smaller number.
    pub fn less_than(number: i32) -> Self {
        Self::new(number.into(), Comparator::Less)
    }

    /// This number or a smaller one.
    pub fn at_most(number: i32) -> Self {
        Self::new(number.into(), Comparator::LessOrEqual)
    }

    /// Leaves out workers that do not have it.
    pub fn required(mut self) -> Self {
        self.0.required = true;
        self
    }

    /// How much it counts among several preferences; 100 by default.
    pub fn weight(mut self, weight: i32) -> Self {
        self.0.weight = Some(weight);
        self
    }
}

impl<V: Into<LabelValue>> From<V> for DesiredLabel {
    /// A preference for just this value.
    fn from(value: V) -> Self {
        Self::equal(value)
    }
}

/// Labels by their keys, checked when they are written.
pub(crate) type DesiredLabels = BTreeMap<String, DesiredLabel>;

/// Checks the key of a label.
pub(crate) fn check_key(key: &str) -> Result<()> {
    if key.is_empty() || key.contains('\0') {
        return Err(Error::invalid("label", format_args!("found the key {key:?}, accepted: a text without U+0000")));
    }
    Ok(())
}

/// In the words of the calls.
pub(crate) fn to_server(labels: &DesiredLabels) -> Result<BTreeMap<String, grpc_types::DesiredLabel>> {
    labels.keys().try_for_each(|key| check_key(key))?;
    Ok(labels.iter().map(|(key, label)| (key.clone(), label.0.clone())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_made_of_a_value_and_more() {
        let plain: DesiredLabel = "large".into();
        assert_eq!(plain, DesiredLabel::equal("large".to_owned()));
        let DesiredLabel(wish) = DesiredLabel::at_least(3).required().weight(7);
        assert_eq!((wish.comparator, wish.required, wish.weight), (Comparator::GreaterOrEqual, true, Some(7)));
        assert!(to_server(&BTreeMap::from([(String::new(), plain)])).is_err());
    }
}
