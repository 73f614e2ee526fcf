//! The task of a group: it reads the stream of events, and fetches the lists.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::chunk_event::ChunkEvent;
use super::group::{Group, State, Subject, Subscribed};
use super::schedule::Schedule;
use super::slot::{Listing, Notifications, Slot, TaskRow};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::fetcher::Fetcher;
use crate::feed::parents::Parents;
use crate::feed::rejection::Rejection;
use crate::feed::tasks::Tasks;
use crate::model::{RunId, RunStatus};
use crate::rpc::Rpc;
use crate::rpc::convert::{RunEvent, RunEventKind};
use crate::sync::{lock, or_pending};
use crate::telemetry::MAX_WARNINGS;
use crate::time::{Alarm, Clock};
use crate::transport::{ReconnectingStream, Sent, StreamEvent, StreamPolicy, Twins, retry_delay};

/// An idle stream is reopened, and its runs are listed: it may have lost events. Chunks that are lost cannot be read in another way, so the
/// limit is short.
pub(super) const STREAM: StreamPolicy = StreamPolicy {
    name: "run events",
    max_backoff: Duration::from_secs(5),
    idle_limit: Duration::from_secs(60),
    twins: Twins::Dropped,
};
/// The pause before a failed stream is reopened.
const FAILED_PAUSE: Duration = Duration::from_secs(30);
/// A stream that ends so long after it has probably begun was not rejected.
const MIN_OPEN: Duration = Duration::from_secs(1);
/// How long after the request was sent the engine probably sends events: usually 100 ms, and later under load. It does not confirm a subscription.
const SUBSCRIBE_DELAY: Duration = Duration::from_millis(250);
/// The longest pause before a lost stream is reopened for which the start of a run waits: it waits for a second only.
const MAX_START_PAUSE: Duration = Duration::from_millis(250);
/// The number of rows in one request, and of requests for one list.
const PAGE_SIZE: usize = 1000;
const MAX_PAGES: usize = 20;
/// The number of requests for a list of a tag, however few of its runs are watched.
const MIN_PAGES: usize = 5;
/// How long the list of a workflow is not read that has more pages than watches that need it.
const TOO_LONG_FOR: Duration = Duration::from_secs(60);

/// What all groups of a client share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) rpc: Rpc,
    pub(super) tasks: Tasks,
    pub(super) fetcher: Fetcher,
    pub(super) parents: Parents,
    pub(super) clock: Clock,
    pub(super) groups: Mutex<HashMap<Subject, Arc<Group>>>,
}

impl Inner {
    /// Starts the task of a group. A task that has ended is replaced.
    pub(super) fn ensure_task(self: &Arc<Self>, group: &Arc<Group>) {
        if !std::mem::replace(&mut group.lock().is_running, true) {
            // If the runtime is gone, the driver is dropped here, which needs the lock.
            drop(self.tasks.spawn(EventsDriver::new(Arc::clone(self), Arc::clone(group)).run()));
        }
    }
}

/// A list that was fetched.
#[derive(Debug)]
struct List {
    rows: Vec<TaskRow>,
    with_queued: bool,
    reason: Reason,
    is_complete: bool,
    /// The number of requests that it was allowed to need.
    max_pages: usize,
}

/// Why a list was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// Watches wait for the start of an attempt.
    Start,
    /// It corrects what was missed.
    Periodic,
    /// The same, and events may have been lost since the list before.
    Loss,
}

type Fetching = BoxFuture<'static, Result<List>>;

