//! Heartbeats that are counted instead of sent.
//!
//! On virtual time, the only cost of an idle day is the 43,200 heartbeats of each worker. They have no effect as long as
//! nothing else happens. So an idle worker registers a series of heartbeats here instead of sending them, and the engine
//! applies those that are due before each of its turns.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use crate::sync::lock;

/// The series of all idle workers of one embedded engine. The engine and its clients share it.
#[derive(Debug, Default)]
pub(super) struct IdleHeartbeats {
    series: Mutex<AllSeries>,
    /// Ends all series.
    woken: Notify,
}

#[derive(Debug, Default)]
struct AllSeries {
    running: BTreeMap<Uuid, Series>,
    /// The last heartbeat of each series that has ended since the last `take`.
    ended: Vec<(Uuid, Instant)>,
    /// Whether workers must send every heartbeat.
    suspended: bool,
}

/// Heartbeats at equal intervals.
#[derive(Debug, Clone, Copy)]
struct Series {
    first: Instant,
    period: Duration,
}

impl Series {
    /// The last one at or before a time.
    fn last(self, now: Instant) -> Option<Instant> {
        let elapsed = now.checked_duration_since(self.first)?.as_nanos();
        let over = elapsed.checked_rem(self.period.as_nanos()).unwrap_or_default();
        Some(now - Duration::from_nanos(u64::try_from(over).unwrap_or_default()))
    }

    /// The first one after a time.
    fn next(self, now: Instant) -> Instant {
        self.last(now).map_or(self.first, |last| last + self.period)
    }
}

/// Removes a series on drop.
struct Running<'a> {
    heartbeats: &'a IdleHeartbeats,
    worker: Uuid,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut all = self.heartbeats.lock();
        if let Some(last) = all.running.remove(&self.worker).and_then(|series| series.last(Instant::now())) {
            all.ended.push((self.worker, last));
        }
    }
}

impl IdleHeartbeats {
    /// Counts the heartbeats of a worker, starting with the one at `first`, until `wake` is called. Returns when the next one is
    /// due.
    ///
    /// # Cancel safety
    /// Heartbeats that were due before it is dropped are counted.
    pub(super) async fn count(&self, worker: Uuid, first: Instant, period: Duration) -> Instant {
        let woken = self.woken.notified();
        tokio::pin!(woken);
        // Registered before the series starts: a wake in between is not missed.
        woken.as_mut().enable();
        let series = Series { first, period };
        {
            let mut all = self.lock();
            if all.suspended {
                return first;
            }
            all.running.insert(worker, series);
        }
        let running = Running { heartbeats: self, worker };
        woken.await;
        drop(running);
        series.next(Instant::now())
    }

    /// The last heartbeat of each running series, and of each series that has ended since the last call.
    pub(super) fn take(&self, now: Instant) -> Vec<(Uuid, Instant)> {
        let mut all = self.lock();
        let ended = std::mem::take(&mut all.ended);
        let running = all.running.iter().filter_map(|(worker, series)| Some((*worker, series.last(now)?)));
        ended.into_iter().chain(running).collect()
    }

    /// Ends all series: the workers send their heartbeats again.
    pub(super) fn wake(&self) {
        self.woken.notify_waiters();
    }

    /// Sets whether workers must send every heartbeat. Planned faults apply only to calls that are made.
    pub(super) fn suspend(&self, suspended: bool) {
        self.lock().suspended = suspended;
        self.wake();
    }

    fn lock(&self) -> MutexGuard<'_, AllSeries> {
        lock(&self.series)
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

    fn counting(heartbeats: &Arc<IdleHeartbeats>, first: Instant) -> tokio::task::JoinHandle<Instant> {
        let heartbeats = Arc::clone(heartbeats);
        tokio::spawn(async move { heartbeats.count(WORKER, first, PERIOD).await })
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_are_counted_until_the_wake() {
        let (heartbeats, start) = (Arc::new(IdleHeartbeats::default()), Instant::now());
        let series = counting(&heartbeats, start + PERIOD);
        sleep(Duration::from_millis(1999)).await;
        assert_eq!(heartbeats.take(Instant::now()), []);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(heartbeats.take(Instant::now()), [(WORKER, start + PERIOD)]);
        sleep(Duration::from_secs(86_401)).await;
        assert_eq!(heartbeats.take(Instant::now()), [(WORKER, start + Duration::from_secs(86_402))]);
        heartbeats.wake();
        assert_eq!(series.await.unwrap(), start + Duration::from_secs(86_404));
        // A series that has ended is returned once more.
        assert_eq!(heartbeats.take(Instant::now()), [(WORKER, start + Duration::from_secs(86_402))]);
        assert_eq!(heartbeats.take(Instant::now()), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_series_counts_up_to_its_drop() {
        let (heartbeats, start) = (Arc::new(IdleHeartbeats::default()), Instant::now());
        let series = counting(&heartbeats, start + PERIOD);
        sleep(Duration::from_secs(7)).await;
        series.abort();
        assert!(series.await.unwrap_err().is_cancelled());
        advance(Duration::from_secs(3600)).await;
        assert_eq!(heartbeats.take(Instant::now()), [(WORKER, start + Duration::from_secs(6))]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_counted_while_suspended() {
        let (heartbeats, start) = (Arc::new(IdleHeartbeats::default()), Instant::now());
        let series = counting(&heartbeats, start + PERIOD);
        sleep(Duration::from_secs(3)).await;
        heartbeats.suspend(true);
        assert_eq!(series.await.unwrap(), start + 2 * PERIOD);
        assert_eq!(counting(&heartbeats, start + 2 * PERIOD).await.unwrap(), start + 2 * PERIOD);
        heartbeats.suspend(false);
        let series = counting(&heartbeats, start + 2 * PERIOD);
        sleep(Duration::from_secs(3600)).await;
        assert!(!series.is_finished());
    }

    proptest! {
        #[test]
        fn the_next_heartbeat_is_the_first_after_a_time(millis in 0_u64..10_000_000, period in 1_u64..10_000, behind in 0_u64..5_000) {
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
