//! Which attempts a worker runs: a state machine without I/O. The driver passes it what happens, and does what it returns.

mod slots;

use std::collections::VecDeque;
use std::sync::Arc;

pub(super) use slots::{DEFAULT_SLOT_TYPE, SlotRequest, Slots};

use super::key::{Key, KeyMap, KeySet};
use super::report::{UnfinishedAttempt, WorkerReport};
use crate::model::{RunId, TaskId};
use crate::rpc::convert::ReportKind;

/// The maximum number of cancellations that are kept for attempts that have not been assigned yet.
const MAX_EARLY_CANCELLATIONS: usize = 1024;
/// The maximum number of attempts that are kept because a message of unknown type named them.
const MAX_UNKNOWN: usize = 1024;
/// The maximum number of tasks without an attempt whose newest attempt is remembered. The engine delivers an attempt again within
/// seconds, if at all.
const MAX_ENDED_TASKS: usize = 10_000;

/// What happens to a worker's attempts. `A` is what is needed to start one.
#[derive(Debug)]
pub(super) enum Event<A> {
    /// The engine has assigned an attempt, which occupies these slots.
    Assigned(Key, SlotRequest, A),
    /// The engine has assigned a batch with this id: an attempt of each of these tasks. It does not say which attempts.
    AssignedBatch(Arc<str>, Vec<(RunId, TaskId)>, A),
    /// The engine has assigned an attempt whose ids cannot be read.
    AssignedUnreadable,
    /// The engine has sent a message of unknown type about an attempt, which may be an assignment.
    AssignedUnknown(Key),
    /// The engine has cancelled an attempt.
    Cancelled(Key),
    /// The function of an attempt has ended.
    Ended(Key, End),
    /// The engine has accepted the report of an attempt's end, or has rejected it.
    Reported(Key, Reported),
    /// An attempt of a task, by its retry count, only waits, and does not occupy its slot any longer.
    Released(TaskId, u32),
    /// Whether finished attempts that were not reported yet keep others from being started.
    Hold(bool),
    /// The worker shuts down: no further attempt is accepted.
    StopAccepting,
    /// The grace period of the shutdown is over: no further attempt is started, and the running ones are dropped.
    DropAll,
    /// The worker does not wait for anything any longer.
    Abandon,
}

/// How the function of an attempt has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With an output or an error, which must be reported.
    Finished,
    /// The engine had ended the attempt before.
    Cancelled,
    /// The worker stopped, and the function did not end in time.
    Dropped,
}

/// The result of reporting an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reported {
    /// The engine has accepted an output.
    Completed,
    /// The engine has accepted a failure.
    Failed,
    Rejected,
    /// The attempt was cancelled before the report was sent.
    Withdrawn,
}

impl Reported {
    /// The engine has accepted a report of this kind.
    pub(super) fn accepted(kind: ReportKind) -> Self {
        if kind == ReportKind::Failed { Self::Failed } else { Self::Completed }
    }
}

/// What the driver must do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect<A> {
    Start(Key, A),
    /// These attempts of a batch must be started together.
    StartBatch(Vec<Key>, A),
    /// The engine has ended this attempt.
    Cancel(Key),
    /// A later attempt of the same task was assigned.
    Replace(Key),
    /// The worker does not wait for this attempt any longer.
    Drop(Key),
    /// The end of this attempt must be reported.
    Report(Key),
    /// The engine has ended this attempt, whose report has not been accepted yet.
    Withdraw(Key),
    /// The engine may have ended an attempt that was just assigned: it must be asked.
    Check,
}

/// The attempts that are assigned to a worker. Each is started at most once, at most one of a task and at most as many as there are
/// slots run at a time, and each is in exactly one count of the report.
#[derive(Debug)]
pub(super) struct Assignments<A> {
    slots: Slots,
    /// The running attempt of each task.
    running: KeyMap<TaskId, Running>,
    /// The running batches by number, and how many attempts of each need its slot. A batch occupies one of the default type.
    batches: KeyMap<u64, usize>,
    batch_count: u64,
    /// Attempts that have ended, and whose report the engine has not accepted yet.
    unreported: KeySet<Key>,
    /// Attempts that wait for a slot, or for the end of an earlier attempt of the same task. The engine frees a slot as soon as it ends
    /// an attempt, but the function of that attempt may end later.
    waiting: VecDeque<(Unit, SlotRequest, A)>,
    /// The number of attempts that wait.
    queued: usize,
    /// The newest attempt of each task that was assigned. A broken connection can deliver an attempt twice, and an earlier one late.
    newest: KeyMap<TaskId, Newest>,
    /// The tasks whose newest attempt has ended, with the number of that end, oldest first.
    ended: VecDeque<(TaskId, u64)>,
    ends: u64,
    /// Cancellations that arrived before the attempts that they cancel, newest last. With two streams for a moment, that happens.
    cancelled: VecDeque<Key>,
    /// Attempts that were named by a message of unknown type only. Nothing is known to have become of them.
    unknown: VecDeque<Key>,
    accepting: bool,
    on_hold: bool,
    report: WorkerReport,
}

