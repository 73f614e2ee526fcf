//! Clocks, timestamps and durations.

mod alarm;
mod clock;
mod duration;
#[cfg(any(test, feature = "embedded"))]
mod idle;
mod rate;
mod server;
mod timestamp;

use tokio::time::{Instant, sleep_until};

use crate::sync::or_pending;
pub(crate) use alarm::Alarm;
pub(crate) use clock::Clock;
pub(crate) use duration::{MAX_DURATION, format_duration, parse_duration};
pub(crate) use rate::{RateLimit, Reservation};
pub(crate) use server::ServerClock;
pub(crate) use timestamp::{between, from_proto, is_representable, optional_time, to_proto};

/// Sleeps until a deadline, or forever if there is none. Cancel safe.
pub(crate) async fn at(deadline: Option<Instant>) {
    or_pending(deadline.map(sleep_until)).await;
}
