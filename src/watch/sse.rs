//! The chunks of a run as server-sent events.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use futures_util::StreamExt as _;
use tokio::time::{Instant, Sleep, sleep};

use super::chunk_reader::Shared;
use super::chunks::RunChunks;
use crate::error::{Error, Result};
use crate::model::{ChunkContent, ChunkItem, ChunkPosition, RunStatus, SseEvent};
use crate::sync::lock;

/// How often a comment is sent when there is nothing else.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const MIN_KEEP_ALIVE: Duration = Duration::from_secs(1);
/// The number of tasks whose positions are in the id of an event. Those that have sent nothing for the longest time are left out. The id is
/// sent with each event, and comes back in a header: servers and proxies often limit a header to 4 KiB.
const MAX_POSITIONS: usize = 64;

impl<O> RunChunks<O> {
    /// Returns the chunks as server-sent events, for the body of an HTTP response that a browser reads with `EventSource`.
    ///
    /// `EventSource` reconnects automatically, so a handler that also starts the run would start another run for each connection. Start the
    /// run in a separate request, and read its chunks by its id.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, run: hatchet::RunId) -> hatchet::Result<()> {
    /// let mut frames = hatchet.run_handle(run).chunks().into_sse();
    /// while let Some(frame) = frames.next().await {
    ///     print!("{frame}"); // data: to be
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_sse(self) -> ChunkSse {
        let shared = self.shared();
        ChunkSse {
            chunks: self.untyped(),
            shared,
            encoder: Encoder::default(),
            keep_alive: KEEP_ALIVE,
            timer: None,
            has_ended: false,
        }
    }
}

/// The chunks of a run as server-sent events, one complete event or comment in each item; see [`RunChunks::into_sse`].
///
/// Use the stream as the body of a response with the content type `text/event-stream` and the header `cache-control: no-store`. The stream
/// cannot fail; for frameworks that expect a stream of results, use `frames.map(Ok::<_, Infallible>)`. The example `sse` has an axum
/// handler and a page.
///
/// | event | data |
/// |---|---|
/// | `message`, the default | the text of a chunk |
/// | `bytes` | the bytes of a chunk, as base64 |
/// | `gap` | the JSON of a [`ChunkGap`](crate::model::ChunkGap) |
/// | `restart` | the JSON of a [`ChunkRestart`](crate::model::ChunkRestart): the chunks of the task that follow replace the earlier ones |
/// | `interrupted` | a message that chunks may be missing or were dropped; see [`ChunkItem::Interrupted`] |
/// | `failed` | the [kind](crate::ErrorKind) of the error after which the stream ends. The error itself is logged, and not sent |
/// | `end` | the final status of the run, such as `COMPLETED`. The stream ends |
///
/// If the [`RunChunks`] had already yielded an error, the only event is `failed`, with the kind `Closed`.
///
/// `EventSource` reconnects whenever a response ends, so the page must call `close()` after `end` and `failed`. The engine does not store
/// chunks, so the new response contains only chunks that are sent from then on.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// use std::convert::Infallible;
///
/// use futures_util::StreamExt as _;
///
/// let body = run.chunks().into_sse().map(Ok::<_, Infallible>); // for example, for axum's `Body::from_stream`
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is started or fetched before the stream is polled"]
pub struct ChunkSse {
    chunks: RunChunks,
    shared: Arc<Shared>,
    encoder: Encoder,
    keep_alive: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    has_ended: bool,
}

impl ChunkSse {
    /// Sends a comment whenever there has been no event for this long, so that proxies keep the connection open and the server notices when
    /// a browser has disconnected.
    ///
    /// The default is 15 seconds, and the minimum is one second.
    pub fn keep_alive(mut self, interval: Duration) -> Self {
        self.keep_alive = interval.max(MIN_KEEP_ALIVE);
        self
    }

