//! The clock of a client: the system clock, or one that follows Tokio's clock.

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
    /// The system clock.
    #[default]
    System,
    /// A clock that follows Tokio's clock. If that is paused, all timestamps are consistent with the timers.
    #[cfg(any(test, feature = "embedded"))]
    Tokio(Arc<Virtual>),
}

/// A clock that follows Tokio's clock, with the state that its users share.
#[cfg(any(test, feature = "embedded"))]
#[derive(Debug)]
pub(crate) struct Virtual {
    /// The time at `start`.
    start_time: DateTime<Utc>,
    start: Instant,
    heartbeats: idle::IdleHeartbeats,
}

#[cfg(any(test, feature = "embedded"))]
impl Virtual {
    /// The time at an instant, truncated to microseconds, because the engine stores no finer times.
    fn at(&self, instant: Instant) -> DateTime<Utc> {
        (self.start_time + instant.saturating_duration_since(self.start)).trunc_subsecs(6)
    }
}

impl Clock {
    /// Creates a clock that starts at a time. The default is the time of the system.
    #[cfg(any(test, feature = "embedded"))]
    pub(crate) fn tokio(start_time: Option<DateTime<Utc>>) -> Self {
        let start_time = start_time.unwrap_or_else(system_time);
        Self::Tokio(Arc::new(Virtual {
            start_time,
            start: Instant::now(),
            heartbeats: idle::IdleHeartbeats::default(),
        }))
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        match self {
            Self::System => system_time(),
            #[cfg(any(test, feature = "embedded"))]
            Self::Tokio(clock) => clock.at(Instant::now()),
        }
    }

    /// The instant of Tokio's clock at a time. It is now if the time has passed.
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

/// Whether Tokio's clock is virtual: only a clock that was paused can be ahead of the system clock.
#[cfg(any(test, feature = "embedded"))]
#[expect(clippy::disallowed_methods, reason = "the two clocks are compared")]
fn is_ahead() -> bool {
    Instant::now().into_std() > std::time::Instant::now() + Duration::from_secs(1)
}

#[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
fn system_time() -> DateTime<Utc> {
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
