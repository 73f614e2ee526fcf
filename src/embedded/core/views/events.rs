//! What REST shows of events.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::embedded::core::store::{At, Core, Event};
use crate::embedded::quirks::Quirk;

/// How long REST takes to show an event.
const EVENT_LAG: Duration = Duration::from_millis(120);
/// The maximum further delay of its runs.
const MAX_RUNS_LAG_MICROS: u128 = 80_000;

impl Core {
    /// An event, if REST shows it.
    pub(crate) fn event(&self, id: Uuid, now: At) -> Option<&Arc<Event>> {
        self.events.find(id).filter(|event| self.shows(event, now))
    }

    /// The events that arrived at `until` or before and that REST shows, newest first.
    pub(crate) fn events(&self, now: At, until: Option<At>) -> impl Iterator<Item = &Arc<Event>> {
        self.events.newest_first(until).filter(move |event| self.shows(event, now))
    }

    fn shows(&self, event: &Event, now: At) -> bool {
        now >= self.shown_from(event)
    }

    fn shown_from(&self, event: &Event) -> At {
        if self.has(Quirk::RestLag) { event.at + EVENT_LAG } else { event.at }
    }

    /// Whether REST shows which runs an event has started. It gets them in a separate message, after the event.
    pub(crate) fn shows_runs_of(&self, event: &Event, now: At) -> bool {
        !self.has(Quirk::UnorderedRows) || now >= self.shown_from(event) + runs_lag(event.id)
    }
}

/// The delay between an event and its runs in REST: 20 ms in the median, at most 80 ms.
fn runs_lag(event: Uuid) -> Duration {
    let share = event.as_u128() % 1000;
    Duration::from_micros(u64::try_from(MAX_RUNS_LAG_MICROS * share * share / 1_000_000).unwrap_or_default())
}
