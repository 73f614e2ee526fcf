//! The status changes of all runs with a tag.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_core::Stream;
use futures_util::StreamExt as _;
use futures_util::stream::{FuturesUnordered, SelectAll, unfold};
use tokio::time::Instant;

use super::changes::{Filter, RunWatch};
use super::follower::Watched;
use super::lookup::{Lookup, lookup};
use super::outage::Outage;
use crate::boxed::BoxStream;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::feed::{GroupSubscription, Tag, Turns};
use crate::list::RunItems;
use crate::model::{Change, ChangeKind, RunFilter, RunId, RunStatus, RunSummary, Window};
use crate::runtime::{self, Needs};
use crate::sync::or_pending;
use crate::time::at;

/// How far back runs are listed after a gap: the clocks may differ, and REST lists a run a moment late.
const LIST_MARGIN: TimeDelta = TimeDelta::minutes(1);
/// The minimum interval between two lists. The engine ends a subscription whenever all of its runs have completed.
const MIN_LIST_INTERVAL: Duration = Duration::from_secs(1);
/// How long a run that has ended is remembered, so that late events do not return it again.
const ENDED_RUN_TTL: Duration = Duration::from_secs(600);
/// Changes that are older than this when an event announces the run are from before its replay.
const ANNOUNCED_MARGIN: TimeDelta = TimeDelta::minutes(5);
/// The number of runs of other namespaces that are remembered.
const MAX_FOREIGN: usize = 10_000;

impl Client {
    /// Watches the status changes of all runs with a tag, including runs that other clients start. It covers runs that have not ended, and
    /// runs that are created from now on or [since a time](TagWatch::since). The changes of each run are in order, as in
    /// [`RunHandle::watch`](crate::RunHandle::watch).
    ///
    /// The client subscribes to the events of the tag before it lists the runs, and lists them again whenever events may have been lost.
    ///
    /// A run is followed to its end; [`follow_replays`](TagWatch::follow_replays) continues after it.
    ///
    /// If the client has a [namespace](crate::config::ConfigBuilder::namespace), only runs of workflows in that namespace are returned. Events
    /// do not contain the workflow, so each run that an event announces is looked up first, with one request.
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
        let ignored: Arc<AtomicU64> = Arc::default();
        let pending = Pending {
            client: self.clone(),
            tag: (key.into(), value.into()),
            since: None,
            follows_replays: false,
            ignored: Arc::clone(&ignored),
        };
        TagWatch { pending: Some(pending), changes: None, ignored, filter: Filter::default() }
    }
}

/// A stream of the [`Change`]s of all runs with a tag; see [`Client::watch_matching`].
///
/// It never ends by itself, and continues after an outage of the server. An error of a single run
/// ([`Error::run_id`](crate::Error::run_id) returns its id) does not end it. It ends after the error of a list of runs: immediately if a retry
/// cannot succeed or the REST API has never been reached, and after a minute if the server responds with errors.
///
/// A run that has ended is remembered for ten minutes. If it is replayed later, the changes of the replay are returned only with
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
    ignored: Arc<AtomicU64>,
    filter: Filter,
}

/// A watch that has not started.
struct Pending {
    client: Client,
    tag: Tag,
    since: Option<DateTime<Utc>>,
    follows_replays: bool,
    ignored: Arc<AtomicU64>,
}

impl TagWatch {
    /// Also watches the runs that were created at or after `time` and have ended. The changes of different runs are in no order: those of runs
    /// that are started meanwhile can be returned before those of runs that are listed. Each run needs three requests. Runs that were created
    /// before `time` are included if they have not ended when the list is read. Calling this method after the first poll has no effect.
    pub fn since(mut self, time: DateTime<Utc>) -> Self {
        if let Some(pending) = &mut self.pending {
            pending.since = Some(time);
        }
        self
    }

    /// Also returns the changes of replays that begin within ten minutes after the end of a run. Meanwhile each of these runs needs as much
    /// memory as one that has not ended. Calling this method after the first poll has no effect.
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

    /// Limits the stream to changes of this kind, or of several kinds if it is called several times. Errors are always yielded.
    pub fn only(mut self, kind: ChangeKind) -> Self {
        self.filter.kinds.push(kind);
        self
    }

    /// Limits the stream to the changes and gaps of tasks with this name; see [`RunWatch::task`].
    pub fn task(mut self, name: impl Into<String>) -> Self {
        self.filter.tasks.push(name.into());
        self
    }

    /// Returns the number of updates that were ignored, for all runs together; see [`RunWatch::ignored_updates`].
    pub fn ignored_updates(&self) -> u64 {
        self.ignored.load(Relaxed)
    }

