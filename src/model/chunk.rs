//! Chunks: what tasks send while they run.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{RunId, TaskId};
use crate::error::{Error, ErrorKind, Result};

/// What a stream of chunks returns: a chunk, or a gap where chunks are missing.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// use hatchet::model::ChunkItem;
///
/// let mut chunks = run.chunks();
/// while let Some(item) = chunks.next().await.transpose()? {
///     match item {
///         ChunkItem::Chunk(chunk) => print!("{}", chunk.text),
///         ChunkItem::Gap(gap) => println!("[{gap}]"),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChunkItem {
    /// A chunk.
    Chunk(Chunk),
    /// Chunks that did not arrive.
    Gap(ChunkGap),
}

/// A chunk that a task has sent; see [`RunHandle::chunks`](crate::RunHandle::chunks).
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// use hatchet::model::ChunkItem;
///
/// #[derive(serde::Deserialize)]
/// struct Progress { percent: u8 }
///
/// let mut chunks = run.chunks();
/// while let Some(ChunkItem::Chunk(chunk)) = chunks.next().await.transpose()? {
///     println!("{} %", chunk.parse::<Progress>()?.percent);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Chunk {
    /// The id of the run.
    pub run_id: RunId,
    /// The id of the task.
    pub task_id: TaskId,
    /// The number of the chunk in its attempt, starting at 0. `None` if the SDK of the task does not number its chunks.
    pub index: Option<i64>,
    /// When the task sent it.
    pub sent_at: Option<DateTime<Utc>>,
    /// The chunk itself.
    pub text: String,
}

/// Chunks of a task that did not arrive: they were sent before the stream began, or the engine lost them.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// use hatchet::model::ChunkItem;
///
/// let mut chunks = run.chunks();
/// while let Some(item) = chunks.next().await.transpose()? {
///     if let ChunkItem::Gap(gap) = item {
///         println!("{gap}"); // chunks 3 to 5 are missing
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChunkGap {
    /// The id of the run.
    pub run_id: RunId,
    /// The id of the task.
    pub task_id: TaskId,
    /// The number of the first missing chunk.
    pub first_index: i64,
    /// The number of the last missing chunk.
    pub last_index: i64,
}

impl Chunk {
    /// Deserializes the chunk from JSON.
    ///
    /// # Errors
    /// [`Decode`](ErrorKind::Decode) if the chunk is no JSON, or does not match the type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.text).map_err(|error| {
            Error::new(ErrorKind::Decode, format!("failed to decode a chunk of task {}", self.task_id))
                .with_source(error)
        })
    }
}

impl fmt::Display for ChunkGap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first_index, self.last_index) {
            (first, last) if first == last => write!(f, "chunk {first} is missing"),
            (first, last) => write!(f, "chunks {first} to {last} are missing"),
        }
    }
}
