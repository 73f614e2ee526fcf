//! Whether a worker is connected, and whether the engine may have ended its attempts without a notification: a state machine without I/O.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::outbox::Doubt;
use super::ownership::MAX_HEARTBEAT_GAP;
use crate::error::{Error, ErrorKind};

/// How long the engine may take to notice a stream: at first, and after several streams that it has not noticed in time.
const MIN_NOTICE_DELAY: Duration = Duration::from_millis(500);
const MAX_NOTICE_DELAY: Duration = Duration::from_secs(8);
/// For how long the token or a call may be rejected before the worker ends.
pub(super) const MAX_REJECTION: Duration = Duration::from_secs(60);
/// The same for a token that is valid, while the worker has attempts or results. The engine rejects all tokens while its database is
/// unavailable.
pub(super) const MAX_TOKEN_REJECTION: Duration = Duration::from_secs(3600);
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
    /// When the engine last accepted a heartbeat. `None` if it was asked about the time since then in vain.
    accepted_at: Option<Now>,
    /// How many streams in succession were given up because the engine rejected a heartbeat.
    unnoticed_streams: u32,
    /// Since when heartbeats have been rejected, and since when the stream has been.
    heartbeats_rejected_at: Option<Instant>,
    stream_rejected_at: Option<Instant>,
    /// Whether the stream has failed with a permanent error, and has not been opened since.
    is_failing: bool,
    /// Whether the engine may have ended attempts without a notification.
    must_check: bool,
    /// Whether a check is due although nothing indicates that it is needed.
    must_check_regularly: bool,
    /// Whether the check that has begun is only such a one.
    is_regular: bool,
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
    pub(super) fn stream_failed(&mut self, now: Instant, error: &Error, token_timeout: Duration) -> (Severity, bool) {
        self.lost(now);
        let is_first = !std::mem::replace(&mut self.is_failing, true);
        (severity(now, error, &mut self.stream_rejected_at, token_timeout), is_first)
    }

    fn lost(&mut self, now: Instant) {
        self.disconnected(now);
        // A cancellation is sent once, and may have been lost with the stream.
        self.must_check = true;
    }

    /// The engine has accepted a heartbeat. A check is made only when it has had time to notice the stream: before, it could end an attempt
    /// after the answer, without a stream for the notification.
    pub(super) fn heartbeat_accepted(&mut self, now: Now, sent_at: Instant, stream: StreamState) -> Accepted {
        self.heartbeats_rejected_at = None;
        self.unnoticed_streams = 0;
        self.has_gap |= self.is_gap(now);
        self.accepted_at = Some(now);
        self.must_check |= self.has_gap;
        self.is_connected = !stream.is_lost;
        if self.is_connected && now.instant.duration_since(stream.opened_at) >= MIN_OPEN {
            self.stream_rejected_at = None;
            self.is_failing = false;
        }
        self.has_started = true;
        let disconnected_at = self.disconnected_at.take_if(|_| self.is_connected);
        Accepted {
            reconnected_after: disconnected_at.map(|at| now.instant.duration_since(at)),
            must_check: (self.must_check || self.must_check_regularly)
                && !stream.is_lost
                && sent_at >= stream.opened_at + MIN_NOTICE_DELAY,
        }
    }

    /// The engine has rejected a heartbeat because it has seen the stream close. Returns whether the stream must be reopened: a heartbeat
    /// from before the stream was requested, or from just after that, proves nothing.
    pub(super) fn heartbeat_rejected(&mut self, now: Instant, sent_at: Instant, stream: StreamState) -> bool {
        let is_lost = sent_at >= stream.opened_at + self.notice_delay() && !stream.is_lost;
        if is_lost {
            self.unnoticed_streams = self.unnoticed_streams.saturating_add(1);
            self.lost(now);
        }
        is_lost
    }

    /// How long the engine may take to notice the current stream. An engine that needs longer would never get a stream that is not dropped.
    fn notice_delay(&self) -> Duration {
        let factor = 2_u32.saturating_pow(self.unnoticed_streams);
        MIN_NOTICE_DELAY.saturating_mul(factor).min(MAX_NOTICE_DELAY)
    }

    pub(super) fn heartbeat_failed(&mut self, now: Instant, error: &Error, token_timeout: Duration) -> Severity {
        self.disconnected(now);
        if error.is_transient() {
            self.heartbeats_rejected_at = None;
            return Severity::Transient;
        }
        severity(now, error, &mut self.heartbeats_rejected_at, token_timeout)
    }

    /// Which attempts the engine may have ended or assigned to other workers. Without a time, that of the last heartbeat counts.
    pub(super) fn doubt(&mut self, now: Option<Now>, is_checking: bool) -> Doubt {
        self.has_gap |= now.is_some_and(|now| self.is_gap(now));
        if self.has_gap {
            Doubt::All
        } else if self.must_check || is_checking && !self.is_regular || !self.is_connected {
            Doubt::Some
        } else {
            Doubt::None
        }
    }

    /// Whether the engine has accepted no heartbeat for so long that it assigns the attempts to other workers. Tokio's clock may stop while
    /// the machine is suspended, and the other one may be set: that costs a check at most.
    fn is_gap(&self, now: Now) -> bool {
        self.accepted_at.is_some_and(|at| {
            let by_clock = (now.time - at.time).to_std().unwrap_or_default();
            now.instant.duration_since(at.instant).max(by_clock) > MAX_HEARTBEAT_GAP
        })
    }

    /// Whether nothing indicates that the check that has begun is needed.
    pub(super) fn is_regular_check(&self) -> bool {
        self.is_regular
    }

    /// Whether the attempts are checked after the next heartbeat.
    pub(super) fn must_check(&self) -> bool {
        self.must_check
    }

    pub(super) fn request_check(&mut self) {
        self.must_check = true;
    }

    /// Requests a check for which no result waits.
    pub(super) fn request_regular_check(&mut self) {
        self.must_check_regularly = true;
    }

    /// A check has begun, unless there are no attempts. `has_stream`: whether notifications cannot be lost any longer.
    pub(super) fn check_started(&mut self, has_attempts: bool, has_stream: bool) {
        self.is_regular = !self.must_check && !self.has_gap;
        (self.must_check, self.must_check_regularly) = (self.must_check && !has_stream, false);
        self.has_gap &= has_attempts;
    }

    /// A check has ended. Returns whether an incomplete one is repeated.
    pub(super) fn check_ended(&mut self, is_incomplete: bool) -> bool {
        if self.is_regular {
            return false;
        }
        if is_incomplete {
            // All results waited for the answer. They do not wait for the next one.
            (self.has_gap, self.accepted_at) = (false, None);
        }
        let is_again = is_incomplete && self.incomplete_checks < MAX_INCOMPLETE_CHECKS;
        self.incomplete_checks = if is_again { self.incomplete_checks + 1 } else { 0 };
        self.must_check |= is_again;
        // Unless another check was requested meanwhile.
        self.has_gap &= self.must_check;
        is_again
    }
}

