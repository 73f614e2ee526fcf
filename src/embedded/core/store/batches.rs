//! Batches: tasks that wait until they are assigned together, and tasks that were assigned together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::cel::Cel;
use super::ids::{BatchGroupId, TaskKey};
use super::timers::TimerKey;

/// How the tasks of a step are put into batches, as it was defined. Options that were not set have their defaults.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BatchOptions {
    pub(crate) max_size: i32,
    pub(crate) max_interval_ms: i32,
    pub(crate) group_key: Cel,
    pub(crate) group_max_runs: i32,
    /// Stored, and without any effect.
    pub(crate) broadcast_output: bool,
}

/// The maxima of a group: the size of a batch, how long tasks wait, and how many batches run at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchLimits {
    pub(crate) size: usize,
    pub(crate) interval: Duration,
    pub(crate) runs: usize,
}

/// The tasks of one step and one key. Only they share batches.
#[derive(Debug)]
pub(crate) struct BatchGroup {
    pub(crate) action: Arc<str>,
    pub(crate) step: Uuid,
    pub(crate) key: Box<str>,
    pub(crate) limits: BatchLimits,
    /// When all that wait are assigned. `None` if nobody waits, or if that time has come.
    pub(crate) deadline: Option<TimerKey>,
    /// Tasks in the order of their arrival, with the sizes of their payloads in bytes.
    waiting: BTreeMap<u64, (TaskKey, usize)>,
    bytes: usize,
    /// Those that have arrived since [`Batches::take_new`].
    new: Vec<TaskKey>,
    running: BTreeSet<Uuid>,
}

/// The groups of an action, by step and key.
type GroupsOfAction = BTreeMap<(Uuid, Box<str>), BatchGroupId>;

#[derive(Debug, Clone, Copy)]
enum Place {
    Waiting(BatchGroupId, u64),
    Running(Uuid),
}

#[derive(Debug)]
struct Batch {
    group: BatchGroupId,
    /// Those that have not ended.
    members: BTreeSet<TaskKey>,
}

#[derive(Debug, Default)]
pub(crate) struct Batches {
    /// The groups of each action.
    ids: HashMap<Arc<str>, GroupsOfAction>,
    groups: BTreeMap<BatchGroupId, BatchGroup>,
    running: HashMap<Uuid, Batch>,
    places: HashMap<TaskKey, Place>,
    /// The groups that may have a batch for a worker now.
    changed: BTreeSet<BatchGroupId>,
    count: u64,
}

impl BatchGroup {
    /// The tasks that wait, with the sizes of their payloads. The first to arrive is the first.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (TaskKey, usize)> {
        self.waiting.values().copied()
    }

    pub(crate) fn size(&self) -> usize {
        self.waiting.len()
    }

    /// The size of all payloads.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of its batches that have not ended.
    pub(crate) fn runs(&self) -> usize {
        self.running.len()
    }
}

impl Batches {
    /// Adds a task to those that wait in a group. Returns the group.
    pub(crate) fn wait(
        &mut self,
        (action, step, key): (Arc<str>, Uuid, Box<str>),
        limits: BatchLimits,
        task: TaskKey,
        bytes: usize,
    ) -> BatchGroupId {
        self.count += 1;
        let arrival = self.count;
        let of_action = self.ids.entry(Arc::clone(&action)).or_default();
        let id = *of_action.entry((step, key.clone())).or_insert(BatchGroupId(arrival));
        let new = || BatchGroup {
            action,
            step,
            key,
            limits,
            deadline: None,
            waiting: BTreeMap::new(),
            bytes: 0,
            new: Vec::new(),
            running: BTreeSet::new(),
        };
        let group = self.groups.entry(id).or_insert_with(new);
        group.waiting.insert(arrival, (task, bytes));
        group.bytes += bytes;
        group.new.push(task);
        self.places.insert(task, Place::Waiting(id, arrival));
        self.changed.insert(id);
        id
    }

