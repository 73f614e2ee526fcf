//! Starting many runs at once.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::time::Instant;

use super::batch::{CallResults, Took, all_failed, batched, fits};
use super::handle::RunHandle;
use super::inputs::{Each, Inputs};
use super::options::{RunOptions, check_child_key};
use super::placement::Placement;
use super::reconcile::reconcile;
use super::start::{Parent, Prepared, Runnable, common, of_workflow, trace_keys};
use crate::client::Client;
use crate::config::{RequestOptions, RetryPolicy};
use crate::error::{Error, ErrorKind, Result};
use crate::model::metadata::Metadata;
use crate::model::{DesiredLabel, Priority, RunId, WorkerId};
use crate::rpc::convert::{EncodedRun, NewRun, TriggeredMany};

/// The number of concurrent calls if each run has a call of its own.
const MAX_CONCURRENT_STARTS: usize = 16;

impl Client {
    /// Returns a builder for many runs of one workflow; [`start`](RunManyBuilder::start) starts them.
    ///
    /// The inputs are consumed and serialized while the calls are made, so they need not all fit in memory at once. Inputs of child runs
    /// are all serialized when `start` is called. The iterator may borrow data that outlives the builder. If the iterator is not `Send`,
    /// collect it into a vector.
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
    pub fn run_many<'a, R: Runnable<Input: 'a>>(
        &self,
        workflow: &R,
        inputs: impl IntoIterator<Item = R::Input, IntoIter: Send + 'a>,
    ) -> RunManyBuilder<'a, R::Output> {
        RunManyBuilder {
            client: self.clone(),
            workflow: workflow.workflow_name().to_owned(),
            inputs: Inputs::new("inputs", inputs.into_iter()),
            metadata: Metadata::of(workflow.default_metadata()),
            priority: None,
            placement: Placement::default(),
            each: Each::default(),
            request: RequestOptions::default(),
            parent: None,
            is_dag: workflow.is_dag() == Some(true),
            output: PhantomData,
        }
    }
}

/// A builder for many runs of one workflow, each with its own input; see [`Client::run_many`].
///
/// [`start`](Self::start) starts them with as few calls as possible.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, greet: hatchet::Task<(), ()>) -> hatchet::Result<()> {
/// let runs = hatchet.run_many(&greet, vec![(); 500]).metadata("batch", "nightly").start().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is started until `start` is awaited"]
pub struct RunManyBuilder<'a, O> {
    client: Client,
    workflow: String,
    inputs: Inputs<'a>,
    metadata: Metadata,
    priority: Option<Priority>,
    placement: Placement,
    each: Each<'a, RunOptions>,
    request: RequestOptions,
    parent: Option<Parent>,
    is_dag: bool,
    output: PhantomData<fn() -> O>,
}

impl<'a, O> RunManyBuilder<'a, O> {
    pub(crate) fn child_of(mut self, parent: Parent) -> Self {
        self.parent = Some(parent);
        self
    }

