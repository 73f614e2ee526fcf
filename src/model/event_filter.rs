//! Filters of definitions for events.

use serde::Serialize;

use super::expression::condition_problem;
use super::payload::encode_input;

/// Decides whether an event starts a run of a definition that listens to its key.
///
/// Without filters, each event starts a run. With filters, an event starts one run for each filter of its scope whose expression is true, and
/// an event without a [scope](crate::builder::EventBuilder::scope) starts none.
///
/// The expression is CEL over `input` (the payload of the event), `additional_metadata`, `event_key`, `event_id` and `payload` (the
/// [payload](Self::payload) of the filter). An expression that cannot be evaluated counts as false, and is not reported as an error.
///
/// ```
/// use hatchet::workflow::EventFilter;
/// use hatchet::{Context, Task};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Order { amount: f64 }
///
/// let audit = Task::new("audit", async |_: Order, _: Context| Ok(()))
///     .on_event("order:paid")
///     .default_filter(EventFilter::new("input.amount > payload.limit").scope("eu").payload(&serde_json::json!({"limit": 100})));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a filter has no effect before it is added to a definition"]
pub struct EventFilter {
    pub(crate) expression: String,
    pub(crate) scope: String,
    payload: Option<Result<String, String>>,
}

impl EventFilter {
    /// Creates a filter with this expression. A filter must also have a [scope](Self::scope).
    pub fn new(expression: impl Into<String>) -> Self {
        Self { expression: expression.into(), scope: String::new(), payload: None }
    }

    /// Sets the scope of the events that the filter applies to.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = scope.into();
        self
    }

    /// Sets a JSON object that the expression can use as `payload`, and that a task reads with
    /// [`Context::filter_payload`](crate::Context::filter_payload).
    pub fn payload<T: Serialize + ?Sized>(mut self, payload: &T) -> Self {
        self.payload = Some(encode_input("payload", payload).map_err(|error| error.to_string()));
        self
    }

    /// JSON.
    pub(crate) fn payload_text(&self) -> Option<&str> {
        self.payload.as_ref()?.as_deref().ok()
    }

    /// What the engine would reject, or what would never be true.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems: Vec<_> = condition_problem(&self.expression).into_iter().collect();
        // A filter without a scope would match only events with an empty scope.
        if self.scope.is_empty() || self.scope.contains('\0') {
            problems.push(format!("expected a non-empty scope without U+0000, got {:?}", self.scope));
        }
        if let Some(Err(problem)) = &self.payload {
            problems.push(problem.clone());
        }
        problems.into_iter().map(|problem| format!("filter: {problem}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_that_would_never_be_true_are_rejected() {
        let fine = EventFilter::new("input.x > 1").scope("eu").payload(&serde_json::json!({"a": 1}));
        assert_eq!((fine.problems(), fine.payload_text()), (Vec::new(), Some("{\"a\":1}")));
        assert_eq!(
            EventFilter::new("").payload(&[1]).problems(),
            [
                "filter: expected a CEL expression, got \"\"",
                "filter: expected a non-empty scope without U+0000, got \"\"",
                "filter: invalid payload: expected a JSON object, got [1]",
            ]
        );
        assert_eq!(
            EventFilter::new("'eu'").scope("eu").problems(),
            ["filter: expected a CEL expression that returns a boolean, got \"'eu'\""]
        );
    }
}
