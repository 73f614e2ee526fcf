//! What a workflow definition has beside its tasks: what starts its runs, its idempotency key, and how its tasks are placed.

use serde_json::Value;

use super::concurrency::Concurrency;
use crate::embedded::core::expression::Expression;

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct WorkflowOptions {
    pub(crate) events: Vec<String>,
    pub(crate) filters: Vec<Filter>,
    pub(crate) crons: Vec<String>,
    /// JSON.
    pub(crate) cron_input: Option<Value>,
    pub(crate) sticky: Option<Sticky>,
    pub(crate) idempotency: Option<Idempotency>,
    pub(crate) concurrency: Vec<Concurrency>,
}

/// Decides whether an event of its scope starts a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Filter {
    pub(crate) expression: String,
    pub(crate) scope: String,
    pub(crate) payload: Value,
    /// `None` for an empty or invalid expression, which is never true.
    pub(crate) parsed: Option<Expression>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sticky {
    Soft,
    Hard,
}

/// Allows only one run for each key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Idempotency {
    pub(crate) expression: String,
    pub(crate) ttl_ms: i64,
    /// The number of the contract's enum. An unknown one is kept, because the refusal comes with the engine's other checks.
    pub(crate) method: i32,
    /// `None` for an invalid expression.
    pub(crate) parsed: Option<Expression>,
}
