//! From the syntax of CEL to what can be evaluated, which is a subset of it.

use std::mem::discriminant;

use super::ast::{Comparison, Literal, Node, ParseError};
use crate::model::cel::{self, Access, BinaryOperator, Problem, UnaryOperator};

/// A function that the engine adds to CEL. It is declared like a name where it may be called.
const CHECKSUM: &str = "checksum()";

/// Parses an expression that may use these names.
pub(super) fn parse(text: &str, names: &[&str]) -> Result<Node, ParseError> {
    match cel::parse(text) {
        Ok(node) => lower(node, names),
        Err(Problem::Syntax(_)) => Err(ParseError::Invalid),
        Err(Problem::TooLarge) => Err(ParseError::Unsupported),
    }
}

fn lower(node: cel::Node, names: &[&str]) -> Result<Node, ParseError> {
    match node {
        cel::Node::Literal(literal) => Ok(Node::Literal(self::literal(literal, false)?)),
        cel::Node::Name(name) => path(name, Vec::new(), names),
        cel::Node::Member(of, accesses) => member(*of, accesses, names),
        cel::Node::Call(name, arguments) => call(&name, arguments, names),
        cel::Node::Unary(UnaryOperator::Not, operand) => Ok(Node::Not(Box::new(lower(*operand, names)?))),
        cel::Node::Unary(UnaryOperator::Minus, operand) => negated(*operand, names),
        cel::Node::Binary(first, others) => binary(*first, others, names),
        cel::Node::Conditional(nodes) => conditional(*nodes, names),
        cel::Node::List(_) | cel::Node::Fields(_) => Err(ParseError::Unsupported),
    }
}

fn literal(literal: cel::Literal, is_negated: bool) -> Result<Literal, ParseError> {
    Ok(match literal {
        cel::Literal::Null => Literal::Null,
        cel::Literal::Bool(value) => Literal::Bool(value),
        cel::Literal::String(text) => Literal::String(text),
        cel::Literal::Int(number) if is_negated => {
            Literal::Int(0_i64.checked_sub_unsigned(number).ok_or(ParseError::Invalid)?)
        }
        cel::Literal::Int(number) => Literal::Int(number.try_into().map_err(|_| ParseError::Invalid)?),
        cel::Literal::Double(number) => Literal::Double(if is_negated { -number } else { number }),
        cel::Literal::Unsigned | cel::Literal::Bytes => return Err(ParseError::Unsupported),
    })
}

/// The engine checks that the condition can be a boolean, and that the values can have one type. Here, the values are literals of one type, or
/// fields, whose types it does not know.
fn conditional(nodes: [cel::Node; 3], names: &[&str]) -> Result<Node, ParseError> {
    let [condition, then, otherwise] = nodes;
    let nodes = [lower(condition, names)?, lower(then, names)?, lower(otherwise, names)?];
    let can_be_condition = !matches!(nodes[0], Node::Literal(_) | Node::Add(_) | Node::Conditional(_));
    let have_one_type = match (&nodes[1], &nodes[2]) {
        (Node::Literal(then), Node::Literal(otherwise)) => discriminant(then) == discriminant(otherwise),
        (Node::Literal(_) | Node::Path(_), Node::Literal(_) | Node::Path(_)) => true,
        _ => false,
    };
    if !can_be_condition || !have_one_type {
        return Err(ParseError::Unsupported);
    }
    Ok(Node::Conditional(Box::new(nodes)))
}

/// A sign is part of a number: the most negative integer has no positive one.
fn negated(operand: cel::Node, names: &[&str]) -> Result<Node, ParseError> {
    match operand {
        cel::Node::Literal(number @ (cel::Literal::Int(_) | cel::Literal::Double(_))) => {
            Ok(Node::Literal(literal(number, true)?))
        }
        cel::Node::Unary(UnaryOperator::Minus, operand) => match negated(*operand, names)? {
            Node::Literal(Literal::Int(number)) => {
                Ok(Node::Literal(Literal::Int(number.checked_neg().ok_or(ParseError::Unsupported)?)))
            }
            Node::Literal(Literal::Double(number)) => Ok(Node::Literal(Literal::Double(-number))),
            _ => Err(ParseError::Unsupported),
        },
        other => {
            lower(other, names)?;
            Err(ParseError::Unsupported)
        }
    }
}

