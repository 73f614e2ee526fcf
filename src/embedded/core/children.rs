//! Runs that tasks start: what they inherit, and which of them are the same child again.

use std::collections::HashMap;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::json::go_text;
use super::store::{Run, RunIx, State, TaskEventKind, TaskKey};
use super::triggers::RESERVED;
use super::types::{Fault, ParentLink, Trigger, Turn};
use super::{Core, Quirk};

/// All tasks that have children, by the task.
#[derive(Debug, Default)]
pub(super) struct Families(HashMap<Uuid, Family>);

#[derive(Debug, Default)]
struct Family {
    /// Those that are found again, by key or index.
    slots: HashMap<Box<str>, Slot>,
    /// One that was started twice is there twice.
    runs: Vec<RunIx>,
}

#[derive(Debug)]
struct Slot {
    id: Uuid,
    /// When it was started, as a turn counts.
    round: u64,
    /// Another of the same round, that did not see the first.
    other: Option<Uuid>,
}

/// Where a child is found again. A key takes the place of the index, and is worth nothing without one.
fn slot(parent: &ParentLink) -> Option<Box<str>> {
    let index = parent.index?;
    Some(parent.key.clone().unwrap_or_else(|| index.to_string().into()))
}

impl Families {
    fn find(&self, parent: &ParentLink) -> Option<&Slot> {
        self.0.get(&parent.task)?.slots.get(&slot(parent)?)
    }

    fn add(&mut self, turn: &Turn<'_>, parent: &ParentLink, id: Uuid, run: RunIx) {
        let family = self.0.entry(parent.task).or_default();
        if let Some(slot) = slot(parent) {
            let known = family.slots.entry(slot).or_insert(Slot { id, round: turn.round, other: None });
            known.other = Some(id).filter(|id| *id != known.id).or(known.other);
        }
        family.runs.push(run);
    }
}

impl Core {
    /// Refuses a trigger whose parent does not exist. A DAG's run is nobody's parent, its tasks are.
    pub(super) fn check_parents(&self, triggers: &[Trigger]) -> Result<(), Fault> {
        let unknown = |parent: &ParentLink| self.runs.task_key(parent.task).is_none();
        if triggers.iter().filter_map(|trigger| trigger.parent.as_ref()).any(unknown) {
            return Err(Fault::not_found("not found"));
        }
        Ok(())
    }

    /// The child that a trigger means, if it has been started before.
    pub(super) fn known_child(&self, turn: &mut Turn<'_>, trigger: &Trigger) -> Option<Uuid> {
        let known = self.families.find(trigger.parent.as_ref()?)?;
        if !self.has(Quirk::RacingChildren) || known.round != turn.round {
            return Some(known.id);
        }
        // Of several at once, two do not see each other.
        let other = known.other?;
        Some(if turn.coin() { other } else { known.id })
    }

    pub(super) fn join_family(&mut self, turn: &Turn<'_>, run: RunIx) {
        let Some((id, parent)) = self.runs.get(run).and_then(|run| Some((run.id, run.parent()?.clone()))) else {
            return;
        };
        self.families.add(turn, &parent, id, run);
    }

    /// What a child has of its parent's metadata, beside its own.
    pub(super) fn inherit(&self, parent: &ParentLink, metadata: &mut Map<String, Value>) {
        let Some((run, task)) = self.runs.task_key(parent.task).and_then(|key| self.runs.task(key)) else { return };
        let inherited: Map<String, Value> = serde_json::from_str(&run.metadata).unwrap_or_default();
        for (key, value) in inherited.into_iter().filter(|(key, _)| !key.starts_with(RESERVED)) {
            metadata.entry(key).or_insert(value);
        }
        metadata.insert(format!("{RESERVED}parent_step_run_id"), task.id.to_string().into());
        metadata.insert(format!("{RESERVED}parent_workflow_run_id"), run.id.to_string().into());
    }

    /// A child that has ended is started once more, under the same id and as if it were the first time.
    pub(super) fn restart(&mut self, turn: &mut Turn<'_>, id: Uuid, trigger: &Trigger) -> Option<TaskKey> {
        let key = self.runs.task_key(id)?;
        let run = self.runs.run_mut(key.run).filter(|run| run.dag.is_none() && run.is_ended())?;
        let child = run.child.as_deref_mut()?;
        child.restarted = Some(go_text(&trigger.input).into());
        let parent = child.parent.clone();
        let task = self.runs.task_mut(key)?;
        (task.retry_count, task.app_retries, task.lost_sends, task.state) = (0, 0, 0, State::Backoff);
        self.families.add(turn, &parent, id, key.run);
        self.record(key, TaskEventKind::Queued, turn.now, None, None);
        self.enqueue(turn, key, None);
        Some(key)
    }

    /// A task's children, in the order of their starts.
    pub(crate) fn children(&self, task: Uuid) -> impl Iterator<Item = &Run> {
        let runs = self.families.0.get(&task).into_iter().flat_map(|family| &family.runs);
        runs.filter_map(|run| self.runs.get(*run))
    }
}
