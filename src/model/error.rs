//! What errors have to say about runs.

use super::{Outcome, RunId, RunStatus};
use crate::error::{Error, ErrorKind};

/// Which run an error is about, and what is known of it.
struct About {
    run: RunId,
    status: Option<RunStatus>,
    outcome: Option<Outcome>,
}

/// The run that has the key which another one should have had.
struct Existing(RunId);

impl Error {
    pub(crate) fn run_not_found(run: RunId) -> Self {
        Self::new(ErrorKind::RunNotFound, format!("the engine has no run {run}")).with_about(About {
            run,
            status: None,
            outcome: None,
        })
    }

    /// `workflow`: the name of the workflow, if it is known.
    pub(crate) fn run_failed(run: RunId, workflow: Option<&str>, outcome: Outcome) -> Self {
        let text = match workflow {
            Some(workflow) => format!("run {run} of {workflow} {outcome}"),
            None => format!("run {run} {outcome}"),
        };
        Self::new(ErrorKind::RunFailed, text).with_about(About {
            run,
            status: Some(outcome.status()),
            outcome: Some(outcome),
        })
    }

    /// The same, about a run.
    pub(crate) fn of_run(self, run: RunId) -> Self {
        self.within(&format!("run {run}")).with_about(About { run, status: None, outcome: None })
    }

    /// A refusal to do something to a run that is in this state.
    pub(crate) fn run_state(run: RunId, what: &str, status: RunStatus) -> Self {
        Self::new(ErrorKind::RunState, format!("run {run} cannot be {what}: it is {status}"))
            .with_about(About { run, status: Some(status), outcome: None })
            .unsent()
    }

    /// A run that was not started, since another one has its idempotency key.
    pub(crate) fn collision(existing: RunId) -> Self {
        let text = format!("nothing was started: run {existing} has the same idempotency key");
        Self::new(ErrorKind::AlreadyExists, text).with_about(Existing(existing)).unsent()
    }

    /// The run that has the idempotency key, if that is why another one was not started. Its
    /// [`kind`](Self::kind) is [`ErrorKind::AlreadyExists`] then.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, charge: hatchet::Task<(), u64>) -> hatchet::Result<()> {
    /// let started = hatchet.run(&charge, &()).start().await;
    /// let run = match (&started, started.as_ref().err().and_then(hatchet::Error::existing_run)) {
    ///     (_, Some(existing)) => hatchet.run_handle(existing), // begun before, by whoever: that one will do
    ///     _ => started?,
    /// };
    /// # Ok(())
    /// # }
    /// ```
    pub fn existing_run(&self) -> Option<RunId> {
        self.about::<Existing>().map(|existing| existing.0)
    }

    /// How the run ended, if this error is [`ErrorKind::RunFailed`].
    pub fn outcome(&self) -> Option<&Outcome> {
        self.about::<About>()?.outcome.as_ref()
    }

    /// The state of the run, if this error is [`ErrorKind::RunState`] or [`ErrorKind::RunFailed`].
    pub fn run_status(&self) -> Option<&RunStatus> {
        self.about::<About>()?.status.as_ref()
    }

    /// The run that this error is about: the one that failed, that does not exist, or whose output cannot be read.
    pub fn run_id(&self) -> Option<RunId> {
        self.about::<About>().map(|about| about.run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_about_a_run_names_it_and_so_does_its_copy() {
        let run: RunId = "00000000-0000-4000-8001-000000000001".parse().unwrap();
        let error = Error::run_not_found(run);
        assert_eq!(error.clone().run_id(), Some(run));
        assert!(error.is_not_found() && error.outcome().is_none());
    }

    #[test]
    fn a_collision_names_the_run_that_won() {
        let run: RunId = "00000000-0000-4000-8001-000000000001".parse().unwrap();
        let error = Error::collision(run);
        assert_eq!((error.kind(), error.clone().existing_run()), (ErrorKind::AlreadyExists, Some(run)));
        assert!(error.never_reached_server() && error.run_id().is_none());
    }
}
