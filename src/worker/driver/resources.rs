//! What all attempts of a worker use of it.

use tokio::sync::mpsc;

use super::super::attempt::Environment;
use super::super::outputs::Outputs;
use super::super::setup::Worker;
use crate::client::Client;
use crate::model::{TaskId, WorkerId};
use crate::workflow::{FullSlots, WorkerLabels};

/// The other ends of the [`Environment`] of each attempt.
pub(super) struct Resources {
    outputs: Outputs,
    /// For attempts that release their slots.
    release: mpsc::UnboundedSender<(TaskId, u32)>,
    releases: mpsc::UnboundedReceiver<(TaskId, u32)>,
    full_slots: FullSlots,
}

impl Resources {
    pub(super) fn start(client: &Client, full_slots: FullSlots) -> Self {
        let (release, releases) = mpsc::unbounded_channel();
        Self { outputs: Outputs::start(client), release, releases, full_slots }
    }

    /// What an attempt needs that was assigned to the worker under this id.
    pub(super) fn environment(&self, worker: &Worker, id: WorkerId) -> Environment {
        Environment {
            client: worker.client.clone(),
            worker: id,
            labels: WorkerLabels::clone(&worker.labels),
            cancel_grace: worker.cancel_grace,
            output: self.outputs.output(),
            released: self.release.clone(),
            full_slots: self.full_slots.clone(),
        }
    }

    /// Returns the task and the retry count of the next attempt that has released its slots. Cancel safe.
    pub(super) async fn released(&mut self) -> Option<(TaskId, u32)> {
        self.releases.recv().await
    }

    /// Sets whether all slots are taken, for attempts that start children.
    pub(super) fn set_full(&self, is_full: bool) {
        self.full_slots.set(is_full);
    }

    /// Sends the log lines and the chunks that are in the queue, within a few seconds.
    pub(super) async fn close(self) {
        self.outputs.close().await;
    }
}
