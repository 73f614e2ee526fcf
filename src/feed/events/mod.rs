//! The notifications of all runs that a client watches: one subscription to run events, and one list of tasks, for all runs with the same tag.
//! Runs without a tag that others have, too, are listed by their workflow.
//!
//! All runs that a client starts have the client's tag. An event only means that something has changed, so the watch fetches the run.
//! The subscription is requested before a run is fetched, but the engine does not report when it begins: it sends the response headers
//! only with the first message, and events before that are lost. The engine also ends the subscription whenever all runs that it has
//! seen have completed. So after each loss, and again with the first message of the next stream, the tasks that have not ended are
//! listed.

#[cfg(feature = "__benches")]
mod bench;
mod chunks;
mod driver;
mod group;
mod schedule;
mod slot;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::{sleep_until, timeout};

use super::fetcher::Fetcher;
use super::tasks::Tasks;
use crate::error::Result;
use crate::model::{RunId, WorkflowId};
use crate::rpc::Rpc;
use crate::sync::lock;
use crate::time::Clock;
pub(crate) use chunks::ChunkEvent;
use chunks::ChunkQueue;
use driver::Inner;
use group::{Arrivals, Group, Subject, Subscribed};
pub(crate) use group::{Arrived, Tag, Wanted};
use slot::Slot;
pub(crate) use slot::{Listing, Notifications, TaskRow};

/// The clocks of client and server may differ by this much.
const CLOCK_MARGIN: TimeDelta = TimeDelta::minutes(1);
/// How long the start of a run waits for a stream that cannot be opened.
const MAX_SUBSCRIBE_DELAY: Duration = Duration::from_secs(1);
/// The maximum number of groups with tags of other clients: each has a stream.
const MAX_TAGS: usize = 16;
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
}

/// The chunks of one run, or of all runs of the group. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct ChunkSubscription {
    membership: Membership,
    run: Option<RunId>,
    queue: Arc<ChunkQueue>,
}

/// Keeps the chunks of a run that is being started. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Starting {
    membership: Membership,
    /// The number of times that the stream had been lost before.
    losses: u64,
}

impl RunEvents {
    pub(super) fn new(rpc: Rpc, tasks: Tasks, fetcher: Fetcher, clock: Clock) -> Self {
        Self(Arc::new(Inner { rpc, tasks, fetcher, clock, groups: Mutex::default() }))
    }

    /// Joins the group of a tag: its stream is opened.
    pub(crate) fn join(&self, tag: &Tag) -> Membership {
        self.join_subject(Subject::Tag(tag.clone()))
    }

    /// Joins the group of a run, for its chunks. The engine ends its stream with each attempt.
    pub(crate) fn join_run(&self, run: RunId) -> Membership {
        self.join_subject(Subject::Run(run))
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
        GroupSubscription { membership: self, arrivals }
    }
}

impl Membership {
    /// Subscribes to the chunks of a run, or of all runs of the group.
    pub(crate) fn chunks(self, run: Option<RunId>) -> ChunkSubscription {
        let queue = self.group.lock().chunks.add(run);
        ChunkSubscription { membership: self, run, queue }
    }

    /// Waits until the engine probably sends events. Returns `false` if the stream cannot be opened for a second.
    ///
    /// # Errors
    /// The server rejects the subscription.
    pub(crate) async fn subscribed(&self) -> Result<bool> {
        let mut subscribed = self.group.subscribed.subscribe();
        let is_known = |subscribed: &Subscribed| !matches!(subscribed, Subscribed::No);
        let found = match timeout(MAX_SUBSCRIBE_DELAY, subscribed.wait_for(is_known)).await {
            Ok(Ok(found)) => found.clone(),
            Ok(Err(_)) | Err(_) => Subscribed::No,
        };
        match found {
            Subscribed::No => Ok(false),
            Subscribed::Since(at) => {
                sleep_until(at).await;
                Ok(true)
            }
            Subscribed::Rejected(error) => Err(error),
        }
    }

    /// Whether the group has notifications of its runs, or only their chunks.
    pub(crate) fn has_notifications(&self) -> bool {
        !matches!(self.group.subject, Subject::Run(_))
    }

