//! Time: the clock that stamps what this side sends, and the server's way of saying "never".

#[cfg(any(test, feature = "embedded"))]
mod idle;

#[cfg(any(test, feature = "embedded"))]
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Datelike as _, SubsecRound as _, Utc};
use serde::{Deserialize, Deserializer};
use tokio::time::Instant;

/// The clock of a client.
#[derive(Debug, Clone, Default)]
pub(crate) enum Clock {
    /// The machine's.
    #[default]
    Machine,
    /// A timestamp that is advanced by tokio's clock: with a paused clock, all timestamps of a process are consistent with its timers.
    #[cfg(any(test, feature = "embedded"))]
    Tokio(Arc<Virtual>),
}

/// A clock that follows tokio's, with the state that its users share.
#[cfg(any(test, feature = "embedded"))]
#[derive(Debug)]
pub(crate) struct Virtual {
    wall: DateTime<Utc>,
    origin: Instant,
    heartbeats: idle::IdleHeartbeats,
}

#[cfg(any(test, feature = "embedded"))]
impl Virtual {
    /// The time at an instant, truncated to microseconds, because the engine stores no finer times.
    fn at(&self, moment: Instant) -> DateTime<Utc> {
        (self.wall + moment.saturating_duration_since(self.origin)).trunc_subsecs(6)
    }
}

impl Clock {
    /// A clock that starts at this time. The default is the machine's time.
    #[cfg(any(test, feature = "embedded"))]
    pub(crate) fn tokio(wall: Option<DateTime<Utc>>) -> Self {
        let wall = wall.unwrap_or_else(machine);
        Self::Tokio(Arc::new(Virtual { wall, origin: Instant::now(), heartbeats: idle::IdleHeartbeats::default() }))
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        match self {
            Self::Machine => machine(),
            #[cfg(any(test, feature = "embedded"))]
            Self::Tokio(clock) => clock.at(Instant::now()),
        }
    }

    /// When tokio's clock will show this time. One that has passed is now.
    #[cfg(feature = "embedded")]
    pub(crate) fn instant(&self, at: DateTime<Utc>) -> Instant {
        Instant::now() + (at - self.now()).to_std().unwrap_or_default()
    }

    /// Resolves when a heartbeat of a worker must be sent, with the time at which it was due. On virtual time, the heartbeats of
    /// an `idle` worker are counted instead of sent until something happens. Cancel safe.
    pub(crate) async fn next_heartbeat(
        &self,
        worker: uuid::Uuid,
        due: Instant,
        period: Duration,
        idle: bool,
    ) -> Instant {
        #[cfg(not(any(test, feature = "embedded")))]
        let _ = (worker, period, idle);
        let due = match self {
            #[cfg(any(test, feature = "embedded"))]
            Self::Tokio(clock) if idle && is_ahead() => clock.heartbeats.count(worker, due, period).await,
            _ => due,
        };
        tokio::time::sleep_until(due).await;
        due
    }
}

/// The engine's side of heartbeats that are counted.
#[cfg(feature = "embedded")]
impl Clock {
    /// The last counted heartbeat of each worker.
    pub(crate) fn counted_heartbeats(&self) -> Vec<(uuid::Uuid, DateTime<Utc>)> {
        let Self::Tokio(clock) = self else { return Vec::new() };
        clock.heartbeats.take(Instant::now()).into_iter().map(|(worker, at)| (worker, clock.at(at))).collect()
    }

    /// Makes idle workers send their heartbeats again.
    pub(crate) fn wake_idle(&self) {
        if let Self::Tokio(clock) = self {
            clock.heartbeats.wake();
        }
    }

    /// Sets whether workers must send every heartbeat.
    pub(crate) fn suspend_idle(&self, suspended: bool) {
        if let Self::Tokio(clock) = self {
            clock.heartbeats.suspend(suspended);
        }
    }
}

