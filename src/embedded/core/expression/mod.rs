//! The part of CEL that the embedded engine evaluates, with the results and the error texts of cel-go, which the engine uses.
//!
//! Supported: all literals, lists and maps; fields and indexes; all operators; the macros `has`, `all`, `exists`, `exists_one`, `map` and
//! `filter`; conversions between the types below; the functions of strings, with those of cel-go's extension where the engine has it; and
//! the engine's own `checksum`. Types are checked before anything is evaluated, as in cel-go: what its checker rejects is invalid here.
//!
//! Not supported: `matches`, `format`, timestamps and durations, messages, and names in the package `google`. An expression that uses them
//! is distinguished from invalid CEL: the embedded engine reports that it does not support it.
//!
//! The parser is that of [`crate::model::cel`]. Expressions and inputs are untrusted. The parser limits the length and the nesting of
//! expressions; here, the nesting of nodes, of types and of values is limited, and the number of steps and the size of the values of an
//! evaluation. A chain of operators is one node, so that only nesting uses the stack.

mod ast;
mod budget;
mod check;
mod checksum;
mod compare;
mod convert;
mod environment;
mod error;
mod eval;
mod functions;
mod operators;
mod signatures;
mod strings;
mod types;
mod value;

#[cfg(test)]
mod oracle;

use ast::{Literal, Node};
use serde_json::Value as Json;
use value::Value;

pub(crate) use ast::ParseError;
pub(crate) use environment::Environment;
pub(crate) use eval::Names;

/// An expression that can be evaluated.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expression(Node);

impl Expression {
    /// Parses an expression that may use what is declared in an environment.
    pub(crate) fn parse(text: &str, environment: &Environment) -> Result<Self, ParseError> {
        check::parse(text, environment).map(Self)
    }

    pub(crate) const fn constant(value: bool) -> Self {
        Self(Node::Literal(Literal::Bool(value)))
    }

    /// Its value if that is a string.
    pub(crate) fn text(&self, names: &Names<'_>) -> Option<String> {
        match eval::eval(&self.0, names) {
            Ok(Value::String(text)) => Some(text.to_string()),
            _ => None,
        }
    }

    /// Its value for a task: a string or a number. Otherwise, the error of the engine.
    pub(crate) fn step_value(&self, names: &Names<'_>) -> Result<StepValue, String> {
        match eval::eval(&self.0, names).map_err(|error| error.to_string())? {
            Value::String(text) => Ok(StepValue::Text(text.to_string())),
            Value::Int(number) => Ok(StepValue::Number(number)),
            #[expect(clippy::cast_possible_truncation, reason = "as the engine truncates it")]
            Value::Double(number) => Ok(StepValue::Number(number as i64)),
            other => Err(format!("output must evaluate to a string or integer: got {}", other.type_name())),
        }
    }

    /// The value as a boolean, or its type if it is not a boolean. Otherwise, the error of the engine.
    pub(crate) fn truth(&self, names: &Names<'_>) -> Result<Truth, String> {
        Ok(match eval::eval(&self.0, names).map_err(|error| error.to_string())? {
            Value::Bool(known) => Truth::Known(known),
            other => Truth::OfType(other.type_name()),
        })
    }

