//! The results of several runs, in the order in which the runs end.

use std::borrow::Borrow;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::de::DeserializeOwned;

use crate::boxed::BoxStream;
use crate::client::Client;
use crate::error::Result;
use crate::feed::Turns;
use crate::model::{Outcome, RunId};
use crate::run::RunHandle;

impl Client {
    /// Returns a stream that waits for several runs, and yields the id and the result of each run as soon as the run has ended.
    ///
    /// The stream waits for all runs at once, over the one subscription that all waits of a client share. The number of runs is not
    /// limited. A run is fetched if this client did not start it, or if the subscription does not determine its outcome. At most 16 runs
    /// are fetched at the same time, so that another wait of the client is delayed by at most 16 fetches.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, runs: Vec<hatchet::RunHandle<String>>) -> hatchet::Result<()> {
    /// let mut results = hatchet.results(&runs);
    /// while let Some((run, result)) = results.next().await {
    ///     println!("{run}: {:?}", result);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The results contain the errors of [`RunHandle::result`].
    pub fn results<O, I>(&self, runs: I) -> RunResults<O>
    where
        O: DeserializeOwned + Send + 'static,
        I: IntoIterator,
        I::Item: Borrow<RunHandle<O>>,
    {
        let turns = Turns::new();
        let waits = runs.into_iter().map(|run| {
            let (run, turns) = (run.borrow().clone(), turns.clone());
            async move { (run.id(), run.result_with(Some(&turns)).await) }
        });
        RunResults(BoxStream::new(waits.collect::<FuturesUnordered<_>>()))
    }

    /// Returns a stream that waits for several runs, and yields the id and the outcome of each run as soon as the run has ended; see
    /// [`results`](Self::results).
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, runs: Vec<hatchet::RunHandle<String>>) -> hatchet::Result<()> {
    /// let mut outcomes = hatchet.outcomes(&runs);
    /// while let Some((run, outcome)) = outcomes.next().await {
    ///     println!("run {run} {}", outcome?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn outcomes<O, I>(&self, runs: I) -> RunOutcomes
    where
        O: 'static,
        I: IntoIterator,
        I::Item: Borrow<RunHandle<O>>,
    {
        let turns = Turns::new();
        let waits = runs.into_iter().map(|run| {
            let (run, turns) = (run.borrow().clone(), turns.clone());
            async move { (run.id(), run.outcome_with(Some(&turns)).await) }
        });
        RunOutcomes(BoxStream::new(waits.collect::<FuturesUnordered<_>>()))
    }
}

/// A stream of the results of several runs, in the order in which they end; see [`Client::results`].
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, runs: Vec<hatchet::RunHandle<u64>>) -> hatchet::Result<()> {
/// let (mut results, mut sum) = (hatchet.results(&runs), 0);
/// while let Some((_, result)) = results.next().await {
///     sum += result?;
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a stream does nothing unless it is polled"]
pub struct RunResults<O>(BoxStream<(RunId, Result<O>)>);

/// A stream of the outcomes of several runs, in the order in which they end; see [`Client::outcomes`].
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, runs: Vec<hatchet::RunHandle<u64>>) -> hatchet::Result<()> {
/// let mut outcomes = hatchet.outcomes(&runs);
/// while let Some((run, outcome)) = outcomes.next().await {
///     println!("run {run} {}", outcome?);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a stream does nothing unless it is polled"]
pub struct RunOutcomes(BoxStream<(RunId, Result<Outcome>)>);

impl<O> RunResults<O> {
    /// Returns the result of the next run that ends, or `None` when all have ended.
    ///
    /// # Errors
    /// The errors of [`RunHandle::result`]. Each error belongs to one run. The stream continues with the other runs.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no item is lost.
    pub async fn next(&mut self) -> Option<(RunId, Result<O>)> {
        self.0.next().await
    }
}

impl RunOutcomes {
    /// Returns the outcome of the next run that ends, or `None` when all have ended.
    ///
    /// # Errors
    /// The errors of [`RunHandle::outcome`]. Each error belongs to one run. The stream continues with the other runs.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, no item is lost.
    pub async fn next(&mut self) -> Option<(RunId, Result<Outcome>)> {
        self.0.next().await
    }
}

impl<O> Stream for RunResults<O> {
    type Item = (RunId, Result<O>);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl Stream for RunOutcomes {
    type Item = (RunId, Result<Outcome>);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl<O> fmt::Debug for RunResults<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunResults")
    }
}

impl fmt::Debug for RunOutcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunOutcomes")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;
    use std::time::Duration;

    use prost::Message as _;
    use tokio::time::Instant;

    use super::*;
    use crate::rpc::pb;
    use crate::scripted::{Scripted, client};

    /// The result of the run that is asked about: its id.
    fn result(request: bytes::Bytes) -> Vec<u8> {
        let run = pb::SubscribeToWorkflowRunsRequest::decode(request).unwrap().workflow_run_id;
        let result = pb::StepRunResult {
            task_run_external_id: run.clone(),
            task_name: "task".into(),
            output: Some(format!("{run:?}")),
            ..Default::default()
        };
        pb::WorkflowRunEvent { workflow_run_id: run, results: vec![result], ..Default::default() }.encode_to_vec()
    }

    /// As `b4_waits_for_100_000_runs_are_answered_at_once`, with a server that does not execute them.
    #[tokio::test(start_paused = true)]
    async fn a_hundred_thousand_runs_are_awaited_on_one_stream() {
        const RUNS: usize = 100_000;
        let within = Duration::from_secs(5);
        let (client, calls) = client(move |call, _| match call {
            "SubscribeToWorkflowRuns" => Scripted::Echo(within, result),
            _ => Scripted::message(&pb::v1::GetRunDetailsResponse { status: 1, ..Default::default() }),
        });
        let runs = (0..RUNS).map(|number| {
            let run = RunId::from(uuid::Uuid::from_u128(number as u128));
            RunHandle::<String>::started(&client, Arc::from("task"), run)
        });
        let (mut results, start, mut answered) = (client.results(runs), Instant::now(), HashSet::new());
        while let Some((run, result)) = results.next().await {
            assert_eq!(result.unwrap(), run.to_string());
            assert!(answered.insert(run), "{run} was answered twice");
        }
        assert_eq!((answered.len(), start.elapsed()), (RUNS, within), "all of them waited at once");
        assert_eq!(calls.count("SubscribeToWorkflowRuns"), 1);
        // Only those that waited first are probed so soon.
        assert!(calls.count("GetRunDetails") <= 64, "{}", calls.count("GetRunDetails"));
    }
}
