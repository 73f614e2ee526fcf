//! Evaluation of expressions. `None` means that the evaluation fails.

use std::borrow::Cow;
use std::cmp::Ordering;

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

pub(super) fn eval<'a>(node: &'a Node, names: &Names<'a>) -> Option<Computed<'a>> {
    match node {
        Node::Literal(literal) => Some(match literal {
            Literal::Null => Computed::Null,
            Literal::Bool(flag) => Computed::Bool(*flag),
            Literal::Int(number) => Computed::Int(*number),
            Literal::Double(number) => Computed::Double(*number),
            Literal::String(text) => Computed::String(text.into()),
        }),
        Node::Path(path) => {
            let (name, fields) = path.split_first()?;
            let (_, root) = names.0.iter().find(|(other, _)| other == name)?;
            fields.iter().try_fold(*root, |value, field| value.as_object()?.get(field)).map(from_json)
        }
        // False for a value without fields. For a list, and for a missing value, the evaluation fails.
        Node::Has(of, field) => match eval(of, names)? {
            Computed::Other(Value::Object(fields)) => Some(Computed::Bool(fields.contains_key(field))),
            Computed::Other(_) => None,
            _ => Some(Computed::Bool(false)),
        },
        Node::Not(inner) => truth(inner, names).map(|flag| Computed::Bool(!flag)),
        // One operand can decide the result, even if others fail.
        Node::And(operands) => decide(operands, names, false),
        Node::Or(operands) => decide(operands, names, true),
        Node::Add(operands) => {
            let (first, others) = operands.split_first()?;
            others.iter().try_fold(eval(first, names)?, |sum, operand| add(sum, eval(operand, names)?))
        }
        Node::Compare(first, others) => others.iter().try_fold(eval(first, names)?, |left, (comparison, right)| {
            compare(*comparison, &left, &eval(right, names)?).map(Computed::Bool)
        }),
    }
}

fn add<'a>(left: Computed<'a>, right: Computed<'a>) -> Option<Computed<'a>> {
    match (left, right) {
        (Computed::String(left), Computed::String(right)) => {
            (left.len().saturating_add(right.len()) <= MAX_STRING_BYTES).then(|| Computed::String(left + right))
        }
        (Computed::Int(left), Computed::Int(right)) => left.checked_add(right).map(Computed::Int),
        (Computed::Double(left), Computed::Double(right)) => Some(Computed::Double(left + right)),
        _ => None,
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

fn truth<'a>(node: &'a Node, names: &Names<'a>) -> Option<bool> {
    match eval(node, names)? {
        Computed::Bool(flag) => Some(flag),
        _ => None,
    }
}

fn decide<'a>(operands: &'a [Node], names: &Names<'a>, enough: bool) -> Option<Computed<'a>> {
    let mut all_known = true;
    for operand in operands {
        match truth(operand, names) {
            Some(flag) if flag == enough => return Some(Computed::Bool(enough)),
            Some(_) => {}
            None => all_known = false,
        }
    }
    all_known.then_some(Computed::Bool(!enough))
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
