//! A group of watched runs: what its members wait for, and where their notifications go.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::chunks::ChunkReaders;
use super::schedule::Demand;
use super::slot::{Listing, Notifications, Slot};
use crate::error::Error;
use crate::model::{RunId, WorkflowId};
use crate::sync::lock;

/// How long a stream stays open when nobody watches.
pub(super) const IDLE_STREAM_TTL: Duration = Duration::from_secs(10);
/// The number of runs whose events are kept for watches that start a moment later.
const MAX_RECENT: usize = 4096;
/// The number of runs that wait for the watch of a group that is not polled.
const MAX_ARRIVED: usize = 10_000;

/// The metadata key of the tag of a client's runs.
pub(crate) const CLIENT_KEY: &str = "hatchet_rs__client";

/// A key and a value in the metadata of runs.
pub(crate) type Tag = (String, String);

/// What the runs of a group have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Tag(Tag),
    /// Their workflow. The engine has no stream for that, so the group has only lists.
    Workflow(WorkflowId),
    /// One run. The group has only a stream.
    Run(RunId),
}

impl Subject {
    /// Whether the engine sends events of the runs.
    pub(super) fn has_events(&self) -> bool {
        !matches!(self, Self::Workflow(_))
    }

    /// Whether the runs are those that one client has started.
    pub(super) fn is_client(&self) -> bool {
        matches!(self, Self::Tag((key, _)) if key == CLIENT_KEY)
    }

    /// How long the stream stays open when nobody watches. That of a single run is not shared by later ones.
    pub(super) fn idle_ttl(&self) -> Duration {
        if matches!(self, Self::Run(_)) { Duration::ZERO } else { IDLE_STREAM_TTL }
    }

    /// The parameter of a list of the runs' tasks, if there is one.
    pub(super) fn list_parameter(&self) -> Option<(&'static str, String)> {
        match self {
            Self::Tag((key, value)) => Some(("additional_metadata", format!("{key}:{value}"))),
            Self::Workflow(workflow) => Some(("workflow_ids", workflow.to_string())),
            Self::Run(_) => None,
        }
    }
}

/// Whether the engine sends events.
#[derive(Debug, Clone)]
pub(super) enum Subscribed {
    /// Nothing was sent yet.
    No,
    /// The stream was lost, and not reopened yet.
    Lost,
    /// Probably, from this time on.
    Since(Instant),
    /// The server rejects the subscription.
    Rejected(Error),
}

impl Subscribed {
    /// When the engine probably begins to send events.
    pub(super) fn begins_at(&self) -> Option<Instant> {
        if let Self::Since(at) = self { Some(*at) } else { None }
    }
}

/// The runs with the same subject.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) subject: Subject,
    pub(super) state: Mutex<State>,
    /// Notified when the demand or the number of members changes.
    pub(super) wake: Notify,
    pub(super) subscribed: watch::Sender<Subscribed>,
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
    /// The number of runs whose start waits for the stream.
    pub(super) subscribing: usize,
}

/// The last events of runs that nobody watches yet.
#[derive(Debug, Default)]
pub(super) struct Recent {
    pub(super) by_run: HashMap<RunId, Notifications>,
    /// The runs in the order in which they were added, and the number of the last addition of each. A watch may have taken their events.
    order: VecDeque<(u64, RunId)>,
    last: HashMap<RunId, u64>,
    count: u64,
}

impl Recent {
    pub(super) fn update(&mut self, run: RunId, change: impl FnOnce(&mut Notifications)) {
        if !self.by_run.contains_key(&run) {
            self.count += 1;
            self.order.push_back((self.count, run));
            self.last.insert(run, self.count);
            if self.order.len() > MAX_RECENT
                && let Some((number, oldest)) = self.order.pop_front()
                // Otherwise, it was added again since.
                && self.last.get(&oldest) == Some(&number)
            {
                self.last.remove(&oldest);
                self.by_run.remove(&oldest);
            }
        }
        change(self.by_run.entry(run).or_default());
    }
}

