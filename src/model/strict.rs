//! Serializing JSON without losing data silently.
//!
//! JSON has no NaN and no infinities; `serde_json` writes them as `null`. The engine cannot store U+0000, and stores the numbers
//! of inputs, metadata and parents' outputs as doubles, so integers beyond ±2^53 lose their last digits. This serializer rejects
//! all of these with the path to the value.

use std::fmt::{Display, Write};

use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// The largest integer up to which a double represents every integer.
pub(crate) const MAX_EXACT_INTEGER: u64 = 1 << 53;

/// The name under which `serde_json` serializes raw JSON.
const RAW_JSON: &str = "$serde_json::private::RawValue";

/// What to do with integers that a double cannot represent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Integers {
    /// Reject them, because the engine would change them.
    Exact,
    /// Keep them.
    Any,
}

/// A value that is checked while it is serialized.
pub(crate) struct Strict<'a, T: ?Sized> {
    value: &'a T,
    integers: Integers,
}

impl<'a, T: Serialize + ?Sized> Strict<'a, T> {
    pub(crate) fn new(value: &'a T, integers: Integers) -> Self {
        Self { value, integers }
    }
}

impl<T: Serialize + ?Sized> Serialize for Strict<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Checked { inner: serializer, integers: self.integers, is_raw: false })
    }
}

/// A serializer, or a part of one, that rejects values that JSON or the engine would change.
struct Checked<S> {
    inner: S,
    integers: Integers,
    /// Whether the value is the text of raw JSON.
    is_raw: bool,
}

impl<S> Checked<S> {
    fn over<I>(inner: I, integers: Integers) -> Checked<I> {
        Checked { inner, integers, is_raw: false }
    }

    fn wrap<'a, T: Serialize + ?Sized>(&self, value: &'a T) -> Strict<'a, T> {
        Strict::new(value, self.integers)
    }

    fn check_integer<E: serde::ser::Error>(&self, value: impl Display, magnitude: u128) -> Result<(), E> {
        if self.integers == Integers::Any || magnitude <= u128::from(MAX_EXACT_INTEGER) {
            return Ok(());
        }
        Err(E::custom(format_args!(
            "expected an integer from -{MAX_EXACT_INTEGER} to {MAX_EXACT_INTEGER}, got {value}: the engine stores numbers as \
             doubles; write it as a string"
        )))
    }
}

fn check_float<E: serde::ser::Error>(value: impl Display, is_finite: bool) -> Result<(), E> {
    if is_finite {
        return Ok(());
    }
    Err(E::custom(format_args!("expected a finite number, got {value}: JSON has no others")))
}

fn check_text<E: serde::ser::Error>(text: &str) -> Result<(), E> {
    if text.contains('\0') { Err(nul()) } else { Ok(()) }
}

fn nul<E: serde::ser::Error>() -> E {
    E::custom("expected a string without U+0000, got a string with U+0000: the engine cannot store it")
}

/// Takes everything but U+0000.
struct NoNul;

impl Write for NoNul {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        if text.contains('\0') { Err(std::fmt::Error) } else { Ok(()) }
    }
}

/// Adds a path segment to an error, from the inside out.
fn at<E: serde::ser::Error>(place: impl Display) -> impl FnOnce(E) -> E {
    move |error| E::custom(format_args!("{place}: {error}"))
}

macro_rules! integers {
    ($($method:ident: $type:ty, $magnitude:expr;)*) => {
        $(fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.check_integer(value, $magnitude(value))?;
            self.inner.$method(value)
        })*
    };
}

macro_rules! small_values {
    ($($method:ident: $type:ty;)*) => {
        $(fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.inner.$method(value)
        })*
    };
}

