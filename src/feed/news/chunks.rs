//! The chunks of runs, on their way from the stream of a group to their readers.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::model::{Chunk, RunId};
use crate::sync::lock;

/// The number and the bytes of chunks that wait for a slow reader. More are dropped and counted: the stream is shared with others.
const MAX_QUEUED: usize = 8192;
const MAX_QUEUED_BYTES: usize = 16 << 20;

/// The chunks that wait for a reader.
#[derive(Debug, Default)]
pub(super) struct ChunkQueue {
    state: Mutex<Queued>,
    notify: Notify,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Queued {
    chunks: VecDeque<Chunk>,
    bytes: usize,
}

impl ChunkQueue {
    pub(super) fn push(&self, chunk: Chunk) {
        let mut state = lock(&self.state);
        if state.chunks.len() >= MAX_QUEUED || state.bytes.saturating_add(chunk.content.len()) > MAX_QUEUED_BYTES {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        state.bytes = state.bytes.saturating_add(chunk.content.len());
        state.chunks.push_back(chunk);
        drop(state);
        self.notify.notify_one();
    }

    fn pop(&self) -> Option<Chunk> {
        let mut state = lock(&self.state);
        let chunk = state.chunks.pop_front()?;
        state.bytes = state.bytes.saturating_sub(chunk.content.len());
        Some(chunk)
    }

    /// Waits for the next chunk. Cancel safe.
    pub(super) async fn next(&self) -> Chunk {
        loop {
            if let Some(chunk) = self.pop() {
                return chunk;
            }
            self.notify.notified().await;
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// The readers of the chunks of a group's runs.
#[derive(Debug, Default)]
pub(super) struct ChunkReaders {
    by_run: HashMap<RunId, Vec<Arc<ChunkQueue>>>,
    /// Those that want the chunks of all runs.
    of_all: Vec<Arc<ChunkQueue>>,
    /// The number of readers whose run is being started, so that its id is not known yet.
    pub(super) starting: usize,
    /// The chunks of runs without readers, while there are such.
    early: VecDeque<Chunk>,
}

impl ChunkReaders {
    pub(super) fn take(&mut self, chunk: Chunk) {
        self.of_all.iter().for_each(|queue| queue.push(chunk.clone()));
        match self.by_run.get(&chunk.run_id) {
            Some(queues) => queues.iter().for_each(|queue| queue.push(chunk.clone())),
            None if self.starting > 0 && self.early.len() < MAX_QUEUED => self.early.push_back(chunk),
            None => {}
        }
    }

    /// Adds a reader of a run, or of all runs.
    pub(super) fn add(&mut self, run: Option<RunId>) -> Arc<ChunkQueue> {
        let queue = Arc::new(ChunkQueue::default());
        let Some(run) = run else {
            self.of_all.push(Arc::clone(&queue));
            return queue;
        };
        self.early.iter().filter(|chunk| chunk.run_id == run).for_each(|chunk| queue.push(chunk.clone()));
        self.by_run.entry(run).or_default().push(Arc::clone(&queue));
        queue
    }

    pub(super) fn remove(&mut self, run: Option<RunId>, queue: &Arc<ChunkQueue>) {
        let Some(run) = run else { return self.of_all.retain(|other| !Arc::ptr_eq(other, queue)) };
        if let Some(queues) = self.by_run.get_mut(&run) {
            queues.retain(|other| !Arc::ptr_eq(other, queue));
            if queues.is_empty() {
                self.by_run.remove(&run);
            }
        }
    }

    /// A run was started, or could not be started.
    pub(super) fn started(&mut self) {
        self.starting = self.starting.saturating_sub(1);
        if self.starting == 0 {
            self.early.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ChunkContent;

    fn chunk(run: u128, text: &str) -> Chunk {
        let (run_id, task_id) = (uuid::Uuid::from_u128(run).into(), uuid::Uuid::from_u128(run).into());
        Chunk { run_id, task_id, index: None, sent_at: None, content: ChunkContent::Text(text.into()) }
    }

    #[test]
    fn a_slow_reader_loses_chunks_which_are_counted() {
        let queue = ChunkQueue::default();
        for _ in 0..MAX_QUEUED + 3 {
            queue.push(chunk(1, "x"));
        }
        assert_eq!(queue.dropped(), 3);
        let large = "x".repeat(MAX_QUEUED_BYTES);
        let queue = ChunkQueue::default();
        queue.push(chunk(1, &large));
        queue.push(chunk(1, "x"));
        assert_eq!((queue.pop().map(|chunk| chunk.content.len()), queue.dropped()), (Some(MAX_QUEUED_BYTES), 1));
        queue.push(chunk(1, &large));
        assert_eq!(queue.dropped(), 1);
    }

    #[test]
    fn chunks_are_kept_while_a_run_is_being_started() {
        let (mut readers, run) = (ChunkReaders::default(), uuid::Uuid::from_u128(1).into());
        readers.take(chunk(1, "before"));
        readers.starting += 1;
        readers.take(chunk(2, "other"));
        readers.take(chunk(1, "early"));
        let (queue, of_all) = (readers.add(Some(run)), readers.add(None));
        readers.started();
        readers.take(chunk(1, "late"));
        readers.take(chunk(2, "other"));
        let all: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|chunk| chunk.to_string()).collect();
        assert_eq!(all, ["early", "late"]);
        let all: Vec<_> = std::iter::from_fn(|| of_all.pop()).map(|chunk| chunk.to_string()).collect();
        assert_eq!(all, ["late", "other"]);
        assert!(readers.early.is_empty());
        readers.remove(Some(run), &queue);
        readers.remove(None, &of_all);
        assert!(readers.by_run.is_empty() && readers.of_all.is_empty());
    }
}
