//! The messages of workers: their registration, their assignments, and their reports.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::model::{LabelValue, WorkerId};
use crate::rpc::pb;
use crate::time::to_proto;

/// The registration of a worker.
#[derive(Debug, Clone)]
pub(crate) struct NewWorker {
    pub(crate) name: String,
    pub(crate) actions: Vec<String>,
    /// The number of slots by kind.
    pub(crate) slots: BTreeMap<String, i32>,
    pub(crate) labels: BTreeMap<String, LabelValue>,
}

impl From<NewWorker> for pb::WorkerRegisterRequest {
    fn from(worker: NewWorker) -> Self {
        Self {
            worker_name: worker.name,
            actions: worker.actions,
            services: vec!["default".into()],
            slot_config: worker.slots.into_iter().collect(),
            labels: worker.labels.into_iter().map(|(key, value)| (key, value.into())).collect(),
            // The contract has no number for this language, and the server refuses one that it does not know.
            runtime_info: Some(pb::RuntimeInfo {
                sdk_version: Some(env!("CARGO_PKG_VERSION").into()),
                language: None,
                language_version: None,
                os: Some(std::env::consts::OS.into()),
                extra: Some("hatchet-rs".into()),
            }),
            ..Default::default()
        }
    }
}

/// A message of the engine to a worker about an attempt.
#[derive(Debug, Clone)]
pub(crate) struct Action(pb::AssignedAction);

/// The kind of a message to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ActionKind {
    Start,
    Cancel,
    /// A kind that this version of the crate does not know.
    Unknown(i32),
}

impl From<pb::AssignedAction> for Action {
    fn from(action: pb::AssignedAction) -> Self {
        Self(action)
    }
}

impl Action {
    pub(crate) fn kind(&self) -> ActionKind {
        match pb::ActionType::try_from(self.0.action_type) {
            Ok(pb::ActionType::StartStepRun) => ActionKind::Start,
            Ok(pb::ActionType::CancelStepRun) => ActionKind::Cancel,
            _ => ActionKind::Unknown(self.0.action_type),
        }
    }

    pub(crate) fn run(&self) -> &str {
        &self.0.workflow_run_id
    }

    pub(crate) fn task(&self) -> &str {
        &self.0.task_run_external_id
    }

    pub(crate) fn task_name(&self) -> &str {
        &self.0.task_name
    }

    /// The action, which identifies the task on the worker.
    pub(crate) fn name(&self) -> &str {
        &self.0.action_id
    }

    /// The workflow of the run, if the server sends it.
    pub(crate) fn workflow(&self) -> Option<&str> {
        self.0.workflow_id.as_deref()
    }

    pub(crate) fn retry_count(&self) -> u32 {
        u32::try_from(self.0.retry_count).unwrap_or(0)
    }

    /// A JSON object with the input, the outputs of the parents, and more.
    pub(crate) fn payload(&self) -> &str {
        &self.0.action_payload
    }

    /// A JSON object. Empty if there is none.
    pub(crate) fn metadata(&self) -> &str {
        self.0.additional_metadata.as_deref().unwrap_or_default()
    }
}

/// A report of a worker about an attempt.
#[derive(Debug, Clone)]
pub(crate) struct Report(pub(in crate::rpc) pb::StepActionEvent);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReportKind {
    Started,
    Completed,
    Failed,
}

impl Report {
    /// A report about the attempt of an assignment. `text`: the output, or the error message.
    ///
    /// Without the worker's id, the engine may not store which worker ran the attempt.
    pub(crate) fn new(worker: WorkerId, action: &Action, kind: ReportKind, at: DateTime<Utc>, text: String) -> Self {
        let kind = match kind {
            ReportKind::Started => pb::StepActionEventType::StepEventTypeStarted,
            ReportKind::Completed => pb::StepActionEventType::StepEventTypeCompleted,
            ReportKind::Failed => pb::StepActionEventType::StepEventTypeFailed,
        };
        let action = &action.0;
        Self(pb::StepActionEvent {
            worker_id: worker.into(),
            job_id: action.job_id.clone(),
            job_run_id: action.job_run_id.clone(),
            task_id: action.task_id.clone(),
            task_run_external_id: action.task_run_external_id.clone(),
            action_id: action.action_id.clone(),
            event_timestamp: Some(to_proto(at)),
            event_type: kind as i32,
            event_payload: text,
            retry_count: Some(action.retry_count),
            ..Default::default()
        })
    }

    /// The same report, of a failure that must not be retried.
    pub(crate) fn without_retry(mut self) -> Self {
        self.0.should_not_retry = Some(true);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_that_is_not_known_is_carried() {
        let action = |action_type| Action::from(pb::AssignedAction { action_type, ..Default::default() });
        assert_eq!(action(pb::ActionType::StartStepRun as i32).kind(), ActionKind::Start);
        assert_eq!(action(77).kind(), ActionKind::Unknown(77));
    }
}
