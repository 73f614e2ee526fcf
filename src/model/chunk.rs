//! Chunks: what tasks send while they run.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{RunId, TaskId};
use crate::error::{Error, ErrorKind, Result};

/// An item of a stream of chunks: a chunk, the start of a later attempt, or a notice that chunks are missing or may be missing.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// use hatchet::model::ChunkItem;
///
/// let mut chunks = run.chunks();
/// while let Some(item) = chunks.next().await.transpose()? {
///     match item {
///         ChunkItem::Chunk(chunk) => print!("{chunk}"),
///         ChunkItem::Gap(gap) => println!("[{gap}]"),
///         ChunkItem::Restart(_) => println!("[retried]"),
///         ChunkItem::Interrupted => println!("[chunks may be missing]"),
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
    /// The next chunk of a task.
    Chunk(Chunk),
    /// Chunks that did not arrive.
    Gap(ChunkGap),
    /// A later attempt of a task has begun: the chunks of this task that follow replace the earlier ones. This item precedes the first chunk
    /// or gap of the attempt, if the stream has already yielded chunks of an earlier attempt. It is never yielded for a task that does not
    /// number its chunks.
    Restart(ChunkRestart),
    /// Chunks may be missing, because the subscription was lost for a moment or the stream was read too slowly, and no later chunk shows
    /// whether one is missing. If a task does not number its chunks, this item is yielded before the next chunk of the task. For numbered
    /// chunks, it is yielded at the end of the stream if the last chunks of an attempt, or all chunks of a child run, may be missing. Any
    /// other missing numbered chunk is a [gap](Self::Gap).
    Interrupted,
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
/// while let Some(item) = chunks.next().await.transpose()? {
///     if let ChunkItem::Chunk(chunk) = item {
///         println!("{} %", chunk.parse::<Progress>()?.percent);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Chunk {
    /// The run that the task belongs to: the watched run, or one of its descendants.
    pub run_id: RunId,
    /// The task that sent the chunk.
    pub task_id: TaskId,
    /// The number of the chunk in its attempt, starting at 0. `None` if the SDK of the task does not number its chunks. The engine does not
    /// transmit the attempt: [`Restart`](ChunkItem::Restart) marks the start of a later attempt.
    pub index: Option<i64>,
    /// When the task sent the chunk.
    pub sent_at: Option<DateTime<Utc>>,
    /// The text or the bytes of the chunk. In JSON, text is the field `text`, and bytes are the field `base64`.
    #[serde(flatten)]
    pub content: ChunkContent,
}

/// The content of a [`Chunk`]: text or bytes.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// use hatchet::model::{ChunkContent, ChunkItem};
///
/// let mut chunks = run.chunks();
/// while let Some(item) = chunks.next().await.transpose()? {
///     if let ChunkItem::Chunk(chunk) = item {
///         match chunk.content {
///             ChunkContent::Text(text) => print!("{text}"),
///             ChunkContent::Bytes(bytes) => print!("[{} bytes]", bytes.len()),
///             _ => {}
///         }
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ChunkContent {
    /// Text, including the JSON of a value ([`put_json`](crate::Context::put_json)), and everything that tasks of other Hatchet SDKs send.
    #[serde(rename = "text")]
    Text(String),
    /// Bytes ([`put_bytes`](crate::Context::put_bytes)).
    #[serde(rename = "base64", with = "base64_text")]
    Bytes(Vec<u8>),
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
    /// The run that the task belongs to: the watched run, or one of its descendants.
    pub run_id: RunId,
    /// The task whose chunks are missing.
    pub task_id: TaskId,
    /// The number of the first missing chunk.
    pub first_index: i64,
    /// The number of the last missing chunk.
    pub last_index: i64,
}

/// The start of a later attempt of a task. The attempt numbers its chunks from 0 again.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// use std::collections::HashMap;
///
/// use hatchet::model::ChunkItem;
///
/// let (mut chunks, mut texts) = (run.chunks(), HashMap::<_, String>::new());
/// while let Some(item) = chunks.next().await.transpose()? {
///     match item {
///         ChunkItem::Chunk(chunk) => texts.entry(chunk.task_id).or_default().push_str(&chunk.to_string()),
///         ChunkItem::Restart(restart) => drop(texts.remove(&restart.task_id)),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChunkRestart {
    /// The run that the task belongs to: the watched run, or one of its descendants.
    pub run_id: RunId,
    /// The task that has started a later attempt.
    pub task_id: TaskId,
}

