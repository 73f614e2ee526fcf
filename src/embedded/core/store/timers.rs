//! Timers: what is due at a time in the future.
//!
//! A timer of a task belongs to the state that it was set for, which has its key. What changes the state clears the timer: timers
//! that fire do not check whether they are still wanted.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::ids::{BatchGroupId, RunIx, StreamId, TaskKey};
use super::turn::At;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The execution timeout of a running attempt.
    Execution(TaskKey),
    /// The schedule timeout of a queued task.
    Schedule(TaskKey),
    /// The schedule timeout of a task that was cancelled while queued.
    TimedOutCancel(TaskKey),
    /// A task waits for too long for the end of a pause.
    Expire(TaskKey),
    /// A task that waits for its next attempt is to be queued.
    Requeue(TaskKey),
    /// A worker may not have sent a heartbeat for 30 seconds.
    Silence(Uuid),
    /// A stream sends the results of runs that had ended before it asked for them.
    Poll(StreamId),
    /// A stream that watches one run by its id starts to receive events.
    Attach(StreamId),
    /// A sleep, which is one of the conditions of a task, is over.
    Wake(TaskKey, u16),
    /// A DAG that has started is announced as ended.
    EarlyEnd(RunIx),
    /// A task of a DAG can be assigned to a worker after its parents. It has no effect on a task that is not queued.
    Offer(TaskKey),
    /// A delayed replay is carried out.
    Replay(Replay),
    /// A delayed cancel is carried out.
    Cancel(Uuid),
    /// A schedule is to start its run.
    Scheduled(Uuid),
    /// A rate limit, by its number, may be refilled.
    Refill(u32),
    /// A cron is to start its next run.
    Cron(Uuid),
    /// Old runs are to be dropped.
    Retention,
    /// All tasks that wait for a batch in a group are to be assigned.
    Flush(BatchGroupId),
    /// A chunk, by its number, is sent late.
    Chunk(u64),
}

/// What is replayed together: a run, or one step of a DAG with all that depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replay {
    Run(RunIx),
    Step(TaskKey),
}

/// Identifies one timer. Timers of the same time fire in the order in which they were set.
pub(crate) type TimerKey = (At, u64);

#[derive(Debug, Default)]
pub(crate) struct Timers {
    set: BTreeMap<TimerKey, Timer>,
    count: u64,
    /// No timer is due before this time: the engine is stopped.
    stopped_until: Option<At>,
}

impl Timers {
    pub(crate) fn stop_until(&mut self, at: At) {
        self.stopped_until = self.stopped_until.max(Some(at));
    }

    pub(crate) fn set(&mut self, at: At, timer: Timer) -> TimerKey {
        self.count += 1;
        self.set.insert((at, self.count), timer);
        (at, self.count)
    }

    pub(crate) fn clear(&mut self, key: TimerKey) {
        self.set.remove(&key);
    }

    #[cfg(test)]
    pub(crate) fn all(&self) -> impl Iterator<Item = (TimerKey, Timer)> {
        self.set.iter().map(|(key, timer)| (*key, *timer))
    }

    pub(crate) fn next(&self) -> Option<At> {
        let at = self.set.first_key_value().map(|((at, _), _)| *at)?;
        Some(self.stopped_until.map_or(at, |until| until.max(at)))
    }

    /// Removes and returns the earliest timer that is due.
    pub(crate) fn due(&mut self, now: At) -> Option<Timer> {
        if self.stopped_until.is_some_and(|until| now < until) {
            return None;
        }
        self.set
            .first_entry()
            .filter(|entry| entry.key().0 <= now)
            .map(std::collections::btree_map::OccupiedEntry::remove)
    }
}