/// Reads the stream of a group, and fetches its lists.
pub(super) struct EventsDriver {
    inner: Arc<Inner>,
    group: Arc<Group>,
    stream: ReconnectingStream<RunEvent>,
    /// Whether events may have been lost since the last message.
    has_gap: bool,
    /// When the stream is reopened after it has failed, and how often it has failed since the last message.
    reopen_at: Option<Instant>,
    failures: u32,
    rejection: Rejection,
    list_rejection: Rejection,
    list_failures: u32,
    schedule: Schedule,
    fetching: Option<Fetching>,
    /// Those that wait for the list that is fetched.
    newcomers: HashMap<u64, (RunId, Arc<Slot>)>,
    /// The tasks in the last list, by run: those that are running, or all that have not ended if there are no events.
    listed: HashMap<RunId, Vec<TaskRow>>,
    /// The list has more pages than this, and until when that counts.
    too_long: Option<(usize, Instant)>,
    idle_since: Option<Instant>,
    /// For the next list, for the next stream, and for the end of an unused one.
    alarm: Alarm,
    /// Whether its task has run. Otherwise, the runtime has shut down, or the client is closed.
    has_run: bool,
}

impl EventsDriver {
    pub(super) fn new(inner: Arc<Inner>, group: Arc<Group>) -> Self {
        let mut stream = ReconnectingStream::new(STREAM);
        if group.subject.has_events() {
            stream.reopen_now();
        }
        Self {
            inner,
            group,
            stream,
            has_gap: false,
            reopen_at: None,
            failures: 0,
            rejection: Rejection::default(),
            list_rejection: Rejection::default(),
            list_failures: 0,
            schedule: Schedule::new(Instant::now()),
            fetching: None,
            newcomers: HashMap::new(),
            listed: HashMap::new(),
            too_long: None,
            has_run: false,
            idle_since: None,
            alarm: Alarm::default(),
        }
    }

    async fn run(mut self) {
        self.has_run = true;
        loop {
            let now = Instant::now();
            let (demand, is_idle) = {
                let mut state = self.group.lock();
                if state.demand().start == 0 {
                    self.schedule.nobody_waits();
                }
                if std::mem::take(&mut state.must_restart) {
                    self.schedule.restart(now);
                }
                if state.by_run.is_empty() {
                    self.schedule.nobody_lost();
                }
                if state.subscribing > 0 {
                    self.stream.limit_pause(MAX_START_PAUSE);
                }
                (state.demand(), state.members == 0)
            };
            self.idle_since = if is_idle { self.idle_since.or(Some(now)) } else { None };
            let idle = self.idle_since.map(|since| since + self.group.subject.idle_ttl());
            let due = self.schedule.due(now, demand).filter(|_| self.fetching.is_none());
            let next = [due.map(|due| due.at), self.reopen_at, idle].into_iter().flatten().min();
            tokio::select! {
                biased;
                event = self.stream.next() => self.on_stream(event),
                list = or_pending(self.fetching.as_mut()) => self.on_list(list),
                () = self.group.wake.notified() => {}
                () = self.alarm.at(next) => {
                    let now = Instant::now();
                    if self.reopen_at.take_if(|at| *at <= now).is_some() {
                        self.stream.reopen_now();
                    }
                    // Those who waited may have left.
                    let demand = self.group.lock().demand();
                    let due = self.schedule.due(now, demand).filter(|_| self.fetching.is_none());
                    if let Some(due) = due.filter(|due| due.at <= now) {
                        self.fetch(now, due.with_queued);
                    }
                    if idle.is_some_and(|idle| idle <= now) && self.leave() {
                        return;
                    }
                }
            }
        }
    }

    /// Removes the group if it still has no members.
    fn leave(&self) -> bool {
        let mut groups = lock(&self.inner.groups);
        let is_idle = self.group.lock().members == 0;
        if is_idle {
            groups.remove(&self.group.subject);
        }
        is_idle
    }

