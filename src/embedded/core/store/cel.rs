//! Expressions of definitions.

use crate::embedded::core::expression::Expression;

/// A CEL expression as it was sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cel {
    pub(crate) text: String,
    /// `None` for an invalid one.
    pub(crate) parsed: Option<Expression>,
}
