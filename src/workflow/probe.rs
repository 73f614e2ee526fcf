//! Determines, without a value, whether a type can be deserialized from a JSON object.
//!
//! The engine stores no inputs other than objects. A task with another input type would fail at its first run, so the
//! probe checks which kind of value the type requests from its deserializer.

use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde::forward_to_deserialize_any;

/// The kind of value that a type deserializes from, if it is never a JSON object.
pub(super) fn never_an_object<T: DeserializeOwned>() -> Option<&'static str> {
    // This is user code. If it panics, it panics again when it deserializes an input, where it fails the task.
    match std::panic::catch_unwind(|| T::deserialize(Probe).err()) {
        Ok(Some(ProbeResult::Never(what))) => Some(what),
        _ => None,
    }
}

/// What the probe found, as the error that ends it.
#[derive(Debug)]
enum ProbeResult {
    /// The type requests a value of this kind, which is never an object.
    Never(&'static str),
    /// The type may accept an object.
    Maybe,
}

impl fmt::Display for ProbeResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the probe has no value")
    }
}

impl std::error::Error for ProbeResult {}

impl serde::de::Error for ProbeResult {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Maybe
    }
}

/// A deserializer without a value.
struct Probe;

macro_rules! never {
    ($($method:ident: $what:literal;)*) => {
        $(fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ProbeResult> {
            Err(ProbeResult::Never($what))
        })*
    };
}

impl<'de> Deserializer<'de> for Probe {
    type Error = ProbeResult;

    never! {
        deserialize_bool: "a boolean";
        deserialize_i8: "a number";
        deserialize_i16: "a number";
        deserialize_i32: "a number";
        deserialize_i64: "a number";
        deserialize_i128: "a number";
        deserialize_u8: "a number";
        deserialize_u16: "a number";
        deserialize_u32: "a number";
        deserialize_u64: "a number";
        deserialize_u128: "a number";
        deserialize_f32: "a number";
        deserialize_f64: "a number";
        deserialize_char: "a string";
        deserialize_str: "a string";
        deserialize_string: "a string";
        deserialize_bytes: "a list";
        deserialize_byte_buf: "a list";
        deserialize_seq: "a list";
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ProbeResult> {
        Err(ProbeResult::Maybe)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, ProbeResult> {
        Err(ProbeResult::Never("a list"))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        _: V,
    ) -> Result<V::Value, ProbeResult> {
        Err(ProbeResult::Never("a list"))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ProbeResult> {
        // `serde_json` represents raw JSON as a newtype, which can be any value.
        if name.starts_with("$serde_json::") {
            return Err(ProbeResult::Maybe);
        }
        visitor.visit_newtype_struct(self)
    }

    // `None` deserializes from an empty object as `()` does, and `Some` from the inner type.
    forward_to_deserialize_any! { option unit unit_struct map struct enum identifier ignored_any }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Named {
        n: u32,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Number(u32);

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Around(Named);

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Pair(u32, u32);

    #[derive(Deserialize)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "only its shape matters")]
    enum Either {
        Named(Named),
        Number(u32),
    }

    #[derive(Deserialize)]
    #[serde(tag = "kind")]
    #[expect(dead_code, reason = "only its shape matters")]
    enum Tagged {
        Named(Named),
    }

    #[test]
    fn types_that_never_accept_objects_are_detected() {
        assert_eq!(never_an_object::<u32>(), Some("a number"));
        assert_eq!(never_an_object::<Number>(), Some("a number"));
        assert_eq!(never_an_object::<bool>(), Some("a boolean"));
        assert_eq!(never_an_object::<String>(), Some("a string"));
        assert_eq!(never_an_object::<Vec<Named>>(), Some("a list"));
        assert_eq!(never_an_object::<(u32, u32)>(), Some("a list"));
        assert_eq!(never_an_object::<Pair>(), Some("a list"));
    }

    #[test]
    fn types_that_may_accept_objects_are_allowed() {
        assert_eq!(never_an_object::<()>(), None);
        assert_eq!(never_an_object::<Named>(), None);
        assert_eq!(never_an_object::<Around>(), None);
        assert_eq!(never_an_object::<Either>(), None);
        assert_eq!(never_an_object::<Tagged>(), None);
        assert_eq!(never_an_object::<Option<Named>>(), None);
        assert_eq!(never_an_object::<BTreeMap<String, u32>>(), None);
        assert_eq!(never_an_object::<Value>(), None);
        assert_eq!(never_an_object::<Box<RawValue>>(), None);
    }
}
