//! Inputs and outputs: JSON text that is parsed on demand.
//!
//! The engine stores only JSON objects reliably: any other input reaches the worker as `null`, and parts of the REST API show any
//! other output as `{}`. So inputs must be objects. An output that is not an object is sent as `{"_value": …}`, which every other
//! SDK can read, and is unwrapped when it is read.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// The key that wraps an output that is not an object.
pub(crate) const WRAPPER: &str = "_value";

/// A JSON value as text: an input or an output.
///
/// A `Payload` is cheap to clone.
///
/// ```no_run
/// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
/// let details = run.details().await?;
/// if let Some(input) = &details.input {
///     println!("{input}"); // the JSON text
///     let order: serde_json::Value = input.parse()?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Payload {
    text: Arc<str>,
    /// Whether the value may be wrapped. Inputs and event payloads never are.
    is_output: bool,
}

impl Payload {
    /// The output of a task.
    pub(crate) fn output(text: &str) -> Self {
        Self { text: text.into(), is_output: true }
    }

    /// The input of a run, or the payload of an event.
    pub(crate) fn input(text: &str) -> Self {
        Self { text: text.into(), is_output: false }
    }

    /// Returns the JSON text as it was received. It may be empty, because workers of other SDKs can complete a task without an output.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text of the value without its wrapper.
    pub(crate) fn unwrapped(&self) -> &str {
        if self.is_output { unwrapped(&self.text).unwrap_or(&self.text) } else { &self.text }
    }
}

/// Payloads are equal if their texts are equal.
impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Payload {}

impl Hash for Payload {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

/// The wrapped value in a string, if there is one.
pub(crate) fn unwrapped(text: &str) -> Option<&str> {
    // Only text that contains the wrapper's key needs to be parsed.
    let wrapped: Wrapped<'_> = text.contains(WRAPPER).then(|| serde_json::from_str(text).ok())??;
    Some(wrapped.value.get())
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Wrapped<'a> {
    #[serde(rename = "_value", borrow)]
    value: &'a RawValue,
}

pub(crate) fn read<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    match serde_json::from_str(text) {
        Err(error) if text.is_empty() => {
            serde_json::from_str("null").or_else(|_| serde_json::from_str("{}")).map_err(|_| error)
        }
        // `()` and `Option` as an input are sent as an empty object.
        Err(error) if is_empty_object(text) => serde_json::from_str("null").map_err(|_| error),
        other => other,
    }
}

fn is_empty_object(text: &str) -> bool {
    text.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).is_some_and(|inner| inner.trim().is_empty())
}

/// Serializes the JSON value, or a string if the text is not JSON. Numbers are those of [`serde_json::Value`]: numbers with more
/// digits than it can represent are rounded.
impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match read::<serde_json::Value>(self.unwrapped()) {
            Ok(value) => value.serialize(serializer),
            Err(_) => serializer.serialize_str(&self.text),
        }
    }
}

/// Deserializes any JSON value.
impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not as raw text, which cannot be read from within a tagged enum.
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(Self::input(&value.to_string()))
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}
