//! Labels of workers, and the labels that tasks and runs require.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The value of a worker's label.
///
/// A string is never equal to an integer: `"1"` is not `1`.
///
/// ```
/// use hatchet::model::LabelValue;
///
/// assert_eq!(LabelValue::from("large"), LabelValue::String("large".into()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LabelValue {
    /// An integer, such as an amount of memory in GiB.
    Integer(i32),
    /// A string, such as the name of a model.
    String(String),
}

impl fmt::Display for LabelValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => value.fmt(f),
            Self::String(value) => value.fmt(f),
        }
    }
}

impl From<&str> for LabelValue {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for LabelValue {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<i32> for LabelValue {
    fn from(number: i32) -> Self {
        Self::Integer(number)
    }
}

/// How the value of a worker's label, on the left, is compared with the desired value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparator {
    Equal,
    NotEqual,
    GreaterThan,
    GreaterThanOrEqual,
    LessThan,
    LessThanOrEqual,
}

/// The desired value of a worker's label.
///
/// By default, it is a preference: the engine chooses matching workers first, and otherwise other workers. If the value is
/// [required](Self::required), a task waits until a matching worker has a free slot, or until its schedule timeout passes.
///
/// ```
/// use hatchet::model::DesiredLabel;
///
/// let large = DesiredLabel::equal("large").required();
/// let roomy = DesiredLabel::at_least(64).weight(200);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct DesiredLabel {
    pub(crate) value: LabelValue,
    pub(crate) comparator: Comparator,
    pub(crate) required: bool,
    pub(crate) weight: Option<i32>,
}

impl DesiredLabel {
    fn new(value: LabelValue, comparator: Comparator) -> Self {
        Self { value, comparator, required: false, weight: None }
    }

    /// Matches workers whose label has this value.
    pub fn equal(value: impl Into<LabelValue>) -> Self {
        Self::new(value.into(), Comparator::Equal)
    }

    /// Matches workers whose label has another value of the same type. Workers without the label do not match.
    pub fn not_equal(value: impl Into<LabelValue>) -> Self {
        Self::new(value.into(), Comparator::NotEqual)
    }

    /// Matches workers whose label is greater than this number.
    pub fn greater_than(number: i32) -> Self {
        Self::new(number.into(), Comparator::GreaterThan)
    }

    /// Matches workers whose label is at least this number.
    pub fn at_least(number: i32) -> Self {
        Self::new(number.into(), Comparator::GreaterThanOrEqual)
    }

    /// Matches workers whose label is less than this number.
    pub fn less_than(number: i32) -> Self {
        Self::new(number.into(), Comparator::LessThan)
    }

    /// Matches workers whose label is at most this number.
    pub fn at_most(number: i32) -> Self {
        Self::new(number.into(), Comparator::LessThanOrEqual)
    }

    /// Excludes workers that do not match.
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Sets the weight among several preferences. The default is 100.
    pub fn weight(mut self, weight: i32) -> Self {
        self.weight = Some(weight);
        self
    }
}

impl<V: Into<LabelValue>> From<V> for DesiredLabel {
    /// A preference for this value.
    fn from(value: V) -> Self {
        Self::equal(value)
    }
}

/// Labels by key.
pub(crate) type DesiredLabels = BTreeMap<String, DesiredLabel>;

/// Checks the key of a label.
pub(crate) fn check_key(key: &str) -> Result<()> {
    if key.is_empty() || key.contains('\0') {
        return Err(Error::invalid("label", format_args!("expected a non-empty key without U+0000, got {key:?}")));
    }
    Ok(())
}

/// Checks the keys of labels.
pub(crate) fn check_keys(labels: &DesiredLabels) -> Result<()> {
    labels.keys().try_for_each(|key| check_key(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_desired_label_has_a_value_a_comparator_and_a_weight() {
        let plain: DesiredLabel = "large".into();
        assert_eq!(plain, DesiredLabel::equal("large".to_owned()));
        let desired = DesiredLabel::at_least(3).required().weight(7);
        assert_eq!(
            (desired.comparator, desired.required, desired.weight),
            (Comparator::GreaterThanOrEqual, true, Some(7))
        );
        assert!(check_keys(&BTreeMap::from([(String::new(), plain)])).is_err());
    }
}
