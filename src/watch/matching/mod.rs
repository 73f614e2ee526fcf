//! The status changes of all runs with a tag.

mod driver;
mod past;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use chrono::{DateTime, Utc};
use futures_core::Stream;

use super::changes::Filter;
use crate::boxed::BoxStream;
use crate::client::Client;
use crate::error::Result;
use crate::feed::Tag;
use crate::model::{Change, ChangeKind};
use crate::runtime::{self, Needs};
use driver::Matching;

/// The default of [`TagWatch::max_runs`]: as many as can end within ten minutes at the default rate of requests, and some more.
const MAX_RUNS: usize = 50_000;

impl Client {
    /// Watches the status changes of all runs with a tag, including runs that other clients start.
    ///
    /// The stream covers runs that have not ended, and runs that are created from now on or [since a time](TagWatch::since). The changes of
    /// each run are in order, as in [`RunHandle::watch`](crate::RunHandle::watch).
    ///
    /// The client subscribes to the run events of the tag before it lists the runs, and lists them again whenever run events may have been
    /// lost. The engine does not confirm a subscription, so the runs are listed up to three times for each one: within a second, when the
    /// subscription has usually begun; after its first message; and ten seconds later, because lists can lag. A run that no run event has
    /// announced is found in one of these lists.
    ///
    /// A run is followed to its end; with [`follow_replays`](TagWatch::follow_replays), also after its end. Following a short run takes three
    /// requests. If more runs are started than [`watch_request_rate`](crate::config::ConfigBuilder::watch_request_rate) allows, changes are
    /// late, and [`followed_runs`](TagWatch::followed_runs) grows, up to [`max_runs`](TagWatch::max_runs).
    ///
    /// If the client has a [namespace](crate::config::ConfigBuilder::namespace), only runs of workflows in that namespace are returned. Run
    /// events do not contain the workflow, so each run that a run event announces is looked up first, with one request.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
    /// let mut changes = hatchet.watch_matching("tenant", "acme");
    /// while let Some(change) = changes.next().await.transpose()? {
    ///     println!("{} {change}", change.run_id());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch_matching(&self, key: impl Into<String>, value: impl Into<String>) -> TagWatch {
        let counts: Arc<Counts> = Arc::default();
        let pending = Pending {
            client: self.clone(),
            tag: (key.into(), value.into()),
            since: None,
            follows_replays: false,
            max_runs: MAX_RUNS,
            counts: Arc::clone(&counts),
        };
        TagWatch { pending: Some(pending), changes: None, counts, filter: Filter::default() }
    }
}

/// A stream of the [`Change`]s of all runs with a tag; see [`Client::watch_matching`].
///
/// It never ends by itself, and continues after an outage of the server. An error of a single run
/// ([`Error::run_id`](crate::Error::run_id) returns its id) does not end it. It ends after the error of a list of runs: immediately if a retry
/// cannot succeed or the REST API has never been reached, and after more than a minute if the server responds with errors.
///
/// The times of runs are compared with the clock of the engine, which the REST API sends with each response (the `Date` header). Without it,
/// or if the difference is at most five seconds, the clock of the client is used. So for runs that end within five seconds of the start of the
/// watch, one that ended before it may be returned, and one that no event announced may be missed.
///
/// A replay that begins and ends while the subscription is lost is not returned: lists show runs by the time of their creation.
///
/// A run that has ended is remembered for ten minutes. If it is replayed meanwhile, the changes of the replay are returned only with
/// [`follow_replays`](Self::follow_replays).
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// use hatchet::model::ChangeKind;
///
/// let morning = "2026-11-26T06:00:00Z".parse().expect("a time");
/// let mut changes = hatchet.watch_matching("tenant", "acme").since(morning).only(ChangeKind::Run);
/// while let Some(change) = changes.next().await.transpose()? {
///     println!("{} {change}", change.run_id());
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is fetched before the stream is polled"]
pub struct TagWatch {
    pending: Option<Pending>,
    changes: Option<BoxStream<Result<Change>>>,
    counts: Arc<Counts>,
    filter: Filter,
}

/// What a stream counts.
#[derive(Debug, Default)]
struct Counts {
    ignored: Arc<AtomicU64>,
    followed: AtomicUsize,
}

/// A watch that has not started.
struct Pending {
    client: Client,
    tag: Tag,
    since: Option<DateTime<Utc>>,
    follows_replays: bool,
    max_runs: usize,
    counts: Arc<Counts>,
}

