//! Follows all runs with a tag: finds them by events and lists, and watches each.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_core::Stream;
use futures_util::StreamExt as _;
use futures_util::stream::{FuturesUnordered, SelectAll, unfold};
use tokio::time::Instant;

use super::past::{Announced, Past};
use super::{Counts, Pending};
use crate::boxed::BoxStream;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{GroupSubscription, Tag, Turns};
use crate::list::RunItems;
use crate::model::{Change, RunFilter, RunId, RunStatus, RunSummary, Window};
use crate::sync::or_pending;
use crate::time::at;
use crate::watch::changes::RunWatch;
use crate::watch::follower::{Shared, Watched, engine_time};
use crate::watch::lookup::{Lookup, lookup};
use crate::watch::outage::Outage;

/// How far back runs are listed after a gap: the clocks may differ, and REST lists a run a moment late.
const LIST_MARGIN: Duration = Duration::from_secs(60);
/// By how much the clock of the server may be ahead: a run that has ended here can have been created later there.
const CLOCK_MARGIN: Duration = Duration::from_secs(60);
/// How long after a gap runs are listed. By then, the next subscription has usually begun, so that one list is enough for both.
const GAP_DELAY: Duration = Duration::from_millis(500);
/// REST shows a run up to this much later than its event. So if the next list is not due soon, runs are listed once more after a gap.
const MAX_LIST_LAG: Duration = Duration::from_secs(10);
/// The minimum interval between two lists. The engine ends a subscription whenever all of its runs have completed.
const MIN_LIST_INTERVAL: Duration = Duration::from_secs(1);
/// How long a run that has ended is remembered, so that late events do not return it again. One that the next list can show is remembered
/// longer.
const ENDED_RUN_TTL: Duration = Duration::from_secs(600);
/// Changes that are older than this when an event announces the run are from before its replay.
const ANNOUNCED_MARGIN: TimeDelta = TimeDelta::minutes(5);
/// The number of runs that a list has shown as ended and that wait for their fetch. Then the list is not read any further.
const MAX_LISTED_ENDED: usize = 1000;
/// The number of runs of other namespaces that are remembered.
const MAX_FOREIGN: usize = 10_000;

pub(super) struct Matching {
    client: Client,
    tag: Tag,
    /// The time since which runs that have ended are returned, by the engine's clock. `None` if that is the start of the watch.
    from: Option<DateTime<Utc>>,
    /// When the watch started, by the client's clock.
    started_at: Instant,
    group: GroupSubscription,
    follows_replays: bool,
    max_runs: usize,
    counts: Arc<Counts>,
    /// The runs that are watched, and those that have ended not long ago, with the time of the end.
    known: HashMap<RunId, Option<Instant>>,
    ended: VecDeque<(Instant, RunId)>,
    /// The time before which the changes of a run are not returned. It is removed with the first change after it.
    since: HashMap<RunId, DateTime<Utc>>,
    watches: SelectAll<BoxStream<Result<Change>>>,
    /// The runs that are not followed because there are too many.
    rejected: VecDeque<RunId>,
    turns: Turns,
    /// With a namespace: which runs are in it, for those that were announced by an event, and the time of that. The others are remembered.
    lookups: FuturesUnordered<Lookup<Option<Announced>>>,
    foreign: HashSet<RunId>,
    /// The lists that must be read, and the one that is being read.
    lists: VecDeque<List>,
    list: Option<(List, RunItems)>,
    /// The runs that a list has shown as ended, and whose changes were not returned yet.
    listed_ended: HashSet<RunId>,
    /// With a time in the past: the runs since then, until a change of each was returned.
    past: Option<Past>,
    /// The lists that have failed one after the other, and when the next one may be read.
    outage: Outage,
    retry_at: Option<Instant>,
    /// The time since which runs may have been missed, and when they are listed if some may have been.
    synced_at: Instant,
    list_at: Option<Instant>,
    last_list: Instant,
    /// Whether the last list may not have shown the newest runs yet. Their events were not received, or lost. It is followed by another one.
    must_confirm: bool,
}

/// A list of runs.
struct List {
    filter: RunFilter,
    /// The earliest time at which one of its runs can have been created. `None` if that can be any time.
    since: Option<Instant>,
    /// Whether another one has shown the same time a moment before.
    is_confirmation: bool,
    /// Whether it is one of those that the watch begins with.
    is_first: bool,
}

