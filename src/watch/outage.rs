//! How long waits and watches continue while requests fail: the pure core of their retries.
//!
//! A call is retried until its own deadline, and a client has a budget of retries. Both can be over before a server has restarted.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{REJECTIONS_TRANSIENT_FOR, retry_delay};

/// For how long the server may respond with errors of its own, before they are returned. While it does not respond, there is no limit.
const MAX_SERVER_ERRORS: Duration = Duration::from_secs(60);

/// The failures since the last success.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// Since when the server has responded with errors, and for how long it may.
    errors_since: Option<(Duration, Instant)>,
    failures: u32,
}

/// Whether an outage can be the reason of an error: the server was reached before. Otherwise, its address may be wrong.
fn was_reached(client: &Client, error: &Error) -> bool {
    let rpc = client.rpc();
    if is_missing_path(error) {
        return rpc.has_responded() && rpc.rest.has_succeeded();
    }
    !error.is_rest_unreached() && (rpc.has_responded() || rpc.rest.has_responded())
}

/// A proxy may not have the path for a moment, for example while it loads another configuration. Its rejection of a token is not
/// distinguished from that of the REST API.
fn is_missing_path(error: &Error) -> bool {
    error.kind() == ErrorKind::Unimplemented && error.is_by_proxy() && !error.forbids_retries()
}

impl Outage {
    /// A request has succeeded.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// A request of a client has failed. Returns the pause before the next one, or the error if it is the end of the watch.
    pub(super) fn retry_after(&mut self, client: &Client, error: Error) -> Result<Duration> {
        let pause = self.failed(Instant::now(), &error, fastrand::f64()).filter(|_| was_reached(client, &error));
        pause.ok_or(error)
    }

    /// Pauses after a failed request, or returns the error.
    pub(super) async fn pause(&mut self, client: &Client, error: Error) -> Result<()> {
        sleep(self.retry_after(client, error)?).await;
        Ok(())
    }

    /// A request has failed. Returns the pause before the next one, or `None` if the error is the end of the watch.
    fn failed(&mut self, now: Instant, error: &Error, jitter: f64) -> Option<Duration> {
        if !error.may_recover() && !is_missing_path(error) {
            return None;
        }
        let limit = match error.kind() {
            // Other calls may accept the token, so that the error stays transient.
            ErrorKind::Unauthenticated => Some(REJECTIONS_TRANSIENT_FOR),
            _ if error.is_transient() => None,
            _ => Some(MAX_SERVER_ERRORS),
        };
        match limit {
            None => self.errors_since = None,
            Some(limit) => {
                let since = self.errors_since.filter(|(last, _)| *last == limit).map_or(now, |(_, since)| since);
                self.errors_since = Some((limit, since));
                if now.saturating_duration_since(since) >= limit {
                    return None;
                }
            }
        }
        self.failures = self.failures.saturating_add(1);
        // A pause that the server requests takes precedence, and is not limited.
        Some(error.pushback().unwrap_or_else(|| retry_delay(self.failures, jitter)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{RetryAfter, ServerStatus};

    #[test]
    fn a_server_that_does_not_respond_is_waited_for() {
        let (mut outage, mut now) = (Outage::default(), Instant::now());
        let error = Error::new(ErrorKind::Unavailable, "away").transient();
        let mut pauses = Vec::new();
        for _ in 0..1000 {
            pauses.extend(outage.failed(now, &error, 1.0));
            now += Duration::from_secs(60);
        }
        assert!(pauses.len() == 1000 && pauses.is_sorted(), "{pauses:?}");
        outage.end();
        assert_eq!(outage.failed(now, &error, 1.0), Some(pauses[0]));
    }

    #[test]
    fn errors_of_the_server_are_the_end_after_a_minute() {
        let (mut outage, start) = (Outage::default(), Instant::now());
        let error = Error::new(ErrorKind::Server, "broken");
        let away = Error::new(ErrorKind::Unavailable, "away").transient();
        let after = |outage: &mut Outage, seconds: u64, error: &Error| {
            outage.failed(start + Duration::from_secs(seconds), error, 1.0).is_some()
        };
        assert!(after(&mut outage, 0, &error) && after(&mut outage, 59, &error));
        assert!(after(&mut outage, 61, &away), "it is another outage");
        assert!(after(&mut outage, 62, &error) && !after(&mut outage, 122, &error));
    }

    #[test]
    fn rejections_of_the_token_do_not_count_as_errors_of_the_server() {
        let (mut outage, start) = (Outage::default(), Instant::now());
        let rejected = Error::new(ErrorKind::Unauthenticated, "no").transient();
        let error = Error::new(ErrorKind::Server, "broken");
        assert!(outage.failed(start, &rejected, 1.0).is_some());
        assert!(outage.failed(start + Duration::from_secs(90), &error, 1.0).is_some());
        assert!(outage.failed(start + Duration::from_secs(151), &error, 1.0).is_none());
    }

    #[test]
    fn the_servers_pause_is_used_exactly() {
        let (mut outage, now, pause) = (Outage::default(), Instant::now(), Duration::from_secs(70));
        let error = |kind, retry_after| Error::new(kind, "busy").transient().with_retry_after(Some(retry_after));
        for _ in 0..3 {
            let asked = error(ErrorKind::Unavailable, RetryAfter::Delay(pause));
            assert_eq!(outage.failed(now, &asked, 1.0), Some(pause));
        }
        let own = Error::new(ErrorKind::Server, "broken").with_retry_after(Some(RetryAfter::Never));
        assert_eq!(outage.failed(now, &own, 1.0), None, "the server forbids it");
    }

    #[test]
    fn a_path_that_a_proxy_lacks_is_requested_again_for_a_minute() {
        let (mut outage, start) = (Outage::default(), Instant::now());
        let error = Error::new(ErrorKind::Unimplemented, "no such page");
        let by_proxy = error.clone().with_status(ServerStatus::Http(404));
        assert!(outage.failed(start, &by_proxy, 1.0).is_some());
        assert_eq!(outage.failed(start + MAX_SERVER_ERRORS, &by_proxy, 1.0), None);
        assert_eq!(Outage::default().failed(start, &error.with_status(ServerStatus::Grpc(12)), 1.0), None);
    }

    #[test]
    fn permanent_errors_are_the_end() {
        let error = Error::new(ErrorKind::Unauthenticated, "rejected");
        assert_eq!(Outage::default().failed(Instant::now(), &error, 1.0), None);
    }
}
