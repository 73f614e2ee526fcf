//! The clock of a server, derived from the `Date` headers of its responses.

use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use crate::sync::lock;

/// The difference up to which two clocks count as equal: a date is in whole seconds, and its response has been on the way.
const TOLERANCE: TimeDelta = TimeDelta::seconds(5);

/// The clock of a server. Clones share what is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServerClock(Arc<Mutex<Option<Received>>>);

/// The last date of a server, and when it was received.
#[derive(Debug, Clone, Copy)]
struct Received {
    date: DateTime<Utc>,
    at: Instant,
}

impl ServerClock {
    /// Records the date of a response, as in its `Date` header.
    pub(crate) fn record_date(&self, date: &str) {
        if let Ok(date) = DateTime::parse_from_rfc2822(date) {
            *lock(&self.0) = Some(Received { date: date.to_utc(), at: Instant::now() });
        }
    }

    /// By how much the server's clock is ahead of one that shows this time now. Zero if they are nearly equal, or if it is not known.
    fn offset(&self, now: DateTime<Utc>) -> TimeDelta {
        let Some(Received { date, at }) = *lock(&self.0) else { return TimeDelta::zero() };
        let elapsed = TimeDelta::from_std(at.elapsed()).unwrap_or_default();
        let offset = date.signed_duration_since(now).checked_add(&elapsed).unwrap_or_default();
        if offset.abs() <= TOLERANCE { TimeDelta::zero() } else { offset }
    }

    /// The time of the server. `now`: the same time by a clock that is used if the server's is not known.
    pub(crate) fn time(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        now.checked_add_signed(self.offset(now)).unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_offset_is_that_of_the_last_date() {
        let (clock, own) = (ServerClock::default(), "2026-11-26T06:00:00Z".parse::<DateTime<Utc>>().unwrap());
        assert_eq!(clock.offset(own), TimeDelta::zero());
        clock.record_date("Thu, 26 Nov 2026 05:54:00 GMT");
        assert_eq!(clock.clone().offset(own), TimeDelta::minutes(-6));
        // Both clocks go on.
        tokio::time::advance(Duration::from_secs(60)).await;
        let own = own + TimeDelta::minutes(1);
        assert_eq!(clock.offset(own), TimeDelta::minutes(-6));
        clock.record_date("no date");
        assert_eq!(clock.offset(own), TimeDelta::minutes(-6));
        clock.record_date("Thu, 26 Nov 2026 06:01:06 GMT");
        assert_eq!(clock.offset(own), TimeDelta::seconds(6));
        clock.record_date("Thu, 26 Nov 2026 06:00:55 GMT");
        assert_eq!(clock.offset(own), TimeDelta::zero(), "nearly equal");
    }
}
