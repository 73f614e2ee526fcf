//! JSON text in the two styles of the engine: that of its Go code, and that of its database.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

/// Go's style: no spaces, sorted keys, three escaped characters, and integers rounded to doubles.
pub(crate) fn go_text(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value, &GO);
    text
}

/// Go's name of a value's type.
pub(crate) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Go's error message for a string that is not JSON.
pub(crate) fn go_problem(text: &str, error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".into();
    }
    // Where the error is, and the character there.
    let line = text.split_inclusive('\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let at = error.column().saturating_sub(1).min(line.len());
    let (before, rest) = line.split_at_checked(at).unwrap_or((line, ""));
    let found = rest.chars().next().unwrap_or(' ');
    let message = error.to_string();
    let is = |start: &str| message.starts_with(start);
    let context = if is("key must be a string") {
        "looking for beginning of object key string".into()
    } else if is("expected ident") {
        literal(before)
    } else if is("trailing characters") {
        "after top-level value".into()
    } else if is("expected `:`") {
        "after object key".into()
    } else if is("expected `,` or `}`") {
        "after object key:value pair".into()
    } else if is("expected `,` or `]`") {
        "after array element".into()
    } else if is("invalid escape") {
        "in string escape code".into()
    } else if is("control character") {
        "in string literal".into()
    } else {
        "looking for beginning of value".into()
    };
    format!("invalid character {} {context}", quoted(found))
}

/// The literal in which a string breaks off, and the expected next character.
fn literal(before: &str) -> String {
    let started = |word: &&str| {
        (1..word.len()).rev().any(|length| word.get(..length).is_some_and(|start| before.ends_with(start)))
    };
    let Some(word) = ["null", "true", "false"].into_iter().find(started) else {
        return "looking for beginning of value".into();
    };
    let next = (1..word.len()).rev().find(|length| word.get(..*length).is_some_and(|start| before.ends_with(start)));
    let expected = word.chars().nth(next.unwrap_or_default()).unwrap_or_default();
    format!("in literal {word} (expecting {})", quoted(expected))
}

fn quoted(char: char) -> String {
    match char {
        '\'' => r"'\''".into(),
        '"' => "'\"'".into(),
        other => format!("'{}'", other.escape_debug()),
    }
}

/// The database's style: a space after colons and commas, shorter keys first.
pub(crate) fn jsonb_text(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value, &JSONB);
    text
}

/// The database's style, as Go sends it inside of another text: without spaces.
pub(crate) fn compact_jsonb_text(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value, &COMPACT_JSONB);
    text
}

struct Style {
    colon: &'static str,
    comma: &'static str,
    short_keys_first: bool,
    rounds_integers: bool,
    escapes_html: bool,
}

const GO: Style = Style { colon: ":", comma: ",", short_keys_first: false, rounds_integers: true, escapes_html: true };
const JSONB: Style =
    Style { colon: ": ", comma: ", ", short_keys_first: true, rounds_integers: false, escapes_html: false };
const COMPACT_JSONB: Style = Style { colon: ":", comma: ",", escapes_html: true, ..JSONB };

fn write_value(text: &mut String, value: &Value, style: &Style) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(flag) => text.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => write_number(text, number, style),
        Value::String(string) => write_string(text, string, style),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push_str(style.comma);
                }
                write_value(text, item, style);
            }
            text.push(']');
        }
        Value::Object(map) => write_map(text, map, style),
    }
}

fn write_map(text: &mut String, map: &Map<String, Value>, style: &Style) {
    let mut entries: Vec<_> = map.iter().collect();
    if style.short_keys_first {
        entries.sort_by_key(|(key, _)| (key.len(), *key));
    } else {
        entries.sort_by_key(|(key, _)| *key);
    }
    text.push('{');
    for (index, (key, value)) in entries.into_iter().enumerate() {
        if index > 0 {
            text.push_str(style.comma);
        }
        write_string(text, key, style);
        text.push_str(style.colon);
        write_value(text, value, style);
    }
    text.push('}');
}

fn write_number(text: &mut String, number: &Number, style: &Style) {
    const EXACT: u64 = 1 << 53;
    match number.as_i64().map(i64::unsigned_abs).or(number.as_u64()) {
        // The engine's maps convert numbers to doubles, so the last digits of large integers are lost.
        Some(size) if style.rounds_integers && size > EXACT => {
            let _ = write!(text, "{:.0}", number.as_f64().unwrap_or_default());
        }
        _ => text.push_str(&number.to_string()),
    }
}

fn write_string(text: &mut String, string: &str, style: &Style) {
    let quoted = Value::from(string).to_string();
    if !style.escapes_html || !quoted.contains(['<', '>', '&']) {
        text.push_str(&quoted);
        return;
    }
    for character in quoted.chars() {
        match character {
            '<' => text.push_str("\\u003c"),
            '>' => text.push_str("\\u003e"),
            '&' => text.push_str("\\u0026"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn each_style_has_its_order_and_its_spaces() {
        let value = json!({"traceparent": "t", "part": "p0", "fx_case": "bulk-3", "n": [1, null]});
        assert_eq!(jsonb_text(&value), r#"{"n": [1, null], "part": "p0", "fx_case": "bulk-3", "traceparent": "t"}"#);
        assert_eq!(go_text(&value), r#"{"fx_case":"bulk-3","n":[1,null],"part":"p0","traceparent":"t"}"#);
        let compact = r#"{"n":[1,null],"part":"p0","fx_case":"bulk-3","traceparent":"t"}"#;
        assert_eq!(compact_jsonb_text(&value), compact);
    }

    #[test]
    fn go_escapes_three_characters_and_loses_large_numbers() {
        assert_eq!(go_text(&json!("<a&b>")), r#""\u003ca\u0026b\u003e""#);
        assert_eq!(go_text(&json!(9_007_199_254_740_993_u64)), "9007199254740992");
        assert_eq!(jsonb_text(&json!(9_007_199_254_740_993_u64)), "9007199254740993");
        assert_eq!(compact_jsonb_text(&json!([9_007_199_254_740_993_u64, "<"])), r#"[9007199254740993,"\u003c"]"#);
    }

    #[test]
    fn what_is_not_json_is_rejected_with_gos_message() {
        for (text, problem) in [
            ("{not json", "invalid character 'n' looking for beginning of object key string"),
            ("no", "invalid character 'o' in literal null (expecting 'u')"),
            ("[falze]", "invalid character 'z' in literal false (expecting 's')"),
            ("x", "invalid character 'x' looking for beginning of value"),
            ("{} {}", "invalid character '{' after top-level value"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (r#"{"a": 1 "b"}"#, "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{", "unexpected end of JSON input"),
        ] {
            let error = serde_json::from_str::<Value>(text).unwrap_err();
            assert_eq!(go_problem(text, &error), problem, "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn both_are_json_of_the_same_value(text in "[ -~\\n]{0,20}", number in -(1i64 << 53)..(1i64 << 53)) {
            let value = json!({text.clone(): [number, text], "b": {"x": true}});
            prop_assert_eq!(&serde_json::from_str::<Value>(&go_text(&value)).unwrap(), &value);
            prop_assert_eq!(&serde_json::from_str::<Value>(&jsonb_text(&value)).unwrap(), &value);
        }
    }
}
