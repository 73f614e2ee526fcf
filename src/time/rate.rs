//! A limit of the rate of requests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::sync::lock;

/// After a pause, the requests of this period may be sent at once.
const BURST: Duration = Duration::from_secs(1);

/// A limit of requests per second, which its clones share.
#[derive(Debug, Clone)]
pub(crate) struct RateLimit(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    interval: Duration,
    /// When the last request would be sent without bursts.
    last: Instant,
}

impl State {
    /// When some more requests may be sent, and the new value of `last`.
    fn next(&self, now: Instant, requests: u32) -> (Instant, Instant) {
        let last = self.last.max(now) + self.interval * requests;
        (last.checked_sub(BURST).map_or(now, |at| at.max(now)), last)
    }
}

impl RateLimit {
    pub(crate) fn new(per_second: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self(Arc::new(Mutex::new(State { interval, last: Instant::now() })))
    }

    /// Waits until some requests may be sent, in the order of the callers.
    pub(crate) async fn pass(&self, requests: u32) {
        self.pass_if(requests, |_| true).await;
    }

    /// Waits until a request may be sent. If that is not before the deadline, returns `false` at once, and leaves the request to others.
    pub(crate) async fn pass_before(&self, deadline: Instant) -> bool {
        self.pass_if(1, |at| at < deadline).await
    }

    async fn pass_if(&self, requests: u32, is_soon_enough: impl FnOnce(Instant) -> bool) -> bool {
        let now = Instant::now();
        let at = {
            let mut state = lock(&self.0);
            let (at, last) = state.next(now, requests);
            if !is_soon_enough(at) {
                return false;
            }
            state.last = last;
            at
        };
        if at > now {
            sleep_until(at).await;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn after_a_pause_the_requests_of_one_second_are_sent_at_once() {
        let (limit, start) = (RateLimit::new(2), Instant::now());
        tokio::time::sleep(60 * SECOND).await;
        let mut at = Vec::new();
        for _ in 0..4 {
            limit.pass(1).await;
            at.push(start.elapsed());
        }
        assert_eq!(at, [60 * SECOND, 60 * SECOND, SECOND / 2 + 60 * SECOND, 61 * SECOND]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_cannot_be_sent_before_its_deadline_is_left_to_others() {
        let (limit, start) = (RateLimit::new(1), Instant::now());
        limit.pass(3).await;
        assert_eq!(start.elapsed(), 2 * SECOND);
        assert!(!limit.pass_before(start + 3 * SECOND).await);
        assert_eq!(start.elapsed(), 2 * SECOND);
        assert!(limit.pass_before(start + 4 * SECOND).await);
        assert_eq!(start.elapsed(), 3 * SECOND);
    }
}
