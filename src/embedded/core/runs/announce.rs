//! Announcements on streams: events of tasks and runs, and results.

use std::sync::Arc;

use crate::embedded::core::store::{Core, EventKind, Resource, Run, RunEvent, RunIx, Task, TaskKey, Turn};
use crate::embedded::core::streams::{chunks, events, results};

/// Announces that the current attempt of a task has ended.
pub(crate) fn task_end(core: &mut Core, turn: &Turn<'_>, key: TaskKey, kind: EventKind, payload: Arc<str>) {
    let Some((run, task)) = core.runs.task(key) else { return };
    let event = RunEvent {
        run: run.id,
        resource: Resource::Task(task.id),
        kind,
        at: turn.now,
        payload,
        retry_count: Some(task.retry_count),
        index: None,
        hangup: false,
    };
    let task = task.id;
    chunks::attempt_ended(core, turn.now, task);
    events::publish(core, &event);
}

/// Announces that a run has ended.
pub(crate) fn run_end(core: &mut Core, turn: &Turn<'_>, run: RunIx, kind: EventKind) {
    let Some(run) = core.runs.get(run) else { return };
    let event = RunEvent {
        run: run.id,
        resource: Resource::Run,
        kind,
        at: turn.now,
        payload: "".into(),
        retry_count: None,
        index: None,
        hangup: true,
    };
    events::publish(core, &event);
}

/// Sends the result of a run and announces its end, if it has ended.
pub(crate) fn if_ended(core: &mut Core, turn: &Turn<'_>, run: RunIx) {
    let Some(kind) = core.runs.get(run).filter(|run| run.has_ended()).map(Run::end_kind) else { return };
    results::send(core, turn, run);
    run_end(core, turn, run, kind);
}

/// Announces a DAG as ended although it has only started.
pub(crate) fn early_end(core: &mut Core, turn: &Turn<'_>, run: RunIx) {
    if core.runs.get(run).is_some_and(|run| !run.has_ended()) {
        run_end(core, turn, run, EventKind::Completed);
    }
}

/// Announces a new task. Event streams get "started" when the task is created, whether a worker has it or not.
pub(crate) fn creation(core: &mut Core, key: TaskKey) {
    let Some((run, task)) = core.runs.task(key) else { return };
    let event = RunEvent {
        run: run.id,
        resource: Resource::Task(task.id),
        kind: EventKind::Started,
        at: run.created(task),
        payload: "".into(),
        retry_count: Some(0),
        index: None,
        hangup: false,
    };
    events::publish(core, &event);
}

/// Announces a task that may be new. Another attempt of a task is not announced.
pub(crate) fn if_new(core: &mut Core, key: TaskKey) {
    if core.runs.task(key).is_some_and(|(_, task)| task.is_first()) {
        creation(core, key);
    }
}

impl Run {
    /// The kind of the event that announces the end of the run.
    pub(crate) fn end_kind(&self) -> EventKind {
        let kinds = || self.tasks.iter().filter_map(Task::best_final).map(|row| row.end.kind());
        let worst =
            [EventKind::Failed, EventKind::Cancelled].into_iter().find(|kind| kinds().any(|other| other == *kind));
        worst.unwrap_or(EventKind::Completed)
    }
}
