//! The status changes of several runs in one stream.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::stream::select_all;

use super::changes::{Filter, RunWatch};
use super::follower::{Shared, Watched};
use crate::boxed::BoxStream;
use crate::client::Client;
use crate::error::Result;
use crate::feed::Turns;
use crate::model::{Change, ChangeKind, RunId};
use crate::run::RunHandle;

impl Client {
    /// Returns one stream of the status changes of several runs.
    ///
    /// The changes of each run are in order, as in [`RunHandle::watch`]. A run that is passed several times is watched once. The stream ends
    /// when all runs have ended, unless [`follow_replays`](RunsWatch::follow_replays) is called.
    ///
    /// If a run cannot be watched, the stream yields the error, and continues with the other runs; [`Error::run_id`](crate::Error::run_id)
    /// returns its id.
    ///
    /// The runs share their requests: one list shows which runs have started, with one request for each 1000 tasks that have not ended, and
    /// each run is fetched when it has ended. Runs that were not started by this crate are first checked individually. After a few seconds,
    /// those of the same workflow share one list, which is fetched every 2 seconds. At most 16 runs of a stream are fetched or checked at
    /// the same time, so that other watches of the client are not delayed.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, square: hatchet::workflow::WorkflowRef<serde_json::Value, u64>) -> hatchet::Result<()> {
    /// let inputs = (0..1000).map(|n| serde_json::json!({ "n": n }));
    /// let runs = hatchet.run_many(&square, inputs).start().await?.into_iter().collect::<Result<Vec<_>, _>>()?;
    /// let mut changes = hatchet.watch_many(&runs);
    /// while let Some(change) = changes.next().await.transpose()? {
    ///     println!("{} {change}", change.run_id());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch_many<O, I>(&self, runs: I) -> RunsWatch
    where
        I: IntoIterator,
        I::Item: Borrow<RunHandle<O>>,
    {
        let (shared, turns) = (Shared::default(), Turns::new());
        let (mut distinct, mut known): (Vec<Watched>, HashMap<RunId, usize>) = Default::default();
        for run in runs {
            let watched = Watched { turns: Some(turns.clone()), ..Watched::of(run.borrow()) };
            let at = *known.entry(watched.run).or_insert(distinct.len());
            match distinct.get_mut(at) {
                // Of several handles, the one after the last replay.
                Some(known) => known.from_attempt = known.from_attempt.max(watched.from_attempt),
                None => distinct.push(watched),
            }
        }
        let watches = distinct.into_iter().map(|watched| RunWatch::sharing(watched, shared.clone()));
        RunsWatch { changes: BoxStream::new(select_all(watches)), shared, filter: Filter::default() }
    }
}

/// A stream of the [`Change`]s of several runs; see [`Client::watch_many`].
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, runs: Vec<hatchet::RunHandle<()>>) -> hatchet::Result<()> {
/// let mut changes = hatchet.watch_many(&runs);
/// let mut ended = 0;
/// while let Some(change) = changes.next().await.transpose()? {
///     ended += u32::from(change.is_final());
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is fetched before the stream is polled"]
pub struct RunsWatch {
    changes: BoxStream<Result<Change>>,
    shared: Shared,
    filter: Filter,
}

impl RunsWatch {
    /// Limits the stream to changes of this kind, or of several kinds if this method is called several times. This filter does not remove
    /// gaps or errors.
    pub fn only(mut self, kind: ChangeKind) -> Self {
        self.filter.kinds.push(kind);
        self
    }

    /// Limits the stream to the changes and gaps of tasks with this name; see [`RunWatch::task`].
    pub fn task(mut self, name: impl Into<String>) -> Self {
        self.filter.tasks.push(name.into());
        self
    }

    /// Continues after the end of each run, and also yields the changes of its replays; see [`RunWatch::follow_replays`].
    ///
    /// Such a stream ends only after every run has yielded an error. Calling this method after the first poll has no effect.
    pub fn follow_replays(self) -> Self {
        self.shared.follows_replays.store(true, Relaxed);
        self
    }

    /// Returns the number of updates that were ignored, for all runs together; see [`RunWatch::ignored_updates`].
    pub fn ignored_updates(&self) -> u64 {
        self.shared.ignored.load(Relaxed)
    }

    /// Returns the next change, or `None` when all runs have ended.
    ///
    /// # Errors
    /// The errors of [`RunWatch::next`]. Each error belongs to one run, whose id is [`Error::run_id`](crate::Error::run_id). The stream
    /// continues with the other runs.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no change is lost.
    pub async fn next(&mut self) -> Option<Result<Change>> {
        futures_util::StreamExt::next(self).await
    }
}

impl Stream for RunsWatch {
    type Item = Result<Change>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { changes, filter, .. } = &mut *self;
        filter.poll_next(changes, cx)
    }
}

impl fmt::Debug for RunsWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunsWatch")
    }
}
