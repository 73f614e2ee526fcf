//! The jobs of running attempts, and the ways to stop them.

use std::sync::Arc;

use tokio::task::{Id, JoinError, JoinSet};

use super::super::attempt::JobEnd;
use super::super::batch_job::{BatchEnds, BatchJob, Failed};
use super::super::job::Job;
use super::super::key::{Key, KeyMap};
use crate::workflow::{CancelCause, Stop};

/// The tasks of the runtime that run attempts. They are aborted when this is dropped.
#[derive(Default)]
pub(super) struct Jobs {
    tasks: JoinSet<JobEnds>,
    /// The attempts of each job, for one that ends without their ends.
    keys: KeyMap<Id, JobKeys>,
    stops: KeyMap<Key, Stop>,
}

/// The attempts of a job.
pub(super) enum JobKeys {
    One(Key),
    /// With the id of the batch.
    Batch(Arc<str>, Vec<Key>),
}

/// The ends of the attempts of a job.
pub(super) enum JobEnds {
    One(JobEnd),
    Batch(BatchEnds),
}

impl Jobs {
    pub(super) fn start(&mut self, job: Job) {
        let key = job.attempt.key;
        let id = self.tasks.spawn(async { JobEnds::One(job.run().await) }).id();
        self.keys.insert(id, JobKeys::One(key));
    }

    pub(super) fn start_batch(&mut self, keys: Vec<Key>, job: BatchJob) {
        let batch = job.batch.batch().into();
        // Boxed, because the futures of all jobs are as large as the largest.
        let job = Box::pin(job.run());
        let id = self.tasks.spawn(async { JobEnds::Batch(job.await) }).id();
        self.keys.insert(id, JobKeys::Batch(batch, keys));
    }

    /// Waits for the ends of attempts of a batch that need calls, as a job of their own.
    pub(super) fn start_failed(&mut self, Failed { batch, keys, ends }: Failed) {
        let ends = async { JobEnds::Batch(BatchEnds { ended: ends.await, failed: None }) };
        self.keys.insert(self.tasks.spawn(ends).id(), JobKeys::Batch(batch, keys));
    }

    /// Returns the next job that has ended, or `None` if there are no jobs. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Result<(Id, JobEnds), JoinError>> {
        self.tasks.join_next_with_id().await
    }

    /// Removes a job that has ended, and returns its attempts.
    pub(super) fn remove(&mut self, id: Id) -> Option<JobKeys> {
        self.keys.remove(&id)
    }

    /// Makes it possible to stop an attempt until [`attempt_ended`](Self::attempt_ended).
    pub(super) fn add_stop(&mut self, key: Key) -> Stop {
        let stop = Stop::default();
        self.stops.insert(key, stop.clone());
        stop
    }

    /// Requests that an attempt stops. Nothing happens if it has ended.
    pub(super) fn stop(&self, key: &Key, cause: CancelCause) {
        if let Some(stop) = self.stops.get(key) {
            stop.stop(cause);
        }
    }

    pub(super) fn attempt_ended(&mut self, key: &Key) {
        self.stops.remove(key);
    }

    /// Lets the jobs run on without the worker.
    pub(super) fn detach(&mut self) {
        self.tasks.detach_all();
    }

    /// The number of jobs, and of attempts that can be stopped.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.tasks.len(), self.stops.len())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn the_attempts_of_a_job_that_panicked_are_known_once() {
        let key = Key { run: Uuid::nil().into(), task: Uuid::nil().into(), retry_count: 0 };
        let mut jobs = Jobs::default();
        let ends = Box::pin(async { panic!("as planned") });
        jobs.start_failed(Failed { batch: "b".into(), keys: vec![key], ends });
        let error = jobs.next().await.unwrap().err().unwrap();
        assert!(
            matches!(jobs.remove(error.id()), Some(JobKeys::Batch(batch, keys)) if &*batch == "b" && keys == [key])
        );
        assert!(jobs.remove(error.id()).is_none() && jobs.next().await.is_none());
    }

    #[test]
    fn an_attempt_can_be_stopped_until_it_has_ended() {
        let keys = [1, 2].map(|retry_count| Key { run: Uuid::nil().into(), task: Uuid::nil().into(), retry_count });
        let mut jobs = Jobs::default();
        let stops = keys.map(|key| jobs.add_stop(key));
        jobs.attempt_ended(&keys[0]);
        for key in &keys {
            jobs.stop(key, CancelCause::Shutdown);
        }
        assert_eq!(stops.map(|stop| stop.is_requested()), [false, true]);
    }
}
