//! Decides whether a rejected token may be accepted later.
//!
//! While its database is unavailable, the engine rejects valid tokens with UNAUTHENTICATED "invalid auth token". So a token that was
//! accepted before is retried for five minutes. The rejection of any other token is permanent.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ServerStatus};
use crate::sync::lock;

/// How long rejections of a token that was accepted before are transient.
pub(crate) const REJECTIONS_TRANSIENT_FOR: Duration = Duration::from_secs(300);

/// The error message of REST for an invalid token.
const REST_REJECTION: &str = "Please provide valid credentials";
/// The gRPC status code.
const UNAUTHENTICATED: i32 = 16;

const UNKNOWN: u8 = 0;
const ACCEPTED: u8 = 1;
const REJECTED: u8 = 2;

/// Whether a token was accepted or rejected by one of the server's APIs.
#[derive(Debug, Default)]
pub(crate) struct TokenHealth {
    state: AtomicU8,
    rejected_since: Mutex<Option<Instant>>,
}

impl TokenHealth {
    /// Records that the server has accepted the token.
    pub(crate) fn accepted(&self) {
        // Usually the state is already set. This avoids the write.
        if self.state.load(Relaxed) != ACCEPTED {
            self.state.store(ACCEPTED, Relaxed);
        }
    }

    /// Whether the server has ever accepted the token.
    pub(crate) fn was_accepted(&self) -> bool {
        self.state.load(Relaxed) != UNKNOWN
    }

    /// Marks the rejection of a token as transient if the token may be accepted later.
    pub(crate) fn mark_if_recoverable(&self, error: Error) -> Error {
        if is_about_token(&error) && !error.forbids_retries() && self.may_recover(Instant::now()) {
            return error.transient();
        }
        error
    }

    fn may_recover(&self, now: Instant) -> bool {
        let mut since = lock(&self.rejected_since);
        match self.state.load(Relaxed) {
            UNKNOWN => return false,
            ACCEPTED => {
                *since = Some(now);
                self.state.store(REJECTED, Relaxed);
            }
            _ => {}
        }
        since.is_some_and(|since| now.saturating_duration_since(since) < REJECTIONS_TRANSIENT_FOR)
    }
}

/// Whether the server rejected the token itself. REST uses the same status for missing permissions.
fn is_about_token(error: &Error) -> bool {
    match error.status() {
        Some(ServerStatus::Grpc(code)) => code == UNAUTHENTICATED,
        Some(ServerStatus::Http(status)) => matches!(status, 401 | 403) && error.to_string().contains(REST_REJECTION),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn rejected(status: ServerStatus) -> Error {
        Error::new(ErrorKind::Unauthenticated, "invalid auth token").with_status(status).without_side_effects()
    }

    fn is_retried(health: &TokenHealth) -> bool {
        health.mark_if_recoverable(rejected(ServerStatus::Grpc(16))).is_transient()
    }

    #[tokio::test(start_paused = true)]
    async fn only_accepted_tokens_are_retried_for_a_limited_time() {
        let health = TokenHealth::default();
        assert!(!is_retried(&health), "it was never accepted");
        health.accepted();
        assert!(is_retried(&health));
        tokio::time::advance(Duration::from_millis(299_999)).await;
        assert!(is_retried(&health));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!is_retried(&health), "it has been rejected for too long");
        health.accepted();
        assert!(is_retried(&health), "the time counts from the last success");
        for other in [ServerStatus::Grpc(7), ServerStatus::Http(403), ServerStatus::Http(404)] {
            assert!(!health.mark_if_recoverable(rejected(other)).is_transient(), "{other:?}");
        }
        let by_rest = Error::new(ErrorKind::Unauthenticated, format!("listing failed: {REST_REJECTION}"));
        assert!(health.mark_if_recoverable(by_rest.with_status(ServerStatus::Http(403))).is_transient());
    }
}
