//! Waiting for runs to end.

use futures_util::future::join_all;
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use super::pool::Pool;
use crate::error::{Error, Result};
use crate::model::{Outcome, RunDetails};
use crate::run::{Look, RunBuilder, RunHandle, RunManyBuilder, quick};
use crate::runtime::{self, Needs};
use crate::transport::retry_delay;

impl<O> RunHandle<O> {
    /// Waits for the run to end, and returns its outcome.
    ///
    /// All waits of a client share one stream, which is reopened when the connection is lost. If the stream does not determine the
    /// outcome (a cancellation, a timeout, or an output that is too large for it), the run is fetched.
    ///
    /// The method needs gRPC only, except for a run that ended without an output and without an error text: only the REST API
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
        let mut workflow = self.workflow().cloned();
        if self.started_at().is_none() {
            // The run may have ended long ago. Then fetching it is faster than the stream.
            let details = Look::at(self.id()).for_end(workflow.clone(), None).fetch(self.client()).await?;
            workflow = workflow.or_else(|| details.workflow_name.as_deref().map(Into::into));
            if let Some(outcome) = self.end(details) {
                return Ok(outcome);
            }
        }
        let mut again = 0;
        loop {
            let results = Pool::of(self.client()).wait(self.id(), self.started_at().is_some()).await?;
            let all = results.as_deref().filter(|_| self.is_of_any_attempt());
            if let Some(outcome) = all.and_then(|all| quick(self.id(), workflow.as_deref(), all)) {
                return Ok(outcome);
            }
            // The details do not confirm the end, or it was the end of an earlier attempt: wait for the next one.
            let look = Look::at(self.id()).patiently().started_at(self.started_at());
            let details = look.for_end(workflow.clone(), results).fetch(self.client()).await?;
            if let Some(outcome) = self.end(details) {
                return Ok(outcome);
            }
            again += 1;
            sleep(retry_delay(again, fastrand::f64())).await;
        }
    }

    fn end(&self, mut details: RunDetails) -> Option<Outcome> {
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
            Outcome::Completed(completed) => completed.output.parse().map_err(|error| error.of_run(self.id())),
            other => Err(Error::run_failed(self.id(), self.workflow().map(|name| &**name), other)),
        }
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
    pub async fn result(self) -> Result<O> {
        let run = self.start().await?;
        // What fails from here on fails after the run was started.
        run.result().await.map_err(Error::after_the_act)
    }
}

impl<O: DeserializeOwned> RunManyBuilder<O> {
    /// Starts the runs, waits for all of them to end, and returns one result for each input, in the order of the inputs.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, square: hatchet::WorkflowRef<serde_json::Value, u64>) -> hatchet::Result<()> {
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
        let results = runs.into_iter().map(|run| async { run?.result().await.map_err(Error::after_the_act) });
        Ok(join_all(results).await)
    }
}
