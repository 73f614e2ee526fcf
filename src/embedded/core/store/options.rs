//! What a workflow definition has beside its tasks: what starts its runs, its idempotency key, and how its tasks are placed.

use serde_json::Value;

use super::cel::Cel;
use super::concurrency::Concurrency;

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
    /// An empty or invalid one is never true.
    pub(crate) expression: Cel,
    pub(crate) scope: String,
    pub(crate) payload: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sticky {
    Soft,
    Hard,
}

/// Allows only one run for each key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Idempotency {
    pub(crate) expression: Cel,
    pub(crate) ttl_ms: i64,
    /// The number of the contract's enum. An unknown one is kept, because the rejection comes with the engine's other checks.
    pub(crate) method: i32,
}
