//! A definition, and its conversion for the engine.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::handler::Handler;
use super::task_options::TaskOptions;
use super::workflow_options::WorkflowOptions;
use crate::client::Client;
use crate::model::Priority;
use crate::model::engine_version::{EngineVersion, Requirement};
use crate::model::rate_limit::RateLimitKey;
use crate::rpc::convert::{NewTask, NewWorkflow};

/// A definition that a worker can register.
///
/// A definition is created from a [`Task`](crate::Task) or a [`Workflow`](crate::Workflow).
///
/// ```no_run
/// # fn example(hatchet: hatchet::Client, greet: hatchet::Task<(), ()>, charge: hatchet::Task<(), ()>) {
/// use hatchet::workflow::Definition;
///
/// // A list of tasks and workflows with different types.
/// let all: [Definition; 2] = [(&greet).into(), (&charge).into()];
/// let worker = all.into_iter().fold(hatchet.worker("mailer"), |worker, each| worker.register(each));
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Definition {
    pub(crate) name: String,
    pub(super) options: WorkflowOptions,
    pub(super) tasks: Vec<TaskNode>,
    /// The task that runs when another task has failed.
    pub(super) on_failure: Option<Arc<TaskDefinition>>,
    /// Whether it was created from a workflow and not from a task.
    pub(super) is_workflow: bool,
    /// Problems that were found before the definition was created, with the name of what they are about.
    pub(super) problems: Vec<String>,
}

/// A task and its parents.
#[derive(Debug, Clone)]
pub(crate) struct TaskNode {
    pub(crate) task: Arc<TaskDefinition>,
    /// The names of its parents.
    pub(crate) parents: Vec<String>,
}

/// The options and the function of one task.
#[derive(Clone)]
pub(crate) struct TaskDefinition {
    pub(crate) name: String,
    pub(super) options: TaskOptions,
    pub(crate) handler: Arc<dyn Handler>,
}

impl TaskDefinition {
    pub(super) fn new(name: String, handler: Arc<dyn Handler>) -> Self {
        Self { name, options: TaskOptions::default(), handler }
    }

    /// The number of slots by type that each attempt occupies. If it is empty, it occupies one of the default type.
    pub(crate) fn requested_slots(&self) -> &BTreeMap<String, u32> {
        &self.options.slots
    }

    pub(crate) fn max_retries(&self) -> u32 {
        self.options.max_retries()
    }

    /// The execution timeout of an attempt.
    pub(crate) fn timeout(&self) -> Duration {
        self.options.timeouts().0
    }
}

impl Definition {
    /// All tasks, including the on-failure task.
    pub(crate) fn all_tasks(&self) -> impl Iterator<Item = &Arc<TaskDefinition>> {
        self.tasks.iter().map(|node| &node.task).chain(&self.on_failure)
    }

    /// Whether other tasks receive the output of the task with this name. The on-failure task receives all.
    pub(crate) fn has_dependents(&self, task: &str) -> bool {
        let is_parent = self.tasks.iter().any(|node| node.parents.iter().any(|parent| parent == task));
        is_parent || self.on_failure.as_ref().is_some_and(|on_failure| on_failure.name != task)
    }

    /// The names of the parents of a task. `None` for the on-failure task, which follows all others.
    pub(crate) fn parents_of(&self, task: &str) -> Option<Arc<[String]>> {
        let node = self.tasks.iter().find(|node| node.task.name == task)?;
        Some(node.parents.as_slice().into())
    }

    /// The options that older engines reject, or ignore without an error.
    pub(super) fn requirements(&self) -> Vec<Requirement> {
        let named = |kind: &str, name: &str, options: Vec<(String, EngineVersion)>| {
            let option = |(option, version)| Requirement { option: format!("{kind} {name:?}: {option}"), version };
            options.into_iter().map(option).collect::<Vec<_>>()
        };
        let of_tasks = self.all_tasks().flat_map(|task| named("task", &task.name, task.options.requirements()));
        named("workflow", &self.name, self.options.requirements()).into_iter().chain(of_tasks).collect()
    }

    /// The keys of the rate limits that must exist, each with the name of a task, and the units that it consumes if they are known.
    pub(super) fn static_rate_limits(&self) -> Vec<(&str, &str, Option<i32>)> {
        let mut keys = Vec::new();
        for task in self.all_tasks() {
            for limit in &task.options.rate_limits {
                if let RateLimitKey::Static(key) = &limit.key {
                    keys.push((task.name.as_str(), key.as_str(), limit.fixed_units()));
                }
            }
        }
        keys
    }

    /// The action name of a task. The engine converts it to lower case, and fails on some upper-case letters.
    pub(crate) fn action(&self, client: &Client, task: &TaskDefinition) -> String {
        format!("{}:{}", client.prefixed(&self.name), task.name).to_lowercase()
    }

    pub(crate) fn to_engine(&self, client: &Client) -> NewWorkflow {
        let task = |task: &TaskDefinition, parents: &[String]| {
            let (name, action, parents) = (task.name.clone(), self.action(client, task), parents.to_vec());
            let sent = NewTask { name, action, parents, ..NewTask::default() };
            task.options.apply(sent, |key| client.prefixed(key))
        };
        let workflow = NewWorkflow {
            name: client.prefixed(&self.name),
            description: self.options.description.clone(),
            default_priority: self.options.default_priority.map(Priority::number),
            tasks: self.tasks.iter().map(|node| task(&node.task, &node.parents)).collect(),
            on_failure: self.on_failure.as_deref().map(|on_failure| task(on_failure, &[])),
            concurrency: self.options.concurrency.clone(),
            input_schema: self.options.input_schema.clone(),
            ..NewWorkflow::default()
        };
        self.options.start.apply(client, workflow)
    }
}

impl fmt::Debug for TaskDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskDefinition")
            .field("name", &self.name)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
