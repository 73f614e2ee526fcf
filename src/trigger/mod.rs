//! What starts runs, and what delays them: events, schedules, crons and rate limits.
//!
//! The engine links only events to their runs. So the schedules and crons of this crate have a correlation key in their metadata, which
//! their runs inherit.

mod correlation;
mod cron;
mod event;
mod push;
mod query;
mod rate_limit;
mod schedule;

pub use cron::{CronBuilder, CronHandle};
pub use event::EventHandle;
pub use push::{EventBuilder, EventManyBuilder, EventOptions};
pub use query::{CronQuery, ScheduleQuery};
pub use rate_limit::{RateLimitBuilder, RateLimitHandle, RateLimitQuery};
pub use schedule::{ScheduleBuilder, ScheduleHandle};
