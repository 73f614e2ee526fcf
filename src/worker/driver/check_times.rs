//! When running attempts are checked although nothing indicates that the engine has ended them: a state machine without I/O.
//!
//! The engine sends a cancellation once, and drops it if other messages of the stream take too long. The worker neither loses the stream
//! nor misses a heartbeat then.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::super::key::{Key, KeyMap};

/// How long after its timeout an attempt is checked. The engine looks for timeouts about once per second.
const OVERDUE_AFTER: Duration = Duration::from_secs(5);
/// The minimum interval between two checks. All attempts are checked, and many can have extended their timeouts.
const MIN_INTERVAL: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct CheckTimes {
    /// When all are checked, while there are any.
    regular: Option<Instant>,
    /// When each attempt is overdue, with a number that makes the keys unique.
    overdue: BTreeMap<(Instant, u64), Key>,
    /// The running attempts that were not stopped, with the keys of the other map.
    running: KeyMap<Key, (Instant, u64)>,
    count: u64,
    /// When the next check may be, after the last one.
    earliest: Option<Instant>,
}

impl CheckTimes {
    /// An attempt with this timeout has started. `regular`: the interval of the checks of all attempts.
    pub(super) fn started(&mut self, now: Instant, key: Key, timeout: Duration, regular: impl FnOnce() -> Duration) {
        self.regular.get_or_insert_with(|| now + regular());
        self.count += 1;
        let place = (now + timeout + OVERDUE_AFTER, self.count);
        self.overdue.insert(place, key);
        if let Some(before) = self.running.insert(key, place) {
            self.overdue.remove(&before);
        }
    }

    /// An attempt has ended, or the worker knows that it is over.
    pub(super) fn ended(&mut self, key: &Key) {
        if let Some(place) = self.running.remove(key) {
            self.overdue.remove(&place);
        }
        if self.running.is_empty() {
            self.regular = None;
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        let overdue = self.overdue.first_key_value().map(|((at, _), _)| *at);
        let overdue = overdue.map(|at| self.earliest.map_or(at, |earliest| at.max(earliest)));
        self.regular.into_iter().chain(overdue).min()
    }

    /// Whether the attempts must be checked now. Each is overdue once.
    pub(super) fn take_due(&mut self, now: Instant, regular: impl FnOnce() -> Duration) -> bool {
        if self.next().is_none_or(|at| at > now) {
            return false;
        }
        self.earliest = Some(now + MIN_INTERVAL);
        while let Some(first) = self.overdue.first_entry().filter(|first| first.key().0 <= now) {
            first.remove();
        }
        if let Some(at) = self.regular.as_mut().filter(|at| **at <= now) {
            *at = now + regular();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const REGULAR: Duration = Duration::from_secs(300);

    fn key(task: u128) -> Key {
        Key { run: Uuid::from_u128(task).into(), task: Uuid::from_u128(task).into(), retry_count: 0 }
    }

    /// The seconds at which attempts are checked that start at once, until a time.
    fn checked(timeouts: &[u32], end: u32) -> Vec<u64> {
        let (start, mut times) = (Instant::now(), CheckTimes::default());
        for (task, timeout) in timeouts.iter().enumerate() {
            times.started(start, key(task as u128), *timeout * SECOND, || REGULAR);
        }
        let mut seconds = Vec::new();
        while let Some(next) = times.next().filter(|next| *next <= start + end * SECOND) {
            assert!(times.take_due(next, || REGULAR) && !times.take_due(next, || REGULAR), "it is due once");
            seconds.push((next - start).as_secs());
        }
        seconds
    }

    #[test]
    fn attempts_are_checked_when_they_are_overdue_and_every_few_minutes() {
        assert!(checked(&[], 10_000).is_empty());
        assert_eq!(checked(&[5000], 1000), [300, 600, 900]);
        assert_eq!(checked(&[60, 60, 500], 1000), [65, 300, 505, 600, 900]);
        // Many that have extended their timeouts.
        let many: Vec<_> = (60..120).collect();
        assert_eq!(checked(&many, 200), [65, 95, 125]);
    }

    #[test]
    fn attempts_that_have_ended_are_not_checked() {
        let (start, mut times) = (Instant::now(), CheckTimes::default());
        for task in [1, 2] {
            times.started(start, key(task), 60 * SECOND, || REGULAR);
        }
        times.ended(&key(1));
        assert!(times.take_due(start + 65 * SECOND, || REGULAR));
        assert_eq!(times.next(), Some(start + REGULAR));
        times.ended(&key(2));
        times.ended(&key(2));
        assert_eq!((times.next(), times.take_due(start + 2 * REGULAR, || REGULAR)), (None, false));
        // The next one has its own time.
        times.started(start + 2 * REGULAR, key(1), SECOND, || REGULAR);
        assert_eq!(times.next(), Some(start + 2 * REGULAR + SECOND + OVERDUE_AFTER));
    }
}
