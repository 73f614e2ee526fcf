//! Waiting for runs to end.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use super::outage::Outage;
use crate::error::{Error, Result};
use crate::feed::{Answer, Question, Turns};
use crate::model::{Outcome, RunDetails};
use crate::observe::{RunFetch, resolve_from_stream};
use crate::rpc::convert::TaskResult;
use crate::run::{RunBuilder, RunHandle, RunManyBuilder};
use crate::runtime::{self, Needs};
use crate::transport::retry_delay;

impl<O> RunHandle<O> {
    /// Waits for the run to end, and returns its outcome.
    ///
    /// All waits of a client share one subscription, which is reopened when the connection is lost. If the subscription does not determine
    /// the outcome (a cancellation, a timeout, or an output that is too large for it), the run is fetched.
    ///
    /// The method needs gRPC only, with two exceptions. Only the REST API reports whether a run that ended without an output and without an
    /// error message was cancelled or timed out. For a handle that was created from an id, the client also asks the REST API for the name of
    /// the workflow, which determines the shape of the output. If the REST API has never been reached, gRPC alone is used for such a handle.
    ///
    /// A wait has no time limit, and it continues after an outage of the server. To limit a wait, use [`tokio::time::timeout`].
    ///
    /// All waits of a client together fetch at most 32 runs at the same time, with at most
    /// [`wait_request_rate`](crate::config::ConfigBuilder::wait_request_rate) requests per second. Waits for the same run share a fetch if it
    /// has not been sent yet and their handles have the same information about the run.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if the server has never been reached, or if only the REST API can report the outcome
    /// and has never been reached. [`RunNotFound`](crate::ErrorKind::RunNotFound) if the run does not exist: within a few seconds for a
    /// handle that was created from an id, after about 15 seconds for a run that this client has started, and later if the client waits
    /// for many runs. [`Unauthenticated`](crate::ErrorKind::Unauthenticated) if the token is rejected for five minutes. The server's error
    /// if the server reports internal errors for more than a minute, or immediately if the error is permanent.
    ///
    /// # Cancel safety
    /// This method is cancel safe: dropping the future does not affect the run, and the wait can be started again.
    pub fn outcome(&self) -> impl Future<Output = Result<Outcome>> {
        self.outcome_with(None)
    }

    /// The same for one of several runs that share turns for their fetches.
    ///
    /// Not an async function, which would have its arguments twice: there can be a hundred thousand waits.
    pub(super) fn outcome_with(&self, turns: Option<&Turns>) -> impl Future<Output = Result<Outcome>> {
        let client = self.client();
        async move {
            runtime::require("a wait", Needs::Timers)?;
            let mut is_new = self.started_at().is_some();
            let mut workflow = self.workflow().cloned();
            if !is_new {
                // The run may have ended long ago. Then fetching it is faster than the stream.
                let details = self.fetch(workflow.clone(), None, turns).await?;
                workflow = workflow.or_else(|| details.workflow_name.as_deref().map(Into::into));
                if let Some(outcome) = self.outcome_of(&details) {
                    return Ok(outcome);
                }
            }
            let mut unconfirmed = 0;
            loop {
                let results = match client.feed().results.wait(self.id(), is_new).await? {
                    // After a replay, the stream may return the results of the previous attempt.
                    Answer::Results(results) if self.is_of_any_attempt() => Some(results),
                    Answer::Results(_) | Answer::Fetch => None,
                };
                let of_run = results.as_deref();
                if let Some(outcome) = of_run.and_then(|all| resolve_from_stream(self.id(), workflow.as_deref(), all)) {
                    return Ok(outcome);
                }
                let details = self.fetch(workflow.clone(), results, turns).await?;
                if let Some(outcome) = self.outcome_of(&details) {
                    return Ok(outcome);
                }
                // The details do not confirm the end, or it was the end of an earlier attempt: wait for the next one.
                is_new = false;
                unconfirmed += 1;
                sleep(retry_delay(unconfirmed, fastrand::f64())).await;
            }
        }
    }

