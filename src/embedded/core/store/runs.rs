//! The table of runs.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use super::ids::{RunIx, TaskKey};
use super::run::{Dag, Node, Run};
use super::task::{State, Task};
use super::turn::At;

/// A run, or the creation time of one that has been dropped.
#[derive(Debug)]
enum Slot {
    Kept(Arc<Run>),
    Dropped(At),
}

impl Slot {
    fn run(&self) -> Option<&Run> {
        match self {
            Self::Kept(run) => Some(run),
            Self::Dropped(_) => None,
        }
    }

    fn created(&self) -> At {
        match self {
            Self::Kept(run) => run.created,
            Self::Dropped(created) => *created,
        }
    }
}

/// All runs, in the order of their creation.
///
/// The REST API renders runs outside of the core's task and shares them with this table. A shared run is copied before it changes.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    all: VecDeque<Slot>,
    /// The position of the first of them. All earlier ones have been dropped.
    first: u32,
    /// How many of them have been dropped.
    dropped: usize,
    by_id: HashMap<Uuid, RunIx>,
    /// The tasks of DAGs.
    by_task: HashMap<Uuid, TaskKey>,
}

impl Runs {
    pub(crate) fn add(&mut self, mut run: Run) -> RunIx {
        run.ix = self.next();
        self.push(Arc::new(run))
    }

    fn next(&self) -> RunIx {
        let count = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        RunIx(self.first.saturating_add(count))
    }

    fn push(&mut self, run: Arc<Run>) -> RunIx {
        let ix = self.next();
        self.by_id.insert(run.id, ix);
        if run.dag.is_some() {
            let keys = run.tasks.iter().map(|task| (task.id, TaskKey { run: ix, index: task.step }));
            self.by_task.extend(keys);
        }
        self.all.push_back(Slot::Kept(run));
        ix
    }

    /// A snapshot of some runs.
    pub(crate) fn shared(&self, runs: impl IntoIterator<Item = RunIx>) -> Self {
        let mut shared = Self::default();
        for slot in runs.into_iter().filter_map(|ix| self.all.get(self.index_of(ix)?)) {
            if let Slot::Kept(run) = slot {
                shared.push(Arc::clone(run));
            }
        }
        shared
    }

    fn index_of(&self, ix: RunIx) -> Option<usize> {
        Some(ix.0.checked_sub(self.first)? as usize)
    }

    pub(crate) fn get(&self, ix: RunIx) -> Option<&Run> {
        self.all.get(self.index_of(ix)?)?.run()
    }

    /// A run by its position in a snapshot.
    pub(crate) fn at(&self, index: usize) -> Option<&Run> {
        self.all.get(index)?.run()
    }

    /// The runs that were created before one, newest first.
    pub(crate) fn before(&self, ix: RunIx) -> impl Iterator<Item = &Run> {
        (0..ix.0).rev().map_while(|earlier| self.get(RunIx(earlier)))
    }

    pub(crate) fn find(&self, id: Uuid) -> Option<&Run> {
        self.get(self.index(id)?)
    }

    pub(crate) fn index(&self, id: Uuid) -> Option<RunIx> {
        self.by_id.get(&id).copied()
    }

    /// A task by its own id, if it has been created. The task of a single-task run has the id of its run.
    pub(crate) fn task_key(&self, id: Uuid) -> Option<TaskKey> {
        if let Some(key) = self.by_task.get(&id) {
            return Some(*key).filter(|key| self.task(*key).is_some_and(|(_, task)| task.state != State::Absent));
        }
        let run = self.index(id)?;
        Some(TaskKey { run, index: 0 }).filter(|_| self.get(run).is_some_and(|run| run.dag.is_none()))
    }

    pub(crate) fn run_mut(&mut self, ix: RunIx) -> Option<&mut Run> {
        let index = self.index_of(ix)?;
        match self.all.get_mut(index)? {
            Slot::Kept(run) => Some(Arc::make_mut(run)),
            Slot::Dropped(_) => None,
        }
    }

    pub(crate) fn node_mut(&mut self, key: TaskKey) -> Option<&mut Node> {
        self.dag_mut(key.run)?.nodes.get_mut(usize::from(key.index))
    }

    pub(crate) fn dag_mut(&mut self, ix: RunIx) -> Option<&mut Dag> {
        self.run_mut(ix)?.dag.as_deref_mut()
    }

    pub(crate) fn task(&self, key: TaskKey) -> Option<(&Run, &Task)> {
        let run = self.get(key.run)?;
        Some((run, run.tasks.get(usize::from(key.index))?))
    }

    pub(crate) fn task_mut(&mut self, key: TaskKey) -> Option<&mut Task> {
        self.run_mut(key.run)?.tasks.get_mut(usize::from(key.index))
    }

    /// All runs, oldest first.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Run> {
        self.all.iter().filter_map(Slot::run)
    }

    /// The runs that were created at `until` or before, newest first.
    pub(crate) fn newest_first(&self, until: Option<At>) -> impl Iterator<Item = &Run> {
        let end = until.map_or(self.all.len(), |until| self.all.partition_point(|slot| slot.created() <= until));
        self.all.range(..end).rev().filter_map(Slot::run)
    }

    /// The number of runs that have not been dropped.
    pub(crate) fn len(&self) -> usize {
        self.all.len() - self.dropped
    }

    /// When the oldest run was created.
    pub(crate) fn oldest(&self) -> Option<At> {
        self.all.front().map(Slot::created)
    }

    /// Drops the runs that were created before a time and have ended. Returns them.
    pub(crate) fn drop_ended(&mut self, created_before: At) -> Vec<Arc<Run>> {
        let end = self.all.partition_point(|slot| slot.created() < created_before);
        let mut dropped = Vec::new();
        for slot in self.all.range_mut(..end) {
            let Slot::Kept(run) = slot else { continue };
            if !run.has_ended() {
                continue;
            }
            self.by_id.remove(&run.id);
            for task in &run.tasks {
                self.by_task.remove(&task.id);
            }
            let created = run.created;
            if let Slot::Kept(run) = std::mem::replace(slot, Slot::Dropped(created)) {
                dropped.push(run);
            }
        }
        self.dropped += dropped.len();
        while self.all.front().is_some_and(|slot| slot.run().is_none()) {
            self.all.pop_front();
            self.first += 1;
            self.dropped -= 1;
        }
        dropped
    }
}
