//! Clocks, timestamps and durations.

mod clock;
mod duration;
#[cfg(any(test, feature = "embedded"))]
mod idle;
mod timestamp;

use tokio::time::Instant;

pub(crate) use clock::Clock;
pub(crate) use duration::{MAX_DURATION, format_duration, parse_duration};
pub(crate) use timestamp::{between, is_sane, optional_time, to_proto};

/// Resolves at a moment, or never if there is none. Cancel safe.
pub(crate) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
