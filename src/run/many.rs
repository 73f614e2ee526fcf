//! Starting many runs at once.

use std::marker::PhantomData;

use super::chunk::{Chunk, fail, fits};
use super::directory::Directory;
use super::handle::RunHandle;
use super::placement::{Placement, placement_options};
use super::settle::settle;
use super::start::{Runnable, common};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::metadata::Metadata;
use crate::model::payload::encode_input;
use crate::model::{Priority, convert};
use crate::rpc::grpc_types::{NewRun, TriggeredMany};

impl Client {
    /// Prepares many runs of one workflow; [`start`](RunManyBuilder::start) starts them.
    ///
    /// ```no_run
    /// # use hatchet::{Client, Task};
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct Number { n: u32 }
    /// # async fn example(hatchet: Client, square: Task<Number, u64>) -> hatchet::Result<()> {
    /// let runs = hatchet.run_many(&square, (0..500).map(|n| Number { n })).start().await?;
    /// for run in runs {
    ///     println!("{}", run?.result().await?); // all waits share one stream
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn run_many<R: Runnable>(
        &self,
        workflow: &R,
        inputs: impl IntoIterator<Item = R::Input>,
    ) -> RunManyBuilder<R::Output> {
        RunManyBuilder {
            client: self.clone(),
            workflow: workflow.workflow_name().to_owned(),
            inputs: inputs
                .into_iter()
                .enumerate()
                .map(|(at, input)| encode_input(&format!("input {at}"), &input))
                .collect(),
            metadata: Metadata::default(),
            priority: None,
            placement: Placement::default(),
            output: PhantomData,
        }
    }
}

/// Many runs that are about to be started.
#[derive(Debug)]
#[must_use = "nothing is started before `start`"]
pub struct RunManyBuilder<O> {
    client: Client,
    workflow: String,
    inputs: Vec<Result<String>>,
    metadata: Metadata,
    priority: Option<Priority>,
    placement: Placement,
    output: PhantomData<fn() -> O>,
}

impl<O> RunManyBuilder<O> {
    /// Tags all of them; see [`RunBuilder::metadata`](crate::RunBuilder::metadata).
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// How urgent they are.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    placement_options!();

    /// Starts the runs. One result for each input, in their order.
    ///
    /// Sent in calls of at most 1000 runs and as many bytes as a message may have, one after the other. An input that
    /// cannot be sent is an error in its place and does not hold up the others. Where a call fails, all its runs have
    /// that error; ask [`never_reached_server`](crate::Error::never_reached_server) whether they may have been started.
    ///
    /// Where another run has the [idempotency key](crate::Idempotency) of one, that one alone is an error
    /// ([`AlreadyExists`](ErrorKind::AlreadyExists)), with the run that has it. The engine does not say which of a call those
    /// are; then all runs of that call are looked up, and those that were not started are asked for once more, one by one.
    ///
    /// # Errors
    /// [`WorkflowNotFound`](ErrorKind::WorkflowNotFound), and [`InvalidInput`](ErrorKind::InvalidInput) for the metadata:
    /// what concerns all of them.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the calls that were made made.
    pub async fn start(self) -> Result<Vec<Result<RunHandle<O>>>> {
        let common = common(&self.client, &self.workflow, &self.metadata, self.priority)?;
        let common = self.placement.apply(common)?;
        Directory::find(&self.client, &self.workflow).await?;
        let limit = self.client.rpc().workflows.max_send();
        let mut results: Vec<Option<Result<RunHandle<O>>>> = Vec::with_capacity(self.inputs.len());
        let (mut chunk, mut gone) = (Chunk::default(), None::<Error>);
        for (at, input) in self.inputs.into_iter().enumerate() {
            if let Some(gone) = &gone {
                results.push(Some(Err(gone.duplicate())));
                continue;
            }
            let sized = input.and_then(|input| {
                let run = common.with_input(input);
                let size = run.size();
                fits("input", at, size, limit).map(|()| (run, size))
            });
            match sized {
                Err(error) => results.push(Some(Err(error))),
                Ok((run, size)) => {
                    if !chunk.takes(size, limit) {
                        gone = send(std::mem::take(&mut chunk), &self.client, &mut results).await;
                    }
                    chunk.add(results.len(), run, size);
                    results.push(None);
                }
            }
        }
        match gone {
            None => drop(send(chunk, &self.client, &mut results).await),
            Some(gone) => fail(&chunk.places, &gone, &mut results),
        }
        let missing = || Err(Error::new(ErrorKind::Server, "the server's answer has no id for this run"));
        Ok(results.into_iter().map(|result| result.unwrap_or_else(missing)).collect())
    }
}

/// Makes the call. Returns the error if there is no server to make the next one to.
async fn send<O>(chunk: Chunk<NewRun>, client: &Client, results: &mut [Option<Result<RunHandle<O>>>]) -> Option<Error> {
    if chunk.items.is_empty() {
        return None;
    }
    let count = chunk.items.len();
    let answer = client.rpc().workflows.bulk_trigger(chunk.items).await;
    let answer = answer.and_then(|answer| match answer {
        TriggeredMany::Runs(ids) if ids.len() != count => {
            let given = ids.len();
            let text = format!("BulkTriggerWorkflow was asked for {count} runs and answered {given} ids");
            Err(Error::new(ErrorKind::Server, text))
        }
        answer => Ok(answer),
    });
    let mut answers = match answer {
        Ok(TriggeredMany::Runs(ids)) => {
            let handle = |id: String| convert::id(&id).map(|id| RunHandle::started(client.clone(), id));
            ids.into_iter().map(handle).collect::<Vec<_>>()
        }
        // Boxed, because it is seldom under way.
        Ok(TriggeredMany::Some { ids, runs }) => Box::pin(settle(client, runs, ids)).await,
        Err(error) => {
            fail(&chunk.places, &error, results);
            return Some(error).filter(|error| error.kind() == ErrorKind::Unavailable && error.never_reached_server());
        }
    }
    .into_iter();
    for place in chunk.places {
        if let Some(slot) = results.get_mut(place) {
            *slot = answers.next();
        }
    }
    None
}
