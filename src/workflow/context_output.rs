//! What a task sends besides its result: log lines and chunks.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::context::Context;
use super::output::{MessageOrigin, TaskContent, TaskMessage};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{ChunkContent, LogLevel};
use crate::sync::lock;
use crate::telemetry::{self, Measurement};

/// The maximum length of a log line in characters. The engine rejects longer ones.
const MAX_LINE_CHARS: usize = 10_000;
/// The size of the longest line, its ids and its timestamp.
const MAX_LINE_BYTES: usize = 64 << 10;
/// How long the end of an attempt waits for its chunks.
const MAX_FLUSH: Duration = Duration::from_secs(30);
/// How long it waits if none is accepted.
const MAX_STALL: Duration = Duration::from_secs(5);
/// What is left of the execution timeout for the report of the end.
const REPORT_TIME: Duration = Duration::from_millis(500);
/// The end of a line that was truncated.
const TRUNCATION_SUFFIX: &str = "… (truncated)";

impl Context {
    /// Writes a line to the task's log, at level `Info`. See [`log_with`](Self::log_with).
    ///
    /// ```
    /// use hatchet::{Context, Task};
    ///
    /// let charge: Task<(), ()> = Task::new("charge", async |(): (), context: Context| {
    ///     context.log("charging the card");
    ///     Ok(())
    /// });
    /// ```
    pub fn log(&self, message: impl Into<String>) {
        self.write_log(LogLevel::Info, message.into(), String::new());
    }

    /// Writes a line to the task's log, with a level and metadata, which must serialize to a JSON object.
    ///
    /// The line is put into a queue, and a background task of the worker sends it, retrying until the server can be reached. The lines of a
    /// task arrive in order. If a response is lost, a line may arrive twice. A line of more than 10,000 characters is truncated, and U+0000
    /// is replaced by U+FFFD, including in the metadata. When the queue is full (16 MiB for all lines of the worker, plus 64 KiB for this
    /// attempt; each line counts as at least 1 KiB), further lines are dropped; the next line that is sent is preceded by a line with the
    /// number of dropped lines.
    ///
    /// ```
    /// use hatchet::model::LogLevel;
    /// use hatchet::{Context, Task};
    /// use serde_json::json;
    ///
    /// let charge: Task<(), ()> = Task::new("charge", async |(): (), context: Context| {
    ///     context.log_with(LogLevel::Warn, "the card expires soon", json!({"month": 12}))?;
    ///     Ok(())
    /// });
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the metadata does not serialize to a JSON object, or if the level is
    /// [`Unknown`](LogLevel::Unknown). [`TooLarge`](ErrorKind::TooLarge) if the metadata and 64 KiB for the line exceed the configured
    /// [`max_send_message_length`](crate::config::ConfigBuilder::max_send_message_length), 4 MiB by default.
    pub fn log_with(&self, level: LogLevel, message: impl Into<String>, metadata: impl Serialize) -> Result<()> {
        if let LogLevel::Unknown(name) = &level {
            return Err(Error::invalid("log level", format!("expected DEBUG, INFO, WARN or ERROR, got {name:?}")));
        }
        let metadata = match serde_json::to_value(metadata) {
            Ok(Value::Object(metadata)) => Value::Object(metadata).to_string(),
            Ok(Value::Null) => String::new(),
            Ok(other) => {
                return Err(Error::invalid("log metadata", format!("expected a JSON object, got {other}")));
            }
            Err(error) => {
                return Err(Error::invalid(
                    "log metadata",
                    "expected a value that can be serialized as JSON, got one that cannot",
                )
                .with_source(error));
            }
        };
        let limit = self.client().rpc().events.max_send().saturating_sub(MAX_LINE_BYTES);
        if metadata.len() > limit {
            let text = format!("log metadata: expected at most {limit} bytes of JSON, got {}", metadata.len());
            return Err(Error::new(ErrorKind::TooLarge, text).without_side_effects());
        }
        self.write_log(level, message.into(), metadata);
        Ok(())
    }

    pub(crate) fn write_log(&self, level: LogLevel, message: String, metadata: String) {
        let lost = self.own_output().lost_lines.swap(0, Relaxed);
        if lost > 0 {
            let text =
                format!("{lost} log lines of this task were lost, because too many lines were waiting to be sent");
            if !self.send_line(LogLevel::Warn, text, String::new()) {
                self.own_output().lost_lines.fetch_add(lost, Relaxed);
                return self.lose_line();
            }
        }
        if !self.send_line(level, sanitize_line(message), sanitize_metadata(metadata)) {
            self.lose_line();
        }
    }

