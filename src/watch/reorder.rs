//! The order of chunks: the pure core of a stream of chunks.
//!
//! Chunks are numbered from 0 in each attempt of a task, and do not contain the attempt. The engine delivers them in order for five
//! seconds, and then nearly in order. So a chunk that comes too early is held until the ones before it have arrived, or for [`MAX_HOLD`]
//! or [`MAX_HOLD_IF_MID_ATTEMPT`].
//! What has not arrived before it then is a gap.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use crate::model::{Chunk, ChunkGap, ChunkItem, ChunkPosition, ChunkRestart, RunId, TaskId};

/// How long a chunk waits for the ones before it.
const MAX_HOLD: Duration = Duration::from_secs(3);
/// The same if the reader subscribed while the task was sending: the earlier chunks were probably sent before the subscription, and never
/// arrive. This is longer than a worker needs to send the chunks that are in flight.
const MAX_HOLD_IF_MID_ATTEMPT: Duration = Duration::from_millis(300);
/// The same if the reader resumes after chunks that it has received in another stream. The engine can deliver a large chunk 0.9 seconds late.
const MAX_HOLD_AFTER_RESUME: Duration = Duration::from_secs(1);
/// By how much the clock of a worker may be ahead of that of the engine, so that the last chunk of an attempt seems to follow its end.
const MAX_AHEAD: TimeDelta = TimeDelta::milliseconds(100);
/// An end in the history is not later than its event, which has the engine's time, by more than this.
const SAME_END: TimeDelta = TimeDelta::milliseconds(1);
/// The number of earlier attempts of a task whose first chunk is remembered.
const MAX_EARLIER_ZEROS: usize = 16;
/// The number and the bytes of chunks that wait, of all tasks together.
const MAX_HELD: usize = 8192;
const MAX_HELD_BYTES: usize = 16 << 20;
/// The number of tasks that are remembered when there are twice as many: those that have sent a chunk last. With the chunks of children, a
/// run can have any number of them.
const MAX_TASKS: usize = 4096;
/// The number of tasks whose creation is remembered, until their first chunks arrive. With the chunks of children, they can be of any run.
const MAX_CREATED: usize = 1024;

/// Where a chunk is among the others of its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Its SDK does not number chunks.
    Unnumbered,
    NewAttempt,
    /// It is of the same attempt as the last one.
    SameAttempt,
    /// It was returned before, or given up.
    Outdated,
}

#[derive(Debug, Default)]
pub(super) struct Reorder {
    tasks: HashMap<TaskId, Lane>,
    /// When the held chunks of each task are released.
    due: BTreeSet<(Instant, TaskId)>,
    /// The number and the bytes of all held chunks.
    held: Held,
    /// At which number of tasks idle ones are forgotten next.
    forget_at: usize,
    /// The number of chunks that were taken, and of those that were ignored.
    taken: u64,
    outdated: u64,
    /// How often chunks may have been lost.
    losses: u64,
    /// Whether tasks may have sent chunks before the reader subscribed.
    is_late: bool,
    /// The tasks that were created after the reader subscribed.
    created: VecDeque<TaskId>,
}

/// A number of chunks, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Held {
    count: usize,
    bytes: usize,
}

/// The chunks of one task.
#[derive(Debug, Default)]
struct Lane {
    /// The number of the last chunk among those of all tasks.
    used: u64,
    next: i64,
    first_sent_at: Option<DateTime<Utc>>,
    /// When the chunk with the index 0 was sent, if it has arrived.
    zero_sent_at: Option<DateTime<Utc>>,
    /// The same for the last attempts before.
    earlier_zeros: VecDeque<DateTime<Utc>>,
    last_sent_at: Option<DateTime<Utc>>,
    /// When the attempt has ended, until a chunk of the next one arrives.
    ended_at: Option<DateTime<Utc>>,
    /// How often chunks had been lost when it was known to have ended.
    losses_at_end: u64,
    /// When the attempt before has ended: an end is announced, and is in the history of the run.
    last_ended_at: Option<DateTime<Utc>>,
    /// The number of attempts that have sent chunks. That of the current one is at least this.
    attempts: u32,
    /// The number of the last attempt before the current one whose end is known.
    last_ended: Option<u32>,
    /// The number of the attempt that has ended.
    ended: Option<u32>,
    held: BTreeMap<i64, Waiting>,
    /// The held chunks by the time of their arrival.
    arrivals: BTreeSet<(Instant, i64)>,
    bytes: usize,
    due: Option<Instant>,
    /// How long its chunks wait until the first one is returned, if the task may have been sending when the reader subscribed.
    first_hold: Option<Duration>,
}

/// A held chunk.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    chunk: Chunk,
}

impl Reorder {
    /// `from_start`: whether the reader subscribed before the run started. Otherwise, its tasks may already be sending.
    pub(super) fn new(from_start: bool) -> Self {
        Self { is_late: !from_start, ..Self::default() }
    }

