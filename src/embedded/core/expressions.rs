//! The part of CEL that conditions need: paths, literals, comparisons, and what joins them.

use serde_json::Value;

/// An expression over one value, that the engine calls `input` or `output`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expression {
    Literal(Value),
    Path(Vec<String>),
    Has(Vec<String>),
    Not(Box<Self>),
    Compare(Box<Self>, Comparison, Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    AtMost,
    Less,
    AtLeast,
    More,
}

/// The longer signs first.
const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("<", Comparison::Less),
    (">", Comparison::More),
];
/// An expression may be nested so deep.
const DEEPEST: usize = 32;

impl Expression {
    /// Reads a text. What is more than this part of CEL, or none at all, is nothing.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::Literal(true.into()));
        }
        let mut reader = Reader { rest: text.trim_start(), depth: 0 };
        let expression = reader.either()?;
        reader.rest.is_empty().then_some(expression)
    }

    /// Whether it is true of a value. What cannot be worked out is not.
    pub(super) fn is_true(&self, of: &Value) -> bool {
        self.value(of) == Some(Value::Bool(true))
    }

    fn value(&self, of: &Value) -> Option<Value> {
        let flag = |expression: &Self| expression.value(of).and_then(|value| value.as_bool());
        match self {
            Self::Literal(value) => Some(value.clone()),
            Self::Path(path) => find(of, path).cloned(),
            Self::Has(path) => Some(find(of, path).is_some().into()),
            Self::Not(inner) => Some((!flag(inner)?).into()),
            // One side is enough where it decides, even if the other cannot be worked out.
            Self::And(one, other) => match (flag(one), flag(other)) {
                (Some(false), _) | (_, Some(false)) => Some(false.into()),
                (one, other) => Some((one? && other?).into()),
            },
            Self::Or(one, other) => match (flag(one), flag(other)) {
                (Some(true), _) | (_, Some(true)) => Some(true.into()),
                (one, other) => Some((one? || other?).into()),
            },
            Self::Compare(one, comparison, other) => {
                compare(&one.value(of)?, *comparison, &other.value(of)?).map(Value::from)
            }
        }
    }
}

fn find<'a>(of: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(of, |value, name| value.get(name))
}

fn compare(one: &Value, comparison: Comparison, other: &Value) -> Option<bool> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let order = match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64()?.partial_cmp(&other.as_f64()?),
        (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
        (Value::Bool(one), Value::Bool(other)) => Some(one.cmp(other)),
        _ => (one == other).then_some(Equal),
    };
    Some(match comparison {
        Comparison::Equal => order == Some(Equal),
        Comparison::NotEqual => order != Some(Equal),
        Comparison::Less => order? == Less,
        Comparison::More => order? == Greater,
        Comparison::AtMost => order? != Greater,
        Comparison::AtLeast => order? != Less,
    })
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl Reader<'_> {
    fn takes(&mut self, sign: &str) -> bool {
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn either(&mut self) -> Option<Expression> {
        let mut all = self.both()?;
        while self.takes("||") {
            all = Expression::Or(Box::new(all), Box::new(self.both()?));
        }
        Some(all)
    }

    fn both(&mut self) -> Option<Expression> {
        let mut all = self.comparison()?;
        while self.takes("&&") {
            all = Expression::And(Box::new(all), Box::new(self.comparison()?));
        }
        Some(all)
    }

    fn comparison(&mut self) -> Option<Expression> {
        let one = self.single()?;
        let Some((_, comparison)) = COMPARISONS.into_iter().find(|(sign, _)| self.takes(sign)) else {
            return Some(one);
        };
        Some(Expression::Compare(Box::new(one), comparison, Box::new(self.single()?)))
    }

    fn single(&mut self) -> Option<Expression> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        let read = self.atom();
        self.depth -= 1;
        read
    }

    fn atom(&mut self) -> Option<Expression> {
        if self.takes("!") {
            return Some(Expression::Not(Box::new(self.single()?)));
        }
        if self.takes("(") {
            let inner = self.either()?;
            return self.takes(")").then_some(inner);
        }
        if self.rest.starts_with(['"', '\'']) {
            return self.text();
        }
        if self.rest.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            let end = self.rest.find(|c: char| !c.is_ascii_digit() && !"-.".contains(c)).unwrap_or(self.rest.len());
            let (number, rest) = self.rest.split_at_checked(end)?;
            self.rest = rest.trim_start();
            return Some(Expression::Literal(serde_json::from_str(number).ok()?));
        }
        self.word()
    }

    /// A text without anything escaped.
    fn text(&mut self) -> Option<Expression> {
        let quote = self.rest.chars().next()?;
        let (text, rest) = self.rest.strip_prefix(quote)?.split_once(quote)?;
        self.rest = rest.trim_start();
        (!text.contains('\\')).then(|| Expression::Literal(text.into()))
    }

    fn word(&mut self) -> Option<Expression> {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && !"_.".contains(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest.trim_start();
        match word {
            "true" => return Some(Expression::Literal(true.into())),
            "false" => return Some(Expression::Literal(false.into())),
            "null" => return Some(Expression::Literal(Value::Null)),
            "has" => {
                let inner = self.takes("(").then(|| self.word())??;
                let Expression::Path(path) = inner else { return None };
                return (self.takes(")") && !path.is_empty()).then_some(Expression::Has(path));
            }
            _ => {}
        }
        let mut names = word.split('.');
        let is_root = matches!(names.next(), Some("input" | "output"));
        let names: Vec<_> = names.map(str::to_owned).collect();
        (is_root && names.iter().all(|name| !name.is_empty())).then_some(Expression::Path(names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_is_true_of_a_value() {
        let value = json!({"x": 5, "y": {"z": "text"}, "skipped": true});
        for text in [
            "",
            "true",
            "output.x == 5",
            "output.x > 4.5 && output.y.z == 'text'",
            "output.x < 4 || output.skipped",
            "!(output.x <= 4)",
            "has(output.skipped) && output.skipped",
            "!has(output.nope)",
            "output.y.z != \"other\"",
            "input.x >= 5",
            "output.nope > 1 || true",
        ] {
            assert!(Expression::parse(text).unwrap().is_true(&value), "{text}");
        }
        for text in ["false", "output.x", "output.x > 5", "output.nope > 1", "output.y.z > 1", "has(output.y.nope)"] {
            assert!(!Expression::parse(text).unwrap().is_true(&value), "{text}");
        }
        for text in
            ["output.x >", "checksum(input)", "output.x + 1 == 6", "x == 5", "output. x", "((true)", "a b", "has(true)"]
        {
            assert_eq!(Expression::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_breaks_it(text in r#"[!()a-z0-9."'=<>&| _-]{0,40}|(\(|!){0,200}true"#) {
            if let Some(expression) = Expression::parse(&text) {
                expression.is_true(&json!({"a": 1}));
            }
        }
    }
}
