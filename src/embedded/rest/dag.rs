//! DAGs in the server's JSON.

use serde_json::{Value, json};
use uuid::Uuid;

use super::json::{add_key, add_parent, add_times, extend, meta, object, or_never, recorded, run_duration, timestamp};
use super::task;
use crate::embedded::core::Core;
use crate::embedded::core::store::{At, End, Run, State, Task, TaskEventKind};

/// The creation, start and end of a run's current attempts, as recorded for REST.
fn times(core: &Core, run: &Run) -> [Option<At>; 3] {
    let first = run.present().filter_map(Task::first_event_at).min();
    let started = run.present().filter_map(Task::assignment).map(|event| event.at).min();
    let ended = run.present().filter(|task| task.state == State::Ended);
    let finished = ended.filter_map(Task::last_final).map(|row| row.at).max();
    [first, started, finished].map(|at| recorded(core, run, at))
}

fn name(run: &Run) -> String {
    format!("{}-{}", run.version.name, run.created.timestamp_millis())
}

/// The output of the task that completed last. Skipped tasks have none.
fn last_output(run: &Run) -> Value {
    let completed = run.present().filter_map(|task| {
        let row = task.current_finals().rfind(|row| matches!(row.end, End::Completed(_)))?;
        Some((row.at, task))
    });
    completed.max_by_key(|(at, task)| (*at, task.step)).map_or_else(|| json!({}), |(_, task)| task::output(task))
}

fn any_error(run: &Run) -> &str {
    run.present().map(|task| task::error(task, true)).find(|text| !text.is_empty()).unwrap_or_default()
}

pub(super) fn run(core: &Core, run: &Run, now: At) -> Value {
    let [created, started, finished] = times(core, run);
    let mut row = json!({
        "metadata": meta(run.id, run.created),
        "additionalMetadata": object(&run.metadata),
        "createdAt": or_never(created),
        "startedAt": or_never(started),
        "finishedAt": or_never(finished),
        "duration": run_duration(started, finished),
        "displayName": name(run),
        "errorMessage": any_error(run),
        "input": object(&run.input),
        "output": last_output(run),
        "status": core.rest_run_status(run, now).name(),
        "tenantId": core.tenant.to_string(),
        "workflowId": run.version.workflow.to_string(),
        "workflowVersionId": run.version.id.to_string(),
    });
    add_parent(&mut row, run);
    row
}

/// The dependencies between the tasks of a run.
pub(super) fn shape(run: &Run) -> Value {
    let rows = run.present().filter_map(|task| {
        let step = run.step(task)?;
        let after = run.version.steps.iter().filter(|other| other.parents.contains(&task.step));
        let after: Vec<_> = after.map(|other| other.id.to_string()).collect();
        Some(json!({
            "childrenStepIds": after, "stepId": step.id.to_string(), "taskExternalId": task.id.to_string(),
            "taskName": &*step.readable_id,
        }))
    });
    rows.collect()
}

/// The events of all tasks with their outputs, newest first.
pub(super) fn events(core: &Core, run: &Run, now: At) -> Vec<Value> {
    let mut events: Vec<_> =
        run.present().flat_map(|task| core.rest_events(task, now).map(move |event| (task, event))).collect();
    events.sort_by_key(|(_, event)| std::cmp::Reverse((event.at, event.number)));
    events
        .into_iter()
        .map(|(task, event)| {
            let output = task.finals.iter().rev().find_map(|row| match &row.end {
                End::Completed(text) if row.retry_count == event.retry_count => Some(&**text),
                _ => None,
            });
            let output = output.filter(|_| event.kind == TaskEventKind::Finished).unwrap_or_default();
            let mut row = task::event(run, task, event);
            extend(&mut row, json!({"output": output}));
            row
        })
        .collect()
}

/// A run as a row of a list, with its tasks.
pub(super) fn row(core: &Core, run: &Run, payloads: bool) -> Value {
    let [created, started, finished] = times(core, run);
    let children: Vec<_> = run.newest_first().into_iter().map(|task| task::row(core, run, task, payloads)).collect();
    let mut row = json!({
        "metadata": meta(run.id, run.created),
        "actionId": "",
        "additionalMetadata": object(&run.metadata),
        "attempt": 1,
        "children": children,
        "createdAt": or_never(created),
        "displayName": name(run),
        "errorMessage": any_error(run),
        "input": if payloads { object(&run.input) } else { json!({}) },
        "numSpawnedChildren": 0,
        "output": if payloads { last_output(run) } else { json!({}) },
        "retryCount": 0,
        "status": run.rest_status().name(),
        "stepId": Uuid::nil().to_string(),
        "taskExternalId": run.id.to_string(),
        "taskId": 0,
        "taskInsertedAt": timestamp(run.created),
        "tenantId": core.tenant.to_string(),
        "type": "DAG",
        "workflowId": run.version.workflow.to_string(),
        "workflowName": &*run.version.name,
        "workflowRunExternalId": run.id.to_string(),
        "workflowVersionId": run.version.id.to_string(),
    });
    add_times(&mut row, started, finished);
    add_key(&mut row, run.key());
    add_parent(&mut row, run);
    row
}
