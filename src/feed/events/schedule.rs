//! When the list of tasks is fetched: the pure core of the lists.
//!
//! No event announces that a worker has started an attempt. So while watches wait for a start, the running tasks are listed, at intervals
//! that grow. One list is for all watches: its cost depends on the number of tasks that are running, and not on the number of watches.

use std::time::Duration;

use tokio::time::Instant;

/// The intervals between two lists while watches wait for starts grow from the first to the last. A run that ends within the first one needs
/// no list: its details show the start.
const FIRST_INTERVAL: Duration = Duration::from_millis(300);
const MAX_INTERVAL: Duration = Duration::from_secs(2);
/// The interval between two lists that are needed now.
const MIN_INTERVAL: Duration = Duration::from_millis(50);
/// How long after a loss the list is requested. The engine ends the stream together with the last run, which is fetched meanwhile.
const LOSS_DELAY: Duration = Duration::from_millis(150);
/// The minimum interval between two lists after losses: a client that runs short runs one after the other loses the stream with each.
const LOSS_INTERVAL: Duration = Duration::from_secs(1);
/// The interval after a list with a change.
const INTERVAL_AFTER_CHANGE: Duration = Duration::from_millis(200);
/// The minimum interval, for each row of the last list.
const INTERVAL_PER_ROW: Duration = Duration::from_micros(500);
/// How often the queued tasks are listed, too, in case the event of an end was lost.
const COMPLETE_INTERVAL: Duration = Duration::from_secs(10);

/// The number of watches that wait for something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Demand {
    /// They know nothing of their run, and need a list that is fetched from now on.
    pub(super) list: usize,
    /// Their run is queued.
    pub(super) start: usize,
    /// Their run is running, or has ended.
    pub(super) end: usize,
}

impl Demand {
    fn is_empty(self) -> bool {
        self == Self::default()
    }
}

#[derive(Debug)]
pub(super) struct Schedule {
    started_at: Instant,
    interval: Duration,
    /// When the last list was requested, and the minimum interval after it.
    last: Option<Instant>,
    min_interval: Duration,
    last_complete: Option<Instant>,
    /// When the first watch began to wait for a start since the last list was requested.
    waiting_since: Option<Instant>,
    /// Since when events may have been lost.
    lost_at: Option<Instant>,
    /// When the last list after a loss was requested.
    last_after_loss: Option<Instant>,
    /// Whether the last list was after a loss, and whether it has failed.
    is_after_loss: bool,
    has_failed: bool,
}

/// The next list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) at: Instant,
    /// Whether it contains the queued tasks, too.
    pub(super) with_queued: bool,
}

