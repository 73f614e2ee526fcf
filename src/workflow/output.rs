//! What a running task sends beside its result: log lines and chunks. They go through bounded queues to a task of the worker.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::error::{Error, Result};
use crate::model::{ChunkContent, LogLevel, TaskId};

/// The number of log lines and chunks of a worker that wait to be sent.
const QUEUE_CAPACITY: usize = 10_000;
/// The size of all chunks of a worker that wait to be sent, in bytes.
const MAX_CHUNK_BYTES: usize = 16 << 20;

/// A log line or a chunk of a task.
#[derive(Debug)]
pub(crate) struct TaskMessage {
    pub(crate) task: TaskId,
    /// The number of the attempt, starting at 1.
    pub(crate) attempt: u32,
    pub(crate) content: TaskContent,
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
}

impl TaskOutput {
    pub(crate) fn new() -> (Self, mpsc::Receiver<TaskMessage>) {
        let (queue, messages) = mpsc::channel(QUEUE_CAPACITY);
        (Self { queue, chunk_bytes: Arc::new(Semaphore::new(MAX_CHUNK_BYTES)) }, messages)
    }

    /// Adds a message if the queue has capacity.
    pub(super) fn try_send(&self, message: TaskMessage) -> bool {
        self.queue.try_send(message).is_ok()
    }

    /// Waits until there is capacity for a chunk of this size.
    pub(super) async fn chunk_permit(&self, bytes: usize) -> Result<OwnedSemaphorePermit> {
        let share = u32::try_from(bytes.clamp(1, MAX_CHUNK_BYTES)).unwrap_or(u32::MAX);
        Arc::clone(&self.chunk_bytes).acquire_many_owned(share).await.map_err(|_| closed())
    }

    /// Waits until the queue has capacity for a message.
    pub(super) async fn reserve(&self) -> Result<mpsc::Permit<'_, TaskMessage>> {
        self.queue.reserve().await.map_err(|_| closed())
    }
}

fn closed() -> Error {
    Error::closed("the worker").without_side_effects()
}