    /// Records that a task was created after the reader subscribed.
    pub(super) fn created(&mut self, task: TaskId) {
        if self.is_late {
            self.created.push_back(task);
            if self.created.len() > MAX_CREATED {
                self.created.pop_front();
            }
        }
    }

    /// Takes a chunk that has this place, and adds those that are next to `ready`.
    pub(super) fn take(&mut self, place: Place, now: Instant, chunk: Chunk, ready: &mut impl Extend<ChunkItem>) {
        let (task, Some(index)) = (chunk.task_id, chunk.index) else { return ready.extend([ChunkItem::Chunk(chunk)]) };
        if place == Place::Outdated {
            self.outdated += 1;
            return;
        }
        let may_miss_start = self.is_late && !self.tasks.contains_key(&task) && !self.created.contains(&task);
        let first_hold = may_miss_start.then_some(MAX_HOLD_IF_MID_ATTEMPT);
        let lane = self.tasks.entry(task).or_insert_with(|| Lane { first_hold, ..Lane::default() });
        self.taken += 1;
        lane.used = self.taken;
        let before = lane.size();
        if place == Place::NewAttempt {
            lane.begin_attempt(chunk.run_id, task, ready);
        }
        lane.add(index, now, chunk, ready);
        let after = lane.size();
        self.held.replace(before, after);
        self.schedule(task);
        while self.held.count > MAX_HELD || self.held.bytes > MAX_HELD_BYTES {
            let Some((_, longest)) = self.due.first().copied() else { break };
            self.release_first(longest, ready);
        }
        self.forget_idle();
    }

    /// If there are very many tasks, those are forgotten that have sent nothing for the longest time: they have probably ended.
    fn forget_idle(&mut self) {
        if self.tasks.len() < self.forget_at.max(2 * MAX_TASKS) {
            return;
        }
        let mut used: Vec<_> = self.tasks.values().map(|lane| lane.used).collect();
        used.sort_unstable();
        let first = used.get(used.len().saturating_sub(MAX_TASKS)).copied().unwrap_or_default();
        self.tasks.retain(|_, lane| lane.used >= first || !lane.held.is_empty());
        // Those that wait for chunks are kept.
        self.forget_at = self.tasks.len() + MAX_TASKS / 2;
    }

    /// The number of chunks that were ignored because they had been returned or given up.
    pub(super) fn outdated(&self) -> u64 {
        self.outdated
    }

    /// The number of attempts of a task that have sent chunks, as far as is known. The number of the last one is at least this.
    pub(super) fn attempts(&self, task: TaskId) -> u32 {
        self.tasks.get(&task).map_or(0, |lane| lane.attempts)
    }

    /// Where a chunk is that has not been taken yet.
    pub(super) fn place(&self, chunk: &Chunk) -> Place {
        let Some(index) = chunk.index else { return Place::Unnumbered };
        match self.tasks.get(&chunk.task_id) {
            None => Place::NewAttempt,
            Some(lane) if lane.is_of_next_attempt(index, chunk.sent_at, self.losses) => Place::NewAttempt,
            Some(lane) if index < lane.next || lane.is_of_earlier_attempt(index, chunk.sent_at) => Place::Outdated,
            Some(_) => Place::SameAttempt,
        }
    }

    /// Chunks may have been lost.
    pub(super) fn lost(&mut self) {
        self.losses += 1;
    }

    /// An attempt of a task has ended. Its end is announced, and is in the history of the run, in which it has the time of another clock.
    pub(super) fn attempt_ended(
        &mut self,
        task: TaskId,
        attempt: Option<u32>,
        at: Option<DateTime<Utc>>,
        is_completed: bool,
    ) {
        // Another attempt does not follow, so what comes later is of this one, whatever the clocks of its worker and the engine show.
        if is_completed {
            return;
        }
        let (Some(lane), Some(at)) = (self.tasks.get_mut(&task), at) else { return };
        if attempt.is_some_and(|attempt| attempt < lane.attempts || lane.last_ended.is_some_and(|last| attempt <= last))
        {
            return;
        }
        // Otherwise, it was an earlier attempt than that of the last chunks, which may have begun at the same time.
        let is_new = lane.last_ended_at.is_none_or(|last| at > last + SAME_END);
        if is_new && lane.first_sent_at.is_some_and(|first| first < at) {
            lane.ended_at = Some(at);
            lane.losses_at_end = self.losses;
            lane.ended = lane.ended.max(attempt);
        }
    }

    /// The reader has received a chunk of a task, and those before it, in another stream.
    pub(super) fn resume(&mut self, ChunkPosition { task, index, sent_at }: ChunkPosition) {
        let lane = self.tasks.entry(task).or_default();
        (lane.attempts, lane.first_hold) = (1, Some(MAX_HOLD_AFTER_RESUME));
        (lane.next, lane.first_sent_at, lane.last_sent_at) = (index.saturating_add(1), sent_at, sent_at);
    }