/// Bytes are sent as a data URL: the engine ends the stream of every reader of a chunk that is not UTF-8, and other SDKs can read this.
/// The parameter keeps the URL apart from those that tasks send as text.
const BYTES_PREFIX: &str = "data:application/octet-stream;by=hatchet-rs;base64,";
/// How text that begins with one of the prefixes is sent.
const TEXT_PREFIX: &str = "data:text/plain;charset=utf-8;by=hatchet-rs;base64,";

impl ChunkContent {
    /// Returns the bytes, or the text in UTF-8.
    ///
    /// ```
    /// use hatchet::model::ChunkContent;
    ///
    /// assert_eq!(ChunkContent::Text("ab".into()).as_bytes(), b"ab");
    /// ```
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// Returns the text of the content, or `None` if it consists of bytes.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Bytes(_) => None,
        }
    }

    /// Bytes as base64.
    pub(crate) fn base64(bytes: &[u8]) -> String {
        STANDARD.encode(bytes)
    }

    /// The number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// The prefix with which the content is sent as base64.
    fn prefix(&self) -> Option<&'static str> {
        match self {
            Self::Bytes(_) => Some(BYTES_PREFIX),
            Self::Text(text) => {
                [BYTES_PREFIX, TEXT_PREFIX].iter().any(|prefix| text.starts_with(prefix)).then_some(TEXT_PREFIX)
            }
        }
    }

    /// The length of the text that is sent.
    pub(crate) fn encoded_len(&self) -> usize {
        match self.prefix() {
            None => self.len(),
            Some(prefix) => self.len().div_ceil(3).saturating_mul(4).saturating_add(prefix.len()),
        }
    }

    /// The text that is sent.
    pub(crate) fn encode(self) -> String {
        match (self.prefix(), self) {
            (None, Self::Text(text)) => text,
            (prefix, content) => {
                let mut sent = prefix.unwrap_or_default().to_owned();
                STANDARD.encode_string(content.as_bytes(), &mut sent);
                sent
            }
        }
    }

    /// The content that was sent. Text that this crate did not create is returned unchanged.
    pub(crate) fn decode(sent: String) -> Self {
        let decode = |prefix: &str| STANDARD.decode(sent.strip_prefix(prefix)?).ok();
        if let Some(bytes) = decode(BYTES_PREFIX) {
            return Self::Bytes(bytes);
        }
        match decode(TEXT_PREFIX).and_then(|text| String::from_utf8(text).ok()) {
            Some(text) => Self::Text(text),
            None => Self::Text(sent),
        }
    }
}

mod base64_text {
    use base64::Engine as _;
    use serde::Deserialize as _;

    use super::STANDARD;

    pub(super) fn serialize<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::ChunkContent::base64(bytes))
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl Chunk {
    /// Returns the text of the chunk, or `None` if it consists of bytes.
    ///
    /// ```no_run
    /// # fn example(chunk: hatchet::model::Chunk) {
    /// println!("{}", chunk.text().unwrap_or("[bytes]"));
    /// # }
    /// ```
    pub fn text(&self) -> Option<&str> {
        self.content.text()
    }

    /// Deserializes the chunk from JSON.
    ///
    /// # Errors
    /// [`Decode`](ErrorKind::Decode) if the chunk is not valid JSON, or does not match the type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(self.content.as_bytes()).map_err(|error| {
            let name = self.index.map_or_else(|| "a chunk".to_owned(), |index| format!("chunk {index}"));
            Error::new(ErrorKind::Decode, format!("failed to decode {name} of task {}", self.task_id))
                .with_source(error)
        })
    }
}

/// Writes the text of the chunk. Bytes that are not UTF-8 are replaced by U+FFFD.
impl fmt::Display for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.content.as_bytes()))
    }
}

impl fmt::Display for ChunkItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chunk(chunk) => chunk.fmt(f),
            Self::Gap(gap) => gap.fmt(f),
            Self::Restart(restart) => restart.fmt(f),
            Self::Interrupted => f.write_str("chunks may be missing"),
        }
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

impl fmt::Display for ChunkRestart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a later attempt of task {} has begun", self.task_id)
    }
}

/// The place of a numbered chunk in the stream of its task. As text, it is part of the id of a server-sent event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkPosition {
    pub(crate) task: TaskId,
    pub(crate) index: i64,
    pub(crate) sent_at: Option<DateTime<Utc>>,
}

impl ChunkPosition {
    pub(crate) fn of(chunk: &Chunk) -> Option<Self> {
        Some(Self { task: chunk.task_id, index: chunk.index?, sent_at: chunk.sent_at })
    }
}

