//! Which workers a run asks for.

use crate::error::Result;
use crate::model::label::{self, DesiredLabels};
use crate::model::{DesiredLabel, WorkerId};
use crate::rpc::grpc_types::NewRun;

/// What a run asks for. Empty for most.
#[derive(Debug, Clone, Default)]
pub(super) struct Placement {
    pub(super) worker: Option<WorkerId>,
    labels: DesiredLabels,
}

impl Placement {
    pub(super) fn label(&mut self, key: String, label: DesiredLabel) {
        self.labels.insert(key, label);
    }

    /// Puts it into a run.
    pub(super) fn apply(&self, run: NewRun) -> Result<NewRun> {
        Ok(run.placed(self.worker.map(Into::into), label::to_server(&self.labels)?))
    }
}

/// The same two options for one run and for many.
macro_rules! placement_options {
    () => {
        /// Asks for a worker. It has an effect only for a task that is [sticky](crate::Task::sticky), and decides then whether
        /// the run may go elsewhere.
        ///
        /// The engine does not show the wish afterwards; which worker had the run is in its attempts
        /// ([`Attempt::worker`](crate::Attempt::worker)).
        pub fn desired_worker(mut self, worker: crate::model::WorkerId) -> Self {
            self.placement.worker = Some(worker);
            self
        }

        /// Asks for workers with a label; see [`DesiredLabel`](crate::DesiredLabel). It takes the place of what the task asks for of the
        /// same label. A sticky task does not look at labels.
        ///
        /// The engine does not show the wish afterwards; which worker had the run is in its attempts.
        pub fn desired_label(mut self, key: impl Into<String>, label: impl Into<crate::model::DesiredLabel>) -> Self {
            self.placement.label(key.into(), label.into());
            self
        }
    };
}
pub(super) use placement_options;
