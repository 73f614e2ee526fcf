//! Runs and tasks in the server's JSON.

use std::collections::HashSet;

use chrono::{SecondsFormat, TimeDelta};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{config, dag};
use crate::embedded::core::store::{At, End, LogLine, PausedRuns, Run, State, Task, TaskEvent, TaskEventKind};
use crate::embedded::core::{Core, RestStatus, WorkflowView, stored_payload};
use crate::embedded::quirks::Quirk;

pub(super) const NEVER: &str = "0001-01-01T00:00:00Z";
/// The id of the first event, distinct from attempts and counts.
const FIRST_EVENT_ID: i64 = 1_000;
/// The server's difference in milliseconds between two times if one of them is never: the maximum of Go's `Duration`.
const MAX_GO_MILLIS: i64 = 9_223_372_036_854;

pub(super) fn timestamp(at: At) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

pub(super) fn or_never(at: Option<At>) -> String {
    at.map_or_else(|| NEVER.into(), timestamp)
}

/// Parses JSON, and returns `{}` unless it is an object.
pub(super) fn object(text: &str) -> Value {
    serde_json::from_str(text).ok().filter(Value::is_object).unwrap_or_else(|| json!({}))
}

/// The attempt number. A report may have any retry count.
pub(super) fn attempt_of(retry_count: i32) -> i64 {
    i64::from(retry_count).saturating_add(1)
}

fn name_of(run: &Run, task: &Task) -> String {
    let readable_id = run.step(task).map(|step| &*step.readable_id).unwrap_or_default();
    format!("{readable_id}-{}", run.created(task).timestamp_millis())
}

pub(super) fn meta(id: Uuid, created: At) -> Value {
    json!({"id": id.to_string(), "createdAt": timestamp(created), "updatedAt": timestamp(created)})
}

pub(super) fn output(task: &Task) -> Value {
    match task.best_final().map(|row| &row.end) {
        Some(End::Completed(output)) if task.state == State::Ended => object(output),
        _ => json!({}),
    }
}

/// The output of a task. During a replay, it is that of the attempt before.
fn last_output(task: &Task) -> Value {
    let earlier = task.finals.iter().rev().find_map(|row| match &row.end {
        End::Completed(output) => Some(object(output)),
        _ => None,
    });
    earlier.filter(|_| task.state != State::Ended).unwrap_or_else(|| output(task))
}

/// The error of the current attempt, or if `any_attempt`, of the newest attempt that failed.
pub(super) fn error(task: &Task, any_attempt: bool) -> &str {
    let failures = task.events.iter().filter(|event| event.kind == TaskEventKind::Failed);
    let newest = failures
        .filter(|event| any_attempt || event.retry_count == task.retry_count)
        .max_by_key(|event| event.retry_count);
    newest.and_then(|event| event.message.as_deref()).unwrap_or_default()
}

