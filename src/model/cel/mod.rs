//! The syntax of CEL, in which the engine's expressions are written.
//!
//! The parser accepts the whole grammar of CEL, and what some implementations add to it, such as optional fields. So a text that it refuses
//! is no CEL for the engine either. It does not check names and types: what it accepts can still be refused by the engine.
//!
//! Expressions are untrusted, so their length and their nesting are limited. A chain of operators or of fields is one node, so that only
//! nesting uses the stack.

mod ast;
mod lexer;
mod parser;

pub(crate) use ast::Node;
#[cfg(feature = "embedded")]
pub(crate) use ast::{Access, BinaryOperator, Literal, UnaryOperator};
#[cfg(test)]
pub(crate) use parser::{MAX_DEPTH, MAX_LENGTH};
pub(crate) use parser::{Problem, parse};
