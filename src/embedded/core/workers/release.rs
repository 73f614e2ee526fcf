//! `ReleaseSlot`: a running task gives its slots back.

use uuid::Uuid;

use crate::embedded::core::runs::progress;
use crate::embedded::core::store::{Core, State, StatusError, TaskEventKind, Turn};
use crate::embedded::quirks::Quirk;

/// Releases the slots of a running attempt. From then on the worker is not notified of a cancellation, and the task stays with a worker that is
/// lost; its execution timeout still applies.
pub(crate) fn release_slot(core: &mut Core, turn: &mut Turn<'_>, task: Uuid) -> Result<(), StatusError> {
    let key = core.known_task(task)?;
    let worker = core.runs.task(key).and_then(|(_, task)| match task.state {
        State::Running { worker, .. } => Some(worker),
        _ => None,
    });
    let worker = worker.ok_or_else(|| StatusError::not_found(format!("task run not found: {task}")))?;
    let frees = !core.has(Quirk::UnreleasedSlots);
    if let Some(holder) = core.workers.get_mut(&worker) {
        holder.release(key, frees);
    }
    core.record(key, TaskEventKind::SlotReleased, turn.now, None, None);
    if frees {
        progress::assign_to(core, turn, worker);
    }
    Ok(())
}
