//! Follows one run: waits for notifications, fetches the run, and passes both to the pure core.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, sleep, sleep_until};

use super::outage::Outage;
use super::step::{Next, Observation, Progress, Step};
use crate::client::Client;
use crate::error::{ErrorKind, Result};
use crate::feed::{
    CLIENT_KEY, Fetcher, Listing, Membership, Notifications, Question, Subscription, Tag, Turns, Wanted,
};
use crate::model::{Change, RunDetails, RunId, RunStatus, TaskId, WorkflowId};
use crate::observe::{RunFetch, if_found};
use crate::run::RunHandle;
use crate::runtime::{self, Needs};
use crate::time::Reservation;

/// How long a fetch follows an announcement: REST shows a change a moment later, and often two changes are announced together.
const EVENT_DELAY: Duration = Duration::from_millis(50);
/// A run that this client has started for less than this has probably not ended.
const NEW_RUN_AGE: Duration = Duration::from_secs(1);
/// The intervals between checks of a run without notifications grow from the first to the last. Runs have no notifications if they were not
/// started by this crate, or if there are too many clients that have started some.
const FIRST_CHECK_INTERVAL: Duration = Duration::from_millis(50);
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// The run that is watched.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub(super) client: Client,
    pub(super) run: RunId,
    /// The attempt whose end is the end of the watch.
    pub(super) from_attempt: u32,
    /// When this client started the run, if it did.
    pub(super) started_at: Option<Instant>,
    /// Whether nobody can have watched the run before. Its events were not taken then.
    pub(super) is_first: bool,
    /// Whether the run is known to be a DAG run.
    pub(super) is_dag: bool,
    /// When the engine created the run, if that is known.
    pub(super) created_at: Option<DateTime<Utc>>,
    /// The group whose notifications include the run, if it is known.
    pub(super) membership: Option<Membership>,
    /// The turns of the stream, if it has several runs.
    pub(super) turns: Option<Turns>,
}

impl Watched {
    pub(super) fn of<O>(run: &RunHandle<O>) -> Self {
        Self {
            client: run.client().clone(),
            run: run.id(),
            from_attempt: run.first_attempt(),
            started_at: run.started_at(),
            is_first: false,
            is_dag: run.is_dag(),
            created_at: None,
            membership: None,
            turns: None,
        }
    }
}

/// What a watch shares with its stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared {
    /// The ignored updates of this watch, and of the others in the same stream.
    pub(super) ignored: Arc<AtomicU64>,
    pub(super) follows_replays: Arc<AtomicBool>,
}

pub(super) struct Follower {
    watched: Watched,
    shared: Shared,
    progress: Progress,
    /// The ignored updates that are counted in `shared`.
    ignored: u64,
    next: Option<Next>,
    /// Whether the run was fetched.
    has_details: bool,
    /// The fetch that is put off, for [`Next::FetchAfter`] and [`Next::Precaution`].
    later: Option<Later>,
    subscription: Option<Subscription>,
    /// Notifications that were not used yet, because REST had never responded.
    created: Option<(TaskId, Option<DateTime<Utc>>)>,
    /// The fetches that have failed one after the other.
    outage: Outage,
    check_interval: Duration,
    of_workflow: WorkflowList,
    last_check: Option<Fingerprint>,
    /// The workflow, and when the run was created, for a run without notifications.
    workflow: Option<(WorkflowId, DateTime<Utc>)>,
    ready: VecDeque<Change>,
    has_ended: bool,
}

/// Whether the notifications are those of the workflow of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WorkflowList {
    Unused,
    Used,
    /// They are, and their list does not show the run, so that the run must be checked.
    LacksRun,
}

/// A fetch that is put off.
#[derive(Debug)]
struct Later {
    next: Next,
    at: Instant,
    /// For a precaution: its place among those of other runs, from that time on.
    reservation: Option<Reservation>,
}

impl Later {
    fn new(next: Next, at: Instant) -> Self {
        Self { next, at, reservation: None }
    }

