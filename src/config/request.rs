//! Options of single requests: their deadline and their retries.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The range of deadlines is that of the configuration's [`rpc_timeout`](super::ConfigBuilder::rpc_timeout).
const MIN_TIMEOUT: Duration = Duration::from_millis(1);
/// The maximum of all timeouts and intervals, so that adding one to an instant does not overflow.
pub(super) const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// How many times a failed call is retried.
///
/// A call is retried only if that is safe: if it is idempotent, or if the server certainly did not process it.
///
/// By default, calls are retried until their deadline, with exponential backoff and a budget that all calls of a client share: it stops
/// retries when most calls fail.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, greet: hatchet::Task<(), ()>) -> hatchet::Result<()> {
/// use std::time::Duration;
/// use hatchet::config::RetryPolicy;
///
/// // Each call is tried once, for at most half a second: the start request, and for the first run of a workflow in a minute, a call that
/// // confirms that the run was created.
/// hatchet.run(&greet, &()).timeout(Duration::from_millis(500)).retry(RetryPolicy::none()).start().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RetryPolicy {
    max_retries: u32,
}

impl RetryPolicy {
    /// Creates a policy that never retries.
    pub const fn none() -> Self {
        Self { max_retries: 0 }
    }

    /// Creates a policy that retries each call at most this many times.
    pub const fn max_retries(count: u32) -> Self {
        Self { max_retries: count }
    }

    pub(crate) fn allows(self, failures: u32) -> bool {
        failures <= self.max_retries
    }
}

impl fmt::Display for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.max_retries {
            0 => f.write_str("no retries"),
            u32::MAX => f.write_str("retries until the deadline"),
            1 => f.write_str("at most 1 retry"),
            count => write!(f, "at most {count} retries"),
        }
    }
}

/// Calls are retried until their deadline.
impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_retries: u32::MAX }
    }
}

/// What a request sets instead of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RequestOptions {
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: Option<RetryPolicy>,
}

impl RequestOptions {
    pub(crate) fn is_default(self) -> bool {
        self == Self::default()
    }

    /// These options, and others where they have none.
    pub(crate) fn or(self, others: Self) -> Self {
        Self { timeout: self.timeout.or(others.timeout), retry: self.retry.or(others.retry) }
    }

    pub(crate) fn check(self) -> Result<()> {
        match self.timeout.filter(|timeout| !(MIN_TIMEOUT..=MAX_TIMEOUT).contains(timeout)) {
            Some(timeout) => Err(Error::invalid("timeout", format_args!("expected 1ms to 24h, got {timeout:?}"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_limits_the_retries() {
        assert!(!RetryPolicy::none().allows(1));
        assert!(RetryPolicy::max_retries(2).allows(2) && !RetryPolicy::max_retries(2).allows(3));
        assert!(RetryPolicy::default().allows(u32::MAX));
    }

    #[test]
    fn policies_are_described() {
        let shown =
            [RetryPolicy::none(), RetryPolicy::max_retries(1), RetryPolicy::max_retries(2), RetryPolicy::default()];
        let expected = ["no retries", "at most 1 retry", "at most 2 retries", "retries until the deadline"];
        assert_eq!(shown.map(|policy| policy.to_string()), expected);
    }

    #[test]
    fn timeouts_are_checked() {
        let check = |timeout| RequestOptions { timeout: Some(timeout), retry: None }.check();
        assert!(check(MIN_TIMEOUT).is_ok() && check(MAX_TIMEOUT).is_ok());
        for timeout in [Duration::ZERO, MAX_TIMEOUT + MIN_TIMEOUT] {
            assert!(check(timeout).unwrap_err().to_string().starts_with("invalid timeout: expected 1ms to 24h, got "));
        }
    }
}