/// A run with its tasks.
pub(super) fn run_details(core: &Core, run: &Run, now: At) -> Value {
    // Tasks without events are omitted. The newest is first.
    let shows_tasks = core.shows_tasks(run, now);
    let present = run.newest_first().into_iter().filter(|task| shows_tasks && !task.events.is_empty());
    let tasks: Vec<_> = present
        .map(|task| {
            let mut row = task_of_run(core, run, task);
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

/// The time at which REST's store recorded something about a run. The delay is the same for the whole run, and for all runs of
/// one call.
pub(super) fn recorded(core: &Core, run: &Run, at: Option<At>) -> Option<At> {
    if !core.has(Quirk::LateCreationTimes) {
        return at;
    }
    let late = run.created.timestamp_micros().rem_euclid(26_000).saturating_add(14_000);
    at?.checked_add_signed(TimeDelta::microseconds(late))
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
        "displayName": first.map(|task| name_of(run, task)).unwrap_or_default(),
        "errorMessage": first.map(|task| error(task, true)).unwrap_or_default(),
        "input": first.map(|task| stored_payload(run, task)),
        "output": first.map(last_output).unwrap_or_default(),
        "status": core.rest_run_status(run, now).name(),
        "tenantId": core.tenant.to_string(),
        "workflowId": run.version.workflow.to_string(),
        "workflowVersionId": run.version.id.to_string(),
    })
}

pub(super) fn run_duration(started: Option<At>, finished: Option<At>) -> i64 {
    match (started, finished) {
        (Some(started), Some(finished)) => finished.signed_duration_since(started).num_milliseconds(),
        (Some(_), None) => -MAX_GO_MILLIS,
        (None, Some(_)) => MAX_GO_MILLIS,
        (None, None) => 0,
    }
}

/// The stored payload of a task. It is empty if the task was never queued.
fn input(run: &Run, task: &Task) -> Value {
    let queued = task.events.iter().any(|event| event.kind == TaskEventKind::Queued);
    if queued || run.dag.is_none() { stored_payload(run, task) } else { json!({}) }
}

fn task_of_run(core: &Core, run: &Run, task: &Task) -> Value {
    let mut row = summary(core, run, task);
    extend(
        &mut row,
        json!({
            "actionId": run.step(task).map(|step| step.action.to_string()),
            "createdAt": NEVER,
            "input": input(run, task),
            "isDurable": false,
            "isEvicted": false,
            "output": output(task),
            "type": "TASK",
        }),
    );
    row
}

/// The details of a task.
pub(super) fn task_details(core: &Core, run: &Run, task: &Task, children: usize) -> Value {
    let mut row = task_of_run(core, run, task);
    extend(
        &mut row,
        json!({
            "input": object(run.last_input()),
            "numSpawnedChildren": children,
            "workflowConfig": config::of_run(run),
        }),
    );
    if matches!(task.state, State::Running { .. }) && task.has_late_timestamp() {
        extend(&mut row, json!({"status": "QUEUED"}));
    }
    if run.dag.is_some() && task.state == State::Ended {
        // The last of several final rows is used here. Other responses use the best one.
        let last = task.last_final().map_or(RestStatus::Cancelled, |row| row.end.rest_status());
        extend(&mut row, json!({"status": last.name()}));
    }
    row
}

/// A run as a row of a list. All rows have the type DAG.
pub(super) fn row(core: &Core, run: &Run, payloads: bool) -> Value {
    let Some(task) = run.tasks.first().filter(|_| run.dag.is_none()) else { return dag::row(core, run, payloads) };
    let mut row = summary(core, run, task);
    extend(&mut row, json!({"actionId": "", "type": "DAG", "workflowName": &*run.version.name}));
    add_payloads(&mut row, run, task, payloads);
    row
}

/// A task as a row of a list.
pub(super) fn task_row(core: &Core, run: &Run, task: &Task, payloads: bool) -> Value {
    let mut row = summary(core, run, task);
    let action = run.step(task).map(|step| step.action.to_string());
    extend(&mut row, json!({"actionId": action, "type": "TASK", "workflowName": &*run.version.name}));
    add_payloads(&mut row, run, task, payloads);
    row
}

fn add_payloads(row: &mut Value, run: &Run, task: &Task, payloads: bool) {
    let both = if payloads {
        json!({"input": input(run, task), "output": output(task)})
    } else {
        json!({"input": {}, "output": {}})
    };
    extend(row, both);
    add_key(row, run.key_of(task));
}

/// Adds the idempotency key, which only lists contain.
pub(super) fn add_key(row: &mut Value, key: Option<&str>) {
    if let Some(key) = key {
        extend(row, json!({"idempotencyKey": key}));
    }
}

fn summary(core: &Core, run: &Run, task: &Task) -> Value {
    let created = run.created(task);
    let (started, finished) = (task.started(), task.finished());
    let mut row = json!({
        "metadata": meta(task.id, created),
        "additionalMetadata": object(&run.metadata),
        "attempt": attempt_of(task.retry_count),
        "createdAt": timestamp(created),
        "displayName": name_of(run, task),
        "errorMessage": error(task, false),
        "numSpawnedChildren": 0,
        "retryCount": task.retry_count,
        "status": task.rest_status().name(),
        "stepId": run.step(task).map(|step| step.id.to_string()),
        "taskExternalId": task.id.to_string(),
        "taskId": run.number(task),
        "taskInsertedAt": timestamp(created),
        "tenantId": core.tenant.to_string(),
        "workflowId": run.version.workflow.to_string(),
        "workflowRunExternalId": run.id.to_string(),
        "workflowVersionId": run.version.id.to_string(),
    });
    // Unknown values are omitted.
    if let Some(started) = started {
        extend(&mut row, json!({"startedAt": timestamp(started)}));
    }
    if let Some(finished) = finished {
        extend(&mut row, json!({"finishedAt": timestamp(finished)}));
    }
    if let (Some(started), Some(finished)) = (started, finished) {
        extend(&mut row, json!({"duration": finished.signed_duration_since(started).num_milliseconds()}));
    }
    add_parent(&mut row, run);
    row
}

/// The parent of a run. A single-task run shows it everywhere but in its details, a DAG everywhere.
pub(super) fn add_parent(row: &mut Value, run: &Run) {
    if let Some(parent) = run.parent() {
        extend(row, json!({"parentTaskExternalId": parent.task.to_string()}));
    }
}

pub(super) fn extend(row: &mut Value, more: Value) {
    if let (Value::Object(row), Value::Object(more)) = (row, more) {
        row.extend(more);
    }
}

/// A page of the events of a task, newest first by their timestamps, which is not the order in which they happened.
pub(super) fn events(core: &Core, run: &Run, task: &Task, now: At, offset: usize, limit: usize) -> Vec<Value> {
    let mut events: Vec<_> = core.rest_events(task, now).collect();
    events.sort_by_key(|event| std::cmp::Reverse((event.at, event.number)));
    events.into_iter().skip(offset).take(limit).map(|event| task_event(run, task, event)).collect()
}

pub(super) fn task_event(run: &Run, task: &Task, event: &TaskEvent) -> Value {
    let text = event.message.as_deref().unwrap_or_default();
    let (message, error) = if event.kind == TaskEventKind::Failed { ("", text) } else { (text, "") };
    let mut row = json!({
        "attempt": attempt_of(event.retry_count),
        "errorMessage": error,
        "eventType": event.kind.name(),
        "id": FIRST_EVENT_ID.saturating_add(event.number),
        "message": message,
        "retryCount": event.retry_count,
        "taskDisplayName": name_of(run, task),
        "taskId": task.id.to_string(),
        "timestamp": timestamp(event.at),
    });
    if let Some(worker) = event.worker {
        extend(&mut row, json!({"workerId": worker.to_string()}));
    }
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
            "taskDisplayName": name_of(run, task),
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

/// A line of a task's log.
pub(super) fn log_line(run: &Run, task: &Task, line: &LogLine) -> Value {
    let metadata: Value = serde_json::from_str(&line.metadata).unwrap_or_default();
    json!({
        "attempt": attempt_of(line.retry_count),
        "createdAt": timestamp(line.at),
        "level": line.level,
        "message": &*line.message,
        "metadata": metadata,
        "retryCount": line.retry_count,
        "taskDisplayName": name_of(run, task),
        "taskExternalId": task.id.to_string(),
    })
}

/// A workflow as a row of a list.
pub(super) fn workflow(view: &WorkflowView<'_>) -> Value {
    let mut row = json!({
        "metadata": meta(view.workflow.id, view.workflow.created),
        "name": view.name,
        "description": view.workflow.latest.description,
        "isPaused": view.workflow.pause.is_some(),
        "tenantId": "",
    });
    if let Some(pause) = &view.workflow.pause {
        let name = |runs: PausedRuns| match runs {
            PausedRuns::Queue => "QUEUE",
            PausedRuns::Drop => "DROP",
        };
        let behaviors = json!({
            "pausedWorkflowCronRunQueueBehavior": name(pause.crons),
            "pausedWorkflowScheduledRunQueueBehavior": name(pause.schedules),
        });
        extend(&mut row, behaviors);
    }
    row
}
