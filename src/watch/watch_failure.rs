//! How long a stream of chunks continues after its watch has failed: the pure core of its end.
//!
//! Without the watch, the end of the run is not known. The engine announces ends that are none, and a task that was cancelled can go on
//! sending chunks.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

/// How long to keep reading after the last event of the run.
const MAX_IDLE: Duration = Duration::from_secs(10);
/// The same after the announced completion of a single-task run.
const MAX_DELAY_AFTER_COMPLETION: Duration = Duration::from_secs(1);
/// The maximum time after another announced end if no later attempt or task begins.
const MAX_TIME_AFTER_END: Duration = Duration::from_secs(30);

/// The error of a watch, and what has happened since.
#[derive(Debug)]
pub(super) struct WatchFailure {
    error: Error,
    last_event_at: Instant,
    limit: Option<Instant>,
}

/// What the stream has received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// A chunk, the end of an attempt, or a loss of the subscription.
    Event,
    /// The first event of a task or of a later attempt.
    Beginning,
    /// The announced end of a single-task run that has completed.
    Completion,
    /// The announced end of the run, which may be wrong: an attempt can be retried, and a DAG run can continue.
    End,
}

impl WatchFailure {
    pub(super) fn new(error: Error, now: Instant) -> Self {
        Self { error, last_event_at: now, limit: None }
    }

    pub(super) fn received(&mut self, now: Instant, received: Received) {
        self.last_event_at = now;
        self.limit = match received {
            Received::Event => self.limit,
            Received::Beginning => None,
            Received::Completion => Some(now + MAX_DELAY_AFTER_COMPLETION),
            Received::End => Some(now + MAX_TIME_AFTER_END),
        };
    }

    /// When the stream ends with the error.
    pub(super) fn ends_at(&self) -> Instant {
        let idle = self.last_event_at + MAX_IDLE;
        self.limit.map_or(idle, |limit| limit.min(idle))
    }

    pub(super) fn into_error(self) -> Error {
        self.error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// The seconds after which a stream ends, if each thing is received at its second.
    fn ends_after(received: &[(u64, Received)]) -> u64 {
        let start = Instant::now();
        let mut failure = WatchFailure::new(Error::new(ErrorKind::Rejected, "no"), start);
        for (at, received) in received {
            let now = start + Duration::from_secs(*at);
            assert!(now < failure.ends_at(), "it has ended before {at}");
            failure.received(now, *received);
        }
        (failure.ends_at() - start).as_secs()
    }

    #[test]
    fn a_stream_ends_some_time_after_the_last_event() {
        use Received::{Beginning, Completion, End, Event};
        assert_eq!(ends_after(&[]), 10);
        assert_eq!(ends_after(&[(9, Event), (18, Event)]), 28);
        assert_eq!(ends_after(&[(5, Completion)]), 6);
        // The last chunks can follow the end.
        assert_eq!(ends_after(&[(5, End), (6, Event)]), 16);
        // The attempt is retried.
        assert_eq!(ends_after(&[(5, End), (14, Beginning), (23, Event), (32, Event), (41, Event)]), 51);
        // A task that was cancelled goes on sending.
        assert_eq!(ends_after(&[(5, End), (14, Event), (23, Event), (32, Event)]), 35);
    }
}
