//! What REST shows of a run while it lags behind.

use std::time::Duration;

use chrono::TimeDelta;

use super::status::RestStatus;
use crate::embedded::core::store::{At, Core, Run, State, Task, TaskEvent, TaskEventKind};
use crate::embedded::core::streams::events::NEW_RUN_LAG;
use crate::embedded::quirks::Quirk;

/// The additional lag of the history of an attempt that follows another.
const RETRY_LAG: Duration = Duration::from_secs(1);

/// For how long REST can show a run without its tasks.
const TASKS_LAG: TimeDelta = TimeDelta::milliseconds(40);

/// How long REST takes to show an event of a task.
fn lag(kind: TaskEventKind) -> Duration {
    Duration::from_millis(match kind {
        TaskEventKind::Started => 100,
        TaskEventKind::Finished | TaskEventKind::Failed | TaskEventKind::TimedOut | TaskEventKind::Cancelled => 30,
        _ => 60,
    })
}

impl Core {
    /// Whether REST shows the tasks of a run that it finds. Half of the runs appear before their tasks.
    pub(crate) fn shows_tasks(&self, run: &Run, now: At) -> bool {
        let is_late = self.has(Quirk::UnorderedRows) && run.id.as_u128().is_multiple_of(2);
        !is_late || now >= run.created + NEW_RUN_LAG + TASKS_LAG
    }

    /// The events of a task that REST shows.
    pub(crate) fn rest_events<'a>(&self, task: &'a Task, now: At) -> impl Iterator<Item = &'a TaskEvent> {
        let (scattered, slow) = (self.has(Quirk::UnorderedRows), self.has(Quirk::SlowHistory));
        task.events.iter().filter(move |event| {
            let further = if slow && event.retry_count > 0 { RETRY_LAG } else { Duration::ZERO };
            let lag = if scattered { lag(event.kind) } else { Duration::ZERO };
            now >= event.at + lag + further
        })
    }

    /// The status of a task in REST, as its run shows it.
    pub(crate) fn rest_status(&self, task: &Task, now: At) -> RestStatus {
        if self.rest_attempt(task, now).is_some() { RestStatus::Failed } else { task.rest_status() }
    }

    /// The retry count of the attempt that REST takes for the last one, if that has failed and was followed by another.
    pub(crate) fn rest_attempt(&self, task: &Task, now: At) -> Option<i32> {
        let is_late = self.has(Quirk::UnorderedRows) || self.has(Quirk::SlowHistory);
        if !is_late || task.retry_count == 0 {
            return None;
        }
        let known = || self.rest_events(task, now);
        let newest = known().map(|event| event.retry_count).max().filter(|newest| *newest < task.retry_count)?;
        known().any(|event| event.kind == TaskEventKind::Failed && event.retry_count == newest).then_some(newest)
    }

    /// The status of a run in REST.
    pub(crate) fn rest_run_status(&self, run: &Run, now: At) -> RestStatus {
        match run.tasks.first() {
            Some(task) if run.dag.is_none() => self.rest_status(task, now),
            _ if self.has(Quirk::UnorderedRows) && has_just_failed(run, now) => RestStatus::Failed,
            _ => run.rest_status(),
        }
    }
}

impl Task {
    /// Whether its queueing has a later timestamp than its assignment.
    pub(crate) fn has_late_timestamp(&self) -> bool {
        let at = |kind| self.event(kind).map(|event| event.at);
        at(TaskEventKind::Assigned).is_some_and(|assigned| at(TaskEventKind::Queued) > Some(assigned))
    }

    /// Whether REST finds the task by its worker. If the task ended as soon as it was assigned, the end may reach REST first, and
    /// then the end must have the worker's id.
    pub(crate) fn kept_its_worker(&self) -> bool {
        let Some(assignment) = self.events.iter().rfind(|event| event.is_assignment()) else { return true };
        let end = self.events.iter().find(|event| {
            event.retry_count == assignment.retry_count
                && matches!(event.kind, TaskEventKind::Finished | TaskEventKind::Failed)
        });
        end.is_none_or(|end| end.worker.is_some() || end.at > assignment.at + lag(assignment.kind))
    }
}

impl Run {
    /// The idempotency key of a task: tasks without parents have the key of their run, the others have none.
    pub(crate) fn key_of(&self, task: &Task) -> Option<&str> {
        self.key().filter(|_| self.step(task).is_some_and(|step| step.parents.is_empty() && !step.on_failure))
    }
}

/// Whether a DAG has failed a moment ago, and all but its on-failure task have ended.
fn has_just_failed(run: &Run, now: At) -> bool {
    let is_new = |event: &TaskEvent| event.kind == TaskEventKind::Failed && now < event.at + lag(TaskEventKind::Queued);
    let is_on_failure = |task: &Task| run.step(task).is_some_and(|step| step.on_failure);
    !run.is_shown_as_ended()
        && run.present().all(|task| task.state == State::Ended || is_on_failure(task))
        && run.present().any(|task| task.has_failed() && task.events.iter().any(is_new))
}
