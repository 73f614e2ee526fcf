//! The operators with two operands.

use std::cmp::Ordering;
use std::rc::Rc;

use super::ast::Operator;
use super::budget::Budget;
use super::compare::{equal, order};
use super::error::{EvalError, INT_OVERFLOW, NO_OVERLOAD, UINT_OVERFLOW};
use super::value::{List, Map, Value};

type Evaluated<'a> = Result<Value<'a>, EvalError>;

const DIVISION_BY_ZERO: EvalError = EvalError::of("division by zero");
const MODULUS_BY_ZERO: EvalError = EvalError::of("modulus by zero");

pub(super) fn binary<'a>(
    operator: Operator,
    left: &Value<'a>,
    right: &Value<'a>,
    budget: &mut Budget,
) -> Evaluated<'a> {
    let is = match operator {
        Operator::Equal => equal(left, right, budget)?,
        Operator::NotEqual => !equal(left, right, budget)?,
        Operator::In => contains(right, left, budget)?,
        Operator::Less => compare(operator, left, right, budget)? == Ordering::Less,
        Operator::LessOrEqual => compare(operator, left, right, budget)? != Ordering::Greater,
        Operator::Greater => compare(operator, left, right, budget)? == Ordering::Greater,
        Operator::GreaterOrEqual => compare(operator, left, right, budget)? != Ordering::Less,
        Operator::Add => return add(left, right, budget),
        Operator::Subtract | Operator::Multiply | Operator::Divide | Operator::Modulo => {
            return calculate(operator, left, right);
        }
    };
    Ok(Value::Bool(is))
}

/// The error of an operator whose left operand has a type without that operator, or whose right operand has another type.
fn no_overload(operator: Operator, left: &Value<'_>) -> EvalError {
    let is_known = match (operator, left) {
        // With a string on the left, the error never names the operator, not even one that strings do not have.
        (_, Value::String(_)) | (Operator::Add, Value::List(_) | Value::Bytes(_)) => true,
        (Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual, left) => {
            !matches!(left, Value::Null | Value::List(_) | Value::Map(_) | Value::Type(_))
        }
        (Operator::Modulo, left) => matches!(left, Value::Int(_) | Value::Uint(_)),
        (_, left) => matches!(left, Value::Int(_) | Value::Uint(_) | Value::Double(_)),
    };
    if is_known { NO_OVERLOAD } else { EvalError::new(format!("{NO_OVERLOAD}: {}", operator.name())) }
}

fn compare(
    operator: Operator,
    left: &Value<'_>,
    right: &Value<'_>,
    budget: &mut Budget,
) -> Result<Ordering, EvalError> {
    order(left, right, budget).map_err(|error| if error == NO_OVERLOAD { no_overload(operator, left) } else { error })
}

