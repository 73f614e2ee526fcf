//! Whether a worker is connected, and whether the engine may have ended its attempts without a notification: a state machine without I/O.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::outbox::Doubt;
use super::ownership::MAX_HEARTBEAT_GAP;
use crate::error::{Error, ErrorKind};

/// How long the engine may take to notice a stream.
const MIN_NOTICE_DELAY: Duration = Duration::from_millis(500);
/// For how long the token or a call may be rejected before the worker ends.
pub(super) const MAX_REJECTION: Duration = Duration::from_secs(60);
/// The engine rejects a stream within this time, if it does.
const MIN_OPEN: Duration = Duration::from_secs(10);
/// How often attempts are checked in succession about which the engine could not be asked.
const MAX_INCOMPLETE_CHECKS: u32 = 10;

/// A time by Tokio's clock and by that of the client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) instant: Instant,
    pub(super) time: DateTime<Utc>,
}

/// The state of the stream of assignments.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamState {
    pub(super) is_lost: bool,
    /// When it was last requested. The engine need not have been reached since.
    pub(super) opened_at: Instant,
}

/// What an error means for the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    /// It is waited out.
    Transient,
    /// A worker that has not started does not start.
    Permanent,
    /// The worker cannot go on.
    Final,
}

/// What follows from an accepted heartbeat.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// How long a worker was not connected that is connected again.
    pub(super) reconnected_after: Option<Duration>,
    /// Whether the engine must be asked about the attempts.
    pub(super) must_check: bool,
}

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own: all combinations occur")]
pub(super) struct Connection {
    /// Whether a heartbeat has been accepted.
    has_started: bool,
    is_connected: bool,
    /// Since when a worker that has started is not connected.
    disconnected_at: Option<Instant>,
    /// When the engine last accepted a heartbeat.
    accepted_at: Option<Instant>,
    /// Since when heartbeats have been rejected, and since when the stream has been.
    heartbeats_rejected_at: Option<Instant>,
    stream_rejected_at: Option<Instant>,
    /// Whether the stream has failed with a permanent error, and has not been opened since.
    is_failing: bool,
    /// Whether the engine may have ended attempts without a notification.
    must_check: bool,
    /// Whether the engine may have assigned all attempts to other workers, and was not asked since.
    has_gap: bool,
    /// How many checks in succession were incomplete.
    incomplete_checks: u32,
}

impl Connection {
    pub(super) fn new(must_check: bool) -> Self {
        Self { must_check, ..Self::default() }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// The engine does not have the worker, or does not respond.
    pub(super) fn disconnected(&mut self, now: Instant) {
        self.is_connected = false;
        if self.has_started {
            self.disconnected_at.get_or_insert(now);
        }
    }

    /// The stream has delivered a message.
    pub(super) fn received(&mut self) {
        self.is_failing = false;
        self.stream_rejected_at = None;
    }

    pub(super) fn stream_lost(&mut self, now: Instant) {
        self.received();
        self.lost(now);
    }

    /// The stream has failed with a permanent error. Returns also whether this is the first time since it was open.
    pub(super) fn stream_failed(&mut self, now: Instant, error: &Error) -> (Severity, bool) {
        self.lost(now);
        let is_first = !std::mem::replace(&mut self.is_failing, true);
        (severity(now, error, &mut self.stream_rejected_at), is_first)
    }

    fn lost(&mut self, now: Instant) {
        self.disconnected(now);
        // A cancellation is sent once, and may have been lost with the stream.
        self.must_check = true;
    }

    pub(super) fn heartbeat_accepted(&mut self, now: Now, stream: StreamState) -> Accepted {
        self.is_failing = false;
        self.heartbeats_rejected_at = None;
        self.has_gap |= self.is_gap(now);
        self.accepted_at = Some(now.instant);
        self.must_check |= self.has_gap;
        self.is_connected = !stream.is_lost;
        if self.is_connected && now.instant.duration_since(stream.opened_at) >= MIN_OPEN {
            self.stream_rejected_at = None;
        }
        self.has_started = true;
        let disconnected_at = self.disconnected_at.take_if(|_| self.is_connected);
        Accepted {
            reconnected_after: disconnected_at.map(|at| now.instant.duration_since(at)),
            must_check: self.must_check && !stream.is_lost,
        }
    }

    /// The engine has rejected a heartbeat because it has seen the stream close. Returns whether the stream must be reopened: a heartbeat
    /// from before the stream was requested, or from just after that, proves nothing.
    pub(super) fn heartbeat_rejected(&mut self, now: Instant, sent_at: Instant, stream: StreamState) -> bool {
        let is_lost = sent_at >= stream.opened_at + MIN_NOTICE_DELAY && !stream.is_lost;
        if is_lost {
            self.lost(now);
        }
        is_lost
    }

    pub(super) fn heartbeat_failed(&mut self, now: Instant, error: &Error) -> Severity {
        self.disconnected(now);
        if error.is_transient() {
            self.heartbeats_rejected_at = None;
            return Severity::Transient;
        }
        severity(now, error, &mut self.heartbeats_rejected_at)
    }

    /// Which attempts the engine may have ended or assigned to other workers.
    pub(super) fn doubt(&mut self, now: Now, is_checking: bool) -> Doubt {
        self.has_gap |= self.is_gap(now);
        if self.has_gap {
            Doubt::All
        } else if self.must_check || is_checking || !self.is_connected {
            Doubt::Some
        } else {
            Doubt::None
        }
    }

    /// Whether the engine has accepted no heartbeat for so long that it assigns the attempts to other workers.
    fn is_gap(&self, now: Now) -> bool {
        self.accepted_at.is_some_and(|at| now.instant.duration_since(at) > MAX_HEARTBEAT_GAP)
    }

    /// Whether the attempts are checked after the next heartbeat.
    pub(super) fn must_check(&self) -> bool {
        self.must_check
    }

    pub(super) fn request_check(&mut self) {
        self.must_check = true;
    }

    /// A check has begun, unless there are no attempts.
    pub(super) fn check_started(&mut self, has_attempts: bool) {
        self.must_check = false;
        self.has_gap &= has_attempts;
    }

    /// A check has ended. Returns whether an incomplete one is repeated.
    pub(super) fn check_ended(&mut self, is_incomplete: bool) -> bool {
        let is_again = is_incomplete && self.incomplete_checks < MAX_INCOMPLETE_CHECKS;
        self.incomplete_checks = if is_again { self.incomplete_checks + 1 } else { 0 };
        self.must_check |= is_again;
        // Unless another check was requested meanwhile.
        self.has_gap &= self.must_check;
        is_again
    }
}

/// What a permanent error means for the worker. `since`: since when there have been only such errors.
fn severity(now: Instant, error: &Error, since: &mut Option<Instant>) -> Severity {
    match error.kind() {
        ErrorKind::Closed => Severity::Final,
        // A proxy may reject a token or a path for a while.
        ErrorKind::Unauthenticated | ErrorKind::Unimplemented
            if now.duration_since(*since.get_or_insert(now)) >= MAX_REJECTION =>
        {
            Severity::Final
        }
        _ => Severity::Permanent,
    }
}