impl TagWatch {
    /// Also watches the runs that were created at or after `time` and have ended. Runs that were created before `time` are included if they
    /// have not ended when the runs are listed.
    ///
    /// The runs of the list come first: a run that starts meanwhile is returned after a change of each of them, unless none
    /// of them could be fetched for 30 seconds. None is missed in between.
    /// Otherwise, the changes of different runs are in no particular order. The list is read as fast as its runs can be fetched: up to 1000
    /// of those that have ended wait for that. Calling this method after the first poll has no effect.
    pub fn since(mut self, time: DateTime<Utc>) -> Self {
        if let Some(pending) = &mut self.pending {
            pending.since = Some(time);
        }
        self
    }

    /// Also returns the changes of replays that begin within ten minutes after the end of a run. Meanwhile each of these runs needs as much
    /// memory as one that has not ended, and counts towards [`max_runs`](Self::max_runs). Calling this method after the first poll has no effect.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
    /// let mut changes = hatchet.watch_matching("tenant", "acme").follow_replays();
    /// while let Some(change) = changes.next().await.transpose()? {
    ///     println!("{change}"); // .., COMPLETED (attempt 1), and after a replay QUEUED (attempt 2), ..
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn follow_replays(mut self) -> Self {
        if let Some(pending) = &mut self.pending {
            pending.follows_replays = true;
        }
        self
    }

    /// Sets the maximum number of runs that have not ended and are followed at the same time, 50,000 by default. Each
    /// run needs about 4.4 KB of memory.
    ///
    /// A run beyond the maximum is not followed: the stream yields an error of the kind [`TooLarge`](crate::ErrorKind::TooLarge) with its
    /// [id](crate::Error::run_id), ignores the run for ten minutes, and continues with the others. Calling this method after the first poll
    /// has no effect.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
    /// use hatchet::ErrorKind;
    ///
    /// let mut changes = hatchet.watch_matching("tenant", "acme").max_runs(1000);
    /// while let Some(change) = changes.next().await {
    ///     match change {
    ///         Ok(change) => println!("{} {change}", change.run_id()),
    ///         Err(error) if error.kind() == ErrorKind::TooLarge => println!("not followed: {:?}", error.run_id()),
    ///         Err(error) => return Err(error),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_runs(mut self, max: usize) -> Self {
        if let Some(pending) = &mut self.pending {
            pending.max_runs = max;
        }
        self
    }

    /// Limits the stream to changes of this kind, or of several kinds if this method is called several times. This filter does not remove
    /// gaps or errors.
    pub fn only(mut self, kind: ChangeKind) -> Self {
        self.filter.kinds.push(kind);
        self
    }

    /// Limits the stream to the changes and gaps of tasks with this name; see [`RunWatch::task`](crate::stream::RunWatch::task).
    pub fn task(mut self, name: impl Into<String>) -> Self {
        self.filter.tasks.push(name.into());
        self
    }

    /// Returns the number of updates that were ignored, for all runs together; see
    /// [`RunWatch::ignored_updates`](crate::stream::RunWatch::ignored_updates).
    pub fn ignored_updates(&self) -> u64 {
        self.counts.ignored.load(Relaxed)
    }

    /// Returns the number of runs that are followed now: those that have not ended, and those that have and whose changes were not returned
    /// yet. If it grows although the runs end, more of them are started than
    /// [`watch_request_rate`](crate::config::ConfigBuilder::watch_request_rate) allows, or the stream is not polled fast enough.
    pub fn followed_runs(&self) -> usize {
        self.counts.followed.load(Relaxed)
    }

    /// Returns the next change, or `None` after an error that has ended the stream.
    ///
    /// # Errors
    /// The error of one run, with its [id](crate::Error::run_id), after which the stream continues; and the error of a list of runs, which is
    /// the last item. [`TooLarge`](crate::ErrorKind::TooLarge) for a run beyond [`max_runs`](Self::max_runs).
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no item is lost.
    pub async fn next(&mut self) -> Option<Result<Change>> {
        futures_util::StreamExt::next(self).await
    }
}

impl Stream for TagWatch {
    type Item = Result<Change>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(pending) = self.pending.take() {
            self.changes = Some(pending.start());
        }
        let Self { changes: Some(changes), filter, .. } = &mut *self else { return Poll::Ready(None) };
        filter.poll_next(changes, cx)
    }
}

impl fmt::Debug for TagWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TagWatch")
    }
}

impl Pending {
    fn start(self) -> BoxStream<Result<Change>> {
        let start = async move {
            runtime::require("a watch", Needs::Timers)?;
            Ok(Matching::new(self))
        };
        BoxStream::opened(start, |mut matching: Matching| async move {
            match matching.next().await {
                // The error of a list. That of a single run names the run.
                Err(error) if error.run_id().is_none() => Some((Err(error), None)),
                item => Some((item, Some(matching))),
            }
        })
    }
}
