//! Conditions of tasks in a DAG, as a definition has them.

use crate::embedded::core::expression::Expression;

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
