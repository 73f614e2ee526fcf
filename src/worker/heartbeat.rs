//! Heartbeats. A worker gets assignments while its last heartbeat is less than five seconds old, and loses its attempts half a minute
//! after it.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::heartbeat_thread::{HeartbeatThread, LastHeartbeat, is_answered, reports_missing_stream};
use crate::client::Client;
use crate::error::Error;
use crate::model::WorkerId;
use crate::telemetry::MAX_WARNINGS;
use crate::workflow::FullSlots;

/// Two heartbeats may be lost without an effect.
const PERIOD: Duration = Duration::from_secs(2);
/// The intervals of the first heartbeats after a stream was opened. A heartbeat that the engine receives before it notices the stream
/// does not count. The first interval gives the stream time to arrive.
const EARLY_INTERVALS: [Duration; 3] =
    [Duration::from_millis(30), Duration::from_millis(150), Duration::from_millis(500)];
/// The number of results that the driver may be behind with.
const QUEUE_CAPACITY: usize = 16;

/// The result of a heartbeat.
#[derive(Debug)]
pub(super) enum Heartbeat {
    /// With the time when the heartbeat was sent.
    Accepted(Instant),
    /// The engine has seen the stream close, so it must be reopened. With the time when the heartbeat was sent.
    Rejected(Instant, Error),
    /// The engine does not have the worker.
    UnknownWorker,
    Failed(Error),
}

/// How many heartbeats have failed in succession.
#[derive(Debug, Default)]
pub(super) struct Failures(u32);

impl Failures {
    /// Counts and logs a failure.
    pub(super) fn add(&mut self, worker: WorkerId, error: &Error) {
        self.0 = self.0.saturating_add(1);
        let failures = self.0;
        if failures <= MAX_WARNINGS {
            tracing::warn!(worker_id = %worker, %error, failures, "heartbeat failed");
        } else {
            tracing::debug!(worker_id = %worker, %error, failures, "heartbeat failed again");
        }
    }

    /// Logs that the heartbeats do not fail any longer.
    pub(super) fn end(&mut self, worker: WorkerId) {
        let failures = std::mem::take(&mut self.0);
        if failures > 0 {
            tracing::info!(worker_id = %worker, failures, "heartbeats are accepted again");
        }
    }
}

/// The heartbeats of a worker, which end when this is dropped.
pub(super) struct Heartbeats {
    early: mpsc::Sender<()>,
    results: mpsc::Receiver<Heartbeat>,
    task: JoinHandle<()>,
    thread: Option<HeartbeatThread>,
}

impl Heartbeats {
    pub(super) fn start(client: &Client, worker: WorkerId, last: &LastHeartbeat, slots: &FullSlots) -> Self {
        let (early, requests) = mpsc::channel(1);
        let (sender, results) = mpsc::channel(QUEUE_CAPACITY);
        last.set(true);
        let thread = HeartbeatThread::start(client, worker, last.clone(), slots.clone());
        let task = tokio::spawn(send(client.clone(), worker, requests, sender, last.clone()));
        Self { early, results, task, thread }
    }

    /// Ends the heartbeats, and waits until their thread has ended.
    pub(super) async fn stop(mut self) {
        self.task.abort();
        if let Some(thread) = self.thread.take() {
            thread.stop().await;
        }
    }

    /// Requests early heartbeats, because a stream is being opened, or because the worker must know whether it is connected. The first call
    /// starts the heartbeats.
    pub(super) fn request_early(&self) {
        // The channel is full if the previous request has not been handled yet. One is enough.
        let _ = self.early.try_send(());
    }

    /// Returns the next result. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Heartbeat> {
        self.results.recv().await
    }
}

impl Drop for Heartbeats {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn send(
    client: Client,
    worker: WorkerId,
    mut requests: mpsc::Receiver<()>,
    results: mpsc::Sender<Heartbeat>,
    last: LastHeartbeat,
) {
    if requests.recv().await.is_none() {
        return;
    }
    let (clock, mut idle) = (client.clock(), false);
    let mut early = EARLY_INTERVALS.into_iter();
    let mut next = Instant::now();
    loop {
        let interval = early.next();
        idle &= interval.is_none();
        next += interval.unwrap_or(PERIOD);
        tokio::select! {
            biased;
            Some(()) = requests.recv() => {
                early = EARLY_INTERVALS.into_iter();
                next = Instant::now();
                continue;
            }
            due = clock.next_heartbeat(worker.into(), next, PERIOD, idle) => next = due,
        }
        let sent_at = Instant::now();
        let result = client.rpc().dispatcher.heartbeat(worker, clock.now()).await;
        last.set(is_answered(&result));
        let heartbeat = match result {
            Ok(()) => Heartbeat::Accepted(sent_at),
            Err(error) if reports_missing_stream(&error) => Heartbeat::Rejected(sent_at, error),
            Err(error) if error.is_not_found() => Heartbeat::UnknownWorker,
            Err(error) => Heartbeat::Failed(error),
        };
        idle = matches!(heartbeat, Heartbeat::Accepted(_));
        // After a slow heartbeat, the next one must not be sent immediately.
        next = next.max(Instant::now() - PERIOD / 2);
        // A driver that is behind must not delay the heartbeats.
        if let Err(mpsc::error::TrySendError::Closed(_)) = results.try_send(heartbeat) {
            return;
        }
    }
}
