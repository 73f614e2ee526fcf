//! The values of an evaluation.

use std::cmp::Ordering;
use std::ops::Deref;
use std::rc::Rc;

use serde_json::Value as Json;

use super::ast::Literal;
use super::budget::Budget;
use super::error::{EvalError, TOO_LARGE};

/// The maximum nesting of lists and maps that an expression makes: some functions recurse into them.
const MAX_DEPTH: u8 = 64;

/// A value. Clones share strings, lists and maps.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Rc<[u8]>),
    List(List<'a>),
    Map(Map<'a>),
    Type(&'static str),
}

#[derive(Debug, Clone)]
pub(super) enum Text<'a> {
    Borrowed(&'a str),
    Shared(Rc<str>),
}

#[derive(Debug, Clone)]
pub(super) enum List<'a> {
    Json(&'a [Json]),
    Made(Rc<Vec<Value<'a>>>, u8),
}

#[derive(Debug, Clone)]
pub(super) enum Map<'a> {
    Json(&'a serde_json::Map<String, Json>),
    /// Without two equal keys.
    Made(Rc<Vec<(Value<'a>, Value<'a>)>>, u8),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl<'a> Value<'a> {
    pub(super) fn text(text: impl Into<Rc<str>>) -> Self {
        Self::String(Text::Shared(text.into()))
    }

    /// CEL's name of the type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Type(_) => "type",
        }
    }

    fn depth(&self) -> u8 {
        match self {
            Self::List(List::Made(_, depth)) | Self::Map(Map::Made(_, depth)) => *depth,
            _ => 0,
        }
    }

    /// A list of these elements, which have been counted.
    pub(super) fn list(elements: Vec<Value<'a>>) -> Result<Self, EvalError> {
        List::made(elements).map(Self::List)
    }

    /// A map of these entries. Of equal keys, the last one counts.
    pub(super) fn map(entries: Vec<(Value<'a>, Value<'a>)>, budget: &mut Budget) -> Result<Self, EvalError> {
        let mut unique: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            hashable(&key)?;
            let size = if let Value::String(text) = &key { text.len() } else { 0 };
            budget.read(unique.len().saturating_mul(size + size_of::<Value<'_>>()))?;
            match unique.iter_mut().find(|(other, _)| is_same_key(other, &key)) {
                Some(entry) => entry.1 = value,
                None => unique.push((key, value)),
            }
        }
        // Lists and maps are accepted as keys, too.
        let depth = nested(unique.iter().flat_map(|(key, value)| [key, value]))?;
        Ok(Self::Map(Map::Made(Rc::new(unique), depth)))
    }
}

fn nested<'v, 'a: 'v>(mut values: impl Iterator<Item = &'v Value<'a>>) -> Result<u8, EvalError> {
    let depth = values.try_fold(0, |depth: u8, value| {
        let depth = depth.max(value.depth());
        (depth < MAX_DEPTH).then_some(depth)
    });
    depth.map(|depth| depth + 1).ok_or(TOO_LARGE)
}

/// A JSON value. All its numbers are doubles, as in the real engine.
impl<'a> From<&'a Json> for Value<'a> {
    fn from(value: &'a Json) -> Self {
        match value {
            Json::Null => Self::Null,
            Json::Bool(flag) => Self::Bool(*flag),
            Json::Number(number) => Self::Double(number.as_f64().unwrap_or_default()),
            Json::String(text) => Self::String(Text::Borrowed(text)),
            Json::Array(elements) => Self::List(List::Json(elements)),
            Json::Object(fields) => Self::Map(Map::Json(fields)),
        }
    }
}

impl<'a> From<&'a Literal> for Value<'a> {
    fn from(literal: &'a Literal) -> Self {
        match literal {
            Literal::Null => Self::Null,
            Literal::Bool(flag) => Self::Bool(*flag),
            Literal::Int(number) => Self::Int(*number),
            Literal::Uint(number) => Self::Uint(*number),
            Literal::Double(number) => Self::Double(*number),
            Literal::String(text) => Self::String(Text::Borrowed(text)),
            Literal::Bytes(bytes) => Self::Bytes(bytes.as_slice().into()),
            Literal::Type(name) => Self::Type(name),
        }
    }
}

