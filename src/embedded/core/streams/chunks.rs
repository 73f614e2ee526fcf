//! Chunks of tasks, on their way to the streams that watch their runs.
//!
//! The real engine collects the messages of a stream, and orders the chunks of a task by their index, for each stream and for a few seconds.
//! All other events overtake them.

use std::time::Duration;

use uuid::Uuid;

use super::events;
use crate::embedded::core::store::{At, ChunkLane, Core, Resource, RunEvent, StreamId, Timer, Turn};
use crate::embedded::quirks::Quirk;

/// How late a chunk is, in milliseconds: from the first to less than the second.
const LATE_CHUNK_DELAY_MILLIS: (u32, u32) = (10, 90);
/// How late one is that is too long for a notification of the database.
const LARGE_LATE: (u32, u32) = (100, 900);
/// The number of bytes of text up to which a chunk is sent with a notification.
const MAX_SMALL: usize = 4000;
/// How long the chunks of a task are in order, and how long one waits for those before it.
const ORDERED_FOR: Duration = Duration::from_secs(5);
const HELD_FOR: Duration = Duration::from_millis(5030);

/// Sends a chunk to all streams that watch its run.
pub(crate) fn publish(core: &mut Core, turn: &mut Turn<'_>, event: &RunEvent) {
    let Resource::Task(task) = event.resource else { return };
    if !core.has(Quirk::LateChunks) {
        return events::publish(core, event);
    }
    for stream in events::watchers(core, event.run) {
        let (from, to) = if event.payload.len() > MAX_SMALL { LARGE_LATE } else { LATE_CHUNK_DELAY_MILLIS };
        let delay = Duration::from_millis(u64::from(from + turn.below(to - from)));
        let chunks = &mut core.streams.events.chunks;
        let lane = chunks.lanes.entry((stream, task)).or_insert_with(|| ChunkLane::new(turn.now));
        let at = lane.due(turn.now, delay, event.index);
        chunks.count += 1;
        chunks.waiting.insert(chunks.count, (stream, event.clone()));
        core.timers.set(at, Timer::Chunk(chunks.count));
    }
}

/// Sends a chunk that was late. If its stream has ended, it is lost.
pub(crate) fn send(core: &mut Core, chunk: u64) {
    if let Some((stream, event)) = core.streams.events.chunks.waiting.remove(&chunk) {
        events::send(core, stream, event);
    }
}

/// An attempt of a task has ended: what waits for chunks before it is sent. What is late for another reason is overtaken.
pub(crate) fn attempt_ended(core: &mut Core, now: At, task: Uuid) {
    let chunks = &mut core.streams.events.chunks;
    if chunks.lanes.is_empty() {
        return;
    }
    let mut held = Vec::new();
    chunks.lanes.retain(|(stream, of), lane| {
        let is_held = *of == task && lane.held_until.is_some_and(|until| until > now);
        held.extend(is_held.then_some(*stream));
        *of != task
    });
    let is_held =
        |(stream, event): &(StreamId, RunEvent)| event.resource == Resource::Task(task) && held.contains(stream);
    let waiting: Vec<_> =
        chunks.waiting.iter().filter(|(_, chunk)| is_held(chunk)).map(|(number, _)| *number).collect();
    for chunk in waiting {
        send(core, chunk);
    }
}

impl ChunkLane {
    /// When a chunk is sent that arrives now.
    fn due(&mut self, now: At, delay: Duration, index: Option<i64>) -> At {
        let (at, Some(index)) = (now + delay, index) else { return now + delay };
        let is_missing_some = index > self.next;
        let is_ordered = now < self.began_at + ORDERED_FOR;
        if index < self.next {
            return at;
        }
        self.next = index.saturating_add(1);
        if !is_ordered {
            return at;
        }
        let at = if is_missing_some { now + HELD_FOR } else { at };
        if is_missing_some {
            self.held_until = Some(at);
        }
        self.last = self.last.max(at);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_in_order_for_five_seconds_and_wait_for_those_before() {
        let start: At = "2026-01-01T12:00:00Z".parse().unwrap();
        let mut lane = ChunkLane::new(start);
        let mut due = |millis, delay, index| {
            let at = lane.due(start + Duration::from_millis(millis), Duration::from_millis(delay), index);
            (at - start).num_milliseconds()
        };
        assert_eq!(due(0, 80, Some(0)), 80);
        assert_eq!(due(10, 10, Some(1)), 80, "not before the first one");
        assert_eq!(due(15, 10, None), 25, "it has no number");
        // 2 is missing.
        assert_eq!((due(20, 10, Some(3)), due(30, 10, Some(4))), (5050, 5050));
        assert_eq!(due(40, 10, Some(1)), 50, "it is old");
        // After five seconds, chunks overtake others.
        assert_eq!((due(5000, 80, Some(5)), due(5010, 10, Some(6)), due(5020, 10, Some(9))), (5080, 5020, 5030));
    }
}
