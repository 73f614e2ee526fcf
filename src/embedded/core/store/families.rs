//! Tasks that have started child runs, and their children.

use std::collections::HashMap;

use uuid::Uuid;

use super::ids::RunIx;
use super::requests::ParentLink;

/// Children by the task that started them.
#[derive(Debug, Default)]
pub(crate) struct Families(HashMap<Uuid, Family>);

#[derive(Debug, Default)]
struct Family {
    /// The children that a later trigger can mean again, by key or index.
    slots: HashMap<Box<str>, Slot>,
    /// A child that was started twice is listed twice.
    runs: Vec<RunIx>,
}

#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) id: Uuid,
    /// The round in which the child was started.
    pub(crate) round: u64,
    /// Another child that was started in the same round, before the first one was visible.
    pub(crate) other: Option<Uuid>,
}

/// The name under which a child is found again. A key replaces the index, but has no effect without an index.
fn slot(parent: &ParentLink) -> Option<Box<str>> {
    let index = parent.index?;
    Some(parent.key.clone().unwrap_or_else(|| index.to_string().into()))
}

impl Families {
    pub(crate) fn find(&self, parent: &ParentLink) -> Option<&Slot> {
        self.0.get(&parent.task)?.slots.get(&slot(parent)?)
    }

    pub(crate) fn add(&mut self, round: u64, parent: &ParentLink, id: Uuid, run: RunIx) {
        let family = self.0.entry(parent.task).or_default();
        if let Some(slot) = slot(parent) {
            let known = family.slots.entry(slot).or_insert(Slot { id, round, other: None });
            known.other = Some(id).filter(|id| *id != known.id).or(known.other);
        }
        family.runs.push(run);
    }

    /// Forgets the children of a task.
    pub(crate) fn remove(&mut self, task: Uuid) {
        self.0.remove(&task);
    }

    /// The children of a task, in the order of their starts.
    pub(crate) fn of(&self, task: Uuid) -> impl Iterator<Item = RunIx> {
        self.0.get(&task).into_iter().flat_map(|family| &family.runs).copied()
    }
}
