//! The workers that a run requests.

use crate::error::Result;
use crate::model::label::check_keys;
use crate::model::{DesiredLabel, DesiredLabels, WorkerId};
use crate::rpc::convert::CommonRun;

/// The requested worker, and the requested labels. Empty for most runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Placement {
    pub(super) worker: Option<WorkerId>,
    labels: DesiredLabels,
}

impl Placement {
    pub(super) fn label(&mut self, key: String, label: DesiredLabel) {
        self.labels.insert(key, label);
    }

    /// These requests, and others where there are none.
    pub(super) fn or(mut self, others: &Self) -> Self {
        self.worker = self.worker.or(others.worker);
        for (key, label) in &others.labels {
            self.labels.entry(key.clone()).or_insert_with(|| label.clone());
        }
        self
    }

    /// Adds them to runs.
    pub(super) fn apply(&self, run: CommonRun) -> Result<CommonRun> {
        check_keys(&self.labels)?;
        Ok(run.placed(self.worker, &self.labels))
    }
}