impl Matching {
    pub(super) fn new(Pending { client, tag, since, follows_replays, max_runs, counts }: Pending) -> Self {
        // The subscription starts before the list, so nothing falls between the two.
        let group = client.feed().events.join(&tag).subscribe_all();
        let now = client.clock().now();
        let of = |window: Window| RunFilter::new(window).metadata(tag.0.clone(), tag.1.clone());
        let margin = before(now, LIST_MARGIN);
        // The recent ones first: those that have ended before the time are not returned.
        let recent = of(Window::since(since.unwrap_or(margin)));
        let unfinished = of(Window::all()).status(RunStatus::Queued).status(RunStatus::Running);
        let lists =
            [recent, unfinished].map(|filter| List { filter, since: None, is_confirmation: false, is_first: true });
        Self {
            client,
            tag,
            from: since,
            started_at: Instant::now(),
            group,
            follows_replays,
            max_runs,
            counts,
            known: HashMap::new(),
            ended: VecDeque::new(),
            since: HashMap::new(),
            watches: SelectAll::new(),
            rejected: VecDeque::new(),
            turns: Turns::new(),
            lookups: FuturesUnordered::new(),
            foreign: HashSet::new(),
            lists: VecDeque::from(lists),
            list: None,
            listed_ended: HashSet::new(),
            past: since.map(|_| Past::new()),
            outage: Outage::default(),
            retry_at: None,
            synced_at: Instant::now(),
            list_at: None,
            last_list: Instant::now(),
            must_confirm: true,
        }
    }

