//! What the two surfaces show of a run. They derive it from the same rows by different rules.

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::definitions::Workflow;
use super::json::{go_text, jsonb_text};
use super::store::{End, Final, Run, RunIx, State, Task, TaskEvent, TaskEventKind, Version};
use super::types::At;
use super::{Core, Quirk};

/// How long gRPC shows the first of two final rows, before it changes its mind.
const STEADY: Duration = Duration::from_secs(300);

/// A task as gRPC shows it.
#[derive(Debug)]
pub(crate) struct TaskView<'a> {
    pub(crate) status: RestStatus,
    pub(crate) error: Option<&'a str>,
    pub(crate) output: Option<&'a str>,
}

/// The states that both surfaces have.
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

/// A workflow as REST lists it.
#[derive(Debug)]
pub(crate) struct WorkflowView<'a> {
    pub(crate) name: &'a str,
    pub(crate) workflow: &'a Workflow,
}

impl Core {
    pub(crate) fn workflows(&self) -> impl Iterator<Item = WorkflowView<'_>> {
        self.definitions.newest_first().map(|(name, workflow)| WorkflowView { name, workflow })
    }

    /// The latest version of a workflow.
    pub(crate) fn latest(&self, name: &str) -> Option<&Version> {
        self.definitions.find(name).map(|workflow| &*workflow.latest)
    }

    pub(crate) fn find_run(&self, id: Uuid) -> Option<&Run> {
        self.runs.find(id)
    }

    pub(crate) fn number(&self, run: &Run) -> u32 {
        self.runs.index(run.id).map(RunIx::number).unwrap_or_default()
    }

    /// A run that REST knows by now.
    pub(crate) fn rest_run(&self, id: Uuid, now: At) -> Option<&Run> {
        self.find_run(id).filter(|run| self.is_visible(run, now))
    }

    pub(crate) fn is_visible(&self, run: &Run, now: At) -> bool {
        !self.has(Quirk::RestLag) || now >= run.created + super::streams::LAG
    }
}

/// How long REST takes to show that something has happened.
fn lag(kind: TaskEventKind) -> Duration {
    Duration::from_millis(match kind {
        TaskEventKind::Started => 100,
        TaskEventKind::Finished | TaskEventKind::Failed | TaskEventKind::TimedOut | TaskEventKind::Cancelled => 30,
        _ => 60,
    })
}

impl Core {
    /// What REST knows by now of what happened to a task.
    pub(crate) fn rest_events<'a>(&self, task: &'a Task, now: At) -> impl Iterator<Item = &'a TaskEvent> {
        let scattered = self.has(Quirk::ScatteredRows);
        task.events.iter().filter(move |event| !scattered || now >= event.at + lag(event.kind))
    }

    /// A task's state by REST, as its run shows it.
    pub(crate) fn rest_status(&self, task: &Task, now: At) -> RestStatus {
        // The failure of the attempt before is there, and the attempt that followed it is not.
        let failed = |event: &TaskEvent| {
            event.kind == TaskEventKind::Failed
                && event.retry_count == task.retry_count - 1
                && now < event.at + lag(TaskEventKind::Queued)
        };
        if self.has(Quirk::ScatteredRows) && task.state != State::Ended && task.events.iter().any(failed) {
            return RestStatus::Failed;
        }
        task.rest_status()
    }
}

impl Task {
    /// A task by gRPC.
    pub(crate) fn grpc_view(&self, now: At) -> TaskView<'_> {
        match self.state {
            State::Queued { .. } | State::Backoff => TaskView { status: RestStatus::Queued, error: None, output: None },
            State::Running { .. } => TaskView { status: RestStatus::Running, error: None, output: None },
            State::Ended => match shown_by_grpc(self, now).map(|row| &row.end) {
                Some(End::Completed(output)) => {
                    TaskView { status: RestStatus::Completed, error: Some(""), output: Some(output) }
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

    /// A task by REST, once that has caught up.
    pub(crate) fn rest_status(&self) -> RestStatus {
        match self.state {
            State::Queued { .. } | State::Backoff => RestStatus::Queued,
            State::Running { .. } => RestStatus::Running,
            State::Ended => match shown_by_rest(self).map(|row| &row.end) {
                Some(End::Completed(_)) => RestStatus::Completed,
                Some(End::Failed(_) | End::TimedOut(_) | End::ScheduleTimedOut) => RestStatus::Failed,
                Some(End::Cancelled) | None => RestStatus::Cancelled,
            },
        }
    }
}

/// Whether minutes have passed since a task last ended: then another of its final rows comes up.
pub(super) fn is_old(task: &Task, now: At) -> bool {
    task.current_finals().next_back().is_some_and(|last| now >= last.at + STEADY)
}

fn shown_by_grpc(task: &Task, now: At) -> Option<&Final> {
    let mut rows = task.current_finals();
    let first = rows.next()?;
    match rows.next_back() {
        // A failure reported after a cancel is believed at once.
        Some(last)
            if is_old(task, now)
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

/// Not the last counts but the best: a completed row is shown whatever came before or after it.
pub(crate) fn shown_by_rest(task: &Task) -> Option<&Final> {
    task.current_finals().max_by_key(|row| match row.end {
        End::Completed(_) => 2,
        End::Failed(_) | End::TimedOut(_) | End::ScheduleTimedOut => 1,
        End::Cancelled => 0,
    })
}

/// The payload of the filter that let the run's event through.
pub(crate) fn filter_payload(run: &Run) -> Value {
    run.special.as_ref().and_then(|special| special.filter_payload.clone()).unwrap_or_default()
}

/// What a worker gets with a task. The first attempt's text is Go's, later ones' is the database's.
pub(super) fn payload(run: &Run, task: &Task) -> String {
    let text = format!(
        r#"{{"input":{},"triggered_by":"manual","parents":{{}},"triggers":{{"filter_payload":{}}},"user_data":null,"overrides":null}}"#,
        run.input,
        go_text(&filter_payload(run)),
    );
    let from_database = task.retry_count > 0 || run.special.as_ref().is_some_and(|special| special.from_database);
    match serde_json::from_str(&text) {
        Ok(value) if from_database => jsonb_text(&value),
        _ => text,
    }
}
