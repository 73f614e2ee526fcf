//! A task, which is also a workflow of one task.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::Context;
use super::definition::{Definition, Placed, Rules, TaskDefinition};
use super::handler::{TaskResult, Typed};
use crate::model::Priority;
use crate::run::Runnable;

/// A task: its code, and the rules it runs by. It is a workflow of its own, by the same name, or one of several in a
/// [`Workflow`](crate::Workflow). Cheap to clone.
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
/// A closure that uses something from around it owns a clone for each call:
/// `move |input: Greeting, _: Context| { let pool = pool.clone(); async move { .. } }`.
pub struct Task<I, O> {
    definition: Arc<TaskDefinition>,
    rules: Rules,
    types: PhantomData<fn(I) -> O>,
}

impl<I, O> Task<I, O>
where
    I: DeserializeOwned + 'static,
    O: Serialize + 'static,
{
    /// A task with this name and this code.
    ///
    /// The input is a type that reads a JSON object, or `()`: the engine keeps nothing else, so a task with another is refused
    /// when a worker is built with it. The output can be any type that serde writes. To start runs of the task, the input must
    /// be [`Serialize`] and the output [`DeserializeOwned`], too.
    ///
    /// An output must not have NaN, infinities, or U+0000 in it; a task that ends with one fails. If other tasks follow this one
    /// in a workflow, neither must it have integers beyond ±2^53, since the engine passes numbers on as doubles.
    ///
    /// Names are letters, digits, `.`, `-` and `_`; a name that is not is refused when a worker is built with the task.
    pub fn new<F, R>(name: impl Into<String>, code: F) -> Self
    where
        F: Fn(I, Context) -> R + Send + Sync + 'static,
        R: Future<Output = TaskResult<O>> + Send + 'static,
    {
        let definition = TaskDefinition::new(name.into(), Arc::new(Typed::<F, I, O>::new(code)));
        Self { definition: Arc::new(definition), rules: Rules::default(), types: PhantomData }
    }
}

impl<I, O> Task<I, O> {
    pub(super) fn with(mut self, change: impl FnOnce(&mut TaskDefinition)) -> Self {
        change(Arc::make_mut(&mut self.definition));
        self
    }

    /// How often it is tried again after a failure or a timeout; 0 by default.
    #[must_use]
    pub fn retries(self, retries: u32) -> Self {
        self.with(|definition| definition.retries = retries)
    }

    /// How long one attempt may take, from when a worker has it; 60 seconds by default, as in the other SDKs.
    ///
    /// The engine looks about once a second, so an attempt may have a second more. When it is over, and there is a retry, that
    /// begins as soon as the code of this attempt has ended: it is told, and dropped when the worker's
    /// [`cancel_grace`](crate::WorkerBuilder::cancel_grace) is over. The next attempt's time runs meanwhile, so code that
    /// heeds [`Context::cancelled`](crate::Context::cancelled) leaves it more.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|definition| definition.timeout = timeout)
    }

    /// How long it may wait for a worker, each attempt anew; 5 minutes by default.
    #[must_use]
    pub fn schedule_timeout(self, timeout: Duration) -> Self {
        self.with(|definition| definition.schedule_timeout = timeout)
    }

    /// How long to wait before a retry: `factor` seconds before the first, and for each further one `factor` times as
    /// long, up to `longest`. By default there is no pause. The factor is 1 to 1000, the longest pause 1 second to a day.
    ///
    /// The engine looks at the queue of a task that waited now and then: half a minute may pass on top.
    #[must_use]
    pub fn backoff(self, factor: f32, longest: Duration) -> Self {
        self.with(|definition| definition.backoff = Some((factor, longest)))
    }

    /// The priority of runs that are started without one.
    #[must_use]
    pub fn default_priority(mut self, priority: Priority) -> Self {
        self.rules.default_priority = Some(priority);
        self
    }

    /// What the dashboard says about it.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.rules.description = text.into();
        self
    }

    /// The task's name.
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    pub(super) fn definition(&self) -> &Arc<TaskDefinition> {
        &self.definition
    }

    pub(super) fn with_rules(mut self, change: impl FnOnce(&mut Rules)) -> Self {
        change(&mut self.rules);
        self
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }
}

impl<I, O> From<&Task<I, O>> for Definition {
    fn from(task: &Task<I, O>) -> Self {
        Self {
            name: task.definition.name.clone(),
            rules: task.rules.clone(),
            tasks: vec![Placed { task: Arc::clone(&task.definition), parents: Vec::new() }],
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
        Self { definition: Arc::clone(&self.definition), rules: self.rules.clone(), types: PhantomData }
    }
}

impl<I, O> fmt::Debug for Task<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("definition", &self.definition).finish_non_exhaustive()
    }
}
