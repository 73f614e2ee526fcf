//! Whether a failed call is made again, and when. Pure: the time left and the chance are passed in.

use std::time::Duration;

use crate::error::Error;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// What to do after a failure.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Make the call again after this long.
    Again(Duration),
    /// Hand the error on.
    GiveUp,
}

/// The three questions that need a yes each, but for the budget, which is asked last because asking costs.
///
/// `failures` counts the failed tries so far, this one included; `chance` is in 0..1.
pub(super) fn judge(error: &Error, idempotent: bool, failures: u32, left: Duration, chance: f64) -> Verdict {
    if !error.is_transient() || !(idempotent || error.has_no_side_effects()) {
        return Verdict::GiveUp;
    }
    // The server knows best when it can be asked again.
    let delay = error.pushback().unwrap_or_else(|| delay(failures, chance));
    if delay >= left { Verdict::GiveUp } else { Verdict::Again(delay) }
}

/// Full jitter over a doubling range, but never at once: a server that refuses quickly must not be hammered.
pub(crate) fn delay(failures: u32, chance: f64) -> Duration {
    let range = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST);
    range.mul_f64(0.5 + chance / 2.0)
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
    fn three_yeses() {
        assert!(matches!(judge(&lost(), true, 1, LEFT, 0.0), Verdict::Again(_)));
        assert!(matches!(judge(&lost().without_side_effects(), false, 1, LEFT, 0.0), Verdict::Again(_)));
        assert_eq!(judge(&lost(), false, 1, LEFT, 0.0), Verdict::GiveUp, "it may have happened");
        assert_eq!(judge(&Error::new(ErrorKind::Rejected, "no"), true, 1, LEFT, 0.0), Verdict::GiveUp);
    }

    #[test]
    fn the_servers_delay_wins_and_no_sleep_passes_the_deadline() {
        let asked = lost().with_retry_after(Some(Duration::from_secs(7)));
        assert_eq!(judge(&asked, true, 1, LEFT, 0.9), Verdict::Again(Duration::from_secs(7)));
        let asked = lost().with_retry_after(Some(LEFT));
        assert_eq!(judge(&asked, true, 1, LEFT, 0.9), Verdict::GiveUp);
    }

    #[test]
    fn delays_double_up_to_a_limit_and_are_never_nothing() {
        assert_eq!(delay(1, 0.0), Duration::from_millis(25));
        assert_eq!(delay(1, 1.0), Duration::from_millis(50));
        assert_eq!(delay(3, 1.0), Duration::from_millis(200));
        assert_eq!(delay(u32::MAX, 1.0), LONGEST);
        assert_eq!(delay(0, 0.0), Duration::from_millis(25));
    }
}
