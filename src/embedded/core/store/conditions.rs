//! Conditions of tasks in a DAG, as a definition has them.

use super::fault::Fault;
use crate::embedded::core::expression::{Expression, Names, ParseError};
use serde_json::Value;

/// The names that expressions of conditions may use. Both mean the output or the payload that the condition is about.
const NAMES: [&str; 2] = ["input", "output"];

/// One condition of a task.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition {
    pub(crate) action: ConditionAction,
    /// The same number for all conditions of one group.
    pub(crate) group: u16,
    /// The name under which the task gets the data that satisfied the condition.
    pub(crate) data_key: String,
    pub(crate) on: On,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum On {
    /// A parent's output.
    Parent(String, Expression),
    /// A duration, as it was written.
    Sleep(String),
    /// The exact key of an event, and an expression over its payload.
    Event(String, Expression),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ConditionAction {
    Queue,
    Cancel,
    Skip,
}

impl Condition {
    /// Whether it is evaluated after the parents have ended.
    pub(crate) fn is_late(&self) -> bool {
        !matches!(self.on, On::Parent(..))
    }
}

/// Parses the expression of a condition. An empty one is always true, and an invalid one is always false, as in the real engine.
/// One that may be valid CEL, but is not supported here, is refused.
pub(crate) fn expression(text: &str) -> Result<Expression, Fault> {
    if text.is_empty() {
        return Ok(Expression::constant(true));
    }
    match Expression::parse(text, &NAMES) {
        Err(ParseError::Invalid) => Ok(Expression::constant(false)),
        Err(ParseError::Unsupported) => Err(Fault::unimplemented(&format!("conditions like `{text}`"))),
        Ok(expression) => Ok(expression),
    }
}

/// Evaluates the expression of a condition on an output or a payload.
pub(crate) fn is_true(expression: &Expression, data: &Value) -> bool {
    expression.is_true(&Names(&NAMES.map(|name| (name, data))))
}
