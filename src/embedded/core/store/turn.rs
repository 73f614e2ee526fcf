//! What a turn gets from outside: the time, and random numbers for ids.

use chrono::{DateTime, SubsecRound as _, Utc};
use uuid::Uuid;

/// A time by the engine's clock.
pub(crate) type At = DateTime<Utc>;

/// A time with the precision of the database, which is microseconds. A client can then send back a time that it was shown, and it
/// is equal to the stored one.
pub(crate) fn stored(at: At) -> At {
    at.trunc_subsecs(6)
}

/// The time and the source of randomness of one turn. With the same turns, the engine does the same.
pub(crate) struct Turn<'a> {
    pub(crate) now: At,
    pub(crate) random: &'a mut dyn FnMut() -> u128,
    /// The same for all commands that arrived together.
    pub(crate) round: u64,
}

impl Turn<'_> {
    pub(crate) fn uuid(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes((self.random)().to_be_bytes()).into_uuid()
    }

    /// A W3C trace context. The engine adds one to the metadata of each run.
    pub(crate) fn traceparent(&mut self) -> String {
        format!("00-{:032x}-{:016x}-01", (self.random)() | 1, (self.random)() >> 64 | 1)
    }

    /// A random number less than `end`.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        u32::try_from((self.random)() % u128::from(end.max(1))).unwrap_or_default()
    }

    /// True in half of the cases.
    pub(crate) fn coin(&mut self) -> bool {
        (self.random)() & 1 == 0
    }
}
