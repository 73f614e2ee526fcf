//! The syntax tree of an expression.

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Literal(Literal),
    /// It begins with a dot if it means the declared variable, even where a macro declares another one.
    Name(String),
    /// A call of a function that is not a method.
    Call(String, Vec<Node>),
    List(Vec<Node>),
    /// The keys and values of a map.
    Map(Vec<(Node, Node)>),
    /// A message: the name of its type, and the values of its fields.
    Message(String, Vec<Node>),
    /// An element, a key or an index that may be missing: `?x`.
    Optional(Box<Node>),
    /// A value, and what is accessed of it, one after the other.
    Member(Box<Node>, Vec<Access>),
    /// Operators in the order in which they are written.
    Unary(Vec<UnaryOperator>, Box<Node>),
    /// Operands with operators of the same rank, from left to right.
    Binary(Box<Node>, Vec<(BinaryOperator, Node)>),
    /// The condition and the two alternatives.
    Conditional(Box<[Node; 3]>),
}

/// Integers and doubles are different types.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    /// Without its sign. The most negative integer is `-9223372036854775808`.
    Int(u64),
    Unsigned(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
}

/// The type of an expression that is a literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LiteralType {
    Bool,
    Number,
    String,
    /// A type that no option of a definition has.
    Other,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Access {
    Field(String),
    /// A field that may be missing: `.?name`.
    OptionalField(String),
    Index(Node),
    Method(String, Vec<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnaryOperator {
    Not,
    Minus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BinaryOperator {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Plus,
    Minus,
    Times,
    Divide,
    Modulo,
}

impl Node {
    /// The type of this expression, if it is a literal.
    pub(crate) fn literal_type(&self) -> Option<LiteralType> {
        match self {
            Self::Literal(Literal::Bool(_)) => Some(LiteralType::Bool),
            Self::Literal(Literal::Int(_) | Literal::Unsigned(_) | Literal::Double(_)) => Some(LiteralType::Number),
            Self::Literal(Literal::String(_)) => Some(LiteralType::String),
            Self::Literal(Literal::Null | Literal::Bytes(_)) | Self::List(_) => Some(LiteralType::Other),
            // Only of a number.
            Self::Unary(operators, operand) if !operators.contains(&UnaryOperator::Not) => {
                operand.literal_type().map(|of| match of {
                    LiteralType::Number => LiteralType::Number,
                    _ => LiteralType::Other,
                })
            }
            _ => None,
        }
    }

    /// Calls a function for this node and for each node below it.
    pub(crate) fn visit<'a>(&'a self, visitor: &mut impl FnMut(&'a Node)) {
        visitor(self);
        match self {
            Self::Literal(_) | Self::Name(_) => {}
            Self::Call(_, nodes) | Self::List(nodes) | Self::Message(_, nodes) => {
                for node in nodes {
                    node.visit(visitor);
                }
            }
            Self::Map(entries) => {
                for (key, value) in entries {
                    key.visit(visitor);
                    value.visit(visitor);
                }
            }
            Self::Member(of, accesses) => {
                of.visit(visitor);
                for access in accesses {
                    match access {
                        Access::Field(_) | Access::OptionalField(_) => {}
                        Access::Index(index) => index.visit(visitor),
                        Access::Method(_, arguments) => {
                            for argument in arguments {
                                argument.visit(visitor);
                            }
                        }
                    }
                }
            }
            Self::Unary(_, operand) | Self::Optional(operand) => operand.visit(visitor),
            Self::Binary(first, others) => {
                first.visit(visitor);
                for (_, node) in others {
                    node.visit(visitor);
                }
            }
            Self::Conditional(nodes) => {
                for node in &**nodes {
                    node.visit(visitor);
                }
            }
        }
    }
}
