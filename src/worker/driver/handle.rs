//! The driver's side of the handle of a worker.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::super::heartbeat_thread::LastHeartbeat;
use super::super::setup::Labels;
use super::super::status::{Life, WorkerState, WorkerStatus};
use crate::error::{Error, Result};

/// What the handle of a worker has changed. It has already sent it to the server.
#[derive(Debug)]
pub(in crate::worker) enum Command {
    Pause(bool),
    AddLabels(Labels),
    /// The grace period of a shutdown that follows.
    LimitShutdown(Duration),
}

/// The connections of a driver to the handle of the worker.
pub(in crate::worker) struct Handles {
    pub(in crate::worker) stop: CancellationToken,
    pub(in crate::worker) force: CancellationToken,
    pub(in crate::worker) ready: oneshot::Sender<Result<()>>,
    pub(in crate::worker) commands: mpsc::UnboundedReceiver<Command>,
    pub(in crate::worker) life: watch::Sender<Life>,
    pub(in crate::worker) last_heartbeat: LastHeartbeat,
}

/// What the handle has requested, and what it is notified of.
pub(super) struct HandleSide {
    pub(super) stop: CancellationToken,
    /// Ends the worker without waiting for anything.
    pub(super) force: CancellationToken,
    /// Receives the result of the start, once.
    ready: Option<oneshot::Sender<Result<()>>>,
    commands: mpsc::UnboundedReceiver<Command>,
    life: watch::Sender<Life>,
    pub(super) is_paused: bool,
}

impl HandleSide {
    pub(super) fn new(handles: Handles) -> Self {
        let Handles { stop, force, ready, commands, life, last_heartbeat: _ } = handles;
        Self { stop, force, ready: Some(ready), commands, life, is_paused: false }
    }

    /// Returns the next command. Cancel safe.
    pub(super) async fn next_command(&mut self) -> Option<Command> {
        self.commands.recv().await
    }

    /// Whether the result of the start is not known yet.
    pub(super) fn is_starting(&self) -> bool {
        self.ready.is_some()
    }

    pub(super) fn end_start(&mut self, result: Result<()>) {
        if let Some(ready) = self.ready.take() {
            // Whoever has started the worker may not wait any longer.
            let _ = ready.send(result);
        }
    }

    /// Publishes a status. Returns whether it has changed.
    pub(super) fn publish(&self, status: WorkerStatus) -> bool {
        self.life.send_if_modified(|life| {
            let is_new = life.status != status;
            life.status = status;
            is_new
        })
    }

    /// Publishes why the worker cannot continue.
    pub(super) fn publish_failure(&self, error: Error) {
        self.life.send_modify(|life| life.failure = Some(error));
    }

    /// Publishes the end of the worker.
    pub(super) fn publish_stopped(&self) {
        self.life.send_modify(|life| {
            life.status.state = WorkerState::Stopped;
            (life.status.running, life.status.queued, life.status.unreported) = (0, 0, 0);
        });
    }
}
