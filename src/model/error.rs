//! Errors about runs.

use std::sync::Arc;

use super::{Outcome, RunId, RunStatus};
use crate::error::{Error, ErrorKind, RunDetail};

impl Error {
    /// The server has no such workflow.
    pub(crate) fn workflow_not_found(workflow: &str, source: Self) -> Self {
        let text = format!("the server has no workflow {workflow:?}: start a worker that registers it");
        Self::new(ErrorKind::WorkflowNotFound, text).with_source(source).without_side_effects()
    }

    pub(crate) fn run_not_found(run: RunId) -> Self {
        Self::run_not_found_in("the engine has no run", run)
    }

    /// `text`: what has no such run.
    pub(crate) fn run_not_found_in(text: &str, run: RunId) -> Self {
        Self::new(ErrorKind::RunNotFound, format!("{text} {run}")).with_run(RunDetail::Of(run))
    }

    /// `workflow`: the name of the workflow, if it is known.
    pub(crate) fn run_failed(run: RunId, workflow: Option<&str>, outcome: Outcome) -> Self {
        let text = match workflow {
            Some(workflow) => format!("run {run} of {workflow} {outcome}"),
            None => format!("run {run} {outcome}"),
        };
        let status = outcome.status();
        Self::new(ErrorKind::RunFailed, text).with_run(RunDetail::Ended(run, Arc::new(outcome), status))
    }

    /// The same error, about a run.
    pub(crate) fn of_run(self, run: RunId) -> Self {
        self.within(&format!("run {run}")).with_run(RunDetail::Of(run))
    }

    /// The error for an action that the status of the run does not allow.
    pub(crate) fn run_state(run: RunId, what: &str, status: RunStatus) -> Self {
        let text = format!("run {run} cannot be {what}: its status is {status}");
        Self::new(ErrorKind::RunState, text).with_run(RunDetail::InStatus(run, status)).without_side_effects()
    }

    /// The error for a run that was not started because another run has its idempotency key.
    pub(crate) fn collision(existing: RunId) -> Self {
        let text = format!("nothing was started: run {existing} has the same idempotency key");
        Self::new(ErrorKind::AlreadyExists, text).with_run(RunDetail::Existing(existing)).without_side_effects()
    }

    /// Returns the id of the run that has the same idempotency key, if a run was not started for that reason.
    ///
    /// The kind of the error is then [`ErrorKind::AlreadyExists`].
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, charge: hatchet::Task<(), u64>) -> hatchet::Result<()> {
    /// let run = match hatchet.run(&charge, &()).start().await {
    ///     Ok(run) => run,
    ///     Err(error) => match error.existing_run_id() {
    ///         Some(existing) => hatchet.run_handle(existing).typed(), // started earlier
    ///         None => return Err(error),
    ///     },
    /// };
    /// # Ok(())
    /// # }
    /// ```
    pub fn existing_run_id(&self) -> Option<RunId> {
        match self.run_detail()? {
            RunDetail::Existing(run) => Some(*run),
            _ => None,
        }
    }

    /// Returns how the run ended, if the kind is [`ErrorKind::RunFailed`].
    pub fn outcome(&self) -> Option<&Outcome> {
        match self.run_detail()? {
            RunDetail::Ended(_, outcome, _) => Some(outcome),
            _ => None,
        }
    }

    /// Returns the status of the run, if the kind is [`ErrorKind::RunState`] or [`ErrorKind::RunFailed`].
    pub fn run_status(&self) -> Option<&RunStatus> {
        match self.run_detail()? {
            RunDetail::InStatus(_, status) | RunDetail::Ended(_, _, status) => Some(status),
            RunDetail::Of(_) | RunDetail::Existing(_) => None,
        }
    }

    /// Returns the id of the run that this error is about: the run that failed, that does not exist, or whose output cannot be deserialized.
    pub fn run_id(&self) -> Option<RunId> {
        match self.run_detail()? {
            RunDetail::Of(run) | RunDetail::InStatus(run, _) | RunDetail::Ended(run, ..) => Some(*run),
            RunDetail::Existing(_) => None,
        }
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
        assert_eq!((error.kind(), error.clone().existing_run_id()), (ErrorKind::AlreadyExists, Some(run)));
        assert!(error.has_no_side_effects() && error.run_id().is_none());
    }
}
