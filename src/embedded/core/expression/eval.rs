//! Evaluation of expressions.

use serde_json::Value as Json;

use super::ast::{Function, Literal, Loop, Macro, Node, Operator, Step};
use super::budget::{Budget, fits};
use super::error::{EvalError, NO_OVERLOAD};
use super::functions::call;
use super::operators::{binary, index, negate, not};
use super::value::{List, Value};

/// The values of the names in an expression.
pub(crate) struct Names<'a>(pub(crate) &'a [(&'a str, &'a Json)]);

type Evaluated<'a> = Result<Value<'a>, EvalError>;

pub(super) fn eval<'a>(node: &'a Node, names: &Names<'a>) -> Evaluated<'a> {
    Evaluation { names, locals: Vec::new(), budget: Budget::new() }.eval(node)
}

struct Evaluation<'n, 'a> {
    names: &'n Names<'a>,
    /// The variables of the macros that are being evaluated, the innermost one last.
    locals: Vec<Value<'a>>,
    budget: Budget,
}

impl<'a> Evaluation<'_, 'a> {
    /// Only calls other functions, so that it uses little stack: it recurses into the nodes.
    fn eval(&mut self, node: &'a Node) -> Evaluated<'a> {
        self.budget.step()?;
        match node {
            Node::Literal(literal) => self.literal(literal),
            Node::Variable(name) => self.variable(name).map(Value::from),
            Node::Id(name) => self.id(name),
            Node::Local(index) => self.locals.get(*index).cloned().ok_or(NO_OVERLOAD),
            Node::List(nodes) => self.list(nodes),
            Node::Map(entries) => self.map(entries),
            Node::Chain(of, steps) => self.chain(of, steps),
            Node::Call(function, arguments) => self.call(*function, None, arguments),
            Node::Not(operand) => not(&self.eval(operand)?),
            Node::Negate(operand) => negate(&self.eval(operand)?),
            // One operand can decide the result, even if others fail.
            Node::And(operands) => self.decide(operands, false),
            Node::Or(operands) => self.decide(operands, true),
            Node::Binary(first, others) => self.binary(first, others),
            Node::Conditional(nodes) => {
                let [condition, then, otherwise] = &**nodes;
                let node = if self.truth(condition)? { then } else { otherwise };
                self.eval(node)
            }
        }
    }

    #[inline(never)]
    fn literal(&mut self, literal: &'a Literal) -> Evaluated<'a> {
        match literal {
            // Unlike a string, it is copied at each evaluation.
            Literal::Bytes(bytes) => self.budget.make(bytes.len())?,
            _ => self.budget.read(literal.size())?,
        }
        Ok(literal.into())
    }

    fn variable(&self, name: &str) -> Result<&'a Json, EvalError> {
        let found = self.names.0.iter().find(|(other, _)| *other == name);
        found.map(|(_, value)| *value).ok_or_else(|| missing(name))
    }

    #[inline(never)]
    fn id(&self, name: &str) -> Evaluated<'a> {
        let text = self.variable(name)?.as_str().unwrap_or_default();
        let id: uuid::Uuid = text.parse().map_err(|_| missing(name))?;
        Ok(Value::Bytes(id.into_bytes().as_slice().into()))
    }

    #[inline(never)]
    fn list(&mut self, nodes: &'a [Node]) -> Evaluated<'a> {
        let elements = self.all(None, nodes)?;
        self.budget.make(elements.len() * size_of::<Value<'_>>())?;
        Value::list(elements)
    }

    #[inline(never)]
    fn map(&mut self, nodes: &'a [(Node, Node)]) -> Evaluated<'a> {
        self.budget.make(nodes.len() * 2 * size_of::<Value<'_>>())?;
        let mut entries = Vec::with_capacity(nodes.len());
        for (key, value) in nodes {
            entries.push((self.eval(key)?, self.eval(value)?));
        }
        Value::map(entries, &mut self.budget)
    }

    fn all(&mut self, first: Option<Value<'a>>, nodes: &'a [Node]) -> Result<Vec<Value<'a>>, EvalError> {
        let mut values = Vec::with_capacity(nodes.len() + 1);
        values.extend(first);
        for node in nodes {
            values.push(self.eval(node)?);
        }
        Ok(values)
    }

    #[inline(never)]
    fn call(&mut self, function: Function, of: Option<Value<'a>>, arguments: &'a [Node]) -> Evaluated<'a> {
        let arguments = self.all(of, arguments)?;
        call(function, &arguments, &mut self.budget)
    }

    #[inline(never)]
    fn chain(&mut self, of: &'a Node, steps: &'a [Step]) -> Evaluated<'a> {
        let mut value = self.eval(of)?;
        for step in steps {
            value = self.step(value, step)?;
        }
        Ok(value)
    }

    fn step(&mut self, of: Value<'a>, step: &'a Step) -> Evaluated<'a> {
        self.budget.step()?;
        match step {
            Step::Field(name) => field(&of, name, &mut self.budget),
            Step::Has(name) => has(&of, name, &mut self.budget),
            Step::Index(node) => {
                let key = self.eval(node)?;
                index(&of, &key, node.is_json(), &mut self.budget)
            }
            Step::Method(function, arguments) => self.call(*function, Some(of), arguments),
            Step::Macro(kind, each) => self.repeat(*kind, &of, each),
        }
    }

    #[inline(never)]
    fn binary(&mut self, first: &'a Node, others: &'a [(Operator, Node)]) -> Evaluated<'a> {
        let mut left = self.eval(first)?;
        for (operator, node) in others {
            let right = self.eval(node)?;
            left = binary(*operator, &left, &right, &mut self.budget)?;
        }
        Ok(left)
    }

    fn truth(&mut self, node: &'a Node) -> Result<bool, EvalError> {
        match self.eval(node)? {
            Value::Bool(flag) => Ok(flag),
            _ => Err(NO_OVERLOAD),
        }
    }

    #[inline(never)]
    fn decide(&mut self, operands: &'a [Node], enough: bool) -> Evaluated<'a> {
        let mut error = None;
        for operand in operands {
            match self.truth(operand) {
                Ok(flag) if flag == enough => return Ok(Value::Bool(enough)),
                Ok(_) => {}
                Err(failed) => error = error.or(Some(failed)),
            }
        }
        error.map_or(Ok(Value::Bool(!enough)), Err)
    }

    /// A macro: for each element of a list, or for each key of a map.
    #[inline(never)]
    fn repeat(&mut self, kind: Macro, of: &Value<'a>, each: &'a Loop) -> Evaluated<'a> {
        let keys;
        let elements = match of {
            Value::List(elements) => elements,
            Value::Map(map) => {
                self.budget.make(map.len() * size_of::<Value<'_>>())?;
                keys = List::made(map.keys().collect())?;
                &keys
            }
            other => return Err(not_iterable(other)),
        };
        match kind {
            Macro::All => self.quantify(elements, each, false),
            Macro::Exists => self.quantify(elements, each, true),
            Macro::ExistsOne => Ok(Value::Bool(self.collect(elements, each)?.len() == 1)),
            Macro::Collect => {
                let collected = self.collect(elements, each)?;
                // Each element has been counted, but not the size of the list.
                fits(collected.len().saturating_mul(size_of::<Value<'_>>()))?;
                Value::list(collected)
            }
        }
    }

    /// Evaluates something with one more variable of a macro.
    fn with<R>(&mut self, element: Value<'a>, evaluate: impl FnOnce(&mut Self) -> R) -> R {
        self.locals.push(element);
        let result = evaluate(self);
        self.locals.pop();
        result
    }

    /// One element can decide the result, even if others fail.
    #[inline(never)]
    fn quantify(&mut self, elements: &List<'a>, each: &'a Loop, enough: bool) -> Evaluated<'a> {
        let Some(predicate) = &each.predicate else { return Err(NO_OVERLOAD) };
        let mut error = None;
        for element in elements.iter() {
            self.budget.step()?;
            match self.with(element, |evaluation| evaluation.truth(predicate)) {
                Ok(flag) if flag == enough => return Ok(Value::Bool(enough)),
                Ok(_) => {}
                Err(failed) => error = error.or(Some(failed)),
            }
        }
        error.map_or(Ok(Value::Bool(!enough)), Err)
    }

    /// What is made of the elements that count. It does not stop at an error: of several ones, the last one of a predicate counts, or else
    /// the first one.
    #[inline(never)]
    fn collect(&mut self, elements: &List<'a>, each: &'a Loop) -> Result<Vec<Value<'a>>, EvalError> {
        let mut collected = Ok(Vec::new());
        for element in elements.iter() {
            self.budget.step()?;
            let counts = match &each.predicate {
                Some(predicate) => self.with(element.clone(), |evaluation| evaluation.truth(predicate)),
                None => Ok(true),
            };
            match counts {
                Err(failed) => collected = Err(failed),
                Ok(true) => {
                    let made = match &each.transform {
                        Some(transform) => self.with(element, |evaluation| evaluation.eval(transform)),
                        None => Ok(element),
                    };
                    let counted = self.budget.make(size_of::<Value<'_>>());
                    collected = collected.and_then(|mut values: Vec<_>| {
                        counted?;
                        values.push(made?);
                        Ok(values)
                    });
                }
                Ok(false) => {}
            }
        }
        collected
    }
}

fn missing(name: &str) -> EvalError {
    EvalError::new(format!("no such attribute(s): {name}"))
}

fn field<'a>(of: &Value<'a>, name: &str, budget: &mut Budget) -> Evaluated<'a> {
    budget.read(name.len())?;
    let found = match of {
        Value::Map(map) => map.field(name, budget)?,
        Value::List(_) => return Err(NOT_IN_LIST),
        _ => None,
    };
    found.ok_or_else(|| EvalError::new(format!("no such key: {name}")))
}

/// False for a value without fields. For a list, the evaluation fails.
fn has<'a>(of: &Value<'a>, name: &str, budget: &mut Budget) -> Evaluated<'a> {
    match of {
        Value::Map(map) => Ok(Value::Bool(map.field(name, budget)?.is_some())),
        Value::List(_) => Err(NOT_IN_LIST),
        _ => Ok(Value::Bool(false)),
    }
}

const NOT_IN_LIST: EvalError = EvalError::of("unsupported index type 'string' in list");

fn not_iterable(value: &Value<'_>) -> EvalError {
    let kind = match value {
        Value::Null => "types.Null",
        Value::Bool(_) => "types.Bool",
        Value::Int(_) => "types.Int",
        Value::Uint(_) => "types.Uint",
        Value::Double(_) => "types.Double",
        Value::String(_) => "types.String",
        Value::Bytes(_) => "types.Bytes",
        _ => "*types.Type",
    };
    EvalError::new(format!("got '{kind}', expected iterable type"))
}