    /// Sends each chunk, including chunks of bytes, as the JSON of a [`Chunk`](crate::model::Chunk), with its ids and its time.
    ///
    /// This format distinguishes the tasks of a DAG run, and preserves line breaks other than LF.
    pub fn json(mut self) -> Self {
        self.encoder.json = true;
        self
    }

    /// Sets the value of the `Last-Event-ID` header of a browser that reconnects.
    ///
    /// Chunks that the browser has received are not reported as missing, and chunks that were sent in the meantime are reported as a gap.
    /// An id that is not from a stream of this run is ignored. Calling this method after the first poll has no effect.
    ///
    /// An id contains the positions of the 64 tasks that sent a chunk most recently, in less than 4 KiB. For any other task, all chunks
    /// before its next chunk are reported as a gap, including chunks that the browser has received.
    ///
    /// ```no_run
    /// # fn example(run: hatchet::RunHandle<()>, header: Option<&str>) {
    /// let frames = run.chunks().into_sse().last_event_id(header.unwrap_or_default());
    /// # }
    /// ```
    pub fn last_event_id(mut self, id: &str) -> Self {
        self.encoder.positions =
            id.split(',').take(MAX_POSITIONS).filter_map(|position| position.parse().ok()).collect();
        lock(&self.shared.resumed).clone_from(&self.encoder.positions);
        self
    }

    /// Returns the number of chunks that were dropped because the stream was read too slowly; see [`RunChunks::dropped_chunks`].
    pub fn dropped_chunks(&self) -> u64 {
        self.chunks.dropped_chunks()
    }

    /// Returns the next event or comment, or `None` after the end.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no item is lost.
    pub async fn next(&mut self) -> Option<String> {
        futures_util::StreamExt::next(self).await
    }
}

impl Stream for ChunkSse {
    type Item = String;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<String>> {
        let Self { chunks, shared, encoder, keep_alive, timer, has_ended } = &mut *self;
        if *has_ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(item) = chunks.poll_next_unpin(cx) {
            *timer = None;
            *has_ended = !matches!(item, Some(Ok(_)));
            let frame = item.map_or_else(|| end(lock(&shared.status).as_ref()), |item| encoder.encode(item));
            return Poll::Ready(Some(frame.to_string()));
        }
        // Without timers, the stream of chunks has ended with an error.
        let sleeping = timer.get_or_insert_with(|| Box::pin(sleep(*keep_alive)));
        std::task::ready!(sleeping.as_mut().poll(cx));
        sleeping.as_mut().reset(Instant::now() + *keep_alive);
        Poll::Ready(Some(":\n\n".to_owned()))
    }
}

impl fmt::Debug for ChunkSse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkSse")
    }
}

fn end(status: Option<&RunStatus>) -> SseEvent {
    match status.filter(|status| status.is_final()) {
        Some(status) => SseEvent::new(status.to_string()).name("end"),
        // It had returned an error before it was encoded.
        None => failed(&Error::closed("the stream of chunks")),
    }
}

/// Makes events from chunks.
#[derive(Debug, Default)]
struct Encoder {
    json: bool,
    /// The last chunk of each task, the newest last.
    positions: Vec<ChunkPosition>,
}

impl Encoder {
    fn encode(&mut self, item: Result<ChunkItem>) -> SseEvent {
        match item {
            Ok(ChunkItem::Chunk(chunk)) => {
                let event = match &chunk.content {
                    _ if self.json => SseEvent::new(json(&chunk)),
                    ChunkContent::Text(text) => SseEvent::new(text),
                    ChunkContent::Bytes(bytes) => SseEvent::new(ChunkContent::base64(bytes)).name("bytes"),
                };
                match ChunkPosition::of(&chunk) {
                    Some(position) => event.id(self.advance(position)),
                    None => event,
                }
            }
            Ok(ChunkItem::Gap(gap)) => SseEvent::new(json(&gap)).name("gap"),
            Ok(ChunkItem::Restart(restart)) => SseEvent::new(json(&restart)).name("restart"),
            // Browsers ignore events without data.
            Ok(ChunkItem::Interrupted) => SseEvent::new("chunks may be missing").name("interrupted"),
            Err(error) => failed(&error),
        }
    }

