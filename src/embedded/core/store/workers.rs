//! Workers, as the engine knows them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::ids::{StreamId, TaskKey};
use super::labels::Label;
use super::requests::Runtime;
use super::turn::At;

/// What a worker reports about itself. The REST API renders lists outside of the core's task and shares it with them.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) actions: BTreeSet<String>,
    pub(crate) slots: BTreeMap<String, i32>,
    pub(crate) labels: BTreeMap<String, Label>,
    pub(crate) runtime: Runtime,
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) created: At,
    pub(crate) profile: Arc<Profile>,
    pub(crate) last_heartbeat: Option<At>,
    paused_since: Option<At>,
    /// Open streams, oldest first. Assignments go to the first, cancellations to all.
    streams: Vec<StreamId>,
    running: BTreeMap<TaskKey, Held>,
    batches: BTreeMap<Uuid, HeldBatch>,
    /// How many slots of each type its running tasks have.
    taken: BTreeMap<String, i64>,
    connection: Connection,
    /// Whether the engine has not detected that none of its streams delivers anything any more: it is assigned tasks that cannot be sent.
    has_undetected_end: bool,
    /// Whether a timer for its silence is set.
    has_silence_timer: bool,
}

/// How many slots a task takes, by their types.
pub(crate) type SlotRequests = BTreeMap<String, i32>;

/// A running task, as its worker has it.
#[derive(Debug)]
pub(crate) struct Held {
    /// The end of its execution timeout.
    timeout: At,
    slots: SlotRequests,
    /// The batch with which it shares slots.
    batch: Option<Uuid>,
    /// Whether it was separated from the worker by a release of its slots.
    is_released: bool,
}

/// A batch, as its worker has it. Its slots are free when none of its tasks needs them any more.
#[derive(Debug)]
struct HeldBatch {
    tasks: usize,
    slots: SlotRequests,
}

/// The engine's state of a worker's streams.
#[derive(Debug, PartialEq, Eq)]
enum Connection {
    /// No heartbeat since the worker registered or opened its last stream: it is assigned nothing.
    Silent,
    /// It sends heartbeats. A worker that never had a stream can be live, too.
    Live,
    /// All its streams have ended: its heartbeats are rejected until it opens another one.
    Closed,
}

/// The engine rejects heartbeats of a worker whose streams have all ended.
#[derive(Debug)]
pub(crate) struct HeartbeatRejected;

impl Worker {
    pub(crate) fn new(created: At, profile: Profile) -> Self {
        Self {
            created,
            profile: Arc::new(profile),
            last_heartbeat: None,
            paused_since: None,
            streams: Vec::new(),
            running: BTreeMap::new(),
            batches: BTreeMap::new(),
            taken: BTreeMap::new(),
            connection: Connection::Silent,
            has_undetected_end: false,
            has_silence_timer: false,
        }
    }

    /// Whether it sends heartbeats, as far as the engine knows.
    pub(crate) fn is_live(&self) -> bool {
        self.connection == Connection::Live
    }

    pub(crate) fn paused_since(&self) -> Option<At> {
        self.paused_since
    }

    /// Whether the engine would try to send it a task.
    pub(crate) fn has_stream(&self) -> bool {
        !self.streams.is_empty() || self.has_undetected_end
    }

    /// Reserves slots for a task, until they are freed or the worker is lost.
    pub(crate) fn reserve(&mut self, task: TaskKey, timeout: At, slots: SlotRequests) {
        self.count(&slots, 1);
        self.running.insert(task, Held { timeout, slots, batch: None, is_released: false });
    }

    /// Reserves slots for the tasks of a batch together.
    pub(crate) fn reserve_batch(&mut self, batch: Uuid, tasks: &[TaskKey], timeout: At, slots: SlotRequests) {
        self.count(&slots, 1);
        self.batches.insert(batch, HeldBatch { tasks: tasks.len(), slots });
        for task in tasks {
            let held = Held { timeout, slots: SlotRequests::new(), batch: Some(batch), is_released: false };
            self.running.insert(*task, held);
        }
    }

    /// Frees the slots of a task.
    pub(crate) fn free(&mut self, task: TaskKey) {
        if let Some(held) = self.running.remove(&task) {
            self.count(&held.slots, -1);
            self.leave_batch(held.batch);
        }
    }

    /// A task of a batch needs the slots of the batch no more.
    fn leave_batch(&mut self, batch: Option<Uuid>) {
        let Some((batch, held)) = batch.and_then(|id| Some((id, self.batches.get_mut(&id)?))) else { return };
        held.tasks = held.tasks.saturating_sub(1);
        if held.tasks == 0
            && let Some(held) = self.batches.remove(&batch)
        {
            self.count(&held.slots, -1);
        }
    }

