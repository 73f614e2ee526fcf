//! What errors have to say about runs.

use super::{Outcome, RunId, RunStatus};
use crate::error::{Error, ErrorKind};

/// Which run an error is about, and what is known of it.
struct About {
    run: RunId,
    status: Option<RunStatus>,
    outcome: Option<Outcome>,
}

impl Error {
    pub(crate) fn run_not_found(run: RunId) -> Self {
        Self::new(ErrorKind::RunNotFound, format!("the engine has no run {run}")).with_about(About {
            run,
            status: None,
            outcome: None,
        })
    }

    pub(crate) fn run_failed(run: RunId, outcome: Outcome) -> Self {
        Self::new(ErrorKind::RunFailed, format!("run {run} {outcome}")).with_about(About {
            run,
            status: Some(outcome.status()),
            outcome: Some(outcome),
        })
    }

    /// A refusal to do something to a run that is in this state.
    pub(crate) fn run_state(run: RunId, what: &str, status: RunStatus) -> Self {
        Self::new(ErrorKind::RunState, format!("run {run} cannot be {what}: it is {status}"))
            .with_about(About { run, status: Some(status), outcome: None })
            .unsent()
    }

    /// How the run ended, if this error is [`ErrorKind::RunFailed`].
    pub fn outcome(&self) -> Option<&Outcome> {
        self.about::<About>()?.outcome.as_ref()
    }

    /// The state of the run, if this error is [`ErrorKind::RunState`] or [`ErrorKind::RunFailed`].
    pub fn run_status(&self) -> Option<&RunStatus> {
        self.about::<About>()?.status.as_ref()
    }

    /// The run that this error is about: the one that failed, or the one that does not exist.
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
        assert_eq!(error.duplicate().run_id(), Some(run));
        assert!(error.is_not_found() && error.outcome().is_none());
    }
}
