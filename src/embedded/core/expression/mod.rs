//! A subset of CEL: paths, literals, comparisons, `&&`, `||`, `!`, `+`, `? :`, `has` and parentheses.
//!
//! Valid CEL outside of the subset is distinguished from invalid CEL: the embedded engine reports that it does not support it.
//!
//! The parser is that of [`crate::model::cel`]. Expressions are untrusted, so it limits their length and their nesting; here, the size of
//! concatenated strings is limited. A chain of operators is one node, so that only nesting uses the stack.

mod ast;
mod eval;
mod lower;

use ast::{Literal, Node};
use serde_json::Value;

pub(crate) use ast::ParseError;
pub(crate) use eval::Names;

/// An expression that can be evaluated.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expression(Node);

impl Expression {
    /// Parses an expression that may use these names.
    pub(crate) fn parse(text: &str, names: &[&str]) -> Result<Self, ParseError> {
        lower::parse(text, names).map(Self)
    }

    pub(crate) const fn constant(value: bool) -> Self {
        Self(Node::Literal(Literal::Bool(value)))
    }

    /// Its value if that is a string.
    pub(crate) fn text(&self, names: &Names<'_>) -> Option<String> {
        match eval::eval(&self.0, names) {
            Ok(eval::Computed::String(text)) => Some(text.into_owned()),
            _ => None,
        }
    }

    /// Its value for a task: a string or a number. Otherwise, the error of the engine.
    pub(crate) fn step_value(&self, names: &Names<'_>) -> Result<StepValue, String> {
        match eval::eval(&self.0, names).map_err(|error| error.to_string())? {
            eval::Computed::String(text) => Ok(StepValue::Text(text.into_owned())),
            eval::Computed::Int(number) => Ok(StepValue::Number(number)),
            #[expect(clippy::cast_possible_truncation, reason = "as the engine truncates it")]
            eval::Computed::Double(number) => Ok(StepValue::Number(number as i64)),
            other => Err(format!("output must evaluate to a string or integer: got {}", other.type_name())),
        }
    }

    /// The value as a boolean, or its type if it is not a boolean. `None` if the evaluation fails.
    pub(crate) fn truth(&self, names: &Names<'_>) -> Option<Truth> {
        Some(match eval::eval(&self.0, names).ok()? {
            eval::Computed::Bool(known) => Truth::Known(known),
            other => Truth::OfType(other.type_name()),
        })
    }

    /// Whether it is true. It is false if its evaluation fails.
    pub(crate) fn is_true(&self, names: &Names<'_>) -> bool {
        matches!(eval::eval(&self.0, names), Ok(eval::Computed::Bool(true)))
    }
}

/// The value of an expression of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StepValue {
    Text(String),
    /// Doubles are truncated.
    Number(i64),
}

/// The value of an expression that should be a boolean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Truth {
    Known(bool),
    /// It has another type, by CEL's name for it.
    OfType(&'static str),
}