    /// Separates a running task from the worker, and frees its slots if `frees`.
    pub(crate) fn release(&mut self, task: TaskKey, frees: bool) {
        let Some(held) = self.running.get_mut(&task) else { return };
        held.is_released = true;
        if frees {
            let (slots, batch) = (std::mem::take(&mut held.slots), held.batch.take());
            self.count(&slots, -1);
            self.leave_batch(batch);
        }
    }

    fn count(&mut self, slots: &SlotRequests, sign: i64) {
        for (kind, units) in slots {
            *self.taken.entry(kind.clone()).or_default() += sign * i64::from(*units);
        }
    }

    /// Whether a running task was separated from the worker.
    pub(crate) fn has_released(&self, task: TaskKey) -> bool {
        self.running.get(&task).is_some_and(|held| held.is_released)
    }

    /// Running tasks.
    #[cfg(test)]
    pub(crate) fn running(&self) -> &BTreeMap<TaskKey, Held> {
        &self.running
    }

    /// The end of the execution timeout of a running task.
    pub(crate) fn timeout(&self, task: TaskKey) -> Option<At> {
        self.running.get(&task).map(|held| held.timeout)
    }

    /// The same, to change it.
    pub(crate) fn timeout_mut(&mut self, task: TaskKey) -> Option<&mut At> {
        self.running.get_mut(&task).map(|held| &mut held.timeout)
    }

    /// The number of free slots of a type.
    pub(crate) fn free_slots(&self, kind: &str) -> i64 {
        let slots = self.profile.slots.get(kind).copied().unwrap_or(0).max(0);
        i64::from(slots) - self.taken.get(kind).copied().unwrap_or(0)
    }

    /// Whether it has a free slot of any type.
    pub(crate) fn has_free_slot(&self) -> bool {
        self.profile.slots.keys().any(|kind| self.free_slots(kind) > 0)
    }

    pub(crate) fn streams(&self) -> &[StreamId] {
        &self.streams
    }

    pub(crate) fn open_stream(&mut self, stream: StreamId) {
        self.streams.push(stream);
        self.connection = Connection::Silent;
        self.has_undetected_end = false;
    }

    /// Removes an ended stream. The end of the last one closes the connection, if it is detected.
    pub(crate) fn close_stream(&mut self, stream: StreamId, is_detected: bool) {
        self.streams.retain(|open| *open != stream);
        if self.streams.is_empty() {
            self.end_connection(is_detected);
        }
    }

    /// Returns its streams, which stay open but receive nothing more. Closes the connection, if that is detected.
    pub(crate) fn unsubscribe(&mut self, is_detected: bool) -> Vec<StreamId> {
        self.end_connection(is_detected);
        std::mem::take(&mut self.streams)
    }

    fn end_connection(&mut self, is_detected: bool) {
        if is_detected {
            self.connection = Connection::Closed;
        } else {
            self.has_undetected_end = true;
        }
    }

    /// Removes all streams because the engine shuts down.
    pub(crate) fn clear_streams(&mut self) {
        self.streams.clear();
    }

    /// Records a heartbeat. Returns whether a timer for the worker's silence must be set.
    pub(crate) fn heartbeat(&mut self, now: At) -> Result<bool, HeartbeatRejected> {
        if self.connection == Connection::Closed {
            return Err(HeartbeatRejected);
        }
        self.connection = Connection::Live;
        self.last_heartbeat = Some(now);
        Ok(!std::mem::replace(&mut self.has_silence_timer, true))
    }

    /// Records a heartbeat that was due earlier. Returns false if it would have been rejected.
    pub(crate) fn count_heartbeat(&mut self, at: At) -> bool {
        let is_live = self.connection == Connection::Live;
        if is_live {
            self.last_heartbeat = self.last_heartbeat.max(Some(at));
        }
        is_live
    }

    /// The timer for its silence has fired: the worker is lost. Returns its running tasks, except those that it has released.
    pub(crate) fn lose(&mut self) -> Vec<TaskKey> {
        self.has_silence_timer = false;
        let lost: Vec<_> = self.running.iter().filter(|(_, held)| !held.is_released).map(|(key, _)| *key).collect();
        for task in &lost {
            self.free(*task);
        }
        lost
    }

    pub(crate) fn set_paused(&mut self, since: Option<At>) {
        self.paused_since = since;
    }
}
