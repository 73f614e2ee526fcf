//! What a running task sends beside its result: log lines and chunks. They go through bounded queues to a task of the worker.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::error::{Error, Result};
use crate::model::{ChunkContent, LogLevel, RunId, TaskId};

/// The number of log lines and chunks of a worker that wait to be sent.
const QUEUE_CAPACITY: usize = 10_000;
/// The size of all chunks of a worker that wait to be sent, and that of all its log lines, in bytes.
const MAX_QUEUED_BYTES: usize = 16 << 20;

/// A log line or a chunk of a task.
#[derive(Debug)]
pub(crate) struct TaskMessage {
    pub(crate) origin: MessageOrigin,
    pub(crate) content: TaskContent,
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
        /// Its part of the size of all lines that wait.
        permit: OwnedSemaphorePermit,
    },
    Chunk {
        index: i64,
        at: DateTime<Utc>,
        content: ChunkContent,
        /// Its part of the size of all chunks that wait.
        permit: OwnedSemaphorePermit,
    },
    /// All earlier messages of the task were sent.
    Flush(oneshot::Sender<()>),
}

/// The queue to the task that sends log lines and chunks.
#[derive(Debug, Clone)]
pub(crate) struct TaskOutput {
    queue: mpsc::Sender<TaskMessage>,
    chunk_bytes: Arc<Semaphore>,
    line_bytes: Arc<Semaphore>,
}

impl TaskOutput {
    pub(crate) fn new() -> (Self, mpsc::Receiver<TaskMessage>) {
        let (queue, messages) = mpsc::channel(QUEUE_CAPACITY);
        let bytes = || Arc::new(Semaphore::new(MAX_QUEUED_BYTES));
        (Self { queue, chunk_bytes: bytes(), line_bytes: bytes() }, messages)
    }

    /// The number of messages in the queue.
    pub(crate) fn queued(&self) -> usize {
        QUEUE_CAPACITY.saturating_sub(self.queue.capacity())
    }

    /// Adds a log line if the queue has capacity.
    pub(super) fn try_log(&self, origin: MessageOrigin, level: LogLevel, message: String, metadata: String) -> bool {
        let bytes = share(message.len().saturating_add(metadata.len()));
        let Ok(permit) = Arc::clone(&self.line_bytes).try_acquire_many_owned(bytes) else { return false };
        let content = TaskContent::Log { level, message, metadata, permit };
        self.queue.try_send(TaskMessage { origin, content }).is_ok()
    }

    /// Waits until there is capacity for a chunk of this size.
    pub(super) async fn chunk_permit(&self, bytes: usize) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.chunk_bytes).acquire_many_owned(share(bytes)).await.map_err(|_| closed())
    }

    /// Waits until the queue has capacity for a message.
    pub(super) async fn reserve(&self) -> Result<mpsc::Permit<'_, TaskMessage>> {
        self.queue.reserve().await.map_err(|_| closed())
    }
}

/// The part that a message of this size takes. One that is larger than all of the queue waits until it is empty.
fn share(bytes: usize) -> u32 {
    u32::try_from(bytes.clamp(1, MAX_QUEUED_BYTES)).unwrap_or(u32::MAX)
}

fn closed() -> Error {
    Error::closed("the worker").without_side_effects()
}
