//! Concurrency limits and rate limits, as they are sent; and the rows of rate limits in REST.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::rest_events_and_crons::Row;
use crate::model::concurrency::ConcurrencyStrategy;
use crate::model::rate_limit::RateLimitKey;
use crate::model::{Concurrency, RateLimit, RateLimitDetails, RateLimitWindow};
use crate::rpc::pb::v1::{
    Concurrency as ConcurrencyMessage, ConcurrencyLimitStrategy, CreateTaskRateLimit, RateLimitDuration,
};
use crate::time::optional_time;

/// The maximum size of the field number and the length before each element of a repeated field.
pub(super) const MAX_ELEMENT_OVERHEAD: usize = 6;

/// The expression of a limit's size that keeps the size of an existing limit. Without an expression, the engine would set the size to 0.
const KEEP_SIZE: &str = "-1";

impl From<Concurrency> for ConcurrencyMessage {
    fn from(limit: Concurrency) -> Self {
        let strategy = match limit.strategy {
            ConcurrencyStrategy::GroupRoundRobin => ConcurrencyLimitStrategy::GroupRoundRobin,
            ConcurrencyStrategy::CancelInProgress => ConcurrencyLimitStrategy::CancelInProgress,
            ConcurrencyStrategy::CancelNewest => ConcurrencyLimitStrategy::CancelNewest,
            ConcurrencyStrategy::CancelQueuedExceptNewest => ConcurrencyLimitStrategy::CancelQueuedExceptNewest,
            ConcurrencyStrategy::CancelQueuedExceptOldest => ConcurrencyLimitStrategy::CancelQueuedExceptOldest,
        };
        Self {
            max_runs: Some(limit.limit()),
            limit_strategy: Some(strategy.into()),
            expression: limit.expression,
            name: limit.name,
            is_tenant_scoped: limit.is_tenant_scoped.then_some(true),
            max_runs_expression: limit.max_runs_expression,
        }
    }
}

/// The units that a task consumes.
pub(super) fn rate_limit(limit: &RateLimit) -> CreateTaskRateLimit {
    let (units, units_expr) = (limit.fixed_units(), limit.units_expression.clone());
    match &limit.key {
        RateLimitKey::Static(key) => CreateTaskRateLimit {
            key: key.clone(),
            units,
            // With an expression, the engine treats the limit as a dynamic one.
            limit_values_expr: units_expr.is_some().then(|| KEEP_SIZE.to_owned()),
            units_expr,
            ..CreateTaskRateLimit::default()
        },
        RateLimitKey::Dynamic(expression) => CreateTaskRateLimit {
            // Required, and otherwise unused.
            key: expression.clone(),
            key_expr: Some(expression.clone()),
            units,
            units_expr,
            limit_values_expr: limit.limit_text(),
            duration: Some(window(limit.window).into()),
        },
    }
}

/// The window, by the number that both of the contract's enums for it have.
pub(in crate::rpc) fn window(window: RateLimitWindow) -> RateLimitDuration {
    match window {
        RateLimitWindow::Second => RateLimitDuration::Second,
        RateLimitWindow::Minute => RateLimitDuration::Minute,
        RateLimitWindow::Hour => RateLimitDuration::Hour,
        RateLimitWindow::Day => RateLimitDuration::Day,
        RateLimitWindow::Week => RateLimitDuration::Week,
        RateLimitWindow::Month => RateLimitDuration::Month,
        RateLimitWindow::Year => RateLimitDuration::Year,
    }
}

/// A rate limit of the tenant.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RateLimitRow {
    key: String,
    limit_value: i64,
    value: i64,
    #[serde(default)]
    window: String,
    #[serde(default, deserialize_with = "optional_time")]
    last_refill: Option<DateTime<Utc>>,
}

impl Row for RateLimitRow {
    type Id = String;

    fn id(&self) -> String {
        self.key.clone()
    }
}

impl From<RateLimitRow> for RateLimitDetails {
    fn from(row: RateLimitRow) -> Self {
        // "1 MINUTE"
        let name = row.window.strip_prefix("1 ").unwrap_or(&row.window).to_lowercase();
        Self {
            key: row.key,
            limit: row.limit_value,
            remaining: row.value,
            window: RateLimitWindow::ALL.into_iter().find(|window| window.to_string() == name),
            last_refill_at: row.last_refill,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_limit_with_an_expression_keeps_its_size() {
        let sent = rate_limit(&RateLimit::new("openai").units(2));
        assert_eq!(
            sent,
            CreateTaskRateLimit { key: "openai".into(), units: Some(2), ..CreateTaskRateLimit::default() }
        );
        let sent = rate_limit(&RateLimit::new("openai").units_expression("input.n"));
        let (units, size) = (sent.units_expr.as_deref(), sent.limit_values_expr.as_deref());
        assert_eq!((sent.units, units, size, sent.key_expr), (None, Some("input.n"), Some("-1"), None));
    }

    #[test]
    fn a_dynamic_limit_has_units_and_a_size() {
        let sent = rate_limit(&RateLimit::dynamic("input.user", RateLimitWindow::Day).limit(3));
        assert_eq!(
            (sent.key.as_str(), sent.key_expr.as_deref(), sent.units),
            ("input.user", Some("input.user"), Some(1))
        );
        assert_eq!((sent.limit_values_expr.as_deref(), sent.duration()), (Some("3"), RateLimitDuration::Day));
    }

    #[test]
    fn rows_are_converted() {
        let row = r#"{"key":"a","tenantId":"t","limitValue":3,"value":4,"window":"1 HOUR","lastRefill":"2026-11-23T14:09:19Z"}"#;
        let details = RateLimitDetails::from(serde_json::from_str::<RateLimitRow>(row).unwrap());
        assert_eq!((details.key.as_str(), details.limit, details.remaining), ("a", 3, 4));
        assert_eq!((details.window, details.last_refill_at.is_some()), (Some(RateLimitWindow::Hour), true));
        let row =
            serde_json::from_str::<RateLimitRow>(r#"{"key":"a","limitValue":3,"value":4,"window":"2 EONS"}"#).unwrap();
        assert_eq!(RateLimitDetails::from(row).window, None);
    }

    #[test]
    fn a_concurrency_limit_without_a_number_is_one() {
        let sent = ConcurrencyMessage::from(Concurrency::new("'a'", ConcurrencyStrategy::CancelNewest));
        assert_eq!((sent.max_runs, sent.limit_strategy()), (Some(1), ConcurrencyLimitStrategy::CancelNewest));
        assert_eq!((sent.name, sent.is_tenant_scoped, sent.max_runs_expression), (None, None, None));
    }
}
