//! Heartbeats that are counted and not sent.
//!
//! On virtual time a day goes by in a moment, but for the forty thousand heartbeats of each worker. As long as nothing else
//! happens nobody looks at them, so a worker need not send them: it hands them in as a series, and the engine counts how many
//! of them are over before it does anything else.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

/// What an engine in process shares with the workers of its clients.
#[derive(Debug, Default)]
pub(super) struct IdleBeats {
    series: Mutex<AllSeries>,
    /// Ends all series.
    woken: Notify,
}

#[derive(Debug, Default)]
struct AllSeries {
    running: BTreeMap<Uuid, Series>,
    /// The last beats of series that have ended since anyone counted.
    ended: Vec<(Uuid, Instant)>,
    /// Whether each beat is to be sent.
    suspended: bool,
}

/// Beats at equal distances.
#[derive(Debug, Clone, Copy)]
struct Series {
    first: Instant,
    period: Duration,
}

impl Series {
    /// The last that is over by now, if one is.
    fn last(self, now: Instant) -> Option<Instant> {
        let elapsed = now.checked_duration_since(self.first)?.as_nanos();
        let over = elapsed.checked_rem(self.period.as_nanos()).unwrap_or_default();
        Some(now - Duration::from_nanos(u64::try_from(over).unwrap_or_default()))
    }

    /// The first that is not over.
    fn next(self, now: Instant) -> Instant {
        self.last(now).map_or(self.first, |last| last + self.period)
    }
}

/// A series that runs for as long as this is there.
struct Running<'a> {
    beats: &'a IdleBeats,
    worker: Uuid,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut all = self.beats.lock();
        if let Some(last) = all.running.remove(&self.worker).and_then(|series| series.last(Instant::now())) {
            all.ended.push((self.worker, last));
        }
    }
}

impl IdleBeats {
    /// Counts a worker's beats from the first on, until something happens. Returns when the next one is due.
    ///
    /// # Cancel safety
    /// The beats that are over when it is dropped have been counted.
    pub(super) async fn count(&self, worker: Uuid, first: Instant, period: Duration) -> Instant {
        let woken = self.woken.notified();
        tokio::pin!(woken);
        // Whatever happens from here on ends it.
        woken.as_mut().enable();
        let series = Series { first, period };
        {
            let mut all = self.lock();
            if all.suspended {
                return first;
            }
            all.running.insert(worker, series);
        }
        let running = Running { beats: self, worker };
        woken.await;
        drop(running);
        series.next(Instant::now())
    }

    /// The last beat of each series that has had one since it was asked before, or has one still.
    pub(super) fn take(&self, now: Instant) -> Vec<(Uuid, Instant)> {
        let mut all = self.lock();
        let ended = std::mem::take(&mut all.ended);
        let running = all.running.iter().filter_map(|(worker, series)| Some((*worker, series.last(now)?)));
        ended.into_iter().chain(running).collect()
    }

    /// Something has happened: from here on, workers send their beats again.
    pub(super) fn wake(&self) {
        self.woken.notify_waiters();
    }

    /// Whether each beat is to be sent, because what becomes of it is not decided by the engine alone.
    pub(super) fn suspend(&self, suspended: bool) {
        self.lock().suspended = suspended;
        self.wake();
    }

    fn lock(&self) -> MutexGuard<'_, AllSeries> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use tokio::time::{advance, sleep};

    use super::*;

    const WORKER: Uuid = Uuid::from_u128(1);
    const PERIOD: Duration = Duration::from_secs(2);

    fn counting(beats: &Arc<IdleBeats>, first: Instant) -> tokio::task::JoinHandle<Instant> {
        let beats = Arc::clone(beats);
        tokio::spawn(async move { beats.count(WORKER, first, PERIOD).await })
    }

    #[tokio::test(start_paused = true)]
    async fn beats_are_counted_until_something_happens() {
        let (beats, start) = (Arc::new(IdleBeats::default()), Instant::now());
        let series = counting(&beats, start + PERIOD);
        sleep(Duration::from_millis(1999)).await;
        assert_eq!(beats.take(Instant::now()), []);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(beats.take(Instant::now()), [(WORKER, start + PERIOD)]);
        sleep(Duration::from_secs(86_401)).await;
        assert_eq!(beats.take(Instant::now()), [(WORKER, start + Duration::from_secs(86_402))]);
        beats.wake();
        assert_eq!(series.await.unwrap(), start + Duration::from_secs(86_404));
        // What has ended is told once more, and then no longer.
        assert_eq!(beats.take(Instant::now()), [(WORKER, start + Duration::from_secs(86_402))]);
        assert_eq!(beats.take(Instant::now()), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_is_gone_has_beaten_up_to_then() {
        let (beats, start) = (Arc::new(IdleBeats::default()), Instant::now());
        let series = counting(&beats, start + PERIOD);
        sleep(Duration::from_secs(7)).await;
        series.abort();
        assert!(series.await.unwrap_err().is_cancelled());
        advance(Duration::from_secs(3600)).await;
        assert_eq!(beats.take(Instant::now()), [(WORKER, start + Duration::from_secs(6))]);
    }

    #[tokio::test(start_paused = true)]
    async fn beats_that_are_all_to_be_sent_are_not_counted() {
        let (beats, start) = (Arc::new(IdleBeats::default()), Instant::now());
        let series = counting(&beats, start + PERIOD);
        sleep(Duration::from_secs(3)).await;
        beats.suspend(true);
        assert_eq!(series.await.unwrap(), start + 2 * PERIOD);
        assert_eq!(counting(&beats, start + 2 * PERIOD).await.unwrap(), start + 2 * PERIOD);
        beats.suspend(false);
        let series = counting(&beats, start + 2 * PERIOD);
        sleep(Duration::from_secs(3600)).await;
        assert!(!series.is_finished());
    }

    proptest! {
        #[test]
        fn the_next_beat_is_the_first_after_now(millis in 0_u64..10_000_000, period in 1_u64..10_000, behind in 0_u64..5_000) {
            let first = Instant::now() + Duration::from_secs(3600);
            let series = Series { first, period: Duration::from_millis(period) };
            let before = first - Duration::from_millis(behind + 1);
            prop_assert_eq!((series.last(before), series.next(before)), (None, first));
            let now = first + Duration::from_millis(millis);
            let last = series.last(now).unwrap();
            prop_assert!(last <= now && series.next(now) > now && series.next(now) == last + series.period);
            prop_assert_eq!((last - first).as_millis() % u128::from(period), 0);
        }
    }
}
