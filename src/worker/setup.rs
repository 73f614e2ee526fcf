//! The setup of a worker: its options, and the tasks that it runs.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::assignments::SlotRequest;
use super::outbox::Limits;
use super::registered::{Actions, RegisteredWorkflow};
use crate::client::Client;
use crate::error::Result;
use crate::model::{LabelValue, WorkerId};
use crate::rpc::convert::NewWorker;
use crate::sync::lock;
use crate::workflow::WorkerLabels;

pub(super) type Labels = BTreeMap<String, LabelValue>;

/// A worker that has not been started.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, greet: hatchet::Task<(), ()>) -> hatchet::Result<()> {
/// use hatchet::Worker;
///
/// let worker: Worker = hatchet.worker("mailer").register(&greet).build()?;
/// worker.run_until_signal().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is sent until `start` or `run_until` is awaited"]
pub struct Worker {
    pub(super) client: Client,
    pub(super) name: String,
    pub(super) slots: BTreeMap<String, u32>,
    pub(super) labels: WorkerLabels,
    pub(super) outbox: Limits,
    pub(super) journal: Option<PathBuf>,
    pub(super) batch_reports: bool,
    pub(super) grace: Duration,
    pub(super) cancel_grace: Duration,
    pub(super) actions: Actions,
    /// In the order in which they were registered.
    pub(super) workflows: Vec<Arc<RegisteredWorkflow>>,
}

impl Worker {
    /// What an attempt of this action occupies.
    pub(super) fn slots_of(&self, action: &str) -> SlotRequest {
        let task = self.actions.get(action);
        task.map_or_else(|| SlotRequest::new(&BTreeMap::new(), &self.slots), |task| task.slots.clone())
    }

    /// The number of slots of all types.
    pub(super) fn slot_count(&self) -> usize {
        self.slots.values().map(|units| *units as usize).fold(0, usize::saturating_add)
    }

    /// Registers the worker with the engine, under a new id each time.
    pub(super) fn registration(&self) -> impl Future<Output = Result<WorkerId>> + Send + use<> {
        let worker = NewWorker {
            name: self.name.clone(),
            actions: self.actions.keys().cloned().collect(),
            slots: self.slots.iter().map(|(name, units)| (name.clone(), units.cast_signed())).collect(),
            labels: lock(&self.labels).clone(),
        };
        let rpc = self.client.rpc().clone();
        async move { rpc.dispatcher.register(worker).await }
    }
}
