//! A workflow with several tasks (a DAG).

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::definition::{Definition, TaskNode, WorkflowOptions};
use super::task::Task;
use crate::model::Priority;
use crate::run::Runnable;

/// A workflow with several tasks (a DAG). Each task starts when its parents have completed. All tasks receive the input of the run.
/// A task reads the outputs of its parents with [`Context::parent_output`](crate::Context::parent_output).
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
/// let doubled = Task::new("doubled", async |_: Text, context: Context| {
///     Ok(context.parent_output::<usize>("words")? * 2)
/// });
/// let count = Workflow::new("count").task(&words).task_after(&doubled, ["words"]).typed::<Counts>();
/// ```
pub struct Workflow<I, O = serde_json::Value> {
    name: String,
    options: WorkflowOptions,
    tasks: Vec<TaskNode>,
    on_failure: Option<Arc<super::definition::TaskDefinition>>,
    problems: Vec<String>,
    types: PhantomData<fn(I) -> O>,
}

impl<I> Workflow<I> {
    /// Creates a workflow without tasks. The rules for names are those of [tasks](Task::new). The tasks determine the input type, and
    /// [`typed`](Self::typed) sets the output type.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            options: WorkflowOptions::default(),
            tasks: Vec::new(),
            on_failure: None,
            problems: Vec::new(),
            types: PhantomData,
        }
    }
}

impl<I, O> Workflow<I, O> {
    /// Sets the output type of runs: an object with the outputs of the tasks by task name.
    #[must_use]
    pub fn typed<T>(self) -> Workflow<I, T> {
        let Self { name, options, tasks, on_failure, problems, types: _ } = self;
        Workflow { name, options, tasks, on_failure, problems, types: PhantomData }
    }

    /// Adds a task without parents.
    #[must_use]
    pub fn task<TO>(self, task: &Task<I, TO>) -> Self {
        self.task_after(task, std::iter::empty::<String>())
    }

    /// Adds a task that starts when all of its parents have completed.
    #[must_use]
    pub fn task_after<TO>(mut self, task: &Task<I, TO>, parents: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.check(task);
        let parents = parents.into_iter().map(Into::into).collect();
        self.tasks.push(TaskNode { task: Arc::clone(task.definition()), parents });
        self
    }

    /// Sets the task that runs when another task has failed. [`Context::errors`](crate::Context::errors) returns the errors of the
    /// failed tasks. The engine shows tasks after a failed task as cancelled. If no task has failed, it shows this task as completed
    /// with the output `{"skipped":true}`.
    #[must_use]
    pub fn on_failure<TO>(mut self, task: &Task<I, TO>) -> Self {
        self.check(task);
        if self.on_failure.replace(Arc::clone(task.definition())).is_some() {
            self.problems.push(format!("workflow {:?}: expected one on_failure task, got two", self.name));
        }
        self
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

    pub(super) fn with_options(mut self, change: impl FnOnce(&mut WorkflowOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// Returns the name of the workflow.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Records a problem if a task has options that apply to workflows only: they would be ignored silently.
    fn check<TO>(&mut self, task: &Task<I, TO>) {
        let options = task.options().names();
        if !options.is_empty() {
            let options = options.join(", ");
            self.problems
                .push(format!("task {:?}: expected {options} on the workflow, got it on the task", task.name()));
        }
    }
}

impl<I, O> From<&Workflow<I, O>> for Definition {
    fn from(workflow: &Workflow<I, O>) -> Self {
        Self {
            name: workflow.name.clone(),
            options: workflow.options.clone(),
            tasks: workflow.tasks.clone(),
            on_failure: workflow.on_failure.clone(),
            is_workflow: true,
            problems: workflow.problems.clone(),
        }
    }
}

impl<I: Serialize, O: DeserializeOwned> Runnable for Workflow<I, O> {
    type Input = I;
    type Output = O;

    fn workflow_name(&self) -> &str {
        &self.name
    }
}

impl<I, O> Clone for Workflow<I, O> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            options: self.options.clone(),
            tasks: self.tasks.clone(),
            on_failure: self.on_failure.clone(),
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
