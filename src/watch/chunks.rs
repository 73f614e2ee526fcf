//! The chunks that the tasks of a run send.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::unfold;
use tokio::time::Instant;

use super::changes::RunWatch;
use super::follower::Watched;
use super::reorder::Reorder;
use crate::boxed::BoxStream;
use crate::error::{Error, Result};
use crate::feed::{CLIENT_KEY, ChunkSubscription, Membership, Tag};
use crate::model::{ChangeKind, Chunk, ChunkItem, RunDetails};
use crate::observe::RunFetch;
use crate::run::{RunBuilder, RunHandle};
use crate::runtime::{self, Needs};
use crate::time::at;

/// For how long chunks are expected after the end of the run: the engine may announce the end before the last chunks.
const AFTER_END: Duration = Duration::from_secs(1);

impl<O> RunHandle<O> {
    /// Returns the chunks that the tasks of the run send from now on ([`Context::put`](crate::Context::put)), in the order of each task,
    /// until the run has ended. They are those of all attempts, and of all tasks of a DAG run, also if the tasks use another Hatchet SDK.
    ///
    /// Nothing is stored on the server, so earlier chunks are missing. Missing chunks are reported as a [gap](ChunkItem::Gap), if chunks
    /// of the same attempt follow: the engine can lose the last chunks before the end of a run without a trace. Chunks of child runs are
    /// not included.
    ///
    /// The client subscribes by a tag of the run: that of the client that started it, or one of its other tags.
    ///
    /// ```no_run
    /// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
    /// use hatchet::model::ChunkItem;
    ///
    /// let mut chunks = run.chunks();
    /// while let Some(item) = chunks.next().await.transpose()? {
    ///     if let ChunkItem::Chunk(chunk) = item {
    ///         print!("{}", chunk.text);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn chunks(&self) -> RunChunks {
        let watched = Watched::of(self);
        RunChunks::new(Box::pin(async move {
            let membership = membership(&watched).await?;
            let (chunks, watched) = (membership.chunks(watched.run), watched);
            Ok((chunks, watched))
        }))
    }
}

impl<O: 'static> RunBuilder<O> {
    /// Starts the run when the stream is first polled, and returns the chunks that its tasks send; see [`RunHandle::chunks`]. The client
    /// subscribes before it starts the run.
    ///
    /// If the run cannot be started, the stream returns the error of [`start`](Self::start) and ends.
    ///
    /// # Cancel safety
    /// If the stream is dropped after its first poll, the run may have been started. A run that was started continues.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, chat: hatchet::Task<(), String>) -> hatchet::Result<()> {
    /// use hatchet::model::ChunkItem;
    ///
    /// let mut chunks = hatchet.run(&chat, &()).chunks();
    /// while let Some(item) = chunks.next().await.transpose()? {
    ///     if let ChunkItem::Chunk(chunk) = item {
    ///         print!("{}", chunk.text);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn chunks(self) -> RunChunks {
        let client = self.client().clone();
        let start = self.start();
        RunChunks::new(Box::pin(async move {
            let starting = client.feed().news.join(client.feed().tag()).starting();
            let run = start.await?;
            Ok((starting.started(run.id()), Watched::of(&run)))
        }))
    }
}

/// Joins the group of a tag that the run has.
async fn membership(watched: &Watched) -> Result<Membership> {
    let client = &watched.client;
    if watched.started_at.is_some() {
        return Ok(client.feed().news.join(client.feed().tag()));
    }
    let details = RunFetch::new(watched.run).fetch(client).await?;
    let tag = tag(&details).ok_or_else(|| {
        let problem =
            format!("expected a run with a tag, by which its chunks can be subscribed to, got {}", details.id);
        Error::invalid("run", problem)
    })?;
    Ok(client.feed().news.join(&tag))
}

fn tag(details: &RunDetails) -> Option<Tag> {
    let mut all = details.engine_metadata.iter().filter(|(key, _)| *key == CLIENT_KEY).chain(&details.metadata);
    all.find_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
}

type Opening = BoxFuture<'static, Result<(ChunkSubscription, Watched)>>;

