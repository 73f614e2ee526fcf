//! The engine itself: a deterministic state machine. Commands, the time and random numbers in; effects and the time of the
//! next timer out. No runtime, no locks, no I/O.
//!
//! Each command is a method that takes a [`Turn`]. What it wants done outside is collected, and taken with
//! [`Core::effects`]. [`Core::advance`] fires the timers that are due.

mod cancels;
mod children;
pub(crate) mod conditions;
mod cron;
pub(crate) mod crons;
mod dag;
mod definitions;
mod duration;
pub(crate) mod event_filters;
pub(crate) mod events;
pub(crate) mod expression;
pub(crate) mod filters;
pub(crate) mod idempotency;
pub(crate) mod json;
mod lifecycle;
mod logs;
mod pattern;
mod placement;
mod queue;
mod refresh;
mod replays;
mod reports;
pub(crate) mod rules;
pub(crate) mod schedules;
pub(crate) mod store;
mod streams;
#[cfg(test)]
mod tests;
mod timers;
mod triggers;
pub(crate) mod types;
mod views;
pub(crate) mod workers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use self::children::Families;
use self::crons::Crons;
use self::definitions::Definitions;
use self::event_filters::EventFilters;
use self::events::Events;
use self::idempotency::Keys;
use self::queue::Queues;
use self::schedules::Schedules;
use self::store::{LogLine, RunIx, Runs, TaskEvent, TaskEventKind, TaskKey};
use self::streams::Streams;
use self::timers::{Timer, Timers};
use self::types::{Action, At, Effect, Turn};
use self::workers::Worker;
use super::quirks::{Quirk, Quirks};

pub(crate) use self::views::{RestStatus, TaskView, WorkflowView, shown_by_rest, stored_payload};

/// The maximum number of timers that fire in one turn. A core with more due timers is behind, and must still answer.
const MAX_TIMERS_PER_TURN: usize = 256;

/// The whole state of one tenant of the engine.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) tenant: Uuid,
    quirks: Quirks,
    definitions: Definitions,
    runs: Runs,
    families: Families,
    queues: Queues,
    workers: BTreeMap<Uuid, Worker>,
    streams: Streams,
    timers: Timers,
    events: Events,
    event_filters: EventFilters,
    schedules: Schedules,
    crons: Crons,
    keys: Keys,
    effects: Vec<Effect>,
    /// Tasks of DAGs that wait for sleeps or events.
    waiting: BTreeSet<TaskKey>,
    /// When the replays of the last call are through, if they take their time.
    replays_until: Option<At>,
    /// Numbers for events, in the order they are recorded.
    event_count: i64,
}

impl Core {
    pub(crate) fn new(tenant: Uuid, quirks: Quirks) -> Self {
        Self {
            tenant,
            quirks,
            definitions: Definitions::default(),
            runs: Runs::default(),
            families: Families::default(),
            queues: Queues::default(),
            workers: BTreeMap::new(),
            streams: Streams::default(),
            timers: Timers::default(),
            events: Events::default(),
            event_filters: EventFilters::default(),
            schedules: Schedules::default(),
            crons: Crons::default(),
            keys: Keys::default(),
            effects: Vec::new(),
            waiting: BTreeSet::new(),
            replays_until: None,
            event_count: 0,
        }
    }

    /// A core with the current state of some runs only, to render them outside of the core's task.
    pub(crate) fn snapshot(&self, runs: impl IntoIterator<Item = RunIx>) -> Self {
        Self { runs: self.runs.shared(runs), ..Self::new(self.tenant, self.quirks) }
    }

    pub(crate) fn has(&self, quirk: Quirk) -> bool {
        self.quirks.has(quirk)
    }

    pub(crate) fn runs(&self) -> &Runs {
        &self.runs
    }