fn binary(first: cel::Node, others: Vec<(BinaryOperator, cel::Node)>, names: &[&str]) -> Result<Node, ParseError> {
    let mut operators = Vec::with_capacity(others.len());
    let mut operands = Vec::with_capacity(others.len() + 1);
    operands.push(lower(first, names)?);
    for (operator, operand) in others {
        operators.push(operator);
        operands.push(lower(operand, names)?);
    }
    let all = |operator| operators.iter().all(|other| *other == operator);
    if all(BinaryOperator::Or) {
        return Ok(Node::Or(operands));
    }
    if all(BinaryOperator::And) {
        return Ok(Node::And(operands));
    }
    if all(BinaryOperator::Plus) {
        return Ok(Node::Add(operands));
    }
    let comparisons =
        operators.into_iter().map(comparison).collect::<Option<Vec<_>>>().ok_or(ParseError::Unsupported)?;
    let mut operands = operands.into_iter();
    let first = operands.next().ok_or(ParseError::Invalid)?;
    Ok(Node::Compare(Box::new(first), comparisons.into_iter().zip(operands).collect()))
}

fn comparison(operator: BinaryOperator) -> Option<Comparison> {
    match operator {
        BinaryOperator::Equal => Some(Comparison::Equal),
        BinaryOperator::NotEqual => Some(Comparison::NotEqual),
        BinaryOperator::Less => Some(Comparison::Less),
        BinaryOperator::LessOrEqual => Some(Comparison::LessOrEqual),
        BinaryOperator::Greater => Some(Comparison::Greater),
        BinaryOperator::GreaterOrEqual => Some(Comparison::GreaterOrEqual),
        BinaryOperator::Or
        | BinaryOperator::And
        | BinaryOperator::In
        | BinaryOperator::Plus
        | BinaryOperator::Minus
        | BinaryOperator::Times
        | BinaryOperator::Divide
        | BinaryOperator::Modulo => None,
    }
}

/// Fields of a name are a path. Fields of another value, methods and indexes are not supported.
fn member(of: cel::Node, accesses: Vec<Access>, names: &[&str]) -> Result<Node, ParseError> {
    let are_fields = accesses.iter().all(|access| matches!(access, Access::Field(_)));
    let fields = accesses.into_iter().filter_map(|access| match access {
        Access::Field(name) => Some(name),
        _ => None,
    });
    match of {
        cel::Node::Name(name) if are_fields => path(name, fields.collect(), names),
        // A boolean has no fields.
        cel::Node::Call(name, _) if are_fields && name == "has" => Err(ParseError::Invalid),
        _ => Err(ParseError::Unsupported),
    }
}

fn path(first: String, fields: Vec<String>, names: &[&str]) -> Result<Node, ParseError> {
    if !names.contains(&first.as_str()) {
        return Err(ParseError::Invalid);
    }
    let mut path = vec![first];
    path.extend(fields);
    Ok(Node::Path(path))
}

fn call(name: &str, arguments: Vec<cel::Node>, names: &[&str]) -> Result<Node, ParseError> {
    if name == "has" {
        let Ok([argument]) = <[cel::Node; 1]>::try_from(arguments) else { return Err(ParseError::Invalid) };
        let Node::Path(mut path) = lower(argument, names)? else { return Err(ParseError::Invalid) };
        let field = path.pop().filter(|_| !path.is_empty()).ok_or(ParseError::Invalid)?;
        return Ok(Node::Has(Box::new(Node::Path(path)), field));
    }
    // The engine's own function, where it is not declared.
    if CHECKSUM.strip_suffix("()") == Some(name) && !names.contains(&CHECKSUM) {
        return Err(ParseError::Invalid);
    }
    Err(ParseError::Unsupported)
}