    /// When the first held chunks are released.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Releases the chunks that have waited for too long.
    pub(super) fn release_due(&mut self, now: Instant, ready: &mut impl Extend<ChunkItem>) {
        while let Some((due, task)) = self.due.first().copied()
            && due <= now
        {
            self.release_first(task, ready);
        }
    }

    /// Releases all chunks.
    pub(super) fn release_all(&mut self, ready: &mut impl Extend<ChunkItem>) {
        while let Some((_, task)) = self.due.first().copied() {
            self.release_first(task, ready);
        }
    }

    /// Releases the chunk of a task that has waited longest. Those after it wait for their own time, unless none is missing before them.
    fn release_first(&mut self, task: TaskId, ready: &mut impl Extend<ChunkItem>) {
        if let Some(lane) = self.tasks.get_mut(&task) {
            let before = lane.size();
            let oldest = lane.arrivals.first().map(|(_, index)| *index);
            lane.release(ready, oldest);
            let after = lane.size();
            self.held.replace(before, after);
        }
        self.schedule(task);
    }

    /// Sets when the next held chunk of a task is released.
    fn schedule(&mut self, task: TaskId) {
        let Some(lane) = self.tasks.get_mut(&task) else { return };
        let due = lane.arrivals.first().map(|(since, _)| *since + lane.max_hold());
        if due != lane.due {
            lane.due.map(|due| self.due.remove(&(due, task)));
            due.map(|due| self.due.insert((due, task)));
            lane.due = due;
        }
    }
}

impl Held {
    fn replace(&mut self, before: Self, after: Self) {
        self.count = self.count.saturating_sub(before.count).saturating_add(after.count);
        self.bytes = self.bytes.saturating_sub(before.bytes).saturating_add(after.bytes);
    }
}

impl Lane {
    /// How long its chunks wait for earlier ones.
    fn max_hold(&self) -> Duration {
        self.first_hold.unwrap_or(MAX_HOLD)
    }

    /// What waits for earlier chunks.
    fn size(&self) -> Held {
        Held { count: self.held.len(), bytes: self.bytes }
    }

    /// Whether a chunk is of the next attempt. Its number begins at 0 again, and may be that of a chunk which has not arrived.
    fn is_of_next_attempt(&self, index: i64, sent_at: Option<DateTime<Utc>>, losses: u64) -> bool {
        let is_after = |last: Option<DateTime<Utc>>| sent_at.zip(last).is_some_and(|(sent, last)| sent > last);
        // An attempt numbers its chunks in the order in which it sends them.
        let follows_later_chunk = || {
            let later = self.held.range(index.saturating_add(1)..).next();
            later.is_some_and(|(_, later)| is_after(later.chunk.sent_at))
        };
        match self.ended_at {
            // The clock of its worker can be behind that of the last one, and the end of that attempt may not be announced. That the
            // first chunk of an earlier attempt, which has not arrived yet, comes as late as this is less likely.
            // The attempt whose end is known had sent later ones, which the reader has received.
            Some(_) if index == 0 && self.zero_sent_at.is_none() && self.next > 0 => true,
            _ if index == 0 && self.zero_sent_at.is_some() => {
                sent_at.is_some_and(|at| Some(at) != self.zero_sent_at && !self.earlier_zeros.contains(&at))
            }
            // The end has overtaken the chunk that is next. The first one is probably that of the next attempt.
            Some(ended_at) if index > 0 && index == self.next && losses == self.losses_at_end => {
                is_after(Some(ended_at + MAX_AHEAD))
            }
            Some(ended_at) if is_after(Some(ended_at)) => true,
            // The end of an attempt may be announced later than the first chunks of the next one, or not at all.
            None if index < self.next => is_after(self.last_sent_at),
            _ => follows_later_chunk(),
        }
    }

    /// The first chunk of an attempt is the one that was sent first.
    fn is_of_earlier_attempt(&self, index: i64, sent_at: Option<DateTime<Utc>>) -> bool {
        index > 0 && sent_at.zip(self.zero_sent_at).is_some_and(|(sent, zero)| sent < zero)
    }

    fn begin_attempt(&mut self, run_id: RunId, task_id: TaskId, ready: &mut impl Extend<ChunkItem>) {
        self.release(ready, Some(i64::MAX));
        if self.attempts > 0 {
            self.first_hold = None;
            ready.extend([ChunkItem::Restart(ChunkRestart { run_id, task_id })]);
        }
        self.last_ended_at = self.ended_at.take().or(self.last_ended_at);
        self.last_ended = self.ended.take().or(self.last_ended);
        self.attempts = self.attempts.saturating_add(1).max(self.last_ended.map_or(0, |last| last.saturating_add(1)));
        if let Some(zero) = self.zero_sent_at {
            self.earlier_zeros.push_back(zero);
            if self.earlier_zeros.len() > MAX_EARLIER_ZEROS {
                self.earlier_zeros.pop_front();
            }
        }
        (self.next, self.first_sent_at, self.zero_sent_at, self.last_sent_at) = (0, None, None, None);
    }