    /// What the turns since the last call want done.
    pub(crate) fn effects(&mut self) -> std::vec::Drain<'_, Effect> {
        self.effects.drain(..)
    }

    /// When there is something to do by itself.
    pub(crate) fn next_timer(&self) -> Option<At> {
        self.timers.next()
    }

    /// Runs due timers, but no more than fit into one turn. If there are more, [`next_timer`](Self::next_timer) is still in the past.
    pub(crate) fn advance(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..MAX_TIMERS_PER_TURN {
            let Some(timer) = self.timers.due(turn.now) else { return };
            match timer {
                Timer::Execution(task) => self.execution_timeout(turn, task),
                Timer::Schedule(task) => self.schedule_timeout(turn, task),
                Timer::TimedOutCancel(task, retry_count) => self.time_out_cancelled(turn, task, retry_count),
                Timer::Requeue(task) => self.requeue(turn, task),
                Timer::Silence(worker) => self.silence(turn, worker),
                Timer::Poll(stream) => self.poll(turn, stream),
                Timer::Attach(stream) => self.attach(turn, stream),
                Timer::Replay(replay) => self.replay_now(turn, replay),
                Timer::Offer(task) => self.offer(turn, task),
                Timer::Cancel(id) => self.cancel_one(turn, id),
                Timer::Wake(task, condition) => self.wake(turn, task, condition),
                Timer::EarlyEnd(run) => self.early_end(turn, run),
                Timer::Scheduled(schedule) => {
                    self.start_scheduled(turn, schedule);
                }
                Timer::Cron(cron) => self.fire_cron(turn, cron),
            }
        }
    }

    /// Records that something happened to the current attempt of a task.
    fn record(&mut self, key: TaskKey, kind: TaskEventKind, at: At, worker: Option<Uuid>, text: Option<&str>) {
        let Some(retry_count) = self.runs.task(key).map(|(_, task)| task.retry_count) else { return };
        self.record_for(key, retry_count, kind, at, worker, text);
    }

    /// The same for any attempt. Of one kind and attempt, the first is kept.
    fn record_for(
        &mut self,
        key: TaskKey,
        retry_count: i32,
        kind: TaskEventKind,
        at: At,
        worker: Option<Uuid>,
        text: Option<&str>,
    ) {
        let Some(task) = self.runs.task_mut(key) else { return };
        if task.events.iter().any(|event| event.kind == kind && event.retry_count == retry_count) {
            return;
        }
        self.event_count += 1;
        task.events.push(TaskEvent {
            number: self.event_count,
            kind,
            retry_count,
            at,
            worker,
            text: text.map(Into::into),
        });
    }

    /// Of a task that is assigned as soon as it is queued, the engine may stamp the first after the second.
    fn stamp_late(&mut self, turn: &mut Turn<'_>, key: TaskKey) {
        let Some(task) = self.runs.task_mut(key).filter(|_| self.quirks.has(Quirk::LateStamps)) else { return };
        let retry_count = task.retry_count;
        let is_it = |event: &&mut TaskEvent| {
            event.kind == TaskEventKind::Queued && event.retry_count == retry_count && event.at == turn.now
        };
        if let Some(queued) = task.events.iter_mut().find(is_it)
            && turn.coin()
        {
            queued.at += Duration::from_millis(3);
        }
    }

    /// What a worker is told about the current attempt of a task.
    fn action(&self, key: TaskKey, cancel: bool) -> Option<Action> {
        let (run, task) = self.runs.task(key)?;
        let step = run.step(task)?;
        Some(Action {
            cancel,
            run: run.id,
            task: task.id,
            step: step.id,
            readable_id: Arc::clone(&step.readable_id),
            name: Arc::clone(&step.action),
            payload: if cancel { String::new() } else { views::payload(run, task) },
            retry_count: task.retry_count,
            metadata: run.metadata.to_string(),
            priority: run.priority.into(),
            workflow: run.version.workflow,
            version: run.version.id,
            parent: run.parent().cloned(),
            event: run.special.as_ref().and_then(|special| special.event.clone()),
        })
    }
}

/// Lines per task, or `None` for a task that does not exist.
impl Core {
    pub(crate) fn logs(&self, task: Uuid) -> Option<&[LogLine]> {
        let (_, task) = self.runs.task(self.runs.task_key(task)?)?;
        Some(&task.logs)
    }
}

type Index<K> = HashMap<K, Vec<types::StreamId>>;
