//! Sends a log line or a chunk of a task until the engine accepts it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::error::{Error, ErrorKind, Result};
use crate::rpc::{NewLogLine, Rpc};
use crate::sync::lock;
use crate::transport::retry_delay;
use crate::workflow::{MessageOrigin, TaskContent, TaskMessage};

/// For how long a message is sent again while the problem is this message, and not the engine.
const MAX_FAILING: Duration = Duration::from_secs(60);
/// The maximum pause that the engine or a proxy can request.
pub(super) const MAX_PUSHBACK: Duration = Duration::from_secs(30);

/// Sends messages. If the engine cannot be reached, one at a time is sent again, to find out whether it is back.
#[derive(Debug)]
pub(super) struct Delivery {
    rpc: Rpc,
    turn: Semaphore,
    /// Notifies the one whose turn it is that another message was accepted.
    accepted: Notify,
    outage: Mutex<Outage>,
    /// Each message that has failed and is sent again has a clone.
    retrying: Arc<()>,
}

#[derive(Debug)]
struct Outage {
    failures: u32,
    /// Nothing is sent again before this time.
    until: Instant,
    /// The number of messages that were ever accepted.
    accepted: u64,
}

/// The failures of one message.
#[derive(Debug, Default)]
struct Failures {
    /// How many messages had been accepted at the last failure.
    accepted: Option<u64>,
    /// Since when the problem has been this message.
    own_since: Option<Instant>,
}

/// A message in the form in which it is sent.
#[derive(Clone)]
enum Unsent {
    Line(NewLogLine),
    Chunk { index: i64, at: DateTime<Utc>, text: String },
}

impl Delivery {
    pub(super) fn new(rpc: Rpc) -> Self {
        let outage = Outage { failures: 0, until: Instant::now(), accepted: 0 };
        let (turn, accepted) = (Semaphore::new(1), Notify::new());
        Self { rpc, turn, accepted, outage: Mutex::new(outage), retrying: Arc::default() }
    }

    /// Whether a message has failed, and is being sent again.
    pub(super) fn is_retrying(&self) -> bool {
        Arc::strong_count(&self.retrying) > 1
    }

    /// Sends a message until the engine accepts it.
    ///
    /// # Errors
    /// The engine will never accept the message.
    pub(super) async fn send(&self, message: TaskMessage) -> Result<()> {
        // It has its permit until the end.
        let TaskMessage { origin, content, permit: _permit } = message;
        let unsent = match content {
            TaskContent::Log { level, message, metadata } => {
                let MessageOrigin { task, attempt, .. } = origin;
                Unsent::Line(NewLogLine { task, attempt, level, message, metadata })
            }
            TaskContent::Chunk { index, at, content } => Unsent::Chunk { index, at, text: content.encode() },
        };
        let (mut failures, mut retrying) = (Failures::default(), None);
        loop {
            let mut turn = None;
            if failures.accepted.is_some() {
                turn = Some(self.turn.acquire().await);
                self.pause().await;
            }
            let sent = match unsent.clone() {
                Unsent::Line(line) => self.rpc.events.put_log_once(line).await,
                Unsent::Chunk { index, at, text } => self.rpc.events.put_chunk_once(origin.task, at, index, text).await,
            };
            let now = Instant::now();
            let mut outage = lock(&self.outage);
            let Err(error) = sent else {
                *outage = Outage { failures: 0, until: now, accepted: outage.accepted.saturating_add(1) };
                self.accepted.notify_waiters();
                return Ok(());
            };
            if failures.is_final(now, &error, outage.accepted) {
                return Err(error);
            }
            retrying.get_or_insert_with(|| Arc::clone(&self.retrying));
            // Those that are sent at the same time fail together.
            if turn.is_some() || outage.failures == 0 {
                outage.failures = outage.failures.saturating_add(1);
                let pushback = error.pushback().unwrap_or_default().min(MAX_PUSHBACK);
                outage.until = now + retry_delay(outage.failures, fastrand::f64()).max(pushback);
            }
            let MessageOrigin { run, task, attempt } = origin;
            tracing::debug!(run_id = %run, task_id = %task, attempt, %error, "failed to send a log line or a chunk; retrying");
        }
    }

    /// Waits until a message may be sent again.
    async fn pause(&self) {
        let accepted = self.accepted.notified();
        let until = lock(&self.outage).until;
        tokio::select! {
            () = sleep_until(until) => {}
            () = accepted => {}
        }
    }
}

impl Failures {
    /// Records a failure. Returns whether the message is given up: the engine will never accept it, or has accepted others for a while.
    fn is_final(&mut self, now: Instant, error: &Error, accepted: u64) -> bool {
        let rejected = [ErrorKind::Rejected, ErrorKind::TooLarge, ErrorKind::Closed];
        if error.is_not_found() || rejected.contains(&error.kind()) && !error.is_transient() {
            return true;
        }
        let accepts_others = self.accepted.replace(accepted).is_some_and(|before| accepted > before);
        // Other errors are not about the message: a proxy may reject a token or a path for a while.
        let is_own = matches!(error.kind(), ErrorKind::Server | ErrorKind::Decode) && !error.is_transient();
        if !is_own && !accepts_others {
            self.own_since = None;
            return false;
        }
        now >= *self.own_since.get_or_insert(now) + MAX_FAILING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, "failed")
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_given_up_if_it_is_the_problem() {
        let (start, mut failures) = (Instant::now(), Failures::default());
        let mut is_final =
            |seconds, error: &Error, accepted| failures.is_final(start + seconds * SECOND, error, accepted);
        let unavailable = error(ErrorKind::Unavailable).transient();
        // An outage, however long it is, and then some failures beside accepted messages.
        assert!(!is_final(0, &unavailable, 5) && !is_final(3600, &unavailable, 5));
        assert!(!is_final(3601, &unavailable, 6) && !is_final(3640, &unavailable, 9));
        assert!(!is_final(3700, &unavailable, 9), "none was accepted meanwhile");
        assert!(!is_final(3701, &unavailable, 10) && !is_final(3760, &unavailable, 11));
        assert!(is_final(3761, &unavailable, 12));
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_about_the_message_needs_no_other_messages() {
        let start = Instant::now();
        for (kind, expected) in [
            (ErrorKind::Rejected, [true, true, true]),
            (ErrorKind::Server, [false, false, true]),
            (ErrorKind::Unimplemented, [false, false, false]),
            (ErrorKind::Unauthenticated, [false, false, false]),
        ] {
            let mut failures = Failures::default();
            let found = [0, 59, 60].map(|seconds| failures.is_final(start + seconds * SECOND, &error(kind), 0));
            assert_eq!(found, expected, "{kind}");
        }
    }
}