    /// Adds a tag to all runs; see [`RunBuilder::metadata`](crate::builder::RunBuilder::metadata).
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into().into());
        self
    }

    /// Sets the priority of all runs. The default is the workflow's default priority.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Sets the timeout of each call that this request makes, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout). The waits for the runs are not limited.
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

    /// Requests a specific worker.
    ///
    /// The request has an effect only if the task is [sticky](crate::Task::sticky), and the sticky strategy determines whether the run may
    /// use another worker.
    ///
    /// The server does not report what was requested. [`Attempt::worker_id`](crate::model::Attempt::worker_id) is the worker that ran an
    /// attempt.
    pub fn desired_worker(mut self, worker: WorkerId) -> Self {
        self.placement.worker = Some(worker);
        self
    }

    /// Requests workers with a label; see [`DesiredLabel`].
    ///
    /// This request replaces the task's request for the same label, and has no effect if the task is sticky.
    ///
    /// The server does not report what was requested. [`Attempt::worker_id`](crate::model::Attempt::worker_id) is the worker that ran an
    /// attempt.
    pub fn desired_label(mut self, key: impl Into<String>, label: impl Into<DesiredLabel>) -> Self {
        self.placement.label(key.into(), label.into());
        self
    }

    /// Sets options for individual runs.
    ///
    /// While the calls are made, the function is called once for each input that can be serialized, with the index of the input, and
    /// returns the options of its run. These are added to the options of all runs, and replace options of the same name.
    ///
    /// ```no_run
    /// # use hatchet::{Client, Task};
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct Order { customer: String }
    /// # async fn example(hatchet: Client, ship: Task<Order, ()>, orders: Vec<Order>) -> hatchet::Result<()> {
    /// let customers: Vec<_> = orders.iter().map(|order| order.customer.clone()).collect();
    /// let runs = hatchet
    ///     .run_many(&ship, orders)
    ///     .each(|index, options| options.metadata("customer", &customers[index]))
    ///     .start()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn each(mut self, options: impl FnMut(usize, RunOptions) -> RunOptions + Send + 'a) -> Self {
        self.each = Each::new(options);
        self
    }

    /// Starts the runs, and returns one result for each input, in the order of the inputs.
    ///
    /// The runs are sent in sequential calls of at most 1000 runs and at most the maximum message size. If the server is slow, the calls
    /// are smaller, so that each takes about a tenth of its [deadline](crate::config::ConfigBuilder::rpc_timeout). If an input cannot be
    /// sent, its result is an error, and the other runs are not affected. If a call fails, the result of each of its runs is that error;
    /// the runs may have been started if [`has_no_side_effects`](crate::Error::has_no_side_effects) returns `false`.
    ///
    /// If another run already has the [idempotency key](crate::model::Idempotency) of a run, only the result of that run is an error
    /// ([`AlreadyExists`](ErrorKind::AlreadyExists)), which has the [id of the existing run](crate::Error::existing_run_id). The engine
    /// does not report which runs of a call are affected. In that case, all runs of the call are fetched, and the runs that were not
    /// started are requested once more, one by one.
    ///
    /// # Errors
    /// Errors that concern all runs: [`WorkflowNotFound`](ErrorKind::WorkflowNotFound), and [`InvalidInput`](ErrorKind::InvalidInput) if
    /// the metadata is invalid. If an option of a [single run](Self::each) is invalid, the result of that run is an error.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, some or all of the runs may have been started.
    /// [Children](crate::Context::run_many) get their indexes when this method is called, even if the future is never polled.
    pub fn start(mut self) -> impl Future<Output = Result<Vec<Result<RunHandle<O>>>>> {
        // As for one run, the numbers of children are taken now.
        let first = self.parent.as_ref().map_or(0, |parent| parent.take(self.inputs.encode_all()));
        self.start_from(first)
    }

    /// What runs with these options have in common.
    fn common(&self, options: RunOptions) -> Result<EncodedRun> {
        let RunOptions { metadata, priority, placement, child_key } = options;
        metadata.check()?;
        let is_child = self.parent.is_some();
        check_child_key(child_key.as_deref(), is_child)?;
        let own = metadata.with_trace(trace_keys(is_child));
        let common = common(&self.client, &self.workflow, &self.metadata, &own, priority.or(self.priority))?;
        let common = placement.or(&self.placement).apply(common)?;
        Ok(match &self.parent {
            Some(parent) => common.children_of(parent.run, parent.task, child_key),
            None => common,
        }
        .encode())
    }

    async fn start_from(mut self, first: i32) -> Result<Vec<Result<RunHandle<O>>>> {
        let (inputs, mut each) = (self.inputs.take(), self.each.take());
        let common = self.common(RunOptions::default())?;
        let is_child = self.parent.is_some();
        let limit = self.client.rpc().workflows.max_send();
        let mut run = |at: usize, input| {
            let index = || first.saturating_add(i32::try_from(at).unwrap_or(i32::MAX));
            let own = match each.get(at) {
                Some(options) => &self.common(options)?,
                None => &common,
            };
            Ok::<_, Error>(own.run(input, is_child.then(index)))
        };
        let runs = inputs.enumerate().map(|(at, input)| {
            let run = run(at, input?)?;
            let size = run.size();
            fits("inputs", at, size, limit).map(|()| (run, size))
        });
        // In a call with several runs, the engine would start a child again that already exists.
        let one_by_one = self.parent.as_ref().is_some_and(|parent| parent.again);
        let (client, workflow) = (&self.client.with(self.request)?, &Arc::<str>::from(self.workflow.as_str()));
        let call = |runs| async move {
            if one_by_one { separately(client, workflow, runs).await } else { all(client, workflow, runs).await }
        };
        let mut results = batched(runs, limit, client.rpc_timeout(), call).await;
        // A missing workflow fails the whole request, unless some runs were started before it was deleted.
        let missing = |error: &&Error| error.kind() == ErrorKind::WorkflowNotFound;
        let none_started = !results.iter().any(Result::is_ok);
        let mut errors = results.iter().filter_map(|result| result.as_ref().err());
        if let Some(error) = errors.find(missing).filter(|_| none_started) {
            return Err(error.clone());
        }
        results.iter_mut().flatten().for_each(|run| run.set_dag(self.is_dag));
        Ok(results)
    }
}

/// Starts runs with one call. They share its result, except those whose idempotency keys others have.
async fn all<O>(client: &Client, workflow: &Arc<str>, runs: Vec<NewRun>) -> CallResults<RunHandle<O>> {
    let count = runs.len();
    let sent_at = Instant::now();
    let response = client.rpc().workflows.bulk_trigger(runs).await.map_err(|error| of_workflow(error, workflow));
    // What follows is no part of the call.
    let took = Took::since(sent_at);
    let error = match response {
        Ok(TriggeredMany::Runs(ids)) if ids.len() == count => {
            let known: Vec<_> = ids.iter().filter_map(|id| id.as_ref().ok().copied()).collect();
            match client.feed().workflows.confirm(workflow, &known, client.rpc_timeout()).await {
                Ok(()) => return took.with(ids.into_iter().map(|id| Ok(started(client, workflow, id?))).collect()),
                Err(error) => error,
            }
        }
        Ok(TriggeredMany::Runs(ids)) => {
            let text = format!("the response to BulkTriggerWorkflow has {} ids for {count} runs", ids.len());
            Error::new(ErrorKind::Server, text)
        }
        // Boxed, because it is large and rarely needed.
        Ok(TriggeredMany::Some { ids, runs }) => {
            return took.with(Box::pin(reconcile(client, workflow, runs, ids)).await);
        }
        Err(error) => error,
    };
    took.with(all_failed(count, &error))
}

/// Starts children with a call for each, because some may exist.
async fn separately<O>(client: &Client, workflow: &Arc<str>, runs: Vec<NewRun>) -> CallResults<RunHandle<O>> {
    let sent_at = Instant::now();
    let start = |run| Prepared::new(client.clone(), Arc::clone(workflow), run).may_exist(true).start();
    let results = stream::iter(runs).map(start).buffered(MAX_CONCURRENT_STARTS).collect().await;
    Took::since(sent_at).with(results)
}

fn started<O>(client: &Client, workflow: &Arc<str>, id: RunId) -> RunHandle<O> {
    RunHandle::started(client, Arc::clone(workflow), id)
}