impl fmt::Display for ChunkPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { task, index, sent_at } = self;
        // It is sent with each event, together with those of other tasks, so it is short.
        let task = URL_SAFE_NO_PAD.encode(uuid::Uuid::from(*task));
        write!(f, "{task}.{index}")?;
        sent_at.map_or(Ok(()), |at| write!(f, ".{}", at.timestamp_micros()))
    }
}

/// The text is not a position.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoPosition;

impl FromStr for ChunkPosition {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        let mut parts = text.split('.');
        let task = parts.next().and_then(|task| URL_SAFE_NO_PAD.decode(task).ok()).ok_or(NoPosition)?;
        let task = uuid::Uuid::from_slice(&task).map_err(|_| NoPosition)?.into();
        let index = parts.next().and_then(|index| index.parse().ok()).ok_or(NoPosition)?;
        let sent_at = match parts.next().map(|at| at.parse().ok().and_then(DateTime::from_timestamp_micros)) {
            None => None,
            Some(None) => return Err(NoPosition),
            sent_at => sent_at.flatten(),
        };
        if index < 0 || parts.next().is_some() {
            return Err(NoPosition);
        }
        Ok(Self { task, index, sent_at })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn chunk(content: ChunkContent) -> Chunk {
        let id = uuid::Uuid::from_u128(1);
        Chunk { run_id: id.into(), task_id: id.into(), index: Some(7), sent_at: None, content }
    }

    #[test]
    fn text_is_sent_as_it_is() {
        for text in ["", "a\0b", "data:image/png;base64,AAAA", "data:application/octet-stream;base64,AAAA"] {
            assert_eq!(ChunkContent::Text(text.into()).encode(), text);
            assert_eq!(ChunkContent::decode(text.into()), ChunkContent::Text(text.into()));
        }
        let invalid = format!("{BYTES_PREFIX}no base64");
        assert_eq!(ChunkContent::decode(invalid.clone()), ChunkContent::Text(invalid));
    }

    #[test]
    fn bytes_are_a_data_url() {
        let sent = ChunkContent::Bytes(vec![0, 255]).encode();
        assert_eq!(sent, "data:application/octet-stream;by=hatchet-rs;base64,AP8=");
        // A task may send the text of such a URL.
        let again = ChunkContent::Text(sent.clone()).encode();
        assert_ne!(again, sent);
        assert_eq!(ChunkContent::decode(again), ChunkContent::Text(sent));
    }

    #[test]
    fn the_json_of_a_chunk_contains_its_text_or_its_bytes() {
        let id = uuid::Uuid::from_u128(1);
        let json =
            |key: &str, value: &str| json!({"run_id": id, "task_id": id, "index": 7, "sent_at": null, key: value});
        for (content, expected) in [
            (ChunkContent::Text("a".into()), json("text", "a")),
            (ChunkContent::Bytes(vec![255]), json("base64", "/w==")),
        ] {
            let chunk = chunk(content);
            assert_eq!(serde_json::to_value(&chunk).unwrap(), expected);
            assert_eq!(serde_json::from_value::<Chunk>(expected).unwrap(), chunk);
        }
        assert!(serde_json::from_value::<Chunk>(json("base64", "?")).is_err());
    }

    #[test]
    fn only_the_text_of_a_position_is_one() {
        let task = TaskId::from(uuid::Uuid::from_u128(1));
        for sent_at in
            [None, DateTime::from_timestamp_micros(-1), DateTime::from_timestamp_micros(1_700_000_000_000_001)]
        {
            let position = ChunkPosition { task, index: 7, sent_at };
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        let position = ChunkPosition { task, index: 7, sent_at: None }.to_string();
        assert_eq!(position, "AAAAAAAAAAAAAAAAAAAAAQ.7");
        let task = position.trim_end_matches(".7");
        let far = format!("{task}.1.{}", i64::MAX);
        for text in [
            "",
            "1",
            "a.1",
            "AAAA.1",
            task,
            &format!("{task}.-1"),
            &format!("{task}.1.x"),
            &format!("{task}.1.1.1"),
            &far,
        ] {
            assert_eq!(text.parse::<ChunkPosition>(), Err(NoPosition), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        #[test]
        fn what_is_read_is_what_was_sent(bytes: Vec<u8>, text: String, prefix in 0usize..3) {
            let text = format!("{}{text}", ["", BYTES_PREFIX, TEXT_PREFIX][prefix]);
            for content in [ChunkContent::Bytes(bytes), ChunkContent::Text(text)] {
                let sent = content.clone().encode();
                prop_assert_eq!(sent.len(), content.encoded_len());
                prop_assert_eq!(ChunkContent::decode(sent), content);
            }
        }
    }
}
