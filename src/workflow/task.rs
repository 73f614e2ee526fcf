//! A task, which is also a workflow with one task.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::Context;
use super::definition::{Definition, TaskDefinition, TaskNode};
use super::handler::{Handler, TaskResult, Typed};
use super::workflow_options::WorkflowOptions;
use crate::run::Runnable;

/// A task: its function and its options.
///
/// A task is registered as a workflow of the same name, or added to a [`Workflow`](crate::Workflow). It is cheap to clone.
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
/// [`Task::with_state`] creates a task whose function gets a clone of a state, such as a connection pool, for each attempt. A closure that
/// captures variables instead must clone them itself: `move |input: Greeting, _: Context| { let pool = pool.clone(); async move { .. } }`.
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
    /// Creates a task with this name and this function.
    ///
    /// The input type must deserialize from a JSON object, or be `()`, because the engine stores no other inputs.
    /// [`WorkerBuilder::build`](crate::worker::WorkerBuilder::build) rejects a task with another input type. The output can be any type that
    /// serde serializes. To start runs of the task, the input must also be [`Serialize`] and the output [`DeserializeOwned`].
    ///
    /// An output must not contain NaN, infinities or U+0000; otherwise the task fails. If other tasks of a workflow receive the output,
    /// it must not contain integers beyond ±2^53 either, because the engine passes numbers on as doubles.
    ///
    /// A name consists of one or more ASCII letters, digits, `.`, `-` and `_`.
    /// [`WorkerBuilder::build`](crate::worker::WorkerBuilder::build) rejects other names.
    pub fn new<F, R>(name: impl Into<String>, function: F) -> Self
    where
        F: Fn(I, Context) -> R + Send + Sync + 'static,
        R: Future<Output = TaskResult<O>> + Send + 'static,
    {
        Self::with_handler(name.into(), Arc::new(Typed::<F, I, O>::new(function)))
    }
}

impl<I, O> Task<I, O> {
    pub(super) fn with_handler(name: String, handler: Arc<dyn Handler>) -> Self {
        let definition = Arc::new(TaskDefinition::new(name, handler));
        Self { definition, options: WorkflowOptions::default(), types: PhantomData }
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut TaskDefinition)) -> Self {
        change(Arc::make_mut(&mut self.definition));
        self
    }

    /// Returns the name, without the namespace of the client.
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

    fn is_dag(&self) -> Option<bool> {
        Some(false)
    }

    fn default_metadata(&self) -> &[(String, String)] {
        &self.options.metadata
    }

    fn has_idempotency_key(&self) -> Option<bool> {
        Some(self.options.start.has_idempotency_key())
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
