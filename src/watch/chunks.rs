//! The chunks that the tasks of a run send.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use futures_util::StreamExt as _;

use super::chunk_group::{Joined, join};
use super::chunk_reader::{Options, Reader, Shared};
use super::follower::Watched;
use crate::boxed::BoxStream;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::feed::{ChunkSubscription, ChunksOf, Membership};
use crate::model::{ChunkItem, RunId, RunStatus};
use crate::run::{Numbered, RunBuilder, RunHandle};
use crate::runtime::{self, Needs};
use crate::sync::lock;

impl<O> RunHandle<O> {
    /// Returns a stream of the chunks that the tasks of the run send from now on with [`Context::put`](crate::Context::put), until the run
    /// has ended.
    ///
    /// Chunks of one task are yielded in order. The stream covers all attempts and, in a DAG run, all tasks, including tasks of other
    /// Hatchet SDKs. Chunks of child runs are included if [`with_children`](RunChunks::with_children) is called.
    ///
    /// The client subscribes when the stream is first polled. The subscription begins after up to two requests, usually within half a
    /// second. The server does not store chunks, so earlier chunks are missing. Missing chunks are yielded as a [gap](ChunkItem::Gap) if a
    /// later chunk of the same attempt arrives. If no later chunk arrives and the subscription was lost in the meantime,
    /// [`Interrupted`](ChunkItem::Interrupted) is yielded. Two losses are not reported: chunks that were sent before the subscription began
    /// if no later chunk arrives, and the last chunks of an attempt if the engine loses them while the client is subscribed.
    ///
    /// The history of the run can show its end before all run events with chunks have arrived. In that case, the stream waits until
    /// none has arrived for ten seconds. If some are still missing then, it yields [`Interrupted`](ChunkItem::Interrupted). The engine can
    /// announce the end of a DAG run too early. The stream then does not wait for late run events of tasks that end within 30 seconds of that
    /// announcement. Chunks that a cancelled task sends more than 30 seconds after the end of its run do not delay the end of the stream.
    ///
    /// The client subscribes by a tag of the run: the tag that the client that started the run has added, or else the one of the run's other
    /// tags with the longest value, which is probably an id. If the run has no tag, the client subscribes by the id of the run. The engine
    /// ends such a subscription with each failed attempt, and early for DAG runs; the client reopens it, and chunks that were sent in
    /// between are missing. A client has at most 64 subscriptions to run events, each of which is a stream of its connection, and keeps a
    /// subscription for ten seconds after its last use.
    ///
    /// The stream yields an error and ends if the server rejects the subscription, if it needs a further subscription and the client
    /// already has 64 ([`TooLarge`](crate::ErrorKind::TooLarge)), and, with [`with_children`](RunChunks::with_children), if the run has no
    /// tag ([`InvalidInput`](crate::ErrorKind::InvalidInput)).
    ///
    /// ```no_run
    /// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
    /// use hatchet::model::ChunkItem;
    ///
    /// let mut chunks = run.chunks();
    /// while let Some(item) = chunks.next().await.transpose()? {
    ///     if let ChunkItem::Chunk(chunk) = item {
    ///         print!("{chunk}");
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn chunks(&self) -> RunChunks<O> {
        let watched = Watched::of(self);
        let chunks = RunChunks::new(async move |with_children| {
            let joined = join(&watched, with_children).await?;
            Ok(Opened::existing(watched, joined, with_children))
        });
        *lock(&chunks.shared.run) = Some(self.clone().typed());
        chunks
    }
}

impl<O: 'static> RunBuilder<O> {
    /// Returns a stream that starts the run when it is first polled, and yields the chunks that its tasks send; see [`RunHandle::chunks`].
    ///
    /// The client subscribes before it starts the run. The engine does not confirm a subscription, so the client waits for 250 ms after it
    /// has opened one. If the subscription begins even later, and chunks may be missing, the stream yields a gap or
    /// [`Interrupted`](ChunkItem::Interrupted). The subscription stays open for ten seconds after the last stream that uses it has ended.
    ///
    /// If the server rejects the subscription, the stream yields its error and ends, and the run is not started. If no subscription can be
    /// opened within one second, the run is started anyway, and [`Interrupted`](ChunkItem::Interrupted) is yielded if chunks may be
    /// missing. If the run cannot be started, the stream yields the error of [`start`](Self::start) and ends.
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
    ///         print!("{chunk}");
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn chunks(self) -> RunChunks<O> {
        let client = self.client().clone();
        RunChunks::starting(client, std::future::ready(Ok(self.numbered())))
    }
}