    fn lose_line(&self) {
        self.own_output().lost_lines.fetch_add(1, Relaxed);
        telemetry::record(&Measurement::TaskMessageLost);
    }

    fn origin(&self) -> MessageOrigin {
        MessageOrigin { run: self.run_id(), task: self.task_id(), attempt: self.attempt() }
    }

    fn send_line(&self, level: LogLevel, message: String, metadata: String) -> bool {
        let Some(permit) = self.output().line_permit(self.own_output(), message.len().saturating_add(metadata.len()))
        else {
            return false;
        };
        let content = TaskContent::Log { level, message, metadata };
        self.output().send(TaskMessage { origin: self.origin(), content, permit }).is_ok()
    }

    /// Sends a chunk, such as a token of a language model, to the readers of the run.
    ///
    /// Chunks are numbered, so that readers receive them in order and notice missing ones. A chunk is not stored: readers that subscribe
    /// later do not receive it. It is sent as it is, including U+0000.
    ///
    /// The future resolves when the chunk is queued; a background task of the worker sends it, retrying until the server can be reached.
    /// The future waits while the queue is full (16 MiB for all chunks of the worker, plus 64 KiB for this attempt; each chunk counts as at
    /// least 1 KiB): a task that is faster than the connection is slowed down, and a task that sends many chunks waits for the end of an
    /// outage.
    ///
    /// When the function has ended, the end of the attempt is reported once its chunks have been published: 100 ms after the last chunk was
    /// accepted, or 1.1 seconds after the last chunk of more than 4000 bytes. The worker stops waiting if no chunk is accepted for five
    /// seconds, after 30 seconds in total, and half a second before the execution timeout. Then the end is reported, and a warning with the
    /// number of unsent chunks is logged. The unsent chunks are sent later, and readers may not receive them.
    ///
    /// ```
    /// use hatchet::{Context, Task};
    ///
    /// let answer: Task<(), ()> = Task::new("answer", async |(): (), context: Context| {
    ///     for word in ["to", "be", "or", "not"] {
    ///         context.put(word).await?;
    ///     }
    ///     Ok(())
    /// });
    /// ```
    ///
    /// # Errors
    /// [`TooLarge`](ErrorKind::TooLarge) if the chunk and 1 KiB for its ids exceed the configured
    /// [`max_send_message_length`](crate::config::ConfigBuilder::max_send_message_length), 4 MiB by default.
    /// [`Closed`](ErrorKind::Closed) if the worker has ended.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped before it resolves, the chunk is not sent.
    pub async fn put(&self, chunk: impl AsRef<str>) -> Result<()> {
        self.put_content(ChunkContent::Text(chunk.as_ref().to_owned())).await
    }

    /// Sends bytes as a [chunk](Self::put).
    ///
    /// The bytes are sent as base64, in a data URL of the media type `application/octet-stream`, because a chunk that is not UTF-8 would
    /// end the streams of all of its readers. Readers that use this crate receive the bytes, and readers that use other Hatchet SDKs
    /// receive the URL.
    ///
    /// ```
    /// use hatchet::{Context, Task};
    ///
    /// let record: Task<(), ()> = Task::new("record", async |(): (), context: Context| {
    ///     context.put_bytes([0x00, 0xff]).await?;
    ///     Ok(())
    /// });
    /// ```
    ///
    /// # Errors
    /// The errors of [`put`](Self::put). The limit applies to the URL, which is a third larger than the bytes.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped before it resolves, the chunk is not sent.
    pub async fn put_bytes(&self, chunk: impl AsRef<[u8]>) -> Result<()> {
        self.put_content(ChunkContent::Bytes(chunk.as_ref().to_vec())).await
    }

    async fn put_content(&self, content: ChunkContent) -> Result<()> {
        let (length, limit) = (content.encoded_len(), self.client().rpc().events.max_send());
        // The ids and the timestamp of the message need some space, too.
        if length.saturating_add(1024) > limit {
            let text = format!("expected a chunk of at most {} bytes, got {length}", limit.saturating_sub(1024));
            return Err(Error::new(ErrorKind::TooLarge, text).without_side_effects());
        }
        let chunks = self.own_output().chunks();
        let permit = self.output().chunk_permit(chunks, length).await?;
        // Chunks enter the queue in the order of their numbers, and no number is lost.
        let mut next = lock(&chunks.next);
        let content = TaskContent::Chunk { index: *next, at: self.client().clock().now(), content };
        self.output().send(TaskMessage { origin: self.origin(), content, permit })?;
        *next = next.saturating_add(1);
        Ok(())
    }

