//! The correlation keys by which the runs of a schedule and of a cron are found.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use crate::error::Result;
use crate::model::Window;
use crate::model::metadata::Metadata;
use crate::model::trigger::SCHEDULE_KEY;
use crate::telemetry::TRACEPARENT;

/// The metadata key of a schedule's correlation key.
pub(super) const SCHEDULE: &str = SCHEDULE_KEY;
/// The metadata key of a cron's correlation key. It has the prefix of the engine's own keys, so that children do not inherit it.
pub(super) const CRON: &str = "hatchet__rs_cron";

/// The maximum difference between the clocks of this machine and the server.
const MAX_CLOCK_SKEW: TimeDelta = TimeDelta::hours(1);

/// Returns a new, unique correlation key.
pub(super) fn new_key() -> String {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid().to_string()
}

/// Checks and serializes the user's metadata, with a correlation key.
pub(super) fn encode(metadata: &Metadata, name: &str, key: &str) -> Result<String> {
    metadata.check()?;
    let mut all = metadata.clone();
    all.insert(name.to_owned(), key.into());
    // The runs of a cron are no consequence of what has created it.
    if name == SCHEDULE { all.with_trace(&[TRACEPARENT]).encode() } else { all.encode() }
}

/// The correlation key in metadata of the server.
pub(super) fn key_of(metadata: &BTreeMap<String, Value>, name: &str) -> Option<String> {
    metadata.get(name).and_then(Value::as_str).map(str::to_owned)
}

/// The window since a time of this machine's clock, which may differ from the server's.
pub(super) fn since(at: DateTime<Utc>) -> Window {
    Window::since(at - MAX_CLOCK_SKEW)
}
