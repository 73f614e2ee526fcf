//! The value of an expression. Nothing means that there is an error in it.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::{Comparison, Literal, Node};

/// The maximum size in bytes of a concatenated string: the maximum size of a message.
const MAX_TEXT: usize = 4 << 20;

/// What the names of an expression stand for.
pub(crate) struct Names<'a>(pub(crate) &'a [(&'a str, &'a Value)]);

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found<'a> {
    Null,
    Bool(bool),
    Whole(i64),
    Double(f64),
    Text(Cow<'a, str>),
    /// A list or a map.
    Other(&'a Value),
}

pub(super) fn eval<'a>(node: &'a Node, names: &Names<'a>) -> Option<Found<'a>> {
    match node {
        Node::Literal(literal) => Some(match literal {
            Literal::Null => Found::Null,
            Literal::Bool(flag) => Found::Bool(*flag),
            Literal::Whole(number) => Found::Whole(*number),
            Literal::Double(number) => Found::Double(*number),
            Literal::Text(text) => Found::Text(text.into()),
        }),
        Node::Path(path) => {
            let (name, fields) = path.split_first()?;
            let (_, root) = names.0.iter().find(|(other, _)| other == name)?;
            fields.iter().try_fold(*root, |value, field| value.as_object()?.get(field)).map(found)
        }
        // What has no fields at all does not have this one. A list is no such thing, and nor is what is not there.
        Node::Has(of, field) => match eval(of, names)? {
            Found::Other(Value::Object(fields)) => Some(Found::Bool(fields.contains_key(field))),
            Found::Other(_) => None,
            _ => Some(Found::Bool(false)),
        },
        Node::Not(inner) => truth(inner, names).map(|flag| Found::Bool(!flag)),
        // One operand can decide the result, even if others fail.
        Node::Both(operands) => decide(operands, names, false),
        Node::Either(operands) => decide(operands, names, true),
        Node::Sum(operands) => {
            let (first, others) = operands.split_first()?;
            others.iter().try_fold(eval(first, names)?, |sum, operand| add(sum, eval(operand, names)?))
        }
        Node::Compare(first, others) => others.iter().try_fold(eval(first, names)?, |left, (comparison, right)| {
            compare(*comparison, &left, &eval(right, names)?).map(Found::Bool)
        }),
    }
}

fn add<'a>(left: Found<'a>, right: Found<'a>) -> Option<Found<'a>> {
    match (left, right) {
        (Found::Text(left), Found::Text(right)) => {
            (left.len().saturating_add(right.len()) <= MAX_TEXT).then(|| Found::Text(left + right))
        }
        (Found::Whole(left), Found::Whole(right)) => left.checked_add(right).map(Found::Whole),
        (Found::Double(left), Found::Double(right)) => Some(Found::Double(left + right)),
        _ => None,
    }
}

fn compare(comparison: Comparison, left: &Found<'_>, right: &Found<'_>) -> Option<bool> {
    let order = order(left, right);
    Some(match comparison {
        Comparison::Equal => is_same(left, right),
        Comparison::Different => !is_same(left, right),
        Comparison::Less => order? == Ordering::Less,
        Comparison::LessOrEqual => order? != Ordering::Greater,
        Comparison::Greater => order? == Ordering::Greater,
        Comparison::GreaterOrEqual => order? != Ordering::Less,
    })
}

/// A value of JSON. Its numbers are all doubles, as the engine's are.
fn found(value: &Value) -> Found<'_> {
    match value {
        Value::Null => Found::Null,
        Value::Bool(flag) => Found::Bool(*flag),
        Value::Number(number) => Found::Double(number.as_f64().unwrap_or_default()),
        Value::String(text) => Found::Text(text.into()),
        Value::Array(_) | Value::Object(_) => Found::Other(value),
    }
}

fn truth<'a>(node: &'a Node, names: &Names<'a>) -> Option<bool> {
    match eval(node, names)? {
        Found::Bool(flag) => Some(flag),
        _ => None,
    }
}

fn decide<'a>(operands: &'a [Node], names: &Names<'a>, enough: bool) -> Option<Found<'a>> {
    let mut all_known = true;
    for operand in operands {
        match truth(operand, names) {
            Some(flag) if flag == enough => return Some(Found::Bool(enough)),
            Some(_) => {}
            None => all_known = false,
        }
    }
    all_known.then_some(Found::Bool(!enough))
}

fn is_same(left: &Found<'_>, right: &Found<'_>) -> bool {
    left == right || order(left, right) == Some(Ordering::Equal)
}

fn order(left: &Found<'_>, right: &Found<'_>) -> Option<Ordering> {
    match (left, right) {
        (Found::Text(left), Found::Text(right)) => Some(left.cmp(right)),
        (Found::Bool(left), Found::Bool(right)) => Some(left.cmp(right)),
        (Found::Whole(left), Found::Whole(right)) => Some(left.cmp(right)),
        (left, right) => double(left)?.partial_cmp(&double(right)?),
    }
}

fn double(found: &Found<'_>) -> Option<f64> {
    match found {
        #[expect(clippy::cast_precision_loss, reason = "as the engine compares them")]
        Found::Whole(number) => Some(*number as f64),
        Found::Double(number) => Some(*number),
        _ => None,
    }
}
