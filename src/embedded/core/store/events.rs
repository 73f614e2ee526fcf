//! Events that clients have pushed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::turn::At;

/// An event as a client sends it.
#[derive(Debug, Clone)]
pub(crate) struct PushedEvent {
    pub(crate) key: String,
    pub(crate) payload: Value,
    pub(crate) metadata: Value,
    pub(crate) priority: Option<i32>,
    pub(crate) scope: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) id: Uuid,
    pub(crate) at: At,
    pub(crate) key: Arc<str>,
    /// JSON.
    pub(crate) payload: Box<str>,
    /// JSON.
    pub(crate) metadata: Box<str>,
    pub(crate) scope: Option<Box<str>>,
    /// The runs that it started, with the filters that it passed.
    pub(crate) runs: Vec<(Uuid, Option<Uuid>)>,
}

/// All events, in the order of their arrival.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// Shared with lists that are rendered outside of the core's task.
    all: VecDeque<Arc<Event>>,
    /// The number of each event, counted from the first that arrived.
    by_id: HashMap<Uuid, usize>,
    /// How many of the first events were dropped.
    dropped: usize,
}

impl Events {
    pub(crate) fn add(&mut self, event: Event) {
        self.by_id.insert(event.id, self.dropped + self.all.len());
        self.all.push_back(Arc::new(event));
    }

    pub(crate) fn find(&self, id: Uuid) -> Option<&Arc<Event>> {
        self.all.get(self.by_id.get(&id)?.checked_sub(self.dropped)?)
    }

    /// When the oldest event arrived.
    pub(crate) fn oldest(&self) -> Option<At> {
        self.all.front().map(|event| event.at)
    }

    /// Drops the events that arrived before a time.
    pub(crate) fn drop_before(&mut self, time: At) {
        let count = self.all.partition_point(|event| event.at < time);
        for event in self.all.drain(..count) {
            self.by_id.remove(&event.id);
        }
        self.dropped += count;
    }

    /// The events that arrived at `until` or before, newest first.
    pub(crate) fn newest_first(&self, until: Option<At>) -> impl Iterator<Item = &Arc<Event>> {
        let end = until.map_or(self.all.len(), |until| self.all.partition_point(|event| event.at <= until));
        self.all.range(..end).rev()
    }
}
