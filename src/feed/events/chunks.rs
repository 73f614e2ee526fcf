//! The chunks of runs, on their way from the stream of a group to their readers.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::chunk_event::{ChunkEvent, MAX_QUEUED, MAX_QUEUED_BYTES};
use super::early::{Early, EarlyPosition};
use crate::error::Error;
use crate::feed::parents::Parents;
use crate::model::RunId;
use crate::sync::lock;

/// The number of events up to which the ends of attempts are kept, which say that no chunk follows.
const MAX_QUEUED_WITH_ENDS: usize = 2 * MAX_QUEUED;

/// Events in the order of their arrival, up to a number and a size.
#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<ChunkEvent>,
    bytes: usize,
    has_failed: bool,
}

impl Queue {
    fn fits(&self, event: &ChunkEvent) -> bool {
        let max = if event.is_chunk() { MAX_QUEUED } else { MAX_QUEUED_WITH_ENDS };
        self.events.len() < max && self.bytes.saturating_add(event.size()) <= MAX_QUEUED_BYTES
    }

    fn push(&mut self, event: ChunkEvent) {
        self.bytes = self.bytes.saturating_add(event.size());
        self.events.push_back(event);
    }

    /// Chunks may be missing before those that come now. This is never dropped, and remembered once.
    fn interrupt(&mut self) {
        if !self.has_failed && !matches!(self.events.back(), Some(ChunkEvent::Interrupted)) {
            self.push(ChunkEvent::Interrupted);
        }
    }

    fn pop(&mut self) -> Option<ChunkEvent> {
        let event = self.events.pop_front()?;
        self.bytes = self.bytes.saturating_sub(event.size());
        Some(event)
    }
}

/// The chunks that wait for a reader.
#[derive(Debug, Default)]
pub(super) struct ChunkQueue {
    queue: Mutex<Queue>,
    notify: Notify,
    dropped: AtomicU64,
}

impl ChunkQueue {
    pub(super) fn push(&self, event: ChunkEvent) {
        let mut queue = lock(&self.queue);
        if queue.fits(&event) {
            queue.push(event);
        } else {
            self.dropped.fetch_add(u64::from(event.is_chunk()), Relaxed);
            queue.interrupt();
        }
        drop(queue);
        self.notify.notify_one();
    }

    /// Chunks may have been lost before those that come now.
    pub(super) fn interrupt(&self) {
        lock(&self.queue).interrupt();
        self.notify.notify_one();
    }

    /// The server rejects the subscription: no chunks come any longer.
    pub(super) fn fail(&self, error: Error) {
        let mut queue = lock(&self.queue);
        // The reader ends with the first one.
        if !queue.has_failed {
            queue.has_failed = true;
            queue.push(ChunkEvent::Failed(error));
        }
        drop(queue);
        self.notify.notify_one();
    }

