//! What starts runs besides direct triggers: events with their filters, schedules, crons.

pub(crate) mod crons;
pub(crate) mod events;
pub(crate) mod filters;
mod pattern;
pub(crate) mod schedules;
mod stored;