    /// Waits until the fetch may be sent. Cancel safe. `fetcher`: for a fetch that is a precaution.
    async fn may_fetch(&mut self, fetcher: Option<&Fetcher>) {
        sleep_until(self.at).await;
        if let Some(fetcher) = fetcher {
            self.reservation.get_or_insert_with(|| fetcher.reserve_precaution()).pass().await;
        }
    }
}

/// What REST shows of the tasks of a run. If it changes, the run has changed.
type Fingerprint = (RunStatus, Vec<(TaskId, RunStatus, u32)>);

impl Follower {
    pub(super) fn new(watched: Watched, shared: Shared) -> Self {
        let progress = Progress::new(watched.run, watched.from_attempt, watched.started_at);
        Self {
            watched,
            shared,
            progress,
            ignored: 0,
            next: None,
            has_details: false,
            later: None,
            subscription: None,
            created: None,
            outage: Outage::default(),
            check_interval: FIRST_CHECK_INTERVAL,
            of_workflow: WorkflowList::Unused,
            last_check: None,
            workflow: None,
            ready: VecDeque::new(),
            has_ended: false,
        }
    }

    pub(super) async fn next(&mut self) -> Option<Result<Change>> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Some(Ok(change));
            }
            if self.has_ended {
                return None;
            }
            // What failed is a fetch, which is repeated.
            if let Err(error) = self.advance().await
                && let Err(error) = self.outage.pause(&self.watched.client, error).await
            {
                self.has_ended = true;
                // In a stream of several runs, this is the error of one of them.
                // The end of the client is not about the run.
                let is_named = error.run_id().is_some() || error.kind() == ErrorKind::Closed;
                return Some(Err(if is_named { error } else { error.of_run(self.watched.run) }));
            }
        }
    }

    /// Does what is next: the first time, it subscribes to the notifications of the run.
    async fn advance(&mut self) -> Result<()> {
        match self.next {
            None => self.start(),
            Some(Next::End) => {
                self.has_ended = true;
                Ok(())
            }
            Some(Next::Fetch) => self.fetch().await,
            Some(next @ (Next::FetchAfter(delay) | Next::Precaution(delay))) => {
                let later = self.later.get_or_insert_with(|| Later::new(next, Instant::now() + delay));
                // The engine announces nothing of the runs of a workflow, so that their fetches are no mere precaution.
                let is_precaution = matches!(next, Next::Precaution(_)) && self.of_workflow == WorkflowList::Unused;
                let fetcher = is_precaution.then_some(&self.watched.client.feed().fetcher);
                match &self.subscription {
                    None => later.may_fetch(None).await,
                    Some(subscription) => tokio::select! {
                        biased;
                        notifications = subscription.next(Wanted::End) => {
                            let later = self.later.take();
                            self.take_notifications(&notifications, later);
                            return Ok(());
                        }
                        () = later.may_fetch(fetcher) => {}
                    },
                }
                self.set_next(Next::Fetch);
                Ok(())
            }
            Some(wait @ (Next::List | Next::WaitForStart | Next::WaitForEnd)) => match &self.subscription {
                None => self.check().await,
                Some(_) if self.of_workflow == WorkflowList::LacksRun => {
                    self.check_now().await;
                    self.of_workflow = WorkflowList::Used;
                    Ok(())
                }
                Some(subscription) => {
                    let wanted = match wait {
                        Next::List => Wanted::List,
                        Next::WaitForStart => Wanted::Start,
                        _ => Wanted::End,
                    };
                    let notifications = subscription.next(wanted).await;
                    self.take_notifications(&notifications, None);
                    Ok(())
                }
            },
        }
    }

    fn start(&mut self) -> Result<()> {
        runtime::require("a watch", Needs::Timers)?;
        if self.shared.follows_replays.load(Relaxed) {
            self.progress.follow_replays();
        }
        // The subscription starts before the first fetch, so nothing falls between the two.
        let client = &self.watched.client;
        let membership = self.watched.membership.take();
        let is_own = self.watched.started_at.is_some();
        let membership = membership.or_else(|| is_own.then(|| client.feed().events.join(client.feed().tag())));
        let age = self.watched.started_at.map(|at| at.elapsed());
        if let Some(membership) = membership {
            let age = age.unwrap_or_default();
            let created_at = self.watched.created_at.unwrap_or_else(|| engine_time(client) - age);
            self.subscription = Some(membership.subscribe(self.watched.run, created_at));
        }
        let is_new = age.is_some_and(|age| age < NEW_RUN_AGE);
        self.set_next(match &self.subscription {
            // The event of its creation comes, or a list that shows the start. Another watch can have taken it, and the run can have ended.
            Some(subscription) if is_new && (self.watched.is_first || subscription.has_notifications()) => {
                Next::WaitForStart
            }
            Some(_) => Next::List,
            None => Next::Fetch,
        });
        Ok(())
    }

    fn set_next(&mut self, next: Next) {
        self.next = Some(next);
        self.later = None;
    }

    fn take_step(&mut self, step: Step) {
        if !step.changes.is_empty() {
            self.check_interval = FIRST_CHECK_INTERVAL;
        }
        self.ready.extend(step.changes);
        let before = std::mem::replace(&mut self.ignored, self.progress.ignored_updates());
        self.shared.ignored.fetch_add(self.ignored.saturating_sub(before), Relaxed);
        self.set_next(step.next);
    }

    /// Takes notifications. `later`: the fetch that was put off.
    fn take_notifications(&mut self, notifications: &Notifications, later: Option<Later>) {
        let now = Instant::now();
        // The clock of the engine may not have been known when the run was started.
        if let (Some(subscription), Some(started_at)) = (&mut self.subscription, self.watched.started_at) {
            subscription.list_since(engine_time(&self.watched.client) - started_at.elapsed());
        }
        self.created = self.created.or(notifications.created);
        let has_rest = self.watched.client.rpc().rest.has_responded();
        // A client that can only reach gRPC gets the error of a fetch, and no states before it.
        if has_rest && let Some((task, at)) = self.created.take() {
            let step = self.progress.step(now, Observation::Created { task, at });
            self.take_step(step);
        }
        if self.of_workflow != WorkflowList::Unused && notifications.listing == Some(Listing::Unknown) {
            // A check costs less than a fetch.
            self.of_workflow = WorkflowList::LacksRun;
        } else if let Some(listing) = &notifications.listing {
            let has_to_fetch = self.next == Some(Next::Fetch);
            let step = self.progress.step(now, Observation::Listed(listing));
            self.take_step(step);
            if has_to_fetch {
                self.set_next(Next::Fetch);
            }
            let missed = self.progress.missed().filter(|_| notifications.was_lost && self.next != Some(Next::Fetch));
            if let Some(next) = missed {
                self.set_next(next);
            }
        }
        if notifications.has_changed {
            self.progress.announced();
            let soon = now + EVENT_DELAY;
            let at = match later {
                // A precaution may be due, and wait for its turn.
                Some(Later { next: Next::FetchAfter(_), at, .. }) => at.min(soon),
                _ => soon,
            };
            let next = Next::FetchAfter(EVENT_DELAY);
            (self.next, self.later) = (Some(next), Some(Later::new(next, at)));
        } else if let Some(mut later) = later.filter(|_| self.next != Some(Next::Fetch)) {
            if let (Next::Precaution(_), Some(Next::Precaution(delay))) = (later.next, self.next) {
                later.at = later.at.min(now + delay);
            }
            if let Some(reservation) = &mut later.reservation {
                reservation.hasten();
            }
            (self.next, self.later) = (Some(later.next), Some(later));
        }
    }

    /// Fetches the details.
    async fn fetch(&mut self) -> Result<()> {
        if let Some(subscription) = &self.subscription {
            // The fetch is later than these.
            let notifications = subscription.take();
            self.created = self.created.or(notifications.created);
        }
        let Watched { client, run, started_at, is_dag, .. } = &self.watched;
        let (owned, run, started_at) = (client.clone(), *run, *started_at);
        let is_dag = *is_dag || self.progress.is_dag();
        // What a notification has announced does not wait for the others.
        let is_announced = self.has_details || self.subscription.is_some();
        let turns = if is_announced { self.watched.turns.clone() } else { Some(self.turns()) };
        let from_attempt = self.watched.from_attempt;
        let question = Question { run, from_attempt, started_at, workflow: None, results: None, turns };
        let fetch = client.feed().fetcher.details(question, move |_, gate| async move {
            let fetch = RunFetch::new(run).for_reading().for_wait().started_at(started_at).known_dag(is_dag);
            fetch.through(gate).fetch(&owned).await
        });
        let details = fetch.await?;
        self.created = None;
        self.has_details = true;
        self.outage.end();
        if let (Some(subscription), Some(created_at)) = (&mut self.subscription, details.created_at) {
            subscription.list_since(created_at);
        }
        self.join(&details);
        let step = self.progress.step(Instant::now(), Observation::Details(&details));
        self.take_step(step);
        Ok(())
    }

    /// The turns for requests that nothing has announced.
    fn turns(&self) -> Turns {
        self.watched.turns.clone().unwrap_or_else(|| self.watched.client.feed().fetcher.unannounced_turns())
    }

    /// Joins the group of the client that started the run, or one with another of its tags.
    fn join(&mut self, details: &RunDetails) {
        if self.subscription.is_some() || details.outcome.is_some() {
            return;
        }
        let client = &self.watched.client;
        let tag = |(key, value): (&String, &serde_json::Value)| -> Option<Tag> {
            Some((key.clone(), value.as_str()?.to_owned()))
        };
        let of_client = details.engine_metadata.get_key_value(CLIENT_KEY).and_then(tag);
        let group = match of_client {
            Some(tag) => client.feed().events.try_join(&tag),
            // Another SDK has started it. Its other tags may be its own, so only those are used that others use already.
            None => details.metadata.iter().filter_map(tag).find_map(|tag| client.feed().events.join_existing(&tag)),
        };
        let created_at = details.created_at.unwrap_or_else(|| engine_time(client));
        self.workflow = details.workflow_id.map(|workflow| (workflow, created_at));
        self.subscription = group.map(|group| group.subscribe(details.id, created_at));
    }

    /// Checks a run without notifications after a while. If it takes long, one list for all runs of its workflow replaces the checks.
    async fn check(&mut self) -> Result<()> {
        if self.check_interval >= MAX_CHECK_INTERVAL
            && let Some((workflow, created_at)) = self.workflow
            && let Some(group) = self.watched.client.feed().events.try_join_workflow(workflow)
        {
            self.subscription = Some(group.subscribe(self.watched.run, created_at));
            self.of_workflow = WorkflowList::Used;
            // What has changed since the last check.
            self.set_next(Next::Fetch);
            return Ok(());
        }
        sleep(self.check_interval).await;
        self.check_interval = (self.check_interval * 2).min(MAX_CHECK_INTERVAL);
        self.check_now().await;
        Ok(())
    }

    /// Fetches the run if it has changed since the last check. That costs one request.
    async fn check_now(&mut self) {
        let (owned, run) = (self.watched.client.clone(), self.watched.run);
        let gate = owned.feed().fetcher.gate().with_turns(Some(self.turns()));
        let request = async move {
            let _permit = gate.pass(1).await;
            if_found(owned.rpc().rest.run(run).await)
        };
        // A fetch reports an error in its own way.
        let found = self.watched.client.feed().fetcher.spawn(request).await.ok().flatten();
        let fingerprint = found.map(|found| {
            let tasks =
                found.tasks.iter().map(|task| (task.task_external_id, task.status.clone(), task.retry_count_or_zero()));
            (found.run.status, tasks.collect())
        });
        if fingerprint.is_none() || fingerprint != self.last_check {
            self.last_check = fingerprint;
            self.set_next(Next::Fetch);
        }
    }
}

/// The time by the engine's clock, as far as it is known. The clock of the client can be set while a watch runs.
pub(super) fn engine_time(client: &Client) -> DateTime<Utc> {
    client.rpc().rest.clock().time(client.clock().now())
}

#[cfg(test)]
mod tests;