/// Whether tokio's clock is virtual: only one that was paused can be ahead of the machine's.
#[cfg(any(test, feature = "embedded"))]
#[expect(clippy::disallowed_methods, reason = "the two clocks are compared")]
fn is_ahead() -> bool {
    Instant::now().into_std() > std::time::Instant::now() + Duration::from_secs(1)
}

#[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
fn machine() -> DateTime<Utc> {
    DateTime::<Utc>::from(std::time::SystemTime::now()).trunc_subsecs(6)
}

/// Resolves at a moment, or never if there is none. Cancel safe.
pub(crate) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Year 1 is how the server writes "never".
fn known(at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    (at.timestamp() > -62_000_000_000).then_some(at)
}

/// Reads a stamp that may be absent, null, or year 1.
pub(crate) fn optional<'de, D: Deserializer<'de>>(source: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    Ok(Option::<DateTime<Utc>>::deserialize(source)?.and_then(known))
}

/// Beyond this the arithmetic ends, the engine's first.
pub(crate) const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Whether a stamp is of a year that protobuf, RFC 3339 and Postgres have, and sums with lengths of time stay so.
pub(crate) fn is_sane(at: &DateTime<Utc>) -> bool {
    (1..=9999).contains(&at.year())
}

/// The length from one stamp to a later one.
pub(crate) fn between(from: Option<DateTime<Utc>>, to: Option<DateTime<Utc>>) -> Option<Duration> {
    (to? - from?).to_std().ok()
}

pub(crate) fn to_proto(at: DateTime<Utc>) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.timestamp(), nanos: at.timestamp_subsec_nanos().cast_signed() }
}

/// Reads lengths like `1h30m` and `.5s`: numbers, each with one of the given units, which are names and seconds. `ms` must be
/// given before `m`. No sign, no blanks, and no more nanoseconds than 63 bits count.
pub(crate) fn parse_length(text: &str, units: &[(&str, f64)]) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (digits, tail) = rest.split_at(number);
        if !digits.contains(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let (unit, tail) = units.iter().find_map(|(unit, seconds)| Some((seconds, tail.strip_prefix(unit)?)))?;
        total += digits.parse::<f64>().ok()? * unit;
        rest = tail;
    }
    Duration::try_from_secs_f64(total).ok().filter(|length| i64::try_from(length.as_nanos()).is_ok())
}

/// Writes a length in the engine's grammar: `90s`, `1500ms`. Whole seconds where it is whole seconds.
///
/// The engine knows no unit below a millisecond, and what is shorter is rounded up: a timeout must not become zero.
pub(crate) fn duration_text(length: Duration) -> String {
    let millis = length.as_nanos().div_ceil(1_000_000);
    if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Deserialize)]
    struct Stamp {
        #[serde(default, deserialize_with = "optional")]
        at: Option<DateTime<Utc>>,
    }

    #[test]
    fn year_one_null_and_absent_are_never() {
        for text in ["{}", r#"{"at":null}"#, r#"{"at":"0001-01-01T00:00:00Z"}"#] {
            assert!(serde_json::from_str::<Stamp>(text).unwrap().at.is_none(), "{text}");
        }
        let stamp: Stamp = serde_json::from_str(r#"{"at":"2026-11-23T14:02:13.946622Z"}"#).unwrap();
        assert_eq!(stamp.at.unwrap().timestamp_subsec_micros(), 946_622);
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_follows_a_paused_runtime() {
        let clock = Clock::tokio(None);
        let before = clock.now();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(clock.now() - before, chrono::TimeDelta::hours(1));
    }

    proptest! {
        #[test]
        fn a_written_duration_is_in_the_grammar_and_never_shorter(nanos in 0u64..=u64::MAX / 2) {
            let length = Duration::from_nanos(nanos);
            let text = duration_text(length);
            let (number, unit) = match text.strip_suffix("ms") {
                Some(number) => (number, 1),
                None => (text.strip_suffix('s').unwrap(), 1000),
            };
            let millis = number.parse::<u64>().unwrap() * unit;
            prop_assert!(Duration::from_millis(millis) >= length);
            prop_assert!(Duration::from_millis(millis) < length + Duration::from_millis(1));
        }
    }
}
