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

/// Requests that wait for their time. If they are given up, their time is that of later callers. Those that wait already keep theirs: no
/// caller waits for another one, which need not be polled.
#[derive(Debug)]
pub(crate) struct Reservation {
    limit: RateLimit,
    requests: u32,
    at: Instant,
}

impl Reservation {
    /// Takes an earlier time that others have given up.
    pub(crate) fn hasten(&mut self) {
        let mut state = lock(&self.limit.0);
        let (at, last) = state.next(Instant::now(), self.requests);
        if at < self.at {
            // The old time is not given back: others that hasten would get the new one, too.
            state.last = last;
            self.at = at;
        }
    }

    /// Waits until the requests may be sent, which counts as sending them. Cancel safe: the time stays the same.
    pub(crate) async fn pass(&mut self) {
        if self.at > Instant::now() {
            sleep_until(self.at).await;
        }
        self.requests = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // Its time has passed, and cannot be that of another caller.
        if self.at <= Instant::now() {
            return;
        }
        let mut state = lock(&self.limit.0);
        state.last = state.last.checked_sub(state.interval * self.requests).unwrap_or(state.last);
    }
}

impl RateLimit {
    pub(crate) fn new(per_second: u32) -> Self {
        Self::part_of(per_second, 1)
    }

    /// The limit for the part of a rate that is `1 / share` of it.
    pub(crate) fn part_of(per_second: u32, share: u32) -> Self {
        let interval = Duration::from_secs(share.into()) / per_second.max(1);
        Self(Arc::new(Mutex::new(State { interval, last: Instant::now() })))
    }

    /// Waits until some requests may be sent, in the order of the callers. Cancel safe: the requests of a dropped future do not count.
    pub(crate) async fn pass(&self, requests: u32) {
        self.pass_if(requests, |_| true).await;
    }

    /// Waits until a request may be sent. If that is not before the deadline, returns `false` at once, and leaves the request to others.
    pub(crate) async fn pass_before(&self, deadline: Instant) -> bool {
        self.pass_if(1, |at| at < deadline).await
    }

    /// Reserves the next time at which some requests may be sent.
    pub(crate) fn reserve(&self, requests: u32) -> Reservation {
        let mut state = lock(&self.0);
        let (at, last) = state.next(Instant::now(), requests);
        state.last = last;
        Reservation { limit: self.clone(), requests, at }
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
            Reservation { limit: self.clone(), requests, at }.pass().await;
        }
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

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_is_not_polled_delays_nobody() {
        let (limit, start) = (RateLimit::new(1), Instant::now());
        limit.pass(1).await;
        let mut idle = Box::pin(limit.pass(1));
        assert!(idle.as_mut().now_or_never().is_none());
        limit.pass(1).await;
        assert_eq!(start.elapsed(), 2 * SECOND);
        idle.await;
        limit.pass(1).await;
        assert_eq!(start.elapsed(), 3 * SECOND);
    }

    /// A caller that is interrupted again and again, as a watch is by lists.
    #[tokio::test(start_paused = true)]
    async fn a_reservation_keeps_its_time_while_its_owner_does_other_things() {
        let (limit, start) = (RateLimit::new(1), Instant::now());
        limit.pass(2).await;
        let (mut first, given_up, mut last) = (limit.reserve(1), limit.reserve(1), limit.reserve(1));
        for _ in 0..10 {
            assert!(timeout(Duration::from_millis(50), first.pass()).await.is_err());
        }
        drop(given_up);
        let mut hastened = limit.reserve(1);
        let last_place = hastened.at;
        drop(limit.reserve(1));
        hastened.hasten();
        assert_eq!(hastened.at, last_place, "nobody before it has given up");
        drop(hastened);
        first.pass().await;
        assert_eq!(start.elapsed().as_millis(), 2000);
        last.pass().await;
        assert_eq!(start.elapsed().as_millis(), 4000, "it does not wait for others, and keeps its time");
        limit.pass(1).await;
        assert_eq!(start.elapsed().as_millis(), 4000, "the time that was given up is free");
    }

    #[tokio::test(start_paused = true)]
    async fn reservations_that_are_hastened_do_not_get_the_same_time() {
        let limit = RateLimit::new(1);
        limit.pass(2).await;
        let earlier = [limit.reserve(1), limit.reserve(1), limit.reserve(1), limit.reserve(1)];
        let places = earlier.each_ref().map(|other| other.at);
        let (mut one, mut other) = (limit.reserve(1), limit.reserve(1));
        drop(earlier);
        one.hasten();
        other.hasten();
        assert_eq!((one.at, other.at), (places[2], places[3]));
    }
}
