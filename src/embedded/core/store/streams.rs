//! Open streams: those of workers, those that wait for results of runs, and those that watch events of runs.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use uuid::Uuid;

use super::ids::{RunIx, StreamId};
use super::turn::At;

#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) worker_of: HashMap<StreamId, Uuid>,
    pub(crate) results: ResultStreams,
    pub(crate) events: EventStreams,
}

#[derive(Debug, Default)]
pub(crate) struct ResultStreams {
    pub(crate) open: HashMap<StreamId, ResultStream>,
    /// The streams that wait for the end of a run.
    pub(crate) waiting: Index<Uuid>,
}

#[derive(Debug)]
pub(crate) struct ResultStream {
    pub(crate) opened: At,
    pub(crate) asked: HashSet<Uuid>,
    /// Runs that had ended before the stream asked for them.
    pub(crate) ended_before: Vec<RunIx>,
}

#[derive(Debug, Default)]
pub(crate) struct EventStreams {
    pub(crate) open: HashMap<StreamId, EventStream>,
    pub(crate) by_run: Index<Uuid>,
    pub(crate) by_tag: Index<Tag>,
}

#[derive(Debug)]
pub(crate) struct EventStream {
    pub(crate) subject: Subject,
    /// Runs that a stream by tag has shown, and that have not completed.
    pub(crate) active: HashSet<Uuid>,
}

/// A key and a value in the metadata of a run.
pub(crate) type Tag = (String, String);

#[derive(Debug, Clone)]
pub(crate) enum Subject {
    Run(Uuid),
    Tag(Tag),
}

impl Streams {
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        let streams = self.worker_of.is_empty() && self.results.open.is_empty() && self.events.open.is_empty();
        let indexes = self.results.waiting.is_empty() && self.events.by_run.is_empty() && self.events.by_tag.is_empty();
        streams && indexes
    }

    /// Removes all streams, and returns them in the order in which they were opened.
    pub(crate) fn take_all(&mut self) -> Vec<StreamId> {
        let Self { worker_of, results, events } = std::mem::take(self);
        let mut streams: Vec<_> =
            worker_of.into_keys().chain(results.open.into_keys()).chain(events.open.into_keys()).collect();
        streams.sort_unstable();
        streams
    }
}

/// Streams by what they wait for.
#[derive(Debug)]
pub(crate) struct Index<K>(HashMap<K, Vec<StreamId>>);

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq> Index<K> {
    pub(crate) fn add(&mut self, key: K, stream: StreamId) {
        self.0.entry(key).or_default().push(stream);
    }

    pub(crate) fn get(&self, key: &K) -> &[StreamId] {
        self.0.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    pub(crate) fn take(&mut self, key: &K) -> Vec<StreamId> {
        self.0.remove(key).unwrap_or_default()
    }

    pub(crate) fn remove(&mut self, key: &K, stream: StreamId) {
        if let Some(streams) = self.0.get_mut(key) {
            streams.retain(|other| *other != stream);
            if streams.is_empty() {
                self.0.remove(key);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
