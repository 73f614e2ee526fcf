//! Polls the server until it has reached a state.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::retry::delay;

/// The pauses between two polls.
#[derive(Debug, Clone, Copy)]
enum Interval {
    /// The same pause each time.
    Fixed(Duration),
    /// Exponential backoff with jitter, at most this long.
    Backoff(Duration),
}

/// The pauses of a loop that polls until a deadline. The loop polls first, and calls [`again`](Self::again) if it has no result.
#[derive(Debug)]
pub(crate) struct Polling {
    deadline: Instant,
    interval: Interval,
    polls: u32,
}

impl Polling {
    /// Polls at equal intervals.
    pub(crate) fn every(interval: Duration, deadline: Instant) -> Self {
        Self { deadline, interval: Interval::Fixed(interval), polls: 0 }
    }

    /// Polls with exponential backoff up to an interval.
    pub(crate) fn backoff(max_interval: Duration, deadline: Instant) -> Self {
        Self { deadline, interval: Interval::Backoff(max_interval), polls: 0 }
    }

    /// Replaces the deadline.
    pub(crate) fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Whether the deadline has passed, so that the current poll is the last one.
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Pauses before the next poll. Returns `false`, without a pause, if the deadline has passed. Cancel safe.
    pub(crate) async fn again(&mut self) -> bool {
        if self.is_over() {
            return false;
        }
        self.pause().await;
        true
    }

    /// Pauses before the next poll, also after the deadline. Cancel safe.
    pub(crate) async fn pause(&mut self) {
        self.polls += 1;
        sleep(match self.interval {
            Interval::Fixed(pause) => pause,
            Interval::Backoff(max) => delay(self.polls, fastrand::f64()).min(max),
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn polls_until_the_deadline_has_passed() {
        let (start, mut polls) = (Instant::now(), 1);
        let mut polling = Polling::every(SECOND, start + SECOND * 5 / 2);
        while polling.again().await {
            polls += 1;
        }
        assert_eq!((polls, start.elapsed()), (4, SECOND * 3), "one poll after the deadline, and no pause");
    }

    #[tokio::test(start_paused = true)]
    async fn backs_off_up_to_the_maximum_interval() {
        let (start, mut times) = (Instant::now(), vec![Duration::ZERO]);
        let mut polling = Polling::backoff(SECOND, start + SECOND * 60);
        while polling.again().await {
            times.push(start.elapsed());
        }
        let pauses: Vec<_> = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
        assert!(pauses[0] <= Duration::from_millis(51), "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= SECOND + Duration::from_millis(1)), "{pauses:?}");
        assert!((60..140).contains(&pauses.len()), "{pauses:?}");
    }
}
