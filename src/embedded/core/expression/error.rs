//! Why an evaluation fails.

use std::borrow::Cow;
use std::fmt;

/// The error of an evaluation, in the words of cel-go. It becomes a part of the errors of runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EvalError(Cow<'static, str>);

pub(super) const NO_OVERLOAD: EvalError = EvalError(Cow::Borrowed("no such overload"));
pub(super) const INT_OVERFLOW: EvalError = EvalError(Cow::Borrowed("integer overflow"));
pub(super) const UINT_OVERFLOW: EvalError = EvalError(Cow::Borrowed("unsigned integer overflow"));
/// Only of the embedded engine.
pub(super) const TOO_LARGE: EvalError =
    EvalError(Cow::Borrowed("the evaluation exceeds a limit of the embedded engine"));

impl EvalError {
    pub(super) const fn of(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    pub(super) fn new(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