    /// Returns the next change. `None` only after an error that has ended the stream.
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

/// The time of the event that has announced a run.
type Announced = Option<DateTime<Utc>>;

struct Matching {
    client: Client,
    tag: Tag,
    started_at: DateTime<Utc>,
    group: GroupSubscription,
    follows_replays: bool,
    ignored: Arc<AtomicU64>,
    /// The runs that are watched, and those that have ended not long ago, with the time of the end.
    known: HashMap<RunId, Option<Instant>>,
    ended: VecDeque<(Instant, RunId)>,
    /// The time before which the changes of a run are not returned. It is removed with the first change after it.
    since: HashMap<RunId, DateTime<Utc>>,
    watches: SelectAll<BoxStream<Result<Change>>>,
    turns: Turns,
    /// With a namespace: which runs are in it, for those that were announced by an event, and the time of that. The others are remembered.
    lookups: FuturesUnordered<Lookup<Option<Announced>>>,
    foreign: HashSet<RunId>,
    /// The lists that must be read, and the one that is being read.
    lists: VecDeque<RunFilter>,
    list: Option<(RunFilter, RunItems)>,
    /// The lists that have failed one after the other, and when the next one may be read.
    outage: Outage,
    retry_at: Option<Instant>,
    /// The time since which runs may have been missed, and when they may be listed.
    synced_at: DateTime<Utc>,
    list_at: Option<Instant>,
    last_list: Instant,
}

impl Matching {
    fn new(Pending { client, tag, since, follows_replays, ignored }: Pending) -> Self {
        // The subscription starts before the list, so nothing falls between the two.
        let group = client.feed().events.join(&tag).subscribe_all();
        let now = client.clock().now();
        let of = |window: Window| RunFilter::new(window).metadata(tag.0.clone(), tag.1.clone());
        let margin = now.checked_sub_signed(LIST_MARGIN).unwrap_or(now);
        // The recent ones first: those that have ended before the time are not returned.
        let recent = of(Window::since(since.unwrap_or(margin)));
        let unfinished = of(Window::all()).status(RunStatus::Queued).status(RunStatus::Running);
        Self {
            client,
            tag,
            started_at: since.unwrap_or(now),
            group,
            follows_replays,
            ignored,
            known: HashMap::new(),
            ended: VecDeque::new(),
            since: HashMap::new(),
            watches: SelectAll::new(),
            turns: Turns::new(),
            lookups: FuturesUnordered::new(),
            foreign: HashSet::new(),
            lists: VecDeque::from([recent, unfinished]),
            list: None,
            outage: Outage::default(),
            retry_at: None,
            synced_at: now,
            list_at: None,
            last_list: Instant::now(),
        }
    }

    async fn next(&mut self) -> Result<Change> {
        loop {
            if self.list.is_none()
                && self.retry_at.is_none()
                && let Some(filter) = self.lists.pop_front()
            {
                let gate = self.client.feed().fetcher.gate();
                self.list = Some((filter.clone(), self.client.runs(filter).through(gate).items()));
            }
            let list_at =
                self.list_at.filter(|_| self.list.is_none() && self.retry_at.is_none() && self.lists.is_empty());
            tokio::select! {
                biased;
                Some(item) = self.watches.next(), if !self.watches.is_empty() => {
                    let is_returned = item.as_ref().map_or(true, |change| self.is_returned(change));
                    match &item {
                        Ok(change) if change.is_final() => self.has_ended(change.run_id()),
                        // A replay has begun.
                        Ok(change) => drop(self.known.insert(change.run_id(), None)),
                        Err(error) => error.run_id().into_iter().for_each(|run| self.has_ended(run)),
                    }
                    self.forget();
                    if is_returned {
                        return item;
                    }
                }
                arrived = self.group.next() => {
                    if arrived.has_gap && self.list_at.is_none() {
                        self.list_at = Some(self.last_list + MIN_LIST_INTERVAL);
                    }
                    arrived.runs.into_iter().for_each(|(run, at)| self.announced(run, at));
                }
                Some((run, announced)) = self.lookups.next(), if !self.lookups.is_empty() => {
                    if !matches!(announced, Ok(Some(None))) {
                        self.foreign.remove(&run);
                    }
                    if let Some(Some(at)) = announced? {
                        self.watch_announced(run, at);
                    }
                }
                row = or_pending(self.list.as_mut().map(|(_, list)| list.next())) => match row {
                    Some(Ok(row)) => {
                        self.outage.end();
                        self.listed(&row);
                    }
                    Some(Err(error)) => self.list_failed(error)?,
                    None => {
                        self.list = None;
                        self.outage.end();
                    }
                },
                () = at(self.retry_at) => self.retry_at = None,
                () = at(list_at) => self.list_again(),
            }
        }
    }

