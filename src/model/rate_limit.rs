//! Rate limits: what a task consumes, and what the tenant has.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::expression::{key_problem, number_problem};
use super::name::parse_name;
use crate::error::{Error, Result};

/// The window of a rate limit.
///
/// It is not a sliding window: all units are refilled at once at its end.
///
/// ```
/// use hatchet::model::RateLimitWindow;
///
/// assert_eq!("minute".parse::<RateLimitWindow>()?, RateLimitWindow::Minute);
/// # Ok::<(), hatchet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RateLimitWindow {
    /// One second. The engine checks its queues less often: with a limit of 1, it starts a task about every 2.3 seconds.
    Second,
    /// 60 seconds.
    Minute,
    /// 60 minutes.
    Hour,
    /// 24 hours.
    Day,
    /// Seven days.
    Week,
    /// A calendar month, of 28 to 31 days.
    Month,
    /// A calendar year.
    Year,
}

impl RateLimitWindow {
    pub(crate) const ALL: [Self; 7] =
        [Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];
}

impl fmt::Display for RateLimitWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        })
    }
}

impl FromStr for RateLimitWindow {
    type Err = Error;

    /// Parses a name such as `minute`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for any other string.
    fn from_str(name: &str) -> Result<Self> {
        parse_name("rate limit window", &Self::ALL, name)
    }
}

/// The units of a rate limit that each attempt of a task consumes.
///
/// A task waits until enough units are left.
///
/// A static limit has a key, and is created with [`Client::rate_limit`](crate::Client::rate_limit) before a worker registers the task. A
/// dynamic limit has an expression that computes the key from the input; the engine creates a limit for each key.
///
/// Expressions are CEL over `input` and `additional_metadata`. If an expression cannot be evaluated, the task fails without an attempt and
/// is not retried. Keys are shared by all workflows of the tenant, and the client's namespace is not added to them.
///
/// A task that waits for units starts up to a few seconds after they are refilled. The first task that uses a new key starts about 1.2
/// seconds late. A task that waits longer than its [schedule timeout](crate::Task::schedule_timeout) times out.
///
/// ```
/// use hatchet::model::RateLimitWindow;
/// use hatchet::workflow::RateLimit;
/// use hatchet::{Context, Task};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Prompt { user: String, tokens: u32 }
///
/// let ask = Task::new("ask", async |_: Prompt, _: Context| Ok(()))
///     .rate_limit(RateLimit::new("openai").units(2))
///     .rate_limit(
///         RateLimit::dynamic("'tokens:' + input.user", RateLimitWindow::Hour).limit(10_000).units_expression("input.tokens"),
///     );
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a rate limit has no effect before it is added to a task"]
pub struct RateLimit {
    pub(crate) key: RateLimitKey,
    units: Option<u32>,
    pub(crate) units_expression: Option<String>,
    limit: Option<u32>,
    limit_expression: Option<String>,
    pub(crate) window: RateLimitWindow,
}

/// The key of a limit, or the expression that computes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RateLimitKey {
    Static(String),
    Dynamic(String),
}

impl RateLimitKey {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Static(text) | Self::Dynamic(text) => text,
        }
    }
}

impl RateLimit {
    /// Creates a static rate limit: each attempt consumes units of the limit with this key, which must exist.
    pub fn new(key: impl Into<String>) -> Self {
        Self::with_key(RateLimitKey::Static(key.into()), RateLimitWindow::Minute)
    }

    /// Creates a dynamic rate limit: each attempt consumes units of the limit whose key an expression computes.
    ///
    /// The key must be a string. The size of the limit must be set with [`limit`](Self::limit) or
    /// [`limit_expression`](Self::limit_expression): otherwise, the engine would create a limit of 0.
    pub fn dynamic(key_expression: impl Into<String>, window: RateLimitWindow) -> Self {
        Self::with_key(RateLimitKey::Dynamic(key_expression.into()), window)
    }

    fn with_key(key: RateLimitKey, window: RateLimitWindow) -> Self {
        Self { key, units: None, units_expression: None, limit: None, limit_expression: None, window }
    }

    /// Sets the number of units that an attempt consumes, at least 1. The default is 1.
    pub fn units(mut self, units: u32) -> Self {
        self.units = Some(units);
        self
    }

    /// Sets an expression that computes the number of units. Fractions are truncated. A negative number refills units, even beyond the limit.
    pub fn units_expression(mut self, expression: impl Into<String>) -> Self {
        self.units_expression = Some(expression.into());
        self
    }

    /// Sets the size of a dynamic limit: the number of units in a window, at least 1.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Sets an expression that computes the size of a dynamic limit. A negative number keeps the size of an existing limit.
    pub fn limit_expression(mut self, expression: impl Into<String>) -> Self {
        self.limit_expression = Some(expression.into());
        self
    }

    /// The number of units, unless an expression computes them.
    pub(crate) fn fixed_units(&self) -> Option<i32> {
        let units = self.units.map_or(1, |units| i32::try_from(units).unwrap_or(i32::MAX));
        self.units_expression.is_none().then_some(units)
    }