    fn add(&mut self, index: i64, now: Instant, chunk: Chunk, ready: &mut impl Extend<ChunkItem>) {
        self.first_sent_at = self.first_sent_at.or(chunk.sent_at);
        if index == 0 {
            self.zero_sent_at = chunk.sent_at;
        }
        self.bytes = self.bytes.saturating_add(chunk.content.len());
        let twice = self.held.remove(&index);
        let since = twice.as_ref().map_or(now, |twice| twice.since);
        self.bytes = self.bytes.saturating_sub(twice.map_or(0, |twice| twice.chunk.content.len()));
        self.arrivals.insert((since, index));
        self.held.insert(index, Waiting { since, chunk });
        self.release(ready, None);
    }

    /// Releases the chunks that are next, and with gaps those up to an index.
    fn release(&mut self, ready: &mut impl Extend<ChunkItem>, with_gaps_to: Option<i64>) {
        while let Some(first) = self.held.first_entry() {
            let index = *first.key();
            if index > self.next {
                if with_gaps_to.is_none_or(|last| index > last) {
                    break;
                }
                let Chunk { run_id, task_id, .. } = first.get().chunk;
                let (first_index, last_index) = (self.next, index.saturating_sub(1));
                ready.extend([ChunkItem::Gap(ChunkGap { run_id, task_id, first_index, last_index })]);
            }
            let Waiting { since, chunk } = first.remove();
            self.arrivals.remove(&(since, index));
            self.next = index.saturating_add(1);
            self.bytes = self.bytes.saturating_sub(chunk.content.len());
            self.last_sent_at = self.last_sent_at.max(chunk.sent_at);
            self.first_hold = None;
            ready.extend([ChunkItem::Chunk(chunk)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::ChunkContent;

    const SECOND: Duration = Duration::from_secs(1);

    /// A chunk of an attempt.
    fn chunk(attempt: i64, index: i64) -> Chunk {
        let sent_at = DateTime::from_timestamp(attempt * 1000 + index, 0);
        let id = uuid::Uuid::from_u128(1);
        let text = format!("{attempt}.{index}");
        let content = ChunkContent::Text(text);
        Chunk { run_id: id.into(), task_id: id.into(), index: Some(index), sent_at, content }
    }

    fn take(reorder: &mut Reorder, now: Instant, chunk: Chunk, ready: &mut Vec<ChunkItem>) {
        reorder.take(reorder.place(&chunk), now, chunk, ready);
    }

    /// All items except restarts. Most tests identify the attempt by the text of the chunk.
    fn texts(items: &[ChunkItem]) -> Vec<String> {
        items.iter().filter(|item| !matches!(item, ChunkItem::Restart(_))).map(ToString::to_string).collect()
    }

    #[test]
    fn chunks_are_returned_in_order_and_once() {
        let (mut reorder, now, mut ready) = (Reorder::default(), Instant::now(), Vec::new());
        for index in [1, 0, 0, 2, 4, 3, 1] {
            take(&mut reorder, now, chunk(1, index), &mut ready);
        }
        assert_eq!(texts(&ready), ["1.0", "1.1", "1.2", "1.3", "1.4"]);
        assert_eq!((reorder.outdated, reorder.due()), (2, None));
    }

    #[test]
    fn missing_chunks_are_a_gap_after_a_while() {
        let (mut reorder, now, mut ready) = (Reorder::default(), Instant::now(), Vec::new());
        for index in [3, 4, 7] {
            take(&mut reorder, now, chunk(1, index), &mut ready);
        }
        assert_eq!((ready.len(), reorder.due()), (0, Some(now + MAX_HOLD)));
        reorder.release_due(now + SECOND, &mut ready);
        assert_eq!(ready.len(), 0);
        reorder.release_due(now + MAX_HOLD, &mut ready);
        let expected = ["chunks 0 to 2 are missing", "1.3", "1.4", "chunks 5 to 6 are missing", "1.7"];
        assert_eq!(texts(&ready), expected);
        take(&mut reorder, now, chunk(1, 5), &mut ready);
        assert_eq!(texts(&ready), expected, "it is too late");
    }

    #[test]
    fn each_later_attempt_is_announced_before_its_first_item() {
        let (mut reorder, now, mut ready) = (Reorder::default(), Instant::now(), Vec::new());
        for (attempt, index) in [(1, 0), (1, 2), (2, 0)] {
            take(&mut reorder, now, chunk(attempt, index), &mut ready);
        }
        end(&mut reorder, 2, 0);
        take(&mut reorder, now, chunk(3, 1), &mut ready);
        end(&mut reorder, 3, 1);
        take(&mut reorder, now, chunk(4, 0), &mut ready);
        reorder.release_all(&mut ready);
        let shown: Vec<_> = ready
            .iter()
            .map(|item| if let ChunkItem::Restart(_) = item { "restarted".into() } else { item.to_string() })
            .collect();
        let second = ["restarted", "2.0"];
        let third = ["restarted", "chunk 0 is missing", "3.1"];
        let first = ["1.0", "chunk 1 is missing", "1.2"];
        assert_eq!(shown, [&first[..], &second, &third, &["restarted", "4.0"]].concat());
        // A reader that resumes has received chunks of the attempt before in another stream.
        let (mut reorder, mut ready) = (Reorder::default(), Vec::new());
        reorder.resume(ChunkPosition::of(&chunk(1, 3)).unwrap());
        take(&mut reorder, now, chunk(2, 0), &mut ready);
        assert!(matches!(&ready[..], [ChunkItem::Restart(_), ChunkItem::Chunk(_)]), "{ready:?}");
    }

    /// What was sent before the reader subscribed never comes.
    #[test]
    fn a_reader_that_subscribes_late_does_not_wait_for_earlier_chunks() {
        let now = Instant::now();
        let received = |mut reorder: Reorder| {
            let mut ready = Vec::new();
            take(&mut reorder, now, chunk(1, 5), &mut ready);
            let first_due = reorder.due().unwrap() - now;
            reorder.release_due(now + first_due, &mut ready);
            take(&mut reorder, now + first_due, chunk(1, 7), &mut ready);
            (first_due, reorder.due().unwrap() - (now + first_due), texts(&ready))
        };
        let expected = ["chunks 0 to 4 are missing", "1.5"].map(str::to_owned).to_vec();
        assert_eq!(received(Reorder::new(false)), (MAX_HOLD_IF_MID_ATTEMPT, MAX_HOLD, expected.clone()));
        assert_eq!(received(Reorder::new(true)), (MAX_HOLD, MAX_HOLD, expected.clone()));
        let mut created = Reorder::new(false);
        created.created(uuid::Uuid::from_u128(1).into());
        assert_eq!(received(created), (MAX_HOLD, MAX_HOLD, expected), "its first chunks are expected");
        let mut resumed = Reorder::default();
        resumed.resume(ChunkPosition::of(&chunk(1, 3)).unwrap());
        let expected = ["chunk 4 is missing", "1.5"].map(str::to_owned).to_vec();
        assert_eq!(received(resumed), (MAX_HOLD_AFTER_RESUME, MAX_HOLD, expected));
    }

    /// A chunk every 100 ms, and every other one is late: there is always one that waits.
    #[test]
    fn each_chunk_waits_for_its_own_time() {
        let (mut reorder, start, mut ready) = (Reorder::default(), Instant::now(), Vec::new());
        let lateness = |index: i64| if index % 2 == 0 { 0 } else { 100 + 100 * (index / 2 % 9) };
        let mut arrivals: Vec<_> = (0..200).map(|index| (100 * index + lateness(index), index)).collect();
        arrivals.sort_unstable();
        for (at, index) in arrivals {
            let now = start + Duration::from_millis(u64::try_from(at).unwrap());
            reorder.release_due(now, &mut ready);
            take(&mut reorder, now, chunk(1, index), &mut ready);
        }
        let expected: Vec<_> = (0..200).map(|index| format!("1.{index}")).collect();
        assert_eq!((texts(&ready), reorder.due(), reorder.outdated), (expected, None, 0));
        // A gap is cut where it is due, and not at a later hole.
        let (mut reorder, mut ready) = (Reorder::default(), Vec::new());
        for (seconds, index) in [(0, 1), (2, 3)] {
            take(&mut reorder, start + seconds * SECOND, chunk(1, index), &mut ready);
        }
        reorder.release_due(start + MAX_HOLD, &mut ready);
        assert_eq!(
            (texts(&ready), reorder.due()),
            (vec!["chunk 0 is missing".into(), "1.1".into()], Some(start + 2 * SECOND + MAX_HOLD))
        );
        take(&mut reorder, start + 4 * SECOND, chunk(1, 2), &mut ready);
        assert_eq!(texts(&ready)[2..], ["1.2", "1.3"]);
    }

    #[test]
    fn the_next_attempt_begins_at_zero_again() {
        let (mut reorder, now, mut ready) = (Reorder::default(), Instant::now(), Vec::new());
        for (attempt, index) in [(1, 0), (1, 1), (1, 3), (2, 0), (2, 1), (3, 1), (3, 0)] {
            take(&mut reorder, now, chunk(attempt, index), &mut ready);
        }
        reorder.release_all(&mut ready);
        assert_eq!(texts(&ready), ["1.0", "1.1", "chunk 2 is missing", "1.3", "2.0", "2.1", "3.0", "3.1"]);
    }

    /// The end of an attempt, a second after its last chunk.
    fn end(reorder: &mut Reorder, attempt: i64, last: i64) {
        let (task, number) = (uuid::Uuid::from_u128(1).into(), u32::try_from(attempt).ok());
        reorder.attempt_ended(task, number, DateTime::from_timestamp(attempt * 1000 + last + 1, 0), false);
    }

    fn received(events: &[(i64, i64)], ends: &[(usize, i64, i64)]) -> Vec<String> {
        let (mut reorder, now, mut ready) = (Reorder::default(), Instant::now(), Vec::new());
        for (at, (attempt, index)) in events.iter().enumerate() {
            for (_, attempt, last) in ends.iter().filter(|(before, ..)| *before == at) {
                end(&mut reorder, *attempt, *last);
            }
            take(&mut reorder, now, chunk(*attempt, *index), &mut ready);
        }
        reorder.release_all(&mut ready);
        assert_eq!(reorder.due(), None);
        texts(&ready)
    }

    #[test]
    fn chunks_after_the_end_of_an_attempt_are_of_the_next_one() {
        // The first chunks of the next attempt were lost, or come later.
        let lost = received(&[(1, 0), (1, 1), (2, 2), (2, 3)], &[(2, 1, 1)]);
        assert_eq!(lost, ["1.0", "1.1", "chunks 0 to 1 are missing", "2.2", "2.3"]);
        assert_eq!(received(&[(1, 0), (2, 1), (2, 0)], &[(1, 1, 0)]), ["1.0", "2.0", "2.1"]);
        // The end is not announced, and the chunk fills a hole only by its number.
        let mixed = received(&[(1, 1), (1, 2), (2, 0), (2, 1)], &[]);
        assert_eq!(mixed, ["chunk 0 is missing", "1.1", "1.2", "2.0", "2.1"]);
        // A late chunk is still of the attempt that has ended.
        assert_eq!(received(&[(1, 0), (1, 1), (2, 0)], &[(1, 1, 1)]), ["1.0", "1.1", "2.0"]);
        // The end is announced after the first chunk of the next attempt, and not of the current one.
        assert_eq!(received(&[(1, 0), (1, 1), (2, 0), (2, 1)], &[(3, 1, 1)]), ["1.0", "1.1", "2.0", "2.1"]);
        // The clock of the next worker is behind.
        assert_eq!(received(&[(2, 0), (2, 1), (1, 0), (1, 1)], &[(2, 2, 1)]), ["2.0", "2.1", "1.0", "1.1"]);
        // The same, and the end is not announced, as that of an attempt that has timed out.
        assert_eq!(received(&[(2, 0), (2, 1), (1, 0), (1, 1)], &[]), ["2.0", "2.1", "1.0", "1.1"]);
        // A first chunk that is received twice, or late, begins no attempt.
        assert_eq!(received(&[(1, 0), (2, 0), (1, 0), (2, 1), (2, 0)], &[]), ["1.0", "2.0", "2.1"]);
        assert_eq!(received(&[(1, 0), (1, 0), (2, 0)], &[(1, 1, 0)]), ["1.0", "2.0"]);
        assert_eq!(received(&[(1, 1), (1, 0), (2, 0)], &[(1, 1, 1)]), ["1.0", "1.1", "2.0"]);
        // The same end is announced, and read in the history, after the next attempt has begun.
        let twice = received(&[(2, 0), (2, 1), (1, 0), (1, 1), (2, 2), (1, 2)], &[(2, 2, 1), (3, 2, 1)]);
        assert_eq!(twice[..4], ["2.0", "2.1", "1.0", "1.1"]);
        // The end of an attempt whose chunks have not arrived, at the time of the first chunk of the next one.
        assert_eq!(received(&[(2, 0), (2, 1)], &[(1, 1, 999)]), ["2.0", "2.1"]);
        // A late chunk of an attempt comes after the next one has begun.
        assert_eq!(received(&[(1, 0), (2, 0), (1, 5), (2, 1)], &[(1, 1, 5)]), ["1.0", "2.0", "2.1"]);
    }

    /// The reader has joined the attempt before, whose failure is known. The clock of the next worker is behind.
    #[test]
    fn a_retry_is_returned_although_its_clock_is_behind_that_of_an_attempt_that_was_joined() {
        let (mut reorder, now, mut ready) = (Reorder::new(false), Instant::now(), Vec::new());
        take(&mut reorder, now, chunk(2, 5), &mut ready);
        reorder.release_due(now + MAX_HOLD_IF_MID_ATTEMPT, &mut ready);
        end(&mut reorder, 2, 5);
        for index in 0..3 {
            take(&mut reorder, now + SECOND, chunk(1, index), &mut ready);
        }
        assert_eq!(texts(&ready), ["chunks 0 to 4 are missing", "2.5", "1.0", "1.1", "1.2"]);
        assert_eq!(reorder.outdated(), 0);
    }

    /// The clock of its worker is ahead of that of the engine, and a chunk was lost.
    #[test]
    fn a_chunk_after_the_end_of_a_completed_attempt_is_of_that_attempt() {
        let received = |is_completed: bool| {
            let (mut reorder, now, mut ready) = (Reorder::default(), Instant::now(), Vec::new());
            take(&mut reorder, now, chunk(1, 0), &mut ready);
            reorder.attempt_ended(
                uuid::Uuid::from_u128(1).into(),
                Some(1),
                DateTime::from_timestamp(1001, 0),
                is_completed,
            );
            take(&mut reorder, now, chunk(1, 5), &mut ready);
            reorder.release_all(&mut ready);
            ready.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(received(true), ["1.0", "chunks 1 to 4 are missing", "1.5"]);
        assert_eq!(received(false)[1..].len(), 3, "a restart, a gap and a chunk");
    }

    #[test]
    fn a_reader_resumes_after_what_it_has() {
        let (mut reorder, now, mut ready) = (Reorder::default(), Instant::now(), Vec::new());
        reorder.resume(ChunkPosition::of(&chunk(1, 3)).unwrap());
        for (attempt, index) in [(1, 2), (1, 4), (1, 6), (2, 1)] {
            take(&mut reorder, now, chunk(attempt, index), &mut ready);
        }
        reorder.release_all(&mut ready);
        assert_eq!(texts(&ready), ["1.4", "chunk 5 is missing", "1.6", "chunk 0 is missing", "2.1"]);
    }

    /// As those of children, one after the other, and a task that sends all the time.
    #[test]
    fn the_number_of_remembered_tasks_is_limited() {
        let (mut reorder, now, mut ready) = (Reorder::default(), Instant::now(), Vec::new());
        let waiting = Chunk { task_id: uuid::Uuid::from_u128(2).into(), ..chunk(1, 1) };
        take(&mut reorder, now, waiting.clone(), &mut ready);
        for number in 0..5 * MAX_TASKS {
            take(&mut reorder, now, chunk(1, i64::try_from(number).unwrap()), &mut ready);
            let child = Chunk { task_id: uuid::Uuid::from_u128(10 + number as u128).into(), ..chunk(1, 0) };
            take(&mut reorder, now, child, &mut ready);
            assert!(reorder.tasks.len() <= 2 * MAX_TASKS);
        }
        assert_eq!((ready.len(), reorder.outdated()), (2 * 5 * MAX_TASKS, 0));
        take(&mut reorder, now, Chunk { index: Some(0), ..waiting }, &mut ready);
        assert_eq!(texts(&ready[10 * MAX_TASKS..]), ["1.1", "1.1"], "what waits is not forgotten");
        // A task that was forgotten begins again.
        assert!(!reorder.tasks.contains_key(&uuid::Uuid::from_u128(10).into()));
    }

    #[test]
    fn chunks_without_numbers_are_returned_as_they_come() {
        let (mut reorder, mut ready) = (Reorder::default(), Vec::new());
        take(&mut reorder, Instant::now(), Chunk { index: None, ..chunk(1, 5) }, &mut ready);
        assert_eq!(texts(&ready), ["1.5"]);
    }

    /// The end of the first attempt is announced with the time of the engine, and is in the history with that of a worker whose clock is ahead.
    #[test]
    fn an_end_that_is_known_with_two_times_is_that_of_one_attempt() {
        let (task, now) = (uuid::Uuid::from_u128(1).into(), Instant::now());
        let at = |millis| DateTime::from_timestamp_millis(millis);
        let received = |chunks: &[(i64, i64)], ends: &[(usize, u32, i64)]| {
            let (mut reorder, mut ready) = (Reorder::default(), Vec::new());
            for (number, (index, sent_at)) in chunks.iter().enumerate() {
                for (_, attempt, ended_at) in ends.iter().filter(|(before, ..)| *before == number) {
                    reorder.attempt_ended(task, Some(*attempt), at(*ended_at), false);
                }
                let content = ChunkContent::Text(format!("{sent_at}.{index}"));
                take(&mut reorder, now, Chunk { sent_at: at(*sent_at), content, ..chunk(1, *index) }, &mut ready);
            }
            assert_eq!(reorder.due(), None, "no chunk waits");
            texts(&ready)
        };
        let chunks = [(0, 100), (0, 1050), (1, 1150), (2, 1200), (3, 1350)];
        let expected = ["100.0", "1050.0", "1150.1", "1200.2", "1350.3"];
        assert_eq!(received(&chunks, &[(1, 1, 1000), (3, 1, 1300)]), expected);
        // The history is faster than the event, which does not come.
        assert_eq!(received(&chunks, &[(3, 1, 1300)]), expected);
    }

    /// The clock of the worker is ahead of that of the engine, and the end overtakes the last chunk.
    #[test]
    fn the_next_chunk_that_seems_to_follow_the_end_is_of_the_same_attempt() {
        let received = |ahead: TimeDelta, is_lost: bool| {
            let (mut reorder, now, mut ready) = (Reorder::default(), Instant::now(), Vec::new());
            take(&mut reorder, now, chunk(1, 0), &mut ready);
            let ended_at = DateTime::from_timestamp(1001, 0);
            reorder.attempt_ended(uuid::Uuid::from_u128(1).into(), Some(1), ended_at, false);
            if is_lost {
                reorder.lost();
            }
            let late = Chunk { sent_at: ended_at.map(|at| at + ahead), ..chunk(1, 1) };
            take(&mut reorder, now, late, &mut ready);
            reorder.release_all(&mut ready);
            texts(&ready)
        };
        let next_attempt = ["1.0", "chunk 0 is missing", "1.1"];
        assert_eq!(received(TimeDelta::milliseconds(50), false), ["1.0", "1.1"]);
        assert_eq!(received(MAX_AHEAD, false), ["1.0", "1.1"]);
        assert_eq!(received(MAX_AHEAD + TimeDelta::milliseconds(1), false), next_attempt);
        assert_eq!(received(TimeDelta::milliseconds(50), true), next_attempt, "the first chunk may be lost");
    }

    /// The first chunks of an attempt have not arrived, and the next one begins at once.
    #[test]
    fn the_first_chunk_after_an_end_is_not_of_the_attempt_that_has_ended() {
        let (mut reorder, now, mut ready) = (Reorder::default(), Instant::now(), Vec::new());
        take(&mut reorder, now, chunk(1, 1), &mut ready);
        let ended_at = DateTime::from_timestamp(1001, 0);
        reorder.attempt_ended(uuid::Uuid::from_u128(1).into(), Some(1), ended_at, false);
        let soon = |index: i64| Chunk {
            sent_at: ended_at.map(|at| at + TimeDelta::milliseconds(10 * (index + 1))),
            ..chunk(2, index)
        };
        for index in 0..2 {
            take(&mut reorder, now, soon(index), &mut ready);
        }
        reorder.release_all(&mut ready);
        assert_eq!(texts(&ready), ["chunk 0 is missing", "1.1", "2.0", "2.1"]);
    }

    /// However many tasks send chunks out of order.
    #[test]
    fn the_number_of_held_chunks_of_all_tasks_is_limited() {
        let (mut reorder, now, mut ready) = (Reorder::default(), Instant::now(), Vec::new());
        let of_task =
            |number: usize, index| Chunk { task_id: uuid::Uuid::from_u128(number as u128).into(), ..chunk(1, index) };
        for number in 0..3 * MAX_TASKS {
            take(&mut reorder, now, of_task(number, 7), &mut ready);
            assert!(reorder.held.count <= MAX_HELD);
        }
        // A gap, and the chunk after it.
        assert_eq!(ready.len(), 2 * (3 * MAX_TASKS - MAX_HELD));
        let before = ready.len();
        take(&mut reorder, now, of_task(3 * MAX_TASKS - 1, 8), &mut ready);
        assert!(texts(&ready[before..]).iter().all(|text| text != "1.8"), "it still waits for those before it");
    }

    #[test]
    fn the_number_of_held_chunks_is_limited() {
        let (mut reorder, now, mut ready) = (Reorder::default(), Instant::now(), Vec::new());
        let count = i64::try_from(MAX_HELD).unwrap() + 1;
        for index in 1..=count {
            take(&mut reorder, now, chunk(1, index), &mut ready);
        }
        assert_eq!((ready.len(), reorder.due()), (MAX_HELD + 2, None));
        assert_eq!(texts(&ready)[0], "chunk 0 is missing");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

        /// Whatever is late, repeated or lost, chunks are returned in order and once, and each missing one is in a gap. None is
        /// missing that has arrived before a later one had waited for long enough.
        #[test]
        fn each_chunk_is_returned_once_or_in_a_gap(
            arrivals in proptest::collection::vec((0i64..40, 0u64..2000), 0..120),
        ) {
            let (mut reorder, mut now, mut ready) = (Reorder::default(), Instant::now(), Vec::new());
            let (mut first, mut in_time) = (BTreeMap::new(), BTreeSet::new());
            for (index, pause) in &arrivals {
                first.entry(*index).or_insert(now);
                if first.range(index + 1..).all(|(_, later)| now < *later + MAX_HOLD) {
                    in_time.insert(*index);
                }
                take(&mut reorder, now, Chunk { sent_at: None, ..chunk(1, *index) }, &mut ready);
                now += Duration::from_millis(*pause);
                reorder.release_due(now, &mut ready);
            }
            reorder.release_all(&mut ready);
            let mut next = 0;
            for item in &ready {
                match item {
                    ChunkItem::Chunk(chunk) => {
                        prop_assert_eq!(chunk.index, Some(next));
                        in_time.remove(&next);
                        next += 1;
                    }
                    ChunkItem::Gap(gap) => {
                        prop_assert_eq!(gap.first_index, next);
                        prop_assert!(gap.last_index >= gap.first_index);
                        next = gap.last_index + 1;
                    }
                    ChunkItem::Interrupted | ChunkItem::Restart(_) => prop_assert!(false),
                }
            }
            prop_assert!(in_time.is_empty(), "{:?}", in_time);
            prop_assert_eq!(next, arrivals.iter().map(|(index, _)| index + 1).max().unwrap_or(0));
        }
    }
}
