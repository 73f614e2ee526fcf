//! Runs that tasks start: what they inherit, and which triggers mean a child that has already been started.

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::embedded::core::store::{Core, ParentLink, RESERVED_METADATA, RunIx, StatusError, Trigger, Turn};
use crate::embedded::quirks::Quirk;

/// Rejects a trigger whose parent does not exist. The parent of a child is a task; the run of a DAG cannot be one.
pub(crate) fn check_parents(core: &Core, triggers: &[Trigger]) -> Result<(), StatusError> {
    let unknown = |parent: &ParentLink| core.runs.task_key(parent.task).is_none();
    if triggers.iter().filter_map(|trigger| trigger.parent.as_ref()).any(unknown) {
        return Err(StatusError::not_found("not found"));
    }
    Ok(())
}

/// The child that a trigger means, if it has already been started.
pub(crate) fn known(core: &Core, turn: &mut Turn<'_>, trigger: &Trigger) -> Option<Uuid> {
    let known = core.families.find(trigger.parent.as_ref()?)?;
    if !core.has(Quirk::RacingChildren) || known.round != turn.round {
        return Some(known.id);
    }
    // Of several triggers in one round, two do not see each other's child.
    let other = known.other?;
    Some(if turn.coin() { other } else { known.id })
}

/// Adds a new child to the children of its parent.
pub(crate) fn join(core: &mut Core, turn: &Turn<'_>, run: RunIx) {
    let Some((id, parent)) = core.runs.get(run).and_then(|run| Some((run.id, run.parent()?.clone()))) else {
        return;
    };
    core.families.add(turn.round, &parent, id, run);
}

/// Adds to a child's metadata what it inherits from its parent.
pub(crate) fn inherit(core: &Core, parent: &ParentLink, metadata: &mut Map<String, Value>) {
    let Some((run, task)) = core.runs.task_key(parent.task).and_then(|key| core.runs.task(key)) else { return };
    let inherited: Map<String, Value> = serde_json::from_str(&run.metadata).unwrap_or_default();
    for (key, value) in inherited.into_iter().filter(|(key, _)| !key.starts_with(RESERVED_METADATA)) {
        metadata.entry(key).or_insert(value);
    }
    metadata.insert(format!("{RESERVED_METADATA}parent_step_run_id"), task.id.to_string().into());
    metadata.insert(format!("{RESERVED_METADATA}parent_workflow_run_id"), run.id.to_string().into());
}
