//! A task, which is also a workflow with one task.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::Context;
use super::definition::{Definition, TaskDefinition, TaskNode, WorkflowOptions};
use super::handler::{TaskResult, Typed};
use crate::model::Priority;
use crate::run::Runnable;

/// A task: its code and its options. It is registered as a workflow of the same name, or added to a
/// [`Workflow`](crate::Workflow). It is cheap to clone.
///
/// ```
/// use std::time::Duration;
/// use hatchet::{Context, Task};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Greeting { name: String }
///
/// #[derive(Serialize, Deserialize)]
/// struct Reply { text: String }
///
/// let greet = Task::new("greet", async |input: Greeting, _: Context| {
///     Ok(Reply { text: format!("Hello, {}!", input.name) })
/// })
/// .retries(3)
/// .timeout(Duration::from_secs(30));
/// ```
///
/// A closure that captures variables clones them for each call:
/// `move |input: Greeting, _: Context| { let pool = pool.clone(); async move { .. } }`.
pub struct Task<I, O> {
    definition: Arc<TaskDefinition>,
    options: WorkflowOptions,
    types: PhantomData<fn(I) -> O>,
}

impl<I, O> Task<I, O>
where
    I: DeserializeOwned + 'static,
    O: Serialize + 'static,
{
    /// Creates a task with this name and this code.
    ///
    /// The input type must deserialize from a JSON object, or be `()`, because the engine stores no other inputs.
    /// [`WorkerBuilder::build`](crate::worker::WorkerBuilder::build) refuses a task with another input type. The output can be any type that
    /// serde serializes. To start runs of the task, the input must also be [`Serialize`] and the output [`DeserializeOwned`].
    ///
    /// An output must not contain NaN, infinities or U+0000; otherwise the task fails. If other tasks of a workflow receive the output,
    /// it must not contain integers beyond ±2^53 either, because the engine passes numbers on as doubles.
    ///
    /// A name consists of one or more ASCII letters, digits, `.`, `-` and `_`. [`WorkerBuilder::build`](crate::worker::WorkerBuilder::build) refuses other names.
    pub fn new<F, R>(name: impl Into<String>, code: F) -> Self
    where
        F: Fn(I, Context) -> R + Send + Sync + 'static,
        R: Future<Output = TaskResult<O>> + Send + 'static,
    {
        let definition = TaskDefinition::new(name.into(), Arc::new(Typed::<F, I, O>::new(code)));
        Self { definition: Arc::new(definition), options: WorkflowOptions::default(), types: PhantomData }
    }
}

impl<I, O> Task<I, O> {
    pub(super) fn with(mut self, change: impl FnOnce(&mut TaskDefinition)) -> Self {
        change(Arc::make_mut(&mut self.definition));
        self
    }

    /// Sets how many times the task is retried after a failure or a timeout. The default is 0.
    #[must_use]
    pub fn retries(self, retries: u32) -> Self {
        self.with(|definition| definition.retries = retries)
    }

    /// Sets the execution timeout of one attempt, from its assignment to a worker. The default is 60 seconds, as in the other SDKs. It
    /// must be over 0 and at most 10 years.
    ///
    /// The engine checks timeouts about once per second, so an attempt may run up to a second longer. After a timeout, the attempt is
    /// cancelled, and dropped when the worker's [`cancel_grace_period`](crate::worker::WorkerBuilder::cancel_grace_period) is over. A retry starts when the
    /// code of this attempt has ended. The timeout of the retry already runs in the meantime, so code that reacts to
    /// [`Context::cancelled`](crate::Context::cancelled) leaves the retry more time.
    ///
    /// ```
    /// use hatchet::{Context, Task};
    ///
    /// use std::time::Duration;
    ///
    /// let fetch: Task<(), ()> =
    ///     Task::new("fetch", async |(): (), _: Context| Ok(())).timeout(Duration::from_secs(30));
    /// ```
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|definition| definition.timeout = timeout)
    }

    /// Sets how long each attempt may wait for a worker. The default is 5 minutes. It must be over 0 and at most 10 years.
    #[must_use]
    pub fn schedule_timeout(self, timeout: Duration) -> Self {
        self.with(|definition| definition.schedule_timeout = timeout)
    }

    /// Sets the exponential backoff: the engine waits `factor` seconds before the first retry, and `factor` times as long before each
    /// further one, up to `longest`. By default, it retries immediately. The factor must be 1 to 1000, and `longest` 1 second to 1 day.
    ///
    /// The engine checks the queue of waiting tasks only from time to time, which may add up to 30 seconds.
    ///
    /// ```
    /// use hatchet::{Context, Task};
    ///
    /// use std::time::Duration;
    ///
    /// let fetch: Task<(), ()> = Task::new("fetch", async |(): (), _: Context| Ok(()))
    ///     .retries(5)
    ///     .backoff(2.0, Duration::from_secs(60));
    /// ```
    #[must_use]
    pub fn backoff(self, factor: f32, longest: Duration) -> Self {
        self.with(|definition| definition.backoff = Some((factor, longest)))
    }

    /// Sets the priority of runs that are started without one.
    #[must_use]
    pub fn default_priority(mut self, priority: Priority) -> Self {
        self.options.default_priority = Some(priority);
        self
    }

    /// Sets the description that the dashboard shows.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.options.description = text.into();
        self
    }

    /// Returns the name of the task.
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    pub(super) fn definition(&self) -> &Arc<TaskDefinition> {
        &self.definition
    }

    pub(super) fn with_options(mut self, change: impl FnOnce(&mut WorkflowOptions)) -> Self {
        change(&mut self.options);
        self
    }

    pub(super) fn options(&self) -> &WorkflowOptions {
        &self.options
    }
}

impl<I, O> From<&Task<I, O>> for Definition {
    fn from(task: &Task<I, O>) -> Self {
        Self {
            name: task.definition.name.clone(),
            options: task.options.clone(),
            tasks: vec![TaskNode { task: Arc::clone(&task.definition), parents: Vec::new() }],
            on_failure: None,
            is_workflow: false,
            problems: Vec::new(),
        }
    }
}

impl<I: Serialize, O: DeserializeOwned> Runnable for Task<I, O> {
    type Input = I;
    type Output = O;

    fn workflow_name(&self) -> &str {
        &self.definition.name
    }
}

impl<I, O> Clone for Task<I, O> {
    fn clone(&self) -> Self {
        Self { definition: Arc::clone(&self.definition), options: self.options.clone(), types: PhantomData }
    }
}

impl<I, O> fmt::Debug for Task<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("definition", &self.definition).finish_non_exhaustive()
    }
}