fn contains(of: &Value<'_>, value: &Value<'_>, budget: &mut Budget) -> Result<bool, EvalError> {
    match of {
        Value::List(elements) => {
            for element in elements.iter() {
                if equal(value, &element, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Map(map) => Ok(map.find(value, budget)?.is_some()),
        _ => Err(NO_OVERLOAD),
    }
}

fn add<'a>(left: &Value<'a>, right: &Value<'a>, budget: &mut Budget) -> Evaluated<'a> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => {
            budget.make(left.len().saturating_add(right.len()))?;
            Ok(Value::text([&**left, &**right].concat()))
        }
        (Value::Bytes(left), Value::Bytes(right)) => {
            budget.make(left.len().saturating_add(right.len()))?;
            Ok(Value::Bytes([&**left, &**right].concat().into()))
        }
        (Value::List(left), Value::List(right)) => {
            let size = left.len().saturating_add(right.len());
            budget.make(size.saturating_mul(size_of::<Value<'_>>()))?;
            Value::list(left.iter().chain(right.iter()).collect())
        }
        (left, right) => calculate(Operator::Add, left, right),
    }
}

fn calculate<'a>(operator: Operator, left: &Value<'a>, right: &Value<'a>) -> Evaluated<'a> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => int(operator, *left, *right).map(Value::Int),
        (Value::Uint(left), Value::Uint(right)) => uint(operator, *left, *right).map(Value::Uint),
        (Value::Double(left), Value::Double(right)) if operator != Operator::Modulo => {
            Ok(Value::Double(match operator {
                Operator::Add => left + right,
                Operator::Subtract => left - right,
                Operator::Multiply => left * right,
                _ => left / right,
            }))
        }
        _ => Err(no_overload(operator, left)),
    }
}

fn int(operator: Operator, left: i64, right: i64) -> Result<i64, EvalError> {
    let result = match operator {
        Operator::Add => left.checked_add(right),
        Operator::Subtract => left.checked_sub(right),
        Operator::Multiply => left.checked_mul(right),
        Operator::Divide if right == 0 => return Err(DIVISION_BY_ZERO),
        Operator::Divide => left.checked_div(right),
        _ if right == 0 => return Err(MODULUS_BY_ZERO),
        _ => left.checked_rem(right),
    };
    result.ok_or(INT_OVERFLOW)
}

fn uint(operator: Operator, left: u64, right: u64) -> Result<u64, EvalError> {
    let result = match operator {
        Operator::Add => left.checked_add(right),
        Operator::Subtract => left.checked_sub(right),
        Operator::Multiply => left.checked_mul(right),
        Operator::Divide => return left.checked_div(right).ok_or(DIVISION_BY_ZERO),
        _ => return left.checked_rem(right).ok_or(MODULUS_BY_ZERO),
    };
    result.ok_or(UINT_OVERFLOW)
}

pub(super) fn not<'a>(value: &Value<'a>) -> Evaluated<'a> {
    match value {
        Value::Bool(flag) => Ok(Value::Bool(!flag)),
        _ => Err(NO_OVERLOAD),
    }
}

pub(super) fn negate<'a>(value: &Value<'a>) -> Evaluated<'a> {
    match value {
        Value::Int(number) => number.checked_neg().map(Value::Int).ok_or(INT_OVERFLOW),
        Value::Double(number) => Ok(Value::Double(-number)),
        Value::Bool(_) | Value::String(_) => Err(NO_OVERLOAD),
        _ => Err(EvalError::new(format!("{NO_OVERLOAD}: -_"))),
    }
}

/// The element of a list, or the value of a key of a map. For its error, the engine distinguishes keys that it found in JSON from others.
pub(super) fn index<'a>(of: &Value<'a>, key: &Value<'a>, is_json: bool, budget: &mut Budget) -> Evaluated<'a> {
    budget.read(if let Value::String(text) = key { text.len() } else { 0 })?;
    let missing_key = |key: &str| EvalError::new(format!("no such key: {key}"));
    let Some(shown) = shown(key) else {
        let kind = match key {
            Value::Null if is_json => "<nil>",
            Value::Null => "types.Null",
            Value::Bytes(_) => "types.Bytes",
            Value::Map(Map::Json(_)) if is_json => "map[string]interface {}",
            Value::Map(_) => "*types.baseMap",
            Value::List(List::Json(_)) if is_json => "[]interface {}",
            Value::List(_) => "*types.baseList",
            _ => "*types.Type",
        };
        return Err(EvalError::new(format!("invalid qualifier type: {kind}")));
    };
    match of {
        Value::List(elements) => {
            let position = match key {
                Value::Int(index) => Some(*index),
                Value::Double(index) => super::value::exact_int(*index),
                Value::Uint(index) => i64::try_from(*index).ok(),
                key => {
                    return Err(EvalError::new(format!("unsupported index type '{}' in list", key.type_name())));
                }
            };
            let Some(position) = position else {
                return Err(EvalError::new(format!("unsupported index value {shown} in list")));
            };
            let element = usize::try_from(position).ok().and_then(|position| elements.get(position));
            element.ok_or_else(|| EvalError::new(format!("index out of bounds: {shown}")))
        }
        Value::Map(map) => map.find(key, budget)?.ok_or_else(|| missing_key(&shown)),
        _ => Err(missing_key(&shown)),
    }
}

/// A key as it is shown in errors. `None` if its type cannot be that of a key.
fn shown(key: &Value<'_>) -> Option<Rc<str>> {
    Some(match key {
        Value::Bool(flag) => flag.to_string().into(),
        Value::Int(number) => number.to_string().into(),
        Value::Uint(number) => number.to_string().into(),
        Value::Double(number) => super::convert::double(*number).into(),
        Value::String(text) => (**text).into(),
        _ => return None,
    })
}