/// What a permanent error means for the worker. `since`: since when there have been only such errors. `token_timeout`: how long a token may
/// be rejected.
fn severity(now: Instant, error: &Error, since: &mut Option<Instant>, token_timeout: Duration) -> Severity {
    match error.kind() {
        ErrorKind::Closed => Severity::Final,
        // A proxy may reject a token or a path for a while.
        ErrorKind::Unauthenticated | ErrorKind::Unimplemented
            if now.duration_since(*since.get_or_insert(now)) >= max_rejection(error, token_timeout) =>
        {
            Severity::Final
        }
        _ => Severity::Permanent,
    }
}

/// How long the worker tolerates an error. One from a proxy that does not know the path is tolerated as long as a rejected token.
fn max_rejection(error: &Error, token_timeout: Duration) -> Duration {
    if error.kind() == ErrorKind::Unauthenticated || error.is_by_proxy() { token_timeout } else { MAX_REJECTION }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ServerStatus;

    const SECOND: Duration = Duration::from_secs(1);
    const MILLI: Duration = Duration::from_millis(1);

    /// Times of a test, counted from its start.
    struct Times {
        instant: Instant,
        time: DateTime<Utc>,
    }

    impl Times {
        fn new() -> Self {
            Self { instant: Instant::now(), time: DateTime::default() }
        }

        fn at(&self, after: Duration) -> Now {
            Now { instant: self.instant + after, time: self.time + after }
        }

        /// A stream that was opened at this time.
        fn stream(&self, opened: Duration) -> StreamState {
            StreamState { is_lost: false, opened_at: self.instant + opened }
        }
    }

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, "as planned")
    }

    #[test]
    fn a_worker_is_connected_while_its_stream_is_open_and_its_heartbeats_are_accepted() {
        let times = Times::new();
        let (stream, mut connection) = (times.stream(Duration::ZERO), Connection::new(false));
        let lost = StreamState { is_lost: true, ..stream };
        let accept = |connection: &mut Connection, second: u32, stream| {
            let now = times.at(second * SECOND);
            connection.heartbeat_accepted(now, now.instant, stream).reconnected_after
        };
        // One that has not started is not connected again.
        connection.disconnected(times.instant);
        assert_eq!((accept(&mut connection, 1, stream), connection.is_connected()), (None, true));
        connection.stream_lost(times.at(2 * SECOND).instant);
        assert!(!connection.is_connected());
        connection.disconnected(times.at(3 * SECOND).instant);
        assert_eq!((accept(&mut connection, 4, lost), connection.is_connected()), (None, false));
        assert_eq!((accept(&mut connection, 7, stream), connection.is_connected()), (Some(5 * SECOND), true));
        assert_eq!(accept(&mut connection, 8, stream), None, "once");
    }

    #[test]
    fn each_stream_that_is_given_up_gives_the_next_one_twice_the_time() {
        let (times, mut connection) = (Times::new(), Connection::new(false));
        let stream = times.stream(Duration::ZERO);
        let gives_up = |connection: &mut Connection, millis: u32| {
            let sent_at = times.at(millis * MILLI).instant;
            connection.heartbeat_rejected(sent_at, sent_at, stream)
        };
        for millis in [500, 1000, 2000, 4000, 8000, 8000, 8000] {
            assert!(!gives_up(&mut connection, millis - 1), "{millis}");
            assert!(gives_up(&mut connection, millis), "{millis}");
        }
        connection.heartbeat_accepted(times.at(9 * SECOND), times.instant, stream);
        assert!(gives_up(&mut connection, 500) && !gives_up(&mut connection, 500));
        let sent_at = times.at(60 * SECOND).instant;
        assert!(!connection.heartbeat_rejected(sent_at, sent_at, StreamState { is_lost: true, ..stream }));
    }

    #[test]
    fn a_worker_cannot_go_on_if_it_is_rejected_for_a_minute() {
        use ErrorKind::{Closed, Rejected, Unauthenticated, Unimplemented};
        let times = Times::new();
        let at = |second: u32| times.at(second * SECOND).instant;
        let mut connection = Connection::new(false);
        for (second, kind, expected) in [
            (0, Unauthenticated, Severity::Permanent),
            (59, Unimplemented, Severity::Permanent),
            (60, Rejected, Severity::Permanent),
            (60, Unauthenticated, Severity::Final),
            (60, Closed, Severity::Final),
        ] {
            assert_eq!(
                connection.heartbeat_failed(at(second), &error(kind), MAX_REJECTION),
                expected,
                "{second} s, {kind}"
            );
        }
        let transient = error(ErrorKind::Unavailable).transient();
        assert_eq!(connection.heartbeat_failed(at(61), &transient, MAX_REJECTION), Severity::Transient);
        let rejected = |connection: &mut Connection, second, token_timeout| {
            connection.heartbeat_failed(at(second), &error(Unauthenticated), token_timeout)
        };
        assert_eq!(rejected(&mut connection, 62, MAX_REJECTION), Severity::Permanent, "from the start");
        // A worker with attempts waits for longer.
        assert_eq!(rejected(&mut connection, 3661, MAX_TOKEN_REJECTION), Severity::Permanent);
        assert_eq!(rejected(&mut connection, 3661, MAX_REJECTION), Severity::Final, "its attempts have ended");
        assert_eq!(rejected(&mut connection, 3662, MAX_TOKEN_REJECTION), Severity::Final);
        let path = connection.heartbeat_failed(at(3663), &error(Unimplemented), MAX_TOKEN_REJECTION);
        assert_eq!(path, Severity::Final, "only for a token, and for an error of a proxy");
        let by_proxy = error(Unimplemented).with_status(ServerStatus::Http(404));
        assert_eq!(connection.heartbeat_failed(at(3661), &by_proxy, MAX_TOKEN_REJECTION), Severity::Permanent);

        // Accepted heartbeats prove a stream only after some seconds. What it delivers proves it at once.
        let failed = |connection: &mut Connection, second| {
            connection.stream_failed(at(second), &error(Unimplemented), MAX_REJECTION)
        };
        assert_eq!(failed(&mut connection, 0), (Severity::Permanent, true));
        assert_eq!(failed(&mut connection, 50), (Severity::Permanent, false));
        connection.heartbeat_accepted(times.at(59 * SECOND), at(59), times.stream(50 * SECOND));
        assert_eq!(failed(&mut connection, 60), (Severity::Final, false));
        connection.heartbeat_accepted(times.at(70 * SECOND), at(70), times.stream(60 * SECOND));
        assert_eq!(failed(&mut connection, 71), (Severity::Permanent, true));
        connection.received();
        assert_eq!(failed(&mut connection, 131), (Severity::Permanent, true));
        connection.stream_lost(at(132));
        assert_eq!(failed(&mut connection, 191), (Severity::Permanent, true));
    }

    #[test]
    fn attempts_are_checked_when_the_engine_has_had_time_to_notice_the_stream() {
        let times = Times::new();
        let stream = times.stream(Duration::ZERO);
        for (must_check, sent, is_lost, expected) in
            [(true, 499, false, false), (true, 500, false, true), (true, 500, true, false), (false, 500, false, false)]
        {
            let mut connection = Connection::new(must_check);
            let sent_at = times.at(sent * MILLI).instant;
            let stream = StreamState { is_lost, ..stream };
            let accepted = connection.heartbeat_accepted(times.at(SECOND), sent_at, stream);
            assert_eq!(accepted.must_check, expected, "{must_check}, {sent} ms, {is_lost}");
        }
    }

    #[test]
    fn a_check_ends_the_doubt() {
        let (times, mut connection) = (Times::new(), Connection::new(false));
        let (now, stream) = (times.at(SECOND), times.stream(Duration::ZERO));
        assert_eq!(connection.doubt(Some(now), false), Doubt::Some, "it is not connected");
        connection.heartbeat_accepted(now, now.instant, stream);
        assert_eq!((connection.doubt(Some(now), false), connection.doubt(Some(now), true)), (Doubt::None, Doubt::Some));
        connection.request_check();
        assert_eq!(connection.doubt(Some(now), false), Doubt::Some);
        connection.check_started(true, true);
        assert!(!connection.check_ended(false) && connection.doubt(Some(now), false) == Doubt::None);
        // After a gap, results wait for one check, and not for those that repeat it.
        let late = times.at(60 * SECOND);
        assert_eq!(connection.doubt(Some(late), false), Doubt::All);
        connection.check_started(true, true);
        assert_eq!(connection.doubt(Some(late), true), Doubt::All);
        assert!(connection.check_ended(true) && connection.doubt(Some(late), false) == Doubt::Some);
        connection.heartbeat_accepted(late, late.instant, stream);
        connection.check_started(true, true);
        assert!(!connection.check_ended(false) && connection.doubt(Some(late), false) == Doubt::None);
        // One that is incomplete is repeated some times.
        connection.request_check();
        for _ in 0..MAX_INCOMPLETE_CHECKS {
            connection.check_started(true, true);
            assert!(connection.check_ended(true) && connection.must_check());
        }
        connection.check_started(true, true);
        assert!(!connection.check_ended(true) && !connection.must_check());
        // A regular one delays no result, and is not repeated.
        connection.request_regular_check();
        assert!(connection.heartbeat_accepted(late, late.instant, stream).must_check);
        connection.check_started(true, true);
        assert_eq!((connection.is_regular_check(), connection.doubt(Some(late), true)), (true, Doubt::None));
        assert!(!connection.check_ended(true) && !connection.must_check());
        // Another cancellation may have been lost during a check.
        connection.check_started(true, true);
        connection.stream_lost(now.instant);
        assert!(!connection.check_ended(false) && connection.must_check());
    }

    #[test]
    fn all_attempts_are_in_doubt_after_a_gap_by_either_clock() {
        let times = Times::new();
        let gap = MAX_HEARTBEAT_GAP + SECOND;
        let start = times.at(Duration::ZERO);
        for (instant, time, expected) in [
            (MAX_HEARTBEAT_GAP, MAX_HEARTBEAT_GAP, Doubt::None),
            (gap, gap, Doubt::All),
            // The clock was set back.
            (gap, Duration::ZERO, Doubt::All),
            // The machine was suspended.
            (SECOND, gap, Doubt::All),
        ] {
            let now = Now { instant: times.at(instant).instant, time: times.at(time).time };
            for has_attempts in [true, false] {
                let mut connection = Connection::new(false);
                connection.heartbeat_accepted(start, start.instant, times.stream(Duration::ZERO));
                assert_eq!(connection.doubt(Some(now), false), expected, "{instant:?} {time:?}");
                // The next heartbeat does not end the doubt, but the check that follows does.
                let accepted = connection.heartbeat_accepted(now, now.instant, times.stream(Duration::ZERO));
                assert_eq!(
                    (accepted.must_check, connection.doubt(Some(now), false)),
                    (expected == Doubt::All, expected)
                );
                connection.request_check();
                connection.check_started(has_attempts, true);
                let during = if has_attempts { expected.max(Doubt::Some) } else { Doubt::Some };
                assert_eq!(connection.doubt(Some(now), true), during);
                connection.check_ended(false);
                assert_eq!(connection.doubt(Some(now), false), Doubt::None);
            }
        }
    }
}