    /// The expression of the limit's size. `None` for a limit that is not changed.
    pub(crate) fn limit_text(&self) -> Option<String> {
        self.limit_expression.clone().or_else(|| self.limit.map(|limit| limit.to_string()))
    }

    /// What the engine would reject, or would never run.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        match &self.key {
            RateLimitKey::Static(key) if key.is_empty() || key.contains('\0') => {
                problems.push(format!("expected a non-empty key without U+0000, got {key:?}"));
            }
            RateLimitKey::Dynamic(expression) => problems.extend(key_problem(expression)),
            RateLimitKey::Static(_) => {}
        }
        for (name, number) in [("units", self.units), ("limit", self.limit)] {
            if let Some(number) = number.filter(|&number| number < 1 || i32::try_from(number).is_err()) {
                problems.push(format!("{name}: expected 1 to {}, got {number}", i32::MAX));
            }
        }
        let expressions = [&self.units_expression, &self.limit_expression];
        problems.extend(expressions.into_iter().flatten().filter_map(|expression| number_problem(expression)));
        if self.units.is_some() && self.units_expression.is_some() {
            problems.push("expected units or units_expression, got both".into());
        }
        if self.limit.is_some() && self.limit_expression.is_some() {
            problems.push("expected limit or limit_expression, got both".into());
        }
        let has_limit = self.limit.is_some() || self.limit_expression.is_some();
        match &self.key {
            RateLimitKey::Static(_) if has_limit => {
                problems.push("expected no limit or limit_expression for a static key, whose limit is set with Client::rate_limit, got one".into());
            }
            RateLimitKey::Dynamic(_) if !has_limit => {
                problems.push("expected limit or limit_expression for a dynamic key, got none".into());
            }
            _ => {}
        }
        problems.into_iter().map(|problem| format!("rate limit {:?}: {problem}", self.key.text())).collect()
    }
}

/// A rate limit of the tenant; see [`Client::rate_limits`](crate::Client::rate_limits).
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// let limit = hatchet.rate_limit_handle("openai").details().await?;
/// println!("{} of {} units left", limit.remaining, limit.limit);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RateLimitDetails {
    /// The key that tasks refer to.
    pub key: String,
    /// The number of units in a window.
    pub limit: i64,
    /// The number of units that are left in this window. It exceeds the limit if an expression has refilled units. The engine updates the
    /// number once per second, so it can be up to a second old.
    pub remaining: i64,
    /// The window. `None` if this version of the crate does not know it.
    pub window: Option<RateLimitWindow>,
    /// When the units were last refilled.
    pub last_refill_at: Option<DateTime<Utc>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_could_never_run_are_rejected() {
        for fine in [
            RateLimit::new("openai"),
            RateLimit::new("openai").units(2),
            RateLimit::new("openai").units_expression("input.tokens"),
            RateLimit::dynamic("'a:' + input.user", RateLimitWindow::Day).limit(1),
            RateLimit::dynamic("input.user", RateLimitWindow::Day).limit_expression("-1").units(3),
            RateLimit::dynamic("input.user", RateLimitWindow::Day).limit_expression("3").units(3),
            RateLimit::dynamic("input.user", RateLimitWindow::Day).limit(3).units_expression("-5"),
        ] {
            assert_eq!(fine.problems(), Vec::<String>::new());
        }
        assert_eq!(
            RateLimit::new("").units(0).limit(1).problems(),
            [
                "rate limit \"\": expected a non-empty key without U+0000, got \"\"",
                "rate limit \"\": units: expected 1 to 2147483647, got 0",
                "rate limit \"\": expected no limit or limit_expression for a static key, whose limit is set with Client::rate_limit, got one",
            ]
        );
        assert_eq!(
            RateLimit::dynamic("1", RateLimitWindow::Hour).problems(),
            [
                "rate limit \"1\": expected a CEL expression that returns a string, got \"1\"",
                "rate limit \"1\": expected limit or limit_expression for a dynamic key, got none",
            ]
        );
        let dynamic = || RateLimit::dynamic("input.a", RateLimitWindow::Hour);
        // Other tasks can give the key a greater limit, or refill it.
        assert_eq!(dynamic().units(3).limit(2).problems(), Vec::<String>::new());
        assert_eq!(
            dynamic().units_expression("'1'").limit_expression("true").problems(),
            [
                "rate limit \"input.a\": expected a CEL expression that returns a number, got \"'1'\"",
                "rate limit \"input.a\": expected a CEL expression that returns a number, got \"true\"",
            ]
        );
        let both = dynamic().limit(0).limit_expression("parents.a.x");
        assert_eq!(
            both.units(1).units_expression("(").problems(),
            [
                "rate limit \"input.a\": limit: expected 1 to 2147483647, got 0",
                "rate limit \"input.a\": expected a CEL expression, got \"(\": at character 2: expected an operand, got the end",
                "rate limit \"input.a\": expected a CEL expression over input and additional_metadata, without parents, got \"parents.a.x\"",
                "rate limit \"input.a\": expected units or units_expression, got both",
                "rate limit \"input.a\": expected limit or limit_expression, got both",
            ]
        );
    }
}
