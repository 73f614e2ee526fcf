//! The notifications of all runs that a client watches: one subscription to run events, and one list of tasks, for all runs with the same tag.
//! Runs without a tag that others have, too, are listed by their workflow.
//!
//! All runs that a client starts have the client's tag. An event only means that something has changed, so the watch fetches the run.
//! The subscription is requested before a run is fetched, but the engine does not report when it begins: it sends the response headers
//! only with the first message, and events before that are lost. The engine also ends the subscription whenever all runs that it has
//! seen have completed. So after each loss, and again with the first message of the next stream, the tasks that have not ended are
//! listed. Who follows all runs of a group must also list them when a stream has probably begun: there can be no message for long.

#[cfg(feature = "__benches")]
mod bench;
mod chunk_event;
mod chunks;
mod driver;
mod early;
mod group;
mod schedule;
mod slot;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::fetcher::Fetcher;
use super::parents::Parents;
use super::tasks::Tasks;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{RunId, WorkflowId};
use crate::rpc::Rpc;
use crate::sync::lock;
use crate::time::{self, Clock};
pub(crate) use chunk_event::ChunkEvent;
use chunks::ChunkQueue;
pub(crate) use chunks::ChunksOf;
use driver::Inner;
use early::EarlyPosition;
use group::{Arrivals, Group, Subject, Subscribed};
pub(crate) use group::{Arrived, CLIENT_KEY, Tag, Wanted};
use slot::Slot;
pub(crate) use slot::{Listing, Notifications, TaskRow};

/// The clocks of client and server may differ by this much.
const CLOCK_MARGIN: TimeDelta = TimeDelta::minutes(1);
/// How long the start of a run waits for a stream that cannot be opened.
const MAX_SUBSCRIBE_DELAY: Duration = Duration::from_secs(1);
/// The maximum number of groups with tags of other clients: each has a stream.
const MAX_TAGS: usize = 16;
/// The maximum number of streams that are open for chunks at the same time. A server limits the streams of a connection, usually to 100.
const MAX_CHUNK_STREAMS: usize = 64;
/// The maximum number of groups by workflow: each has a list every two seconds.
const MAX_WORKFLOWS: usize = 64;

/// The notifications of the runs of a client. A group's stream is open while it has members.
#[derive(Debug)]
pub(crate) struct RunEvents(Arc<Inner>);

/// A member of a group: its stream stays open.
#[derive(Debug)]
pub(crate) struct Membership {
    inner: Arc<Inner>,
    group: Arc<Group>,
}

/// The notifications of one run. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Subscription {
    membership: Membership,
    run: RunId,
    number: u64,
    slot: Arc<Slot>,
    since: DateTime<Utc>,
    /// Whether it has waited for the start of the current attempt.
    waits_for_start: AtomicBool,
}

/// The runs of a group that have changed. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct GroupSubscription {
    membership: Membership,
    arrivals: Arc<Arrivals>,
    subscribed: watch::Receiver<Subscribed>,
    /// When the stream probably begins: events before that are lost.
    begins_at: Option<Instant>,
}

/// The chunks of one run, or of all runs of the group. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct ChunkSubscription {
    membership: Membership,
    of: ChunksOf,
    queue: Arc<ChunkQueue>,
}

/// The start of a run that waits for the stream.
struct Subscribing<'a>(&'a Group);

impl<'a> Subscribing<'a> {
    fn new(group: &'a Group) -> Self {
        group.lock().subscribing += 1;
        group.wake.notify_one();
        Self(group)
    }
}

impl Drop for Subscribing<'_> {
    fn drop(&mut self) {
        self.0.lock().subscribing -= 1;
    }
}

/// Keeps the chunks of a run that is being started. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Starting {
    membership: Membership,
    since: EarlyPosition,
    /// Whether there was no stream when the run was about to be started.
    is_interrupted: bool,
}

impl RunEvents {
    pub(super) fn new(rpc: Rpc, tasks: Tasks, fetcher: Fetcher, parents: Parents, clock: Clock) -> Self {
        Self(Arc::new(Inner { rpc, tasks, fetcher, parents, clock, groups: Mutex::default() }))
    }

