//! The functions that expressions can call.

use super::ast::Function;
use super::budget::Budget;
use super::checksum::checksum;
use super::convert;
use super::error::{EvalError, NO_OVERLOAD};
use super::strings;
use super::value::Value;

/// Calls a function. The first argument of a method is the value whose method it is.
pub(super) fn call<'a>(
    function: Function,
    arguments: &[Value<'a>],
    budget: &mut Budget,
) -> Result<Value<'a>, EvalError> {
    for argument in arguments {
        budget.read(match argument {
            Value::String(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            _ => 0,
        })?;
    }
    let [first, others @ ..] = arguments else { return Err(NO_OVERLOAD) };
    let result = match function {
        Function::Size => size(first).map(Value::Int),
        Function::Type => Some(Value::Type(first.type_name())),
        Function::Dyn => Some(first.clone()),
        Function::Bool => convert::to_bool(first)?,
        Function::Bytes => convert::to_bytes(first, budget)?,
        Function::Double => convert::to_double(first)?,
        Function::Int => convert::int(first)?,
        Function::String => convert::to_string(first, budget)?,
        Function::Uint => convert::uint(first)?,
        Function::Contains | Function::StartsWith | Function::EndsWith => {
            return search(function, first, others).map(Value::Bool).ok_or(NO_OVERLOAD);
        }
        Function::Join => joined(first, others, budget).transpose()?,
        Function::MissingChecksum => None,
        _ => of_string(function, first, others, budget).transpose()?,
    };
    result.ok_or_else(|| no_overload(function, arguments))
}

/// The error of a function that does not accept values of these types.
fn no_overload(function: Function, arguments: &[Value<'_>]) -> EvalError {
    match (function, arguments) {
        (Function::Size, _) => EvalError::new(format!("{NO_OVERLOAD}: size")),
        (Function::MissingChecksum, [Value::String(_), ..]) => NO_OVERLOAD,
        (Function::MissingChecksum, _) => EvalError::new(format!("{NO_OVERLOAD}: checksum")),
        _ => {
            let types: Vec<_> = arguments.iter().map(Value::type_name).collect();
            EvalError::new(format!("{NO_OVERLOAD}: {}({})", function.name(), types.join(", ")))
        }
    }
}

fn size(value: &Value<'_>) -> Option<i64> {
    let size = match value {
        Value::String(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(elements) => elements.len(),
        Value::Map(entries) => entries.len(),
        _ => return None,
    };
    i64::try_from(size).ok()
}

fn search(function: Function, text: &Value<'_>, others: &[Value<'_>]) -> Option<bool> {
    let (Value::String(text), [Value::String(part)]) = (text, others) else { return None };
    Some(match function {
        Function::StartsWith => text.starts_with(&**part),
        Function::EndsWith => text.ends_with(&**part),
        _ => text.contains(&**part),
    })
}

/// Only the first element decides whether the engine takes a list for one of strings.
fn joined<'a>(list: &Value<'a>, others: &[Value<'a>], budget: &mut Budget) -> Option<Result<Value<'a>, EvalError>> {
    let Value::List(elements) = list else { return None };
    let separator = match others {
        [] => "",
        [Value::String(separator)] => separator,
        _ => return None,
    };
    if !matches!(elements.get(0), None | Some(Value::String(_))) {
        return None;
    }
    Some(strings::join(elements, separator, budget))
}

fn of_string<'a>(
    function: Function,
    text: &Value<'a>,
    others: &[Value<'a>],
    budget: &mut Budget,
) -> Option<Result<Value<'a>, EvalError>> {
    let Value::String(text) = text else { return None };
    let make =
        |budget: &mut Budget, make: fn(&str) -> String| budget.make(text.len()).map(|()| Value::text(make(text)));
    Some(match (function, others) {
        (Function::LowerAscii, []) => make(budget, str::to_ascii_lowercase),
        (Function::UpperAscii, []) => make(budget, str::to_ascii_uppercase),
        (Function::Trim, []) => make(budget, |text| text.trim().to_owned()),
        (Function::Reverse, []) => make(budget, |text| text.chars().rev().collect()),
        (Function::Checksum, []) => make(budget, |text| checksum(text.as_bytes())),
        (Function::Quote, []) => strings::quote(text, budget),
        (Function::CharAt, [Value::Int(position)]) => strings::char_at(text, *position),
        (Function::IndexOf, [Value::String(part)]) => strings::index_of(text, part, 0),
        (Function::IndexOf, [Value::String(part), Value::Int(from)]) => strings::index_of(text, part, *from),
        (Function::LastIndexOf, [Value::String(part)]) => strings::last_index_of(text, part, None),
        (Function::LastIndexOf, [Value::String(part), Value::Int(from)]) => {
            strings::last_index_of(text, part, Some(*from))
        }
        (Function::Substring, [Value::Int(start)]) => strings::substring(text, *start, None, budget),
        (Function::Substring, [Value::Int(start), Value::Int(end)]) => {
            strings::substring(text, *start, Some(*end), budget)
        }
        (Function::Replace, [Value::String(old), Value::String(new)]) => strings::replace(text, old, new, -1, budget),
        (Function::Replace, [Value::String(old), Value::String(new), Value::Int(limit)]) => {
            strings::replace(text, old, new, *limit, budget)
        }
        (Function::Split, [Value::String(separator)]) => strings::split(text, separator, -1, budget),
        (Function::Split, [Value::String(separator), Value::Int(limit)]) => {
            strings::split(text, separator, *limit, budget)
        }
        _ => return None,
    })
}
