//! Runs: to be started, as they stand, and as they end.

use std::collections::BTreeMap;

use prost::Message as _;

use super::DesiredLabel;
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

    /// Asks for a worker, and for workers with labels.
    pub(crate) fn placed(mut self, worker: Option<String>, labels: BTreeMap<String, DesiredLabel>) -> Self {
        self.0.desired_worker_id = worker;
        self.0.desired_worker_labels = labels.into_iter().map(|(key, label)| (key, label.into())).collect();
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
    pub(crate) fn child_of(mut self, run: String, task: String, index: i32, key: Option<String>) -> Self {
        self.0.parent_id = Some(run);
        self.0.parent_task_run_external_id = Some(task);
        self.0.child_index = Some(index);
        self.0.child_key = key;
        self
    }

    /// The bytes that it adds to a message of many.
    pub(crate) fn size(&self) -> usize {
        self.0.encoded_len() + FRAME
    }
}

/// A run as gRPC shows it.
#[derive(Debug, Clone)]
pub(crate) struct RunState {
    /// The state's name, or its number if it has none here.
    pub(crate) status: String,
    /// Whether the engine says that nothing is left to do.
    pub(crate) done: bool,
    /// JSON text.
    pub(crate) input: String,
    /// JSON text of an object.
    pub(crate) metadata: String,
    /// Those that the engine has created so far.
    pub(crate) tasks: Vec<TaskState>,
}

/// A task as gRPC shows it.
#[derive(Debug, Clone)]
pub(crate) struct TaskState {
    pub(crate) id: String,
    pub(crate) name: String,
    /// To be believed only when the run has ended.
    pub(crate) status: String,
    /// Present and empty for a task that completed, too.
    pub(crate) error: Option<String>,
    pub(crate) output: Option<String>,
}

impl From<pb::v1::GetRunDetailsResponse> for RunState {
    fn from(answer: pb::v1::GetRunDetailsResponse) -> Self {
        let tasks = answer.task_runs.into_iter().map(|(name, task)| TaskState {
            id: task.external_id,
            name,
            status: status(task.status),
            error: task.error,
            output: task.output.map(text),
        });
        let mut tasks: Vec<_> = tasks.collect();
        tasks.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Self {
            status: status(answer.status),
            done: answer.done,
            input: text(answer.input),
            metadata: text(answer.additional_metadata),
            tasks,
        }
    }
}

fn status(number: i32) -> String {
    pb::v1::RunStatus::try_from(number).map_or_else(|_| number.to_string(), |status| status.as_str_name().to_owned())
}

fn text(bytes: impl Into<Vec<u8>>) -> String {
    String::from_utf8(bytes.into()).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The end of a run, as the stream of results tells it.
#[derive(Debug, Clone)]
pub(crate) struct RunEnd {
    pub(crate) run: String,
    /// One for each final row of each task; none if they were too big.
    pub(crate) tasks: Vec<TaskEnd>,
}

/// How a task ended.
#[derive(Debug, Clone)]
pub(crate) struct TaskEnd {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) error: Option<String>,
    pub(crate) output: Option<String>,
}

impl From<pb::WorkflowRunEvent> for RunEnd {
    fn from(event: pb::WorkflowRunEvent) -> Self {
        let tasks = event.results.into_iter().map(|result| TaskEnd {
            id: result.task_run_external_id,
            name: result.task_name,
            error: result.error,
            output: result.output,
        });
        Self { run: event.workflow_run_id, tasks: tasks.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s10_a_status_number_that_is_not_known_is_carried() {
        let answer = pb::v1::GetRunDetailsResponse { status: 77, ..Default::default() };
        assert_eq!(RunState::from(answer).status, "77");
        assert_eq!(status(pb::v1::RunStatus::Completed as i32), "COMPLETED");
    }

    #[test]
    fn what_is_not_utf8_is_read_as_far_as_it_goes() {
        assert_eq!(text(*b"a\xffb"), "a\u{fffd}b");
    }
}
