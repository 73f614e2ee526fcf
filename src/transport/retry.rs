//! Decides whether and when a failed call is retried. Pure: the remaining time and the jitter are parameters.

use std::time::Duration;

use crate::error::Error;

/// The maximum delay before the first retry.
const BASE_DELAY: Duration = Duration::from_millis(50);
const MAX_DELAY: Duration = Duration::from_secs(2);

/// Whether to retry a failed call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// Retry after this delay.
    After(Duration),
    /// Return the error.
    No,
}

/// A call is retried if the error is transient, if a second execution has no additional effect, and if the delay ends before the
/// deadline. The caller checks the retry budget afterwards, because the check withdraws from it.
///
/// `failures`: the number of failed tries, including this one. `left`: the time until the deadline. `jitter`: from 0 to 1.
pub(super) fn decide(error: &Error, idempotent: bool, failures: u32, left: Duration, jitter: f64) -> Retry {
    if !error.is_transient() || !(idempotent || error.has_no_side_effects()) {
        return Retry::No;
    }
    // A delay that the server requests takes precedence.
    let delay = error.pushback().unwrap_or_else(|| delay(failures, jitter));
    if delay >= left { Retry::No } else { Retry::After(delay) }
}

/// Exponential back-off. The jitter is at most half of the delay, so that there is always a pause.
pub(crate) fn delay(failures: u32, jitter: f64) -> Duration {
    let range = BASE_DELAY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(MAX_DELAY);
    range.mul_f64(0.5 + jitter / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const LEFT: Duration = Duration::from_secs(30);

    fn lost() -> Error {
        Error::new(ErrorKind::Unavailable, "lost").transient()
    }

    #[test]
    fn only_transient_errors_of_repeatable_calls_are_retried() {
        assert!(matches!(decide(&lost(), true, 1, LEFT, 0.0), Retry::After(_)));
        assert!(matches!(decide(&lost().without_side_effects(), false, 1, LEFT, 0.0), Retry::After(_)));
        assert_eq!(decide(&lost(), false, 1, LEFT, 0.0), Retry::No, "the call may have had an effect");
        assert_eq!(decide(&Error::new(ErrorKind::Rejected, "no"), true, 1, LEFT, 0.0), Retry::No);
    }

    #[test]
    fn the_servers_delay_is_used_if_it_ends_before_the_deadline() {
        let error = lost().with_retry_after(Some(Duration::from_secs(7)));
        assert_eq!(decide(&error, true, 1, LEFT, 0.9), Retry::After(Duration::from_secs(7)));
        let error = lost().with_retry_after(Some(LEFT));
        assert_eq!(decide(&error, true, 1, LEFT, 0.9), Retry::No);
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
