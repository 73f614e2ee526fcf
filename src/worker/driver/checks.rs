//! The checks of attempts: the one that is running, and when the next one is due.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::super::key::Key;
use super::super::ownership::{Checked, Held};
use super::STREAM;
use super::check_times::CheckTimes;
use crate::sync::or_pending;

/// How many checks in succession are dropped because of a lost stream.
const MAX_DROPPED: u32 = 3;

/// At most one check runs at a time.
#[derive(Default)]
pub(super) struct Checks {
    running: Option<Check>,
    /// How many in succession were dropped, because the stream was lost meanwhile.
    dropped: u32,
    /// When running attempts are checked although nothing indicates that the engine has ended them.
    times: CheckTimes,
}

struct Check {
    /// Finds out which of the attempts do not belong to the worker any longer.
    result: BoxFuture<'static, Checked>,
    /// Their results are not sent before.
    attempts: Vec<Held>,
}

impl Checks {
    /// An attempt with this timeout has started.
    pub(super) fn attempt_started(&mut self, now: Instant, key: Key, timeout: Duration) {
        self.times.started(now, key, timeout, interval);
    }

    /// An attempt has ended, or the worker knows that it is over.
    pub(super) fn attempt_ended(&mut self, key: &Key) {
        self.times.ended(key);
    }

    /// When the running attempts must be checked next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.times.next()
    }

    /// Whether the running attempts must be checked now. Each check is due once.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        self.times.take_due(now, interval)
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Starts a check of these attempts.
    pub(super) fn start(&mut self, attempts: Vec<Held>, result: BoxFuture<'static, Checked>) {
        self.running = Some(Check { result, attempts });
    }

    /// Resolves when the engine has answered. Never resolves if no check is running. Cancel safe.
    pub(super) async fn answered(&mut self) -> Checked {
        or_pending(self.running.as_mut().map(|check| &mut check.result)).await
    }

    /// Ends the check to which the engine has answered, and returns its attempts.
    pub(super) fn end(&mut self) -> Vec<Held> {
        self.dropped = 0;
        self.running.take().map(|check| check.attempts).unwrap_or_default()
    }

    /// Notifications were lost: what the engine answered before says nothing about the time since then. If streams are lost all the time, it
    /// counts nevertheless.
    pub(super) fn drop_running(&mut self) {
        if self.dropped < MAX_DROPPED && self.running.take().is_some() {
            self.dropped += 1;
        }
    }
}

/// The interval of the checks of all attempts.
fn interval() -> Duration {
    STREAM.with_jitter(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use futures_util::FutureExt as _;
    use uuid::Uuid;

    use super::*;

    fn start(checks: &mut Checks) {
        let key = Key { run: Uuid::nil().into(), task: Uuid::nil().into(), retry_count: 0 };
        checks.start(vec![(key, None)], Box::pin(ready(Checked::default())));
    }

    #[test]
    fn only_some_checks_in_succession_are_dropped() {
        let mut checks = Checks::default();
        // One that is not running is not counted.
        checks.drop_running();
        for _ in 0..2 {
            for _ in 0..MAX_DROPPED {
                start(&mut checks);
                checks.drop_running();
                assert!(!checks.is_running() && checks.answered().now_or_never().is_none());
            }
            start(&mut checks);
            checks.drop_running();
            assert!(checks.is_running() && checks.answered().now_or_never().is_some());
            // Others are dropped after one that has ended.
            assert_eq!((checks.end().len(), checks.end().len(), checks.is_running()), (1, 0, false));
        }
    }
}
