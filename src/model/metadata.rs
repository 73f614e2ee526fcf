//! Additional metadata: a JSON object on each run, which the engine adds keys of its own to.

use std::collections::BTreeMap;

use serde_json::Value;

use super::strict::{Integers, Strict};
use crate::error::{Error, Result};

/// Keys of this crate, so that it finds its own runs on the event stream; never shown as the user's.
pub(crate) const OWN_PREFIX: &str = "hatchet_rs__";

/// A limit of ours: metadata is for tags, and every message about a run carries it.
const MAX_BYTES: usize = 64 * 1024;

/// The keys that the engine and this crate add are not the user's.
pub(crate) fn is_reserved(key: &str) -> bool {
    key == "traceparent" || key.starts_with("hatchet__") || key.starts_with(OWN_PREFIX)
}

/// What a user gives a run, checked when it is written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metadata(BTreeMap<String, Value>);

impl Metadata {
    pub(crate) fn insert(&mut self, key: String, value: Value) {
        self.0.insert(key, value);
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Takes these tags too, over those of the same keys.
    pub(crate) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Checks the keys that a user gave.
    pub(crate) fn check(&self) -> Result<()> {
        self.0.keys().try_for_each(|key| check_key(key))
    }

    pub(crate) fn encode(&self) -> Result<String> {
        // Users can only set strings. Other values come from another run, as the engine stores them.
        let text = serde_json::to_string(&Strict::new(&self.0, Integers::Any))
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
    fn keys_that_could_not_be_found_again_are_refused() {
        assert!(one("tenant", "acme").check().is_ok());
        assert_eq!(one("tenant", "acme").encode().unwrap(), r#"{"tenant":"acme"}"#);
        for key in ["", "a:b", "traceparent", "hatchet__event_id", "hatchet_rs__watch"] {
            assert!(one(key, "x").check().unwrap_err().to_string().starts_with("invalid metadata: "), "{key}");
        }
        assert!(
            one("big", &"x".repeat(70_000)).encode().unwrap_err().to_string().contains("expected at most 65536 bytes")
        );
        assert!(one("nul", "\0").encode().unwrap_err().to_string().contains("U+0000"));
    }
}
