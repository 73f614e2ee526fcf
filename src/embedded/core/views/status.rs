//! The statuses that both API views have, and those that REST shows when it has caught up.

use crate::embedded::core::store::{End, Final, Run, State, Task, TaskEvent, TaskEventKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestStatus {
    Queued,
    Running,
    Completed,
    Failed,
    Cancelled,
}

impl RestStatus {
    pub(crate) const ALL: [Self; 5] = [Self::Cancelled, Self::Completed, Self::Failed, Self::Queued, Self::Running];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Running => "RUNNING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

impl End {
    pub(crate) fn rest_status(&self) -> RestStatus {
        match self {
            Self::Completed(_) | Self::Skipped => RestStatus::Completed,
            Self::Failed(_) | Self::TimedOut(_) | Self::ScheduleTimedOut => RestStatus::Failed,
            Self::Cancelled => RestStatus::Cancelled,
        }
    }
}

impl TaskEvent {
    pub(super) fn is_assignment(&self) -> bool {
        matches!(self.kind, TaskEventKind::Assigned | TaskEventKind::BatchFlushed)
    }
}

impl Task {
    /// The final row that REST shows although the task has not ended: a report with a retry count that is too high.
    fn early_final(&self) -> Option<&Final> {
        self.finals.iter().rev().find(|row| row.retry_count > self.retry_count)
    }

    /// The status of a task in REST.
    pub(crate) fn rest_status(&self) -> RestStatus {
        if let Some(row) = self.early_final() {
            return row.end.rest_status();
        }
        match self.state {
            State::Absent
            | State::Limited { .. }
            | State::Paused { .. }
            | State::Queued { .. }
            | State::Batched { .. }
            | State::Backoff { .. } => RestStatus::Queued,
            State::Running { .. } => RestStatus::Running,
            State::Ended => self.best_final().map_or(RestStatus::Cancelled, |row| row.end.rest_status()),
        }
    }
}

impl Run {
    /// Whether the API views show it as ended. Replayed tasks that wait may not be visible there.
    pub(crate) fn is_shown_as_ended(&self) -> bool {
        self.has_only_ended_tasks() && self.dag.as_ref().is_none_or(|dag| dag.hides_waits || dag.is_idle())
    }

    /// The status of a run in REST. A DAG is running from its first assignment until all of its tasks have ended.
    pub(crate) fn rest_status(&self) -> RestStatus {
        if self.dag.is_none() {
            return self.tasks.first().map_or(RestStatus::Completed, Task::rest_status);
        }
        if !self.is_shown_as_ended() {
            let was_never_assigned = |task: &Task| {
                matches!(
                    task.state,
                    State::Limited { .. } | State::Paused { .. } | State::Queued { .. } | State::Batched { .. }
                ) && !task.events.iter().any(TaskEvent::is_assignment)
            };
            return if self.present().all(was_never_assigned) { RestStatus::Queued } else { RestStatus::Running };
        }
        let statuses = || self.present().map(Task::rest_status);
        let worst = [RestStatus::Failed, RestStatus::Cancelled];
        worst.into_iter().find(|status| statuses().any(|other| other == *status)).unwrap_or(RestStatus::Completed)
    }
}
