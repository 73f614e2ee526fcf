//! The types of expressions, and which of them fit. The rules are those of cel-go's checker.

use std::rc::Rc;

use super::ast::ParseError;

/// The maximum number of parts of a type.
const MAX_SIZE: usize = 200;
/// The maximum nesting of types, also by the values of parameters.
const MAX_DEPTH: usize = 300;
/// How many parts of types may be compared for an expression.
const MAX_STEPS: usize = 4_000_000;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Type {
    /// Only known when it is evaluated.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Rc<Type>),
    Map(Rc<(Type, Type)>),
    /// The type of a type, and which type that is if this is known.
    Meta(Option<Rc<Type>>),
    /// Any type, but only one: what it stands for may be found out later.
    Parameter(usize),
}

impl Type {
    pub(super) fn list(element: Self) -> Self {
        Self::List(Rc::new(element))
    }

    pub(super) fn map(key: Self, value: Self) -> Self {
        Self::Map(Rc::new((key, value)))
    }

    /// Accepted if it is small enough for the functions that recurse into it.
    pub(super) fn bounded(self) -> Result<Self, ParseError> {
        let mut left = MAX_SIZE;
        if self.count(&mut left) { Ok(self) } else { Err(ParseError::Unsupported) }
    }

    fn count(&self, left: &mut usize) -> bool {
        let Some(fewer) = left.checked_sub(1) else { return false };
        *left = fewer;
        match self {
            Self::List(of) | Self::Meta(Some(of)) => of.count(left),
            Self::Map(of) => of.0.count(left) && of.1.count(left),
            _ => true,
        }
    }

    /// Whether this is at least as general as another type.
    pub(super) fn is_general(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dyn | Self::Parameter(_), _) | (Self::Meta(_), Self::Meta(_)) => true,
            (_, Self::Dyn | Self::Parameter(_)) => false,
            (Self::List(left), Self::List(right)) => left.is_general(right),
            (Self::Map(left), Self::Map(right)) => left.0.is_general(&right.0) && left.1.is_general(&right.1),
            (left, right) => left == right,
        }
    }
}

/// What the parameters stand for.
#[derive(Debug)]
pub(super) struct Parameters {
    known: Vec<Option<Type>>,
    /// What was known of a parameter before each change, to take the changes back.
    changes: Vec<(usize, Option<Type>)>,
    steps: usize,
    /// Whether a limit was exceeded. If so, all results are invalid, and the expression must be rejected.
    pub(super) is_exhausted: bool,
}

impl Parameters {
    pub(super) const fn new() -> Self {
        Self { known: Vec::new(), changes: Vec::new(), steps: MAX_STEPS, is_exhausted: false }
    }

    /// A new one.
    pub(super) fn add(&mut self) -> Type {
        self.known.push(None);
        Type::Parameter(self.known.len() - 1)
    }

    fn known(&self, index: usize) -> Option<&Type> {
        self.known.get(index)?.as_ref()
    }

    fn set(&mut self, index: usize, to: Type) {
        if let Some(known) = self.known.get_mut(index) {
            let before = known.replace(to);
            self.changes.push((index, before));
        }
    }

    /// Whether the work may go on.
    fn step(&mut self, depth: usize) -> bool {
        self.steps = self.steps.saturating_sub(1);
        self.is_exhausted |= self.steps == 0 || depth > MAX_DEPTH;
        !self.is_exhausted
    }

    /// Whether values of the first types can be used for those of the second ones. If so, parameters are bound; if not, none is.
    pub(super) fn fit<'t>(&mut self, pairs: impl IntoIterator<Item = (&'t Type, &'t Type)>) -> bool {
        self.changes.clear();
        let fit = pairs.into_iter().all(|(from, to)| self.is_assignable(from, to, 0));
        if !fit {
            for (index, before) in std::mem::take(&mut self.changes).into_iter().rev() {
                if let Some(known) = self.known.get_mut(index) {
                    *known = before;
                }
            }
        }
        fit
    }

    fn is_assignable(&mut self, from: &Type, to: &Type, depth: usize) -> bool {
        if !self.step(depth) {
            return false;
        }
        if let Type::Parameter(index) = to {
            match self.bind(from, *index, depth) {
                (true, _) => return true,
                (false, true) => return false,
                // The other one may stand for this one.
                (false, false) => {}
            }
        }
        if let Type::Parameter(index) = from {
            return self.bind(to, *index, depth).0;
        }
        match (from, to) {
            (Type::Dyn, _) | (_, Type::Dyn) | (Type::Meta(_), Type::Meta(_)) => true,
            // Messages can be missing.
            (Type::Null, other) | (other, Type::Null) => {
                matches!(other, Type::Null | Type::Timestamp | Type::Duration)
            }
            (Type::List(from), Type::List(to)) => self.is_assignable(from, to, depth + 1),
            (Type::Map(from), Type::Map(to)) => {
                self.is_assignable(&from.0, &to.0, depth + 1) && self.is_assignable(&from.1, &to.1, depth + 1)
            }
            (from, to) => from == to,
        }
    }

    /// Whether a parameter can stand for a type, and whether it stood for one before.
    fn bind(&mut self, with: &Type, index: usize, depth: usize) -> (bool, bool) {
        if *with == Type::Parameter(index) {
            return (true, true);
        }
        if let Some(known) = self.known(index).cloned() {
            if known == *with {
                return (true, true);
            }
            if !self.is_assignable(with, &known, depth + 1) {
                return (false, true);
            }
            let general = if with.is_general(&known) { with.clone() } else { known };
            if self.is_free_of(index, &general, depth) {
                self.set(index, general);
            }
            return (true, true);
        }
        if !self.is_free_of(index, with, depth) {
            return (false, false);
        }
        self.set(index, with.clone());
        (true, false)
    }

    /// Whether a type does not contain a parameter, which would be endless.
    fn is_free_of(&mut self, index: usize, within: &Type, depth: usize) -> bool {
        if !self.step(depth) {
            return false;
        }
        match within {
            Type::Parameter(other) if *other == index => false,
            Type::Parameter(other) => {
                self.known(*other).cloned().is_none_or(|known| self.is_free_of(index, &known, depth + 1))
            }
            Type::List(of) | Type::Meta(Some(of)) => self.is_free_of(index, of, depth + 1),
            Type::Map(of) => self.is_free_of(index, &of.0, depth + 1) && self.is_free_of(index, &of.1, depth + 1),
            _ => true,
        }
    }

    /// The type with what its parameters stand for.
    pub(super) fn resolve(&mut self, of: &Type) -> Type {
        self.resolve_at(of, 0)
    }

    fn resolve_at(&mut self, of: &Type, depth: usize) -> Type {
        if !self.step(depth) {
            return Type::Dyn;
        }
        match of {
            Type::Parameter(index) => match self.known(*index).cloned() {
                Some(known) => self.resolve_at(&known, depth + 1),
                None => of.clone(),
            },
            Type::List(element) => Type::list(self.resolve_at(element, depth + 1)),
            Type::Map(entry) => Type::map(self.resolve_at(&entry.0, depth + 1), self.resolve_at(&entry.1, depth + 1)),
            Type::Meta(Some(named)) => Type::Meta(Some(Rc::new(self.resolve_at(named, depth + 1)))),
            other => other.clone(),
        }
    }
}
