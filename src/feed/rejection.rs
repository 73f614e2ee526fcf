//! For how long a server has rejected a stream with errors of its own. They can be those of a moment, so it is requested again for a while.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

/// For how long the server may reject a stream with an error of its own.
pub(super) const MAX_REJECTION: Duration = Duration::from_secs(60);

/// Since when a stream has been rejected.
#[derive(Debug, Default)]
pub(super) struct Rejection(Option<Instant>);

impl Rejection {
    /// The server has accepted the stream.
    pub(super) fn end(&mut self) {
        self.0 = None;
    }

    /// The stream was lost. Returns whether the server has rejected it for so long that it is requested in vain. An outage has no end: a
    /// server that responds does.
    pub(super) fn is_final(&mut self, error: Option<&Error>) -> bool {
        if error.is_none_or(Error::is_transient) {
            self.end();
            return false;
        }
        self.0.get_or_insert_with(Instant::now).elapsed() >= MAX_REJECTION
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[tokio::test(start_paused = true)]
    async fn a_rejection_is_final_after_a_minute_without_anything_else() {
        let mut rejection = Rejection::default();
        let rejected = Error::new(ErrorKind::Server, "broken");
        let away = Error::new(ErrorKind::Unavailable, "away").transient();
        assert!(!rejection.is_final(Some(&rejected)));
        tokio::time::advance(MAX_REJECTION / 2).await;
        assert!(!rejection.is_final(Some(&rejected)));
        tokio::time::advance(MAX_REJECTION / 2).await;
        assert!(rejection.is_final(Some(&rejected)));
        for other in [None, Some(&away)] {
            assert!(!rejection.is_final(other));
            assert!(!rejection.is_final(Some(&rejected)), "it begins again");
            tokio::time::advance(MAX_REJECTION).await;
            assert!(rejection.is_final(Some(&rejected)));
        }
        rejection.end();
        assert!(!rejection.is_final(Some(&rejected)));
    }
}
