//! The expressions of definitions: what they may use, and what happens to invalid ones.

use serde_json::Value;

use crate::embedded::core::expression::{Environment, Expression, ParseError};
use crate::embedded::core::store::{
    BatchOptions, Cel, Concurrency, Filter, Idempotency, LimitStrategy, On, StatusError,
};

impl Filter {
    /// A filter as it was sent. An expression that may be valid CEL, but is not supported here, is rejected.
    pub(crate) fn new(expression: String, scope: String, payload: Value) -> Result<Self, StatusError> {
        Ok(Self { expression: Cel::new(expression, &Environment::FILTER)?, scope, payload })
    }
}

impl Idempotency {
    /// An option as it was sent. An expression that may be valid CEL, but is not supported here, is rejected.
    pub(crate) fn new(expression: String, ttl_ms: i64, method: i32) -> Result<Self, StatusError> {
        Ok(Self { expression: Cel::new(expression, &Environment::KEY)?, ttl_ms, method })
    }
}

impl Concurrency {
    /// A limit as it was sent. An expression that may be valid CEL, but is not supported here, is rejected.
    pub(crate) fn new(
        expression: String,
        max_runs: Option<i32>,
        strategy: Option<LimitStrategy>,
        unknown_field: Option<&'static str>,
    ) -> Result<Self, StatusError> {
        let expression = Cel::new(expression, &Environment::KEY)?;
        let (max_runs_expression, name, is_tenant_scoped) = (None, None, false);
        Ok(Self { expression, max_runs, max_runs_expression, name, is_tenant_scoped, strategy, unknown_field })
    }

    /// Sets an expression for the number of runs.
    pub(crate) fn with_max_runs_expression(mut self, text: String) -> Result<Self, StatusError> {
        self.max_runs_expression = Some(Cel::new(text, &Environment::KEY)?);
        Ok(self)
    }
}

impl Cel {
    /// An expression as it was sent, and what it may use. One that may be valid CEL, but is not supported here, is rejected.
    fn new(text: String, environment: &Environment) -> Result<Self, StatusError> {
        let parsed = match Expression::parse(&text, environment) {
            Ok(expression) => Some(expression),
            Err(ParseError::Invalid) => None,
            Err(ParseError::Unsupported) => {
                return Err(StatusError::unimplemented(&format!("the CEL expression `{text}`")));
            }
        };
        Ok(Self { text, parsed })
    }

    /// An expression of a rate limit.
    pub(crate) fn of_rate_limit(text: String) -> Result<Self, StatusError> {
        Self::new(text, &Environment::LIMIT)
    }
}

impl BatchOptions {
    /// The key of a definition that has none.
    pub(crate) const DEFAULT_KEY: &str = "'default'";

    /// Options as they were sent. A key that may be valid CEL, but is not supported here, is rejected. An invalid one is not: the tasks
    /// fail when they are created.
    pub(crate) fn new(
        max_size: i32,
        max_interval_ms: Option<i32>,
        group_key: Option<String>,
        group_max_runs: Option<i32>,
        broadcast_output: bool,
    ) -> Result<Self, StatusError> {
        let key = group_key.filter(|key| !key.is_empty()).unwrap_or_else(|| Self::DEFAULT_KEY.to_owned());
        Ok(Self {
            max_size,
            max_interval_ms: max_interval_ms.unwrap_or(1000),
            group_key: Cel::new(key, &Environment::LIMIT)?,
            group_max_runs: group_max_runs.unwrap_or(100),
            broadcast_output,
        })
    }
}

impl On {
    /// The output of a parent.
    pub(crate) fn parent(name: String, expression: &str) -> Result<Self, StatusError> {
        Ok(Self::Parent(name, condition(expression)?))
    }

    /// An event with a key.
    pub(crate) fn event(key: String, expression: &str) -> Result<Self, StatusError> {
        Ok(Self::Event(key, condition(expression)?))
    }
}

/// Parses the expression of a condition. An empty one is always true, and an invalid one is always false, as in the real engine.
/// One that may be valid CEL, but is not supported here, is rejected.
fn condition(text: &str) -> Result<Expression, StatusError> {
    if text.is_empty() {
        return Ok(Expression::constant(true));
    }
    match Expression::parse(text, &Environment::CONDITION) {
        Err(ParseError::Invalid) => Ok(Expression::constant(false)),
        Err(ParseError::Unsupported) => Err(StatusError::unimplemented(&format!("conditions like `{text}`"))),
        Ok(expression) => Ok(expression),
    }
}
