//! Queues of tasks, one for each action.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::ids::TaskKey;
use super::task::QueueOrder;

#[derive(Debug, Default)]
pub(crate) struct Queues {
    by_action: HashMap<Arc<str>, BTreeMap<QueueOrder, TaskKey>>,
    count: u64,
}

impl Queues {
    pub(crate) fn push(&mut self, action: Arc<str>, urgency: u8, task: TaskKey) -> QueueOrder {
        self.count += 1;
        let order = QueueOrder { urgency: Reverse(urgency), number: self.count };
        self.by_action.entry(action).or_default().insert(order, task);
        order
    }

    pub(crate) fn remove(&mut self, action: &str, order: QueueOrder) {
        if let Some(queue) = self.by_action.get_mut(action) {
            queue.remove(&order);
        }
    }

    /// The first task after a position, or the first task of the queue.
    pub(crate) fn after(&self, action: &str, position: Option<QueueOrder>) -> Option<(QueueOrder, TaskKey)> {
        let start = position.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_action.get(action)?.range((start, Bound::Unbounded)).next().map(|(order, task)| (*order, *task))
    }

    /// The tasks of one action, the last one first.
    pub(crate) fn last_first(&self, action: &str) -> impl Iterator<Item = TaskKey> {
        self.by_action.get(action).into_iter().flat_map(|queue| queue.values().rev().copied())
    }

    pub(crate) fn has_tasks(&self, action: &str) -> bool {
        self.by_action.get(action).is_some_and(|queue| !queue.is_empty())
    }

    #[cfg(test)]
    pub(crate) fn entries(&self) -> impl Iterator<Item = (QueueOrder, TaskKey)> {
        self.by_action.values().flatten().map(|(order, task)| (*order, *task))
    }
}
