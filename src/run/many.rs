//! Starting many runs at once.

use std::marker::PhantomData;

use super::directory::Directory;
use super::handle::RunHandle;
use super::start::{Runnable, common};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::metadata::Metadata;
use crate::model::payload::encode_input;
use crate::model::{Priority, convert};
use crate::rpc::grpc_types::NewRun;

/// Runs that one call starts at the most.
const MOST: usize = 1000;

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

    /// Starts the runs. One result for each input, in their order.
    ///
    /// Sent in calls of at most 1000 runs and as many bytes as a message may have, one after the other. An input that
    /// cannot be sent is an error in its place and does not hold up the others. Where a call fails, all its runs have
    /// that error; ask [`never_reached_server`](crate::Error::never_reached_server) whether they may have been started.
    ///
    /// # Errors
    /// [`WorkflowNotFound`](ErrorKind::WorkflowNotFound), and [`InvalidInput`](ErrorKind::InvalidInput) for the metadata:
    /// what concerns all of them.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the calls that were made made.
    pub async fn start(self) -> Result<Vec<Result<RunHandle<O>>>> {
        let common = common(&self.client, &self.workflow, &self.metadata, self.priority)?;
        Directory::find(&self.client, &self.workflow).await?;
        let limit = self.client.rpc().workflows.max_send();
        let mut results: Vec<Option<Result<RunHandle<O>>>> = Vec::with_capacity(self.inputs.len());
        let (mut chunk, mut gone) = (Chunk::default(), None::<Error>);
        for (at, input) in self.inputs.into_iter().enumerate() {
            if let Some(gone) = &gone {
                results.push(Some(Err(gone.duplicate())));
                continue;
            }
            match input.and_then(|input| fits(at, common.with_input(input), limit)) {
                Err(error) => results.push(Some(Err(error))),
                Ok((run, size)) => {
                    if !chunk.takes(size, limit) {
                        gone = std::mem::take(&mut chunk).send(&self.client, &mut results).await;
                    }
                    chunk.add(results.len(), run, size);
                    results.push(None);
                }
            }
        }
        match gone {
            None => drop(chunk.send(&self.client, &mut results).await),
            Some(gone) => chunk.fail(&gone, &mut results),
        }
        let missing = || Err(Error::new(ErrorKind::Server, "the server's answer has no id for this run"));
        Ok(results.into_iter().map(|result| result.unwrap_or_else(missing)).collect())
    }
}

fn fits(at: usize, run: NewRun, limit: usize) -> Result<(NewRun, usize)> {
    let size = run.size();
    if size <= limit {
        return Ok((run, size));
    }
    let text = format!("input {at} makes a message of {size} bytes, accepted: at most {limit}");
    Err(Error::new(ErrorKind::TooLarge, text).unsent())
}

/// Runs that go in one call, with their places among all of them.
#[derive(Default)]
struct Chunk {
    places: Vec<usize>,
    runs: Vec<NewRun>,
    size: usize,
}

impl Chunk {
    fn takes(&self, size: usize, limit: usize) -> bool {
        self.runs.len() < MOST && self.size + size <= limit
    }

    fn add(&mut self, place: usize, run: NewRun, size: usize) {
        self.places.push(place);
        self.runs.push(run);
        self.size += size;
    }

    fn fail<O>(self, error: &Error, results: &mut [Option<Result<RunHandle<O>>>]) {
        for place in self.places {
            if let Some(slot) = results.get_mut(place) {
                *slot = Some(Err(error.duplicate()));
            }
        }
    }

    /// Makes the call. Returns the error if there is no server to make the next one to.
    async fn send<O>(self, client: &Client, results: &mut [Option<Result<RunHandle<O>>>]) -> Option<Error> {
        if self.runs.is_empty() {
            return None;
        }
        let count = self.runs.len();
        let answer = client.rpc().workflows.bulk_trigger(self.runs).await;
        let answer = answer.and_then(|ids| match ids.len() {
            given if given == count => Ok(ids),
            given => Err(Error::new(
                ErrorKind::Server,
                format!("BulkTriggerWorkflow was asked for {count} runs and answered {given} ids"),
            )),
        });
        for (at, place) in self.places.into_iter().enumerate() {
            let Some(slot) = results.get_mut(place) else { continue };
            *slot = match &answer {
                Ok(ids) => ids.get(at).map(|id| convert::id(id).map(|id| RunHandle::started(client.clone(), id))),
                Err(error) => Some(Err(error.duplicate())),
            };
        }
        answer.err().filter(|error| error.kind() == ErrorKind::Unavailable && error.never_reached_server())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However the sizes fall, no chunk is over either limit and nothing is left out.
        #[test]
        fn chunks_keep_both_limits(sizes in proptest::collection::vec(1usize..400, 0..3000)) {
            let limit = 1000;
            let (mut chunk, mut sent) = (Chunk::default(), 0);
            for (place, size) in sizes.iter().enumerate() {
                if !chunk.takes(*size, limit) {
                    prop_assert!(chunk.size <= limit && chunk.runs.len() <= MOST && !chunk.runs.is_empty());
                    sent += std::mem::take(&mut chunk).places.len();
                }
                chunk.add(place, NewRun::new(String::new(), String::new(), None), *size);
            }
            prop_assert_eq!(sent + chunk.places.len(), sizes.len());
        }
    }
}
