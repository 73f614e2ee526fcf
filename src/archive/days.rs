//! The days of which an engine has runs. It drops the oldest days, so it has runs up to the end of each day from the first one on.

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};

use crate::client::Client;
use crate::error::Result;
use crate::feed::Gate;
use crate::model::Window;

/// The resolution of creation times.
pub(super) const MICROSECOND: TimeDelta = TimeDelta::microseconds(1);

/// Returns the first day, from `first` to `last`, up to whose end the engine has runs. `None` if there is none. Each request passes the gate,
/// if there is one.
pub(super) async fn first_day_with_runs(
    client: &Client,
    mut first: NaiveDate,
    last: NaiveDate,
    gate: Option<&Gate>,
) -> Result<Option<NaiveDate>> {
    let mut end = last.succ_opt().unwrap_or(last);
    while first < end {
        let middle = first + TimeDelta::days((end - first).num_days() / 2);
        let mut older = client.runs(Window::between(DateTime::UNIX_EPOCH, day_end(middle)));
        if let Some(gate) = gate {
            older = older.through(gate.clone());
        }
        if older.newest().await?.is_some() {
            end = middle;
        } else {
            first = middle + TimeDelta::days(1);
        }
    }
    Ok((first <= last).then_some(first))
}

pub(super) fn day_start(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

pub(super) fn day_end(day: NaiveDate) -> DateTime<Utc> {
    day.succ_opt().map_or(DateTime::<Utc>::MAX_UTC, |next| day_start(next) - MICROSECOND)
}
