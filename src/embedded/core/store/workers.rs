//! Workers, as the engine knows them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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
    /// Running tasks, with the end of each one's execution timeout.
    running: BTreeMap<TaskKey, At>,
    connection: Connection,
    /// Whether the engine has not detected that none of its streams delivers anything any more: it is assigned tasks that cannot be sent.
    has_undetected_end: bool,
    /// Whether a timer for its silence is set.
    has_silence_timer: bool,
}

/// The engine's state of a worker's streams.
#[derive(Debug, PartialEq, Eq)]
enum Connection {
    /// No heartbeat since the worker registered or opened its last stream: it is assigned nothing.
    Silent,
    /// It sends heartbeats. A worker that never had a stream can be live, too.
    Live,
    /// All its streams have ended: its heartbeats are refused until it opens another one.
    Closed,
}

/// The engine refuses heartbeats of a worker whose streams have all ended.
#[derive(Debug)]
pub(crate) struct HeartbeatRefused;

impl Worker {
    pub(crate) fn new(created: At, profile: Profile) -> Self {
        Self {
            created,
            profile: Arc::new(profile),
            last_heartbeat: None,
            paused_since: None,
            streams: Vec::new(),
            running: BTreeMap::new(),
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

    /// Reserves a slot for a task, until it is freed or the worker is lost.
    pub(crate) fn reserve(&mut self, task: TaskKey, timeout: At) {
        self.running.insert(task, timeout);
    }

    /// Frees the slot of a task.
    pub(crate) fn free(&mut self, task: TaskKey) {
        self.running.remove(&task);
    }

    /// Running tasks, with the end of each one's execution timeout.
    #[cfg(test)]
    pub(crate) fn running(&self) -> &BTreeMap<TaskKey, At> {
        &self.running
    }

    /// The end of the execution timeout of a running task.
    pub(crate) fn timeout_mut(&mut self, task: TaskKey) -> Option<&mut At> {
        self.running.get_mut(&task)
    }

    /// The number of free slots.
    pub(crate) fn free_slots(&self) -> usize {
        let slots = self.profile.slots.get("default").copied().unwrap_or(0);
        usize::try_from(slots).unwrap_or(0).saturating_sub(self.running.len())
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
    pub(crate) fn heartbeat(&mut self, now: At) -> Result<bool, HeartbeatRefused> {
        if self.connection == Connection::Closed {
            return Err(HeartbeatRefused);
        }
        self.connection = Connection::Live;
        self.last_heartbeat = Some(now);
        Ok(!std::mem::replace(&mut self.has_silence_timer, true))
    }

    /// Records a heartbeat that was due earlier. Returns false if it would have been refused.
    pub(crate) fn count_heartbeat(&mut self, at: At) -> bool {
        let is_live = self.connection == Connection::Live;
        if is_live {
            self.last_heartbeat = self.last_heartbeat.max(Some(at));
        }
        is_live
    }

    /// The timer for its silence has fired: the worker is lost. Returns its running tasks.
    pub(crate) fn lose(&mut self) -> BTreeMap<TaskKey, At> {
        self.has_silence_timer = false;
        std::mem::take(&mut self.running)
    }

    pub(crate) fn set_paused(&mut self, since: Option<At>) {
        self.paused_since = since;
    }
}
