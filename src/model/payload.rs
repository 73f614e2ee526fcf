//! Parsing payloads, and serializing inputs and outputs.

use std::fmt::Display;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::strict::{Integers, Strict};
use crate::error::{Error, ErrorKind, Result};
use crate::value::{Payload, WRAPPER, read, unwrapped};

impl Payload {
    /// Deserializes the value.
    ///
    /// An output that was not a JSON object is unwrapped first. An empty output is deserialized from `null`, or from `{}` if the type
    /// does not accept `null`.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if the JSON does not match the type; the source of the error contains the position.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        self.parse_as(&"the value")
    }

    /// The same, with the name of the value for the error message.
    pub(crate) fn parse_as<T: DeserializeOwned>(&self, name: &dyn Display) -> Result<T> {
        read(self.unwrapped()).map_err(|error| {
            let text = format!("failed to deserialize {name} as {}", std::any::type_name::<T>());
            Error::new(ErrorKind::Decode, text).with_source(error)
        })
    }
}

/// Serializes the input of a run to a JSON object. `()` and `None` become an empty object.
pub(crate) fn encode_input<T: Serialize + ?Sized>(field: impl Display, value: &T) -> Result<String> {
    let text = encode(&field, value, Integers::Exact)?;
    match text.as_bytes().first() {
        Some(b'{') => Ok(text),
        _ if text == "null" => Ok("{}".into()),
        _ => Err(Error::invalid(field, format_args!("expected a JSON object, got {}", excerpt(&text)))),
    }
}

/// Serializes the output of a task, wrapped unless it is a JSON object. The run's result keeps all integers; the outputs that later
/// tasks receive do not.
pub(crate) fn encode_output<T: Serialize + ?Sized>(value: &T, has_dependents: bool) -> Result<String> {
    let text = encode(&"output", value, if has_dependents { Integers::Exact } else { Integers::Any })?;
    // An object that looks like a wrapper is wrapped, too, so that it is unwrapped to itself.
    let whole = text.starts_with('{') && unwrapped(&text).is_none();
    Ok(if whole { text } else { format!("{{\"{WRAPPER}\":{text}}}") })
}

fn encode<T: Serialize + ?Sized>(field: &dyn Display, value: &T, integers: Integers) -> Result<String> {
    serde_json::to_string(&Strict::new(value, integers)).map_err(|error| {
        // If plain `serde_json` can serialize the value, the checks rejected it; otherwise the type itself failed.
        if serde_json::to_writer(std::io::sink(), value).is_ok() {
            return Error::invalid(field, error);
        }
        Error::new(ErrorKind::Encode, format!("failed to serialize the {field} as JSON"))
            .with_source(error)
            .without_side_effects()
    })
}

/// Whether JSON text contains a NUL inside a string: `\u0000` after an even number of backslashes.
#[cfg(feature = "embedded")]
pub(crate) fn has_nul(json: &str) -> bool {
    json.match_indices("\\u0000")
        .any(|(at, _)| json.as_bytes().iter().take(at).rev().take_while(|&&byte| byte == b'\\').count() % 2 == 0)
}

/// A string that is cut, with a note, if it has more than this many bytes.
pub(crate) fn cut(mut text: String, max_bytes: usize) -> String {
    let length = text.len();
    if length <= max_bytes {
        return text;
    }
    let end = (0..=max_bytes).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or_default());
    format!("{text}… ({length} bytes, cut at {max_bytes})")
}

/// The start of a string that may be long, for a message.
pub(crate) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("{}…", text.get(..cut).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn there_and_back(value: &Value) -> Value {
        Payload::output(&encode_output(value, false).unwrap()).parse().unwrap()
    }

    #[test]
    fn an_output_that_is_no_object_comes_back_as_it_was_given() {
        for value in [
            json!(null),
            json!(7),
            json!("a"),
            json!([1, 2]),
            json!({"a": 1}),
            json!({}),
            json!({"_value": {"_value": 5}}),
        ] {
            assert_eq!(there_and_back(&value), value);
        }
        assert_eq!(encode_output(&7, false).unwrap(), r#"{"_value":7}"#);
        assert_eq!(encode_output(&json!({"_value": 7}), false).unwrap(), r#"{"_value":{"_value":7}}"#);
        Payload::output(&encode_output(&(), false).unwrap()).parse::<()>().unwrap();
    }

    #[test]
    fn an_input_is_never_unwrapped() {
        assert_eq!(Payload::input(r#"{"_value":5}"#).parse::<Value>().unwrap(), json!({"_value": 5}));
    }

    #[test]
    fn an_object_that_only_looks_wrapped_is_left_alone() {
        let text = r#"{"_value":1,"more":2}"#;
        assert_eq!(Payload::output(text).parse::<Value>().unwrap(), json!({"_value": 1, "more": 2}));
    }

    #[test]
    fn an_empty_output_reads_as_nothing() {
        Payload::output("").parse::<()>().unwrap();
        assert_eq!(Payload::output("").parse::<Option<u8>>().unwrap(), None);
        assert_eq!(Payload::output("").parse::<std::collections::BTreeMap<String, u8>>().unwrap().len(), 0);
        assert_eq!(Payload::output("").parse::<u8>().unwrap_err().kind(), ErrorKind::Decode);
    }

    #[test]
    fn an_input_is_an_object() {
        assert_eq!(encode_input("input", &()).unwrap(), "{}");
        Payload::input("{}").parse::<()>().unwrap();
        let error = encode_input("input", &[1, 2]).unwrap_err();
        assert_eq!(error.to_string(), "invalid input: expected a JSON object, got [1,2]");
        assert!(encode_input("input", &json!({"a": "\0"})).unwrap_err().to_string().contains("U+0000"));
    }

    #[test]
    fn values_that_the_engine_would_change_are_rejected() {
        let rejected = |value: Value| encode_input("input", &value).unwrap_err();
        let error = rejected(json!({"id": u64::MAX}));
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().starts_with("invalid input: id: expected an integer from -9007199254740992 to 9007199254740992, got 18446744073709551615"), "{error}");
        let error = encode_input("input", &std::collections::BTreeMap::from([("x", f64::NAN)])).unwrap_err();
        assert!(error.to_string().starts_with("invalid input: x: expected a finite number, got NaN"), "{error}");
        // A run's own result keeps them.
        assert_eq!(encode_output(&u64::MAX, false).unwrap(), r#"{"_value":18446744073709551615}"#);
        assert!(encode_output(&u64::MAX, true).unwrap_err().to_string().contains("write it as a string"));
        assert_eq!(encode_output(&Some(f64::NAN), false).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn values_that_cannot_be_serialized_are_encode_errors() {
        let map = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert_eq!(encode_input("input", &map).unwrap_err().kind(), ErrorKind::Encode);
    }

    proptest! {
        #[test]
        fn every_float_comes_back_with_the_same_bits(value in any::<f64>().prop_filter("JSON has it", |value| value.is_finite())) {
            let back: f64 = Payload::output(&encode_output(&value, true).unwrap()).parse().unwrap();
            prop_assert_eq!(back.to_bits(), value.to_bits());
        }

        #[cfg(feature = "embedded")]
        #[test]
        fn a_nul_is_found_exactly_where_there_is_one(text in "[a\\\\\\x00u0]{0,12}") {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(has_nul(&json), text.contains('\0'));
        }

        #[test]
        fn any_text_is_read_or_rejected(text in ".*") {
            let _ = Payload::output(&text).parse::<Value>();
            prop_assert!(excerpt(&text).chars().count() <= 61);
        }
    }
}
