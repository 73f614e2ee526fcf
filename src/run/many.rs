//! Starting many runs at once.

use std::marker::PhantomData;

use futures_util::stream::{self, StreamExt as _};

use super::directory::Directory;
use super::handle::RunHandle;
use super::start::{Parent, Runnable, common};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::metadata::Metadata;
use crate::model::payload::encode_input;
use crate::model::{Priority, convert};
use crate::rpc::grpc_types::NewRun;

/// Runs that one call starts at the most.
const MOST: usize = 1000;
/// Calls at the same time, where each run has its own.
const AT_ONCE: usize = 16;

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
            parent: None,
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
    parent: Option<Parent>,
    output: PhantomData<fn() -> O>,
}

impl<O> RunManyBuilder<O> {
    /// How many runs it will start.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    pub(crate) fn child_of(mut self, parent: Parent) -> Self {
        self.parent = Some(parent);
        self
    }

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
        let common = common(&self.client, &self.workflow, &self.metadata, Metadata::default(), self.priority)?;
        Directory::find(&self.client, &self.workflow).await?;
        let limit = self.client.rpc().workflows.max_send();
        let mut results: Vec<Option<Result<RunHandle<O>>>> = Vec::with_capacity(self.inputs.len());
        let (mut chunk, mut gone) = (Chunk::default(), None::<Error>);
        // In one call with others, the engine would start a child a second time that is there already.
        let one_by_one = self.parent.is_some_and(|parent| parent.again);
        for (at, input) in self.inputs.into_iter().enumerate() {
            if let Some(gone) = &gone {
                results.push(Some(Err(gone.duplicate())));
                continue;
            }
            let run = |input| match &self.parent {
                None => common.with_input(input),
                Some(parent) => {
                    let index = parent.first_index.saturating_add(i32::try_from(at).unwrap_or(i32::MAX));
                    common.with_input(input).child_of(parent.run.into(), parent.task.into(), index, None)
                }
            };
            match input.and_then(|input| fits(at, run(input), limit)) {
                Err(error) => results.push(Some(Err(error))),
                Ok((run, size)) => {
                    if !chunk.takes(size, limit) {
                        gone = std::mem::take(&mut chunk).send(&self.client, one_by_one, &mut results).await;
                    }
                    chunk.add(results.len(), run, size);
                    results.push(None);
                }
            }
        }
        match gone {
            None => drop(chunk.send(&self.client, one_by_one, &mut results).await),
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
    async fn send<O>(
        self,
        client: &Client,
        one_by_one: bool,
        results: &mut [Option<Result<RunHandle<O>>>],
    ) -> Option<Error> {
        if self.runs.is_empty() {
            return None;
        }
        let ids = if one_by_one { each(client, self.runs).await } else { all(client, self.runs).await };
        let gone = |error: &Error| error.kind() == ErrorKind::Unavailable && error.never_reached_server();
        let mut last = None;
        for (place, id) in self.places.into_iter().zip(ids) {
            last = id.as_ref().err().filter(|error| gone(error)).map(Error::duplicate);
            let run = id.and_then(|id| convert::id(&id)).map(|id| RunHandle::started(client.clone(), id));
            if let Some(slot) = results.get_mut(place) {
                *slot = Some(run);
            }
        }
        last
    }
}

/// Starts runs with one call. They share its fate.
async fn all(client: &Client, runs: Vec<NewRun>) -> Vec<Result<String>> {
    let count = runs.len();
    match client.rpc().workflows.bulk_trigger(runs).await {
        Ok(ids) if ids.len() == count => ids.into_iter().map(Ok).collect(),
        Ok(ids) => {
            let text = format!("BulkTriggerWorkflow was asked for {count} runs and answered {} ids", ids.len());
            let error = Error::new(ErrorKind::Server, text);
            (0..count).map(|_| Err(error.duplicate())).collect()
        }
        Err(error) => (0..count).map(|_| Err(error.duplicate())).collect(),
    }
}

/// Starts runs with a call for each.
async fn each(client: &Client, runs: Vec<NewRun>) -> Vec<Result<String>> {
    stream::iter(runs).map(|run| client.rpc().workflows.trigger(run)).buffered(AT_ONCE).collect().await
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
