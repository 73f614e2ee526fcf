//! Running the same input again, as a new run.

use std::marker::PhantomData;
use std::time::Duration;

use serde::Serialize;

use super::handle::RunHandle;
use super::placement::Placement;
use super::start::RunBuilder;
use crate::client::Client;
use crate::config::{RequestOptions, RetryPolicy};
use crate::error::{Error, ErrorKind, Result};
use crate::model::metadata::Metadata;
use crate::model::payload::encode_input;
use crate::model::trigger::RERUN_KEY;
use crate::model::{DesiredLabel, Priority, RunDetails, RunStatus, WorkerId};
use crate::observe::RunFetch;

impl<O> RunHandle<O> {
    /// Returns a builder for a new run of the same workflow with the same input, regardless of the status of this run.
    ///
    /// The details of the new run [link](RunDetails::original_run_id) to this run, and [`reruns`](Self::reruns) lists the new run. For a
    /// new attempt of the same run, use [`replay`](Self::replay).
    ///
    /// ```no_run
    /// # async fn example(run: hatchet::RunHandle<String>) -> hatchet::Result<()> {
    /// let again = run.rerun().metadata("why", "fixed the template").start().await?;
    /// println!("{}", again.result().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn rerun(&self) -> RerunBuilder<O> {
        RerunBuilder {
            run: self.clone(),
            input: None,
            metadata: Metadata::default(),
            priority: None,
            placement: Placement::default(),
            request: RequestOptions::default(),
            output: PhantomData,
        }
    }
}

/// A builder for a rerun; see [`RunHandle::rerun`].
///
/// [`start`](Self::start) starts the rerun, with the input and the tags of the original unless others are set. Like a
/// [run](super::RunBuilder), it can also end with a method that waits for the new run or follows it.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// let other = serde_json::json!({ "name": "Ada" });
/// run.rerun().input(&other).priority(hatchet::Priority::High).start().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is started until `start` is awaited"]
pub struct RerunBuilder<O> {
    run: RunHandle<O>,
    input: Option<Result<String>>,
    metadata: Metadata,
    priority: Option<Priority>,
    placement: Placement,
    request: RequestOptions,
    output: PhantomData<fn() -> O>,
}

impl<O> RerunBuilder<O> {
    /// Replaces the input of the original. The new input must serialize to a JSON object.
    pub fn input<I: Serialize + ?Sized>(mut self, input: &I) -> Self {
        self.input = Some(encode_input("input", input));
        self
    }

    /// Adds a tag to the new run. The new run inherits the tags of the original; this tag replaces an inherited tag with the same key.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into().into());
        self
    }

    /// Sets the timeout of each call that this request makes, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout).
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

    /// Sets the priority. The priority of the original is not copied, because the server does not report it.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Requests a specific worker; see [`RunBuilder::desired_worker`].
    ///
    /// The request of the original is not copied, because the server does not report it.
    pub fn desired_worker(mut self, worker: WorkerId) -> Self {
        self.placement.worker = Some(worker);
        self
    }

    /// Requests workers with a label; see [`RunBuilder::desired_label`].
    ///
    /// The requests of the original are not copied, because the server does not report them.
    pub fn desired_label(mut self, key: impl Into<String>, label: impl Into<DesiredLabel>) -> Self {
        self.placement.label(key.into(), label.into());
        self
    }

    /// The client that will start the run.
    pub(crate) fn client(&self) -> &Client {
        self.run.client()
    }

    /// Starts the new run, and returns a handle without waiting for the run to end.
    ///
    /// # Errors
    /// [`RunNotFound`](ErrorKind::RunNotFound) if the original does not exist. [`Server`](ErrorKind::Server) if the server does not return
    /// the name of its workflow or its input. [`InvalidInput`](ErrorKind::InvalidInput) if the client has a namespace and the workflow of
    /// the original is in another namespace. All other errors are those of [`RunBuilder::start`].
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the new run may have been started.
    pub async fn start(self) -> Result<RunHandle<O>> {
        self.prepare().await?.start().await
    }

    /// The new run, with what it inherits from the original.
    pub(crate) async fn prepare(self) -> Result<RunBuilder<O>> {
        let (client, original) = (self.run.client(), self.run.id());
        let reading = client.with(self.request)?;
        let details =
            RunFetch::new(original).for_reading().fetch(&reading).await.map_err(Error::without_side_effects)?;
        let missing = |what: &str| {
            Error::new(ErrorKind::Server, format!("the server did not return the {what} of run {original}"))
                .without_side_effects()
        };
        let workflow = details.workflow_name.clone().ok_or_else(|| missing("workflow name"))?;
        reading.check_own(&workflow, details.workflow_id).await?;
        let input = match self.input {
            Some(input) => input?,
            None => own_input(&details).ok_or_else(|| missing("input"))?,
        };
        // The original's tags are taken as they are: another SDK may have allowed more.
        let inherited = details.metadata.into_iter().filter(|(key, _)| !self.metadata.has(key));
        let mut run = RunBuilder::prepared(client.clone(), workflow, Ok(input), self.metadata.clone());
        for (key, value) in inherited {
            run = run.own_metadata(&key, value);
        }
        run = run.own_metadata(RERUN_KEY, original.to_string().into());
        if let Some(priority) = self.priority {
            run = run.priority(priority);
        }
        Ok(run.with_placement(self.placement).with_request(self.request))
    }
}

/// The original's input, or `{}` if the server has replaced an input that is not an object.
fn own_input(details: &RunDetails) -> Option<String> {
    match details.input.as_ref().map(|input| input.as_str().trim()) {
        None if details.status == RunStatus::Queued => None,
        None | Some("null") => Some("{}".to_owned()),
        Some(text) => Some(text.to_owned()),
    }
}
