//! For how long a server has rejected a stream or a list with errors of its own. These can be temporary, so the request is repeated for a
//! while.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind};

/// For how long the server may reject a request with an error of its own.
pub(super) const MAX_REJECTION: Duration = Duration::from_secs(60);

/// Since when a request has been rejected.
#[derive(Debug, Default)]
pub(super) struct Rejection {
    since: Option<Instant>,
    /// Whether a request was ever accepted. Otherwise, the address or the token may be wrong.
    was_accepted: bool,
}

impl Rejection {
    /// The server has accepted the request.
    pub(super) fn accepted(&mut self) {
        *self = Self { since: None, was_accepted: true };
    }

    /// Another problem has followed.
    pub(super) fn end(&mut self) {
        self.since = None;
    }

    /// The request has failed. Returns whether to stop: the server has rejected the request for too long, or has rejected its
    /// content. An outage is waited out, however long it is; a server that responds is not.
    pub(super) fn is_final(&mut self, error: Option<&Error>) -> bool {
        let Some(error) = error.filter(|error| !error.is_transient()) else {
            self.end();
            return false;
        };
        let is_invalid = error.kind() == ErrorKind::Rejected && !error.is_by_proxy();
        is_invalid || self.is_too_long()
    }

    /// The request was rejected. Returns whether that has lasted for too long.
    pub(super) fn is_too_long(&mut self) -> bool {
        self.since.get_or_insert_with(Instant::now).elapsed() >= MAX_REJECTION
    }

    /// A stream has failed with an error that is usually permanent. Returns whether it is permanent: a proxy can reject a path or a
    /// token for a moment,
    /// for example while it loads another configuration.
    pub(super) fn has_failed(&mut self, error: &Error) -> bool {
        !self.was_accepted || !error.is_by_proxy() || error.forbids_retries() || self.is_final(Some(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ServerStatus;

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

    #[tokio::test(start_paused = true)]
    async fn what_a_proxy_rejects_is_requested_again_for_a_minute() {
        let error = |kind, status| Error::new(kind, "no").with_status(status);
        let by_proxy = [
            error(ErrorKind::Unimplemented, ServerStatus::Http(404)),
            error(ErrorKind::Unauthenticated, ServerStatus::Http(403)),
            error(ErrorKind::Unauthenticated, ServerStatus::Grpc(7)),
        ];
        for error in by_proxy {
            let mut rejection = Rejection::default();
            assert!(rejection.has_failed(&error), "nothing was ever accepted");
            rejection.accepted();
            assert!(!rejection.has_failed(&error), "{error:?}");
            tokio::time::advance(MAX_REJECTION).await;
            assert!(rejection.has_failed(&error), "{error:?}");
        }
        for kind in [ErrorKind::Unimplemented, ErrorKind::Unauthenticated, ErrorKind::Closed] {
            let mut rejection = Rejection::default();
            rejection.accepted();
            assert!(rejection.has_failed(&error(kind, ServerStatus::Grpc(12))), "{kind:?}");
        }
        let invalid = |status| Rejection::default().is_final(Some(&error(ErrorKind::Rejected, status)));
        assert_eq!((invalid(ServerStatus::Grpc(3)), invalid(ServerStatus::Http(400))), (true, false));
    }
}