    /// Waits for the next event. Cancel safe.
    pub(super) async fn next(&self) -> ChunkEvent {
        loop {
            if let Some(event) = lock(&self.queue).pop() {
                return event;
            }
            self.notify.notified().await;
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// The runs whose chunks a reader wants.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ChunksOf {
    Run(RunId),
    /// The run and its descendants, and those whose ancestors are not known yet.
    Family(RunId),
    All,
}

/// The readers of the chunks of a group's runs.
#[derive(Debug, Default)]
pub(super) struct ChunkReaders {
    by_run: HashMap<RunId, Vec<Arc<ChunkQueue>>>,
    by_root: HashMap<RunId, Vec<Arc<ChunkQueue>>>,
    of_all: Vec<Arc<ChunkQueue>>,
    early: Early,
}

impl ChunkReaders {
    /// Takes an event about a run.
    pub(super) fn take(&mut self, event: ChunkEvent, parents: &Parents) {
        let Some(run) = event.run() else { return };
        self.of_all.iter().for_each(|queue| queue.push(event.clone()));
        if !self.by_root.is_empty() {
            // With one root, its reader decides.
            let lineage = (self.by_root.len() > 1).then(|| parents.lineage(run)).flatten();
            match lineage {
                Some(lineage) => {
                    let of_lineage = lineage.iter().filter_map(|root| self.by_root.get(root));
                    of_lineage.flatten().for_each(|queue| queue.push(event.clone()));
                }
                None => self.by_root.values().flatten().for_each(|queue| queue.push(event.clone())),
            }
        }
        match self.by_run.get(&run) {
            Some(queues) => queues.iter().for_each(|queue| queue.push(event.clone())),
            None => self.early.push(run, event),
        }
    }

    /// The stream was lost, or it delivers nothing now.
    pub(super) fn interrupt(&mut self) {
        self.early.interrupt();
        self.queues().for_each(|queue| queue.interrupt());
    }

    /// The server rejects the subscription.
    pub(super) fn fail(&mut self, error: &Error) {
        self.early.interrupt();
        self.queues().for_each(|queue| queue.fail(error.clone()));
    }

    fn queues(&self) -> impl Iterator<Item = &Arc<ChunkQueue>> {
        self.of_all.iter().chain(self.by_run.values().chain(self.by_root.values()).flatten())
    }

    /// Adds a reader.
    pub(super) fn add(&mut self, of: ChunksOf) -> Arc<ChunkQueue> {
        let queue = Arc::new(ChunkQueue::default());
        self.insert(of, Arc::clone(&queue));
        queue
    }

    /// Adds the queue of a reader.
    pub(super) fn insert(&mut self, of: ChunksOf, queue: Arc<ChunkQueue>) {
        match of {
            ChunksOf::Run(run) => self.by_run.entry(run).or_default().push(queue),
            ChunksOf::Family(root) => self.by_root.entry(root).or_default().push(queue),
            ChunksOf::All => self.of_all.push(queue),
        }
    }

    /// Adds a reader of a run that was started after [`start`](Self::start) had returned this. It receives what has arrived since.
    /// `is_interrupted`: there was no stream at first.
    pub(super) fn add_started(&mut self, run: RunId, since: EarlyPosition, is_interrupted: bool) -> Arc<ChunkQueue> {
        let queue = self.add(ChunksOf::Run(run));
        if is_interrupted {
            queue.interrupt();
        }
        for event in self.early.take(run, since) {
            match event {
                ChunkEvent::Interrupted => queue.interrupt(),
                event => queue.push(event),
            }
        }
        queue
    }

    pub(super) fn remove(&mut self, of: ChunksOf, queue: &Arc<ChunkQueue>) {
        let (queues, run) = match of {
            ChunksOf::Run(run) => (&mut self.by_run, run),
            ChunksOf::Family(root) => (&mut self.by_root, root),
            ChunksOf::All => return self.of_all.retain(|other| !Arc::ptr_eq(other, queue)),
        };
        if let Some(of_run) = queues.get_mut(&run) {
            of_run.retain(|other| !Arc::ptr_eq(other, queue));
            if of_run.is_empty() {
                queues.remove(&run);
            }
        }
    }

    /// A run is being started: from now on, the events of runs without readers are kept.
    pub(super) fn start(&mut self) -> EarlyPosition {
        self.early.start()
    }

    /// A run was started, or could not be started.
    pub(super) fn started(&mut self, since: EarlyPosition) {
        self.early.end(since);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::model::{Chunk, ChunkContent};

    fn run(number: u128) -> RunId {
        uuid::Uuid::from_u128(number).into()
    }

    fn chunk(number: u128, text: &str) -> ChunkEvent {
        let (run_id, task_id) = (run(number), uuid::Uuid::from_u128(number).into());
        let content = ChunkContent::Text(text.into());
        ChunkEvent::Chunk(Chunk { run_id, task_id, index: None, sent_at: None, content })
    }

    fn end_of(run: RunId) -> ChunkEvent {
        ChunkEvent::AttemptEnded {
            run,
            task: uuid::Uuid::from_u128(1).into(),
            attempt: None,
            is_completed: false,
            at: None,
        }
    }

    fn texts(queue: &ChunkQueue) -> Vec<String> {
        let events = std::iter::from_fn(|| lock(&queue.queue).pop());
        events
            .map(|event| match event {
                ChunkEvent::Chunk(chunk) => chunk.to_string(),
                ChunkEvent::Created(..) => "created".to_owned(),
                ChunkEvent::AttemptEnded { .. } => "ended".to_owned(),
                ChunkEvent::RunEnded { .. } => "run ended".to_owned(),
                ChunkEvent::Interrupted => "interrupted".to_owned(),
                ChunkEvent::Failed(error) => error.to_string(),
            })
            .collect()
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
        assert_eq!((texts(&queue)[1..].to_vec(), queue.dropped()), (vec!["interrupted".to_owned()], 1));
        queue.push(chunk(1, &large));
        assert_eq!(queue.dropped(), 1);
    }

    /// Where chunks were dropped is in the queue, and does not make it longer and longer. The ends of attempts are kept.
    #[test]
    fn a_slow_reader_learns_where_chunks_were_dropped() {
        let end = || end_of(run(1));
        let queue = ChunkQueue::default();
        for _ in 0..MAX_QUEUED {
            queue.push(chunk(1, "x"));
        }
        for _ in 0..MAX_QUEUED {
            (0..3).for_each(|_| queue.push(chunk(1, "late")));
            queue.push(end());
            assert!(lock(&queue.queue).events.len() <= MAX_QUEUED_WITH_ENDS + 1);
        }
        let texts = texts(&queue);
        assert_eq!(texts[MAX_QUEUED - 1..MAX_QUEUED + 3], ["x", "interrupted", "ended", "interrupted"]);
        assert_eq!((texts.last().unwrap().as_str(), queue.dropped()), ("interrupted", 3 * MAX_QUEUED as u64));
    }

    #[test]
    fn chunks_are_kept_while_a_run_is_being_started() {
        let (mut readers, run) = (ChunkReaders::default(), uuid::Uuid::from_u128(1).into());
        readers.take(chunk(1, "before"), &Parents::default());
        let since = readers.start();
        readers.take(chunk(2, "other"), &Parents::default());
        readers.take(chunk(1, "early"), &Parents::default());
        readers.interrupt();
        readers.take(end_of(run), &Parents::default());
        readers.take(ChunkEvent::RunEnded { run, is_completed: true, at: None }, &Parents::default());
        let (queue, of_all) = (readers.add_started(run, since, false), readers.add(ChunksOf::All));
        assert_eq!(readers.early.len(), 1, "only those of other runs");
        readers.started(since);
        readers.take(chunk(1, "late"), &Parents::default());
        readers.take(chunk(2, "other"), &Parents::default());
        assert_eq!(texts(&queue), ["early", "interrupted", "ended", "run ended", "late"]);
        assert_eq!(texts(&of_all), ["late", "other"]);
        assert_eq!(readers.early.len(), 0);
        readers.remove(ChunksOf::Run(run), &queue);
        readers.remove(ChunksOf::All, &of_all);
        assert!(readers.by_run.is_empty() && readers.of_all.is_empty());
    }

    #[test]
    fn the_chunks_of_a_known_family_reach_only_its_readers() {
        let (mut readers, parents) = (ChunkReaders::default(), Parents::default());
        let mut of_root = |root| readers.add(ChunksOf::Family(run(root)));
        let (one, again, two) = (of_root(1), of_root(1), of_root(2));
        let take = |readers: &mut ChunkReaders, number, text| readers.take(chunk(number, text), &parents);
        take(&mut readers, 3, "unknown");
        parents.insert(run(3), Some(run(1)));
        take(&mut readers, 3, "almost known");
        parents.insert(run(1), None);
        take(&mut readers, 3, "child");
        take(&mut readers, 1, "root");
        parents.insert(run(4), None);
        take(&mut readers, 4, "unrelated");
        readers.interrupt();
        let all = ["unknown", "almost known", "child", "root", "interrupted"];
        assert_eq!((texts(&one), texts(&again)), (all.map(str::to_owned).to_vec(), all.map(str::to_owned).to_vec()));
        assert_eq!(texts(&two), ["unknown", "almost known", "interrupted"]);
        readers.remove(ChunksOf::Family(run(1)), &one);
        readers.remove(ChunksOf::Family(run(1)), &again);
        readers.remove(ChunksOf::Family(run(2)), &two);
        assert!(readers.by_root.is_empty());
    }

    #[test]
    fn a_loss_of_the_stream_reaches_all_readers_once() {
        let mut readers = ChunkReaders::default();
        let (of_run, of_all) = (readers.add(ChunksOf::Run(run(1))), readers.add(ChunksOf::All));
        (0..MAX_QUEUED).for_each(|_| readers.take(chunk(1, "x"), &Parents::default()));
        readers.interrupt();
        readers.interrupt();
        readers.fail(&Error::new(ErrorKind::Unimplemented, "rejected"));
        for queue in [of_run, of_all] {
            let texts = texts(&queue);
            assert_eq!(texts.len(), MAX_QUEUED + 2);
            assert_eq!(texts[MAX_QUEUED..], ["interrupted", "rejected"]);
        }
        readers.fail(&Error::new(ErrorKind::Unimplemented, "rejected again"));
        readers.interrupt();
        assert!(
            readers.queues().all(|queue| lock(&queue.queue).events.is_empty()),
            "a reader ends with the first error"
        );
    }
}
