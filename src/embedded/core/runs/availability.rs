//! Which workers can be assigned tasks.

use std::time::Duration;

use crate::embedded::core::store::{At, SlotRequests, Worker};

/// A worker without a heartbeat for this long is not assigned new tasks.
const ACTIVE_FOR: Duration = Duration::from_secs(5);
/// How long after a pause the scheduler may still assign tasks.
const PAUSE_DELAY: Duration = Duration::from_millis(1500);

impl Worker {
    /// Whether its last heartbeat is recent.
    pub(crate) fn is_active(&self, now: At) -> bool {
        self.is_live() && self.last_heartbeat.is_some_and(|last| last + ACTIVE_FOR >= now)
    }

    /// Whether it can be assigned tasks of the action now, if it has slots. With a late pause, also shortly after it was paused.
    pub(crate) fn is_ready(&self, now: At, action: &str, late_pause: bool) -> bool {
        let delay = if late_pause { PAUSE_DELAY } else { Duration::ZERO };
        let is_paused = self.paused_since().is_some_and(|since| since + delay <= now);
        !is_paused && self.is_active(now) && self.has_stream() && self.profile.actions.contains(action)
    }

    /// Whether it has free slots for a task.
    pub(crate) fn has_slots(&self, requests: &SlotRequests) -> bool {
        requests.iter().all(|(kind, units)| self.free_slots(kind) >= i64::from(*units))
    }
}
