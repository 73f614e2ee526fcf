//! Conversions between types.

use std::borrow::Cow;

use super::budget::Budget;
use super::error::{EvalError, INT_OVERFLOW, UINT_OVERFLOW};
use super::value::{Value, to_int, to_uint};

type Converted<'a> = Result<Option<Value<'a>>, EvalError>;

/// A double as Go prints it with `%g`: the least digits, with an exponent if that is less than -4 or at least 6.
pub(super) fn double(number: f64) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse().unwrap_or(0) {
        -4..=5 => format!("{number}"),
        exponent @ ..0 => format!("{digits}e-{:02}", -exponent),
        exponent => format!("{digits}e+{exponent:02}"),
    }
}

/// The value of a type. `None` if the type is not made of values of this one.
pub(super) fn to_string<'a>(value: &Value<'a>, budget: &mut Budget) -> Converted<'a> {
    Ok(Some(match value {
        Value::String(_) => value.clone(),
        Value::Bool(flag) => Value::text(flag.to_string()),
        Value::Int(number) => Value::text(number.to_string()),
        Value::Uint(number) => Value::text(number.to_string()),
        Value::Double(number) => Value::text(double(*number)),
        Value::Bytes(bytes) => {
            const INVALID: EvalError = EvalError::of("invalid UTF-8 in bytes, cannot convert to string");
            budget.make(bytes.len())?;
            Value::text(str::from_utf8(bytes).map_err(|_| INVALID)?)
        }
        _ => return Ok(None),
    }))
}

pub(super) fn to_bytes<'a>(value: &Value<'a>, budget: &mut Budget) -> Converted<'a> {
    Ok(Some(match value {
        Value::Bytes(_) => value.clone(),
        Value::String(text) => {
            budget.make(text.len())?;
            Value::Bytes(text.as_bytes().into())
        }
        _ => return Ok(None),
    }))
}

pub(super) fn to_bool<'a>(value: &Value<'a>) -> Converted<'a> {
    match value {
        Value::Bool(_) => Ok(Some(value.clone())),
        Value::String(text) => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(Value::Bool(true))),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(Value::Bool(false))),
            _ => Err(not_a("bool")),
        },
        _ => Ok(None),
    }
}

pub(super) fn int<'a>(value: &Value<'a>) -> Converted<'a> {
    Ok(Some(Value::Int(match value {
        Value::Int(number) => *number,
        Value::Uint(number) => i64::try_from(*number).map_err(|_| INT_OVERFLOW)?,
        Value::Double(number) => to_int(*number).ok_or(INT_OVERFLOW)?,
        Value::String(text) => text.parse().map_err(|_| not_a("int"))?,
        _ => return Ok(None),
    })))
}

pub(super) fn uint<'a>(value: &Value<'a>) -> Converted<'a> {
    Ok(Some(Value::Uint(match value {
        Value::Uint(number) => *number,
        Value::Int(number) => u64::try_from(*number).map_err(|_| UINT_OVERFLOW)?,
        Value::Double(number) => to_uint(*number).ok_or(UINT_OVERFLOW)?,
        // A sign is not part of an unsigned integer.
        Value::String(text) if text.starts_with('+') => return Err(not_a("uint")),
        Value::String(text) => text.parse().map_err(|_| not_a("uint"))?,
        _ => return Ok(None),
    })))
}

#[expect(clippy::cast_precision_loss, reason = "as the engine converts it")]
pub(super) fn to_double<'a>(value: &Value<'a>) -> Converted<'a> {
    Ok(Some(Value::Double(match value {
        Value::Double(number) => *number,
        Value::Int(number) => *number as f64,
        Value::Uint(number) => *number as f64,
        Value::String(text) => {
            let number: f64 = without_underscores(text).parse().map_err(|_| not_a("double"))?;
            let has_digits = text.contains(|c: char| c.is_ascii_digit());
            let has_sign = text.starts_with(['+', '-']);
            // A number that is too large is not infinite, but an error, and what is not a number has no sign.
            if (number.is_infinite() && has_digits) || (number.is_nan() && has_sign) {
                return Err(not_a("double"));
            }
            number
        }
        _ => return Ok(None),
    })))
}

/// The text of a number without underscores, which may be between two digits.
fn without_underscores(text: &str) -> Cow<'_, str> {
    let parts: Vec<_> = text.split('_').collect();
    let is_digit = |c: char| c.is_ascii_digit();
    let is_between =
        |pair: &[&str]| matches!(pair, [left, right] if left.ends_with(is_digit) && right.starts_with(is_digit));
    if parts.len() > 1 && parts.windows(2).all(is_between) { parts.concat().into() } else { text.into() }
}

fn not_a(kind: &str) -> EvalError {
    EvalError::new(format!("type conversion error from 'string' to '{kind}'"))
}