/// The runs of a group whose events arrived, for a watch of the whole group.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    pub(super) state: Mutex<Arrived>,
    pub(super) notify: Notify,
}

/// What has arrived since it was last taken.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    /// The runs, each with the time of its first event. The engine's clock, and not that of the client.
    pub(crate) runs: HashMap<RunId, Option<DateTime<Utc>>>,
    /// Whether events may have been lost, so that the runs must be listed.
    pub(crate) has_gap: bool,
    /// When the last event was received.
    pub(crate) last_at: Option<Instant>,
}

impl Arrivals {
    pub(super) fn add(&self, run: RunId, at: Option<DateTime<Utc>>) {
        let mut state = lock(&self.state);
        state.runs.entry(run).or_insert(at);
        state.last_at = Some(Instant::now());
        if state.runs.len() > MAX_ARRIVED {
            // A list finds them, too.
            *state = Arrived { has_gap: true, ..Arrived::default() };
        }
        drop(state);
        self.notify.notify_one();
    }

    fn mark_gap(&self) {
        lock(&self.state).has_gap = true;
        self.notify.notify_one();
    }
}

/// What a watch waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    List,
    Start,
    End,
}

impl Group {
    pub(super) fn new(subject: Subject) -> Self {
        let subscribed = watch::Sender::new(Subscribed::No);
        Self { subject, state: Mutex::default(), wake: Notify::new(), subscribed }
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

    /// A member needs runs since a time to be listed.
    pub(super) fn add_since(&mut self, since: DateTime<Utc>) {
        *self.since.entry(since).or_default() += 1;
    }

    pub(super) fn remove_since(&mut self, since: DateTime<Utc>) {
        if let Some(count) = self.since.get_mut(&since) {
            *count -= 1;
            if *count == 0 {
                self.since.remove(&since);
            }
        }
    }

    /// There is no list. Each watch fetches its run, and gets the error itself.
    pub(super) fn fail_all(&self) {
        self.fail_slots();
        self.mark_gap();
    }

    /// The same, for the watches of single runs.
    pub(super) fn fail_slots(&self) {
        for slot in self.by_run.values().flatten() {
            slot.update(|notifications| notifications.listing = Some(Listing::Failed));
        }
    }

    /// Events may have been lost.
    pub(super) fn mark_gap(&self) {
        for arrivals in &self.arrivals {
            arrivals.mark_gap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_events_of_the_newest_runs_are_kept() {
        let (mut recent, run) = (Recent::default(), |number: usize| RunId::from(uuid::Uuid::from_u128(number as u128)));
        let event = |recent: &mut Recent, number| recent.update(run(number), |kept| kept.has_changed = true);
        (0..MAX_RECENT - 1).for_each(|number| event(&mut recent, number));
        // A watch takes the events of the oldest run, and then there are others.
        assert!(recent.by_run.remove(&run(0)).is_some());
        event(&mut recent, 0);
        (MAX_RECENT..2 * MAX_RECENT - 1).for_each(|number| event(&mut recent, number));
        assert!(recent.by_run.contains_key(&run(0)), "it is not the oldest any longer");
        assert_eq!(recent.by_run.len(), MAX_RECENT);
        event(&mut recent, 2 * MAX_RECENT);
        assert!(!recent.by_run.contains_key(&run(0)) && recent.by_run.len() == MAX_RECENT);
        assert!(recent.order.len() <= MAX_RECENT && recent.last.len() <= MAX_RECENT, "nothing else is kept");
    }

    #[test]
    fn a_watch_that_is_not_polled_lists_instead_of_growing() {
        let arrivals = Arrivals::default();
        let run = |number: usize| RunId::from(uuid::Uuid::from_u128(number as u128));
        let arrived = || {
            let state = lock(&arrivals.state);
            (state.runs.len(), state.has_gap)
        };
        (0..MAX_ARRIVED).for_each(|number| arrivals.add(run(number % 10), None));
        assert_eq!(arrived(), (10, false));
        (0..=MAX_ARRIVED).for_each(|number| arrivals.add(run(number), None));
        assert_eq!(arrived(), (0, true));
    }
}
