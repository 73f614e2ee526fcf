//! The backoff before a lost stream is reopened.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::telemetry::MAX_WARNINGS;
use crate::transport::REJECTIONS_TRANSIENT_FOR;
use crate::transport::retry::delay;

/// The first loss is no warning: usually the server has ended the stream.
const LAST_WARNING: u32 = 1 + MAX_WARNINGS;

/// The losses of one stream since its last message.
///
/// A delay that the server requests takes precedence, and is not limited. Without one, the first loss after a message has no pause:
/// usually the server has restarted or ended the stream. Each further loss has a longer pause. Only a message resets it, because a server that
/// accepts a stream and drops it must not be called in a loop.
///
/// The engine sends nothing, not even headers, before the first message. So a stream that a proxy ends because it was idle for long looks like
/// one that was never accepted. It was requested long ago, so there is no need for a pause. But it is no recovery, either.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    /// The losses since the last message, without those of idle streams.
    losses: u32,
    /// Those that determine the pause.
    in_succession: u32,
    max: Duration,
    /// Since when the token has been rejected, although other calls may accept it.
    rejected_since: Option<Instant>,
    /// The error of the last message that could not be decoded.
    unreadable: Option<String>,
}

impl Backoff {
    pub(super) fn new(max: Duration) -> Self {
        Self { losses: 0, in_succession: 0, max, rejected_since: None, unreadable: None }
    }

    /// Resets the backoff after a message. Logs the recovery if a loss was logged.
    pub(super) fn reset(&mut self, stream: &str) {
        let losses = std::mem::take(&mut self.losses);
        self.in_succession = 0;
        self.rejected_since = None;
        if losses > 1 {
            tracing::info!(stream, losses, "stream recovered");
        }
    }

    /// The stream that is lost was requested long ago: the next one is requested without a pause. An outage that was logged continues.
    pub(super) fn was_idle(&mut self) {
        self.in_succession = 0;
        if self.losses <= 1 {
            self.losses = 0;
        }
    }

    /// The stream was closed, or was open until it was replaced: what was rejected before says nothing about the next one.
    pub(super) fn forget_rejections(&mut self) {
        self.rejected_since = None;
    }

    /// Returns the pause before the stream is reopened, or `None` if reopening it cannot succeed.
    pub(super) fn lost(&mut self, error: Option<&Error>, jitter: f64) -> Option<Duration> {
        if error.is_some_and(|error| is_permanent(error) || error.forbids_retries()) {
            return None;
        }
        if error.is_some_and(|error| error.kind() == ErrorKind::Unauthenticated) {
            let since = *self.rejected_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= REJECTIONS_TRANSIENT_FOR {
                return None;
            }
        } else {
            self.rejected_since = None;
        }
        let losses = self.in_succession;
        self.in_succession = losses.saturating_add(1);
        self.losses = self.losses.saturating_add(1);
        let pause = || if losses == 0 { Duration::ZERO } else { delay(losses, jitter).min(self.max) };
        Some(error.and_then(Error::pushback).unwrap_or_else(pause))
    }

    /// Logs a loss: the first one as a debug message, the next three as warnings, and further ones as debug messages. A
    /// message that cannot be decoded is a warning once, because the server sends it again on the next stream.
    pub(super) fn log(&mut self, stream: &str, error: Option<&Error>) {
        let is_new = self.is_new_unreadable(error);
        let error = error.map(ToString::to_string);
        let error = error.as_deref().unwrap_or("the server ended the stream");
        match self.losses {
            _ if is_new => tracing::warn!(stream, error, "failed to decode a message of a stream"),
            0..=1 => tracing::debug!(stream, error, "stream ended"),
            2..=LAST_WARNING => tracing::warn!(stream, error, losses = self.losses, "stream lost"),
            _ => tracing::debug!(stream, error, losses = self.losses, "stream lost again"),
        }
    }

    /// Whether a stream was lost because of a message that cannot be decoded, with another error than the last time.
    fn is_new_unreadable(&mut self, error: Option<&Error>) -> bool {
        let is_unreadable = |error: &&Error| matches!(error.kind(), ErrorKind::TooLarge | ErrorKind::Decode);
        let Some(reason) = error.filter(is_unreadable).map(ToString::to_string) else { return false };
        let is_new = self.unreadable.as_deref() != Some(&reason);
        self.unreadable = Some(reason);
        is_new
    }
}