impl Schedule {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            started_at: now,
            interval: FIRST_INTERVAL,
            last: None,
            min_interval: Duration::ZERO,
            last_complete: None,
            waiting_since: None,
            lost_at: None,
            last_after_loss: None,
            is_after_loss: false,
            has_failed: false,
        }
    }

    /// Events may have been lost: the end of any run may have been missed.
    pub(super) fn lost(&mut self, now: Instant) {
        self.lost_at.get_or_insert(now);
    }

    /// Those who may have missed events have left.
    pub(super) fn nobody_lost(&mut self) {
        self.lost_at = None;
    }

    /// No watch waits for a start.
    pub(super) fn nobody_waits(&mut self) {
        self.waiting_since = None;
    }

    /// A watch has begun, or its run is queued again.
    pub(super) fn restart(&mut self, now: Instant) {
        self.interval = FIRST_INTERVAL;
        self.waiting_since.get_or_insert(now);
    }

    /// When the next list is due. `None` if nobody waits.
    pub(super) fn due(&self, now: Instant, demand: Demand) -> Option<Due> {
        if demand.is_empty() {
            return None;
        }
        let after_loss = self.lost_at.map(|lost_at| {
            let earliest = self.last_after_loss.map(|last| last + LOSS_INTERVAL);
            Some(lost_at + LOSS_DELAY).max(earliest).unwrap_or(lost_at)
        });
        // A start is not listed at once.
        let after_start = self.waiting_since.filter(|_| demand.start > 0).map(|since| since + FIRST_INTERVAL);
        let Some(last) = self.last else {
            let at = match (demand.list, after_loss, after_start) {
                (1.., ..) => now,
                (0, Some(at), Some(other)) => at.min(other),
                (0, Some(at), None) | (0, None, Some(at)) => at,
                (0, None, None) if demand.start > 0 => now,
                (0, None, None) => self.started_at + MAX_INTERVAL,
            };
            return Some(Due { at, with_queued: true });
        };
        let next = |interval: Duration, earliest: Option<Instant>| {
            let at = last + interval.max(self.min_interval);
            earliest.map_or(at, |earliest| earliest.max(at))
        };
        let is_urgent = demand.list > 0 || self.has_failed;
        let regular = match demand.start {
            _ if is_urgent => next(MIN_INTERVAL, None),
            0 => next(MAX_INTERVAL, None),
            1.. => next(self.interval, after_start),
        };
        let after_loss = after_loss.map(|at| next(MIN_INTERVAL, Some(at))).filter(|at| *at <= regular);
        let at = after_loss.unwrap_or(regular);
        let is_old = self.last_complete.is_none_or(|complete| at >= complete + COMPLETE_INTERVAL);
        Some(Due { at, with_queued: demand.list > 0 || after_loss.is_some() || is_old })
    }

    /// A list is requested. Returns whether events may have been lost before it, and after the list before.
    pub(super) fn requested(&mut self, now: Instant, with_queued: bool) -> bool {
        let mut is_after_loss = false;
        if with_queued {
            self.last_complete = Some(now);
            is_after_loss = self.lost_at.take().is_some();
            if is_after_loss {
                self.last_after_loss = Some(now);
            }
        } else {
            self.interval = (self.interval * 2).min(MAX_INTERVAL);
        }
        self.last = Some(now);
        self.waiting_since = None;
        (self.is_after_loss, self.has_failed) = (is_after_loss, false);
        is_after_loss
    }

    /// A list could not be fetched. The next one is requested after a pause, and shows what this one would have shown.
    pub(super) fn failed(&mut self, now: Instant, pause: Duration) {
        self.last = Some(now);
        self.min_interval = pause;
        self.last_complete = None;
        self.has_failed = true;
        if self.is_after_loss {
            self.lost_at.get_or_insert(now);
        }
    }

    /// A list has arrived.
    pub(super) fn received(&mut self, rows: usize, has_changed: bool) {
        self.min_interval = INTERVAL_PER_ROW.saturating_mul(u32::try_from(rows).unwrap_or(u32::MAX)).min(MAX_INTERVAL);
        if has_changed {
            self.interval = self.interval.min(INTERVAL_AFTER_CHANGE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times of the lists within some time, in milliseconds, and whether they have the queued tasks.
    fn lists(demand: Demand, rows: usize, within: u64) -> Vec<(u128, bool)> {
        let start = Instant::now();
        let (mut schedule, mut now, mut lists) = (Schedule::new(start), start, Vec::new());
        while let Some(due) = schedule.due(now, demand) {
            now = due.at.max(now);
            if now > start + Duration::from_millis(within) {
                break;
            }
            schedule.requested(now, due.with_queued);
            schedule.received(rows, false);
            lists.push(((now - start).as_millis(), due.with_queued));
        }
        lists
    }

    #[test]
    fn the_interval_grows_whatever_the_number_of_watches() {
        for start in [1, 1_000_000] {
            let demand = Demand { start, ..Demand::default() };
            let all = lists(demand, 0, 16_000);
            let complete: Vec<_> = all.iter().filter(|(_, queued)| *queued).map(|(at, _)| *at).collect();
            assert_eq!(complete, [0, 10_100]);
            let times: Vec<_> = all.iter().map(|(at, _)| *at).collect();
            assert_eq!(times, [0, 300, 900, 2100, 4100, 6100, 8100, 10_100, 12_100, 14_100]);
        }
    }

    #[test]
    fn watches_of_running_runs_need_few_lists() {
        let demand = Demand { end: 5, ..Demand::default() };
        let all = lists(demand, 0, 12_000);
        assert_eq!(all, [(2000, true), (4000, false), (6000, false), (8000, false), (10_000, false), (12_000, true)]);
    }

    #[test]
    fn long_lists_are_rare() {
        let demand = Demand { list: 1, ..Demand::default() };
        let all = lists(demand, 1000, 1600);
        assert_eq!(all, [(0, true), (500, true), (1000, true), (1500, true)]);
        let all = lists(demand, 1_000_000, 4000);
        assert_eq!(all, [(0, true), (2000, true), (4000, true)]);
    }

    #[test]
    fn a_start_is_not_listed_at_once() {
        let (mut now, demand) = (Instant::now(), Demand { start: 1, ..Demand::default() });
        let mut schedule = Schedule::new(now);
        for with_queued in [true, false] {
            schedule.restart(now);
            // Others begin to wait, which does not postpone the list.
            schedule.restart(now + FIRST_INTERVAL / 2);
            let expected = Due { at: now + FIRST_INTERVAL, with_queued };
            assert_eq!(schedule.due(now, demand), Some(expected));
            assert!(schedule.due(now, Demand { list: 1, ..demand }).unwrap().at <= now, "but a list is");
            // The next one does not inherit the time of those that have left.
            schedule.nobody_waits();
            schedule.restart(now + FIRST_INTERVAL / 2);
            let expected = Due { at: now + FIRST_INTERVAL / 2 + FIRST_INTERVAL, with_queued };
            assert_eq!(schedule.due(now, demand), Some(expected));
            schedule.requested(expected.at, with_queued);
            now = expected.at + 2 * MAX_INTERVAL;
        }
    }

    /// A client that runs short runs one after the other, twenty per second, beside a watch that waits.
    #[test]
    fn losses_are_followed_by_at_most_one_list_per_second() {
        let (start, demand) = (Instant::now(), Demand { end: 1, ..Demand::default() });
        let (mut schedule, mut lists) = (Schedule::new(start), Vec::new());
        for tick in 0..1000 {
            let now = start + Duration::from_millis(10) * tick;
            if tick % 5 == 0 {
                schedule.lost(now);
            }
            if let Some(due) = schedule.due(now, demand)
                && due.at <= now
            {
                let is_after_loss = schedule.requested(now, due.with_queued);
                schedule.received(0, true);
                lists.push((now - start, is_after_loss));
            }
        }
        assert!((10..=11).contains(&lists.len()), "{lists:?}");
        assert!(lists.iter().all(|(_, is_after_loss)| *is_after_loss), "{lists:?}");
        // A start is listed in between.
        let begun = start + Duration::from_secs(10);
        schedule.requested(begun, true);
        schedule.lost(begun);
        schedule.requested(begun + LOSS_DELAY, true);
        (1..3).for_each(|tenth| schedule.lost(begun + LOSS_DELAY + Duration::from_millis(100) * tenth));
        schedule.restart(begun + LOSS_DELAY);
        let expected = Due { at: begun + LOSS_DELAY + FIRST_INTERVAL, with_queued: false };
        assert_eq!(schedule.due(begun + LOSS_DELAY, Demand { start: 1, ..demand }), Some(expected));
        // A loss after a while is followed by a list at once.
        schedule.requested(start + Duration::from_secs(14), true);
        let now = start + Duration::from_secs(15);
        schedule.lost(now);
        assert_eq!(schedule.due(now, demand), Some(Due { at: now + LOSS_DELAY, with_queued: true }));
    }

    #[test]
    fn a_loss_is_followed_by_a_complete_list() {
        let (now, demand) = (Instant::now(), Demand { end: 1, ..Demand::default() });
        let mut schedule = Schedule::new(now);
        schedule.requested(now, true);
        assert_eq!(schedule.due(now, demand), Some(Due { at: now + MAX_INTERVAL, with_queued: false }));
        schedule.lost(now);
        schedule.lost(now + LOSS_DELAY / 2);
        assert_eq!(schedule.due(now, demand), Some(Due { at: now + LOSS_DELAY, with_queued: true }));
        assert_eq!(schedule.due(now, Demand::default()), None, "nobody waits");
    }
}
