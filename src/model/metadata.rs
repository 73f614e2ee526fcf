//! Additional metadata: a JSON object of each run, to which the engine adds keys.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;

use super::strict::{Integers, Strict};
use crate::error::{Error, Result};
use crate::telemetry;

/// The prefix of the keys that this crate adds to find its runs on the event stream. They are hidden from users.
pub(crate) const OWN_PREFIX: &str = "hatchet_rs__";

/// The maximum size, set by this crate: metadata is for tags, and each message about a run contains it.
const MAX_BYTES: usize = 64 * 1024;

/// Whether a key was added by the engine or by this crate.
pub(crate) fn is_reserved(key: &str) -> bool {
    key == telemetry::TRACEPARENT || key.starts_with("hatchet__") || key.starts_with(OWN_PREFIX)
}

/// What a user gives a run, checked when it is written.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Metadata(BTreeMap<String, Value>);

impl Metadata {
    /// These tags; of several with the same key, the last one.
    pub(crate) fn of(tags: &[(String, String)]) -> Self {
        Self(tags.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect())
    }

    pub(crate) fn insert(&mut self, key: String, value: Value) {
        self.0.insert(key, value);
    }

    /// The same metadata with the current trace under these keys, if there is one.
    pub(crate) fn with_trace(&self, keys: &[&str]) -> Cow<'_, Self> {
        let Some(traceparent) = telemetry::current_traceparent() else { return Cow::Borrowed(self) };
        let mut traced = self.clone();
        for key in keys {
            traced.insert((*key).to_owned(), traceparent.as_str().into());
        }
        Cow::Owned(traced)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Checks the keys that a user gave.
    pub(crate) fn check(&self) -> Result<()> {
        self.0.keys().try_for_each(|key| check_key(key))
    }

    pub(crate) fn encode(&self) -> Result<String> {
        self.encode_with(&Self::default(), None)
    }

    /// Encodes it together with other tags, which replace those with the same keys.
    pub(crate) fn encode_with(&self, others: &Self, last: Option<(&str, &str)>) -> Result<String> {
        // Users can only set strings. Other values come from another run, as the engine stores them.
        let text = serde_json::to_string(&Strict::new(&Merged { first: self, others, last }, Integers::Any))
            .map_err(|error| Error::invalid("metadata", error))?;
        if text.len() > MAX_BYTES {
            return Err(Error::invalid(
                "metadata",
                format_args!("expected at most {MAX_BYTES} bytes, got {}", text.len()),
            ));
        }
        Ok(text)
    }
}

/// Tags from several places, written without a copy of them.
struct Merged<'a> {
    first: &'a Metadata,
    others: &'a Metadata,
    last: Option<(&'a str, &'a str)>,
}

impl Serialize for Merged<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let is_last = |key: &str| self.last.is_some_and(|(last, _)| last == key);
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in &self.first.0 {
            if !self.others.has(key) && !is_last(key) {
                map.serialize_entry(key, value)?;
            }
        }
        for (key, value) in &self.others.0 {
            if !is_last(key) {
                map.serialize_entry(key, value)?;
            }
        }
        if let Some((key, value)) = self.last {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// Checks a key that a user gives. A colon would make the tag unfindable: filters are cut at the first one.
pub(crate) fn check_key(key: &str) -> Result<()> {
    let problem = if key.is_empty() {
        "expected a key with at least one character, got an empty key".to_owned()
    } else if key.contains(':') {
        format!("expected a key without a colon, got {key:?}")
    } else if is_reserved(key) {
        format!("expected a key that is not reserved for the engine or this crate, got {key:?}")
    } else {
        return Ok(());
    };
    Err(Error::invalid("metadata", problem))
}

/// What the server shows, sorted into the user's keys and the others.
pub(crate) fn split(all: BTreeMap<String, Value>) -> (BTreeMap<String, Value>, BTreeMap<String, Value>) {
    all.into_iter().partition(|(key, _)| !is_reserved(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, value: &str) -> Metadata {
        let mut metadata = Metadata::default();
        metadata.insert(key.into(), value.into());
        metadata
    }

    #[test]
    fn keys_that_could_not_be_found_again_are_rejected() {
        assert!(one("tenant", "acme").check().is_ok());
        assert_eq!(one("tenant", "acme").encode().unwrap(), r#"{"tenant":"acme"}"#);
        for key in ["", "a:b", "traceparent", "hatchet__event_id", "hatchet_rs__watch"] {
            assert!(one(key, "x").check().unwrap_err().to_string().starts_with("invalid metadata: "), "{key}");
        }
        assert!(
            one("big", &"x".repeat(70_000)).encode().unwrap_err().to_string().contains("expected at most 65536 bytes")
        );
        let merged = one("a", "1").encode_with(&one("b", "2"), Some(("c", "3"))).unwrap();
        assert_eq!(merged, r#"{"a":"1","b":"2","c":"3"}"#);
        let merged = one("a", "1").encode_with(&one("a", "2"), None).unwrap();
        assert_eq!(merged, r#"{"a":"2"}"#);
        assert_eq!(one("a", "1").encode_with(&one("a", "2"), Some(("a", "3"))).unwrap(), r#"{"a":"3"}"#);
        assert!(one("nul", "\0").encode().unwrap_err().to_string().contains("U+0000"));
    }
}
