//! The syntax tree of an expression.

/// Why a text is no expression here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ParseError {
    /// It is no CEL.
    Invalid,
    /// It may be CEL, and is not of the subset.
    Unsupported,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Literal(Literal),
    /// A name that is declared, and the fields below it.
    Path(Vec<String>),
    /// Whether what a path leads to has a field.
    Has(Box<Node>, String),
    Not(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Add(Vec<Node>),
    /// From left to right: each intermediate result is compared with the next operand.
    Compare(Box<Node>, Vec<(Comparison, Node)>),
}

/// Whole numbers and others are two types, as in CEL; those of JSON are all of the second.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    String(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}
