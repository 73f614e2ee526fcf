//! What is to happen at its time.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::replays::Replay;
use super::store::{RunIx, TaskKey};
use super::types::{At, StreamId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// A running attempt has had its time.
    Execution(TaskKey),
    /// A queued task has waited for too long.
    Schedule(TaskKey),
    /// The schedule timeout of a task that was cancelled while queued, in this attempt.
    TimedOutCancel(TaskKey, i32),
    /// A task that waits for its next attempt is to be queued.
    Requeue(TaskKey),
    /// A worker may not have been heard of for 30 seconds.
    Silence(Uuid),
    /// A stream looks for results of runs that had ended before they were asked for.
    Poll(StreamId),
    /// A stream that watches one run by its id gets to it.
    Attach(StreamId),
    /// A task that sleeps before it exists wakes, by one of its conditions.
    Wake(TaskKey, u16),
    /// A DAG that has begun is announced as ended.
    EarlyEnd(RunIx),
    /// A task of a DAG that follows others can be given to a worker.
    Offer(TaskKey),
    /// A replay gets through.
    Replay(Replay),
    /// A cancel gets through.
    Cancel(Uuid),
    /// A schedule is to start its run.
    Scheduled(Uuid),
    /// A cron is to start its next run.
    Cron(Uuid),
}

/// Names one timer. Two of the same moment fire in the order they were set.
pub(super) type TimerKey = (At, u64);

#[derive(Debug, Default)]
pub(super) struct Timers {
    set: BTreeMap<TimerKey, Timer>,
    count: u64,
}

impl Timers {
    pub(super) fn set(&mut self, at: At, timer: Timer) -> TimerKey {
        self.count += 1;
        self.set.insert((at, self.count), timer);
        (at, self.count)
    }

    pub(super) fn clear(&mut self, key: TimerKey) {
        self.set.remove(&key);
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = (TimerKey, Timer)> {
        self.set.iter().map(|(key, timer)| (*key, *timer))
    }

    pub(super) fn next(&self) -> Option<At> {
        self.set.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the earliest that is due.
    pub(super) fn due(&mut self, now: At) -> Option<Timer> {
        self.set
            .first_entry()
            .filter(|entry| entry.key().0 <= now)
            .map(std::collections::btree_map::OccupiedEntry::remove)
    }
}