    /// The positions of all tasks.
    fn advance(&mut self, position: ChunkPosition) -> String {
        self.positions.retain(|other| other.task != position.task);
        if self.positions.len() >= MAX_POSITIONS {
            self.positions.remove(0);
        }
        self.positions.push(position);
        self.positions.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

fn json(value: &impl serde::Serialize) -> String {
    // All keys of a chunk are strings, so this cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}

fn failed(error: &Error) -> SseEvent {
    tracing::warn!(%error, "stream of server-sent events failed");
    SseEvent::new(format!("{:?}", error.kind())).name("failed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::Engine;
    use crate::error::ErrorKind;
    use crate::model::{Chunk, ChunkGap, ChunkRestart, TaskId};
    use crate::workflow::Task;

    fn chunk(task: u128, index: Option<i64>, content: ChunkContent) -> Chunk {
        let id = uuid::Uuid::from_u128(task);
        Chunk { run_id: id.into(), task_id: id.into(), index, sent_at: None, content }
    }

    fn text(task: u128, index: Option<i64>) -> ChunkItem {
        ChunkItem::Chunk(chunk(task, index, ChunkContent::Text("a".into())))
    }

    #[test]
    fn chunks_gaps_and_errors_have_names() {
        let mut encoder = Encoder::default();
        let mut encode = |item| encoder.encode(item).to_string();
        assert_eq!(encode(Ok(text(1, None))), "data: a\n\n");
        let bytes = chunk(1, None, ChunkContent::Bytes(vec![0, 255]));
        assert_eq!(encode(Ok(ChunkItem::Chunk(bytes))), "event: bytes\ndata: AP8=\n\n");
        let Chunk { run_id, task_id, .. } = chunk(1, None, ChunkContent::Text(String::new()));
        let gap = ChunkItem::Gap(ChunkGap { run_id, task_id, first_index: 3, last_index: 5 });
        let id = "00000000-0000-0000-0000-000000000001";
        let expected = format!(r#"{{"run_id":"{id}","task_id":"{id}","first_index":3,"last_index":5}}"#);
        assert_eq!(encode(Ok(gap)), format!("event: gap\ndata: {expected}\n\n"));
        let restart = ChunkItem::Restart(ChunkRestart { run_id, task_id });
        let expected = format!(r#"{{"run_id":"{id}","task_id":"{id}"}}"#);
        assert_eq!(encode(Ok(restart)), format!("event: restart\ndata: {expected}\n\n"));
        assert_eq!(encode(Ok(ChunkItem::Interrupted)), "event: interrupted\ndata: chunks may be missing\n\n");
        let error = Error::new(ErrorKind::Unavailable, "a secret");
        assert_eq!(encode(Err(error)), "event: failed\ndata: Unavailable\n\n");
        assert_eq!(end(Some(&RunStatus::Completed)).to_string(), "event: end\ndata: COMPLETED\n\n");
        for status in [None, Some(&RunStatus::Running)] {
            assert_eq!(end(status).to_string(), "event: failed\ndata: Closed\n\n");
        }
        let mut encoder = Encoder { json: true, ..encoder };
        let data = format!(r#"{{"run_id":"{id}","task_id":"{id}","index":null,"sent_at":null,"text":"a"}}"#);
        assert_eq!(encoder.encode(Ok(text(1, None))).to_string(), format!("data: {data}\n\n"));
    }

    #[test]
    fn an_id_has_the_positions_of_the_last_tasks() {
        let mut encoder = Encoder::default();
        for task in 1..=MAX_POSITIONS as u128 {
            let _ = encoder.encode(Ok(text(task, Some(0))));
        }
        let _ = encoder.encode(Ok(text(1, Some(7))));
        let id = encoder.encode(Ok(text(100, Some(1)))).id.unwrap();
        let positions: Vec<ChunkPosition> = id.split(',').map(|position| position.parse().unwrap()).collect();
        let tasks: Vec<_> = positions.iter().map(|position| position.task).collect();
        let expected: Vec<_> = (3..=MAX_POSITIONS as u128).chain([1, 100]).collect();
        let expected: Vec<_> = expected.into_iter().map(|task| TaskId::from(uuid::Uuid::from_u128(task))).collect();
        assert_eq!((tasks, positions[MAX_POSITIONS - 2].index), (expected, 7));
    }

    #[test]
    fn an_id_fits_into_a_header() {
        let mut encoder = Encoder::default();
        let mut longest = 0;
        for task in 0..2 * MAX_POSITIONS as u128 {
            let content = ChunkContent::Text("a".into());
            let sent_at = chrono::DateTime::from_timestamp(4_000_000_000, 0);
            let chunk = Chunk { sent_at, ..chunk(task, Some(1_000_000_000), content) };
            longest = longest.max(encoder.encode(Ok(ChunkItem::Chunk(chunk))).id.unwrap().len());
        }
        assert!((3000..4000).contains(&longest), "{longest}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_comment_is_sent_while_there_are_no_chunks() {
        let engine = Engine::start().await.unwrap();
        let task = Task::new("task", async |(): (), context: crate::Context| {
            for _ in 0..2 {
                context.put("a\nb").await?;
                tokio::time::sleep(Duration::from_secs(25)).await;
            }
            Ok(())
        });
        let worker = engine.client().worker("worker").register(&task).build().unwrap().start().await.unwrap();
        let mut frames = engine.client().run(&task, &()).chunks().into_sse().keep_alive(Duration::from_secs(10));
        let (mut all, mut pauses, mut last) = (Vec::new(), Vec::new(), Instant::now());
        while let Some(frame) = frames.next().await {
            pauses.push(last.elapsed().as_secs());
            last = Instant::now();
            all.push(frame.lines().filter(|line| !line.starts_with("id: ")).collect::<Vec<_>>().join("|"));
        }
        let chunk = "data: a|data: b|";
        assert_eq!(all, [chunk, ":|", ":|", chunk, ":|", ":|", "event: end|data: COMPLETED|"]);
        assert_eq!(pauses[1..6], [10, 10, 5, 10, 10]);
        assert!(frames.next().await.is_none());
        worker.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_browser_that_reconnects_gets_a_gap_for_the_chunks_that_it_missed() {
        let engine = Engine::start().await.unwrap();
        let task = Task::new("task", async |(): (), context: crate::Context| {
            for number in 0..20 {
                context.put(number.to_string()).await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(())
        });
        let worker = engine.client().worker("worker").register(&task).build().unwrap().start().await.unwrap();
        let run = engine.client().run(&task, &()).start().await.unwrap();
        let mut frames = run.chunks().into_sse();
        let mut id = String::new();
        for number in 0..5 {
            let frame = frames.next().await.unwrap();
            assert!(frame.contains(&format!("data: {number}\n")), "{frame}");
            id = frame.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
        }
        drop(frames);
        tokio::time::sleep(Duration::from_millis(4500)).await;
        let mut frames = run.chunks().into_sse().last_event_id(&id);
        let frame = frames.next().await.unwrap();
        assert!(frame.starts_with("event: gap\n") && frame.contains(r#""first_index":5,"last_index":8}"#), "{frame}");
        assert!(frames.next().await.unwrap().contains("data: 9\n"));
        // The id of another stream is ignored.
        let mut frames = run.chunks().into_sse().last_event_id("7,a.1,\0");
        assert!(frames.next().await.unwrap().contains(r#""first_index":0,"#));
        worker.shutdown().await;
    }
}
