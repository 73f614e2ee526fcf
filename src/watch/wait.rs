//! Waiting for runs to end.

use futures_util::TryFutureExt as _;
use futures_util::future::join_all;
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use crate::error::{Error, Result};
use crate::feed::Answer;
use crate::model::{Outcome, RunDetails};
use crate::observe::{RunFetch, resolve_from_stream};
use crate::run::{RunBuilder, RunHandle, RunManyBuilder};
use crate::runtime::{self, Needs};
use crate::transport::retry_delay;

impl<O> RunHandle<O> {
    /// Waits for the run to end, and returns its outcome.
    ///
    /// All waits of a client share one stream, which is reopened when the connection is lost. If the stream does not determine the
    /// outcome (a cancellation, a timeout, or an output that is too large for it), the run is fetched.
    ///
    /// The method needs gRPC only, except for a run that ended without an output and without an error message: only the REST API
    /// reports whether such a run was cancelled or timed out.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if the server cannot be reached for a minute, or immediately if only the REST
    /// API can report the outcome and has never been reached. [`RunNotFound`](crate::ErrorKind::RunNotFound) if the engine does not
    /// report the run within 15 seconds.
    ///
    /// # Cancel safety
    /// This method is cancel safe: dropping the future does not affect the run, and the wait can be started again.
    pub async fn outcome(&self) -> Result<Outcome> {
        runtime::require("a wait", Needs::Timers)?;
        let (client, mut is_new) = (self.client(), self.started_at().is_some());
        let mut workflow = self.workflow().cloned();
        if !is_new {
            // The run may have ended long ago. Then fetching it is faster than the stream.
            let details = RunFetch::new(self.id()).for_wait().for_outcome(workflow.clone(), None).fetch(client).await?;
            workflow = workflow.or_else(|| details.workflow_name.as_deref().map(Into::into));
            if let Some(outcome) = self.outcome_of(details) {
                return Ok(outcome);
            }
        }
        let mut unconfirmed = 0;
        loop {
            let results = match client.feed().results.wait(self.id(), is_new).await? {
                Answer::Results(results) => Some(results),
                Answer::Fetch => None,
            };
            let of_run = results.as_deref().filter(|_| self.is_of_any_attempt());
            if let Some(outcome) = of_run.and_then(|all| resolve_from_stream(self.id(), workflow.as_deref(), all)) {
                return Ok(outcome);
            }
            let fetch = RunFetch::new(self.id()).for_wait().started_at(self.started_at());
            let details = fetch.for_outcome(workflow.clone(), results).fetch(client).await?;
            if let Some(outcome) = self.outcome_of(details) {
                return Ok(outcome);
            }
            // The details do not confirm the end, or it was the end of an earlier attempt: wait for the next one.
            is_new = false;
            unconfirmed += 1;
            sleep(retry_delay(unconfirmed, fastrand::f64())).await;
        }
    }

    fn outcome_of(&self, mut details: RunDetails) -> Option<Outcome> {
        let has_ended = details.has_ended_since(self.first_attempt());
        details.outcome.take_if(|_| has_ended)
    }
}

impl<O: DeserializeOwned> RunHandle<O> {
    /// Waits for the run to end, and returns its output.
    ///
    /// # Errors
    /// [`RunFailed`](crate::ErrorKind::RunFailed) if the run did not complete; [`Error::outcome`] returns the outcome.
    /// [`Decode`](crate::ErrorKind::Decode) if the output does not match the type. All other errors are those of
    /// [`outcome`](Self::outcome).
    ///
    /// # Cancel safety
    /// This method is cancel safe: dropping the future does not affect the run, and the wait can be started again.
    pub async fn result(&self) -> Result<O> {
        match self.outcome().await? {
            Outcome::Completed(completed) => {
                completed.output.parse_as(&"the output").map_err(|error| error.of_run(self.id()))
            }
            other => Err(Error::run_failed(self.id(), self.workflow().map(|name| &**name), other)),
        }
    }
}

impl<O> RunBuilder<O> {
    /// Starts the run, waits for it to end, and returns its outcome.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, greet: hatchet::Task<(), String>) -> hatchet::Result<()> {
    /// println!("the run {}", hatchet.run(&greet, &()).outcome().await?); // the run completed
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`start`](Self::start) and [`RunHandle::outcome`].
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the run may have been started. A run that was
    /// started continues.
    pub fn outcome(self) -> impl Future<Output = Result<Outcome>> {
        // The run was started, so later errors are not without side effects.
        self.start().and_then(async |run| run.outcome().await.map_err(Error::with_possible_side_effects))
    }
}

impl<O: DeserializeOwned> RunBuilder<O> {
    /// Starts the run, waits for it to end, and returns its output.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, greet: hatchet::Task<(), String>) -> hatchet::Result<()> {
    /// println!("{}", hatchet.run(&greet, &()).result().await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`start`](Self::start) and [`RunHandle::result`].
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the run may have been started. A run that was
    /// started continues.
    pub fn result(self) -> impl Future<Output = Result<O>> {
        // The run was started, so later errors are not without side effects.
        self.start().and_then(async |run| run.result().await.map_err(Error::with_possible_side_effects))
    }
}

impl<O> RunManyBuilder<O> {
    /// Starts the runs, waits for all of them to end, and returns one outcome for each input, in the order of the inputs. A run that
    /// failed is an outcome, and not an error.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, square: hatchet::workflow::WorkflowRef<serde_json::Value, u64>) -> hatchet::Result<()> {
    /// let inputs = (0..10).map(|n| serde_json::json!({ "n": n }));
    /// for outcome in hatchet.run_many(&square, inputs).outcomes().await? {
    ///     println!("{}", outcome?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`start`](Self::start), which concern all runs. The outcomes contain the errors of single runs: a run that could
    /// not be started, and the errors of [`RunHandle::outcome`].
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, some or all of the runs may have been started.
    /// Runs that were started continue.
    pub async fn outcomes(self) -> Result<Vec<Result<Outcome>>> {
        let runs = self.start().await?;
        let outcomes =
            runs.into_iter().map(|run| async { run?.outcome().await.map_err(Error::with_possible_side_effects) });
        Ok(join_all(outcomes).await)
    }
}

impl<O: DeserializeOwned> RunManyBuilder<O> {
    /// Starts the runs, waits for all of them to end, and returns one result for each input, in the order of the inputs.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, square: hatchet::workflow::WorkflowRef<serde_json::Value, u64>) -> hatchet::Result<()> {
    /// let inputs = (0..10).map(|n| serde_json::json!({ "n": n }));
    /// let squares: Vec<u64> = hatchet.run_many(&square, inputs).results().await?.into_iter().collect::<Result<_, _>>()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`start`](Self::start), which concern all runs. The results contain the errors of single runs: a run that could
    /// not be started, and the errors of [`RunHandle::result`].
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, some or all of the runs may have been started.
    /// Runs that were started continue.
    pub async fn results(self) -> Result<Vec<Result<O>>> {
        let runs = self.start().await?;
        let results =
            runs.into_iter().map(|run| async { run?.result().await.map_err(Error::with_possible_side_effects) });
        Ok(join_all(results).await)
    }
}
