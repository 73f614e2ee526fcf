//! A workflow with several tasks (a DAG).

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::defaults::TaskDefaults;
use super::definition::{Definition, TaskDefinition, TaskNode};
use super::graph;
use super::parents::Parents;
use super::task::Task;
use super::workflow_options::WorkflowOptions;
use crate::run::Runnable;

/// A workflow with several tasks (a DAG).
///
/// Each task starts when its parents have completed. All tasks receive the input of the run. A task reads the outputs of its parents with
/// [`Context::output_of`](crate::Context::output_of).
///
/// The output of a run, `O`, is an object with the outputs of the tasks by task name.
///
/// ```
/// use hatchet::{Context, Task, Workflow};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Text { text: String }
///
/// #[derive(Deserialize)]
/// struct Counts { words: usize, doubled: usize }
///
/// let words = Task::new("words", async |input: Text, _: Context| Ok(input.text.split_whitespace().count()));
/// let doubled = Task::new("doubled", {
///     let words = words.clone();
///     move |_: Text, context: Context| {
///         let words = words.clone();
///         async move { Ok(context.output_of(&words)? * 2) }
///     }
/// });
/// let count = Workflow::new("count").task(&words).task_after(&doubled, &words).typed::<Counts>();
/// ```
pub struct Workflow<I, O = serde_json::Value> {
    name: String,
    options: WorkflowOptions,
    tasks: Vec<TaskNode>,
    on_failure: Option<Arc<TaskDefinition>>,
    /// The task that runs after all others.
    on_success: Option<Arc<TaskDefinition>>,
    defaults: TaskDefaults,
    problems: Vec<String>,
    types: PhantomData<fn(I) -> O>,
}

impl<I> Workflow<I> {
    /// Creates a workflow without tasks.
    ///
    /// The rules for its name are the same as for [tasks](Task::new). The tasks determine the input type, and [`typed`](Self::typed) sets
    /// the output type.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            options: WorkflowOptions::default(),
            tasks: Vec::new(),
            on_failure: None,
            on_success: None,
            defaults: TaskDefaults::default(),
            problems: Vec::new(),
            types: PhantomData,
        }
    }
}

impl<I, O> Workflow<I, O> {
    /// Sets the output type of runs: an object with the outputs of the tasks by task name.
    #[must_use]
    pub fn typed<T>(self) -> Workflow<I, T> {
        let Self { name, options, tasks, on_failure, on_success, defaults, problems, types: _ } = self;
        Workflow { name, options, tasks, on_failure, on_success, defaults, problems, types: PhantomData }
    }

    /// Adds a task without parents.
    #[must_use]
    pub fn task<TO>(self, task: &Task<I, TO>) -> Self {
        self.add(task, Vec::new())
    }

    /// Adds a task that starts when all of its parents have completed.
    ///
    /// `parents` is a task, a name, or several of them; see [`Parents`]. A parent may be added later than the task. The task is skipped if
    /// all parents were [skipped](Task::skip_if), and cancelled if one of the parents failed or was cancelled.
    ///
    /// ```
    /// # use hatchet::{Context, Task, Workflow};
    /// # fn example(reserve: Task<(), String>, charge: Task<(), f64>, ship: Task<(), ()>, notify: Task<(), ()>) {
    /// let order = Workflow::<()>::new("order")
    ///     .task(&reserve)
    ///     .task(&charge)
    ///     .task_after(&ship, (&reserve, &charge))
    ///     .task_after(&notify, &ship);
    /// # }
    /// ```
    #[must_use]
    pub fn task_after<TO>(self, task: &Task<I, TO>, parents: impl Parents) -> Self {
        self.add(task, parents.names())
    }

    fn add<TO>(mut self, task: &Task<I, TO>, parents: Vec<String>) -> Self {
        self.check(task);
        self.tasks.push(TaskNode { task: Arc::clone(task.definition()), parents });
        self
    }

