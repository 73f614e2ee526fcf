//! Evaluation of expressions.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use serde_json::Value;

use super::ast::{Comparison, Literal, Node};

/// The maximum size in bytes of a concatenated string: the maximum size of a message.
const MAX_STRING_BYTES: usize = 4 << 20;

/// The values of the names in an expression.
pub(crate) struct Names<'a>(pub(crate) &'a [(&'a str, &'a Value)]);

/// The value of a node.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Computed<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    String(Cow<'a, str>),
    /// A list or a map.
    Other(&'a Value),
}

/// Why an evaluation fails, in the words of CEL's implementation in Go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EvalError {
    /// A name is declared, but has no value.
    NoValue(String),
    NoKey(String),
    /// A list has no fields.
    NotInList,
    /// No such operation on values of these types.
    NoOverload,
    /// A number or a string is too large.
    TooLarge,
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoValue(name) => write!(f, "no such attribute(s): {name}"),
            Self::NoKey(key) => write!(f, "no such key: {key}"),
            Self::NotInList => f.write_str("unsupported index type 'string' in list"),
            Self::NoOverload => f.write_str("no such overload"),
            Self::TooLarge => f.write_str("integer overflow"),
        }
    }
}

type Evaluated<'a> = Result<Computed<'a>, EvalError>;

impl Computed<'_> {
    /// CEL's name of the type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Other(Value::Array(_)) => "list",
            Self::Other(_) => "map",
        }
    }
}

pub(super) fn eval<'a>(node: &'a Node, names: &Names<'a>) -> Evaluated<'a> {
    match node {
        Node::Literal(literal) => Ok(match literal {
            Literal::Null => Computed::Null,
            Literal::Bool(flag) => Computed::Bool(*flag),
            Literal::Int(number) => Computed::Int(*number),
            Literal::Double(number) => Computed::Double(*number),
            Literal::String(text) => Computed::String(text.into()),
        }),
        Node::Path(path) => {
            let Some((name, fields)) = path.split_first() else { return Err(EvalError::NoOverload) };
            let root = names.0.iter().find(|(other, _)| other == name);
            let (_, root) = root.ok_or_else(|| EvalError::NoValue(name.clone()))?;
            let get = |value: &'a Value, field: &'a String| match value {
                Value::Array(_) => Err(EvalError::NotInList),
                value => value.get(field).ok_or_else(|| EvalError::NoKey(field.clone())),
            };
            fields.iter().try_fold(*root, get).map(from_json)
        }
        // False for a value without fields. For a list, and for a missing value, the evaluation fails.
        Node::Has(of, field) => match eval(of, names)? {
            Computed::Other(Value::Object(fields)) => Ok(Computed::Bool(fields.contains_key(field))),
            Computed::Other(_) => Err(EvalError::NotInList),
            _ => Ok(Computed::Bool(false)),
        },
        Node::Not(inner) => truth(inner, names).map(|flag| Computed::Bool(!flag)),
        // One operand can decide the result, even if others fail.
        Node::And(operands) => decide(operands, names, false),
        Node::Or(operands) => decide(operands, names, true),
        Node::Add(operands) => {
            let Some((first, others)) = operands.split_first() else { return Err(EvalError::NoOverload) };
            others.iter().try_fold(eval(first, names)?, |sum, operand| add(sum, eval(operand, names)?))
        }
        Node::Compare(first, others) => others.iter().try_fold(eval(first, names)?, |left, (comparison, right)| {
            compare(*comparison, &left, &eval(right, names)?).map(Computed::Bool).ok_or(EvalError::NoOverload)
        }),
        Node::Conditional(nodes) => {
            let [condition, then, otherwise] = &**nodes;
            eval(if truth(condition, names)? { then } else { otherwise }, names)
        }
    }
}

fn add<'a>(left: Computed<'a>, right: Computed<'a>) -> Evaluated<'a> {
    match (left, right) {
        (Computed::String(left), Computed::String(right)) => {
            if left.len().saturating_add(right.len()) > MAX_STRING_BYTES {
                return Err(EvalError::TooLarge);
            }
            Ok(Computed::String(left + right))
        }
        (Computed::Int(left), Computed::Int(right)) => {
            left.checked_add(right).map(Computed::Int).ok_or(EvalError::TooLarge)
        }
        (Computed::Double(left), Computed::Double(right)) => Ok(Computed::Double(left + right)),
        _ => Err(EvalError::NoOverload),
    }
}

fn compare(comparison: Comparison, left: &Computed<'_>, right: &Computed<'_>) -> Option<bool> {
    let order = order(left, right);
    Some(match comparison {
        Comparison::Equal => is_same(left, right),
        Comparison::NotEqual => !is_same(left, right),
        Comparison::Less => order? == Ordering::Less,
        Comparison::LessOrEqual => order? != Ordering::Greater,
        Comparison::Greater => order? == Ordering::Greater,
        Comparison::GreaterOrEqual => order? != Ordering::Less,
    })
}

/// A JSON value. All its numbers are doubles, as in the real engine.
fn from_json(value: &Value) -> Computed<'_> {
    match value {
        Value::Null => Computed::Null,
        Value::Bool(flag) => Computed::Bool(*flag),
        Value::Number(number) => Computed::Double(number.as_f64().unwrap_or_default()),
        Value::String(text) => Computed::String(text.into()),
        Value::Array(_) | Value::Object(_) => Computed::Other(value),
    }
}

fn truth<'a>(node: &'a Node, names: &Names<'a>) -> Result<bool, EvalError> {
    match eval(node, names)? {
        Computed::Bool(flag) => Ok(flag),
        _ => Err(EvalError::NoOverload),
    }
}

fn decide<'a>(operands: &'a [Node], names: &Names<'a>, enough: bool) -> Evaluated<'a> {
    let mut error = None;
    for operand in operands {
        match truth(operand, names) {
            Ok(flag) if flag == enough => return Ok(Computed::Bool(enough)),
            Ok(_) => {}
            Err(failed) => error = error.or(Some(failed)),
        }
    }
    error.map_or(Ok(Computed::Bool(!enough)), Err)
}

fn is_same(left: &Computed<'_>, right: &Computed<'_>) -> bool {
    left == right || order(left, right) == Some(Ordering::Equal)
}

fn order(left: &Computed<'_>, right: &Computed<'_>) -> Option<Ordering> {
    match (left, right) {
        (Computed::String(left), Computed::String(right)) => Some(left.cmp(right)),
        (Computed::Bool(left), Computed::Bool(right)) => Some(left.cmp(right)),
        (Computed::Int(left), Computed::Int(right)) => Some(left.cmp(right)),
        (left, right) => double(left)?.partial_cmp(&double(right)?),
    }
}

fn double(found: &Computed<'_>) -> Option<f64> {
    match found {
        #[expect(clippy::cast_precision_loss, reason = "as the engine compares them")]
        Computed::Int(number) => Some(*number as f64),
        Computed::Double(number) => Some(*number),
        _ => None,
    }
}
