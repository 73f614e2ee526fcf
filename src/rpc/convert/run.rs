//! Runs: the request that starts one, and the details that gRPC returns.

use std::collections::BTreeMap;

use prost::Message as _;
use serde_json::Value;

use crate::error::Result;
use crate::model::{DesiredLabels, Payload, RunId, RunStatus, TaskId, WorkerId, parse_id};
use crate::rpc::pb;
use crate::rpc::pb::v1::TriggerWorkflowRequest;

/// Around each run in a message of many: its field number and length.
const FRAME: usize = 6;

/// A run that is to be started.
#[derive(Debug, Clone)]
pub(crate) struct NewRun(pub(in crate::rpc) TriggerWorkflowRequest);

impl NewRun {
    /// What the runs of one call have in common. The metadata is the text of a JSON object.
    pub(crate) fn new(workflow: String, metadata: String, priority: Option<i32>) -> Self {
        Self(TriggerWorkflowRequest {
            name: workflow,
            additional_metadata: Some(metadata),
            priority,
            ..Default::default()
        })
    }

    /// Requests a worker, and workers with labels.
    pub(crate) fn placed(mut self, worker: Option<WorkerId>, labels: &DesiredLabels) -> Self {
        self.0.desired_worker_id = worker.map(Into::into);
        self.0.desired_worker_labels = labels.iter().map(|(key, label)| (key.clone(), label.clone().into())).collect();
        self
    }

    /// The input.
    pub(crate) fn input(&self) -> &str {
        &self.0.input
    }

    /// The same run with an input, the text of a JSON object.
    pub(crate) fn with_input(&self, input: String) -> Self {
        Self(TriggerWorkflowRequest { input, ..self.0.clone() })
    }

    /// The same run as the child of a task, by its number among the children, or by its key.
    pub(crate) fn child_of(mut self, run: RunId, task: TaskId, index: i32, key: Option<String>) -> Self {
        self.0.parent_id = Some(run.into());
        self.0.parent_task_run_external_id = Some(task.into());
        self.0.child_index = Some(index);
        self.0.child_key = key;
        self
    }

    /// The bytes that it adds to a message of many.
    pub(crate) fn size(&self) -> usize {
        self.0.encoded_len() + FRAME
    }
}

/// A run, as gRPC returns it.
#[derive(Debug, Clone)]
pub(crate) struct GrpcRun {
    pub(crate) status: RunStatus,
    /// Whether the engine reports that nothing is left to do.
    pub(crate) done: bool,
    pub(crate) input: Payload,
    pub(crate) metadata: BTreeMap<String, Value>,
    /// The tasks that the engine has created so far, by their names in the workflow.
    pub(crate) tasks: BTreeMap<String, GrpcTask>,
}

/// A task, as gRPC returns it.
#[derive(Debug, Clone)]
pub(crate) struct GrpcTask {
    pub(crate) id: TaskId,
    /// Reliable only when the run has ended.
    pub(crate) status: RunStatus,
    /// Present and empty for a task that completed, too.
    pub(crate) error: Option<String>,
    pub(crate) output: Option<Payload>,
}

impl TryFrom<pb::v1::GetRunDetailsResponse> for GrpcRun {
    type Error = crate::error::Error;

    fn try_from(run: pb::v1::GetRunDetailsResponse) -> Result<Self> {
        let tasks = run.task_runs.into_iter().map(|(name, task)| {
            let task = GrpcTask {
                id: parse_id(&task.external_id)?,
                status: status(task.status),
                error: task.error,
                output: task.output.map(|output| Payload::output(&text(output))),
            };
            Ok((name, task))
        });
        Ok(Self {
            status: status(run.status),
            done: run.done,
            input: Payload::input(&text(run.input)),
            // Missing or unreadable metadata does not make the run unreadable.
            metadata: serde_json::from_slice(&run.additional_metadata).unwrap_or_default(),
            tasks: tasks.collect::<Result<_>>()?,
        })
    }
}

/// A status by its number. An evicted run waits, and continues when what it waits for has happened.
fn status(number: i32) -> RunStatus {
    match pb::v1::RunStatus::try_from(number) {
        Ok(pb::v1::RunStatus::Evicted) => RunStatus::Running,
        Ok(status) => RunStatus::from_name(status.as_str_name()),
        Err(_) => RunStatus::Unknown(number.to_string()),
    }
}

fn text(bytes: impl Into<Vec<u8>>) -> String {
    String::from_utf8(bytes.into()).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s10_a_status_number_that_is_not_known_is_carried() {
        let run = pb::v1::GetRunDetailsResponse { status: 77, ..Default::default() };
        assert_eq!(GrpcRun::try_from(run).unwrap().status, RunStatus::Unknown("77".into()));
        assert_eq!(status(pb::v1::RunStatus::Completed as i32), RunStatus::Completed);
    }

    #[test]
    fn an_evicted_run_is_running() {
        assert_eq!(status(pb::v1::RunStatus::Evicted as i32), RunStatus::Running);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        assert_eq!(text(*b"a\xffb"), "a\u{fffd}b");
    }
}
