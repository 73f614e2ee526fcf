//! Queues of tasks, one for each action.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::ids::TaskKey;
use super::task::QueueOrder;

#[derive(Debug, Default)]
pub(crate) struct Queues {
    by_action: HashMap<Arc<str>, Queue>,
    count: u64,
}

#[derive(Debug, Default)]
struct Queue {
    tasks: BTreeMap<QueueOrder, TaskKey>,
    /// Those that have been queued since [`Queues::take_new`]. Without this, each assignment would have to scan the whole queue.
    new: BTreeSet<QueueOrder>,
}

impl Queues {
    pub(crate) fn push(&mut self, action: Arc<str>, urgency: u8, task: TaskKey) -> QueueOrder {
        self.count += 1;
        let order = QueueOrder { urgency: Reverse(urgency), number: self.count };
        let queue = self.by_action.entry(action).or_default();
        queue.tasks.insert(order, task);
        queue.new.insert(order);
        order
    }

    pub(crate) fn remove(&mut self, action: &str, order: QueueOrder) {
        if let Some(queue) = self.by_action.get_mut(action) {
            queue.tasks.remove(&order);
            queue.new.remove(&order);
        }
    }

    /// The first task after a position, or the first task of the queue.
    pub(crate) fn after(&self, action: &str, position: Option<QueueOrder>) -> Option<(QueueOrder, TaskKey)> {
        let start = position.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_action.get(action)?.tasks.range((start, Bound::Unbounded)).next().map(|(order, task)| (*order, *task))
    }

    /// The tasks of one action that have been queued since the last call, the last in the queue first.
    pub(crate) fn take_new(&mut self, action: &str) -> Vec<TaskKey> {
        let Some(queue) = self.by_action.get_mut(action) else { return Vec::new() };
        let new = std::mem::take(&mut queue.new);
        new.into_iter().rev().filter_map(|order| queue.tasks.get(&order).copied()).collect()
    }

    /// Removes a task from those that have been queued since [`Queues::take_new`].
    pub(crate) fn take_one_new(&mut self, action: &str, order: QueueOrder) {
        if let Some(queue) = self.by_action.get_mut(action) {
            queue.new.remove(&order);
        }
    }

    pub(crate) fn has_tasks(&self, action: &str) -> bool {
        self.by_action.get(action).is_some_and(|queue| !queue.tasks.is_empty())
    }

    /// All queued tasks, with their positions.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (QueueOrder, TaskKey)> {
        self.by_action.values().flat_map(|queue| &queue.tasks).map(|(order, task)| (*order, *task))
    }
}
