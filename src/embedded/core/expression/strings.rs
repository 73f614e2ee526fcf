//! The functions of strings in cel-go's extension. Positions and lengths are in characters.

use super::budget::{Budget, fits};
use super::error::EvalError;
use super::value::{List, Value};

type Evaluated<'a> = Result<Value<'a>, EvalError>;

fn out_of_range(index: i64) -> EvalError {
    EvalError::new(format!("index out of range: {index}"))
}

/// The byte at which a character begins. The end of the string is a position, too.
fn byte_at(text: &str, position: i64) -> Option<usize> {
    let position = usize::try_from(position).ok()?;
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(position)
}

/// The number of characters before a byte.
fn position_of(text: &str, byte: usize) -> i64 {
    text.get(..byte).map_or(0, |before| before.chars().count()).try_into().unwrap_or(i64::MAX)
}

pub(super) fn char_at<'a>(text: &str, position: i64) -> Evaluated<'a> {
    let at = byte_at(text, position).ok_or_else(|| out_of_range(position))?;
    let char = text.get(at..).and_then(|rest| rest.chars().next());
    Ok(Value::text(char.map_or_else(String::new, String::from)))
}

pub(super) fn index_of<'a>(text: &str, part: &str, from: i64) -> Evaluated<'a> {
    if from < 0 {
        return Err(out_of_range(from));
    }
    let start = byte_at(text, from).unwrap_or(text.len());
    let found = text.get(start..).and_then(|rest| rest.find(part));
    Ok(Value::Int(found.map_or(-1, |at| position_of(text, start + at))))
}

pub(super) fn last_index_of<'a>(text: &str, part: &str, from: Option<i64>) -> Evaluated<'a> {
    let Some(from) = from else {
        return Ok(Value::Int(text.rfind(part).map_or(-1, |at| position_of(text, at))));
    };
    if from < 0 {
        return Err(out_of_range(from));
    }
    let Some(last) = byte_at(text, from).filter(|at| *at < text.len()) else {
        let end = position_of(text, text.len());
        return Ok(Value::Int(if part.is_empty() { end } else { -1 }));
    };
    // A part that begins at the last position may end after it.
    let end = last.saturating_add(part.len()).min(text.len());
    let end = (0..=end).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    let found = text.get(..end).and_then(|before| before.rfind(part));
    Ok(Value::Int(found.map_or(-1, |at| position_of(text, at))))
}

pub(super) fn substring<'a>(text: &str, start: i64, end: Option<i64>, budget: &mut Budget) -> Evaluated<'a> {
    if let Some(end) = end.filter(|end| start > *end) {
        return Err(EvalError::new(format!("invalid substring range. start: {start}, end: {end}")));
    }
    let first = byte_at(text, start).ok_or_else(|| out_of_range(start))?;
    let last = match end {
        Some(end) => byte_at(text, end).ok_or_else(|| out_of_range(end))?,
        None => text.len(),
    };
    let found = text.get(first..last).unwrap_or_default();
    budget.make(found.len())?;
    Ok(Value::text(found))
}

/// Replaces the first occurrences: as many as the limit, and all of them if it is negative.
pub(super) fn replace<'a>(text: &str, old: &str, new: &str, limit: i64, budget: &mut Budget) -> Evaluated<'a> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let count = text.matches(old).count().min(limit);
    let grown = count.saturating_mul(new.len().saturating_sub(old.len()));
    budget.make(text.len().saturating_add(grown))?;
    Ok(Value::text(text.replacen(old, new, limit)))
}

/// The parts between separators, at most as many as the limit. No limit if it is negative.
pub(super) fn split<'a>(text: &str, separator: &str, limit: i64, budget: &mut Budget) -> Evaluated<'a> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let count = text.matches(separator).count().saturating_add(1).min(limit);
    budget.make(count.saturating_mul(size_of::<Value<'_>>()))?;
    budget.make(text.len())?;
    let parts: Vec<&str> = match limit {
        0 => Vec::new(),
        // Between all characters.
        _ if separator.is_empty() => {
            let mut parts = Vec::with_capacity(count);
            let mut rest = text;
            while let Some(char) = rest.chars().next() {
                let (part, others) = if parts.len() + 1 == limit { (rest, "") } else { rest.split_at(char.len_utf8()) };
                parts.push(part);
                rest = others;
            }
            parts
        }
        limit => text.splitn(limit, separator).collect(),
    };
    Value::list(parts.into_iter().map(Value::text).collect())
}

pub(super) fn join<'a>(elements: &List<'_>, separator: &str, budget: &mut Budget) -> Evaluated<'a> {
    let mut joined = String::new();
    for (index, element) in elements.iter().enumerate() {
        let Value::String(text) = &element else {
            return Err(EvalError::new(format!("join: invalid input: {}", shown(&element))));
        };
        let separator = if index == 0 { "" } else { separator };
        budget.make(separator.len() + text.len())?;
        joined.push_str(separator);
        joined.push_str(text);
        fits(joined.len())?;
    }
    Ok(Value::text(joined))
}

/// An element that is no string, as Go prints it.
fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Null => "0".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Double(number) => super::convert::double(*number),
        other => other.type_name().into(),
    }
}

/// In quotation marks, with escape sequences.
pub(super) fn quote<'a>(text: &str, budget: &mut Budget) -> Evaluated<'a> {
    budget.make(text.len().saturating_mul(2).saturating_add(2))?;
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for char in text.chars() {
        match char {
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            char => quoted.push(char),
        }
    }
    quoted.push('"');
    Ok(Value::text(quoted))
}
