//! The driver's part of executing attempts: it takes their assignments, starts and stops their jobs, and takes the ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::{Id, JoinError};
use tokio::time::Instant;

use super::super::assignments::{Effect, End, Event};
use super::super::attempt::{Attempt, JobEnd};
use super::super::batch_job::{BatchEnds, BatchJob};
use super::super::job::Job;
use super::super::key::Key;
use super::WorkerDriver;
use super::jobs::{JobEnds, JobKeys};
use crate::error::Result;
use crate::model::{TaskId, WorkerId, attempt_number, parse_id};
use crate::rpc::convert::{Action, ActionKind, Report, ReportKind};
use crate::workflow::CancelCause;

/// An attempt that the engine has assigned to this worker.
pub(super) struct Assigned {
    /// The worker's id at the time of the assignment.
    pub(super) worker: WorkerId,
    pub(super) action: Action,
    pub(super) at: Instant,
    /// The attempts of a batch.
    pub(super) members: BTreeMap<TaskId, Action>,
}

impl WorkerDriver {
    pub(super) fn on_action(&mut self, action: Action) {
        if action.kind() == ActionKind::StartBatch {
            return self.on_batch(action);
        }
        let event = match (Key::read(&action), action.kind()) {
            (Ok(key), ActionKind::Start) => {
                let slots = self.worker.slots_of(action.name());
                Event::Assigned(
                    key,
                    slots,
                    Assigned { worker: self.id, action, at: Instant::now(), members: BTreeMap::new() },
                )
            }
            (Ok(key), ActionKind::Cancel) => {
                self.earlier.withdraw(key, &mut self.outbox);
                Event::Cancelled(key)
            }
            (Ok(key), kind) => {
                tracing::error!(worker_id = %self.id, ?kind, run_id = %key.run, task_id = %key.task, attempt = key.attempt(), "received an assignment of unknown type");
                Event::AssignedUnknown(key)
            }
            (Err(error), kind) => {
                let attempt = attempt_number(action.retry_count());
                tracing::error!(worker_id = %self.id, run_id = action.run(), task_id = action.task(), attempt, %error, "failed to decode assignment");
                if kind != ActionKind::Start {
                    return;
                }
                Event::AssignedUnreadable
            }
        };
        self.step(event);
    }

    fn on_batch(&mut self, action: Action) {
        let task = self.worker.actions.get(action.name());
        let task_name = task.map(|task| task.definition.name.as_str()).unwrap_or_default();
        let (batch_id, size) = (action.batch().to_owned(), action.batch_size());
        let (action, members) = match action.into_members(task_name) {
            Ok(members) => members,
            Err(error) => {
                tracing::error!(worker_id = %self.id, %error, batch_id, "failed to decode a batch");
                // A batch is never empty.
                return (0..size.max(1)).for_each(|_| self.step(Event::AssignedUnreadable));
            }
        };
        let run = |(task, action): (&TaskId, &Action)| Some((parse_id(action.run()).ok()?, *task));
        let tasks = members.iter().filter_map(run).collect();
        let batch = action.batch().into();
        self.step(Event::AssignedBatch(
            batch,
            tasks,
            Assigned { worker: self.id, action, at: Instant::now(), members },
        ));
    }

    pub(super) fn start_job(&mut self, key: Key, Assigned { worker, action, at, .. }: Assigned) {
        let task = self.worker.actions.get(action.name()).cloned();
        let environment = self.resources.environment(&self.worker, worker);
        let attempt = self.start_attempt(worker, key, action, at);
        self.jobs.start(Job { environment, attempt, task });
    }

    pub(super) fn start_batch(&mut self, keys: Vec<Key>, Assigned { worker, action, at, mut members }: Assigned) {
        let task = self.worker.actions.get(action.name()).cloned();
        let mut attempts = Vec::with_capacity(keys.len());
        for key in &keys {
            if let Some(action) = members.remove(&key.task) {
                attempts.push(self.start_attempt(worker, *key, action.with_retry_count(key.retry_count), at));
            }
        }
        let environment = self.resources.environment(&self.worker, worker);
        self.jobs.start_batch(keys, BatchJob { environment, batch: action, attempts, task });
    }

    /// Reports that an attempt starts, and makes it possible to stop it.
    fn start_attempt(&mut self, worker: WorkerId, key: Key, action: Action, assigned_at: Instant) -> Attempt {
        let now = self.worker.client.clock().now();
        self.outbox.add(key, Report::new(worker, &action, ReportKind::Started, now, String::new()));
        let timeout = self.worker.actions.get(action.name()).map(|task| task.definition.timeout()).unwrap_or_default();
        self.checks.attempt_started(assigned_at, key, timeout);
        Attempt { key, action: Arc::new(action), assigned_at, stop: self.jobs.add_stop(key) }
    }

    pub(super) fn on_ended(&mut self, ended: Result<(Id, JobEnds), JoinError>) {
        match ended {
            Ok((id, ends)) => {
                self.jobs.remove(id);
                match ends {
                    JobEnds::One(end) => self.on_attempt_ended(end),
                    JobEnds::Batch(BatchEnds { ended, failed }) => {
                        if let Some(failed) = failed {
                            self.jobs.start_failed(failed);
                        }
                        for end in ended {
                            self.on_attempt_ended(end);
                        }
                    }
                }
            }
            Err(error) => {
                let (batch, keys) = match self.jobs.remove(error.id()) {
                    Some(JobKeys::One(key)) => (None, vec![key]),
                    Some(JobKeys::Batch(batch, keys)) => (Some(batch), keys),
                    None => return,
                };
                // A job that ends in this way has returned none of their ends.
                for key in keys {
                    if error.is_panic() {
                        self.on_panicked(key, batch.as_deref(), &error);
                    } else {
                        self.on_attempt_ended(JobEnd { key, end: End::Dropped, report: None });
                    }
                }
            }
        }
    }

    /// Panics of tasks are caught inside the job. This one comes from a layer of `tracing`, for example.
    fn on_panicked(&mut self, key: Key, batch: Option<&str>, error: &JoinError) {
        tracing::error!(worker_id = %self.id, run_id = %key.run, task_id = %key.task, attempt = key.attempt(), %error, "code around a task panicked");
        let (now, text) = (self.worker.client.clock().now(), format!("the worker panicked: {error}"));
        let report = Report::of_attempt(self.id, key.task, key.retry_count, ReportKind::Failed, now, text);
        let report = match batch {
            Some(batch) => report.in_batch(batch),
            None => report,
        };
        self.on_attempt_ended(JobEnd { key, end: End::Finished, report: Some(report) });
    }

    pub(super) fn stop_attempt(&mut self, key: &Key, cause: CancelCause) {
        self.checks.attempt_ended(key);
        self.jobs.stop(key, cause);
    }

    fn on_attempt_ended(&mut self, JobEnd { key, end, report }: JobEnd) {
        self.jobs.attempt_ended(&key);
        self.checks.attempt_ended(&key);
        let effects = self.assignments.step(Event::Ended(key, end));
        let is_reported = effects.iter().any(|effect| matches!(effect, Effect::Report(_)));
        if let Some(report) = report.filter(|_| is_reported) {
            self.outbox.add(key, report);
        }
        self.apply(effects);
    }
}
