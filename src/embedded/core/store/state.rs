//! The whole state of the engine, and the log of what happens to its tasks.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use uuid::Uuid;

use super::batches::Batches;
use super::crons::Crons;
use super::effects::Effect;
use super::events::Events;
use super::families::Families;
use super::filters::EventFilters;
use super::ids::{RunIx, TaskKey};
use super::keys::Keys;
use super::queues::Queues;
use super::rate_limits::RateLimits;
use super::runs::Runs;
use super::schedules::Schedules;
use super::slots::{SharedLimit, Slots};
use super::status_error::StatusError;
use super::streams::Streams;
use super::task::{TaskEvent, TaskEventKind};
use super::timers::{TimerKey, Timers};
use super::turn::At;
use super::versions::Workflows;
use super::workers::Worker;
use crate::embedded::quirks::{Quirk, Quirks};

/// The state of one tenant.
///
/// Commands are methods in `engine`, reads are methods in `views`. All other groups have functions that take the state, so that
/// their dependencies are visible in their imports.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) tenant: Uuid,
    quirks: Quirks,
    pub(in crate::embedded::core) workflows: Workflows,
    pub(in crate::embedded::core) runs: Runs,
    pub(in crate::embedded::core) families: Families,
    pub(in crate::embedded::core) queues: Queues,
    pub(in crate::embedded::core) batches: Batches,
    pub(in crate::embedded::core) workers: BTreeMap<Uuid, Worker>,
    pub(in crate::embedded::core) streams: Streams,
    pub(in crate::embedded::core) timers: Timers,
    pub(in crate::embedded::core) events: Events,
    pub(in crate::embedded::core) event_filters: EventFilters,
    pub(in crate::embedded::core) schedules: Schedules,
    pub(in crate::embedded::core) crons: Crons,
    pub(in crate::embedded::core) keys: Keys,
    pub(in crate::embedded::core) slots: Slots,
    /// The tenant-scoped concurrency limits, by name.
    pub(in crate::embedded::core) shared_limits: BTreeMap<String, SharedLimit>,
    pub(in crate::embedded::core) rate_limits: RateLimits,
    pub(in crate::embedded::core) effects: Vec<Effect>,
    /// Tasks that wait for the end of a pause of their workflows.
    pub(in crate::embedded::core) paused: BTreeSet<TaskKey>,
    /// Tasks of DAGs that wait for sleeps or events.
    pub(in crate::embedded::core) waiting: BTreeSet<TaskKey>,
    /// The schedule timeouts of tasks that were cancelled while queued and that keep them.
    pub(in crate::embedded::core) kept_timeouts: BTreeMap<TaskKey, TimerKey>,
    /// When the replays of the last call are done, if they are delayed.
    pub(in crate::embedded::core) replays_until: Option<At>,
    /// How long runs are kept. `None` means forever.
    pub(in crate::embedded::core) retention: Option<TimeDelta>,
    /// Whether a timer is set that drops old runs.
    pub(in crate::embedded::core) has_retention_timer: bool,
    /// The number of recorded task events.
    event_count: i64,
}

impl Core {
    pub(crate) fn new(tenant: Uuid, quirks: Quirks) -> Self {
        Self {
            tenant,
            quirks,
            workflows: Workflows::default(),
            runs: Runs::default(),
            families: Families::default(),
            queues: Queues::default(),
            batches: Batches::default(),
            workers: BTreeMap::new(),
            streams: Streams::default(),
            timers: Timers::default(),
            events: Events::default(),
            event_filters: EventFilters::default(),
            schedules: Schedules::default(),
            crons: Crons::default(),
            keys: Keys::default(),
            slots: Slots::default(),
            shared_limits: BTreeMap::new(),
            rate_limits: RateLimits::default(),
            effects: Vec::new(),
            paused: BTreeSet::new(),
            waiting: BTreeSet::new(),
            kept_timeouts: BTreeMap::new(),
            replays_until: None,
            retention: None,
            has_retention_timer: false,
            event_count: 0,
        }
    }

    /// How long ended runs are kept, if there is a limit.
    pub(crate) fn retention(&self) -> Option<TimeDelta> {
        self.retention
    }

    /// Drops runs after this long.
    pub(crate) fn with_retention(self, retention: TimeDelta) -> Self {
        Self { retention: Some(retention), ..self }
    }

    /// A core that has only the current state of some runs, to render them outside of the core's task.
    pub(crate) fn snapshot(&self, runs: impl IntoIterator<Item = RunIx>) -> Self {
        Self { runs: self.runs.shared(runs), ..Self::new(self.tenant, self.quirks) }
    }

    pub(crate) fn has(&self, quirk: Quirk) -> bool {
        self.quirks.contains(quirk)
    }

    /// Whether tasks of an action wait for workers.
    pub(in crate::embedded::core) fn has_work(&self, action: &str) -> bool {
        self.queues.has_tasks(action) || self.batches.has_groups(action)
    }

    pub(crate) fn runs(&self) -> &Runs {
        &self.runs
    }

    /// The task with an id that a client sent.
    pub(in crate::embedded::core) fn known_task(&self, task: Uuid) -> Result<TaskKey, StatusError> {
        self.runs.task_key(task).ok_or_else(|| StatusError::not_found(format!("task run not found: {task}")))
    }

    /// Records that something happened to the current attempt of a task.
    pub(in crate::embedded::core) fn record(
        &mut self,
        key: TaskKey,
        kind: TaskEventKind,
        at: At,
        worker: Option<Uuid>,
        message: Option<&str>,
    ) {
        let Some(retry_count) = self.runs.task(key).map(|(_, task)| task.retry_count) else { return };
        self.record_for(key, retry_count, kind, at, worker, message);
    }

    /// Records that something happened to any attempt of a task. Only the first event of a kind and attempt is kept.
    pub(in crate::embedded::core) fn record_for(
        &mut self,
        key: TaskKey,
        retry_count: i32,
        kind: TaskEventKind,
        at: At,
        worker: Option<Uuid>,
        message: Option<&str>,
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
            message: message.map(Into::into),
        });
    }
}