    /// Joins the group of a tag: its stream is opened.
    pub(crate) fn join(&self, tag: &Tag) -> Membership {
        self.join_subject(Subject::Tag(tag.clone()))
    }

    /// Joins the group of a tag, for the chunks of a run that has it, or without a tag that of the run. The engine ends the stream of a run
    /// with each attempt.
    ///
    /// # Errors
    /// There are too many groups.
    pub(crate) fn join_for_chunks(&self, tag: Option<Tag>, run: RunId) -> Result<Membership> {
        let subject = tag.map_or(Subject::Run(run), Subject::Tag);
        let has_space = {
            let groups = lock(&self.0.groups);
            // Also those that stay open for a while without members.
            let open = groups.keys().filter(|subject| subject.has_events()).count();
            groups.contains_key(&subject) || open < MAX_CHUNK_STREAMS
        };
        if !has_space {
            let text = format!(
                "the client already has {MAX_CHUNK_STREAMS} streams of run events for chunks, the maximum; drop one, or start the \
                 runs with one client, so that they share a stream"
            );
            return Err(Error::new(ErrorKind::TooLarge, text).of_run(run));
        }
        Ok(self.join_subject(subject))
    }

    fn join_subject(&self, subject: Subject) -> Membership {
        let group = {
            let mut groups = lock(&self.0.groups);
            let group = groups.entry(subject.clone()).or_insert_with(|| Arc::new(Group::new(subject)));
            // Counted while the groups are locked, so that the group is not removed meanwhile.
            group.lock().members += 1;
            Arc::clone(group)
        };
        self.0.ensure_task(&group);
        Membership { inner: Arc::clone(&self.0), group }
    }

    /// Joins the group of a tag if it exists.
    pub(crate) fn join_existing(&self, tag: &Tag) -> Option<Membership> {
        let subject = Subject::Tag(tag.clone());
        let exists = lock(&self.0.groups).contains_key(&subject);
        exists.then(|| self.join_subject(subject))
    }

    /// Joins the group of another client's tag, unless there are too many such groups.
    pub(crate) fn try_join(&self, tag: &Tag) -> Option<Membership> {
        self.join_up_to(MAX_TAGS, Subject::Tag(tag.clone()))
    }

    /// Joins the group of a workflow, unless there are too many such groups.
    pub(crate) fn try_join_workflow(&self, workflow: WorkflowId) -> Option<Membership> {
        self.join_up_to(MAX_WORKFLOWS, Subject::Workflow(workflow))
    }

    fn join_up_to(&self, max: usize, subject: Subject) -> Option<Membership> {
        let has_space = {
            let groups = lock(&self.0.groups);
            let is_same_kind = |other: &&Subject| std::mem::discriminant(*other) == std::mem::discriminant(&subject);
            groups.contains_key(&subject) || groups.keys().filter(is_same_kind).count() < max
        };
        has_space.then(|| self.join_subject(subject))
    }

    /// Dispatches events, for `benches/instructions`.
    #[cfg(feature = "__benches")]
    pub(crate) fn dispatch(&self, tag: &Tag, watched: usize, messages: usize) -> usize {
        bench::dispatch(&self.0, tag, watched, messages)
    }
}

impl Membership {
    /// Subscribes to the notifications of a run, which was not created before a time.
    pub(crate) fn subscribe(self, run: RunId, since: DateTime<Utc>) -> Subscription {
        let since = with_margin(since);
        let mut state = self.group.lock();
        let slot = Arc::new(Slot::with(state.recent.by_run.remove(&run).unwrap_or_default()));
        state.by_run.entry(run).or_default().push(Arc::clone(&slot));
        state.add_since(since);
        state.subscriptions += 1;
        let number = state.subscriptions;
        drop(state);
        Subscription { membership: self, run, number, slot, since, waits_for_start: AtomicBool::new(false) }
    }

    /// Subscribes to all runs of the group.
    pub(crate) fn subscribe_all(self) -> GroupSubscription {
        let arrivals = Arc::new(Arrivals::default());
        self.group.lock().arrivals.push(Arc::clone(&arrivals));
        let subscribed = self.group.subscribed.subscribe();
        let begins_at = subscribed.borrow().begins_at().filter(|at| *at > Instant::now());
        GroupSubscription { membership: self, arrivals, subscribed, begins_at }
    }
}

