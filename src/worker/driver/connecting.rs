//! The driver's part of the connection to the engine: the stream of assignments, heartbeats, and registering again.

use tokio::time::{Duration, Instant};

use super::super::connection::{MAX_REJECTION, MAX_TOKEN_REJECTION, Now, Severity, StreamState};
use super::super::heartbeat::Heartbeat;
use super::registration::Registered;
use super::{STREAM, WorkerDriver};
use crate::error::Error;
use crate::rpc::convert::Action;
use crate::telemetry::{self, Measurement};
use crate::transport::StreamEvent;

impl WorkerDriver {
    pub(super) fn on_stream(&mut self, event: StreamEvent<Action>) {
        match event {
            StreamEvent::Message(action) => {
                self.connection.received();
                self.on_action(action);
            }
            StreamEvent::NeedsOpen => {
                self.open_stream();
                self.heartbeats.request_early();
            }
            StreamEvent::Gap => {
                self.mark_notifications_lost();
                self.request_check();
            }
            // A proxy may have lost it, and the engine may not have noticed that: its assignments would fail. The engine sends each assignment
            // to one of the two streams. Running attempts are checked, and those that wait are not.
            StreamEvent::Idle => {
                self.open_stream();
                if self.assignments.held().next().is_some() {
                    self.request_regular_check();
                }
            }
            StreamEvent::Lost(_) => {
                // A proxy may request hours.
                self.stream.limit_pause(STREAM.max_backoff);
                self.connection.stream_lost(Instant::now());
                self.mark_notifications_lost();
            }
            StreamEvent::Failed(error) => {
                let (severity, is_first) = self.connection.stream_failed(Instant::now(), &error, self.token_timeout());
                if is_first {
                    tracing::error!(worker_id = %self.id, %error, "worker stream failed");
                } else {
                    tracing::debug!(worker_id = %self.id, %error, "worker stream is still failing");
                }
                self.stream.mark_lost();
                self.mark_notifications_lost();
                self.fail(error, severity);
            }
        }
    }

    fn open_stream(&mut self) {
        let (rpc, id) = (self.worker.client.rpc().clone(), self.id);
        self.stream.open(async move { rpc.dispatcher.listen(id).await });
    }

    /// For how long the rejection of the token is waited out.
    fn token_timeout(&self) -> Duration {
        let expires_at = self.worker.client.config().token_expires_at();
        let has_expired = expires_at.is_some_and(|at| at <= self.worker.client.clock().now());
        if has_expired || self.assignments.is_idle() { MAX_REJECTION } else { MAX_TOKEN_REJECTION }
    }

    /// Ends a worker that cannot go on because of a final error. If the worker has not started, the start fails.
    fn fail(&mut self, error: Error, severity: Severity) {
        if severity == Severity::Transient {
            return;
        }
        if self.handle.is_starting() {
            return self.handle.end_start(Err(error));
        }
        if severity == Severity::Final && self.phase.is_running() {
            tracing::error!(worker_id = %self.id, %error, "worker failed; shutting down");
            self.handle.publish_failure(error);
            self.pause();
        }
    }

    pub(super) fn on_heartbeat(&mut self, heartbeat: Heartbeat) {
        let (now, stream) = (self.now(), self.stream_state());
        match heartbeat {
            Heartbeat::Accepted(sent_at) => {
                let accepted = self.connection.heartbeat_accepted(now, sent_at, stream);
                self.heartbeats.accepted(self.id);
                // Results do not wait for a stream. Running attempts are checked again when there is one.
                if accepted.must_check || self.outbox.has_unchecked() {
                    self.start_check(accepted.must_check);
                }
                if let Some(after) = accepted.reconnected_after {
                    tracing::info!(worker_id = %self.id, ?after, "worker reconnected");
                }
                if self.handle.is_starting() {
                    tracing::info!(worker_id = %self.id, name = self.worker.name, "worker is ready");
                    self.handle.end_start(Ok(()));
                }
            }
            Heartbeat::Rejected(sent_at, error) => {
                if self.connection.heartbeat_rejected(now.instant, sent_at, stream) {
                    self.heartbeats.failed(self.id, &error);
                    telemetry::record(&Measurement::StreamLost { stream: STREAM.name });
                    self.stream.mark_lost();
                    self.mark_notifications_lost();
                }
                // None is accepted while the stream cannot be opened.
                self.check_results();
            }
            // The engine has lost the worker and its attempts.
            Heartbeat::UnknownWorker if !self.registration.is_running() && self.phase.is_running() => {
                self.connection.disconnected(now.instant);
                self.registration.start(&self.worker, self.handle.is_paused);
            }
            // No heartbeat will be accepted while it drains or cannot register.
            Heartbeat::UnknownWorker => self.check_results(),
            Heartbeat::Failed(error) => {
                let severity = self.connection.heartbeat_failed(now.instant, &error, self.token_timeout());
                self.heartbeats.failed(self.id, &error);
                // In an outage, the engine cannot be asked.
                if !error.is_transient() {
                    self.check_results();
                }
                self.fail(error, severity);
            }
        }
    }

    pub(super) fn on_registered(&mut self, registered: Registered) {
        let Some(id) = self.registration.end(self.id, registered) else { return };
        tracing::warn!(old_worker_id = %self.id, worker_id = %id, "worker was unknown to the engine; registered again");
        self.id = id;
        self.connection.request_check();
        self.mark_notifications_lost();
        self.stream.reopen_now();
        self.heartbeats.restart(&self.worker.client, id);
    }

    pub(super) fn now(&self) -> Now {
        Now { instant: Instant::now(), time: self.worker.client.clock().now() }
    }

    fn stream_state(&self) -> StreamState {
        StreamState { is_lost: self.stream.is_lost(), opened_at: self.stream.opened_at() }
    }
}