/// The value if it is an object, and an empty object otherwise: expressions can rely on fields.
pub(crate) fn object(value: &Value) -> Value {
    if value.is_object() { value.clone() } else { Value::Object(serde_json::Map::new()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::cel::{MAX_DEPTH, MAX_LENGTH};

    fn read(text: &str) -> Result<Expression, ParseError> {
        Expression::parse(text, &["input", "additional_metadata", "event_key", "checksum()"])
    }

    fn with<R>(ask: impl FnOnce(&Names<'_>) -> R) -> R {
        let (input, metadata, key) = (
            json!({"n": 11, "id": "a", "deep": {"x": [1], "yes": true}, "nil": null}),
            json!({"m": "x"}),
            json!("order:1"),
        );
        ask(&Names(&[("input", &input), ("additional_metadata", &metadata), ("event_key", &key)]))
    }

    fn is_true(text: &str) -> bool {
        with(|names| read(text).unwrap_or_else(|problem| panic!("{text}: {problem:?}")).is_true(names))
    }

    #[test]
    fn true_and_false_expressions() {
        for text in [
            "true",
            "input.n == 11",
            "input.n == 11.0",
            "input.n >= 11 && input.n <= 11 && !(input.n < 11)",
            "additional_metadata.m == 'x'",
            "event_key == \"order:1\"",
            "event_key != ''",
            "input.id + ':' + additional_metadata.m == 'a:x'",
            "input.n + 0.5 == 11.5",
            "1 + 2 == 3 || input.nothing == 1",
            "input.nothing == 1 || true",
            "!(input.nothing == 1 && false)",
            "input.deep.yes",
            "(input.id == 'a' ? 10 : 1) == 10 && (input.deep.yes ? input.id : 'b') == 'a'",
            "(has(input.nothing) ? input.nothing : 2) == 2",
            "input.nil == null",
            "input.id != 11",
            "'a' < 'b' && -1 < 0",
            " ( ( input.n ) ) > 10 ",
            "has(input.id) && has(input.deep.x) && has( (input.nil) )",
            "!has(input.nothing) && !has(input.n.deeper) && !has(input.nil.deeper)",
            "input.n == 11 == true",
            r"'it\'s' == 'it\'s' && '\n' != 'n'",
            r"r'\n' != '\n' && '\x41\u0042' == 'AB' && 0x1f == 31 && 1e1 == 10.0",
            "-9223372036854775808 < -9223372036854775807 // the least",
        ] {
            assert!(is_true(text), "{text}");
        }
        for text in [
            "false",
            "input.nothing == 1",
            "input.nothing == 1 && true",
            "input.n",
            "input.id",
            "'text'",
            "input.n < 'a'",
            // Integers and doubles cannot be added.
            "input.n + 1 == 12",
            "input.id == 11",
            "input.n.deeper == 1",
            "input.nil <= null",
            "has(input.nothing)",
            // The value with the field must exist, and must not be a list.
            "!has(input.nothing.deeper)",
            "!has(input.deep.x.deeper)",
            "input.has == 1",
        ] {
            assert!(!is_true(text), "{text}");
        }
    }

    #[test]
    fn a_key_is_a_string() {
        with(|names| {
            let text = |text: &str| read(text).unwrap().text(names);
            assert_eq!(text("input.id + '-' + event_key").as_deref(), Some("a-order:1"));
            assert_eq!(text("''").as_deref(), Some(""));
            for other in ["1", "input.n", "input.nothing", "input.nil", "input.deep", "true"] {
                assert_eq!(text(other), None, "{other}");
            }
        });
    }

    #[test]
    fn invalid_and_unsupported_expressions_are_distinguished() {
        let invalid = [
            "",
            "input.",
            "input.v >",
            "(true",
            "true)",
            "a b",
            "'open",
            "1 +",
            "nobody.x",
            "==",
            "input..x",
            "&& true",
            "'\\q'",
            "#",
            "has",
            "has()",
            "has(input)",
            "has(true)",
            "has(input.id",
            "has(input.id == 'a')",
            "has(nobody.x)",
            "has(input.id).x",
            "has(input['id'])",
        ];
        for text in invalid {
            assert_eq!(read(text), Err(ParseError::Invalid), "{text}");
        }
        let unsupported = [
            "string(input.n)",
            "input.id.startsWith('a')",
            "input['id'] == 'a'",
            "[1, 2]",
            "{'a': 1}",
            "'a' ? 1 : 2",
            "input.yes ? 1 : 'a'",
            "input.yes ? 1 : 2 + 3",
            "input.n * 2 == 4",
            "'a' in input",
            "input.n - 1 == 3",
            "1u == 1u",
            "input.has(1)",
            "has(input.list[0].id)",
            "b'bytes'",
            "0x1fu",
            "checksum(input.id)",
            "5 % 2 == 1",
        ];
        for text in unsupported {
            assert_eq!(read(text), Err(ParseError::Unsupported), "{text}");
        }
        assert_eq!(read("checksum == 'x'"), Err(ParseError::Invalid), "it is no variable");
        // The engine's own function is invalid where it is not declared.
        assert_eq!(Expression::parse("checksum(input.id)", &["input"]), Err(ParseError::Invalid));
        assert_eq!(read(&"(".repeat(10_000)), Err(ParseError::Unsupported), "too deep");
        assert_eq!(read(&"!".repeat(10_000)), Err(ParseError::Unsupported));
        assert_eq!(read(&"has(".repeat(10_000)), Err(ParseError::Unsupported));
    }

    /// Runs on a quarter of the default stack of a thread.
    fn with_little_stack(test: impl FnOnce() + Send + 'static) {
        std::thread::Builder::new().stack_size(512 << 10).spawn(test).unwrap().join().unwrap();
    }

    #[test]
    fn long_expressions_use_no_stack() {
        with_little_stack(|| {
            for (operator, operand, value) in [
                (" || ", "input.n == 1", false),
                (" && ", "input.n == 11", true),
                (" + ", "''", false),
                (" == ", "true", true),
                (" && ", "!(input.nil == 1)", true),
            ] {
                let text = vec![operand; 4000].join(operator);
                let expression = read(&text).unwrap();
                assert_eq!(with(|names| expression.is_true(names)), value, "{operator}");
                assert!(expression.clone() == expression);
            }
        });
    }

    #[test]
    fn deep_expressions_use_little_stack() {
        with_little_stack(|| {
            for (open, close) in [("(true || ", ")"), ("!(true && 1 == ", ")"), ("(1 + ", ")"), ("!", "")] {
                for depth in [10, MAX_DEPTH - 3, MAX_DEPTH * 1000] {
                    let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                    match read(&text) {
                        Ok(expression) => {
                            with(|names| expression.is_true(names));
                            assert!(expression.clone() == expression && depth < MAX_DEPTH);
                        }
                        Err(problem) => assert_eq!((problem, depth > 10), (ParseError::Unsupported, true), "{open}"),
                    }
                }
            }
        });
    }

    #[test]
    fn long_expressions_are_rejected() {
        let longest = format!("'{}' != ''", "x".repeat(MAX_LENGTH - 8));
        assert!(is_true(&longest));
        assert_eq!(read(&format!("{longest} ")), Err(ParseError::Unsupported));
        // Short expressions can produce long strings.
        let names = json!("x".repeat(1 << 20));
        let text = |terms: usize| {
            let expression = Expression::parse(&vec!["input"; terms].join("+"), &["input"]).unwrap();
            expression.text(&Names(&[("input", &names)])).map(|text| text.len())
        };
        assert_eq!((text(4), text(5), text(5000)), (Some(4 << 20), None, None));
    }

    proptest! {
        #[test]
        fn no_string_breaks_it(text in r"[ -~]{0,40}|(\(|!|has\(){0,200}true") {
            if let Ok(expression) = read(&text) {
                with(|names| (expression.text(names), expression.is_true(names)));
            }
        }

        #[test]
        fn no_sequence_of_tokens_breaks_it(
            words in proptest::collection::vec(
                proptest::sample::select(vec!["input", ".", "n", "has", "(", ")", "!", "&&", "||", "==", "<", ">=", "+", "1", "2.5", "'a'", "true", "null"]), 0..20),
        ) {
            if let Ok(expression) = read(&words.join(" ")) {
                with(|names| (expression.text(names), expression.is_true(names)));
            }
        }

        #[test]
        fn it_adds_and_compares_like_integers(a in -1000i32..1000, b in -1000i32..1000, c in -1000i32..1000) {
            prop_assert_eq!(is_true(&format!("{a} + {b} < {c}")), a + b < c);
            prop_assert_eq!(is_true(&format!("{a} < {b} && {b} < {c}")), a < b && b < c);
            prop_assert_eq!(is_true(&format!("{a} == {b} || !({b} >= {c})")), a == b || b < c);
        }

        #[test]
        fn a_string_literal_is_itself(text in "[a-z '\"\\\\]{0,12}") {
            let quoted: String = text.chars().flat_map(|char| match char {
                '\'' | '"' | '\\' => vec!['\\', char],
                other => vec![other],
            }).collect();
            let found = with(|names| read(&format!("'{quoted}'")).unwrap().text(names));
            prop_assert_eq!(found, Some(text));
        }
    }
}