impl Membership {
    /// Subscribes to the chunks of some runs of the group.
    pub(crate) fn chunks(self, of: ChunksOf) -> ChunkSubscription {
        let queue = self.group.lock().chunks.add(of);
        ChunkSubscription { membership: self, of, queue }.checked()
    }

    /// Waits until the engine probably sends events. Returns `false` if the stream cannot be opened for a second.
    ///
    /// # Errors
    /// The server rejects the subscription.
    pub(crate) async fn subscribed(&self) -> Result<bool> {
        let _subscribing = Subscribing::new(&self.group);
        timeout(MAX_SUBSCRIBE_DELAY, self.until_subscribed()).await.unwrap_or(Ok(false))
    }

    async fn until_subscribed(&self) -> Result<bool> {
        let mut subscribed = self.group.subscribed.subscribe();
        loop {
            let found = subscribed.borrow_and_update().clone();
            let at = found.begins_at();
            if let Subscribed::Rejected(error) = found {
                return Err(error);
            }
            tokio::select! {
                biased;
                changed = subscribed.changed() => if changed.is_err() {
                    return Ok(false);
                },
                () = time::at(at) => return Ok(true),
            }
        }
    }

    /// Starts the task of the group again if it has ended.
    fn ensure_task(&self) {
        self.inner.ensure_task(&self.group);
    }

    /// Whether the group has notifications of its runs, or only their chunks.
    pub(crate) fn has_notifications(&self) -> bool {
        !matches!(self.group.subject, Subject::Run(_))
    }

    /// Whether both are of the same group.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.group, &other.group)
    }

    /// Keeps the chunks of a run that will be started.
    pub(crate) fn starting(self) -> Starting {
        let since = self.group.lock().chunks.start();
        Starting { membership: self, since, is_interrupted: false }
    }
}

impl Starting {
    pub(crate) fn membership(&self) -> &Membership {
        &self.membership
    }

    /// There is no stream now: the chunks that are sent from now on may be lost.
    pub(crate) fn interrupt(&mut self) {
        self.is_interrupted = true;
    }

    /// The run was started: subscribes to its chunks.
    pub(crate) fn started(self, run: RunId) -> ChunkSubscription {
        let queue = self.membership.group.lock().chunks.add_started(run, self.since, self.is_interrupted);
        let membership = self.membership.clone();
        ChunkSubscription { membership, of: ChunksOf::Run(run), queue }.checked()
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.membership.group.lock().chunks.started(self.since);
    }
}

impl ChunkSubscription {
    /// Reports what was reported before to others: that the stream is lost, or cannot be opened.
    fn checked(self) -> Self {
        match &*self.membership.group.subscribed.borrow() {
            Subscribed::Lost => self.queue.interrupt(),
            Subscribed::Rejected(error) => self.queue.fail(error.clone()),
            Subscribed::No | Subscribed::Since(_) => {}
        }
        self
    }

    /// From now on, the chunks of a run and its descendants are enough.
    pub(crate) fn narrow(&mut self, root: RunId) {
        let mut state = self.membership.group.lock();
        state.chunks.remove(self.of, &self.queue);
        self.of = ChunksOf::Family(root);
        state.chunks.insert(self.of, Arc::clone(&self.queue));
    }

    /// Waits for the next chunk. Cancel safe.
    pub(crate) async fn next(&self) -> ChunkEvent {
        let event = self.queue.next().await;
        // The task may have ended.
        if matches!(event, ChunkEvent::Interrupted) {
            self.membership.ensure_task();
        }
        event
    }

    /// Chunks may have been lost before those that come now.
    pub(crate) fn interrupt(&self) {
        self.queue.interrupt();
    }

    /// The number of chunks that were dropped because too many waited.
    pub(crate) fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    pub(crate) fn membership(&self) -> &Membership {
        &self.membership
    }
}

impl Drop for ChunkSubscription {
    fn drop(&mut self) {
        self.membership.group.lock().chunks.remove(self.of, &self.queue);
    }
}

