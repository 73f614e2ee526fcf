//! A group of watched runs: what its members wait for, and where their news go.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, Utc};
use tokio::sync::Notify;

use super::chunks::ChunkReaders;
use super::schedule::Demand;
use super::slot::{Listing, News, Slot};
use crate::model::RunId;
use crate::sync::lock;

/// The number of runs whose events are kept for watches that start a moment later.
const MAX_RECENT: usize = 4096;

/// The key and the value that a group of runs has.
pub(crate) type Tag = (String, String);

/// The runs with a tag.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) tag: Tag,
    pub(super) state: Mutex<State>,
    /// Notified when the demand or the number of members changes.
    pub(super) wake: Notify,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) members: usize,
    pub(super) by_run: HashMap<RunId, Vec<Arc<Slot>>>,
    /// Those that wait for a list that is fetched from now on.
    pub(super) newcomers: HashMap<u64, (RunId, Arc<Slot>)>,
    /// The number of subscriptions so far.
    pub(super) subscriptions: u64,
    /// The number of watches that wait for the start and for the end of their run.
    starts: usize,
    ends: usize,
    /// Whether a watch has begun to wait for a start.
    pub(super) must_restart: bool,
    /// The times since which the members need runs to be listed.
    pub(super) since: BTreeMap<DateTime<Utc>, usize>,
    pub(super) recent: Recent,
    pub(super) arrivals: Vec<Arc<Arrivals>>,
    pub(super) chunks: ChunkReaders,
    /// Whether there is a task that reads the stream.
    pub(super) is_running: bool,
}

/// The last events of runs that nobody watches yet.
#[derive(Debug, Default)]
pub(super) struct Recent {
    pub(super) news: HashMap<RunId, News>,
    order: VecDeque<RunId>,
}

impl Recent {
    pub(super) fn update(&mut self, run: RunId, change: impl FnOnce(&mut News)) {
        if !self.news.contains_key(&run) {
            self.order.push_back(run);
            if self.order.len() > MAX_RECENT
                && let Some(oldest) = self.order.pop_front()
            {
                self.news.remove(&oldest);
            }
        }
        change(self.news.entry(run).or_default());
    }
}

/// The runs of a group whose events arrived, for a watch of the whole group.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    pub(super) state: Mutex<Arrived>,
    pub(super) notify: Notify,
}

/// What has arrived since the last look.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    pub(crate) runs: HashSet<RunId>,
    /// Whether events may have been lost, so that the runs must be listed.
    pub(crate) has_gap: bool,
}

/// What a watch waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    List,
    Start,
    End,
}

impl Group {
    pub(super) fn new(tag: Tag) -> Self {
        Self { tag, state: Mutex::default(), wake: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// Who waits for what. A list is wanted until it is requested: a watch that is not polled must not want one again and again.
    pub(super) fn demand(&self) -> Demand {
        Demand { list: self.newcomers.len(), start: self.starts, end: self.ends }
    }

    /// Adds or removes a watch that waits.
    pub(super) fn count(&mut self, wanted: Wanted, change: isize) {
        match wanted {
            Wanted::List => {}
            Wanted::Start => self.starts = self.starts.saturating_add_signed(change),
            Wanted::End => self.ends = self.ends.saturating_add_signed(change),
        }
    }

    /// There is no list. Each watch fetches its run, and gets the error itself.
    pub(super) fn fail_all(&self) {
        for slot in self.by_run.values().flatten() {
            slot.update(|news| news.listing = Some(Listing::Failed));
        }
        self.mark_gap();
    }

    /// Events may have been lost.
    pub(super) fn mark_gap(&self) {
        for arrivals in &self.arrivals {
            lock(&arrivals.state).has_gap = true;
            arrivals.notify.notify_one();
        }
    }
}