    /// Whether it is true. It is false if its evaluation fails.
    pub(crate) fn is_true(&self, names: &Names<'_>) -> bool {
        matches!(eval::eval(&self.0, names), Ok(Value::Bool(true)))
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
pub(crate) fn object(value: &Json) -> Json {
    if value.is_object() { value.clone() } else { Json::Object(serde_json::Map::new()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::cel::{MAX_DEPTH, MAX_LENGTH};

    fn read(text: &str) -> Result<Expression, ParseError> {
        Expression::parse(text, &Environment::FILTER)
    }

    fn with<R>(test: impl FnOnce(&Names<'_>) -> R) -> R {
        let (input, metadata, key) = (
            json!({"n": 11, "id": "a", "deep": {"x": [1], "yes": true}, "nil": null}),
            json!({"m": "x"}),
            json!("order:1"),
        );
        test(&Names(&[("input", &input), ("additional_metadata", &metadata), ("event_key", &key)]))
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
        let ill_typed = [
            "'a' ? 1 : 2",
            "input.yes ? 1 : 'a'",
            "1 == 'a'",
            "1 < 2.0",
            "1 + 1.0",
            "'a' && true",
            "!1",
            "[1][0] == 'a'",
            "[1].map(x, x)[0] + 'a'",
            "{'a': 1}.a.b",
            "input[1]",
            "event_key.x",
            "size(1)",
            "input.id.startsWith(1)",
            "[1].all(x, x)",
            "'abc'.all(x, true)",
            "input.has(1)",
            "input.nobody()",
            "input.?id",
            "[?input.id]",
            "!-input.n",
            // Also where something is not supported.
            "timestamp(input.t) < 1",
            "timestamp(1u)",
            "'a'.format('x')",
            "matches(1, 'b')",
            "Duration{seconds: 1}",
        ];
        for text in ill_typed {
            assert_eq!(read(text), Err(ParseError::Invalid), "{text}");
        }
        let unsupported = [
            "input.id.matches('a')",
            "matches('a', 'b') || true",
            "timestamp('2024-01-01T00:00:00Z') > timestamp(0)",
            "duration('1h') + duration(input.x) == null",
            "string(duration('1h'))",
            "input.t.getHours()",
            "'a'.format(['x'])",
            "google.protobuf.Duration{seconds: 1}",
            "google.protobuf.Timestamp",
        ];
        for text in unsupported {
            assert_eq!(read(text), Err(ParseError::Unsupported), "{text}");
        }
        assert_eq!(read("checksum == 'x'"), Err(ParseError::Invalid), "it is no variable");
        // The engine's own function is invalid where it is not declared.
        assert_eq!(Expression::parse("checksum(input.id)", &Environment::CONDITION), Err(ParseError::Invalid));
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
            for (open, inner, close) in [
                ("(true || ", "true", ")"),
                ("!(true && true == ", "true", ")"),
                ("(1 + ", "1", ")"),
                ("!", "true", ""),
                ("[", "1", "]"),
                ("dyn({'k': ", "1", "}).k"),
                ("string(dyn(", "1", "))"),
                ("[1].map(x, ", "1", ")[0]"),
                ("[1].exists(x, x == 1 && dyn(", "1", ") == 1)"),
                ("(true ? true || true && dyn(1) == 1 + 2 * -dyn(", "1", ") : true)"),
            ] {
                for depth in [10, MAX_DEPTH / 2, MAX_DEPTH - 3, MAX_DEPTH * 1000] {
                    let text = format!("{}{inner}{}", open.repeat(depth), close.repeat(depth));
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
            let expression = Expression::parse(&vec!["event_key"; terms].join("+"), &Environment::FILTER).unwrap();
            expression.text(&Names(&[("event_key", &names)])).map(|text| text.len())
        };
        assert_eq!((text(4), text(5), text(5000)), (Some(4 << 20), None, None));
    }

    /// The value for a task, with an input.
    fn value_with(text: &str, input: &Json) -> Result<StepValue, String> {
        read(text).unwrap_or_else(|problem| panic!("{text}: {problem:?}")).step_value(&Names(&[("input", input)]))
    }

    #[test]
    fn long_evaluations_end() {
        let too_large = Err("the evaluation exceeds a limit of the embedded engine".to_owned());
        let numbers: Vec<_> = (0..1000).collect();
        let many = vec![0; 200_000];
        let input = json!({"list": numbers, "many": many, "text": "x".repeat(1 << 20), "map": {"a": 1}});
        let bytes = format!("size(input.list.map(a, b'{}'))", "x".repeat(90_000));
        let nested =
            "string(input.list.filter(a, a < 100).all(a, input.list.filter(b, b < 100).all(b, a >= 0 && b >= 0)))";
        assert_eq!(value_with(nested, &input), Ok(StepValue::Text("true".into())));
        for text in [
            // Time.
            "string(input.list.all(a, input.list.exists(b, a == b)))",
            "size(input.list.map(a, input.list.map(b, input.list.map(c, c))))",
            "input.list.all(a, input.list.all(b, input.text == input.text + '')) ? 1 : 2",
            "input.list.all(a, input.list.all(b, input.text in input.map || true)) ? 1 : 2",
            "size(input.list.filter(a, input.list == input.list && input.list == input.list))",
            // Space.
            "size(input.list.map(a, input.text + input.text))",
            "size(input.list.map(a, input.text.split('')))",
            "size(input.text.replace('x', 'xxxxx'))",
            "size(input.list.map(a, input.text).join())",
            "size(input.list.map(a, input.list + input.list + input.list))",
            "size(input.list.filter(a, a < 100).map(a, bytes(input.text)))",
            "size([bytes(input.text)].map(b, input.list.filter(a, a < 100).map(a, string(b)))[0])",
            &bytes,
            "size(input.many.map(a, a))",
            "size(input.many.filter(a, true))",
        ] {
            assert_eq!(value_with(text, &input), too_large, "{text}");
        }
        assert_eq!(value_with("input.many.exists_one(a, true) ? 1 : 2", &input), Ok(StepValue::Number(2)));
    }

    #[test]
    fn comparisons_of_large_maps_read_only_what_they_need() {
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let map = |prefix: &str| (0..200_000).map(|key| (format!("{prefix}{key}"), json!(1))).collect();
            let (a, b): (serde_json::Map<_, _>, serde_json::Map<_, _>) = (map("a"), map("b"));
            let input = json!({"a": a, "b": b, "l": vec![0; 1000]});
            let text = "input.l.all(x, input.l.all(y, input.a != input.b)) ? 1 : 2";
            done.send(value_with(text, &input)).unwrap();
        });
        // A small part of a second. With work for each key, it is minutes.
        let found = is_done.recv_timeout(std::time::Duration::from_secs(20)).expect("it takes too long");
        assert_eq!(found, Err("the evaluation exceeds a limit of the embedded engine".to_owned()));
    }

    #[test]
    fn nested_types_and_values_are_limited() {
        with_little_stack(|| {
            let chain = |step: &str, length: usize| format!("size([1]{})", step.repeat(length));
            let names = Names(&[]);
            for step in [".map(a, [a])", ".map(a, {1: a, 2: a})", ".map(a, dyn([a]))", ".map(a, dyn({1: a, 2: a}))"] {
                assert_eq!(read(&chain(step, 5)).unwrap().step_value(&names), Ok(StepValue::Number(1)), "{step}");
                let long = read(&chain(step, 3000));
                let evaluated = long.map(|expression| expression.step_value(&names).unwrap_err());
                match evaluated {
                    Ok(error) => assert!(step.contains("dyn") && error.contains("limit"), "{step}: {error}"),
                    Err(problem) => assert_eq!((problem, step.contains("dyn")), (ParseError::Unsupported, false)),
                }
            }
            // The keys of maps are nested, too.
            let lists = |inner: &str| format!("{}{inner}{}", "[".repeat(50), "]".repeat(50));
            let step = format!(".map(a, dyn({{{}: 1}}))", lists("dyn(a)"));
            let error = read(&chain(&step, 150)).unwrap().step_value(&names).unwrap_err();
            assert!(error.contains("limit"), "{error}");
            // Each list has elements of any type, which is that of the list before it.
            let lists = |count: usize| read(&(vec!["[]"; count].join(" + ") + " == [[]]")).map(|_| ());
            assert_eq!((lists(20), lists(20_000)), (Ok(()), Err(ParseError::Unsupported)));
        });
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
                proptest::sample::select(vec![
                    "input", ".", "n", "has(", "(", ")", "!", "&&", "||", "==", "<", ">=", "+", "-", "*", "%", "in", "1",
                    "2u", "2.5", "'a'", "b'a'", "true", "null", "[", "]", "{", "}", ":", ",", "?", ".all(x,", ".map(x,",
                    "x", "size(", "string(", ".split(", "deep", "id", "int",
                ]),
                0..20,
            ),
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
