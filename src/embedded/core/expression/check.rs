//! From the syntax of CEL to what can be evaluated: names and types are checked as cel-go checks them.

use super::ast::{Function, Literal, Loop, Macro, Node, Operator, ParseError, Step};
use super::environment::Environment;
use super::signatures::{MIXED, Signature, instance};
use super::types::{Parameters, Type};
use crate::model::cel::{self, Access, BinaryOperator, Problem, UnaryOperator};

/// The maximum nesting of nodes, to limit the use of the stack. A parenthesis can contain several of them.
const MAX_DEPTH: usize = 90;

type NamedType = (&'static str, fn() -> Type);

/// Names of types. A type is a value, too.
const TYPES: [NamedType; 10] = [
    ("bool", || Type::Bool),
    ("bytes", || Type::Bytes),
    ("double", || Type::Double),
    ("int", || Type::Int),
    ("list", || Type::list(Type::Dyn)),
    ("map", || Type::map(Type::Dyn, Type::Dyn)),
    ("null_type", || Type::Null),
    ("string", || Type::String),
    ("type", || Type::Meta(None)),
    ("uint", || Type::Uint),
];
/// The package of the messages and types that the engine knows, and this crate does not.
const GOOGLE: &str = "google";
/// A function whose name contains a dot, which looks like a method.
const QUOTE: (&str, &str) = ("strings", "quote");
/// A variable that macros use, and cannot declare.
const ACCUMULATOR: &str = "__result__";

type Checked<T> = Result<T, ParseError>;
type Typed = (Node, Type);

/// Parses an expression.
pub(super) fn parse(text: &str, environment: &Environment) -> Checked<Node> {
    let node = match cel::parse(text) {
        Ok(node) => node,
        Err(Problem::Syntax(_)) => return Err(ParseError::Invalid),
        Err(Problem::TooLarge) => return Err(ParseError::Unsupported),
    };
    let mut checker = Checker {
        environment,
        locals: Vec::new(),
        parameters: Parameters::new(),
        is_unsupported: false,
        compares_mixed: false,
        depth: 0,
    };
    let result = checker.node(node);
    // What is not supported is reported only if the rest is valid.
    if checker.parameters.is_exhausted || (result.is_ok() && checker.is_unsupported) {
        return Err(ParseError::Unsupported);
    }
    result.map(|(node, _)| node)
}

struct Checker<'e> {
    environment: &'e Environment,
    /// The variables of the macros around the current node, the innermost one last.
    locals: Vec<(String, Type)>,
    parameters: Parameters,
    /// The expression uses something that cannot be evaluated.
    is_unsupported: bool,
    /// Numbers of different types can be compared. In cel-go, that is so from the first macro on.
    compares_mixed: bool,
    depth: usize,
}

/// Stands for a node that is not supported.
const NOTHING: Node = Node::Literal(Literal::Null);

