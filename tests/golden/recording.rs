//! Loads recordings, and extracts their parts.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::tokens::{Token, split};

/// The id of the first run in all recordings.
pub(crate) const FIRST_RUN: &str = "00000000-0000-4000-8001-000000000001";
/// The id of the first worker in all recordings.
pub(crate) const FIRST_WORKER: &str = "00000000-0000-4000-8003-000000000001";

pub(crate) fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/recordings")
}

pub(crate) fn load(name: &str) -> Value {
    let path = directory().join(format!("{name}.json"));
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// When the first run was created. Display names contain this time, and every recording has one.
pub(crate) fn created(recording: &Value) -> DateTime<Utc> {
    fn find(value: &Value, times: &mut Vec<DateTime<Utc>>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(name)) = map.get("displayName") {
                    times.extend(split(name).1.into_iter().filter_map(|token| match token {
                        Token::Time(at) => Some(at),
                        Token::Name(_) => None,
                    }));
                }
                map.values().for_each(|value| find(value, times));
            }
            Value::Array(items) => items.iter().for_each(|value| find(value, times)),
            _ => {}
        }
    }
    let mut times = Vec::new();
    find(recording, &mut times);
    times.into_iter().min().expect("a recording should have a display name")
}

/// The recorded workflow, or the default workflow with changes if the recording has none.
pub(crate) fn workflow(recording: &Value, name: &str, changes: &Value) -> Value {
    if let Some(request) = recording.pointer("/workflow/0/request") {
        return request.clone();
    }
    let default_task = |task: &str| json!({"readable_id": task, "action": format!("{name}:{task}"), "timeout": "60s", "schedule_timeout": "5m", "retries": 0});
    if let Some(parents) = changes["parents"].as_object() {
        let tasks = parents.iter().map(|(task, parents)| {
            let mut task = default_task(task);
            task["parents"] = parents.clone();
            task
        });
        let on_failure = changes["on_failure"].as_str().map(default_task);
        return json!({"name": name, "tasks": tasks.collect::<Value>(), "on_failure_task": on_failure});
    }
    let mut task = default_task("work");
    task.as_object_mut().unwrap().extend(changes.as_object().cloned().unwrap_or_default());
    json!({"name": name, "tasks": [task]})
}

pub(crate) fn list<'a>(recording: &'a Value, pointer: &str) -> &'a [Value] {
    recording.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub(crate) fn at_ms(value: &Value) -> i64 {
    value["at_ms"].as_i64().unwrap_or_else(|| panic!("expected at_ms, got {value}"))
}