impl<S: Serializer> Serializer for Checked<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Checked<Counted<S::SerializeSeq>>;
    type SerializeTuple = Checked<Counted<S::SerializeTuple>>;
    type SerializeTupleStruct = Checked<Counted<S::SerializeTupleStruct>>;
    type SerializeTupleVariant = Checked<Counted<S::SerializeTupleVariant>>;
    type SerializeMap = Checked<S::SerializeMap>;
    type SerializeStruct = Checked<S::SerializeStruct>;
    type SerializeStructVariant = Checked<S::SerializeStructVariant>;

    small_values! {
        serialize_bool: bool;
        serialize_i8: i8;
        serialize_i16: i16;
        serialize_i32: i32;
        serialize_u8: u8;
        serialize_u16: u16;
        serialize_u32: u32;
        serialize_bytes: &[u8];
    }

    integers! {
        serialize_i64: i64, |value: i64| u128::from(value.unsigned_abs());
        serialize_i128: i128, |value: i128| value.unsigned_abs();
        serialize_u64: u64, u128::from;
        serialize_u128: u128, std::convert::identity;
    }

    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        check_float(value, value.is_finite())?;
        self.inner.serialize_f32(value)
    }

    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        check_float(value, value.is_finite())?;
        self.inner.serialize_f64(value)
    }

    fn serialize_char(self, value: char) -> Result<S::Ok, S::Error> {
        check_text(value.encode_utf8(&mut [0; 4]))?;
        self.inner.serialize_char(value)
    }

    fn serialize_str(self, value: &str) -> Result<S::Ok, S::Error> {
        check_text(value)?;
        self.inner.serialize_str(value)
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        let value = self.wrap(value);
        self.inner.serialize_some(&value)
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit()
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_struct(name)
    }

    fn serialize_unit_variant(self, name: &'static str, index: u32, variant: &'static str) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<S::Ok, S::Error> {
        let value = self.wrap(value);
        self.inner.serialize_newtype_struct(name, &value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let value = self.wrap(value);
        self.inner.serialize_newtype_variant(name, index, variant, &value).map_err(at(variant))
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        Ok(Self::over(Counted::new(self.inner.serialize_seq(len)?), self.integers))
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        Ok(Self::over(Counted::new(self.inner.serialize_tuple(len)?), self.integers))
    }

    fn serialize_tuple_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeTupleStruct, S::Error> {
        Ok(Self::over(Counted::new(self.inner.serialize_tuple_struct(name, len)?), self.integers))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        let inner = self.inner.serialize_tuple_variant(name, index, variant, len)?;
        Ok(Self::over(Counted::new(inner), self.integers))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        Ok(Self::over(self.inner.serialize_map(len)?, self.integers))
    }

    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, S::Error> {
        let inner = self.inner.serialize_struct(name, len)?;
        Ok(Checked { inner, integers: self.integers, is_raw: name == RAW_JSON })
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        Ok(Self::over(self.inner.serialize_struct_variant(name, index, variant, len)?, self.integers))
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        // The text is checked without being stored, because many values are serialized this way, such as ids and times.
        write!(NoNul, "{value}").map_err(|_| nul())?;
        self.inner.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// A sequence that tracks its index for error messages.
struct Counted<S> {
    inner: S,
    index: usize,
}

impl<S> Counted<S> {
    fn new(inner: S) -> Self {
        Self { inner, index: 0 }
    }

    fn next(&mut self) -> usize {
        let index = self.index;
        self.index = index.saturating_add(1);
        index
    }
}

macro_rules! sequences {
    ($($trait:ident, $method:ident;)*) => {
        $(impl<S: $trait> $trait for Checked<Counted<S>> {
            type Ok = S::Ok;
            type Error = S::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
                let (value, index) = (self.wrap(value), self.inner.next());
                self.inner.inner.$method(&value).map_err(at(index))
            }

            fn end(self) -> Result<S::Ok, S::Error> {
                self.inner.inner.end()
            }
        })*
    };
}

sequences! {
    SerializeSeq, serialize_element;
    SerializeTuple, serialize_element;
    SerializeTupleStruct, serialize_field;
    SerializeTupleVariant, serialize_field;
}

impl<S: SerializeStruct> SerializeStruct for Checked<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), S::Error> {
        if self.is_raw {
            check_raw(value, self.integers)?;
            return self.inner.serialize_field(key, value);
        }
        let value = self.wrap(value);
        self.inner.serialize_field(key, &value).map_err(at(key))
    }

    fn skip_field(&mut self, key: &'static str) -> Result<(), S::Error> {
        self.inner.skip_field(key)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.inner.end()
    }
}

impl<S: SerializeStructVariant> SerializeStructVariant for Checked<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), S::Error> {
        let value = self.wrap(value);
        self.inner.serialize_field(key, &value).map_err(at(key))
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.inner.end()
    }
}

impl<S: SerializeMap> SerializeMap for Checked<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        // Integer keys become strings, and strings are kept.
        self.inner.serialize_key(&Strict::new(key, Integers::Any))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        let value = self.wrap(value);
        self.inner.serialize_value(&value)
    }

    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Result<(), S::Error> {
        let value = self.wrap(value);
        let written = self.inner.serialize_entry(&Strict::new(key, Integers::Any), &value);
        written.map_err(|error| match serde_json::to_string(key) {
            Ok(key) => at(key.trim_matches('"'))(error),
            Err(_) => error,
        })
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.inner.end()
    }
}

