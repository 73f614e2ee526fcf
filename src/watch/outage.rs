//! How long a watch continues without an answer of the server: the pure core of its retries.
//!
//! A call is retried until its own deadline, and a client has a budget of retries. Both can be over before a server has restarted.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;
use crate::feed::MAX_OUTAGE;
use crate::observe::may_recover;
use crate::transport::retry_delay;

/// The failures since the last success.
#[derive(Debug, Default)]
pub(super) struct Outage {
    since: Option<Instant>,
    failures: u32,
}

impl Outage {
    /// A request has succeeded.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// A request has failed. Returns the pause before the next one, or `None` if the error is the end of the watch.
    pub(super) fn failed(&mut self, now: Instant, error: &Error, jitter: f64) -> Option<Duration> {
        let since = *self.since.get_or_insert(now);
        if !may_recover(error) || now.saturating_duration_since(since) >= MAX_OUTAGE {
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        Some(retry_delay(self.failures, jitter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn transient_errors_are_retried_for_a_minute() {
        let (mut outage, start) = (Outage::default(), Instant::now());
        let error = Error::new(ErrorKind::Unavailable, "away").transient();
        let (mut now, mut pauses) = (start, Vec::new());
        while let Some(pause) = outage.failed(now, &error, 1.0) {
            pauses.push(pause);
            now += pause;
        }
        assert!(now - start >= MAX_OUTAGE && pauses.is_sorted(), "{pauses:?}");
        assert!(pauses.len() > 5 && now - start < 2 * MAX_OUTAGE, "{pauses:?}");
        outage.end();
        assert_eq!(outage.failed(now, &error, 1.0), Some(pauses[0]), "the next outage has a minute of its own");
    }

    #[test]
    fn permanent_errors_are_the_end() {
        let error = Error::new(ErrorKind::Unauthenticated, "refused");
        assert_eq!(Outage::default().failed(Instant::now(), &error, 1.0), None);
    }
}