impl Checker<'_> {
    fn node(&mut self, node: cel::Node) -> Checked<Typed> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(ParseError::Unsupported);
        }
        let (node, of) = self.any_node(node)?;
        self.depth -= 1;
        Ok((node, of.bounded()?))
    }

    fn any_node(&mut self, node: cel::Node) -> Checked<Typed> {
        match node {
            cel::Node::Literal(literal) => self::literal(literal, false),
            cel::Node::Name(name) => self.name(&name),
            cel::Node::Member(of, accesses) => self.member(*of, accesses),
            cel::Node::Call(name, arguments) => self.call(&name, arguments),
            cel::Node::List(nodes) => self.list(nodes),
            cel::Node::Map(entries) => self.map(entries),
            cel::Node::Message(name, fields) => self.message(&name, fields),
            // Optional values are not enabled in the engine.
            cel::Node::Optional(_) => Err(ParseError::Invalid),
            cel::Node::Unary(operators, operand) => self.unary(&operators, *operand),
            cel::Node::Binary(first, others) => self.binary(*first, others),
            cel::Node::Conditional(nodes) => self.conditional(*nodes),
        }
    }

    fn nodes(&mut self, nodes: Vec<cel::Node>) -> Checked<(Vec<Node>, Vec<Type>)> {
        let (mut checked, mut types) = (Vec::with_capacity(nodes.len()), Vec::with_capacity(nodes.len()));
        for node in nodes {
            let (node, of) = self.node(node)?;
            checked.push(node);
            types.push(of);
        }
        Ok((checked, types))
    }

    /// Something valid that cannot be evaluated here.
    fn unsupported(&mut self, of: Type) -> Typed {
        self.is_unsupported = true;
        (NOTHING, of)
    }

    #[inline(never)]
    fn name(&mut self, name: &str) -> Checked<Typed> {
        if let Some((index, (_, of))) = self.locals.iter().enumerate().rev().find(|(_, (local, _))| local == name) {
            let (node, of) = (Node::Local(index), of.clone());
            // cel-go takes a variable whose value is a type for the name of a type, when it plans the evaluation.
            let is_type = matches!(self.parameters.resolve(&of), Type::Meta(_));
            return if is_type { Err(ParseError::Invalid) } else { Ok((node, of)) };
        }
        let name = name.trim_start_matches('.');
        if let Some(of) = self.environment.variable(name) {
            let is_id = name == "event_id";
            return Ok((if is_id { Node::Id(name.into()) } else { Node::Variable(name.into()) }, of));
        }
        let (name, of) = TYPES.iter().find(|(other, _)| *other == name).ok_or(ParseError::Invalid)?;
        Ok((Node::Literal(Literal::Type(name)), Type::Meta(Some(of().into()))))
    }

    #[inline(never)]
    fn list(&mut self, nodes: Vec<cel::Node>) -> Checked<Typed> {
        let (nodes, types) = self.nodes(nodes)?;
        let element = self.joined(types);
        Ok((Node::List(nodes), Type::list(element)))
    }

    #[inline(never)]
    fn map(&mut self, entries: Vec<(cel::Node, cel::Node)>) -> Checked<Typed> {
        let (mut nodes, mut keys, mut values) = (Vec::with_capacity(entries.len()), Vec::new(), Vec::new());
        for (key, value) in entries {
            let (key, value) = (self.node(key)?, self.node(value)?);
            nodes.push((key.0, value.0));
            keys.push(key.1);
            values.push(value.1);
        }
        let of = Type::map(self.joined(keys), self.joined(values));
        Ok((Node::Map(nodes), of))
    }

    /// The common type of elements.
    fn joined(&mut self, types: Vec<Type>) -> Type {
        let mut types = types.into_iter();
        let Some(first) = types.next() else { return self.parameters.add() };
        types.fold(first, |joined, of| match self.parameters.fit([(&joined, &of)]) {
            true if joined.is_general(&of) => joined,
            true => of,
            false => Type::Dyn,
        })
    }

    #[inline(never)]
    fn message(&mut self, name: &str, fields: Vec<cel::Node>) -> Checked<Typed> {
        self.nodes(fields)?;
        if !name.trim_start_matches('.').starts_with("google.") {
            return Err(ParseError::Invalid);
        }
        Ok(self.unsupported(Type::Dyn))
    }

    #[inline(never)]
    fn unary(&mut self, operators: &[UnaryOperator], operand: cel::Node) -> Checked<Typed> {
        let Some(operator) = operators.first().filter(|first| operators.iter().all(|other| other == *first)) else {
            return Err(ParseError::Invalid);
        };
        // cel-go ignores an even number of operators: it does not check that the operand has the type for them.
        if operators.len().is_multiple_of(2) {
            return self.node(operand);
        }
        match (operator, operand) {
            // A single sign is part of the number, because the most negative integer has no positive counterpart.
            (UnaryOperator::Minus, cel::Node::Literal(number @ (cel::Literal::Int(_) | cel::Literal::Double(_))))
                if operators.len() == 1 =>
            {
                literal(number, true)
            }
            (UnaryOperator::Minus, operand) => {
                let (node, of) = self.node(operand)?;
                Ok((Node::Negate(node.into()), self.operator("-_", &[of])?))
            }
            (UnaryOperator::Not, operand) => {
                let (node, of) = self.node(operand)?;
                Ok((Node::Not(node.into()), self.operator("!", &[of])?))
            }
        }
    }

    #[inline(never)]
    fn binary(&mut self, first: cel::Node, others: Vec<(BinaryOperator, cel::Node)>) -> Checked<Typed> {
        let joins = others.first().map(|(operator, _)| *operator);
        if let Some(join @ (BinaryOperator::And | BinaryOperator::Or)) = joins {
            let operands = std::iter::once(first).chain(others.into_iter().map(|(_, operand)| operand));
            let (nodes, types) = self.nodes(operands.collect())?;
            for of in &types {
                self.boolean(of)?;
            }
            return Ok((if join == BinaryOperator::And { Node::And(nodes) } else { Node::Or(nodes) }, Type::Bool));
        }
        let (first, mut of) = self.node(first)?;
        let mut nodes = Vec::with_capacity(others.len());
        for (operator, operand) in others {
            let (node, right) = self.node(operand)?;
            let (operator, name) = named(operator).ok_or(ParseError::Invalid)?;
            of = self.operator(name, &[of, right])?.bounded()?;
            nodes.push((operator, node));
        }
        Ok((Node::Binary(first.into(), nodes), of))
    }

    /// Whether a value of this type can be a boolean.
    fn boolean(&mut self, of: &Type) -> Checked<()> {
        self.parameters.fit([(of, &Type::Bool)]).then_some(()).ok_or(ParseError::Invalid)
    }

    #[inline(never)]
    fn conditional(&mut self, nodes: [cel::Node; 3]) -> Checked<Typed> {
        let [condition, then, otherwise] = nodes;
        let (condition, then, otherwise) = (self.node(condition)?, self.node(then)?, self.node(otherwise)?);
        let of = self.operator("?:", &[condition.1, then.1, otherwise.1])?;
        Ok((Node::Conditional(Box::new([condition.0, then.0, otherwise.0])), of))
    }

    /// The type of the result of an operator.
    fn operator(&mut self, name: &str, arguments: &[Type]) -> Checked<Type> {
        let signatures = self.environment.function(name).ok_or(ParseError::Invalid)?;
        let result = self.resolve(signatures, false, arguments);
        if name == "<" && self.compares_mixed && result.is_err() {
            return self.resolve(MIXED, false, arguments);
        }
        result
    }

    /// The type of the result of a call: if several signatures fit, it can be unknown.
    fn resolve(&mut self, signatures: &'static [Signature], is_method: bool, arguments: &[Type]) -> Checked<Type> {
        let mut result: Option<Type> = None;
        for signature in signatures.iter().filter(|signature| signature.is_method == is_method) {
            let (accepted, returned) = instance(signature, &mut self.parameters);
            if arguments.len() != accepted.len() || !self.parameters.fit(arguments.iter().zip(&accepted)) {
                continue;
            }
            let returned = self.parameters.resolve(&returned);
            result = Some(match result {
                None => returned,
                Some(found) if found == Type::Dyn || found == returned => found,
                Some(_) => Type::Dyn,
            });
        }
        result.ok_or(ParseError::Invalid)
    }

    /// A call that is no method.
    #[inline(never)]
    fn call(&mut self, name: &str, mut arguments: Vec<cel::Node>) -> Checked<Typed> {
        if name == "has"
            && arguments.len() == 1
            && let Some(argument) = arguments.pop()
        {
            return self.has(argument);
        }
        let (nodes, types) = self.nodes(arguments)?;
        let signatures = self.environment.function(name).filter(|_| is_word(name)).ok_or(ParseError::Invalid)?;
        let of = self.resolve(signatures, false, &types)?;
        Ok(match self.function(name) {
            Some(function) => (Node::Call(function, nodes), of),
            None => self.unsupported(of),
        })
    }

    /// A function that can be evaluated.
    fn function(&self, name: &str) -> Option<Function> {
        match Function::by_name(name)? {
            Function::Checksum if !self.environment.has_checksum() => Some(Function::MissingChecksum),
            function => Some(function),
        }
    }

    fn has(&mut self, argument: cel::Node) -> Checked<Typed> {
        let cel::Node::Member(of, mut accesses) = argument else { return Err(ParseError::Invalid) };
        let Some(Access::Field(name)) = accesses.pop() else { return Err(ParseError::Invalid) };
        let (node, of) = if accesses.is_empty() { self.node(*of)? } else { self.member(*of, accesses)? };
        self.field(&of)?;
        Ok((chained(node, Step::Has(name)), Type::Bool))
    }

    #[inline(never)]
    fn member(&mut self, of: cel::Node, accesses: Vec<Access>) -> Checked<Typed> {
        let mut accesses = accesses.into_iter().peekable();
        let (mut node, mut of) = match of {
            // A function with a dot in its name.
            cel::Node::Name(name)
                if name.trim_start_matches('.') == QUOTE.0
                    && matches!(accesses.peek(), Some(Access::Method(method, _)) if method == QUOTE.1) =>
            {
                let Some(Access::Method(_, arguments)) = accesses.next() else { return Err(ParseError::Invalid) };
                let name = format!("{}.{}", QUOTE.0, QUOTE.1);
                let (nodes, types) = self.nodes(arguments)?;
                let signatures = self.environment.function(&name).ok_or(ParseError::Invalid)?;
                (Node::Call(Function::Quote, nodes), self.resolve(signatures, false, &types)?)
            }
            // A type or a constant of a package.
            cel::Node::Name(name) if name.trim_start_matches('.') == GOOGLE && self.name(&name).is_err() => {
                self.unsupported(Type::Dyn)
            }
            of => self.node(of)?,
        };
        for access in accesses {
            let (step, result) = self.access(&of, access)?;
            (node, of) = (chained(node, step), result.bounded()?);
        }
        Ok((node, of))
    }

    fn access(&mut self, of: &Type, access: Access) -> Checked<(Step, Type)> {
        match access {
            Access::Field(name) => {
                let result = self.field(of)?;
                Ok((Step::Field(name), result))
            }
            Access::OptionalField(_) => Err(ParseError::Invalid),
            Access::Index(node) => {
                let (node, key) = self.node(node)?;
                // cel-go finds out when it plans the evaluation that this is no key.
                if matches!(node, Node::Literal(Literal::Null | Literal::Bytes(_) | Literal::Type(_))) {
                    return Err(ParseError::Invalid);
                }
                let result = self.operator("[]", &[of.clone(), key])?;
                Ok((Step::Index(node), result))
            }
            Access::Method(name, arguments) => match (name.as_str(), arguments.len()) {
                ("all", 2) => self.quantifier(Macro::All, of, arguments),
                ("exists", 2) => self.quantifier(Macro::Exists, of, arguments),
                ("exists_one", 2) => self.quantifier(Macro::ExistsOne, of, arguments),
                ("filter", 2) | ("map", 2 | 3) => self.collection(&name, of, arguments),
                _ => self.method(&name, of, arguments),
            },
        }
    }

    /// The type of a field of a value.
    fn field(&mut self, of: &Type) -> Checked<Type> {
        match self.parameters.resolve(of) {
            Type::Map(entry) => Ok(entry.1.clone()),
            Type::Dyn => Ok(Type::Dyn),
            parameter @ Type::Parameter(_) => {
                self.parameters.fit([(&Type::Dyn, &parameter)]);
                Ok(Type::Dyn)
            }
            _ => Err(ParseError::Invalid),
        }
    }

    fn method(&mut self, name: &str, of: &Type, arguments: Vec<cel::Node>) -> Checked<(Step, Type)> {
        let (nodes, mut types) = self.nodes(arguments)?;
        types.insert(0, of.clone());
        let signatures = self.environment.function(name).ok_or(ParseError::Invalid)?;
        let result = self.resolve(signatures, true, &types)?;
        let Some(function) = self.function(name) else {
            self.is_unsupported = true;
            return Ok((Step::Field(String::new()), result));
        };
        Ok((Step::Method(function, nodes), result))
    }

    /// The type of the variable of a macro.
    fn element(&mut self, of: &Type) -> Checked<Type> {
        match self.parameters.resolve(of) {
            Type::List(element) => Ok((*element).clone()),
            Type::Map(entry) => Ok(entry.0.clone()),
            Type::Dyn => Ok(Type::Dyn),
            parameter @ Type::Parameter(_) => {
                self.parameters.fit([(&Type::Dyn, &parameter)]);
                Ok(Type::Dyn)
            }
            _ => Err(ParseError::Invalid),
        }
    }

    /// Checks nodes in which a variable is declared.
    fn within(&mut self, variable: cel::Node, of: Type, nodes: Vec<cel::Node>) -> Checked<(Vec<Node>, Vec<Type>)> {
        let cel::Node::Name(name) = variable else { return Err(ParseError::Invalid) };
        if name == ACCUMULATOR {
            return Err(ParseError::Invalid);
        }
        self.locals.push((name, of));
        self.compares_mixed = true;
        // More functions are between this node and those in it than elsewhere.
        self.depth += 1;
        let checked = self.nodes(nodes);
        self.depth -= 1;
        self.locals.pop();
        checked
    }

    fn quantifier(&mut self, kind: Macro, of: &Type, arguments: Vec<cel::Node>) -> Checked<(Step, Type)> {
        let mut arguments = arguments.into_iter();
        let variable = arguments.next().ok_or(ParseError::Invalid)?;
        let element = self.element(of)?;
        let (mut nodes, types) = self.within(variable, element, arguments.collect())?;
        for of in &types {
            self.boolean(of)?;
        }
        let each = Loop { predicate: nodes.pop(), transform: None };
        Ok((Step::Macro(kind, Box::new(each)), Type::Bool))
    }

    /// `map` and `filter`. As in cel-go, the result is a list to which lists of one element are added.
    fn collection(&mut self, name: &str, of: &Type, arguments: Vec<cel::Node>) -> Checked<(Step, Type)> {
        let mut arguments = arguments.into_iter();
        let variable = arguments.next().ok_or(ParseError::Invalid)?;
        let element = self.element(of)?;
        let collected = Type::list(self.parameters.add());
        let (mut nodes, mut types) = self.within(variable, element.clone(), arguments.collect())?;
        let transform = if name == "map" { nodes.pop().zip(types.pop()) } else { None };
        let (transform, added) = transform.map_or((None, element), |(node, of)| (Some(node), of));
        let mut sum = self.operator("+", &[collected.clone(), Type::list(added)])?;
        let predicate = nodes.pop();
        if let Some(of) = types.pop() {
            sum = self.operator("?:", &[of, sum, collected.clone()])?;
        }
        if !self.parameters.fit([(&collected, &sum)]) {
            return Err(ParseError::Invalid);
        }
        let result = self.parameters.resolve(&collected);
        Ok((Step::Macro(Macro::Collect, Box::new(Loop { predicate, transform })), result))
    }
}