    /// Turns tasks that wait in a group into a batch.
    pub(crate) fn start(&mut self, batch: Uuid, id: BatchGroupId, tasks: &[TaskKey]) {
        for task in tasks {
            self.leave(*task);
            self.places.insert(*task, Place::Running(batch));
        }
        if let Some(group) = self.groups.get_mut(&id) {
            group.running.insert(batch);
        }
        self.running.insert(batch, Batch { group: id, members: tasks.iter().copied().collect() });
    }

    /// Removes a task from those that wait, or from its batch. Returns the group in which it was.
    pub(crate) fn leave(&mut self, task: TaskKey) -> Option<BatchGroupId> {
        match self.places.remove(&task)? {
            Place::Waiting(id, arrival) => {
                let group = self.groups.get_mut(&id)?;
                if let Some((_, bytes)) = group.waiting.remove(&arrival) {
                    group.bytes -= bytes;
                }
                group.new.retain(|new| *new != task);
                Some(id)
            }
            Place::Running(batch) => {
                let members = self.running.get_mut(&batch)?;
                let id = members.group;
                members.members.remove(&task);
                if members.members.is_empty() {
                    self.running.remove(&batch);
                    self.groups.get_mut(&id)?.running.remove(&batch);
                    self.changed.insert(id);
                }
                Some(id)
            }
        }
    }

    /// Removes a group that has neither tasks nor batches. It must not have a deadline.
    pub(crate) fn tidy(&mut self, id: BatchGroupId) {
        let Some(group) = self.groups.get(&id).filter(|group| group.size() == 0 && group.runs() == 0) else { return };
        if let Some(of_action) = self.ids.get_mut(&group.action) {
            of_action.remove(&(group.step, group.key.clone()));
            if of_action.is_empty() {
                self.ids.remove(&group.action);
            }
        }
        self.groups.remove(&id);
        self.changed.remove(&id);
    }

    pub(crate) fn group(&self, id: BatchGroupId) -> Option<&BatchGroup> {
        self.groups.get(&id)
    }

    pub(crate) fn group_mut(&mut self, id: BatchGroupId) -> Option<&mut BatchGroup> {
        self.groups.get_mut(&id)
    }

    /// The members of a running task's batch that have not ended, including the task. Empty for a task that is in no batch.
    pub(crate) fn members(&self, task: TaskKey) -> Vec<TaskKey> {
        let Some(Place::Running(batch)) = self.places.get(&task) else { return Vec::new() };
        self.running.get(batch).map(|batch| batch.members.iter().copied().collect()).unwrap_or_default()
    }

    /// Marks the groups of an action as changed: a worker may have become free.
    pub(crate) fn offer(&mut self, action: &str) {
        self.changed.extend(self.ids.get(action).into_iter().flat_map(BTreeMap::values));
    }

    pub(crate) fn has_groups(&self, action: &str) -> bool {
        self.ids.contains_key(action)
    }

    pub(crate) fn mark_changed(&mut self, id: BatchGroupId) {
        self.changed.insert(id);
    }

    pub(crate) fn take_changed(&mut self) -> BTreeSet<BatchGroupId> {
        std::mem::take(&mut self.changed)
    }

    /// The tasks of a group that have arrived since the last call.
    pub(crate) fn take_new(&mut self, id: BatchGroupId) -> Vec<TaskKey> {
        self.groups.get_mut(&id).map(|group| std::mem::take(&mut group.new)).unwrap_or_default()
    }

    #[cfg(test)]
    pub(crate) fn all(&self) -> impl Iterator<Item = (BatchGroupId, &BatchGroup)> {
        self.groups.iter().map(|(id, group)| (*id, group))
    }

    /// The number of tasks that wait or are in a batch.
    #[cfg(test)]
    pub(crate) fn tasks(&self) -> usize {
        self.places.len()
    }
}