    pub(super) async fn next(&mut self) -> Result<Change> {
        loop {
            self.end_past();
            if let Some(run) = self.rejected.pop_front() {
                return Err(self.too_many(run));
            }
            self.counts.followed.store(self.watches.len() + self.lookups.len(), Relaxed);
            if self.list.is_none()
                && self.retry_at.is_none()
                && let Some(list) = self.lists.pop_front()
            {
                let gate = self.client.feed().fetcher.gate();
                let items = self.client.runs(list.filter.clone()).through(gate).items();
                self.list = Some((list, items));
            }
            let list_at = self.list_at.or_else(|| self.must_confirm.then(|| self.last_list + MAX_LIST_LAG));
            let may_list =
                self.list.is_none() && self.retry_at.is_none() && self.lists.is_empty() && self.past.is_none();
            let list_at = list_at.filter(|_| may_list);
            let past_over_at = self.past.as_ref().filter(|_| self.has_first_lists()).map(Past::over_at);
            let list = self.list.as_mut().filter(|_| self.listed_ended.len() < MAX_LISTED_ENDED);
            tokio::select! {
                biased;
                Some(item) = self.watches.next(), if !self.watches.is_empty() => {
                    // Its fetch is over.
                    let run = item.as_ref().map_or_else(Error::run_id, |change| Some(change.run_id()));
                    if let Some(run) = run {
                        self.listed_ended.remove(&run);
                        if let Some(past) = &mut self.past {
                            past.returned(run);
                        }
                    }
                    let is_returned = item.as_ref().map_or(true, |change| self.is_returned(change));
                    match &item {
                        Ok(change) if change.is_final() => self.has_ended(change.run_id()),
                        // A replay has begun.
                        Ok(change) => drop(self.known.insert(change.run_id(), None)),
                        Err(error) => error.run_id().into_iter().for_each(|run| self.has_ended(run)),
                    }
                    if is_returned {
                        return item;
                    }
                }
                arrived = self.group.next() => {
                    if arrived.has_gap {
                        self.list_soon();
                    } else if let Some(at) = arrived.last_at {
                        self.received_all_until(at);
                    }
                    arrived.runs.into_iter().for_each(|(run, at)| self.announced(run, at));
                }
                Some((run, announced)) = self.lookups.next(), if !self.lookups.is_empty() => {
                    if !matches!(announced, Ok(Some(None))) {
                        self.foreign.remove(&run);
                    }
                    match announced? {
                        Some(Some(at)) if !self.is_known(run) => self.follow_announced(run, at),
                        Some(_) => {}
                        // It is later in REST than usual. A list has it as soon as REST does.
                        None => self.list_soon(),
                    }
                }
                row = or_pending(list.map(|(_, list)| list.next())) => match row {
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
                () = at(past_over_at) => {}
                () = at(list_at) => self.list_again(),
            }
        }
    }

    /// Reads the list again after a while, from its start: runs that are watched already are skipped.
    fn list_failed(&mut self, error: Error) -> Result<()> {
        self.retry_at = Some(Instant::now() + self.outage.retry_after(&self.client, error)?);
        self.lists.extend(self.list.take().map(|(list, _)| list));
        Ok(())
    }

    /// Runs may have been missed.
    fn list_soon(&mut self) {
        self.list_at.get_or_insert((self.last_list + MIN_LIST_INTERVAL).max(Instant::now() + GAP_DELAY));
    }

    /// Lists the runs that may have been missed.
    fn list_again(&mut self) {
        // Without a gap since the last list, this one confirms it.
        self.must_confirm = self.list_at.take().is_some();
        self.last_list = Instant::now();
        let window = Window::since(before(engine_time(&self.client), self.synced_at.elapsed() + LIST_MARGIN));
        let filter = RunFilter::new(window).metadata(self.tag.0.clone(), self.tag.1.clone());
        let since = self.synced_at.checked_sub(LIST_MARGIN);
        self.lists.push_back(List { filter, since, is_confirmation: !self.must_confirm, is_first: false });
        self.synced_at = self.last_list;
    }

    /// Events have arrived, and none was lost between the last list and this time.
    fn received_all_until(&mut self, at: Instant) {
        // Otherwise, there is a list still to come.
        if self.list_at.is_none() && !self.must_confirm {
            self.synced_at = self.synced_at.max(at);
        }
    }

    fn listed(&mut self, row: &RunSummary) {
        if self.known.contains_key(&row.id) || self.is_delayed(row.id) {
            return;
        }
        // It has started since the watch did. Lists show the newest runs first.
        let began = before(engine_time(&self.client), self.started_at.elapsed());
        if row.created_at >= began
            && let Some(past) = &mut self.past
            && past.delay(row.id, None)
        {
            return;
        }
        if !row.status.is_final() {
            if self.has_space() {
                self.watch_listed(row);
            } else {
                self.reject(row.id);
            }
        } else if row.created_at >= self.from.unwrap_or(began) {
            self.listed_ended.insert(row.id);
            self.watch_listed(row);
        } else if !self.follows_replays {
            self.has_ended(row.id);
        }
    }

    fn watch_listed(&mut self, row: &RunSummary) {
        if let Some(past) = &mut self.past {
            past.listed(row.id);
        }
        self.watch(row.id, Some(row.created_at), None);
    }

    /// Whether events of a run are not needed: it is watched or will be, or has ended not long ago.
    fn is_known(&self, run: RunId) -> bool {
        self.is_delayed(run)
            || self.known.get(&run).is_some_and(|ended| ended.is_none_or(|at| at.elapsed() <= ENDED_RUN_TTL))
    }

    /// Whether a run is watched as soon as those of the past were returned.
    fn is_delayed(&self, run: RunId) -> bool {
        self.past.as_ref().is_some_and(|past| past.has_delayed(run))
    }

    /// Watches the runs that events have announced meanwhile, if those of the past were listed and returned.
    fn end_past(&mut self) {
        let is_listed = self.has_first_lists();
        let Some(past) = self.past.take_if(|past| is_listed && past.is_over()) else { return };
        for (run, at) in past.into_delayed() {
            if !self.has_space() {
                // Many of them have ended meanwhile. A list is read as fast as such runs can be fetched.
                return self.list_soon();
            }
            self.watch_announced(run, at);
        }
    }

    /// Whether the lists that the watch begins with were read.
    fn has_first_lists(&self) -> bool {
        !self.pending_lists().any(|list| list.is_first)
    }

    /// Whether one more run may be followed.
    fn has_space(&self) -> bool {
        self.watches.len() < self.max_runs.saturating_add(self.listed_ended.len())
    }

    /// Does not follow a run.
    fn reject(&mut self, run: RunId) {
        if let Some(past) = &mut self.past {
            past.rejected(run);
        }
        self.has_ended(run);
        self.rejected.push_back(run);
    }

    fn too_many(&self, run: RunId) -> Error {
        let max = self.max_runs;
        let text = format!(
            "the run is not followed: the watch already follows {max} runs, its maximum; set a higher one with max_runs"
        );
        Error::new(ErrorKind::TooLarge, text).of_run(run)
    }

    /// An event has announced a run.
    fn announced(&mut self, run: RunId, at: Announced) {
        if self.is_known(run) || self.foreign.contains(&run) {
            return;
        }
        if self.client.namespace().is_none() {
            return self.follow_announced(run, at);
        }
        // A list has the runs of the namespace.
        if self.lookups.len() >= self.max_runs {
            return self.list_soon();
        }
        if self.foreign.len() >= MAX_FOREIGN {
            self.foreign.clear();
        }
        // While it is looked up, it counts as foreign.
        self.foreign.insert(run);
        let client = self.client.clone();
        self.lookups.push(lookup(&self.client, run, &self.turns, move |found| {
            found.workflow_config.as_ref().is_some_and(|config| client.is_own(&config.name)).then_some(at)
        }));
    }

    /// Watches a run of the namespace, unless there are too many.
    fn follow_announced(&mut self, run: RunId, at: Announced) {
        if let Some(past) = &mut self.past {
            if !past.delay(run, at) {
                // The list that follows has it.
                self.list_soon();
            }
        } else if self.has_space() {
            self.watch_announced(run, at);
        } else {
            self.reject(run);
        }
    }

    /// Watches a run that has changed just now. It is new, or it had ended long ago and is replayed: its changes from before that are not
    /// returned, or were returned.
    fn watch_announced(&mut self, run: RunId, at: Announced) {
        // A run that a list is still to show may have changed during an outage.
        let is_complete = self.list_at.is_none() && self.pending_lists().all(|list| list.is_confirmation);
        // The times of the changes are of the engine's clock, too: that of the client may be wrong.
        let since = at.and_then(|at| at.checked_sub_signed(ANNOUNCED_MARGIN));
        self.watch(run, None, since.filter(|_| is_complete));
    }

    /// The lists that have not been read to their end.
    fn pending_lists(&self) -> impl Iterator<Item = &List> {
        self.list.iter().map(|(list, _)| list).chain(&self.lists)
    }

    /// `since`: earlier changes are not returned.
    fn watch(&mut self, run: RunId, created_at: Option<DateTime<Utc>>, since: Option<DateTime<Utc>>) {
        self.known.insert(run, None);
        let watched = Watched {
            client: self.client.clone(),
            run,
            from_attempt: 1,
            started_at: None,
            is_first: false,
            is_dag: false,
            created_at,
            membership: Some(self.group.membership().clone()),
            turns: Some(self.turns.clone()),
        };
        let shared = Shared { ignored: Arc::clone(&self.counts.ignored), ..Shared::default() };
        let watch = RunWatch::sharing(watched, shared);
        since.map(|since| self.since.insert(run, since));
        self.watches.push(if self.follows_replays {
            BoxStream::new(with_replays(watch.follow_replays()))
        } else {
            BoxStream::new(watch)
        });
    }

    /// Whether a change is returned: it is the first one that is late enough, or one after that. One without a time says nothing about those
    /// that follow.
    fn is_returned(&mut self, change: &Change) -> bool {
        let run = change.run_id();
        let Some((since, at)) = self.since.get(&run).zip(change.changed_at()) else { return true };
        let is_late = at >= *since;
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
        self.forget();
    }

    /// Forgets the runs that have ended long ago, unless a list that is still to be read can show them.
    fn forget(&mut self) {
        let pending = self.pending_lists().map(|list| list.since);
        let earliest = pending.chain([self.synced_at.checked_sub(LIST_MARGIN)]).min().flatten();
        let Some(end) = earliest.and_then(|since| since.checked_sub(CLOCK_MARGIN)) else { return };
        while let Some((at, run)) = self.ended.front()
            && at.elapsed() > ENDED_RUN_TTL
            && *at < end
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

/// A time before another one.
fn before(time: DateTime<Utc>, duration: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(duration).ok().and_then(|duration| time.checked_sub_signed(duration)).unwrap_or(time)
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

#[cfg(test)]
mod tests;