/// The rejection of a token that was accepted before is transient.
fn is_permanent(error: &Error) -> bool {
    use ErrorKind::{Closed, Config, Unauthenticated, Unimplemented};
    matches!(error.kind(), Closed | Config | Unauthenticated | Unimplemented) && !error.is_transient()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::RetryAfter;

    const MAX_PAUSE: Duration = Duration::from_secs(2);

    #[test]
    fn pauses_grow_up_to_the_maximum() {
        let mut backoff = Backoff::new(MAX_PAUSE);
        let delays: Vec<_> = (0..8).filter_map(|_| backoff.lost(None, 1.0)).map(|delay| delay.as_millis()).collect();
        assert_eq!(delays, [0, 50, 100, 200, 400, 800, 1600, 2000]);
        backoff.reset("numbers");
        assert_eq!(backoff.lost(None, 1.0), Some(Duration::ZERO));
    }

    #[test]
    fn only_a_message_is_a_recovery() {
        let mut backoff = Backoff::new(MAX_PAUSE);
        // Idle streams that a proxy ends, again and again, are no outage.
        for _ in 0..10 {
            backoff.was_idle();
            assert_eq!((backoff.lost(None, 1.0), backoff.losses), (Some(Duration::ZERO), 1));
        }
        assert_eq!((backoff.lost(None, 1.0).unwrap().as_millis(), backoff.losses), (50, 2));
        // A server that never responds for a while does not end an outage.
        backoff.was_idle();
        assert_eq!((backoff.lost(None, 1.0), backoff.losses), (Some(Duration::ZERO), 3));
        backoff.reset("numbers");
        assert_eq!(backoff.losses, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_rejected_slowly_is_rejected_for_a_limited_time() {
        let mut backoff = Backoff::new(MAX_PAUSE);
        let rejected = Error::new(ErrorKind::Unauthenticated, "no").transient();
        let (start, each) = (Instant::now(), Duration::from_secs(30));
        while backoff.lost(Some(&rejected), 0.0).is_some() {
            tokio::time::advance(each).await;
            backoff.was_idle();
        }
        assert_eq!(start.elapsed(), REJECTIONS_TRANSIENT_FOR);
    }

    #[test]
    fn the_servers_delay_is_used_exactly() {
        let mut backoff = Backoff::new(MAX_PAUSE);
        let asked = RetryAfter::Delay(10 * MAX_PAUSE);
        let error = Error::new(ErrorKind::Unavailable, "lost").transient().with_retry_after(Some(asked));
        for _ in 0..3 {
            assert_eq!(backoff.lost(Some(&error), 1.0), Some(10 * MAX_PAUSE));
        }
        let forbidden = error.with_retry_after(Some(RetryAfter::Never));
        assert_eq!(backoff.lost(Some(&forbidden), 1.0), None);
    }

    #[test]
    fn undecodable_messages_are_one_warning() {
        let mut backoff = Backoff::new(MAX_PAUSE);
        let too_large = |size| Error::new(ErrorKind::TooLarge, format!("found {size} bytes"));
        let lost = Error::new(ErrorKind::Unavailable, "lost").transient();
        for (error, is_new) in [
            (Some(&lost), false),
            (Some(&too_large(5)), true),
            (None, false),
            (Some(&too_large(5)), false),
            (Some(&too_large(6)), true),
            (Some(&Error::new(ErrorKind::Decode, "bad byte")), true),
        ] {
            assert_eq!(backoff.is_new_unreadable(error), is_new, "{error:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_rejected_for_a_limited_time() {
        let mut backoff = Backoff::new(MAX_PAUSE);
        let rejected = Error::new(ErrorKind::Unauthenticated, "no").transient();
        assert!(backoff.lost(Some(&rejected), 0.0).is_some());
        tokio::time::advance(REJECTIONS_TRANSIENT_FOR / 2).await;
        assert!(backoff.lost(Some(&rejected), 0.0).is_some());
        tokio::time::advance(REJECTIONS_TRANSIENT_FOR / 2).await;
        assert_eq!(backoff.lost(Some(&rejected), 0.0), None);
    }

    #[test]
    fn permanent_errors_are_not_retried() {
        for kind in [ErrorKind::Unauthenticated, ErrorKind::Unimplemented, ErrorKind::Closed] {
            assert_eq!(Backoff::new(MAX_PAUSE).lost(Some(&Error::new(kind, "no")), 0.0), None);
        }
        let rejected_for_now = Error::new(ErrorKind::Unauthenticated, "no").transient();
        assert_eq!(Backoff::new(MAX_PAUSE).lost(Some(&rejected_for_now), 0.0), Some(Duration::ZERO));
        let not_found = Error::new(ErrorKind::NotFound, "no");
        assert_eq!(Backoff::new(MAX_PAUSE).lost(Some(&not_found), 0.0), Some(Duration::ZERO));
    }
}
