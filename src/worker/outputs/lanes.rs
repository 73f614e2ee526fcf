//! Which log lines and chunks of the tasks of a worker are sent next: a state machine without I/O.
//!
//! The messages of a task are in two lanes, one for its log lines and one for its chunks. The lanes that have a message take turns.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::super::key::KeyMap;
use crate::model::TaskId;
use crate::workflow::{TaskContent, TaskMessage};

/// The maximum number of calls in flight.
pub(super) const MAX_CALLS: usize = 32;
/// The maximum number of those with chunks of one task.
const MAX_CALLS_WITH_CHUNKS: usize = 8;
/// The time after which the next chunk of a task is sent although the one before it has not been accepted. Readers of other SDKs receive chunks
/// in the order in which the engine received them, after the first five seconds, and calls that begin at the same time would arrive in any order.
const CHUNK_CALL_INTERVAL: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LaneKey {
    task: TaskId,
    is_of_chunks: bool,
}

#[derive(Debug)]
struct Lane {
    waiting: VecDeque<TaskMessage>,
    /// The number of its calls in flight.
    calls: usize,
    /// When the last one began.
    called_at: Instant,
    /// Whether it is in the queue of the lanes whose next message can be sent.
    is_ready: bool,
}

#[derive(Debug, Default)]
pub(super) struct Lanes {
    by_key: KeyMap<LaneKey, Lane>,
    ready: VecDeque<LaneKey>,
    calls: usize,
    /// When each of the others is ready although its last call has not ended.
    paced: BTreeSet<(Instant, LaneKey)>,
}

impl Lanes {
    pub(super) fn push(&mut self, message: TaskMessage, now: Instant) {
        let is_of_chunks = matches!(message.content, TaskContent::Chunk { .. });
        let key = LaneKey { task: message.origin.task, is_of_chunks };
        let new = || Lane { waiting: VecDeque::new(), calls: 0, called_at: now, is_ready: false };
        self.by_key.entry(key).or_insert_with(new).waiting.push_back(message);
        self.update(key, now);
    }

    /// Takes a message for which a call can begin now. While a message is being sent again, each lane has one call, so that chunks do not
    /// overtake it.
    pub(super) fn next(&mut self, now: Instant, is_retrying: bool) -> Option<(LaneKey, TaskMessage)> {
        while let Some((_, key)) = self.paced.first().copied().filter(|(at, _)| *at <= now) {
            self.paced.pop_first();
            self.update(key, now);
        }
        while self.calls < MAX_CALLS {
            let key = self.ready.pop_front()?;
            let lane = self.by_key.get_mut(&key)?;
            lane.is_ready = false;
            if is_retrying && lane.calls > 0 {
                // It is ready again when one of them has ended.
                continue;
            }
            let message = lane.waiting.pop_front()?;
            lane.calls += 1;
            lane.called_at = now;
            self.calls += 1;
            self.update(key, now);
            return Some((key, message));
        }
        None
    }

    /// A call has ended.
    pub(super) fn sent(&mut self, key: LaneKey, now: Instant) {
        let Some(lane) = self.by_key.get_mut(&key) else { return };
        lane.calls = lane.calls.saturating_sub(1);
        self.calls = self.calls.saturating_sub(1);
        if lane.calls == 0 && lane.waiting.is_empty() {
            self.by_key.remove(&key);
        } else {
            self.update(key, now);
        }
    }

    /// When to look for the next message if no call ends before.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.paced.first().map(|(at, _)| *at)
    }

    /// Finds out when the next message of a lane can be sent.
    fn update(&mut self, key: LaneKey, now: Instant) {
        let Some(lane) = self.by_key.get_mut(&key) else { return };
        if lane.is_ready || lane.waiting.is_empty() {
            return;
        }
        // The engine orders log lines by their arrival.
        let is_concurrent = key.is_of_chunks && lane.calls < MAX_CALLS_WITH_CHUNKS;
        let at = lane.called_at + CHUNK_CALL_INTERVAL;
        if lane.calls == 0 || is_concurrent && at <= now {
            lane.is_ready = true;
            self.ready.push_back(key);
        } else if is_concurrent {
            self.paced.insert((at, key));
        }
    }
}