    /// Keeps the chunks of a run that is being started.
    pub(crate) fn starting(self) -> Starting {
        let losses = self.group.lock().chunks.start();
        Starting { membership: self, losses }
    }
}

impl Starting {
    pub(crate) fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The run was started: subscribes to its chunks.
    pub(crate) fn started(self, run: RunId) -> ChunkSubscription {
        let chunks = self.membership.clone().chunks(Some(run));
        if self.membership.group.lock().chunks.losses > self.losses {
            chunks.interrupt();
        }
        chunks
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.membership.group.lock().chunks.started();
    }
}

impl ChunkSubscription {
    /// Waits for the next chunk. Cancel safe.
    pub(crate) async fn next(&self) -> ChunkEvent {
        self.queue.next().await
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
        self.membership.group.lock().chunks.remove(self.run, &self.queue);
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
    /// Waits until runs of the group have changed. Cancel safe.
    pub(crate) async fn next(&self) -> Arrived {
        loop {
            let arrived = std::mem::take(&mut *lock(&self.arrivals.state));
            if arrived.has_gap || !arrived.runs.is_empty() {
                return arrived;
            }
            self.arrivals.notify.notified().await;
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
mod tests {
    use std::time::Duration;

    use prost::Message as _;
    use tokio::time::Instant;

    use super::driver::{IDLE_STREAM_TTL, STREAM};
    use super::*;
    use crate::rpc::pb::WorkflowEvent;
    use crate::scripted::{Scripted, client};

    const SECOND: Duration = Duration::from_secs(1);

    fn run(number: u128) -> RunId {
        uuid::Uuid::from_u128(number).into()
    }

    fn is_list(name: &str) -> bool {
        name.starts_with("GET ") && name.ends_with("/workflow-runs")
    }

    #[tokio::test(start_paused = true)]
    async fn all_subscribers_get_a_list_after_a_gap() {
        let [watched, other] = [1, 2].map(run);
        let event = WorkflowEvent { workflow_run_id: other.to_string(), ..Default::default() }.encode_to_vec();
        let (client, _) = client(move |name, count| match (name, count) {
            (name, _) if is_list(name) => Scripted::Rest(200, r#"{"rows":[]}"#.into()),
            (_, 1) => Scripted::Stream(vec![(SECOND, event.clone()), (2 * SECOND, event.clone())], Some(0)),
            (_, 2) => Scripted::Stream(vec![(3 * SECOND, event.clone())], None),
            _ => Scripted::Hangs,
        });
        let events = &client.feed().events;
        let subscription = events.join(client.feed().tag()).subscribe(watched, client.clock().now());
        let started = Instant::now();
        let mut notified = Vec::new();
        while let Ok(notifications) = tokio::time::timeout(9 * SECOND, subscription.next(Wanted::End)).await {
            assert_eq!(notifications.listing, Some(Listing::Rows { rows: Vec::new(), with_queued: true }));
            notified.push(started.elapsed().as_secs_f32());
        }
        // 150 ms after the first message of each stream, and after the loss of the first one.
        assert_eq!(notified, [1.15, 2.15, 5.15]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_list_is_reported_to_all() {
        let (client, _) = client(|name, _| match name {
            name if is_list(name) => Scripted::Rest(403, String::new()),
            _ => Scripted::Hangs,
        });
        let subscribe =
            |number| client.feed().events.join(client.feed().tag()).subscribe(run(number), client.clock().now());
        let (one, two) = (subscribe(1), subscribe(2));
        let (one, two) = tokio::join!(one.next(Wanted::List), two.next(Wanted::Start));
        assert_eq!((one.listing, two.listing), (Some(Listing::Failed), Some(Listing::Failed)));
    }

    /// A bug ends the task of a group: the server of the test is called in it.
    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_replaced_and_its_watches_continue() {
        let event = WorkflowEvent { workflow_run_id: run(1).to_string(), ..Default::default() }.encode_to_vec();
        let (client, calls) = client(move |name, count| match (name, count) {
            (name, _) if is_list(name) => Scripted::Rest(200, r#"{"rows":[]}"#.into()),
            (_, 1) => panic!("the task ends"),
            _ => Scripted::Stream(vec![(SECOND, event.clone())], None),
        });
        let subscription = client.feed().events.join(client.feed().tag()).subscribe(run(1), client.clock().now());
        let started = Instant::now();
        // The watch fetches its run, and waits again.
        assert_eq!(subscription.next(Wanted::End).await.listing, Some(Listing::Failed));
        assert!(subscription.next(Wanted::End).await.has_changed);
        assert_eq!((started.elapsed(), calls.count("SubscribeToWorkflowEvents")), (SECOND, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn events_are_kept_for_a_watch_that_starts_later() {
        let created = WorkflowEvent {
            workflow_run_id: run(1).to_string(),
            resource_id: run(1).to_string(),
            resource_type: 1,
            event_type: 1,
            ..Default::default()
        };
        let (client, _) = client(move |_, _| Scripted::Stream(vec![(SECOND, created.encode_to_vec())], None));
        let membership = client.feed().events.join(client.feed().tag());
        tokio::time::sleep(2 * SECOND).await;
        let subscription = membership.clone().subscribe(run(1), client.clock().now());
        assert_eq!(subscription.take().created, Some((run(1).into(), None)));
        assert!(subscription.take().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_without_members_is_removed_after_a_while() {
        let (client, calls) = client(|_, _| Scripted::Stream(Vec::new(), None));
        let (events, tag) = (&client.feed().events, client.feed().tag());
        drop(events.join(tag).subscribe(run(1), client.clock().now()));
        tokio::time::sleep(IDLE_STREAM_TTL.saturating_sub(SECOND)).await;
        let membership = events.join(tag);
        tokio::time::sleep(2 * IDLE_STREAM_TTL).await;
        assert_eq!((lock(&events.0.groups).len(), calls.count("SubscribeToWorkflowEvents")), (1, 1));
        drop(membership);
        tokio::time::sleep(IDLE_STREAM_TTL + SECOND).await;
        assert!(lock(&events.0.groups).is_empty());
        drop(events.join(tag));
        tokio::task::yield_now().await;
        assert_eq!(calls.count("SubscribeToWorkflowEvents"), 2);
    }

    /// A chunk of run 1.
    fn chunk(text: &str) -> Vec<u8> {
        let id = run(1).to_string();
        let event = WorkflowEvent {
            workflow_run_id: id.clone(),
            resource_id: id,
            resource_type: 1,
            event_type: 6,
            event_payload: text.into(),
            ..Default::default()
        };
        event.encode_to_vec()
    }

    /// The chunks have no numbers, so that nothing but the stream shows that one is received twice.
    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_is_replaced_and_loses_or_doubles_nothing() {
        fastrand::seed(7);
        let limit = STREAM.with_jitter(fastrand::f64());
        // The idle stream is still read. The other one begins with the second message.
        let at = |shift: Duration, numbers: &[u64]| -> Vec<_> {
            numbers.iter().map(|at| (shift + Duration::from_millis(*at), chunk(&at.to_string()))).collect()
        };
        let (idle, other) = (at(limit, &[50, 500, 900, 1100]), at(Duration::ZERO, &[500, 900, 1100]));
        let (client, calls) = client(move |name, count| match name {
            name if is_list(name) => Scripted::Rest(200, r#"{"rows":[]}"#.into()),
            _ => Scripted::Stream(if count == 1 { idle.clone() } else { other.clone() }, None),
        });
        fastrand::seed(7);
        let chunks = client.feed().events.join(client.feed().tag()).chunks(None);
        let (start, mut received) = (Instant::now() + limit, Vec::new());
        while received.len() < 4 {
            let ChunkEvent::Chunk(chunk) = chunks.next().await else { panic!("a chunk is expected") };
            received.push((start.elapsed().as_millis(), chunk.to_string()));
        }
        assert_eq!(received, [50, 500, 900, 1100].map(|at| (at, at.to_string())));
        assert_eq!(calls.times("SubscribeToWorkflowEvents")[1], start);
        assert!(tokio::time::timeout(SECOND, chunks.next()).await.is_err(), "each is received once");
    }
}
