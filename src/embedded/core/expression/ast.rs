//! The syntax tree of an expression.

/// Why a string is not an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ParseError {
    /// It is not CEL.
    Invalid,
    /// It may be CEL, but is not in the subset.
    Unsupported,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Literal(Literal),
    /// A declared name, and the fields below it.
    Path(Vec<String>),
    /// Whether a value has a field.
    Has(Box<Node>, String),
    Not(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Add(Vec<Node>),
    /// From left to right: each intermediate result is compared with the next operand.
    Compare(Box<Node>, Vec<(Comparison, Node)>),
    /// The condition, and the values if it is true and if it is not.
    Conditional(Box<[Node; 3]>),
}

/// Integers and doubles are different types, as in CEL. Numbers in JSON are doubles.
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
