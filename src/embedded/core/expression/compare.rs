//! Equality and order of values. Numbers of different types are compared by their value.

use std::cmp::Ordering;

use super::budget::Budget;
use super::error::{EvalError, NO_OVERLOAD};
use super::value::{List, Map, Value};

/// Whether two values are equal. Values of different types are not, unless both are numbers.
pub(super) fn equal(left: &Value<'_>, right: &Value<'_>, budget: &mut Budget) -> Result<bool, EvalError> {
    budget.step()?;
    Ok(match (left, right) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::String(left), Value::String(right)) => {
            budget.read(left.len().min(right.len()))?;
            **left == **right
        }
        (Value::Bytes(left), Value::Bytes(right)) => {
            budget.read(left.len().min(right.len()))?;
            left == right
        }
        (Value::Type(left), Value::Type(right)) => left == right,
        (Value::List(left), Value::List(right)) => return lists_equal(left, right, budget),
        (Value::Map(left), Value::Map(right)) => return maps_equal(left, right, budget),
        (left, right) => numbers(left, right) == Ok(Ordering::Equal),
    })
}

fn lists_equal(left: &List<'_>, right: &List<'_>, budget: &mut Budget) -> Result<bool, EvalError> {
    if left.len() != right.len() {
        return Ok(false);
    }
    for (left, right) in left.iter().zip(right.iter()) {
        if !equal(&left, &right, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn maps_equal(left: &Map<'_>, right: &Map<'_>, budget: &mut Budget) -> Result<bool, EvalError> {
    if left.len() != right.len() {
        return Ok(false);
    }
    // The keys are not collected first: that would be work which the budget does not count.
    for key in left.keys() {
        budget.step()?;
        let (Some(left), Some(right)) = (left.find(&key, budget)?, right.find(&key, budget)?) else {
            return Ok(false);
        };
        if !equal(&left, &right, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The order of two values that have one.
pub(super) fn order(left: &Value<'_>, right: &Value<'_>, budget: &mut Budget) -> Result<Ordering, EvalError> {
    match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => Ok(left.cmp(right)),
        (Value::String(left), Value::String(right)) => {
            budget.read(left.len().min(right.len()))?;
            Ok((**left).cmp(&**right))
        }
        (Value::Bytes(left), Value::Bytes(right)) => {
            budget.read(left.len().min(right.len()))?;
            Ok(left.cmp(right))
        }
        (Value::Double(number), _) if number.is_nan() => Err(NAN),
        (left, right) => numbers(left, right),
    }
}

const NAN: EvalError = EvalError::of("NaN values cannot be ordered");

/// The order of two numbers.
#[expect(clippy::cast_precision_loss, reason = "as the engine compares them")]
fn numbers(left: &Value<'_>, right: &Value<'_>) -> Result<Ordering, EvalError> {
    const INT_MAX: f64 = i64::MAX as f64;
    const INT_MIN: f64 = i64::MIN as f64;
    let to_signed = |double: f64, int: i64| match double {
        double if double < INT_MIN => Some(Ordering::Less),
        double if double > INT_MAX => Some(Ordering::Greater),
        double => double.partial_cmp(&(int as f64)),
    };
    let to_unsigned = |double: f64, uint: u64| match double {
        double if double < 0.0 => Some(Ordering::Less),
        double => double.partial_cmp(&(uint as f64)),
    };
    let mixed = |int: i64, uint: u64| u64::try_from(int).map_or(Ordering::Less, |int| int.cmp(&uint));
    let order = match (left, right) {
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
        (Value::Uint(left), Value::Uint(right)) => Some(left.cmp(right)),
        (Value::Double(left), Value::Double(right)) => left.partial_cmp(right),
        (Value::Int(left), Value::Uint(right)) => Some(mixed(*left, *right)),
        (Value::Uint(left), Value::Int(right)) => Some(mixed(*right, *left).reverse()),
        (Value::Double(left), Value::Int(right)) => to_signed(*left, *right),
        (Value::Int(left), Value::Double(right)) => to_signed(*right, *left).map(Ordering::reverse),
        (Value::Double(left), Value::Uint(right)) => to_unsigned(*left, *right),
        (Value::Uint(left), Value::Double(right)) => to_unsigned(*right, *left).map(Ordering::reverse),
        _ => return Err(NO_OVERLOAD),
    };
    order.ok_or(NAN)
}