    /// Fetches the run, together with others that wait for it. It is repeated until the server responds.
    ///
    /// Boxed, because it is rarely needed: it must not add to the size of a future that waits.
    fn fetch(
        &self,
        workflow: Option<Arc<str>>,
        results: Option<Vec<TaskResult>>,
        turns: Option<&Turns>,
    ) -> BoxFuture<'_, Result<Arc<RunDetails>>> {
        let (client, is_dag) = (self.client(), self.is_dag());
        let (started_at, turns) = (self.started_at(), turns.cloned());
        let from_attempt = self.first_attempt();
        let question = Question { run: self.id(), from_attempt, started_at, workflow, results, turns };
        Box::pin(async move {
            let mut outage = Outage::default();
            loop {
                let owned = client.clone();
                let fetch = client.feed().wait_fetcher.details(question.clone(), move |question, gate| async move {
                    let fetch = RunFetch::new(question.run).for_reading().for_wait().known_dag(is_dag);
                    let fetch = fetch.for_outcome(question);
                    fetch.through(gate).fetch(&owned).await
                });
                match fetch.await {
                    Ok(details) => return Ok(details),
                    Err(error) => outage.pause(client, error).await?,
                }
            }
        })
    }

    fn outcome_of(&self, details: &RunDetails) -> Option<Outcome> {
        details.outcome.clone().filter(|_| details.has_ended_since(self.first_attempt()))
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
    pub fn result(&self) -> impl Future<Output = Result<O>> {
        self.result_with(None)
    }

    /// The same for one of several runs that share turns for their fetches.
    pub(super) fn result_with(&self, turns: Option<&Turns>) -> impl Future<Output = Result<O>> {
        self.outcome_with(turns).map(|outcome| match outcome? {
            Outcome::Completed(completed) => {
                completed.output.parse_as(&"the output").map_err(|error| error.of_run(self.id()))
            }
            other => Err(Error::run_failed(self.id(), self.workflow().map(|name| &**name), other)),
        })
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
        let start = self.start();
        async move {
            let run = start.await?;
            // The run was started, so later errors are not without side effects.
            run.outcome().await.map_err(Error::with_possible_side_effects)
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
    pub fn result(self) -> impl Future<Output = Result<O>> {
        let start = self.start();
        async move {
            let run = start.await?;
            // The run was started, so later errors are not without side effects.
            run.result().await.map_err(Error::with_possible_side_effects)
        }
    }
}

impl<O> RunManyBuilder<'_, O> {
    /// Starts the runs, waits for all of them to end, and returns one outcome for each input, in the order of the inputs.
    ///
    /// A failed run is an outcome, not an error.
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
    /// The errors of [`start`](Self::start), which concern all runs. The outcomes contain the errors of individual runs: a run that could
    /// not be started, and the errors of [`RunHandle::outcome`].
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, some or all of the runs may have been started.
    /// Runs that were started continue.
    pub async fn outcomes(self) -> Result<Vec<Result<Outcome>>> {
        let runs = self.start().await?;
        let turns = Turns::new();
        let outcomes = runs
            .into_iter()
            .map(|run| async { run?.outcome_with(Some(&turns)).await.map_err(Error::with_possible_side_effects) });
        Ok(join_all(outcomes).await)
    }
}

impl<O: DeserializeOwned> RunManyBuilder<'_, O> {
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
    /// The errors of [`start`](Self::start), which concern all runs. The results contain the errors of individual runs: a run that could
    /// not be started, and the errors of [`RunHandle::result`].
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, some or all of the runs may have been started.
    /// Runs that were started continue.
    pub async fn results(self) -> Result<Vec<Result<O>>> {
        let runs = self.start().await?;
        let turns = Turns::new();
        let results = runs
            .into_iter()
            .map(|run| async { run?.result_with(Some(&turns)).await.map_err(Error::with_possible_side_effects) });
        Ok(join_all(results).await)
    }
}

#[cfg(test)]
mod tests {
    use crate::model::RunStatus;
    use crate::scripted::{Scripted, single_task_run};

    const NOT_FOUND: i32 = 5;

    /// The server keeps runs for REST longer than it keeps them for gRPC.
    #[tokio::test(start_paused = true)]
    async fn a_run_that_only_rest_has_is_found_by_waits_and_watches() {
        let (client, _) = single_task_run::client(
            |_| Scripted::Status(NOT_FOUND),
            |_| single_task_run::rest("COMPLETED", 1),
            |_| single_task_run::events(&[("STARTED", 1), ("FINISHED", 1)]),
            |_| panic!("there is no command"),
        );
        let run = client.run_handle(single_task_run::id());
        assert_eq!(run.outcome().await.unwrap().status(), RunStatus::Completed);
        let mut watch = run.watch();
        let mut last = None;
        while let Some(change) = watch.next().await {
            last = Some(change.unwrap());
        }
        assert!(last.unwrap().has_status(&RunStatus::Completed));
    }
}
