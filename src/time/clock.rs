//! The clock of a client: the machine's, or one that follows tokio's.

#[cfg(any(test, feature = "embedded"))]
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, Utc};
use tokio::time::Instant;

#[cfg(any(test, feature = "embedded"))]
use super::idle;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_clock_follows_a_paused_runtime() {
        let clock = Clock::tokio(None);
        let before = clock.now();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(clock.now() - before, chrono::TimeDelta::hours(1));
    }
}
