//! What gRPC shows of a run and its tasks.

use super::status::RestStatus;
use crate::embedded::core::store::{At, End, Final, Run, SKIPPED, State, Task};

/// A task in the gRPC view.
#[derive(Debug)]
pub(crate) struct TaskView<'a> {
    pub(crate) status: RestStatus,
    pub(crate) error: Option<&'a str>,
    pub(crate) output: Option<&'a str>,
}

impl TaskView<'_> {
    const QUEUED: Self = Self { status: RestStatus::Queued, error: None, output: None };
}

impl Task {
    pub(crate) fn grpc_view(&self, now: At) -> TaskView<'_> {
        match self.state {
            State::Absent
            | State::Limited { .. }
            | State::Paused { .. }
            | State::Queued { .. }
            | State::Batched { .. }
            | State::Backoff { .. } => TaskView::QUEUED,
            State::Running { .. } => TaskView { status: RestStatus::Running, error: None, output: None },
            State::Ended => match shown_final(self, now).map(|row| &row.end) {
                Some(End::Completed(output)) => {
                    TaskView { status: RestStatus::Completed, error: Some(""), output: Some(output) }
                }
                Some(End::Skipped) => {
                    TaskView { status: RestStatus::Completed, error: Some(""), output: Some(SKIPPED) }
                }
                Some(End::Failed(text) | End::TimedOut(text)) => {
                    TaskView { status: RestStatus::Failed, error: Some(text), output: None }
                }
                Some(End::Cancelled | End::ScheduleTimedOut) | None => {
                    TaskView { status: RestStatus::Cancelled, error: Some(""), output: None }
                }
            },
        }
    }
}

impl Run {
    /// The created tasks of a run. A task that has ended is shown as queued until the whole run has ended.
    pub(crate) fn grpc_views(&self, now: At) -> Vec<(&Task, TaskView<'_>)> {
        let over = self.is_shown_as_ended();
        self.present()
            .map(|task| (task, if over || task.state != State::Ended { task.grpc_view(now) } else { TaskView::QUEUED }))
            .collect()
    }
}

fn shown_final(task: &Task, now: At) -> Option<&Final> {
    let mut rows = task.current_finals();
    let first = rows.next()?;
    match rows.next_back() {
        // A failure reported after a cancellation, a completion reported after a failure, and any report about a task that was never
        // assigned are shown immediately.
        Some(last)
            if task.shows_last_final(now)
                || task.assignment().is_none()
                || matches!(
                    (&first.end, &last.end),
                    (End::Cancelled, End::Failed(_)) | (End::Failed(_), End::Completed(_))
                ) =>
        {
            Some(last)
        }
        _ => Some(first),
    }
}