    /// Reads the list again after a while, from its start: runs that are watched already are skipped.
    fn list_failed(&mut self, error: Error) -> Result<()> {
        self.retry_at = Some(Instant::now() + self.outage.retry_after(&self.client, error)?);
        self.lists.extend(self.list.take().map(|(filter, _)| filter));
        Ok(())
    }

    /// Lists the runs that were created since the last list.
    fn list_again(&mut self) {
        self.list_at = None;
        self.last_list = Instant::now();
        let since = self.synced_at.checked_sub_signed(LIST_MARGIN).unwrap_or(self.synced_at);
        self.synced_at = self.client.clock().now();
        self.lists.push_back(RunFilter::new(Window::since(since)).metadata(self.tag.0.clone(), self.tag.1.clone()));
    }

    fn listed(&mut self, row: &RunSummary) {
        if !row.status.is_final() || row.created_at >= self.started_at {
            self.watch(row.id, Some(row.created_at), None);
        } else if !self.follows_replays && !self.known.contains_key(&row.id) {
            self.has_ended(row.id);
        }
    }

    /// An event has announced a run.
    fn announced(&mut self, run: RunId, at: Announced) {
        if self.client.namespace().is_none() || self.known.contains_key(&run) {
            return self.watch_announced(run, at);
        }
        if self.foreign.len() >= MAX_FOREIGN {
            self.foreign.clear();
        }
        // While it is looked up, it counts as foreign.
        if self.foreign.insert(run) {
            let client = self.client.clone();
            self.lookups.push(lookup(&self.client, run, &self.turns, move |found| {
                found.workflow_config.as_ref().is_some_and(|config| client.is_own(&config.name)).then_some(at)
            }));
        }
    }

    /// Watches a run that has changed just now. It is new, or it had ended long ago and is replayed: its changes from before that are not
    /// returned, or were returned.
    fn watch_announced(&mut self, run: RunId, at: Announced) {
        // A run that a list is still to show may have changed during an outage.
        let is_complete = self.lists.is_empty() && self.list.is_none() && self.list_at.is_none();
        // The times of the changes are of the engine's clock, too: that of the client may be wrong.
        let since = at.and_then(|at| at.checked_sub_signed(ANNOUNCED_MARGIN));
        self.watch(run, None, since.filter(|_| is_complete && self.retry_at.is_none()));
    }

    /// `since`: earlier changes are not returned.
    fn watch(&mut self, run: RunId, created_at: Option<DateTime<Utc>>, since: Option<DateTime<Utc>>) {
        if self.known.contains_key(&run) {
            return;
        }
        self.known.insert(run, None);
        let watched = Watched {
            client: self.client.clone(),
            run,
            from_attempt: 1,
            started_at: None,
            is_dag: false,
            created_at,
            membership: Some(self.group.membership().clone()),
            turns: Some(self.turns.clone()),
        };
        let watch = RunWatch::counted(watched, Arc::clone(&self.ignored));
        since.map(|since| self.since.insert(run, since));
        self.watches.push(if self.follows_replays {
            BoxStream::new(with_replays(watch.follow_replays()))
        } else {
            BoxStream::new(watch)
        });
    }

    /// Whether a change is returned: it is the first one that is late enough, or one after that.
    fn is_returned(&mut self, change: &Change) -> bool {
        let run = change.run_id();
        let Some(since) = self.since.get(&run) else { return true };
        let is_late = change.changed_at().is_none_or(|at| at >= *since);
        if is_late {
            self.since.remove(&run);
        }
        is_late
    }

    fn has_ended(&mut self, run: RunId) {
        let now = Instant::now();
        // With replays, the watch continues.
        if !self.follows_replays {
            self.since.remove(&run);
        }
        self.known.insert(run, Some(now));
        self.ended.push_back((now, run));
    }

    fn forget(&mut self) {
        while let Some((at, run)) = self.ended.front()
            && at.elapsed() > ENDED_RUN_TTL
        {
            // It may have been replayed since.
            if self.known.get(run) == Some(&Some(*at)) {
                self.known.remove(run);
                self.since.remove(run);
            }
            self.ended.pop_front();
        }
    }
}

/// The changes of a run, until no replay has begun for some time after its end.
fn with_replays(watch: RunWatch) -> impl Stream<Item = Result<Change>> {
    unfold((watch, None), |(mut watch, ended_at)| async move {
        let over = ended_at.map(|ended_at: Instant| ended_at + ENDED_RUN_TTL);
        tokio::select! {
            biased;
            item = watch.next() => {
                let item = item?;
                let is_final = item.as_ref().is_ok_and(Change::is_final);
                Some((item, (watch, is_final.then(Instant::now))))
            }
            () = at(over) => None,
        }
    })
}
