//! The driver's part of running attempts: it starts their jobs, and takes their ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::{Id, JoinError};
use tokio::time::Instant;

use super::super::assignments::{Effect, End, Event};
use super::super::attempt::{Attempt, Environment, JobEnd};
use super::super::batch_job::{BatchEnds, BatchJob};
use super::super::job::Job;
use super::super::key::Key;
use super::WorkerDriver;
use crate::error::Result;
use crate::model::{TaskId, WorkerId};
use crate::rpc::convert::{Action, Report, ReportKind};
use crate::workflow::{Stop, WorkerLabels};

/// An attempt that the engine has assigned to this worker.
pub(super) struct Assigned {
    /// The worker's id at the time of the assignment.
    pub(super) worker: WorkerId,
    pub(super) action: Action,
    pub(super) at: Instant,
    /// The attempts of a batch.
    pub(super) members: BTreeMap<TaskId, Action>,
}

/// The attempts of a job.
pub(super) enum JobKeys {
    One(Key),
    Batch(Vec<Key>),
}

/// The ends of the attempts of a job.
#[expect(clippy::large_enum_variant, reason = "nearly all jobs have one attempt, whose end would be allocated")]
pub(super) enum JobEnds {
    One(JobEnd),
    Batch(BatchEnds),
}

impl WorkerDriver {
    pub(super) fn start_job(&mut self, key: Key, Assigned { worker, action, at, .. }: Assigned) {
        let task = self.worker.actions.get(action.name()).cloned();
        let (environment, attempt) = (self.environment(worker), self.start_attempt(worker, key, action, at));
        let job = Job { environment, attempt, task };
        let id = self.jobs.spawn(async { JobEnds::One(job.run().await) }).id();
        self.keys.insert(id, JobKeys::One(key));
    }

    pub(super) fn start_batch(&mut self, keys: Vec<Key>, Assigned { worker, action, at, mut members }: Assigned) {
        let task = self.worker.actions.get(action.name()).cloned();
        let mut attempts = Vec::with_capacity(keys.len());
        for key in &keys {
            if let Some(action) = members.remove(&key.task) {
                attempts.push(self.start_attempt(worker, *key, action.with_retry_count(key.retry_count), at));
            }
        }
        let job = BatchJob { environment: self.environment(worker), batch: action, attempts, task };
        // Boxed, because the futures of all jobs are as large as the largest.
        let job = Box::pin(job.run());
        let id = self.jobs.spawn(async { JobEnds::Batch(job.await) }).id();
        self.keys.insert(id, JobKeys::Batch(keys));
    }

    fn environment(&self, worker: WorkerId) -> Environment {
        Environment {
            client: self.worker.client.clone(),
            worker,
            labels: WorkerLabels::clone(&self.worker.labels),
            cancel_grace: self.worker.cancel_grace,
            output: self.outputs.output(),
            released: self.release.clone(),
            full_slots: self.full_slots.clone(),
        }
    }

    /// Reports that an attempt starts, and makes it possible to stop it.
    fn start_attempt(&mut self, worker: WorkerId, key: Key, action: Action, assigned_at: Instant) -> Attempt {
        let stop = Stop::default();
        let now = self.worker.client.clock().now();
        self.outbox.add(key, Report::new(worker, &action, ReportKind::Started, now, String::new()));
        self.stops.insert(key, stop.clone());
        let timeout = self.worker.actions.get(action.name()).map(|task| task.definition.timeout()).unwrap_or_default();
        self.checks.attempt_started(assigned_at, key, timeout);
        Attempt { key, action: Arc::new(action), assigned_at, stop }
    }

    pub(super) fn on_ended(&mut self, ended: Result<(Id, JobEnds), JoinError>) {
        match ended {
            Ok((id, ends)) => {
                self.keys.remove(&id);
                match ends {
                    JobEnds::One(end) => self.on_attempt_ended(end),
                    JobEnds::Batch(BatchEnds { ended, failed }) => {
                        if let Some(failed) = failed {
                            let ends = failed.ends;
                            let ends = async { JobEnds::Batch(BatchEnds { ended: ends.await, failed: None }) };
                            self.keys.insert(self.jobs.spawn(ends).id(), JobKeys::Batch(failed.keys));
                        }
                        for end in ended {
                            self.on_attempt_ended(end);
                        }
                    }
                }
            }
            // Panics of tasks are caught inside the job. This one comes from a layer of `tracing`, for example.
            Err(error) => match self.keys.remove(&error.id()) {
                Some(JobKeys::One(key)) if error.is_panic() => {
                    tracing::error!(worker_id = %self.id, run_id = %key.run, task_id = %key.task, attempt = key.attempt(), %error, "code around a task panicked");
                    let (now, text) = (self.worker.client.clock().now(), format!("the worker panicked: {error}"));
                    let report = Report::of_attempt(self.id, key.task, key.retry_count, ReportKind::Failed, now, text);
                    self.on_attempt_ended(JobEnd { key, end: End::Finished, report: Some(report) });
                }
                Some(JobKeys::One(key)) => self.on_dropped(&[key]),
                // Which attempts of a batch have ended is not known.
                Some(JobKeys::Batch(keys)) => self.on_dropped(&keys),
                None => {}
            },
        }
    }

    fn on_dropped(&mut self, keys: &[Key]) {
        for key in keys {
            self.on_attempt_ended(JobEnd { key: *key, end: End::Dropped, report: None });
        }
    }

    fn on_attempt_ended(&mut self, JobEnd { key, end, report }: JobEnd) {
        self.stops.remove(&key);
        self.checks.attempt_ended(&key);
        let effects = self.assignments.step(Event::Ended(key, end));
        let is_reported = effects.iter().any(|effect| matches!(effect, Effect::Report(_)));
        if let Some(report) = report.filter(|_| is_reported) {
            self.outbox.add(key, report);
        }
        self.apply(effects);
    }
}
