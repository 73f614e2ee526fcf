//! What a workflow definition has beside its tasks: what starts its runs, its idempotency key, and how its tasks are placed.

use serde_json::Value;

use super::fault::Fault;
use crate::embedded::core::expression::{Expression, ParseError};

/// The names that expressions of filters may use.
pub(crate) const FILTER_NAMES: &[&str] = &["input", "additional_metadata", "payload", "event_id", "event_key"];
/// The names that expressions of idempotency keys may use.
const KEY_NAMES: &[&str] = &["input", "additional_metadata", "workflow_run_id", "checksum()"];

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct WorkflowOptions {
    pub(crate) events: Vec<String>,
    pub(crate) filters: Vec<Filter>,
    pub(crate) crons: Vec<String>,
    /// JSON.
    pub(crate) cron_input: Option<Value>,
    pub(crate) sticky: Option<Sticky>,
    pub(crate) idempotency: Option<Idempotency>,
}

/// Decides whether an event of its scope starts a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Filter {
    pub(crate) text: String,
    pub(crate) scope: String,
    pub(crate) payload: Value,
    /// `None` for an empty or invalid expression, which is never true.
    pub(crate) expression: Option<Expression>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sticky {
    Soft,
    Hard,
}

/// Allows only one run for each key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Idempotency {
    pub(crate) text: String,
    pub(crate) ttl_ms: i64,
    /// The number of the contract's enum. An unknown one is kept, because the refusal comes with the engine's other checks.
    pub(crate) method: i32,
    pub(crate) expression: Option<Expression>,
}

impl Filter {
    /// A filter as it was sent. An expression that may be valid CEL, but is not supported here, is refused.
    pub(crate) fn new(text: String, scope: String, payload: Value) -> Result<Self, Fault> {
        let expression = parse(&text, FILTER_NAMES)?;
        Ok(Self { text, scope, payload, expression })
    }
}

impl Idempotency {
    pub(crate) fn new(text: String, ttl_ms: i64, method: i32) -> Result<Self, Fault> {
        let expression = parse(&text, KEY_NAMES)?;
        Ok(Self { text, ttl_ms, method, expression })
    }

    /// Whether the end of the run frees the key.
    pub(crate) fn ends_with_run(&self) -> bool {
        self.method == 1
    }
}

/// `None` for an invalid expression.
fn parse(text: &str, names: &[&str]) -> Result<Option<Expression>, Fault> {
    match Expression::parse(text, names) {
        Ok(expression) => Ok(Some(expression)),
        Err(ParseError::Invalid) => Ok(None),
        Err(ParseError::Unsupported) => Err(Fault::unimplemented(&format!("the CEL expression `{text}`"))),
    }
}

impl WorkflowOptions {
    /// A version without filters has the filters of the version before it.
    pub(crate) fn keep_filters_of(&mut self, before: &Self) {
        if self.filters.is_empty() {
            self.filters.clone_from(&before.filters);
        }
    }
}
