//! Expressions with the results of cel-go 0.29.0, with the declarations and the functions of the engine.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::ast::ParseError;
use super::check::parse;
use super::environment::Environment;
use super::eval::{Names, eval};
use super::value::{Map, Value};

/// The input in its first line. In each other line: the environment, the expression, and the result.
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cel_go.tsv");

/// A value as it is written in the table.
fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => format!("{number}u"),
        Value::Double(number) => format!("double({})", super::convert::double(*number)),
        Value::String(text) => json!(**text).to_string(),
        Value::Bytes(bytes) => bytes.iter().fold("b".to_owned(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        }),
        Value::List(elements) => {
            let elements: Vec<_> = elements.iter().map(|element| shown(&element)).collect();
            format!("[{}]", elements.join(", "))
        }
        Value::Map(map) => {
            let entry = |(key, value): (Value<'_>, Value<'_>)| format!("{}: {}", shown(&key), shown(&value));
            let mut entries: Vec<_> = match map {
                Map::Json(fields) => {
                    fields.iter().map(|(key, value)| (Value::text(&**key), value.into())).map(entry).collect()
                }
                Map::Made(entries, _) => entries.iter().cloned().map(entry).collect(),
            };
            entries.sort();
            format!("map{{{}}}", entries.join(", "))
        }
        Value::Type(name) => format!("type({name})"),
    }
}

fn result(environment: &str, text: &str, input: &Json) -> String {
    let environment = match environment {
        "w" => &Environment::KEY,
        "s" => &Environment::LIMIT,
        "e" => &Environment::FILTER,
        "b" => &Environment::CONDITION,
        other => panic!("{other}"),
    };
    let expression = match parse(text, environment) {
        Ok(expression) => expression,
        Err(ParseError::Invalid) => return "invalid".into(),
        Err(ParseError::Unsupported) => return "unsupported".into(),
    };
    let (metadata, run, id) = (json!({"m": "x"}), json!("r-1"), json!("1c2d3e4f-0000-4000-8000-000000000001"));
    let (key, payload) = (json!("order:1"), json!({"p": 1}));
    let names = [
        ("input", input),
        ("output", input),
        ("additional_metadata", &metadata),
        ("workflow_run_id", &run),
        ("event_id", &id),
        ("event_key", &key),
        ("payload", &payload),
    ];
    match eval(&expression, &Names(&names)) {
        Ok(value) => shown(&value),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn results_are_those_of_cel_go() {
    let table = std::fs::read_to_string(TABLE).unwrap();
    let mut lines = table.lines();
    let input: Json = serde_json::from_str(lines.next().unwrap()).unwrap();
    let (mut wrong, mut count) = (String::new(), 0);
    for line in lines {
        let columns: Vec<_> = line.split('\t').collect();
        let [environment, text, expected] = columns[..] else { panic!("{line}") };
        let found = result(environment, text, &input);
        count += 1;
        if found != expected {
            writeln!(wrong, "{environment} {text}\n    found    {found}\n    expected {expected}").unwrap();
        }
    }
    assert!(count >= 1_123, "{count}");
    assert!(wrong.is_empty(), "\n{wrong}");
}