/// Raw JSON is written unchanged, so its content is parsed and checked.
fn check_raw<T: Serialize + ?Sized, E: serde::ser::Error>(text: &T, integers: Integers) -> Result<(), E> {
    let text = serde_json::to_value(text).map_err(E::custom)?;
    let json: serde_json::Value = serde_json::from_str(text.as_str().unwrap_or_default()).map_err(E::custom)?;
    serde_json::to_writer(std::io::sink(), &Strict::new(&json, integers)).map_err(E::custom)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Serialize;
    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    use super::*;

    fn write<T: Serialize>(value: &T, integers: Integers) -> Result<String, String> {
        serde_json::to_string(&Strict::new(value, integers)).map_err(|error| error.to_string())
    }

    #[derive(Serialize)]
    enum Shape {
        Unit,
        New(f64),
        Tuple(u8, f64),
        Struct { at: Option<f64> },
    }

    #[test]
    fn changed_values_are_rejected_with_their_path() {
        #[derive(Serialize)]
        struct Order {
            id: u64,
            lines: Vec<BTreeMap<&'static str, f64>>,
        }
        let order = |id, price| Order { id, lines: vec![BTreeMap::new(), BTreeMap::from([("price", price)])] };
        assert_eq!(write(&order(1, 0.5), Integers::Exact).unwrap(), r#"{"id":1,"lines":[{},{"price":0.5}]}"#);
        let error = write(&order(u64::MAX, 0.5), Integers::Exact).unwrap_err();
        assert!(
            error.starts_with(
                "id: expected an integer from -9007199254740992 to 9007199254740992, got 18446744073709551615"
            ),
            "{error}"
        );
        assert!(write(&order(u64::MAX, 0.5), Integers::Any).is_ok());
        for (price, text) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf")] {
            let error = write(&order(1, price), Integers::Any).unwrap_err();
            assert!(error.starts_with(&format!("lines: 1: price: expected a finite number, got {text}")), "{error}");
        }
        assert_eq!(
            write(&json!({"a": {"b": "x\0"}}), Integers::Any).unwrap_err(),
            "a: b: expected a string without U+0000, got a string with U+0000: the engine cannot store it"
        );
        assert!(write(&BTreeMap::from([("\0", 1)]), Integers::Any).unwrap_err().contains("U+0000"));
        assert!(write(&'\0', Integers::Any).unwrap_err().contains("U+0000"));
    }

    #[test]
    fn all_shapes_are_checked() {
        let nan = f64::NAN;
        for shape in [Shape::New(nan), Shape::Tuple(0, nan), Shape::Struct { at: Some(nan) }] {
            assert!(write(&shape, Integers::Any).unwrap_err().contains("got NaN"));
        }
        for (fine, text) in [
            (Shape::Unit, r#""Unit""#),
            (Shape::New(1.5), r#"{"New":1.5}"#),
            (Shape::Tuple(1, 2.5), r#"{"Tuple":[1,2.5]}"#),
            (Shape::Struct { at: None }, r#"{"Struct":{"at":null}}"#),
        ] {
            assert_eq!(write(&fine, Integers::Exact).unwrap(), text);
        }
        assert!(write(&(1, [f32::NAN]), Integers::Any).unwrap_err().starts_with("1: 0: "));
    }

    #[test]
    fn integers_that_a_double_represents_are_kept() {
        let edge = i64::try_from(MAX_EXACT_INTEGER).unwrap();
        for fine in [0, 1, -1, edge, -edge] {
            assert_eq!(write(&fine, Integers::Exact).unwrap(), fine.to_string());
        }
        for large in [i128::from(edge) + 1, -i128::from(edge) - 1, i128::from(u64::MAX), i128::MIN] {
            assert!(write(&large, Integers::Exact).is_err(), "{large}");
            assert_eq!(write(&large, Integers::Any).unwrap(), large.to_string());
        }
        // A key is a string by then.
        assert!(write(&BTreeMap::from([(u64::MAX, 1)]), Integers::Exact).is_ok());
    }

    #[test]
    fn raw_json_is_checked_and_written_unchanged() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        assert_eq!(write(&raw(r#"{ "a" : 1.0 }"#), Integers::Exact).unwrap(), r#"{ "a" : 1.0 }"#);
        assert!(write(&raw(r#"{"a":"\u0000"}"#), Integers::Any).unwrap_err().contains("U+0000"));
        assert!(write(&raw("18446744073709551615"), Integers::Exact).unwrap_err().contains("expected an integer"));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-z\\x00]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z]{0,3}", inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        /// What is accepted is written as `serde_json` writes it, and reads as the same value.
        #[test]
        fn what_is_accepted_is_not_changed(value in any_json()) {
            let plain = serde_json::to_string(&value).unwrap();
            match write(&value, Integers::Any) {
                Ok(text) => {
                    prop_assert_eq!(&text, &plain);
                    prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
                }
                Err(_) => prop_assert!(plain.contains("\\u0000")),
            }
        }
    }
}
