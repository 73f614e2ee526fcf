//! Dropping old runs and events.
//!
//! The real engine stores the runs and the events of each day (UTC) separately, by their creation, and drops whole days. It also loses runs
//! that have not ended. Here these stay until they have ended.

use chrono::{NaiveTime, TimeDelta};

use crate::embedded::core::store::{At, Core, Timer, Turn};

const DAY: TimeDelta = TimeDelta::days(1);

fn start_of_day(at: At) -> At {
    at.date_naive().and_time(NaiveTime::MIN).and_utc()
}

/// A run has been created, or an event has arrived. Sets the timer that drops it, unless one is set.
pub(crate) fn expect(core: &mut Core, created: At) {
    if let Some(retention) = core.retention
        && !core.has_retention_timer
    {
        core.timers.set(start_of_day(created) + DAY + retention, Timer::Retention);
        core.has_retention_timer = true;
    }
}

/// Drops the runs and events of all days that are old enough. Without others, no further timer is set.
pub(crate) fn apply(core: &mut Core, turn: &Turn<'_>) {
    core.has_retention_timer = false;
    let Some(retention) = core.retention else { return };
    let first_kept_day = start_of_day(turn.now - retention);
    for run in core.runs.drop_ended(first_kept_day) {
        for task in &run.tasks {
            core.families.remove(task.id);
        }
    }
    core.events.drop_before(first_kept_day);
    // Runs that have not ended are checked again a day later.
    if let Some(oldest) = core.runs.oldest().into_iter().chain(core.events.oldest()).min() {
        expect(core, oldest.max(first_kept_day));
    }
}