impl<O: 'static> RunChunks<O> {
    /// The chunks of a run that the stream starts when it is first polled, after it has subscribed.
    pub(super) fn starting(client: Client, run: impl Future<Output = Result<Numbered<O>>> + Send + 'static) -> Self {
        Self::new(async move |with_children| {
            let (run, feed) = (run.await?, client.feed());
            if with_children {
                let tag = feed.family_tag();
                let mut chunks = feed.events.join(&tag).chunks(ChunksOf::All);
                if !chunks.membership().subscribed().await? {
                    chunks.interrupt();
                }
                let run = run.start(Some(tag)).await?.typed();
                chunks.narrow(run.id());
                let is_same = |membership: &Membership| chunks.membership().is_same(membership);
                let existing = existing(&run, with_children, is_same).await?;
                return Ok(existing.unwrap_or_else(|| Opened::started(run, chunks)));
            }
            let mut starting = feed.events.join(feed.tag()).starting();
            if !starting.membership().subscribed().await? {
                starting.interrupt();
            }
            let run = run.start(None).await?.typed();
            let is_same = |membership: &Membership| starting.membership().is_same(membership);
            if let Some(existing) = existing(&run, with_children, is_same).await? {
                return Ok(existing);
            }
            let chunks = starting.started(run.id());
            Ok(Opened::started(run, chunks))
        })
    }
}

/// A child that an earlier attempt of its parent has started may have the tag of another client. Returns its subscription, unless it is
/// the one that was there before the call.
async fn existing(
    run: &RunHandle,
    with_children: bool,
    is_same: impl Fn(&Membership) -> bool,
) -> Result<Option<Opened>> {
    if run.started_at().is_some() {
        return Ok(None);
    }
    let watched = Watched::of(run);
    let joined = join(&watched, with_children).await?;
    let of_another = !is_same(&joined.membership);
    let opened = || Opened::existing(watched, joined, with_children);
    Ok(of_another.then(opened).map(|opened| Opened { started: Some(run.clone()), ..opened }))
}

/// A run, and the subscription to its chunks.
struct Opened {
    chunks: ChunkSubscription,
    watched: Watched,
    /// The run, if the stream has started it.
    started: Option<RunHandle>,
    /// Whether the subscription was there before the run.
    from_start: bool,
}

impl Opened {
    /// The run was there before.
    fn existing(watched: Watched, joined: Joined, with_children: bool) -> Self {
        let Joined { membership, created_at, was_late } = joined;
        let run = watched.run;
        let chunks = membership.chunks(if with_children { ChunksOf::Family(run) } else { ChunksOf::Run(run) });
        if was_late {
            chunks.interrupt();
        }
        Self { chunks, watched: Watched { created_at, ..watched }, started: None, from_start: false }
    }

    /// The subscription was there when the run was started.
    fn started(run: RunHandle, chunks: ChunkSubscription) -> Self {
        let from_start = run.started_at().is_some();
        Self { chunks, watched: Watched::of(&run), started: Some(run), from_start }
    }
}

/// A stream of the chunks of a run; see [`RunHandle::chunks`].
///
/// The stream ends after an error, and when the run has ended. `O` is the type of the run's output.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// use hatchet::model::ChunkItem;
///
/// let mut chunks = run.chunks();
/// while let Some(item) = chunks.next().await.transpose()? {
///     match item {
///         ChunkItem::Chunk(chunk) => print!("{chunk}"),
///         ChunkItem::Gap(gap) => eprintln!("{gap}"), // chunks 3 to 5 are missing
///         ChunkItem::Interrupted => eprintln!("chunks may be missing"),
///         _ => {}
///     }
/// }
/// println!("{:?}", chunks.status()); // Some(Completed)
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is started or fetched before the stream is polled"]
pub struct RunChunks<O = serde_json::Value> {
    /// `None` when the run has been started, before the first item.
    items: BoxStream<Result<Option<ChunkItem>>>,
    shared: Arc<Shared>,
    output: PhantomData<fn() -> O>,
}

