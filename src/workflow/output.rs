//! What a running task sends besides its result: log lines and chunks. They go through a queue to a task of the worker.
//!
//! The queue has no limit of its own: each message takes a part of the capacity for its kind until it has been sent.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::model::{ChunkContent, LogLevel, RunId, TaskId};

/// The capacity in bytes for all queued chunks of a worker, and the same for all its log lines.
const MAX_QUEUED_BYTES: usize = 16 << 20;
/// The additional capacity in bytes of each attempt, so that no other attempt can block it.
const MAX_OWN_BYTES: usize = 64 << 10;
/// The least capacity in bytes that a message takes.
const MIN_BYTES: usize = 1 << 10;
/// The size in bytes from which the engine publishes a chunk late.
const LARGE_CHUNK_BYTES: usize = 4001;
/// How long after accepting a chunk the engine has published it. In measurements, 0.05 s was too short in 2 of 12 runs, and 0.1 s in none.
const PUBLISH_DELAY: Duration = Duration::from_millis(100);
/// The same for a large chunk: measured, 0.1 to 0.9 s.
const LARGE_PUBLISH_DELAY: Duration = Duration::from_millis(1100);

/// A log line or a chunk of a task.
#[derive(Debug)]
pub(crate) struct TaskMessage {
    pub(crate) origin: MessageOrigin,
    pub(crate) content: TaskContent,
    /// It is dropped when the message has been sent or lost.
    pub(crate) permit: QueuePermit,
}

/// The attempt that sends a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MessageOrigin {
    pub(crate) run: RunId,
    pub(crate) task: TaskId,
    /// The number of the attempt, starting at 1.
    pub(crate) attempt: u32,
}

#[derive(Debug)]
pub(crate) enum TaskContent {
    Log {
        level: LogLevel,
        message: String,
        /// The JSON text of an object, or an empty string.
        metadata: String,
    },
    Chunk {
        index: i64,
        at: DateTime<Utc>,
        content: ChunkContent,
    },
}

/// The capacity of the queue that a message takes until it has been sent.
#[derive(Debug)]
pub(crate) struct QueuePermit {
    _capacity: OwnedSemaphorePermit,
    /// The number of messages of the worker that have a permit.
    unsent: Arc<AtomicUsize>,
    /// The sent chunks of the attempt, and how long the engine needs to publish this one.
    chunk: Option<(watch::Sender<SentChunks>, Duration)>,
}

impl Drop for QueuePermit {
    fn drop(&mut self) {
        self.unsent.fetch_sub(1, Relaxed);
        let Some((sent, delay)) = &self.chunk else { return };
        let published_by = Instant::now() + *delay;
        sent.send_modify(|sent| {
            sent.count = sent.count.saturating_add(1);
            sent.published_by = sent.published_by.max(Some(published_by));
        });
    }
}

/// The chunks of an attempt that were sent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SentChunks {
    pub(super) count: i64,
    /// When the engine has published them.
    pub(super) published_by: Option<Instant>,
}

/// What an attempt has sent. Most send nothing.
#[derive(Debug, Default)]
pub(super) struct AttemptOutput {
    line_bytes: OnceLock<Arc<Semaphore>>,
    /// The number of log lines that were lost since the last one that was not.
    pub(super) lost_lines: AtomicU64,
    chunks: OnceLock<AttemptChunks>,
}

/// The chunks of an attempt.
#[derive(Debug)]
pub(super) struct AttemptChunks {
    bytes: Arc<Semaphore>,
    /// The number of the next one.
    pub(super) next: Mutex<i64>,
    pub(super) sent: watch::Sender<SentChunks>,
}

impl AttemptOutput {
    pub(super) fn chunks(&self) -> &AttemptChunks {
        self.chunks.get_or_init(|| AttemptChunks {
            bytes: Arc::new(Semaphore::new(MAX_OWN_BYTES)),
            next: Mutex::new(0),
            sent: watch::Sender::default(),
        })
    }

    /// `None` if the attempt has put none.
    pub(super) fn existing_chunks(&self) -> Option<&AttemptChunks> {
        self.chunks.get()
    }
}

/// The queue to the task that sends log lines and chunks.
#[derive(Debug, Clone)]
pub(crate) struct TaskOutput {
    queue: mpsc::UnboundedSender<TaskMessage>,
    chunk_bytes: Arc<Semaphore>,
    line_bytes: Arc<Semaphore>,
    unsent: Arc<AtomicUsize>,
}

impl TaskOutput {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<TaskMessage>) {
        let (queue, messages) = mpsc::unbounded_channel();
        let bytes = || Arc::new(Semaphore::new(MAX_QUEUED_BYTES));
        (Self { queue, chunk_bytes: bytes(), line_bytes: bytes(), unsent: Arc::default() }, messages)
    }

    /// The number of messages that were not sent yet.
    pub(crate) fn unsent(&self) -> usize {
        self.unsent.load(Relaxed)
    }

    /// A permit for a log line of this size. `None` if there is no capacity.
    pub(super) fn line_permit(&self, attempt: &AttemptOutput, bytes: usize) -> Option<QueuePermit> {
        let own = attempt.line_bytes.get_or_init(|| Arc::new(Semaphore::new(MAX_OWN_BYTES)));
        let own = Arc::clone(own).try_acquire_many_owned(share(bytes, MAX_OWN_BYTES));
        let shared = || Arc::clone(&self.line_bytes).try_acquire_many_owned(share(bytes, MAX_QUEUED_BYTES));
        let capacity = own.or_else(|_| shared()).ok()?;
        Some(self.permit(capacity, None))
    }

    /// Waits until there is capacity for a chunk of this size. Cancel safe.
    pub(super) async fn chunk_permit(&self, attempt: &AttemptChunks, bytes: usize) -> Result<QueuePermit> {
        let capacity = tokio::select! {
            biased;
            own = Arc::clone(&attempt.bytes).acquire_many_owned(share(bytes, MAX_OWN_BYTES)) => own,
            shared = Arc::clone(&self.chunk_bytes).acquire_many_owned(share(bytes, MAX_QUEUED_BYTES)) => shared,
        };
        let delay = if bytes < LARGE_CHUNK_BYTES { PUBLISH_DELAY } else { LARGE_PUBLISH_DELAY };
        Ok(self.permit(capacity.map_err(|_| closed())?, Some((attempt.sent.clone(), delay))))
    }

    fn permit(
        &self,
        capacity: OwnedSemaphorePermit,
        chunk: Option<(watch::Sender<SentChunks>, Duration)>,
    ) -> QueuePermit {
        self.unsent.fetch_add(1, Relaxed);
        QueuePermit { _capacity: capacity, unsent: Arc::clone(&self.unsent), chunk }
    }

    pub(super) fn send(&self, message: TaskMessage) -> Result<()> {
        self.queue.send(message).map_err(|_| closed())
    }
}

/// The part of a capacity that a message of this size takes. A message that is larger than the capacity takes all of it.
fn share(bytes: usize, capacity: usize) -> u32 {
    u32::try_from(bytes.clamp(MIN_BYTES, capacity)).unwrap_or(u32::MAX)
}

fn closed() -> Error {
    Error::closed("the worker").without_side_effects()
}
