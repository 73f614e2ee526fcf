//! Decides whether and when a failed call is retried. Pure: the remaining time and the jitter are parameters.

use std::time::Duration;

use crate::error::Error;

/// The maximum delay before the first retry.
const BASE_DELAY: Duration = Duration::from_millis(50);
const MAX_DELAY: Duration = Duration::from_secs(2);

/// Which failed calls may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// A second execution has no additional effect.
    Always,
    /// Only if the server has certainly not processed the call.
    IfUnprocessed,
    /// Not even then: the call is only right at the moment when it is made.
    Never,
}

/// Whether to retry a failed call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// Retry after this delay.
    After(Duration),
    /// Return the error.
    No,
}

/// A call is retried if the error is transient, if the call may be sent again, and if the delay ends before the deadline. The caller checks
/// the retry budget afterwards, because the check withdraws from it.
///
/// `failures`: the number of failed tries, including this one. `left`: the time until the deadline. `jitter`: from 0 to 1.
pub(super) fn decide(error: &Error, repeat: Repeat, failures: u32, left: Duration, jitter: f64) -> Retry {
    let is_allowed = match repeat {
        Repeat::Always => true,
        Repeat::IfUnprocessed => error.has_no_side_effects(),
        Repeat::Never => false,
    };
    if !is_allowed || !error.is_transient() {
        return Retry::No;
    }
    // A delay that the server requests takes precedence.
    let delay = error.pushback().unwrap_or_else(|| delay(failures, jitter));
    if delay >= left { Retry::No } else { Retry::After(delay) }
}

/// Exponential backoff. The jitter is at most half of the delay, so that there is always a pause.
pub(crate) fn delay(failures: u32, jitter: f64) -> Duration {
    let range = BASE_DELAY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(MAX_DELAY);
    range.mul_f64(0.5 + jitter / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorKind, RetryAfter};

    const LEFT: Duration = Duration::from_secs(30);

    fn lost() -> Error {
        Error::new(ErrorKind::Unavailable, "lost").transient()
    }

    #[test]
    fn only_transient_errors_of_repeatable_calls_are_retried() {
        let decide = |error: Error, repeat| decide(&error, repeat, 1, LEFT, 0.0);
        assert!(matches!(decide(lost(), Repeat::Always), Retry::After(_)));
        assert!(matches!(decide(lost().without_side_effects(), Repeat::IfUnprocessed), Retry::After(_)));
        assert_eq!(decide(lost(), Repeat::IfUnprocessed), Retry::No, "the call may have had an effect");
        assert_eq!(decide(lost().without_side_effects(), Repeat::Never), Retry::No);
        assert_eq!(decide(Error::new(ErrorKind::Rejected, "no"), Repeat::Always), Retry::No);
    }

    #[test]
    fn the_servers_delay_is_used_if_it_ends_before_the_deadline() {
        let error = lost().with_retry_after(Some(RetryAfter::Delay(Duration::from_secs(7))));
        assert_eq!(decide(&error, Repeat::Always, 1, LEFT, 0.9), Retry::After(Duration::from_secs(7)));
        let error = lost().with_retry_after(Some(RetryAfter::Delay(LEFT)));
        assert_eq!(decide(&error, Repeat::Always, 1, LEFT, 0.9), Retry::No);
    }

    #[test]
    fn delays_double_up_to_the_maximum() {
        assert_eq!(delay(1, 0.0), Duration::from_millis(25));
        assert_eq!(delay(1, 1.0), Duration::from_millis(50));
        assert_eq!(delay(3, 1.0), Duration::from_millis(200));
        assert_eq!(delay(u32::MAX, 1.0), MAX_DELAY);
        assert_eq!(delay(0, 0.0), Duration::from_millis(25));
    }
}