impl<O> RunChunks<O> {
    fn new<F>(open: impl FnOnce(bool) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<Opened>> + Send,
    {
        let shared = Arc::new(Shared::default());
        let of_reader = Arc::clone(&shared);
        let start = async move {
            runtime::require("a stream of chunks", Needs::Timers)?;
            let with_children = of_reader.with_children.load(Relaxed);
            let opened = open(with_children).await?;
            if let Some(started) = &opened.started {
                *lock(&of_reader.run) = Some(started.clone());
            }
            let Opened { chunks, watched, from_start, .. } = opened;
            let options = Options { from_start, with_children };
            Ok((Reader::new(chunks, watched, options, of_reader), false))
        };
        let items = BoxStream::opened(start, |(mut reader, is_read): (Reader, bool)| async move {
            let item = if is_read { reader.next().await?.map(Some) } else { Ok(None) };
            let reader = item.is_ok().then_some((reader, true));
            Some((item, reader))
        });
        Self { items, shared, output: PhantomData }
    }

    /// The same stream, for those whose items do not depend on the output.
    pub(super) fn untyped(self) -> RunChunks {
        RunChunks { items: self.items, shared: self.shared, output: PhantomData }
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Also yields the chunks of all descendants of the run, until the run itself has ended.
    ///
    /// Chunks of different runs are yielded in the order of their arrival. Calling this method after the first poll has no effect.
    ///
    /// The parent of each run that sends chunks is looked up with one REST request, which all such streams of a client share. Until the
    /// ancestors of a run are known, its chunks wait in each of these streams. If the stream starts the run, it gives the run a tag that
    /// its children inherit. If the run was started before, the stream subscribes by the first of the run's own tags, which its children
    /// inherit, too. If the run has no tags of its own, the children must be started through the same [`Client`](crate::Client) as the run.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, report: hatchet::Task<(), String>) -> hatchet::Result<()> {
    /// let mut chunks = hatchet.run(&report, &()).chunks().with_children();
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_children(self) -> Self {
        self.shared.with_children.store(true, Relaxed);
        self
    }

    /// Waits until the run has been started, and returns a handle to it, for example to watch its status changes, too.
    ///
    /// If this stream starts the run and has not been polled yet, this method starts the run. Chunks that arrive from then on wait in the
    /// stream. If the run was started before, this method returns immediately.
    ///
    /// # Errors
    /// The error of [`start`](RunBuilder::start) if the run cannot be started; the stream then ends without yielding the error.
    /// [`Closed`](crate::ErrorKind::Closed) if the stream has already yielded that error.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no item is lost, and the method can be called again.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, chat: hatchet::Task<(), String>) -> hatchet::Result<()> {
    /// let mut chunks = hatchet.run(&chat, &()).chunks();
    /// let run = chunks.started().await?;
    /// let mut changes = run.watch();
    /// loop {
    ///     tokio::select! {
    ///         Some(item) = chunks.next() => println!("{:?}", item?),
    ///         Some(change) = changes.next() => println!("{}", change?), // QUEUED (attempt 1), ..
    ///         else => break, // both have ended
    ///     }
    /// }
    /// println!("{}", run.result().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn started(&mut self) -> Result<RunHandle<O>> {
        if self.run_id().is_none() {
            // It comes before the chunks.
            self.items.next().await.transpose()?;
        }
        let run = lock(&self.shared.run).clone();
        run.map(RunHandle::typed).ok_or_else(|| Error::closed("the stream of chunks"))
    }

    /// Returns the id of the run, or `None` if this stream starts the run and has not started it yet; see [`started`](Self::started).
    pub fn run_id(&self) -> Option<RunId> {
        lock(&self.shared.run).as_ref().map(RunHandle::id)
    }

    /// Returns the last observed status of the run, or `None` before the first observation.
    ///
    /// After the end of the stream, this is the final status, unless the stream has ended with an error.
    pub fn status(&self) -> Option<RunStatus> {
        lock(&self.shared.status).clone()
    }

    /// Returns the number of chunks that were dropped because the stream was read too slowly.
    ///
    /// At most 8192 chunks or 16 MiB wait to be read. As many more can wait for missing earlier chunks, and, with
    /// [`with_children`](Self::with_children), for the lookup of the parent of their run. The stream also reports dropped chunks: as a
    /// [gap](ChunkItem::Gap) if they are numbered and later chunks of the attempt arrive, and as [`Interrupted`](ChunkItem::Interrupted)
    /// otherwise.
    pub fn dropped_chunks(&self) -> u64 {
        self.shared.dropped.load(Relaxed)
    }

    /// Returns the number of chunks that were ignored because they had been yielded before, or arrived after they had been reported as a
    /// gap.
    pub fn outdated_chunks(&self) -> u64 {
        self.shared.outdated.load(Relaxed)
    }

    /// Returns the next item, or `None` after the end of the run.
    ///
    /// # Errors
    /// The errors of [`start`](RunBuilder::start) if the stream starts its run, the error with which the server rejects the subscription,
    /// and the errors of fetches that end a [watch](super::RunWatch) of the run. An error is the last item.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no item is lost.
    pub async fn next(&mut self) -> Option<Result<ChunkItem>> {
        futures_util::StreamExt::next(self).await
    }
}

impl<O> Stream for RunChunks<O> {
    type Item = Result<ChunkItem>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.items.poll_next_unpin(cx)) {
                Some(Ok(None)) => {}
                item => return Poll::Ready(item.and_then(Result::transpose)),
            }
        }
    }
}

