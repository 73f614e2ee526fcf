//! A definition: its validation, and its conversion for the server.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::handler::Handler;
use super::triggers::Triggers;
use crate::client::Client;
use crate::model::label::check_key;
use crate::model::name::{ACCEPTED, is_name};
use crate::model::{DesiredLabels, Priority};
use crate::rpc::convert::{NewTask, NewWorkflow};
use crate::time::{MAX_DURATION, format_duration};

/// A definition that a worker can register. It is created from a [`Task`](crate::Task) or a [`Workflow`](crate::Workflow).
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
    pub(crate) options: WorkflowOptions,
    pub(crate) tasks: Vec<TaskNode>,
    /// The task that runs when another task has failed.
    pub(crate) on_failure: Option<Arc<TaskDefinition>>,
    /// Whether it was created from a workflow and not from a task.
    pub(crate) is_workflow: bool,
    /// Problems that were found before the definition was created.
    pub(crate) problems: Vec<String>,
}

/// The options of a workflow as a whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct WorkflowOptions {
    pub(crate) description: String,
    pub(crate) default_priority: Option<Priority>,
    pub(crate) triggers: Triggers,
}

impl WorkflowOptions {
    /// The names of the options that are set.
    pub(super) fn names(&self) -> Vec<&'static str> {
        let own = [
            ("the description", !self.description.is_empty()),
            ("the default priority", self.default_priority.is_some()),
        ];
        own.into_iter().filter_map(|(name, is_set)| is_set.then_some(name)).chain(self.triggers.names()).collect()
    }
}

/// A task and its parents.
#[derive(Debug, Clone)]
pub(crate) struct TaskNode {
    pub(crate) task: Arc<TaskDefinition>,
    /// The names of its parents.
    pub(crate) parents: Vec<String>,
}

/// The options and the code of one task.
#[derive(Clone)]
pub(crate) struct TaskDefinition {
    pub(crate) name: String,
    pub(crate) retries: u32,
    pub(crate) timeout: Duration,
    pub(crate) schedule_timeout: Duration,
    pub(crate) backoff: Option<(f32, Duration)>,
    pub(crate) labels: DesiredLabels,
    pub(crate) handler: Arc<dyn Handler>,
}

impl TaskDefinition {
    pub(super) fn new(name: String, handler: Arc<dyn Handler>) -> Self {
        Self {
            name,
            retries: 0,
            timeout: Duration::from_secs(60),
            schedule_timeout: Duration::from_secs(300),
            backoff: None,
            labels: DesiredLabels::new(),
            handler,
        }
    }

    /// All problems that the server would refuse, or answer with an internal error.
    fn problems(&self) -> Vec<String> {
        let name = &self.name;
        let mut problems = Vec::new();
        let mut check = |ok: bool, problem: String| {
            if !ok {
                problems.push(format!("task {name:?}: {problem}"));
            }
        };
        check(is_name(name), format!("name: expected {ACCEPTED}, got {name:?}"));
        check(
            i32::try_from(self.retries).is_ok(),
            format!("retries: expected at most {}, got {}", i32::MAX, self.retries),
        );
        for (field, length) in [("timeout", self.timeout), ("schedule timeout", self.schedule_timeout)] {
            check(
                !length.is_zero() && length <= MAX_DURATION,
                format!("{field}: expected more than 0 and at most 10 years, got {length:?}"),
            );
        }
        if let Some((factor, longest)) = self.backoff {
            check((1.0..=1000.0).contains(&factor), format!("backoff factor: expected 1 to 1000, got {factor}"));
            let is_in_seconds = longest.subsec_nanos() == 0 && (1..=86400).contains(&longest.as_secs());
            check(is_in_seconds, format!("maximum backoff: expected 1 to 86400 whole seconds, got {longest:?}"));
        }
        if let Some(what) = self.handler.non_object_input() {
            check(
                false,
                format!(
                    "input type: expected a type that deserializes from a JSON object, or (), got one that deserializes from {what}"
                ),
            );
        }
        for error in self.labels.keys().filter_map(|key| check_key(key).err()) {
            check(false, error.to_string());
        }
        problems
    }

