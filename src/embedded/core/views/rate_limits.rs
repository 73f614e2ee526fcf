//! What REST shows of rate limits.

use crate::embedded::core::store::{At, Core, Window};

/// A rate limit as a row of a list.
#[derive(Debug, Clone)]
pub(crate) struct RateLimitView {
    pub(crate) key: String,
    pub(crate) limit: i32,
    /// The units that are left.
    pub(crate) left: i64,
    pub(crate) window: Window,
    pub(crate) last_refill: At,
}

impl Window {
    /// Its name in the contract.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Second => "SECOND",
            Self::Minute => "MINUTE",
            Self::Hour => "HOUR",
            Self::Day => "DAY",
            Self::Week => "WEEK",
            Self::Month => "MONTH",
            Self::Year => "YEAR",
        }
    }
}

impl Core {
    /// All rate limits whose keys contain a string, by their keys. A limit whose window is over is shown as refilled.
    pub(crate) fn rate_limits(&self, search: &str, now: At) -> Vec<RateLimitView> {
        let found = self.rate_limits.iter().filter(|(key, _)| key.contains(search));
        let view = |(key, limit): (&str, &crate::embedded::core::store::RateLimit)| {
            let is_over = limit.window.end(limit.last_refill) <= now;
            let (left, last_refill) = if is_over { (limit.limit.into(), now) } else { (limit.left, limit.last_refill) };
            RateLimitView { key: key.to_owned(), limit: limit.limit, left, window: limit.window, last_refill }
        };
        found.map(view).collect()
    }
}
