//! Tasks whose function gets the inputs of several runs at once.

use std::future::ready;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::Context;
use super::handler::{Handler, Running, RunningBatch, TaskError, TaskResult, empty_input_error, input, output};
use super::probe::never_an_object;
use super::task::Task;
use crate::model::batch::BatchOptions;

/// One attempt of a [batch task](Task::batch): its input, and its context.
///
/// ```
/// use hatchet::workflow::{BatchItem, BatchOptions};
/// use hatchet::Task;
///
/// let names: Task<(), String> = Task::batch("names", BatchOptions::new(10), async |items: Vec<BatchItem<()>>| {
///     Ok(items.into_iter().map(|item| Ok(item.context.run_id().to_string())).collect())
/// });
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BatchItem<I> {
    /// The value that the run was started with.
    pub input: I,
    /// The context of this attempt, with its own ids, log and cancellation.
    pub context: Context,
}

impl<I, O> Task<I, O>
where
    I: DeserializeOwned + Send + 'static,
    O: Serialize + 'static,
{
    /// Creates a task whose function gets the inputs of several runs at once, and returns an output or an error for each, in the order of
    /// the items.
    ///
    /// Use a batch task if one call with many inputs is cheaper than many calls, for example to insert rows or to compute embeddings. The
    /// engine collects the attempts according to the [`BatchOptions`]. Each attempt has its own retries, and a retry joins a later batch. In
    /// all other respects, the task is like one that [`new`](Self::new) creates. Requires engine v0.88.1 or later.
    ///
    /// If the function returns an error instead of a list, or panics, all attempts of the batch fail with that error. If the number of results
    /// differs from the number of items, all attempts of the batch fail and are not retried. An attempt whose input does not match the type
    /// fails alone and is not retried, and the function does not get its input.
    ///
    /// - A batch occupies one of the worker's `default` slots, from its start to the end of its last attempt.
    /// - An attempt that is cancelled while the batch runs is notified through its [context](Context::cancelled), and its result is
    ///   ignored. The other attempts continue. If all attempts are cancelled, the function is dropped after the worker's
    ///   [`cancel_grace_period`](crate::worker::WorkerBuilder::cancel_grace_period).
    /// - If the execution [timeout](Self::timeout) of one attempt passes, the engine ends all attempts of the batch.
    /// - The worker gets less information about the attempts of a batch: [`Context::metadata`], [`Context::priority`],
    ///   [`Context::trigger`], [`Context::workflow_id`] and [`Context::workflow_version_id`] are empty or unknown, and [`Context::attempt`]
    ///   counts only the attempts of the task that were assigned to this worker. Therefore, [`Context::run_many`] starts the children of an
    ///   attempt with one call for each child, as in a retry.
    /// - If another workflow, whose name differs only in case, is stored while the worker runs, the engine may assign its attempts to
    ///   this worker. Other tasks reject such attempts. A batch task executes them, because the engine does not report the workflow of a
    ///   batch.
    /// - What the function logs with `tracing` is not written to the log of a task. Use [`Context::log`] of the items instead.
    ///
    /// ```
    /// use hatchet::workflow::{BatchItem, BatchOptions};
    /// use hatchet::{Task, TaskError};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Text { text: String }
    ///
    /// let count = Task::batch("count", BatchOptions::new(100), async |items: Vec<BatchItem<Text>>| {
    ///     let count = |item: BatchItem<Text>| match item.input.text.as_str() {
    ///         "" => Err(TaskError::non_retryable("there is no text")),
    ///         text => Ok(text.split(' ').count()),
    ///     };
    ///     Ok(items.into_iter().map(count).collect())
    /// });
    /// ```
    pub fn batch<F, R>(name: impl Into<String>, options: BatchOptions, function: F) -> Self
    where
        F: Fn(Vec<BatchItem<I>>) -> R + Send + Sync + 'static,
        R: Future<Output = TaskResult<Vec<TaskResult<O>>>> + Send + 'static,
    {
        let handler = Batched { function, types: PhantomData };
        Self::with_handler(name.into(), Arc::new(handler)).with_batches(options)
    }
}

impl<I, O> Task<I, O> {
    pub(super) fn with_batches(self, batch: BatchOptions) -> Self {
        self.with(|definition| definition.options.batch = Some(batch))
    }
}

struct Batched<F, I, O> {
    function: F,
    types: PhantomData<fn(I) -> O>,
}

impl<F, I, O, R> Handler for Batched<F, I, O>
where
    F: Fn(Vec<BatchItem<I>>) -> R + Send + Sync,
    R: Future<Output = TaskResult<Vec<TaskResult<O>>>> + Send + 'static,
    I: DeserializeOwned,
    O: Serialize + 'static,
{
    /// A batch of one.
    fn run(&self, payload: &str, context: Context, has_dependents: bool) -> Running {
        let results = self.run_batch(vec![(payload, context)], has_dependents);
        Box::pin(async move { results.await.pop().unwrap_or_else(|| Err(wrong_count(1, 0))) })
    }

    fn run_batch(&self, attempts: Vec<(&str, Context)>, has_dependents: bool) -> RunningBatch {
        let (mut items, mut rejected) = (Vec::new(), Vec::new());
        for (payload, context) in attempts {
            match input(payload) {
                Ok(input) => {
                    items.push(BatchItem { input, context });
                    rejected.push(None);
                }
                Err(error) => rejected.push(Some(error)),
            }
        }
        let count = items.len();
        if count == 0 {
            return Box::pin(ready(rejected.into_iter().flatten().map(Err).collect()));
        }
        let result = (self.function)(items);
        Box::pin(async move {
            let outputs = match result.await {
                Ok(outputs) if outputs.len() == count => outputs,
                Ok(outputs) => fail_all(&wrong_count(count, outputs.len()), count),
                Err(error) => fail_all(&error, count),
            };
            let mut outputs = outputs.into_iter().map(|output_of| output(&output_of?, has_dependents));
            // As many as were not rejected.
            let result = |rejected: Option<TaskError>| match rejected {
                Some(error) => Err(error),
                None => outputs.next().unwrap_or_else(|| Err(wrong_count(1, 0))),
            };
            rejected.into_iter().map(result).collect()
        })
    }

    fn non_object_input(&self) -> Option<&'static str> {
        never_an_object::<I>()
    }

    fn empty_input_error(&self) -> Option<String> {
        empty_input_error::<I>()
    }
}

/// A retry would return the same number of results.
fn wrong_count(expected: usize, got: usize) -> TaskError {
    TaskError::non_retryable(format_args!("expected {expected} results, one for each item of the batch, got {got}"))
}

fn fail_all<T>(error: &TaskError, count: usize) -> Vec<TaskResult<T>> {
    std::iter::repeat_with(|| Err(error.clone())).take(count).collect()
}
