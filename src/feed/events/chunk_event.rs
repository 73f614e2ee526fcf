//! What a reader of chunks receives from the stream of a group.

use chrono::{DateTime, Utc};

use crate::error::Error;
use crate::model::{Chunk, RunId, TaskId};

/// The number and the bytes of chunks that wait for a slow reader. More are dropped and counted: the stream is shared with others.
pub(super) const MAX_QUEUED: usize = 8192;
pub(super) const MAX_QUEUED_BYTES: usize = 16 << 20;

/// What a reader of chunks receives.
#[derive(Debug, Clone)]
pub(crate) enum ChunkEvent {
    /// Chunks may be missing here: the stream was lost, or the reader is too slow.
    Interrupted,
    /// The server rejects the subscription.
    Failed(Error),
    Chunk(Chunk),
    /// A task of the run was created. This is the first event of a run.
    Created(RunId, TaskId),
    /// An attempt of a task has ended. The chunks of its next attempt are numbered from 0 again.
    AttemptEnded {
        run: RunId,
        task: TaskId,
        /// Its number, starting at 1.
        attempt: Option<u32>,
        is_completed: bool,
        at: Option<DateTime<Utc>>,
    },
    /// The engine has announced the end of the run, which may be too early, and before the last chunks.
    RunEnded {
        run: RunId,
        is_completed: bool,
        at: Option<DateTime<Utc>>,
    },
}

impl ChunkEvent {
    /// The run that the event is about. `None` if it is about the stream.
    pub(crate) fn run(&self) -> Option<RunId> {
        match self {
            Self::Chunk(chunk) => Some(chunk.run_id),
            Self::Created(run, _) | Self::AttemptEnded { run, .. } | Self::RunEnded { run, .. } => Some(*run),
            Self::Interrupted | Self::Failed(_) => None,
        }
    }

    /// The task that the event is about.
    pub(crate) fn task(&self) -> Option<TaskId> {
        match self {
            Self::Chunk(chunk) => Some(chunk.task_id),
            Self::Created(_, task) | Self::AttemptEnded { task, .. } => Some(*task),
            Self::RunEnded { .. } | Self::Interrupted | Self::Failed(_) => None,
        }
    }

    pub(super) fn is_chunk(&self) -> bool {
        matches!(self, Self::Chunk(_))
    }

    pub(super) fn size(&self) -> usize {
        if let Self::Chunk(chunk) = self { chunk.content.len() } else { 0 }
    }
}