/// A stream of the chunks of a run; see [`RunHandle::chunks`]. It ends after an error, and when the run has ended.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// use hatchet::model::ChunkItem;
///
/// let mut chunks = run.chunks();
/// while let Some(item) = chunks.next().await.transpose()? {
///     match item {
///         ChunkItem::Chunk(chunk) => print!("{}", chunk.text),
///         ChunkItem::Gap(gap) => eprintln!("{gap}"), // chunks 3 to 5 are missing
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is started or fetched before the stream is polled"]
pub struct RunChunks {
    items: BoxStream<Result<ChunkItem>>,
    dropped: Arc<AtomicU64>,
}

impl RunChunks {
    fn new(opening: Opening) -> Self {
        let dropped = Arc::new(AtomicU64::new(0));
        let reader = Reader::Opening(opening, Arc::clone(&dropped));
        let items = unfold(reader, |mut reader| async move {
            let item = reader.next().await?;
            if item.is_err() {
                reader = Reader::Ended;
            }
            Some((item, reader))
        });
        Self { items: BoxStream::new(items), dropped }
    }

    /// Returns the number of chunks that were dropped because the stream was read too slowly. At most 8192 chunks or 16 MiB wait. Dropped
    /// chunks that are numbered are reported as gaps, too.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Returns the next chunk or gap, or `None` after the end of the run.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no item is lost.
    pub async fn next(&mut self) -> Option<Result<ChunkItem>> {
        self.items.next().await
    }
}

impl Stream for RunChunks {
    type Item = Result<ChunkItem>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.items.poll_next_unpin(cx)
    }
}

impl fmt::Debug for RunChunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunChunks")
    }
}

enum Reader {
    Opening(Opening, Arc<AtomicU64>),
    Open(Box<OpenReader>),
    Ended,
}

struct OpenReader {
    chunks: ChunkSubscription,
    dropped: Arc<AtomicU64>,
    watch: RunWatch,
    reorder: Reorder,
    ready: VecDeque<ChunkItem>,
    /// When the last chunk arrived after the end of the run, or the run ended.
    ended_at: Option<Instant>,
    has_ended: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<ChunkItem>> {
        if let Self::Opening(opening, dropped) = self {
            if let Err(error) = runtime::require("a stream of chunks", Needs::Timers) {
                return Some(Err(error));
            }
            let (chunks, watched) = match opening.await {
                Ok(opened) => opened,
                Err(error) => return Some(Err(error)),
            };
            let watched = Watched { membership: Some(chunks.membership().clone()), ..watched };
            *self = Self::Open(Box::new(OpenReader {
                chunks,
                dropped: Arc::clone(dropped),
                watch: RunWatch::of(watched).only(ChangeKind::Run),
                reorder: Reorder::default(),
                ready: VecDeque::new(),
                ended_at: None,
                has_ended: false,
            }));
        }
        match self {
            Self::Open(reader) => reader.next().await,
            Self::Opening(..) | Self::Ended => None,
        }
    }
}

impl OpenReader {
    async fn next(&mut self) -> Option<Result<ChunkItem>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(Ok(item));
            }
            if self.has_ended {
                return None;
            }
            let over = self.ended_at.map(|at| at + AFTER_END);
            let due = [self.reorder.due(), over].into_iter().flatten().min();
            tokio::select! {
                biased;
                chunk = self.chunks.next() => self.take(chunk),
                change = self.watch.next(), if self.ended_at.is_none() => match change {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Some(Err(error)),
                    None => self.ended_at = Some(Instant::now()),
                },
                () = at(due) => {
                    let now = Instant::now();
                    self.reorder.release_due(now, &mut self.ready);
                    if over.is_some_and(|over| over <= now) {
                        self.reorder.release_all(&mut self.ready);
                        self.has_ended = true;
                    }
                }
            }
        }
    }

    fn take(&mut self, chunk: Chunk) {
        let now = Instant::now();
        self.dropped.store(self.chunks.dropped(), Relaxed);
        self.ended_at = self.ended_at.map(|_| now);
        self.reorder.take(now, chunk, &mut self.ready);
    }
}
