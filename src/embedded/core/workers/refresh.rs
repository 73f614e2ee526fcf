//! `RefreshTimeout`: more time for a running attempt.

use std::time::Duration;

use uuid::Uuid;

use crate::embedded::core::format::duration;
use crate::embedded::core::format::validation::Problems;
use crate::embedded::core::runs::queue;
use crate::embedded::core::store::{At, Core, State, StatusError, TaskEventKind, Timer, Turn, stored};
use crate::time::is_representable;

/// Extends the execution timeout of a running attempt, and returns its new end. Only the first extension of an attempt is
/// recorded as an event.
pub(crate) fn refresh_timeout(core: &mut Core, turn: &mut Turn<'_>, task: Uuid, by: &str) -> Result<At, StatusError> {
    let by = increment(by)?;
    let key = core.known_task(task)?;
    let running = core.runs.task(key).and_then(|(_, task)| match task.state {
        State::Running { worker, timer } => Some((worker, timer)),
        _ => None,
    });
    let (worker, timer) = running.ok_or_else(|| StatusError::not_found(format!("task run not found: {task}")))?;
    let end = core.workers.get_mut(&worker).and_then(|holder| holder.timeout_mut(key));
    let end = end.ok_or_else(StatusError::internal)?;
    let later = chrono::TimeDelta::from_std(by).ok().and_then(|by| end.checked_add_signed(by));
    *end = later.filter(is_representable).ok_or_else(StatusError::internal)?;
    let end = *end;
    core.timers.clear(timer);
    let left = (end - turn.now).to_std().unwrap_or_default();
    let timer = core.timers.set(queue::timeout_noticed(core, turn, left), Timer::Execution(key));
    if let Some(task) = core.runs.task_mut(key) {
        task.state = State::Running { worker, timer };
    }
    let text = format!("Timeout refreshed by {}", duration::text(by));
    core.record(key, TaskEventKind::TimeoutRefreshed, turn.now, Some(worker), Some(&text));
    Ok(stored(end))
}

/// Parses the requested extension.
fn increment(text: &str) -> Result<Duration, StatusError> {
    duration::parse(text).ok_or_else(|| {
        let mut problems = Problems::default();
        problems
            .add("IncrementTimeoutBy", if text.is_empty() { "on condition 'required'" } else { duration::REJECTION });
        problems.into_request_result("RefreshTimeoutBy").err().unwrap_or_else(StatusError::internal)
    })
}
