//! Keeps the text of payloads inside JSON columns. A payload that is serialized with the value around it has the numbers of
//! [`serde_json::Value`], and those with more digits are rounded.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::Result;
use crate::model::{Completed, Outcome, Payload, TaskDetails, Trigger};

/// The JSON of a value, in which the payload at a path has its own text.
pub(super) fn with_payload(
    value: &impl Serialize,
    path: &[&str],
    payload: Option<&Payload>,
) -> serde_json::Result<Box<RawValue>> {
    let json = serde_json::value::to_raw_value(value)?;
    match payload.map(Payload::unwrapped) {
        // Otherwise it is a string, because no reader would accept it.
        Some(text) if serde_json::from_str::<Value>(text).is_ok() => {
            replace(&json, path, RawValue::from_string(text.to_owned())?)
        }
        _ => Ok(json),
    }
}

/// Replaces a part of an object.
fn replace(json: &RawValue, path: &[&str], part: Box<RawValue>) -> serde_json::Result<Box<RawValue>> {
    let Some((name, rest)) = path.split_first() else { return Ok(part) };
    let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(json.get())?;
    if let Some(field) = fields.get_mut(*name) {
        *field = replace(field, rest, part)?;
    }
    serde_json::value::to_raw_value(&fields)
}

/// The JSON of tasks, with the text of their outputs.
pub(super) fn tasks(tasks: &[TaskDetails]) -> serde_json::Result<String> {
    let json = |task: &TaskDetails| with_payload(task, &["outcome", "output"], task.output());
    serde_json::to_string(&tasks.iter().map(json).collect::<serde_json::Result<Vec<_>>>()?)
}

#[derive(Deserialize)]
struct StoredTask<'a> {
    #[serde(borrow, default)]
    outcome: Option<StoredOutcome<'a>>,
}

#[derive(Deserialize)]
struct StoredOutcome<'a> {
    #[serde(borrow, default)]
    output: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct StoredTrigger<'a> {
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

/// Sets the outputs of tasks to their text in the JSON that the tasks were read from.
pub(super) fn restore_outputs(tasks: &mut [TaskDetails], json: &str) -> Result<(), serde_json::Error> {
    let stored: Vec<StoredTask<'_>> = serde_json::from_str(json)?;
    for (task, stored) in tasks.iter_mut().zip(stored) {
        let output = stored.outcome.and_then(|outcome| outcome.output);
        if let (Some(Outcome::Completed(Completed { output })), Some(text)) = (&mut task.outcome, output) {
            *output = Payload::input(text.get());
        }
    }
    Ok(())
}

/// Sets the payload of an event to its text in the JSON that the trigger was read from.
pub(super) fn restore_payload(trigger: &mut Trigger, json: &str) -> Result<(), serde_json::Error> {
    if let Trigger::Event(event) = trigger {
        let stored: StoredTrigger<'_> = serde_json::from_str(json)?;
        event.payload = stored.payload.map(|text| Payload::input(text.get())).or(event.payload.take());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_keeps_its_text() {
        let text = r#"{"big":123456789012345678901234567890,"small":0.1000000000000000055}"#;
        let outcome = Outcome::Completed(Completed { output: Payload::input(text) });
        let json = with_payload(&outcome, &["output"], outcome.output()).unwrap();
        assert_eq!(json.get(), format!(r#"{{"output":{text},"status":"COMPLETED"}}"#));
        // A wrapper is removed, as everywhere.
        let wrapped = Payload::output(r#"{"_value":123456789012345678901234567890}"#);
        let json = with_payload(&outcome, &["output"], Some(&wrapped)).unwrap();
        assert_eq!(json.get(), r#"{"output":123456789012345678901234567890,"status":"COMPLETED"}"#);
        // What is no JSON, or a number that no reader accepts, is a string.
        for text in ["no JSON", "1E400"] {
            let outcome = Outcome::Completed(Completed { output: Payload::input(text) });
            let json = with_payload(&outcome, &["output"], outcome.output()).unwrap();
            assert_eq!(json.get(), format!(r#"{{"status":"COMPLETED","output":"{text}"}}"#));
        }
    }
}
