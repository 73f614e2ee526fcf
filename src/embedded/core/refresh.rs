//! `RefreshTimeout`: more time for a running attempt.

use std::time::Duration;

use uuid::Uuid;

use super::definitions::Problems;
use super::store::{State, TaskEventKind};
use super::timers::Timer;
use super::types::{At, Fault, Turn, stored};
use super::{Core, duration};
use crate::time::is_sane;

impl Core {
    /// Extends the execution timeout of a running attempt, and returns its new end. Only the first extension of an attempt is
    /// recorded as an event.
    pub(crate) fn refresh_timeout(&mut self, turn: &mut Turn<'_>, task: Uuid, by: &str) -> Result<At, Fault> {
        let by = increment(by)?;
        let key = self.known_task(task)?;
        let running = self.runs.task(key).and_then(|(_, task)| match task.state {
            State::Running { worker, timer } => Some((worker, timer)),
            _ => None,
        });
        let (worker, timer) = running.ok_or_else(|| Fault::not_found(format!("task run not found: {task}")))?;
        let end = self.workers.get_mut(&worker).and_then(|holder| holder.running.get_mut(&key));
        let end = end.ok_or_else(Fault::internal)?;
        let later = chrono::TimeDelta::from_std(by).ok().and_then(|by| end.checked_add_signed(by));
        *end = later.filter(is_sane).ok_or_else(Fault::internal)?;
        let end = *end;
        self.timers.clear(timer);
        let left = (end - turn.now).to_std().unwrap_or_default();
        let timer = self.timers.set(self.noticed(turn, left), Timer::Execution(key));
        if let Some(task) = self.runs.task_mut(key) {
            task.state = State::Running { worker, timer };
        }
        let text = format!("Timeout refreshed by {}", duration::text(by));
        self.record(key, TaskEventKind::TimeoutRefreshed, turn.now, Some(worker), Some(&text));
        Ok(stored(end))
    }
}

/// Parses the requested extension.
fn increment(text: &str) -> Result<Duration, Fault> {
    duration::parse(text).ok_or_else(|| {
        let mut problems = Problems::default();
        problems.add("IncrementTimeoutBy", if text.is_empty() { "on condition 'required'" } else { duration::REFUSAL });
        problems.into_request_result("RefreshTimeoutBy").err().unwrap_or_else(Fault::internal)
    })
}
