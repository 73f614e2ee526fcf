//! A limit of the rate of requests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

use crate::sync::lock;

/// After a pause, the requests of this period may be sent at once.
const BURST: Duration = Duration::from_secs(1);

/// A limit of requests per second, which its clones share.
#[derive(Debug, Clone)]
pub(crate) struct RateLimit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    interval: Duration,
    /// Only the first caller waits for the time. The others wait for it, so one that gives up delays nobody.
    first: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the last request would have been sent without bursts.
    last: Instant,
    /// The number of requests whose callers wait.
    waiting: u32,
}

impl Shared {
    /// When some more requests may be sent, and the new value of `last`.
    fn next(&self, state: &State, now: Instant, requests: u32) -> (Instant, Instant) {
        let last = state.last.max(now) + self.interval * requests;
        (last.checked_sub(BURST).map_or(now, |at| at.max(now)), last)
    }
}

/// Requests that wait until they may be sent.
#[derive(Debug)]
struct Waiting<'a> {
    shared: &'a Shared,
    requests: u32,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.shared.state).waiting -= self.requests;
    }
}

impl RateLimit {
    pub(crate) fn new(per_second: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        let state = Mutex::new(State { last: Instant::now(), waiting: 0 });
        Self(Arc::new(Shared { interval, first: Semaphore::new(1), state }))
    }

    /// Waits until some requests may be sent, in the order of the callers. Cancel safe: the requests of a future that is dropped do not count.
    pub(crate) async fn pass(&self, requests: u32) {
        self.pass_if(requests, |_| true).await;
    }

    /// Waits until a request may be sent. If that is not before the deadline, returns `false` at once, and leaves the request to others.
    pub(crate) async fn pass_before(&self, deadline: Instant) -> bool {
        self.pass_if(1, |at| at < deadline).await
    }

    async fn pass_if(&self, requests: u32, is_soon_enough: impl FnOnce(Instant) -> bool) -> bool {
        let shared = &*self.0;
        let waiting = {
            let mut state = lock(&shared.state);
            let (at, _) = shared.next(&state, Instant::now(), state.waiting.saturating_add(requests));
            if !is_soon_enough(at) {
                return false;
            }
            state.waiting += requests;
            Waiting { shared, requests }
        };
        let first = shared.first.acquire().await;
        let (at, last) = shared.next(&lock(&shared.state), Instant::now(), requests);
        if at > Instant::now() {
            sleep_until(at).await;
        }
        lock(&shared.state).last = last;
        drop((waiting, first));
        true
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::future::join_all;
    use tokio::time::timeout;

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

    /// A program that gives up its requests again and again, at twice the rate that is allowed.
    #[tokio::test(start_paused = true)]
    async fn requests_that_are_given_up_delay_nobody() {
        let (limit, start) = (RateLimit::new(10), Instant::now());
        limit.pass(10).await;
        for _ in 0..100 {
            let all = (0..20).map(|_| timeout(SECOND / 20, limit.pass(1)));
            join_all(all).await;
        }
        assert_eq!(start.elapsed(), 5 * SECOND);
        limit.pass(1).await;
        assert_eq!(start.elapsed(), 5 * SECOND + SECOND / 10);
        assert!(limit.pass_before(start + 6 * SECOND).await);
        assert_eq!(lock(&limit.0.state).waiting, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_wait_count_for_a_deadline() {
        let (limit, start) = (RateLimit::new(1), Instant::now());
        limit.pass(1).await;
        let mut waiting = Box::pin(limit.pass(3));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(!limit.pass_before(start + 4 * SECOND).await);
        drop(waiting);
        assert!(limit.pass_before(start + 2 * SECOND).await);
        assert_eq!(start.elapsed(), SECOND);
    }
}
