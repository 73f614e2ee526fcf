//! Timestamps of the server, some of which mean "never".

use std::time::Duration;

use chrono::{DateTime, Datelike as _, Utc};
use serde::{Deserialize, Deserializer};

/// `None` for a timestamp in year 1, by which the server means "never".
fn unless_never(at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    (at.timestamp() > -62_000_000_000).then_some(at)
}

/// Deserializes a timestamp that can be missing, `null`, or in year 1.
pub(crate) fn optional_time<'de, D: Deserializer<'de>>(source: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    Ok(Option::<DateTime<Utc>>::deserialize(source)?.and_then(unless_never))
}

/// Whether protobuf, RFC 3339 and Postgres can represent the year of a timestamp, and of its sums with durations.
pub(crate) fn is_representable(at: &DateTime<Utc>) -> bool {
    (1..=9999).contains(&at.year())
}

/// The duration from one timestamp to a later one.
pub(crate) fn between(from: Option<DateTime<Utc>>, to: Option<DateTime<Utc>>) -> Option<Duration> {
    (to? - from?).to_std().ok()
}

pub(crate) fn to_proto(at: DateTime<Utc>) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.timestamp(), nanos: at.timestamp_subsec_nanos().cast_signed() }
}

/// `None` for a timestamp that cannot be represented.
pub(crate) fn from_proto(at: prost_types::Timestamp) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(at.seconds, u32::try_from(at.nanos).ok()?).and_then(unless_never)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Row {
        #[serde(default, deserialize_with = "optional_time")]
        at: Option<DateTime<Utc>>,
    }

    #[test]
    fn year_one_null_and_absent_are_never() {
        for text in ["{}", r#"{"at":null}"#, r#"{"at":"0001-01-01T00:00:00Z"}"#] {
            assert!(serde_json::from_str::<Row>(text).unwrap().at.is_none(), "{text}");
        }
        let row: Row = serde_json::from_str(r#"{"at":"2026-11-23T14:02:13.946622Z"}"#).unwrap();
        assert_eq!(row.at.unwrap().timestamp_subsec_micros(), 946_622);
    }
}
