//! What starts runs by itself: events, schedules, crons.
//!
//! None of them is linked to its runs by the engine in a way that can be relied on, except events. So schedules and crons
//! that this crate makes carry a key of its own in their metadata, which their runs inherit.

mod cron;
mod event;
mod mark;
mod push;
mod query;
mod schedule;

pub use cron::{CronBuilder, CronDetails, CronHandle};
pub use event::{EventDetails, EventHandle};
pub use push::{EventBuilder, EventsBuilder};
pub use query::{CronQuery, ScheduleQuery};
pub use schedule::{ScheduleBuilder, ScheduleDetails, ScheduleHandle};
