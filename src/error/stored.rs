//! The serialized form of an error.

use std::error::Error as StdError;
use std::iter::successors;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Error, ErrorKind};

/// What is stored of an error. Its causes may have any type, so only their messages are.
#[derive(Serialize, Deserialize)]
struct Stored {
    kind: ErrorKind,
    message: String,
    is_transient: bool,
    has_no_side_effects: bool,
    source: Option<String>,
}

/// An error is serialized as its kind, its message, the messages of its causes, and the predicates that decide about a retry. The run, the
/// status of the server and the delay before a retry are not.
impl Serialize for Error {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let causes: Vec<_> = successors(self.source(), |&cause| cause.source()).map(ToString::to_string).collect();
        let stored = Stored {
            kind: self.kind(),
            message: self.to_string(),
            is_transient: self.is_transient(),
            has_no_side_effects: self.has_no_side_effects(),
            source: (!causes.is_empty()).then(|| causes.join(": ")),
        };
        stored.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Error {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = Stored::deserialize(deserializer)?;
        let mut error = Self::new(stored.kind, stored.message);
        error.0.transient = stored.is_transient;
        error.0.has_no_side_effects = stored.has_no_side_effects;
        Ok(match stored.source {
            Some(source) => error.with_source(source),
            None => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_is_stored_with_the_messages_of_its_causes() {
        let cause = Error::new(ErrorKind::Unavailable, "connection lost").with_source("reset by peer");
        let error = Error::new(ErrorKind::Timeout, "the deadline has passed").with_source(cause).transient();
        let json = serde_json::to_value(&error).unwrap();
        assert_eq!(
            json,
            json!({
                "kind": "timeout", "message": "the deadline has passed", "is_transient": true,
                "has_no_side_effects": false, "source": "connection lost: reset by peer",
            })
        );
        let again: Error = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&again).unwrap(), json);
        assert!(again.is_timeout() && again.is_transient() && !again.has_no_side_effects());
        assert_eq!(format!("{again:?}"), format!("{error:?}"));
        let invalid: Error = serde_json::from_value(serde_json::to_value(Error::invalid("a", "b")).unwrap()).unwrap();
        assert!(invalid.has_no_side_effects() && invalid.source().is_none());
    }

    #[test]
    fn kinds_are_stored_by_their_names() {
        for kind in ErrorKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
