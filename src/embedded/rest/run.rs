//! Runs in the server's JSON.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::json::{add_parent, attempt_of, extend, meta, object, or_never, recorded, run_duration, timestamp};
use super::{config, dag, task};
use crate::embedded::core::store::{At, Run, State, Task, TaskEventKind};
use crate::embedded::core::{Core, stored_payload};

/// A run with its tasks.
pub(super) fn details(core: &Core, run: &Run, now: At) -> Value {
    // Tasks without events are omitted. The newest is first.
    let shows_tasks = core.shows_tasks(run, now);
    let present = run.newest_first().into_iter().filter(|task| shows_tasks && !task.events.is_empty());
    let tasks: Vec<_> = present
        .map(|task| {
            let mut row = task::of_run(core, run, task);
            if let Some(known) = core.rest_attempt(task, now) {
                extend(&mut row, json!({"attempt": attempt_of(known), "retryCount": known, "status": "FAILED"}));
            }
            row
        })
        .collect();
    let events = if run.dag.is_some() { dag::events(core, run, now) } else { Vec::new() };
    json!({
        "run": if run.dag.is_some() { dag::run(core, run, now) } else { single(core, run, now) },
        "shape": dag::shape(run),
        "taskEvents": events,
        "tasks": tasks,
        "workflowConfig": config::of_run(run),
    })
}

/// A single-task run.
fn single(core: &Core, run: &Run, now: At) -> Value {
    let first = run.tasks.first();
    // A run has the times of the engine, and its task those that the worker reported.
    let started = first.and_then(Task::assignment).map(|event| event.at);
    let finished = first.filter(|task| task.state == State::Ended).and_then(Task::last_final).map(|row| row.at);
    let created = first.and_then(Task::first_event_at);
    let [created, started, finished] = [created, started, finished].map(|at| recorded(core, run, at));
    json!({
        "metadata": meta(run.id, run.created),
        "additionalMetadata": object(&run.metadata),
        // This is the creation of the current attempt.
        "createdAt": or_never(created),
        "startedAt": or_never(started),
        "finishedAt": or_never(finished),
        "duration": run_duration(started, finished),
        "displayName": first.map(|task| task::name_of(run, task)).unwrap_or_default(),
        "errorMessage": first.map(|task| task::error(task, true)).unwrap_or_default(),
        "input": first.map(|task| stored_payload(run, task)),
        "output": first.map(task::last_output).unwrap_or_default(),
        "status": core.rest_run_status(run, now).name(),
        "tenantId": core.tenant.to_string(),
        "workflowId": run.version.workflow.to_string(),
        "workflowVersionId": run.version.id.to_string(),
    })
}

/// A run as a row of a list. All rows have the type DAG.
pub(super) fn row(core: &Core, run: &Run, payloads: bool) -> Value {
    let Some(task) = run.tasks.first().filter(|_| run.dag.is_none()) else { return dag::row(core, run, payloads) };
    let mut row = task::summary(core, run, task);
    extend(&mut row, json!({"actionId": "", "type": "DAG", "workflowName": &*run.version.name}));
    task::add_payloads(&mut row, run, task, payloads);
    row
}

/// When the tasks of a run were queued, started and ended. Each task is followed by those of its children, up to the requested depth.
pub(super) fn timings(core: &Core, run: &Run, depth: usize) -> Value {
    let mut rows = Vec::new();
    add_timings(core, run, 0, depth, &mut rows);
    json!({"pagination": {}, "rows": rows})
}

fn add_timings(core: &Core, run: &Run, depth: usize, max_depth: usize, rows: &mut Vec<Value>) {
    for task in run.present() {
        let created = run.created(task);
        let mut row = json!({
            "metadata": meta(task.id, created),
            "attempt": attempt_of(task.retry_count),
            "depth": depth,
            "retryCount": task.retry_count,
            "status": task.rest_status().name(),
            "taskDisplayName": task::name_of(run, task),
            "taskExternalId": task.id.to_string(),
            "taskId": run.number(task),
            "taskInsertedAt": timestamp(created),
            "tenantId": core.tenant.to_string(),
            "workflowRunId": run.id.to_string(),
        });
        let queued = task.event(TaskEventKind::Queued).map(|event| event.at);
        for (name, at) in [("queuedAt", queued), ("startedAt", task.started()), ("finishedAt", task.finished())] {
            if let Some(at) = at {
                extend(&mut row, json!({name: timestamp(at)}));
            }
        }
        add_parent(&mut row, run);
        rows.push(row);
        if depth < max_depth {
            let mut known = HashSet::new();
            for child in core.children(task.id) {
                // A child that was started twice is listed three times.
                let times = if child.is_restarted() && known.insert(child.id) { 2 } else { 1 };
                (0..times).for_each(|_| add_timings(core, child, depth.saturating_add(1), max_depth, rows));
            }
        }
    }
}
