//! The request for the details of a run.

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use super::fetch::{RunFetch, if_found};
use super::logs;
use crate::client::Client;
use crate::config::{RequestOptions, RetryPolicy};
use crate::error::{Error, Result};
use crate::feed::{Gate, pass};
use crate::model::{RunDetails, RunId, Trigger};
use crate::rpc::convert::rest_input;
use crate::transport::Polling;

/// How long to wait for an event that started a run. The server's history contains it later than the run.
const EVENT_TIMEOUT: Duration = Duration::from_millis(700);
const EVENT_INTERVAL: Duration = Duration::from_millis(100);

/// A builder for a request that fetches the details of a run; see [`RunHandle::details`](crate::RunHandle::details).
///
/// The request is sent when the builder is awaited.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// let details = run.details().logs(100).await?;
/// for line in &details.logs {
///     println!("{} {}", line.created_at, line.message);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is fetched until the builder is awaited"]
pub struct DetailsBuilder {
    client: Client,
    run: RunId,
    started_at: Option<Instant>,
    is_dag: bool,
    logs: usize,
    request: RequestOptions,
    gate: Option<Gate>,
}

impl DetailsBuilder {
    pub(crate) fn new(client: Client, run: RunId, started_at: Option<Instant>) -> Self {
        Self { client, run, started_at, is_dag: false, logs: 0, request: RequestOptions::default(), gate: None }
    }

    /// Sets whether the run is known to be a DAG run.
    pub(crate) fn known_dag(mut self, is_dag: bool) -> Self {
        self.is_dag = is_dag;
        self
    }

    /// Also fetches the first `count` log lines of the run's tasks, with one request for each task.
    ///
    /// The default is 0, and the maximum is [`RunDetails::MAX_LOGS`]. To read all lines, use [`RunHandle::logs`](crate::RunHandle::logs).
    pub fn logs(mut self, count: usize) -> Self {
        self.logs = count;
        self
    }

    /// Sets the timeout of each call that this request makes, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout). If calls fail or the API views disagree,
    /// the fetch is repeated for up to twice this timeout, but no longer than 10 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of the calls that this request makes.
    ///
    /// The default is the configured [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.request.retry = Some(policy);
        self
    }

    /// Sets the gate that all requests must pass.
    #[cfg(feature = "archive")]
    pub(crate) fn through(mut self, gate: Gate) -> Self {
        self.gate = Some(gate);
        self
    }

    async fn fetch(self) -> Result<RunDetails> {
        check_logs(self.logs)?;
        let client = self.client.with(self.request)?;
        let fetch = RunFetch::new(self.run).for_reading().started_at(self.started_at).known_dag(self.is_dag);
        // Who fetches a run for later needs all of it.
        let is_strict = self.gate.is_some();
        let fetch = self.gate.clone().into_iter().fold(fetch, RunFetch::through);
        let mut details = fetch.fetch(&client).await?;
        let gate = self.gate.as_ref();
        add_event(&client, gate, &mut details.trigger).await?;
        if self.logs > 0 {
            details.logs = logs::first_lines(&client, gate, &details, self.logs).await?;
        }
        // The outcome is complete without the request.
        if let Err(error) = logs::add_cancel_request(&client, gate, &mut details).await {
            if is_strict {
                return Err(error);
            }
            tracing::warn!(%error, run_id = %self.run, "failed to read the cancel request");
        }
        Ok(details)
    }
}

/// Rejects more log lines than details can have.
pub(crate) fn check_logs(count: usize) -> Result<()> {
    if count > RunDetails::MAX_LOGS {
        let problem = format!("expected at most {}, got {count}", RunDetails::MAX_LOGS);
        return Err(Error::invalid("number of log lines", problem));
    }
    Ok(())
}

impl IntoFuture for DetailsBuilder {
    type Output = Result<RunDetails>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.fetch())
    }
}

impl fmt::Debug for DetailsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DetailsBuilder").field("run", &self.run).field("logs", &self.logs).finish_non_exhaustive()
    }
}

/// Adds the payload and the scope of the event that started a run, if the server's history contains the event.
async fn add_event(client: &Client, gate: Option<&Gate>, trigger: &mut Trigger) -> Result<()> {
    let Trigger::Event(trigger) = trigger else { return Ok(()) };
    let mut polling = Polling::every(EVENT_INTERVAL, Instant::now() + EVENT_TIMEOUT);
    let event = loop {
        let permit = pass(gate, 1).await;
        let response = client.rpc().rest.event(trigger.event_id).await;
        drop(permit);
        match if_found(response)? {
            None if polling.again().await => {}
            event => break event,
        }
    };
    if let Some(event) = event {
        trigger.payload = Some(rest_input(event.payload.as_deref()));
        trigger.scope = event.scope;
    }
    Ok(())
}