    pub(super) fn on_stream(&mut self, event: StreamEvent<RunEvent>) {
        match event {
            StreamEvent::NeedsOpen => self.open(),
            StreamEvent::Idle => {
                // It was open.
                self.rejection.accepted();
                self.open();
                self.lost();
            }
            StreamEvent::Message(event) => {
                self.failures = 0;
                self.rejection.accepted();
                // A message of the stream that is replaced does not show that the new one has begun.
                if !self.stream.is_overlapping() && std::mem::take(&mut self.has_gap) {
                    self.group.subscribed.send_replace(Subscribed::Since(Instant::now()));
                    if self.is_first_of_only_run(&event) {
                        self.group.lock().mark_gap();
                    } else {
                        self.lost();
                    }
                }
                let is_last = event.is_last;
                self.on_event(event);
                if is_last && self.stream.is_overlapping() {
                    // Both streams end, if there is no other active run.
                    self.group.subscribed.send_replace(Subscribed::Lost);
                } else if is_last {
                    // Its end follows a moment later. A run that is started meanwhile must wait for the next stream.
                    self.reopen();
                }
            }
            StreamEvent::Gap => {
                self.group.lock().chunks.interrupt();
                self.lost();
            }
            StreamEvent::Lost(error) => {
                let error = error.filter(|_| !self.was_open());
                let is_final = self.rejection.is_final(error.as_ref());
                if let Some(error) = error.filter(|_| is_final) {
                    // Streams of chunks end with it. Meanwhile, watches continue with lists.
                    self.reject(&error);
                } else {
                    self.interrupted();
                }
                self.lost();
            }
            StreamEvent::Failed(error) if !self.rejection.has_failed(&error) => {
                self.reopen();
            }
            // Meanwhile, lists continue without events.
            StreamEvent::Failed(error) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures <= MAX_WARNINGS {
                    tracing::warn!(%error, retry_after = ?FAILED_PAUSE, "stream of run events failed");
                } else {
                    tracing::debug!(%error, failures = self.failures, "stream of run events failed again");
                }
                self.reopen_at = Some(Instant::now() + FAILED_PAUSE);
                self.reject(&error);
                self.lost();
            }
        }
    }

    /// Has another stream opened, although this one has not ended.
    fn reopen(&mut self) {
        self.stream.mark_lost();
        self.interrupted();
        self.lost();
    }

    /// There is no stream until the next one is opened.
    fn interrupted(&self) {
        self.group.subscribed.send_replace(Subscribed::Lost);
        self.group.lock().chunks.interrupt();
    }

    /// Streams of chunks, which need the subscription, end.
    fn reject(&self, error: &Error) {
        self.group.subscribed.send_replace(Subscribed::Rejected(error.clone()));
        self.group.lock().chunks.fail(error);
    }

    /// Whether the stream that was lost had been open.
    fn was_open(&self) -> bool {
        matches!(&*self.group.subscribed.borrow(), Subscribed::Since(at) if at.elapsed() >= MIN_OPEN)
    }

    fn open(&mut self) {
        self.has_gap = true;
        let (rpc, subject) = (self.inner.rpc.clone(), self.group.subject.clone());
        let (group, sent) = (Arc::clone(&self.group), Sent::default());
        // A connection may have to be established before.
        let is_sent = move || {
            group.subscribed.send_replace(Subscribed::Since(Instant::now() + SUBSCRIBE_DELAY));
        };
        self.stream.open(async move {
            match subject {
                Subject::Tag(tag) => sent.clone().notify(rpc.dispatcher.tagged_events(tag, sent), is_sent).await,
                Subject::Run(run) => sent.clone().notify(rpc.dispatcher.run_events(run, sent), is_sent).await,
                Subject::Workflow(_) => std::future::pending().await,
            }
        });
    }

    /// Events may have been lost. Who subscribes later has notifications of its run from its start, or needs a list anyway.
    fn lost(&mut self) {
        let state = self.group.lock();
        if !state.by_run.is_empty() {
            self.schedule.lost(Instant::now());
        }
        state.mark_gap();
    }

    /// Whether an event is the first of a run, and nobody watches another one: then no event was lost that somebody needs.
    fn is_first_of_only_run(&self, event: &RunEvent) -> bool {
        let state = self.group.lock();
        let is_only = state.by_run.len() == 1 && state.by_run.contains_key(&event.run);
        is_only && matches!(event.kind, RunEventKind::TaskCreated(_))
    }

    fn on_event(&mut self, event: RunEvent) {
        let RunEvent { run, at, kind, .. } = event;
        let mut state = self.group.lock();
        let parents = &self.inner.parents;
        let created = match kind {
            RunEventKind::Chunk(chunk) => return state.chunks.take(ChunkEvent::Chunk(chunk), parents),
            RunEventKind::AttemptEnded { task, attempt, is_completed } => {
                state.chunks.take(ChunkEvent::AttemptEnded { run, task, attempt, is_completed, at }, parents);
                None
            }
            RunEventKind::RunEnded { is_completed } => {
                state.chunks.take(ChunkEvent::RunEnded { run, is_completed, at }, parents);
                None
            }
            RunEventKind::TaskCreated(task) => {
                state.chunks.take(ChunkEvent::Created(run, task), parents);
                Some((task, at))
            }
            RunEventKind::Changed => None,
        };
        let change = |notifications: &mut Notifications| match created {
            Some(_) => notifications.created = notifications.created.or(created),
            None => notifications.has_changed = true,
        };
        let State { by_run, recent, arrivals, .. } = &mut *state;
        match by_run.get(&run) {
            Some(slots) => slots.iter().for_each(|slot| slot.update(change)),
            None => recent.update(run, change),
        }
        for arrivals in arrivals {
            arrivals.add(run, at);
        }
    }

    /// Fetches a list of the tasks that are running, and also of those that are queued if that is due.
    fn fetch(&mut self, now: Instant, is_periodic: bool) {
        let reason = match self.schedule.requested(now, is_periodic) {
            true => Reason::Loss,
            false if is_periodic => Reason::Periodic,
            false => Reason::Start,
        };
        let Some(parameter) = self.group.subject.list_parameter() else { return };
        // Without events, only its absence shows that a queued run has ended.
        let with_queued = is_periodic || !self.group.subject.has_events();
        let mut state = self.group.lock();
        if with_queued {
            self.newcomers = std::mem::take(&mut state.newcomers);
        }
        let Inner { rpc, clock, .. } = &*self.inner;
        let since = state.since.first_key_value().map(|(since, _)| *since);
        let since = since.unwrap_or_else(|| rpc.rest.clock().time(clock.now()));
        // If the runs are those of a client, or all of them are watched, most tasks of the list are watched. If it were cut off, each of the
        // others would be fetched by itself. Otherwise, the list has the tasks of others, too. If it is longer than the number of watches,
        // checking each run is cheaper.
        let is_of_watches = self.group.subject.is_client() || !state.arrivals.is_empty();
        let max_pages = match state.by_run.len() {
            watched if is_of_watches => MAX_PAGES.max(2 * watched / PAGE_SIZE + 1),
            watched if self.group.subject.has_events() => watched.clamp(MIN_PAGES, MAX_PAGES),
            watched => watched.clamp(1, MAX_PAGES),
        };
        drop(state);
        let is_too_long = self.too_long.is_some_and(|(pages, until)| max_pages <= pages && now < until);
        let (rpc, gate) = (self.inner.rpc.clone(), self.inner.fetcher.gate());
        self.fetching = Some(Box::pin(async move {
            let statuses = [RunStatus::Running, RunStatus::Queued];
            let statuses = if with_queued { &statuses[..] } else { &statuses[..1] };
            let (mut rows, mut is_complete) = (Vec::new(), false);
            for page in 0..if is_too_long { 0 } else { max_pages } {
                let _permit = gate.pass(1).await;
                let paging = (PAGE_SIZE, page * PAGE_SIZE);
                let found = rpc.rest.active_tasks(parameter.clone(), since, statuses, paging).await?;
                is_complete = found.len() < PAGE_SIZE;
                rows.extend(found.into_iter().map(TaskRow::from));
                if is_complete {
                    break;
                }
            }
            Ok(List { rows, with_queued, reason, is_complete, max_pages })
        }));
    }

    /// A list has failed. It is requested again, instead of each run.
    fn on_list_failed(&mut self, error: &Error) {
        tracing::debug!(%error, "listing the tasks of watched runs failed");
        let newcomers = std::mem::take(&mut self.newcomers);
        let is_of_moment = match error.kind() {
            ErrorKind::Unimplemented => !self.list_rejection.has_failed(error),
            _ => error.may_recover(),
        };
        let mut state = self.group.lock();
        // Each watch has limits of its own, and a list may be too large for its deadline.
        if error.is_rest_unreached() || !is_of_moment || self.list_rejection.is_too_long() {
            return state.fail_all();
        }
        self.list_failures = self.list_failures.saturating_add(1);
        let pause = error.pushback().unwrap_or_else(|| retry_delay(self.list_failures, fastrand::f64()));
        self.schedule.failed(Instant::now(), pause);
        for (number, (run, slot)) in newcomers {
            if state.by_run.get(&run).is_some_and(|slots| slots.iter().any(|of_run| Arc::ptr_eq(of_run, &slot))) {
                state.newcomers.insert(number, (run, slot));
            }
        }
    }

    fn on_list(&mut self, list: Result<List>) {
        self.fetching = None;
        let mut list = match list {
            Ok(list) => list,
            Err(error) => return self.on_list_failed(&error),
        };
        self.list_rejection.accepted();
        self.list_failures = 0;
        let newcomers = std::mem::take(&mut self.newcomers);
        let is_after_loss = list.reason == Reason::Loss;
        let state = self.group.lock();
        let count = list.rows.len();
        let mut rows: HashMap<RunId, Vec<TaskRow>> = HashMap::new();
        for row in list.rows.drain(..) {
            rows.entry(row.run).or_default().push(row);
        }
        let mut has_changed = false;
        let listing = |run: &RunId| {
            let of_run = rows.get(run).cloned().unwrap_or_default();
            if of_run.is_empty() && !list.is_complete {
                Listing::Unknown
            } else {
                Listing::Rows { rows: of_run, with_queued: list.with_queued }
            }
        };
        for (run, slot) in newcomers.values() {
            slot.list(listing(run), is_after_loss);
        }
        let has_events = self.group.subject.has_events();
        if !has_events {
            // The runs that it lacks are checked each time if they are few.
            let checks_each = !list.is_complete && list.max_pages < MAX_PAGES;
            if list.is_complete {
                self.too_long = None;
            } else if count > 0 {
                self.too_long = Some((list.max_pages, Instant::now() + TOO_LONG_FOR));
            }
            for (run, slots) in &state.by_run {
                let is_changed = rows.get(run) != self.listed.get(run);
                has_changed |= is_changed;
                let is_unknown =
                    !list.is_complete && (list.reason != Reason::Start || checks_each) && !rows.contains_key(run);
                for slot in slots.iter().filter(|slot| is_changed || is_unknown || !slot.was_listed()) {
                    slot.list(listing(run), is_after_loss);
                }
            }
        } else if list.with_queued {
            for (run, slots) in &state.by_run {
                for slot in slots {
                    slot.list(listing(run), is_after_loss);
                }
            }
        } else {
            // Those that are running, and those that are no longer.
            let vanished = self.listed.keys().filter(|run| !rows.contains_key(*run));
            for run in rows.keys().chain(vanished) {
                let Some(slots) = state.by_run.get(run) else { continue };
                let is_changed = rows.get(run) != self.listed.get(run);
                has_changed |= is_changed;
                // A watch that began after the last list does not know what has not changed since.
                for slot in slots.iter().filter(|slot| is_changed || !slot.was_listed()) {
                    slot.list(listing(run), is_after_loss);
                }
            }
        }
        drop(state);
        if has_events {
            for of_run in rows.values_mut() {
                of_run.retain(|row| row.status == RunStatus::Running);
            }
            rows.retain(|_, of_run| !of_run.is_empty());
        }
        self.listed = rows;
        self.schedule.received(count, has_changed);
    }
}

/// The task has ended, or was never run: the client is closed, or its runtime is gone.
impl Drop for EventsDriver {
    fn drop(&mut self) {
        let mut state = self.group.lock();
        state.is_running = false;
        state.fail_slots();
        // Readers start another task then. They must not do that again and again in vain.
        if self.has_run {
            self.group.subscribed.send_replace(Subscribed::Lost);
            state.mark_gap();
            state.chunks.interrupt();
        }
    }
}