    fn to_server(&self, action: String, parents: &[String]) -> NewTask {
        let (factor, longest) = self.backoff.unzip();
        NewTask {
            name: self.name.clone(),
            action,
            timeout: format_duration(self.timeout),
            schedule_timeout: format_duration(self.schedule_timeout),
            retries: i32::try_from(self.retries).unwrap_or(i32::MAX),
            backoff_factor: factor,
            backoff_max_seconds: longest.map(|longest| i32::try_from(longest.as_secs()).unwrap_or(i32::MAX)),
            parents: parents.to_vec(),
            labels: self.labels.clone(),
        }
    }
}

impl Definition {
    /// All tasks, including the on-failure task.
    pub(crate) fn all_tasks(&self) -> impl Iterator<Item = &Arc<TaskDefinition>> {
        self.tasks.iter().map(|placed| &placed.task).chain(&self.on_failure)
    }

    /// Whether the task with this name is a parent of other tasks.
    pub(crate) fn has_dependents(&self, task: &str) -> bool {
        self.tasks.iter().any(|placed| placed.parents.iter().any(|parent| parent == task))
    }

    /// All problems that the server would refuse, or answer with an internal error.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = self.problems.clone();
        let mut add = |problem: String| problems.push(format!("workflow {:?}: {problem}", self.name));
        if !is_name(&self.name) && !self.all_tasks().any(|task| task.name == self.name) {
            add(format!("name: expected {ACCEPTED}, got {:?}", self.name));
        }
        self.options.triggers.problems().into_iter().for_each(&mut add);
        if self.tasks.is_empty() {
            add("expected at least one task, got none".into());
        }
        // The server distinguishes a task from a workflow with one task by the name only.
        if let ([only], None, true) = (self.tasks.as_slice(), &self.on_failure, self.is_workflow)
            && only.task.name == self.name
        {
            add(
                "expected a task with another name than the workflow, or the task registered by itself, got a single task with its name"
                    .into(),
            );
        }
        let mut names = BTreeSet::new();
        for task in self.all_tasks() {
            if !names.insert(task.name.to_lowercase()) {
                add(format!(
                    "expected task names that are unique regardless of case, got a second task named {:?}",
                    task.name
                ));
            }
        }
        for TaskNode { task, parents } in &self.tasks {
            for (at, parent) in parents.iter().enumerate() {
                if !self.tasks.iter().any(|other| other.task.name == *parent) {
                    add(format!("task {:?}: expected a task of the workflow as a parent, got {parent:?}", task.name));
                }
                if parents.iter().take(at).any(|other| other == parent) {
                    add(format!("task {:?}: expected each parent once, got {parent:?} twice", task.name));
                }
            }
        }
        if let Some(name) = self.find_cycle() {
            add(format!(
                "task {name:?}: expected an acyclic graph, got a task that is part of a cycle or depends on one"
            ));
        }
        problems.extend(self.all_tasks().flat_map(|task| task.problems()));
        problems
    }

    /// A task of a cycle, which can never start.
    fn find_cycle(&self) -> Option<&str> {
        let known = |name: &str| self.tasks.iter().any(|placed| placed.task.name == name);
        let mut waiting: BTreeMap<&str, Vec<&str>> = self
            .tasks
            .iter()
            .map(|placed| {
                let parents = placed.parents.iter().map(String::as_str).filter(|parent| known(parent));
                (placed.task.name.as_str(), parents.collect())
            })
            .collect();
        loop {
            let ready: Vec<_> =
                waiting.iter().filter(|(_, parents)| parents.is_empty()).map(|(name, _)| *name).collect();
            if ready.is_empty() {
                return waiting.into_keys().next();
            }
            for name in &ready {
                waiting.remove(name);
            }
            for parents in waiting.values_mut() {
                parents.retain(|parent| !ready.contains(parent));
            }
        }
    }

    /// The action name of a task. The server converts it to lower case, and fails on some upper-case letters.
    pub(crate) fn action(&self, client: &Client, task: &TaskDefinition) -> String {
        format!("{}:{}", client.prefixed(&self.name), task.name).to_lowercase()
    }

    pub(crate) fn to_server(&self, client: &Client) -> NewWorkflow {
        let task = |task: &TaskDefinition, parents: &[String]| task.to_server(self.action(client, task), parents);
        let workflow = NewWorkflow {
            name: client.prefixed(&self.name),
            description: self.options.description.clone(),
            default_priority: self.options.default_priority.map(Priority::number),
            tasks: self.tasks.iter().map(|placed| task(&placed.task, &placed.parents)).collect(),
            on_failure: self.on_failure.as_deref().map(|on_failure| task(on_failure, &[])),
            ..Default::default()
        };
        self.options.triggers.apply(client, workflow)
    }
}

