//! Open streams: those of workers, those that wait for results of runs, and those that watch events of runs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;

use uuid::Uuid;

use super::effects::RunEvent;
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
    pub(crate) chunks: LateChunks,
}

/// The chunks that are sent late.
#[derive(Debug, Default)]
pub(crate) struct LateChunks {
    /// By stream and task.
    pub(crate) lanes: HashMap<(StreamId, Uuid), ChunkLane>,
    pub(crate) waiting: BTreeMap<u64, (StreamId, RunEvent)>,
    /// The number of all of them so far.
    pub(crate) count: u64,
}

/// The chunks of an attempt of a task, in one stream.
#[derive(Debug)]
pub(crate) struct ChunkLane {
    pub(crate) began_at: At,
    /// The index of the next chunk.
    pub(crate) next: i64,
    /// When the last one is sent, and when the last one that waits for those before it is.
    pub(crate) last: At,
    pub(crate) held_until: Option<At>,
}

impl ChunkLane {
    pub(crate) fn new(now: At) -> Self {
        Self { began_at: now, next: 0, last: now, held_until: None }
    }
}

impl LateChunks {
    /// A stream has ended.
    pub(crate) fn close(&mut self, stream: StreamId) {
        self.lanes.retain(|(of, _), _| *of != stream);
        self.waiting.retain(|_, (of, _)| *of != stream);
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.waiting.is_empty()
    }
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
        streams && indexes && self.events.chunks.is_empty()
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