/// A function can be called by its name if that is a word, and not the sign of an operator.
fn is_word(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// A node with one more step: steps after each other are one node.
fn chained(node: Node, step: Step) -> Node {
    match node {
        Node::Chain(of, mut steps) => {
            steps.push(step);
            Node::Chain(of, steps)
        }
        node => Node::Chain(node.into(), vec![step]),
    }
}

fn literal(literal: cel::Literal, is_negated: bool) -> Checked<Typed> {
    Ok(match literal {
        cel::Literal::Null => (Node::Literal(Literal::Null), Type::Null),
        cel::Literal::Bool(flag) => (Node::Literal(Literal::Bool(flag)), Type::Bool),
        cel::Literal::Int(number) => {
            let number = if is_negated { 0_i64.checked_sub_unsigned(number) } else { i64::try_from(number).ok() };
            (Node::Literal(Literal::Int(number.ok_or(ParseError::Invalid)?)), Type::Int)
        }
        cel::Literal::Unsigned(number) => (Node::Literal(Literal::Uint(number)), Type::Uint),
        cel::Literal::Double(number) => {
            (Node::Literal(Literal::Double(if is_negated { -number } else { number })), Type::Double)
        }
        cel::Literal::String(text) => (Node::Literal(Literal::String(text)), Type::String),
        cel::Literal::Bytes(bytes) => (Node::Literal(Literal::Bytes(bytes)), Type::Bytes),
    })
}

/// An operator, and its name in signatures.
fn named(operator: BinaryOperator) -> Option<(Operator, &'static str)> {
    Some(match operator {
        BinaryOperator::Equal => (Operator::Equal, "=="),
        BinaryOperator::NotEqual => (Operator::NotEqual, "=="),
        BinaryOperator::Less => (Operator::Less, "<"),
        BinaryOperator::LessOrEqual => (Operator::LessOrEqual, "<"),
        BinaryOperator::Greater => (Operator::Greater, "<"),
        BinaryOperator::GreaterOrEqual => (Operator::GreaterOrEqual, "<"),
        BinaryOperator::In => (Operator::In, "in"),
        BinaryOperator::Plus => (Operator::Add, "+"),
        BinaryOperator::Minus => (Operator::Subtract, "-"),
        BinaryOperator::Times => (Operator::Multiply, "*"),
        BinaryOperator::Divide => (Operator::Divide, "/"),
        BinaryOperator::Modulo => (Operator::Modulo, "%"),
        BinaryOperator::Or | BinaryOperator::And => return None,
    })
}
