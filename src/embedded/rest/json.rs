//! Parts that several objects of the server's JSON have.

use chrono::{SecondsFormat, TimeDelta};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::embedded::core::Core;
use crate::embedded::core::store::{At, Run};
use crate::embedded::quirks::Quirk;

pub(super) const NEVER: &str = "0001-01-01T00:00:00Z";
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

pub(super) fn meta(id: Uuid, created: At) -> Value {
    json!({"id": id.to_string(), "createdAt": timestamp(created), "updatedAt": timestamp(created)})
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

/// Adds the times that a row of a task has. Unknown values are omitted.
pub(super) fn add_times(row: &mut Value, started: Option<At>, finished: Option<At>) {
    if let Some(started) = started {
        extend(row, json!({"startedAt": timestamp(started)}));
    }
    if let Some(finished) = finished {
        extend(row, json!({"finishedAt": timestamp(finished)}));
    }
    if started.is_some() && finished.is_some() {
        extend(row, json!({"duration": run_duration(started, finished)}));
    }
}

pub(super) fn run_duration(started: Option<At>, finished: Option<At>) -> i64 {
    match (started, finished) {
        (Some(started), Some(finished)) => finished.signed_duration_since(started).num_milliseconds(),
        (Some(_), None) => -MAX_GO_MILLIS,
        (None, Some(_)) => MAX_GO_MILLIS,
        (None, None) => 0,
    }
}

/// Adds the idempotency key, which only lists contain.
pub(super) fn add_key(row: &mut Value, key: Option<&str>) {
    if let Some(key) = key {
        extend(row, json!({"idempotencyKey": key}));
    }
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
