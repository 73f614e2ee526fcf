//! Connections of workers: streams, heartbeats, pauses, silence.

use std::time::Duration;

use uuid::Uuid;

use crate::embedded::core::runs::{progress, retries};
use crate::embedded::core::store::{At, Code, Core, HeartbeatRejected, StatusError, StreamId, Timer, Turn, Worker};
use crate::embedded::quirks::Quirk;

/// After this long without a heartbeat, the tasks of a worker are reassigned.
const LOST_AFTER: Duration = Duration::from_secs(30);

pub(super) fn find(core: &mut Core, worker: Uuid) -> Result<&mut Worker, StatusError> {
    core.workers.get_mut(&worker).ok_or_else(|| StatusError::not_found(format!("worker not found: {worker}")))
}

/// A worker opens a stream. It is assigned nothing before its next heartbeat.
pub(crate) fn listen(core: &mut Core, worker: Uuid, stream: StreamId) -> Result<(), StatusError> {
    let holder = core.workers.get_mut(&worker).ok_or_else(|| StatusError::not_found("not found"))?;
    holder.open_stream(stream);
    core.streams.worker_of.insert(stream, worker);
    Ok(())
}

/// A stream has ended, perhaps that of a worker.
pub(crate) fn close(core: &mut Core, turn: &mut Turn<'_>, stream: StreamId) {
    let Some(worker) = core.streams.worker_of.remove(&stream) else { return };
    let is_detected = !core.has(Quirk::UndetectedClose) || !turn.coin();
    if let Some(holder) = core.workers.get_mut(&worker) {
        holder.close_stream(stream, is_detected);
    }
}

pub(crate) fn heartbeat(core: &mut Core, turn: &mut Turn<'_>, worker: Uuid) -> Result<(), StatusError> {
    let set_timer = find(core, worker)?.heartbeat(turn.now).map_err(|HeartbeatRejected| StatusError {
        code: Code::FailedPrecondition,
        message: format!("Heartbeat rejected: worker stream is not active: {worker}"),
    })?;
    if set_timer {
        core.timers.set(turn.now + LOST_AFTER, Timer::Silence(worker));
    }
    progress::assign_to(core, turn, worker);
    Ok(())
}

/// Records a heartbeat that was due earlier. Returns false if it would have been rejected.
pub(crate) fn count_heartbeat(core: &mut Core, worker: Uuid, at: At) -> bool {
    core.workers.get_mut(&worker).is_some_and(|holder| holder.count_heartbeat(at))
}

/// A worker wants no more tasks. Its streams stay open without messages.
pub(crate) fn unsubscribe(core: &mut Core, worker: Uuid) -> Result<(), StatusError> {
    let is_detected = !core.has(Quirk::UndetectedUnsubscribe);
    for stream in find(core, worker)?.unsubscribe(is_detected) {
        core.streams.worker_of.remove(&stream);
    }
    Ok(())
}

/// Pauses or resumes a worker. Returns false if it does not exist.
pub(crate) fn pause(core: &mut Core, turn: &mut Turn<'_>, worker: Uuid, paused: bool) -> bool {
    let Some(holder) = core.workers.get_mut(&worker) else { return false };
    holder.set_paused(paused.then_some(turn.now));
    if !paused {
        progress::assign_to(core, turn, worker);
    }
    true
}

/// Half a minute has passed since a heartbeat. Without a later one, the worker is lost and its tasks are reassigned.
pub(crate) fn check_silence(core: &mut Core, turn: &mut Turn<'_>, worker: Uuid) {
    let Some(holder) = core.workers.get_mut(&worker) else { return };
    if let Some(last) = holder.last_heartbeat
        && last + LOST_AFTER > turn.now
    {
        core.timers.set(last + LOST_AFTER, Timer::Silence(worker));
        return;
    }
    for task in holder.lose() {
        retries::reassign(core, turn, task, worker);
    }
}
