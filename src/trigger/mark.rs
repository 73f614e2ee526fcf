//! The keys by which the runs of a schedule and of a cron are found.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use crate::client::Client;
use crate::error::Result;
use crate::list::RunQuery;
use crate::model::metadata::Metadata;
use crate::model::trigger::SCHEDULE_KEY;
use crate::model::{RunFilter, Window};

/// The key of a schedule's mark.
pub(super) const SCHEDULE: &str = SCHEDULE_KEY;
/// The key of a cron's mark. It begins like the engine's own, so that children do not inherit it.
pub(super) const CRON: &str = "hatchet__rs_cron";

/// How far the clocks of this machine and of the server may be apart.
const APART: TimeDelta = TimeDelta::hours(1);

/// A value that nothing else has.
pub(super) fn fresh() -> String {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid().to_string()
}

/// The user's metadata with a mark, checked and written.
pub(super) fn encode(metadata: &Metadata, key: &str, mark: &str) -> Result<String> {
    metadata.check()?;
    let mut all = metadata.clone();
    all.insert(key.to_owned(), mark.into());
    all.encode()
}

/// The mark in what the server shows.
pub(super) fn of(metadata: &BTreeMap<String, Value>, key: &str) -> Option<String> {
    metadata.get(key).and_then(Value::as_str).map(str::to_owned)
}

/// The runs that have a mark.
pub(super) fn runs(client: &Client, window: Window, key: &'static str, mark: &str) -> RunQuery {
    client.runs(RunFilter::new(window).own_metadata(key, mark))
}

/// Everything since a moment by this machine's clock, whatever the server's says.
pub(super) fn since(at: DateTime<Utc>) -> Window {
    Window::since(at - APART)
}
