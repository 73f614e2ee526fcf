//! Tasks in the server's JSON.

use serde_json::{Value, json};

use super::config;
use super::json::{NEVER, add_key, add_parent, add_times, attempt_of, extend, meta, object, timestamp};
use crate::embedded::core::store::{At, End, LogLine, Run, State, Task, TaskEvent, TaskEventKind};
use crate::embedded::core::{Core, RestStatus, stored_payload};

/// The id of the first event, distinct from attempts and counts.
const FIRST_EVENT_ID: i64 = 1_000;

pub(super) fn name_of(run: &Run, task: &Task) -> String {
    let readable_id = run.step(task).map(|step| &*step.readable_id).unwrap_or_default();
    format!("{readable_id}-{}", run.created(task).timestamp_millis())
}

pub(super) fn output(task: &Task) -> Value {
    match task.best_final().map(|row| &row.end) {
        Some(End::Completed(output)) if task.state == State::Ended => object(output),
        _ => json!({}),
    }
}

/// The output of a task. During a replay, it is that of the attempt before.
pub(super) fn last_output(task: &Task) -> Value {
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

/// The stored payload of a task. It is empty if the task was never queued.
fn input(run: &Run, task: &Task) -> Value {
    let queued = task.events.iter().any(|event| event.kind == TaskEventKind::Queued);
    if queued || run.dag.is_none() { stored_payload(run, task) } else { json!({}) }
}

pub(super) fn of_run(core: &Core, run: &Run, task: &Task) -> Value {
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
pub(super) fn details(core: &Core, run: &Run, task: &Task, children: usize) -> Value {
    let mut row = of_run(core, run, task);
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

/// A task as a row of a list.
pub(super) fn row(core: &Core, run: &Run, task: &Task, payloads: bool) -> Value {
    let mut row = summary(core, run, task);
    let action = run.step(task).map(|step| step.action.to_string());
    extend(&mut row, json!({"actionId": action, "type": "TASK", "workflowName": &*run.version.name}));
    add_payloads(&mut row, run, task, payloads);
    row
}

pub(super) fn add_payloads(row: &mut Value, run: &Run, task: &Task, payloads: bool) {
    let both = if payloads {
        json!({"input": input(run, task), "output": output(task)})
    } else {
        json!({"input": {}, "output": {}})
    };
    extend(row, both);
    add_key(row, run.key_of(task));
}

pub(super) fn summary(core: &Core, run: &Run, task: &Task) -> Value {
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
    add_times(&mut row, started, finished);
    add_parent(&mut row, run);
    row
}

/// A page of the events of a task, newest first by their timestamps, which is not the order in which they happened.
pub(super) fn events(core: &Core, run: &Run, task: &Task, now: At, offset: usize, limit: usize) -> Vec<Value> {
    let mut events: Vec<_> = core.rest_events(task, now).collect();
    events.sort_by_key(|event| std::cmp::Reverse((event.at, event.number)));
    events.into_iter().skip(offset).take(limit).map(|row| event(run, task, row)).collect()
}

pub(super) fn event(run: &Run, task: &Task, event: &TaskEvent) -> Value {
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
