//! Runs as they are stored, and what can be derived from a run alone.

use std::sync::Arc;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::ids::RunIx;
use super::requests::{ParentLink, RunOptions};
use super::task::{State, Task};
use super::timers::TimerKey;
use super::turn::At;
use super::versions::{Step, Version};

#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) id: Uuid,
    /// Its index among all runs of the engine.
    pub(crate) ix: RunIx,
    pub(crate) version: Arc<Version>,
    pub(crate) created: At,
    /// Its position among the runs that one call started.
    pub(crate) call_index: u16,
    /// An object or `null`, as JSON text in Go's style.
    pub(crate) input: Box<str>,
    /// An object, as JSON text in the database's style.
    pub(crate) metadata: Box<str>,
    pub(crate) priority: u8,
    pub(crate) options: Option<Box<RunOptions>>,
    pub(crate) tasks: Box<[Task]>,
    /// Only for a DAG.
    pub(crate) dag: Option<Box<Dag>>,
    /// Only for a child.
    pub(crate) child: Option<Box<Child>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Child {
    pub(crate) parent: ParentLink,
    /// The input of its second start, if it was started a second time under the same id.
    pub(crate) restarted: Option<Box<str>>,
}

/// The additional state of a DAG.
#[derive(Debug, Clone)]
pub(crate) struct Dag {
    /// One for each task, in the same order.
    pub(crate) nodes: Box<[Node]>,
    /// Whether the API views show it as ended while tasks that have ended wait for a replay to restart them.
    pub(crate) hides_waits: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) created: Option<At>,
    /// What its task waits for before it is created, or before a replay restarts it.
    pub(crate) waits: Waits,
    /// The progress of its wait, if it waits for more than its parents.
    pub(crate) wait: Option<Box<Wait>>,
}

/// The progress of a wait for sleeps and events.
#[derive(Debug, Clone)]
pub(crate) struct Wait {
    /// Positions of the satisfied conditions.
    pub(crate) met: Vec<u16>,
    pub(crate) timers: Vec<TimerKey>,
    /// The data that satisfied them.
    pub(crate) data: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    Nothing,
    Parents,
    /// Its parents have ended. It waits for sleeps and events.
    Conditions,
}

impl Dag {
    pub(crate) fn new(version: &Version) -> Self {
        let node = |_: &Step| Node { created: None, waits: Waits::Parents, wait: None };
        Self { nodes: version.steps.iter().map(node).collect(), hides_waits: false }
    }

    /// Whether none of its tasks waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.nodes.iter().all(|node| node.waits == Waits::Nothing)
    }

    pub(crate) fn waits(&self, index: u16) -> Waits {
        self.nodes.get(usize::from(index)).map_or(Waits::Nothing, |node| node.waits)
    }
}

impl Run {
    /// Whether all of its tasks have ended, and none waits for a replay to restart it.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_only_ended_tasks() && self.dag.as_ref().is_none_or(|dag| dag.is_idle())
    }

    pub(crate) fn has_only_ended_tasks(&self) -> bool {
        self.tasks.iter().all(|task| task.state == State::Ended)
    }

    /// The number of one of its tasks, like a database id.
    pub(crate) fn number(&self, task: &Task) -> u64 {
        u64::from(task.step) << 32 | u64::from(self.ix.number())
    }

    /// For a child, the task that started it.
    pub(crate) fn parent(&self) -> Option<&ParentLink> {
        self.child.as_ref().map(|child| &child.parent)
    }

    pub(crate) fn is_restarted(&self) -> bool {
        self.child.as_ref().is_some_and(|child| child.restarted.is_some())
    }

    /// Its idempotency key.
    pub(crate) fn key(&self) -> Option<&str> {
        self.options.as_ref()?.key.as_deref()
    }

    /// The input that workers get, as JSON text in Go's style.
    pub(crate) fn last_input(&self) -> &str {
        self.child.as_ref().and_then(|child| child.restarted.as_deref()).unwrap_or(&self.input)
    }

    pub(crate) fn step(&self, task: &Task) -> Option<&Step> {
        self.version.steps.get(usize::from(task.step))
    }

    /// The tasks that have been created.
    pub(crate) fn present(&self) -> impl DoubleEndedIterator<Item = &Task> {
        self.tasks.iter().filter(|task| task.state != State::Absent)
    }

    /// The tasks that have been created, newest first.
    pub(crate) fn newest_first(&self) -> Vec<&Task> {
        let mut tasks: Vec<_> = self.present().collect();
        tasks.sort_by_key(|task| std::cmp::Reverse((self.created(task), task.step)));
        tasks
    }

    /// When a task was created. The task of a single-task run is created with its run.
    pub(crate) fn created(&self, task: &Task) -> At {
        let node = self.dag.as_ref().and_then(|dag| dag.nodes.get(usize::from(task.step)));
        node.and_then(|node| node.created).unwrap_or(self.created)
    }

    /// The steps of its version, with their positions.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (u16, &Step)> {
        (0..).zip(&self.version.steps)
    }

    /// A task that has ended, and that no replay is about to restart.
    pub(crate) fn ended(&self, index: u16) -> Option<&Task> {
        let is_over = self.dag.as_ref().is_none_or(|dag| dag.waits(index) == Waits::Nothing);
        self.tasks.get(usize::from(index)).filter(|task| is_over && task.state == State::Ended)
    }
}
