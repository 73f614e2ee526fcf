//! Bodies of requests, parsed and rejected as by the server.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::http::StatusCode;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::response::Rejection;
use crate::embedded::core::format::json::{go_problem, go_type};
use crate::embedded::core::format::uuid::go_uuid;

/// Parses a body, or returns the server's error for one that is not JSON. A missing body is an empty object.
pub(super) fn body(bytes: &Bytes) -> Result<Value, Rejection> {
    if bytes.is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let problem = go_problem(&String::from_utf8_lossy(bytes), &error);
        Rejection::message(StatusCode::BAD_REQUEST, format!("Syntax error: offset={}, error={problem}", error.column()))
    })
}

/// A field that may be absent, or null.
pub(super) fn given(body: &Value, name: &str) -> Option<Value> {
    body.get(name).filter(|value| !value.is_null()).cloned()
}

/// A body whose fields have types. Unknown fields are ignored; null is the same as absent.
pub(super) struct Typed<'a> {
    bytes: &'a [u8],
    fields: BTreeMap<String, &'a RawValue>,
}

impl<'a> Typed<'a> {
    /// Parses a body that should have a type, given by Go's name.
    pub(super) fn parse(bytes: &'a Bytes, kind: &str) -> Result<Self, Rejection> {
        let value = body(bytes)?;
        let fields = if bytes.is_empty() { Ok(BTreeMap::new()) } else { serde_json::from_slice(bytes) };
        let fields = fields.map_err(|_| {
            let text = std::str::from_utf8(bytes).unwrap_or_default();
            let (found, length) = recognized(&value, text.trim());
            let blanks = text.len().saturating_sub(text.trim_start().len());
            let offset = blanks.saturating_add(length);
            bad(format!("Unmarshal type error: expected={kind}, got={found}, field=, offset={offset}"))
        })?;
        Ok(Self { bytes, fields })
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Rejection> {
        self.field(name, "string", |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
    }

    pub(super) fn object(&self, name: &str) -> Result<Option<Map<String, Value>>, Rejection> {
        self.field(name, "map[string]interface {}", |value| match value {
            Value::Object(map) => Some(map),
            _ => None,
        })
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, Rejection> {
        self.field(name, "int", |value| value.as_i64())
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Rejection> {
        Ok(self.field(name, "bool", |value| value.as_bool())?.unwrap_or_default())
    }

    pub(super) fn id(&self, name: &str) -> Result<Option<Uuid>, Rejection> {
        self.text(name)?.map(|text| go_uuid(&text).map_err(bad)).transpose()
    }

    /// A field of a type, given by Go's name.
    fn field<T>(&self, name: &str, kind: &str, read: impl Fn(Value) -> Option<T>) -> Result<Option<T>, Rejection> {
        let Some(raw) = self.fields.get(name).map(|raw| raw.get()) else { return Ok(None) };
        let value: Value = serde_json::from_str(raw).unwrap_or_default();
        if value.is_null() {
            return Ok(None);
        }
        let (found, length) = recognized(&value, raw);
        let offset = (raw.as_ptr() as usize).saturating_sub(self.bytes.as_ptr() as usize).saturating_add(length);
        let problem = || format!("Unmarshal type error: expected={kind}, got={found}, field={name}, offset={offset}");
        read(value).map(Some).ok_or_else(|| bad(problem()))
    }
}

/// Go's name of a value's type, and the offset at which Go recognizes the type.
fn recognized(value: &Value, text: &str) -> (&'static str, usize) {
    (go_type(value), if value.is_array() || value.is_object() { 1 } else { text.len() })
}

fn bad(message: String) -> Rejection {
    Rejection::message(StatusCode::BAD_REQUEST, message)
}