impl<O> fmt::Debug for RunChunks<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunChunks")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::embedded::Engine;
    use crate::run::Parent;
    use crate::workflow::Task;

    const SECOND: Duration = Duration::from_secs(1);

    /// The parent runs again, on the worker of another client.
    #[tokio::test(start_paused = true)]
    async fn a_child_that_another_client_has_started_is_followed_by_its_own_tag() {
        let engine = Engine::start().await.unwrap();
        let first = engine.client();
        let second = engine.client_with(crate::config::Config::builder()).unwrap();
        assert_ne!(first.feed().tag(), second.feed().tag());
        let parent = Task::new("parent", async |(): (), _: crate::Context| {
            sleep(60 * SECOND).await;
            Ok(())
        });
        let child = Task::new("child", async |(): (), context: crate::Context| {
            for text in ["a", "b", "c"] {
                context.put(text).await?;
                sleep(SECOND).await;
            }
            Ok(())
        });
        let worker = first.worker("worker").register(&parent).register(&child).build().unwrap().start().await.unwrap();
        let of = first.run(&parent, &()).start().await.unwrap().id();
        for with_children in [false, true] {
            let next: Arc<std::sync::atomic::AtomicI32> = Arc::default();
            next.store(i32::from(with_children), Relaxed);
            // Each attempt counts its children from the start.
            let attempt = |again| Parent { run: of, task: of.into(), next: Arc::new(next.load(Relaxed).into()), again };
            let started = Instant::now();
            let tag = first.feed().family_tag();
            let run = first.run(&child, &()).child_of(attempt(false)).own_metadata(&tag.0, tag.1.clone().into());
            let run = run.start().await.unwrap();
            sleep(SECOND / 2).await;
            let chunks = second.run(&child, &()).child_of(attempt(true)).chunks();
            let mut chunks = if with_children { chunks.with_children() } else { chunks };
            assert_eq!(chunks.started().await.unwrap().id(), run.id());
            let mut items = Vec::new();
            while let Some(item) = chunks.next().await.transpose().unwrap() {
                items.push(match item {
                    ChunkItem::Chunk(chunk) => chunk.to_string(),
                    other => format!("{other:?}"),
                });
            }
            assert_eq!(items.len(), 3, "{items:?}");
            assert!(items[0].starts_with("Gap") && items[1..] == ["b", "c"], "{items:?}");
            assert!(started.elapsed() < 5 * SECOND, "{:?}", started.elapsed());
        }
        worker.shutdown().await;
    }
}