impl<'a> List<'a> {
    /// A list of these elements, which have been counted.
    pub(super) fn made(elements: Vec<Value<'a>>) -> Result<Self, EvalError> {
        let depth = nested(elements.iter())?;
        Ok(Self::Made(Rc::new(elements), depth))
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Json(elements) => elements.len(),
            Self::Made(elements, _) => elements.len(),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Self::Json(elements) => elements.get(index).map(Value::from),
            Self::Made(elements, _) => elements.get(index).cloned(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Value<'a>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

impl<'a> Map<'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Json(fields) => fields.len(),
            Self::Made(entries, _) => entries.len(),
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = Value<'a>> {
        let (fields, entries) = match self {
            Self::Json(fields) => (Some(fields.keys()), None),
            Self::Made(entries, _) => (None, Some(entries.iter())),
        };
        let fields = fields.into_iter().flatten().map(|key| Value::String(Text::Borrowed(key)));
        fields.chain(entries.into_iter().flatten().map(|(key, _)| key.clone()))
    }

    /// The value of a string key.
    pub(super) fn field(&self, name: &str, budget: &mut Budget) -> Result<Option<Value<'a>>, EvalError> {
        budget.read(name.len())?;
        match self {
            Self::Json(fields) => Ok(fields.get(name).map(Value::from)),
            Self::Made(entries, _) => {
                budget.read(entries.len().saturating_mul(name.len() + size_of::<Value<'_>>()))?;
                let is_name = |key: &Value<'_>| matches!(key, Value::String(text) if **text == *name);
                Ok(entries.iter().find(|(key, _)| is_name(key)).map(|(_, value)| value.clone()))
            }
        }
    }

    /// The value of a key. A number finds an equal number of another type.
    pub(super) fn find(&self, key: &Value<'_>, budget: &mut Budget) -> Result<Option<Value<'a>>, EvalError> {
        if let Value::String(name) = key {
            return self.field(name, budget);
        }
        let Self::Made(entries, _) = self else { return Ok(None) };
        if entries.is_empty() {
            return Ok(None);
        }
        hashable(key)?;
        let mut find = |key: &Value<'_>| {
            budget.read(entries.len() * size_of::<Value<'_>>())?;
            Ok(entries.iter().find(|(other, _)| is_same_key(other, key)).map(|(_, value)| value.clone()))
        };
        if let Some(found) = find(key)? {
            return Ok(Some(found));
        }
        let (int, uint) = match key {
            Value::Double(number) => (exact_int(*number), exact_uint(*number)),
            Value::Int(number) => (None, u64::try_from(*number).ok()),
            Value::Uint(number) => (i64::try_from(*number).ok(), None),
            _ => (None, None),
        };
        for other in [int.map(Value::Int), uint.map(Value::Uint)].into_iter().flatten() {
            if let Some(found) = find(&other)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// The engine's error for keys that it cannot hash.
fn hashable(key: &Value<'_>) -> Result<(), EvalError> {
    match key {
        Value::Bytes(_) => Err(EvalError::of("internal error: runtime error: hash of unhashable type types.Bytes")),
        _ => Ok(()),
    }
}

/// Whether both are the same key of a map: of the same type, and equal. Lists and maps are different from all others.
fn is_same_key(left: &Value<'_>, right: &Value<'_>) -> bool {
    match (left, right) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Int(left), Value::Int(right)) => left == right,
        (Value::Uint(left), Value::Uint(right)) => left == right,
        (Value::Double(left), Value::Double(right)) => left.partial_cmp(right) == Some(Ordering::Equal),
        (Value::String(left), Value::String(right)) => **left == **right,
        (Value::Type(left), Value::Type(right)) => left == right,
        _ => false,
    }
}

/// The integer that a double is equal to.
pub(super) fn exact_int(number: f64) -> Option<i64> {
    to_int(number).filter(|_| number.fract() == 0.0)
}

/// A double without its fraction, if that is an integer. The least one is not, as in cel-go.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the bounds are exact")]
pub(super) fn to_int(number: f64) -> Option<i64> {
    (number > i64::MIN as f64 && number < i64::MAX as f64).then_some(number as i64)
}

fn exact_uint(number: f64) -> Option<u64> {
    to_uint(number).filter(|_| number.fract() == 0.0)
}

/// A double without its fraction, if that is an unsigned integer.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "the bounds are exact"
)]
pub(super) fn to_uint(number: f64) -> Option<u64> {
    (number >= 0.0 && number < u64::MAX as f64).then_some(number as u64)
}