    /// Sets the task that runs when another task has failed.
    ///
    /// [`Context::errors`](crate::Context::errors) returns the errors of the failed tasks. The engine shows tasks after a failed task as
    /// cancelled. If no task has failed, the engine shows this task as completed with the output `{"skipped":true}`.
    #[must_use]
    pub fn on_failure<TO>(mut self, task: &Task<I, TO>) -> Self {
        self.check(task);
        if self.on_failure.replace(Arc::clone(task.definition())).is_some() {
            self.problems.push(format!("workflow {:?}: expected one on_failure task, got two", self.name));
        }
        self
    }

    /// Sets the task that runs when all other tasks have completed.
    ///
    /// As in the other SDKs, its parents are all tasks on which no other task depends. It is skipped if all of its parents were skipped,
    /// and cancelled if one of them was cancelled. If it fails, the run fails, and the on-failure task runs.
    ///
    /// ```
    /// # use hatchet::{Context, Task, Workflow};
    /// # fn example(reserve: Task<(), String>, charge: Task<(), f64>, thank: Task<(), ()>, apologize: Task<(), ()>) {
    /// let order =
    ///     Workflow::<()>::new("order").task(&reserve).task(&charge).on_success(&thank).on_failure(&apologize);
    /// # }
    /// ```
    #[must_use]
    pub fn on_success<TO>(mut self, task: &Task<I, TO>) -> Self {
        self.check(task);
        if self.on_success.replace(Arc::clone(task.definition())).is_some() {
            self.problems.push(format!("workflow {:?}: expected one on_success task, got two", self.name));
        }
        self
    }

    /// Sets options for the tasks that do not set them themselves, including the on-failure task and the on-success task.
    #[must_use]
    pub fn task_defaults(mut self, defaults: TaskDefaults) -> Self {
        self.defaults = defaults;
        self
    }

    pub(super) fn with_options(mut self, change: impl FnOnce(&mut WorkflowOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// Returns the name of the workflow, without the namespace of a client.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Records a problem if a task has options that apply to workflows only: they would be ignored silently.
    fn check<TO>(&mut self, task: &Task<I, TO>) {
        let options = task.options().names();
        if !options.is_empty() {
            let options = options.join(", ");
            self.problems
                .push(format!("task {:?}: expected {options} on the workflow, got {options} on the task", task.name()));
        }
    }
}

impl<I, O> From<&Workflow<I, O>> for Definition {
    fn from(workflow: &Workflow<I, O>) -> Self {
        let mut tasks = workflow.tasks.clone();
        if let Some(task) = &workflow.on_success {
            tasks.push(TaskNode { task: Arc::clone(task), parents: graph::leaves(&tasks) });
        }
        for node in &mut tasks {
            node.task = workflow.defaults.apply(&node.task);
        }
        let on_failure = workflow.on_failure.as_ref().map(|task| workflow.defaults.apply(task));
        let unused = workflow.defaults.problems(tasks.iter().map(|node| &node.task).chain(&on_failure));
        let unused = unused.into_iter().map(|problem| format!("workflow {:?}: {problem}", workflow.name));
        Self {
            name: workflow.name.clone(),
            options: workflow.options.clone(),
            problems: workflow.problems.iter().cloned().chain(unused).collect(),
            tasks,
            on_failure,
            is_workflow: true,
        }
    }
}

impl<I: Serialize, O: DeserializeOwned> Runnable for Workflow<I, O> {
    type Input = I;
    type Output = O;

    fn workflow_name(&self) -> &str {
        &self.name
    }

    fn is_dag(&self) -> Option<bool> {
        Some(self.tasks.len() + usize::from(self.on_success.is_some()) > 1)
    }

    fn default_metadata(&self) -> &[(String, String)] {
        &self.options.metadata
    }

    fn has_idempotency_key(&self) -> Option<bool> {
        Some(self.options.start.has_idempotency_key())
    }
}

impl<I, O> Clone for Workflow<I, O> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            options: self.options.clone(),
            tasks: self.tasks.clone(),
            on_failure: self.on_failure.clone(),
            on_success: self.on_success.clone(),
            defaults: self.defaults.clone(),
            problems: self.problems.clone(),
            types: PhantomData,
        }
    }
}

impl<I, O> fmt::Debug for Workflow<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workflow").field("name", &self.name).field("tasks", &self.tasks).finish_non_exhaustive()
    }
}
