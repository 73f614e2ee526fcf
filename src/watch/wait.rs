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
    /// Waits for the run to end, and tells how it ended.
    ///
    /// All waits of a client share one stream, which is opened again when it is lost. What the stream cannot tell for
    /// certain (a cancel, a timeout, an output too big for it) is settled by looking at the run.
    ///
    /// Needs gRPC only, but for a run that ended without an output and without an error of its own: only REST tells whether it was
    /// cancelled or timed out.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when the server cannot be reached for a minute; and at once, if only the REST
    /// API can tell how the run ended, and it has never been reached.
    /// [`RunNotFound`](crate::ErrorKind::RunNotFound) after a quarter of a minute at most, if the engine never shows the run.
    ///
    /// # Cancel safety
    /// Dropping the future is safe.
    pub async fn outcome(&self) -> Result<Outcome> {
        runtime::require("a wait", Needs::Timers)?;
        let mut workflow = self.workflow().cloned();
        if self.started_at().is_none() {
            // It may have ended long ago, and then a look is quicker than the stream.
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
            // An end that the details do not confirm was none, or that of an earlier attempt: wait for the next.
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
    /// Waits for the run to end, and returns what it ended with.
    ///
    /// # Errors
    /// [`RunFailed`](crate::ErrorKind::RunFailed) if it ended otherwise; [`Error::outcome`] has all about it.
    /// [`Decode`](crate::ErrorKind::Decode) if the output does not fit the type. Else as [`outcome`](Self::outcome).
    ///
    /// # Cancel safety
    /// Dropping the future is safe.
    pub async fn result(&self) -> Result<O> {
        match self.outcome().await? {
            Outcome::Completed(completed) => completed.output.parse().map_err(|error| error.of_run(self.id())),
            other => Err(Error::run_failed(self.id(), self.workflow().map(|name| &**name), other)),
        }
    }
}

impl<O: DeserializeOwned> RunBuilder<O> {
    /// Starts the run, waits for it to end, and returns what it ended with.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, greet: hatchet::Task<(), String>) -> hatchet::Result<()> {
    /// println!("{}", hatchet.run(&greet, &()).result().await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`start`](Self::start) and [`RunHandle::result`].
    ///
    /// # Cancel safety
    /// Dropping the future after its first poll leaves open whether the run was started; one that was goes on.
    pub async fn result(self) -> Result<O> {
        let run = self.start().await?;
        // What fails from here on fails after the run was started.
        run.result().await.map_err(Error::after_the_act)
    }
}

impl<O: DeserializeOwned> RunManyBuilder<O> {
    /// Starts the runs, waits for all of them to end, and returns what they ended with: one result for each input, in their order.
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
    /// As [`start`](Self::start), for what concerns all of them. What concerns one is in its place: that it could not be started,
    /// or as [`RunHandle::result`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves open which runs were started; those that were go on.
    pub async fn results(self) -> Result<Vec<Result<O>>> {
        let runs = self.start().await?;
        let results = runs.into_iter().map(|run| async { run?.result().await.map_err(Error::after_the_act) });
        Ok(join_all(results).await)
    }
}
