//! When a lost stream is opened again. Pure; one for each stream.

use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::transport::retry_delay;

/// The memory of one stream's losses.
///
/// A stream that has delivered something is opened again at once: most losses are a server that restarts or hangs up
/// properly. From then on each loss without anything delivered in between waits longer. What resets it is a message, not
/// a connection: a server that accepts and drops at once must not be called in a loop.
#[derive(Debug, Clone)]
pub(crate) struct Reconnect {
    losses: u32,
    longest: Duration,
    /// The error of the last message that could not be decoded.
    unreadable: Option<String>,
}

impl Reconnect {
    pub(crate) fn new(longest: Duration) -> Self {
        Self { losses: 0, longest, unreadable: None }
    }

    /// Something valid has arrived.
    pub(crate) fn delivered(&mut self) {
        self.losses = 0;
    }

    /// The stream is lost. Tells how long to wait, or `None` if no opening will ever succeed.
    pub(crate) fn lost(&mut self, error: Option<&Error>, chance: f64) -> Option<Duration> {
        if error.is_some_and(|error| is_hopeless(error) || error.forbids_retries()) {
            return None;
        }
        let losses = self.losses;
        self.losses = losses.saturating_add(1);
        Some(match losses {
            0 => Duration::ZERO,
            _ => error.and_then(Error::retry_after).unwrap_or_else(|| retry_delay(losses, chance)).min(self.longest),
        })
    }

    /// Logs a loss: the first one as a debug message, the next three as warnings, and further ones as debug messages. A
    /// message that cannot be decoded is a warning once, because the server sends it again on the next stream.
    pub(crate) fn log(&mut self, stream: &str, error: Option<&Error>) {
        let is_new = self.is_new_unreadable(error);
        let error = error.map(ToString::to_string);
        let error = error.as_deref().unwrap_or("the server ended the stream");
        match self.losses {
            _ if is_new => tracing::warn!(stream, error, "failed to decode a message of a stream"),
            0..=1 => tracing::debug!(stream, error, "stream ended"),
            2..=4 => tracing::warn!(stream, error, losses = self.losses, "stream lost"),
            _ => tracing::debug!(stream, error, losses = self.losses, "stream still lost"),
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

/// The refusal of a token that was accepted before is transient.
fn is_hopeless(error: &Error) -> bool {
    use ErrorKind::{Closed, Config, Unauthenticated, Unimplemented};
    matches!(error.kind(), Closed | Config | Unauthenticated | Unimplemented) && !error.is_transient()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: Duration = Duration::from_secs(2);

    #[test]
    fn at_once_and_then_ever_later_up_to_the_cap() {
        let mut reconnect = Reconnect::new(CAP);
        let delays: Vec<_> = (0..8).filter_map(|_| reconnect.lost(None, 1.0)).map(|delay| delay.as_millis()).collect();
        assert_eq!(delays, [0, 50, 100, 200, 400, 800, 1600, 2000]);
        reconnect.delivered();
        assert_eq!(reconnect.lost(None, 1.0), Some(Duration::ZERO));
    }

    #[test]
    fn undecodable_messages_are_one_warning() {
        let mut reconnect = Reconnect::new(CAP);
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
            assert_eq!(reconnect.is_new_unreadable(error), is_new, "{error:?}");
        }
    }

    #[test]
    fn what_cannot_get_better_is_not_tried_again() {
        for kind in [ErrorKind::Unauthenticated, ErrorKind::Unimplemented, ErrorKind::Closed] {
            assert_eq!(Reconnect::new(CAP).lost(Some(&Error::new(kind, "no")), 0.0), None);
        }
        let refused_for_now = Error::new(ErrorKind::Unauthenticated, "no").transient();
        assert_eq!(Reconnect::new(CAP).lost(Some(&refused_for_now), 0.0), Some(Duration::ZERO));
        let not_found = Error::new(ErrorKind::NotFound, "no");
        assert_eq!(Reconnect::new(CAP).lost(Some(&not_found), 0.0), Some(Duration::ZERO));
    }
}