#[derive(Debug)]
struct Running {
    key: Key,
    /// Whether the engine has ended the attempt.
    is_cancelled: bool,
    /// What it occupies, until it releases it.
    slots: Option<SlotRequest>,
    /// The number of its batch, if it is part of one.
    batch: Option<u64>,
}

/// What is started together.
#[derive(Debug)]
enum Unit {
    One(Key),
    Batch(Vec<Key>),
}

impl Unit {
    fn keys(&self) -> &[Key] {
        match self {
            Self::One(key) => std::slice::from_ref(key),
            Self::Batch(keys) => keys,
        }
    }
}

/// The newest attempt of a task.
#[derive(Debug)]
struct Newest {
    retry_count: u32,
    /// The number of its end, if it has ended.
    end: Option<u64>,
    /// The id of its batch. Then its retry count is only the least that it can be, as far as this worker knows.
    batch: Option<Arc<str>>,
    /// The greatest retry count of this attempt that the engine has named.
    named: u32,
    /// Which attempts before it were assigned to this worker, the last one in the lowest bit.
    before: u64,
}

impl Newest {
    /// What `before` is for an attempt that follows this one.
    fn before_next(&self, retry_count: u32) -> u64 {
        let skipped = retry_count.saturating_sub(self.retry_count).saturating_sub(1);
        (self.before << 1 | 1).checked_shl(skipped).unwrap_or_default()
    }

    /// Whether an earlier attempt is assigned for the first time. Long before the newest one, that is not known.
    fn is_first_of_earlier(&mut self, retry_count: u32) -> bool {
        let distance = self.retry_count.saturating_sub(retry_count);
        let bit = distance.checked_sub(1).and_then(|at| 1u64.checked_shl(at)).filter(|_| self.batch.is_none());
        let is_first = bit.is_some_and(|bit| self.before & bit == 0);
        self.before |= bit.unwrap_or_default();
        is_first
    }
}

impl<A> Assignments<A> {
    pub(super) fn new(slots: Slots) -> Self {
        Self {
            slots,
            running: KeyMap::default(),
            batches: KeyMap::default(),
            batch_count: 0,
            unreported: KeySet::default(),
            waiting: VecDeque::new(),
            queued: 0,
            newest: KeyMap::default(),
            ended: VecDeque::new(),
            ends: 0,
            cancelled: VecDeque::new(),
            unknown: VecDeque::new(),
            accepting: true,
            on_hold: false,
            report: WorkerReport::default(),
        }
    }

    pub(super) fn step(&mut self, event: Event<A>) -> Vec<Effect<A>> {
        let mut effects = Vec::new();
        match event {
            Event::Assigned(key, slots, attempt) => {
                let newest = self.newest.get_mut(&key.task).filter(|newest| newest.retry_count >= key.retry_count);
                if let Some(newest) = newest {
                    if newest.is_first_of_earlier(key.retry_count) {
                        self.add_overtaken(key);
                    }
                } else if self.admit(key, None, &mut effects) {
                    self.add_waiting(Unit::One(key), slots, attempt);
                }
            }
            Event::AssignedBatch(batch, tasks, attempt) => self.assign_batch(&batch, tasks, attempt, &mut effects),
            Event::AssignedUnreadable => self.report.add_unfinished(None),
            Event::AssignedUnknown(key) => self.assign_unknown(key),
            Event::Cancelled(key) => self.cancel(key, &mut effects),
            Event::Ended(key, end) => self.end(key, end, &mut effects),
            Event::Reported(key, reported) => self.reported(key, reported),
            Event::Released(task, retry_count) => {
                let running = self.running.get_mut(&task).filter(|running| running.key.retry_count == retry_count);
                if let Some((slots, batch)) = running.and_then(|running| Some((running.slots.take()?, running.batch))) {
                    self.release(&slots, batch);
                }
            }
            Event::Hold(on_hold) => self.on_hold = on_hold,
            Event::StopAccepting => self.accepting = false,
            Event::DropAll => {
                self.accepting = false;
                effects.extend(self.running.values().map(|running| Effect::Drop(running.key)));
                for key in self.take_waiting() {
                    self.add_unfinished(key, false);
                }
            }
            Event::Abandon => {
                self.accepting = false;
                let mut keys = self.take_waiting();
                for running in std::mem::take(&mut self.running).into_values() {
                    if let Some(slots) = running.slots {
                        self.release(&slots, running.batch);
                    }
                    keys.push(running.key);
                }
                for key in keys {
                    self.add_unfinished(key, false);
                }
                for key in std::mem::take(&mut self.unreported) {
                    self.add_unfinished(key, true);
                }
            }
        }
        self.start_waiting(&mut effects);
        effects
    }