impl Clone for Membership {
    fn clone(&self) -> Self {
        self.group.lock().members += 1;
        Self { inner: Arc::clone(&self.inner), group: Arc::clone(&self.group) }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.group.lock().members -= 1;
        self.group.wake.notify_one();
    }
}

impl Subscription {
    /// Waits for notifications. Lists are fetched only while a watch waits. Cancel safe.
    pub(crate) async fn next(&self, wanted: Wanted) -> Notifications {
        if let Some(notifications) = self.slot.take() {
            return notifications;
        }
        let _waiting = self.wait(wanted);
        loop {
            self.slot.changed().await;
            if let Some(notifications) = self.slot.take() {
                return notifications;
            }
        }
    }

    /// Sets when the run was created, if that is earlier than what was known: a list must contain it.
    pub(crate) fn list_since(&mut self, created_at: DateTime<Utc>) {
        let since = with_margin(created_at);
        if since < self.since {
            let mut state = self.membership.group.lock();
            state.remove_since(self.since);
            state.add_since(since);
            self.since = since;
        }
    }

    /// Whether something has arrived.
    pub(crate) fn has_notifications(&self) -> bool {
        self.slot.has_notifications()
    }

    /// Takes what has arrived.
    pub(crate) fn take(&self) -> Notifications {
        self.slot.take().unwrap_or_default()
    }

    fn wait(&self, wanted: Wanted) -> Waiting<'_> {
        let Membership { inner, group } = &self.membership;
        let mut state = group.lock();
        state.count(wanted, 1);
        let is_waiting = self.waits_for_start.swap(wanted == Wanted::Start, Relaxed);
        state.must_restart |= wanted != Wanted::End && !is_waiting;
        if wanted == Wanted::List {
            state.newcomers.insert(self.number, (self.run, Arc::clone(&self.slot)));
        }
        drop(state);
        inner.ensure_task(group);
        group.wake.notify_one();
        Waiting { subscription: self, wanted }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.membership.group.lock();
        state.newcomers.remove(&self.number);
        if let Some(of_run) = state.by_run.get_mut(&self.run) {
            of_run.retain(|other| !Arc::ptr_eq(other, &self.slot));
            if of_run.is_empty() {
                state.by_run.remove(&self.run);
            }
        }
        state.remove_since(self.since);
    }
}

fn with_margin(since: DateTime<Utc>) -> DateTime<Utc> {
    since.checked_sub_signed(CLOCK_MARGIN).unwrap_or(since)
}

impl GroupSubscription {
    /// Waits until runs of the group have changed, or until some may have changed without an event. Cancel safe.
    pub(crate) async fn next(&mut self) -> Arrived {
        loop {
            if self.subscribed.has_changed().unwrap_or_default() {
                self.begins_at = self.subscribed.borrow_and_update().begins_at();
            }
            let mut arrived = std::mem::take(&mut *lock(&self.arrivals.state));
            arrived.has_gap |= self.begins_at.take_if(|at| *at <= Instant::now()).is_some();
            // The task may have ended.
            if arrived.has_gap {
                self.membership.ensure_task();
            }
            if arrived.has_gap || !arrived.runs.is_empty() {
                return arrived;
            }
            tokio::select! {
                () = self.arrivals.notify.notified() => {}
                Ok(()) = self.subscribed.changed() => self.begins_at = self.subscribed.borrow().begins_at(),
                () = time::at(self.begins_at) => {}
            }
        }
    }

    pub(crate) fn membership(&self) -> &Membership {
        &self.membership
    }
}

impl Drop for GroupSubscription {
    fn drop(&mut self) {
        self.membership.group.lock().arrivals.retain(|other| !Arc::ptr_eq(other, &self.arrivals));
    }
}

/// A watch that waits.
struct Waiting<'a> {
    subscription: &'a Subscription,
    wanted: Wanted,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.subscription.membership.group.lock();
        state.count(self.wanted, -1);
        if self.wanted == Wanted::List {
            state.newcomers.remove(&self.subscription.number);
        }
    }
}

#[cfg(test)]
mod tests;
