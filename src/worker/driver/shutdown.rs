//! How far the shutdown of a worker is.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

/// How long a paused worker may still get assignments: the engine's scheduler refreshes its workers every 1 to 1.5 s. If the
/// stream closed earlier, these assignments would be lost.
pub(super) const PAUSED_ASSIGNMENT_DELAY: Duration = Duration::from_millis(1750);
/// The same for a worker that could not be paused: it may get assignments for five seconds after its last heartbeat.
pub(super) const UNPAUSED_ASSIGNMENT_DELAY: Duration = Duration::from_millis(5500);
/// Without heartbeats, the engine reassigns running attempts after 30 seconds. They should have ended by then.
const MAX_GRACE_WITHOUT_HEARTBEATS: Duration = Duration::from_secs(25);
/// How long reports are still sent when the grace period is over.
pub(super) const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns whether the worker was paused.
pub(super) type Pausing = Pin<Box<dyn Future<Output = bool> + Send>>;

/// How far the shutdown is.
pub(super) enum Phase {
    Running,
    Pausing(Pausing),
    Draining(Deadlines),
}

/// The deadlines of a worker that does not get further assignments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deadlines {
    /// Until when the engine may still send assignments.
    assignments_end: Instant,
    /// The same, until it is due.
    stop_accepting_at: Option<Instant>,
    /// The end of the grace period. `None` when it is over.
    grace_end: Option<Instant>,
    /// When the worker does not wait for anything any longer. Until then, cancelled code can end, and reports can be sent.
    end: Instant,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) stop_accepting: bool,
    pub(super) drop_all: bool,
    pub(super) abandon: bool,
}

impl Deadlines {
    pub(super) fn new(now: Instant, is_paused: bool, grace: Duration, cancel_grace: Duration) -> Self {
        let (delay, grace) = if is_paused {
            (PAUSED_ASSIGNMENT_DELAY, grace)
        } else {
            (UNPAUSED_ASSIGNMENT_DELAY, grace.min(MAX_GRACE_WITHOUT_HEARTBEATS))
        };
        let grace_end = now + grace;
        let end = grace_end.max(now + delay) + cancel_grace + REPORT_TIMEOUT;
        let assignments_end = now + delay;
        Self { assignments_end, stop_accepting_at: Some(assignments_end), grace_end: Some(grace_end), end }
    }

    /// Ends the grace period earlier.
    pub(super) fn shorten(&mut self, now: Instant, grace: Duration, cancel_grace: Duration) {
        if let Some(grace_end) = &mut self.grace_end {
            *grace_end = (*grace_end).min(now + grace);
            self.end = self.end.min((*grace_end).max(self.assignments_end) + cancel_grace + REPORT_TIMEOUT);
        }
    }

    /// The next one. It can have passed, if something else was due at the same time.
    pub(super) fn next(&self) -> Instant {
        self.stop_accepting_at.into_iter().chain(self.grace_end).min().unwrap_or(self.end)
    }

    /// What is due at a time. The end of the grace period is due once.
    pub(super) fn take_due(&mut self, now: Instant) -> Due {
        self.stop_accepting_at.take_if(|at| *at <= now);
        Due {
            stop_accepting: self.are_assignments_over(now),
            drop_all: self.grace_end.take_if(|end| *end <= now).is_some(),
            abandon: self.end <= now,
        }
    }

    pub(super) fn are_assignments_over(&self, now: Instant) -> bool {
        self.assignments_end <= now
    }
}

impl Phase {
    pub(super) fn is_running(&self) -> bool {
        matches!(self, Self::Running)
    }

    /// Resolves when it is known whether the worker was paused. Never resolves in another phase. Cancel safe.
    pub(super) async fn paused(&mut self) -> bool {
        match self {
            Self::Pausing(pausing) => pausing.await,
            _ => std::future::pending().await,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Draining(deadlines) => Some(deadlines.next()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_deadlines_follow_each_other() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start, true, 10 * SECOND, SECOND);
        let mut all = Vec::new();
        loop {
            let now = deadlines.next();
            let due = deadlines.take_due(now);
            all.push((now - start, due.stop_accepting, due.drop_all, due.abandon));
            if due.abandon {
                break;
            }
        }
        let expected = [
            (PAUSED_ASSIGNMENT_DELAY, true, false, false),
            (10 * SECOND, true, true, false),
            (16 * SECOND, true, false, true),
        ];
        assert_eq!(all, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_without_heartbeats_has_less_time() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start, false, 100 * SECOND, SECOND);
        assert_eq!(deadlines.next(), start + UNPAUSED_ASSIGNMENT_DELAY);
        // Something else was due at the same time.
        tokio::time::advance(2 * UNPAUSED_ASSIGNMENT_DELAY).await;
        assert_eq!(deadlines.next(), start + UNPAUSED_ASSIGNMENT_DELAY, "it is not forgotten");
        assert!(deadlines.take_due(Instant::now()).stop_accepting);
        assert_eq!(deadlines.next(), start + MAX_GRACE_WITHOUT_HEARTBEATS);
        // The late assignments must have arrived.
        let short = Deadlines::new(start, true, Duration::ZERO, Duration::ZERO);
        assert_eq!(short.end, start + PAUSED_ASSIGNMENT_DELAY + REPORT_TIMEOUT);
    }
}