impl fmt::Debug for TaskDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskDefinition").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Context, Task, Workflow};
    use super::*;
    use proptest::prelude::*;

    fn task(name: &str) -> Task<(), ()> {
        Task::new(name, async |(): (), _: Context| Ok(()))
    }

    #[test]
    fn all_problems_are_reported_together() {
        assert!(Definition::from(&task("work")).problems().is_empty());
        let bad = task("a b")
            .retries(u32::MAX)
            .timeout(Duration::ZERO)
            .schedule_timeout(Duration::MAX)
            .backoff(0.5, Duration::from_millis(10));
        let problems = Definition::from(&bad).problems();
        assert_eq!(problems.len(), 6, "{problems:#?}");
        assert!(problems.iter().all(|problem| problem.starts_with("task \"a b\": ")));
    }

    #[test]
    fn a_dag_that_the_server_would_refuse_is_refused_with_all_reasons() {
        let fine: Workflow<()> =
            Workflow::new("fine").task_after(&task("b"), ["a"]).task(&task("a")).on_failure(&task("tidy"));
        assert!(Definition::from(&fine).problems().is_empty(), "parents may be named before they are defined");
        let priority = task("urgent").default_priority(Priority::High);
        let bad: Workflow<()> = Workflow::new("b d")
            .task_after(&task("a"), ["b"])
            .task_after(&task("b"), ["a", "a", "nobody"])
            .task(&task("A"))
            .task(&priority)
            .on_failure(&task("b"));
        let problems = Definition::from(&bad).problems().join("\n");
        for text in [
            "got \"b d\"",
            "got a second task named \"A\"",
            "got a second task named \"b\"",
            "task \"b\": expected each parent once, got \"a\" twice",
            "expected a task of the workflow as a parent, got \"nobody\"",
            "task \"a\": expected an acyclic graph",
            "task \"urgent\": expected the default priority on the workflow",
        ] {
            assert!(problems.contains(text), "{text}: {problems}");
        }
        assert!(
            Definition::from(&Workflow::<()>::new("none")).problems()[0]
                .ends_with("expected at least one task, got none")
        );
        let same: Workflow<()> = Workflow::new("same").task(&task("same"));
        assert!(Definition::from(&same).problems()[0].contains("expected a task with another name than the workflow"));
    }

    proptest! {
        /// Edges that all go forward make no cycle, and one that closes a path does.
        #[test]
        fn exactly_the_cycles_are_found(edges in proptest::collection::btree_set((0usize..8, 0usize..8), 0..20)) {
            let forward = |from: usize| edges.iter().filter(move |(a, b)| a < b && *b == from).map(|(a, _)| format!("t{a}"));
            let mut flow: Workflow<()> = Workflow::new("w");
            for at in 0..8 {
                flow = flow.task_after(&task(&format!("t{at}")), forward(at).collect::<Vec<_>>());
            }
            let definition = Definition::from(&flow);
            prop_assert_eq!(definition.find_cycle(), None);
            if let Some((a, b)) = edges.iter().find(|(a, b)| a < b) {
                let mut closed = definition.clone();
                closed.tasks[*a].parents.push(format!("t{b}"));
                prop_assert!(closed.find_cycle().is_some());
            }
        }
    }
}
