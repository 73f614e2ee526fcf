//! Concurrency slots: who has one, and who waits for one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::concurrency::{Concurrency, LimitStrategy};
use super::ids::{RunIx, TaskKey};
use super::turn::At;

/// One concurrency limit: of a version of a workflow, or of the tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Scope {
    /// The version. Tenant-scoped limits have ids of their own.
    pub(crate) id: Uuid,
    pub(crate) level: Level,
    /// The position among the limits of the workflow or the task.
    pub(crate) index: u16,
}

/// What a limit is declared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Workflow,
    /// One of the tasks of a workflow.
    Task(u16),
    /// All tasks with a tenant-scoped limit of this name.
    Tenant,
}

/// A tenant-scoped limit, as it was defined last.
#[derive(Debug)]
pub(crate) struct SharedLimit {
    pub(crate) scope: Scope,
    pub(crate) limit: Concurrency,
}

/// The slots of one limit and one key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupId {
    pub(crate) scope: Scope,
    pub(crate) key: Box<str>,
}

/// Who has a slot: a run of a DAG for a limit of its workflow, and a task for all other limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SlotOwner {
    Run(RunIx),
    Task(TaskKey),
}

/// The position in a group: the most urgent first, then the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) urgency: Reverse<u8>,
    pub(crate) created: At,
    pub(crate) owner: SlotOwner,
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) strategy: LimitStrategy,
    pub(crate) max_runs: i32,
    /// The creation of the newest run that has set [`max_runs`](Self::max_runs) by an expression.
    pub(crate) set_by: Option<At>,
    /// Those that have a slot.
    pub(crate) running: BTreeSet<Rank>,
    pub(crate) waiting: BTreeSet<Rank>,
}

/// How many of a key have a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MaxRuns {
    Fixed(i32),
    /// By an expression: the value of the newest run holds for its key, as long as anyone has a slot or waits.
    Evaluated(i32),
}

#[derive(Debug, Default)]
pub(crate) struct Slots {
    groups: BTreeMap<GroupId, Group>,
    /// The places of each owner, in one group for each scope.
    places: BTreeMap<SlotOwner, BTreeMap<Scope, (Box<str>, Rank)>>,
    /// Groups in which somebody waits or a slot has become free since [`Slots::take_changed`].
    changed: BTreeSet<GroupId>,
}

impl Slots {
    /// Waits for a slot. The owner must not have a place in another group of the scope.
    pub(crate) fn wait(&mut self, id: GroupId, strategy: LimitStrategy, max_runs: MaxRuns, rank: Rank) {
        let (MaxRuns::Fixed(max) | MaxRuns::Evaluated(max)) = max_runs;
        let new =
            || Group { strategy, max_runs: max, set_by: None, running: BTreeSet::new(), waiting: BTreeSet::new() };
        let group = self.groups.entry(id.clone()).or_insert_with(new);
        if matches!(max_runs, MaxRuns::Evaluated(_)) && group.set_by.is_none_or(|newest| newest <= rank.created) {
            (group.max_runs, group.set_by) = (max, Some(rank.created));
        }
        group.waiting.insert(rank);
        self.places.entry(rank.owner).or_default().insert(id.scope, (id.key.clone(), rank));
        self.changed.insert(id);
    }

    /// Changes a limit. If the maximum is still that of an expression, what it has set for a key stays.
    pub(crate) fn redefine(&mut self, scope: Scope, strategy: LimitStrategy, max_runs: i32, has_expression: bool) {
        for (id, group) in self.groups.iter_mut().filter(|(id, _)| id.scope == scope) {
            group.strategy = strategy;
            group.set_by = group.set_by.filter(|_| has_expression);
            if group.set_by.is_none() {
                group.max_runs = max_runs;
            }
            self.changed.insert(id.clone());
        }
    }

    /// Gives a slot to one that waits.
    pub(crate) fn fill(&mut self, id: &GroupId, rank: Rank) {
        if let Some(group) = self.groups.get_mut(id)
            && group.waiting.remove(&rank)
        {
            group.running.insert(rank);
        }
    }

    /// Whether an owner has a slot in a scope. `None` if it does not wait for one either.
    pub(crate) fn has_slot(&self, owner: SlotOwner, scope: Scope) -> Option<bool> {
        let (key, rank) = self.places.get(&owner)?.get(&scope)?;
        let group = self.groups.get(&GroupId { scope, key: key.clone() })?;
        Some(group.running.contains(rank))
    }

    /// Removes an owner from all its groups.
    pub(crate) fn remove(&mut self, owner: SlotOwner) {
        for (scope, (key, rank)) in self.places.remove(&owner).into_iter().flatten() {
            let id = GroupId { scope, key };
            let Some(group) = self.groups.get_mut(&id) else { continue };
            group.running.remove(&rank);
            group.waiting.remove(&rank);
            if group.running.is_empty() && group.waiting.is_empty() {
                self.groups.remove(&id);
                self.changed.remove(&id);
            } else {
                self.changed.insert(id);
            }
        }
    }

    pub(crate) fn group(&self, id: &GroupId) -> Option<&Group> {
        self.groups.get(id)
    }

    /// Whether [`take_changed`](Self::take_changed) returns any group.
    pub(crate) fn have_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    pub(crate) fn take_changed(&mut self) -> BTreeSet<GroupId> {
        std::mem::take(&mut self.changed)
    }

    #[cfg(test)]
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&GroupId, &Group)> {
        self.groups.iter()
    }
}