    /// Waits until the chunks of this attempt were sent: the engine ends the streams of its readers as soon as the run has ended.
    pub(crate) async fn flush_chunks(&self) {
        let Some(chunks) = self.own_output().existing_chunks() else { return };
        // Not those that a spawned task puts from now on.
        let total = *lock(&chunks.next);
        let mut sent = chunks.sent.subscribe();
        let timeout = self.timeout_at().and_then(|at| at.checked_sub(REPORT_TIME));
        let until = |at: Instant| timeout.map_or(at, |timeout| at.min(timeout));
        let end = until(Instant::now() + MAX_FLUSH);
        loop {
            let now_sent = *sent.borrow_and_update();
            if now_sent.count >= total {
                // The engine publishes chunks some time after it has accepted them.
                if let Some(published_by) = now_sent.published_by {
                    sleep_until(until(published_by)).await;
                }
                return;
            }
            if timeout_at(end.min(Instant::now() + MAX_STALL), sent.changed()).await.is_err() {
                let unsent = total.saturating_sub(now_sent.count);
                tracing::warn!(run_id = %self.run_id(), task_id = %self.task_id(), task_name = self.task_name(), attempt = self.attempt(), unsent, "attempt ended before its last chunks were sent; readers may not receive them");
                return;
            }
        }
    }

    /// Serializes a value to JSON, and sends it as a [chunk](Self::put).
    ///
    /// ```
    /// use hatchet::{Context, Task};
    /// use serde::Serialize;
    ///
    /// #[derive(Serialize)]
    /// struct Progress { percent: u8 }
    ///
    /// let import: Task<(), ()> = Task::new("import", async |(): (), context: Context| {
    ///     context.put_json(&Progress { percent: 50 }).await?;
    ///     Ok(())
    /// });
    /// ```
    ///
    /// # Errors
    /// [`Encode`](ErrorKind::Encode) if the value cannot be serialized, and the errors of [`put`](Self::put).
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped before it resolves, the chunk is not sent.
    pub async fn put_json(&self, chunk: &(impl Serialize + Sync)) -> Result<()> {
        let text = serde_json::to_string(chunk)
            .map_err(|error| Error::new(ErrorKind::Encode, "failed to serialize the chunk").with_source(error))?;
        self.put_content(ChunkContent::Text(text)).await
    }
}

/// The text of a line as the engine accepts it: not empty, without U+0000, and not too long.
fn sanitize_line(message: String) -> String {
    let message = if message.contains('\0') { message.replace('\0', "\u{fffd}") } else { message };
    if message.is_empty() {
        return " ".into();
    }
    if message.chars().nth(MAX_LINE_CHARS).is_none() {
        return message;
    }
    let kept = MAX_LINE_CHARS.saturating_sub(TRUNCATION_SUFFIX.chars().count());
    message.chars().take(kept).chain(TRUNCATION_SUFFIX.chars()).collect()
}

/// The metadata without U+0000, which the engine's database cannot store.
fn sanitize_metadata(metadata: String) -> String {
    // It may also be a backslash, and the text `u0000`.
    if !metadata.contains("\\u0000") {
        return metadata;
    }
    let sanitized = serde_json::from_str(&metadata).map(|value| without_nul(value).to_string());
    sanitized.unwrap_or(metadata)
}

fn without_nul(value: Value) -> Value {
    let replaced = |text: String| text.replace('\0', "\u{fffd}");
    match value {
        Value::String(text) => Value::String(replaced(text)),
        Value::Array(values) => values.into_iter().map(without_nul).collect(),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(key, value)| (replaced(key), without_nul(value))).collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_has_no_nul() {
        let metadata = serde_json::json!({"a\0": ["b\0", {"c": "d\\u0000"}], "e": 1});
        let expected = serde_json::json!({"a\u{fffd}": ["b\u{fffd}", {"c": "d\\u0000"}], "e": 1});
        assert_eq!(sanitize_metadata(metadata.to_string()), expected.to_string());
        assert_eq!(sanitize_metadata(String::new()), "");
    }

    #[test]
    fn lines_respect_the_limits_of_the_engine() {
        assert_eq!(sanitize_line("as it is".into()), "as it is");
        assert_eq!(sanitize_line(String::new()), " ");
        assert_eq!(sanitize_line("a\0b".into()), "a\u{fffd}b");
        let longest = "ä".repeat(MAX_LINE_CHARS);
        assert_eq!(sanitize_line(longest.clone()), longest);
        let truncated = sanitize_line(longest + "!");
        assert!(truncated.chars().count() == MAX_LINE_CHARS && truncated.ends_with("ä… (truncated)"));
    }
}