    /// Whether no attempt is started because of unreported ones.
    pub(super) fn is_on_hold(&self) -> bool {
        self.on_hold
    }

    /// Whether an attempt that occupies one slot of the default type has to wait.
    pub(super) fn is_full(&self) -> bool {
        self.slots.is_full()
    }

    /// The numbers of attempts that run, that wait, and that have ended and are not reported yet.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        (self.running.len(), self.queued, self.unreported.len())
    }

    /// The attempts that run or wait, with the ids of their batches, and those of batches whose report has not been accepted yet: it does
    /// not name the attempt.
    pub(super) fn held(&self) -> impl Iterator<Item = (Key, Option<Arc<str>>)> {
        let waiting = self.waiting.iter().flat_map(|(unit, ..)| unit.keys()).copied();
        let keys = self.running.values().map(|running| running.key).chain(waiting);
        let current = keys.map(|key| (key, self.newest.get(&key.task).and_then(|newest| newest.batch.clone())));
        current.chain(self.unreported().filter(|(_, batch)| batch.is_some()))
    }

    /// The attempts whose report has not been accepted yet, with the ids of their batches.
    pub(super) fn unreported(&self) -> impl Iterator<Item = (Key, Option<Arc<str>>)> {
        self.unreported.iter().map(|key| {
            let newest = self.newest.get(&key.task).filter(|newest| newest.retry_count == key.retry_count);
            (*key, newest.and_then(|newest| newest.batch.clone()))
        })
    }

    /// Whether no attempt runs, waits, or is to be reported.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty() && self.unreported.is_empty()
    }

    pub(super) fn into_report(mut self) -> WorkerReport {
        for key in std::mem::take(&mut self.unknown) {
            self.end_unknown(key);
        }
        self.report
    }

    /// Remembers an attempt that the worker cannot run. The message is no assignment if the worker has the attempt, or gets it later.
    fn assign_unknown(&mut self, key: Key) {
        let is_known = self.newest.get(&key.task).is_some_and(|newest| newest.retry_count >= key.retry_count);
        if is_known || self.unknown.contains(&key) {
            return;
        }
        if self.unknown.len() >= MAX_UNKNOWN
            && let Some(oldest) = self.unknown.pop_front()
        {
            self.end_unknown(oldest);
        }
        self.unknown.push_back(key);
    }

    /// Counts an attempt that the worker could not run. Its cancellation was kept until now: the attempt could still have been assigned.
    fn end_unknown(&mut self, key: Key) {
        if self.take_cancellation(key) {
            self.report.cancelled += 1;
        } else {
            self.add_unfinished(key, false);
        }
    }

    /// Adds the attempts of a batch. Those that the engine has delivered before are ignored.
    fn assign_batch(
        &mut self,
        batch: &Arc<str>,
        tasks: Vec<(RunId, TaskId)>,
        attempt: A,
        effects: &mut Vec<Effect<A>>,
    ) {
        let mut keys = Vec::new();
        for (run, task) in tasks {
            let newest = self.newest.get(&task);
            if newest.is_some_and(|newest| !batch.is_empty() && newest.batch.as_ref() == Some(batch)) {
                continue;
            }
            let retry_count = newest.map_or(0, |newest| newest.retry_count.max(newest.named).saturating_add(1));
            let key = Key { run, task, retry_count };
            if self.admit(key, Some(batch), effects) {
                keys.push(key);
            }
        }
        if !keys.is_empty() {
            self.add_waiting(Unit::Batch(keys), self.slots.one(), attempt);
        }
    }

    /// Makes an attempt the newest of its task. Returns whether it is to be started.
    fn admit(&mut self, key: Key, batch: Option<&Arc<str>>, effects: &mut Vec<Effect<A>>) -> bool {
        self.unknown.retain(|other| *other != key);
        let before = self.newest.get(&key.task).map_or(0, |earlier| earlier.before_next(key.retry_count));
        let newest = Newest { retry_count: key.retry_count, end: None, batch: batch.cloned(), named: 0, before };
        let earlier = self.newest.insert(key.task, newest);
        // The engine has given up an earlier attempt, which it need not have cancelled.
        if let Some(earlier) = earlier.filter(|earlier| earlier.end.is_none()) {
            if self.remove_waiting(|other| other.task == key.task) {
                self.report.cancelled += 1;
            }
            effects.extend(self.cancel_running(key.task, |_| true).map(Effect::Replace));
            let earlier = Key { retry_count: earlier.retry_count, ..key };
            effects.extend(self.unreported.get(&earlier).copied().map(Effect::Withdraw));
        }
        if self.take_cancellation(key) {
            self.report.cancelled += 1;
        } else if self.accepting {
            if batch.is_some() && self.take_later_cancellations(key) {
                effects.push(Effect::Check);
            }
            return true;
        } else {
            self.add_unfinished(key, false);
        }
        self.set_ended(key);
        false
    }

    /// Counts an attempt that is assigned after a later one: the engine has given it up.
    fn add_overtaken(&mut self, key: Key) {
        self.unknown.retain(|other| *other != key);
        self.take_cancellation(key);
        self.report.cancelled += 1;
    }

    /// Whether this attempt was cancelled before it was assigned.
    fn take_cancellation(&mut self, key: Key) -> bool {
        let at = self.cancelled.iter().position(|other| *other == key);
        at.and_then(|at| self.cancelled.remove(at)).is_some()
    }

    /// Whether an attempt of the same task with a greater retry count was cancelled before it was assigned. It may be this one, of which only
    /// the least retry count is known, or one before it that this worker did not get.
    fn take_later_cancellations(&mut self, key: Key) -> bool {
        let count = self.cancelled.len();
        self.cancelled.retain(|other| other.task != key.task || other.retry_count < key.retry_count);
        self.cancelled.len() < count
    }

    fn cancel(&mut self, key: Key, effects: &mut Vec<Effect<A>>) {
        let key = self.meant(key);
        if let Some(running) = self.cancel_running(key.task, |running| running == key) {
            effects.push(Effect::Cancel(running));
        } else if self.unreported.contains(&key) {
            effects.push(Effect::Withdraw(key));
        } else if self.remove_waiting(|other| *other == key) {
            self.report.cancelled += 1;
            self.set_ended(key);
        } else if self.newest.get(&key.task).is_none_or(|newest| newest.retry_count < key.retry_count) {
            if self.cancelled.len() >= MAX_EARLY_CANCELLATIONS {
                self.cancelled.pop_front();
            }
            self.cancelled.push_back(key);
        }
    }

    /// The attempt that a message of the engine means, by its own key: the retry count of an attempt of a batch is only the least that it
    /// can be.
    fn meant(&mut self, key: Key) -> Key {
        match self.newest.get_mut(&key.task) {
            Some(newest) if newest.batch.is_some() && newest.retry_count <= key.retry_count => {
                newest.named = newest.named.max(key.retry_count);
                Key { retry_count: newest.retry_count, ..key }
            }
            _ => key,
        }
    }

    fn add_waiting(&mut self, unit: Unit, slots: SlotRequest, attempt: A) {
        self.queued += unit.keys().len();
        self.waiting.push_back((unit, slots, attempt));
    }

    /// Removes one attempt from those that wait.
    fn remove_waiting(&mut self, is_meant: impl Fn(&Key) -> bool) -> bool {
        let Some(at) = self.waiting.iter().position(|(unit, ..)| unit.keys().iter().any(&is_meant)) else {
            return false;
        };
        self.queued -= 1;
        if let Some((Unit::Batch(keys), ..)) = self.waiting.get_mut(at) {
            keys.retain(|key| !is_meant(key));
            if !keys.is_empty() {
                return true;
            }
        }
        self.waiting.remove(at);
        true
    }

    fn take_waiting(&mut self) -> Vec<Key> {
        self.queued = 0;
        std::mem::take(&mut self.waiting).iter().flat_map(|(unit, ..)| unit.keys()).copied().collect()
    }

    /// An attempt, of this batch if there is one, does not need its slots any longer.
    fn release(&mut self, slots: &SlotRequest, batch: Option<u64>) {
        if let Some(number) = batch {
            let Some(open) = self.batches.get_mut(&number) else { return };
            *open -= 1;
            if *open > 0 {
                return;
            }
            self.batches.remove(&number);
        }
        self.slots.release(slots);
    }

    /// Cancels the running attempt of a task, if it is meant.
    fn cancel_running(&mut self, task: TaskId, is_meant: impl Fn(Key) -> bool) -> Option<Key> {
        let running = self.running.get_mut(&task).filter(|running| is_meant(running.key))?;
        running.is_cancelled = true;
        Some(running.key)
    }

    fn end(&mut self, key: Key, end: End, effects: &mut Vec<Effect<A>>) {
        if self.running.get(&key.task).is_none_or(|running| running.key != key) {
            return;
        }
        let Some(running) = self.running.remove(&key.task) else { return };
        if let Some(slots) = &running.slots {
            self.release(slots, running.batch);
        }
        let was_cancelled = running.is_cancelled;
        match end {
            // The engine has already ended the attempt: a second end would corrupt the run.
            _ if was_cancelled => self.report.cancelled += 1,
            End::Cancelled => self.report.cancelled += 1,
            End::Dropped => self.add_unfinished(key, false),
            End::Finished => {
                self.unreported.insert(key);
                effects.push(Effect::Report(key));
                return;
            }
        }
        self.set_ended(key);
    }

    fn reported(&mut self, key: Key, reported: Reported) {
        if !self.unreported.remove(&key) {
            return;
        }
        match reported {
            Reported::Completed => self.report.completed += 1,
            Reported::Failed => self.report.failed += 1,
            Reported::Rejected => self.add_unfinished(key, true),
            Reported::Withdrawn => self.report.cancelled += 1,
        }
        self.set_ended(key);
    }

    /// Starts waiting attempts that have their slots, in the order of their assignment.
    fn start_waiting(&mut self, effects: &mut Vec<Effect<A>>) {
        while !self.on_hold {
            let is_free = |key: &Key| !self.running.contains_key(&key.task);
            let may_start =
                |(unit, slots, _): &(Unit, SlotRequest, A)| self.slots.has(slots) && unit.keys().iter().all(is_free);
            let place = self.waiting.iter().position(may_start);
            let Some((unit, slots, attempt)) = place.and_then(|at| self.waiting.remove(at)) else { return };
            self.slots.take(&slots);
            self.queued -= unit.keys().len();
            let running = |key, batch| Running { key, is_cancelled: false, slots: Some(slots.clone()), batch };
            match unit {
                Unit::One(key) => {
                    self.running.insert(key.task, running(key, None));
                    effects.push(Effect::Start(key, attempt));
                }
                Unit::Batch(keys) => {
                    self.batch_count += 1;
                    self.batches.insert(self.batch_count, keys.len());
                    for key in &keys {
                        self.running.insert(key.task, running(*key, Some(self.batch_count)));
                    }
                    effects.push(Effect::StartBatch(keys, attempt));
                }
            }
        }
    }

    /// Remembers for some time that an attempt has ended.
    fn set_ended(&mut self, key: Key) {
        let Some(newest) = self.newest.get_mut(&key.task).filter(|newest| newest.retry_count == key.retry_count) else {
            return;
        };
        self.ends += 1;
        newest.end = Some(self.ends);
        self.ended.push_back((key.task, self.ends));
        if self.ended.len() > MAX_ENDED_TASKS
            && let Some((oldest, end)) = self.ended.pop_front()
            && self.newest.get(&oldest).is_some_and(|newest| newest.end == Some(end))
        {
            self.newest.remove(&oldest);
        }
    }

    fn add_unfinished(&mut self, key: Key, finished: bool) {
        let Key { run, task, .. } = key;
        let attempt = key.attempt();
        self.report.add_unfinished(Some(UnfinishedAttempt {
            run_id: run,
            task_id: task,
            attempt,
            is_finished: finished,
        }));
    }
}

#[cfg(test)]
mod tests;
