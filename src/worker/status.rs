//! The status of a running worker.

use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::boxed::BoxStream;
use crate::error::{Error, Result};
use crate::model::WorkerId;
use crate::model::name::parse_name;

/// The status of a running worker; see [`RunningWorker::status`](super::RunningWorker::status).
///
/// ```no_run
/// # async fn example(worker: hatchet::worker::RunningWorker) {
/// let status = worker.status();
/// println!("{}: {} of {} slots in use", status.state, status.running, status.slots);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// The id of the worker. It changes if the engine loses the worker and the worker registers again.
    pub worker_id: WorkerId,
    /// Whether the worker is connected, is shutting down, or has stopped.
    pub state: WorkerState,
    /// Whether the worker was [paused](super::RunningWorker::pause).
    pub is_paused: bool,
    /// The total number of slots, of all types.
    pub slots: usize,
    /// The number of attempts that are running.
    pub running: usize,
    /// The number of assigned attempts that wait for a slot, or for space in the outbox.
    pub queued: usize,
    /// The number of attempts whose result is in the outbox, because the engine has not accepted it yet.
    pub unreported: usize,
    /// Whether the worker starts no further attempts because its outbox is full.
    pub is_outbox_full: bool,
}

/// What a driver publishes.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) status: WorkerStatus,
    /// Why the worker cannot continue.
    pub(super) failure: Option<Error>,
}

impl WorkerStatus {
    pub(super) fn starting(worker_id: WorkerId, slots: usize) -> Self {
        let state = WorkerState::Disconnected;
        Self { worker_id, state, is_paused: false, slots, running: 0, queued: 0, unreported: 0, is_outbox_full: false }
    }
}

/// The state of a running worker.
///
/// ```
/// use hatchet::worker::WorkerState;
///
/// assert_eq!(WorkerState::Connected.to_string(), "connected");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WorkerState {
    /// The engine cannot be reached, or does not accept the worker's heartbeats. Running attempts continue.
    Disconnected,
    /// The engine accepts the worker's heartbeats, and assigns attempts.
    Connected,
    /// The worker is shutting down: it waits for running attempts.
    Draining,
    /// The worker has shut down. Attempts that did not end in time were dropped.
    Stopped,
}

impl FromStr for WorkerState {
    type Err = Error;

    /// Parses `disconnected`, `connected`, `draining` or `stopped`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for any other string.
    fn from_str(name: &str) -> Result<Self> {
        parse_name("worker state", &[Self::Disconnected, Self::Connected, Self::Draining, Self::Stopped], name)
    }
}

impl WorkerState {
    /// Returns the name: `disconnected`, `connected`, `draining` or `stopped`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Connected => "connected",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A stream of the statuses of a worker; see [`RunningWorker::statuses`](super::RunningWorker::statuses).
///
/// The stream starts with the current status, and ends when the worker has ended. A slow reader misses intermediate statuses, but never the last
/// one.
///
/// ```no_run
/// # async fn example(worker: hatchet::worker::RunningWorker) {
/// let mut statuses = worker.statuses();
/// while let Some(status) = statuses.next().await {
///     println!("{}", status.state);
/// }
/// # }
/// ```
#[must_use = "a stream does nothing unless it is polled"]
pub struct WorkerStatuses(BoxStream<WorkerStatus>);

impl WorkerStatuses {
    pub(super) fn new(mut statuses: watch::Receiver<Life>) -> Self {
        statuses.mark_changed();
        let next = |mut statuses: watch::Receiver<Life>| async move {
            statuses.changed().await.ok()?;
            let status = statuses.borrow_and_update().status.clone();
            Some((status, statuses))
        };
        Self(BoxStream::new(unfold(statuses, next)))
    }

    /// Returns the next status, or `None` when the worker has ended.
    ///
    /// # Cancel safety
    /// This method is cancel safe: if the future is dropped, the next call returns the newest status.
    pub async fn next(&mut self) -> Option<WorkerStatus> {
        self.0.next().await
    }
}

impl Stream for WorkerStatuses {
    type Item = WorkerStatus;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<WorkerStatus>> {
        Pin::new(&mut self.0).poll_next(cx)
    }
}

impl fmt::Debug for WorkerStatuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkerStatuses")
    }
}
