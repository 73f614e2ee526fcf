//! The syntax of CEL, in which the engine's expressions are written.
//!
//! The parser accepts the whole grammar of CEL and some common extensions, such as optional fields. So the engine cannot parse what it rejects
//! either. It does not check names and types: the engine can still reject what it accepts.
//!
//! Expressions are untrusted, so their length and their nesting are limited. A chain of operators or of fields is one node, so that only
//! nesting uses the stack.

mod ast;
mod lexer;
mod parser;

pub(crate) use ast::{Access, LiteralType, Node};
#[cfg(feature = "embedded")]
pub(crate) use ast::{BinaryOperator, Literal, UnaryOperator};
#[cfg(test)]
pub(crate) use parser::{MAX_DEPTH, MAX_LENGTH};
pub(crate) use parser::{Problem, parse};
