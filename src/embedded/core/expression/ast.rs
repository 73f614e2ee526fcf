//! The syntax tree of an expression that can be evaluated: its names and its types have been checked.

/// Why a string is not an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ParseError {
    /// It is not CEL, or it uses undeclared names, or its types do not fit.
    Invalid,
    /// It may be CEL, but uses something that is not supported, or is too large.
    Unsupported,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Literal(Literal),
    /// The value of a declared variable.
    Variable(String),
    /// The same for a variable whose value is an ID. It is declared as a string, but the engine passes bytes.
    Id(String),
    /// The variable of a macro: the number of macros around the one that declares it.
    Local(usize),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    /// A value, and what is done with it, one step after the other.
    Chain(Box<Node>, Vec<Step>),
    Call(Function, Vec<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    /// From left to right: each intermediate result is the left operand of the next operator.
    Binary(Box<Node>, Vec<(Operator, Node)>),
    /// The condition, and the values if it is true and if it is not.
    Conditional(Box<[Node; 3]>),
}

/// Integers and doubles are different types, as in CEL. Numbers in JSON are doubles.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
    /// A type, by its name.
    Type(&'static str),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Field(String),
    /// Whether there is such a field.
    Has(String),
    Index(Node),
    Method(Function, Vec<Node>),
    Macro(Macro, Box<Loop>),
}

/// What is evaluated for each element of a list, or for each key of a map.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Loop {
    /// Which elements count. All of them if there is none.
    pub(super) predicate: Option<Node>,
    /// What is made of an element. The element itself if there is none.
    pub(super) transform: Option<Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Macro {
    All,
    Exists,
    ExistsOne,
    /// `map` and `filter`: a list of the elements that count.
    Collect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    Type,
    Dyn,
    Bool,
    Bytes,
    Double,
    Int,
    String,
    Uint,
    Contains,
    StartsWith,
    EndsWith,
    CharAt,
    IndexOf,
    LastIndexOf,
    Join,
    LowerAscii,
    UpperAscii,
    Quote,
    Replace,
    Reverse,
    Split,
    Substring,
    Trim,
    Checksum,
    /// `checksum` where the engine declares it, but does not implement it.
    MissingChecksum,
}

impl Node {
    /// Whether this only looks something up, so that it finds JSON if it looks it up in JSON.
    pub(super) fn is_json(&self) -> bool {
        match self {
            Self::Variable(_) => true,
            Self::Chain(_, steps) => matches!(steps.last(), Some(Step::Field(_) | Step::Index(_))),
            Self::Conditional(nodes) => nodes.iter().skip(1).all(Self::is_json),
            _ => false,
        }
    }
}

impl Literal {
    /// The number of bytes that an evaluation copies.
    pub(super) fn size(&self) -> usize {
        if let Self::Bytes(bytes) = self { bytes.len() } else { 0 }
    }
}

impl Operator {
    /// CEL's name of it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Equal => "_==_",
            Self::NotEqual => "_!=_",
            Self::Less => "_<_",
            Self::LessOrEqual => "_<=_",
            Self::Greater => "_>_",
            Self::GreaterOrEqual => "_>=_",
            Self::In => "@in",
            Self::Add => "_+_",
            Self::Subtract => "_-_",
            Self::Multiply => "_*_",
            Self::Divide => "_/_",
            Self::Modulo => "_%_",
        }
    }
}

impl Function {
    const NAMES: [(&'static str, Self); 25] = [
        ("size", Self::Size),
        ("type", Self::Type),
        ("dyn", Self::Dyn),
        ("bool", Self::Bool),
        ("bytes", Self::Bytes),
        ("double", Self::Double),
        ("int", Self::Int),
        ("string", Self::String),
        ("uint", Self::Uint),
        ("contains", Self::Contains),
        ("startsWith", Self::StartsWith),
        ("endsWith", Self::EndsWith),
        ("charAt", Self::CharAt),
        ("indexOf", Self::IndexOf),
        ("lastIndexOf", Self::LastIndexOf),
        ("join", Self::Join),
        ("lowerAscii", Self::LowerAscii),
        ("upperAscii", Self::UpperAscii),
        ("strings.quote", Self::Quote),
        ("replace", Self::Replace),
        ("reverse", Self::Reverse),
        ("split", Self::Split),
        ("substring", Self::Substring),
        ("trim", Self::Trim),
        ("checksum", Self::Checksum),
    ];

    pub(super) fn by_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(other, _)| *other == name).map(|(_, function)| *function)
    }

    pub(super) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, other)| *other == self).map_or("checksum", |(name, _)| name)
    }
}
