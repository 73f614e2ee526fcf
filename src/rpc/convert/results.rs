//! The end of a run, as the result stream reports it.

use crate::error::Result as CrateResult;
use crate::model::{Payload, RunId, TaskId, parse_id};
use crate::rpc::pb;

/// The results of the tasks of one run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RunResults {
    pub(crate) run: RunId,
    /// One for each final row of each task; no rows if they were too large to be sent. `None` if one of them cannot be read.
    pub(crate) tasks: Option<Vec<TaskResult>>,
}

/// One entry of a message of the result stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskResult {
    pub(crate) task: TaskId,
    pub(crate) name: String,
    pub(crate) result: Result<Payload, String>,
}

impl TryFrom<pb::WorkflowRunEvent> for RunResults {
    type Error = crate::error::Error;

    fn try_from(event: pb::WorkflowRunEvent) -> CrateResult<Self> {
        let tasks = event.results.into_iter().map(|entry| {
            Ok(TaskResult {
                task: parse_id(&entry.task_run_external_id)?,
                name: entry.task_name,
                // An error that is present and empty is an end without an output, and not a success without one.
                result: match (entry.error, entry.output) {
                    (Some(error), _) => Err(error),
                    (None, output) => Ok(Payload::output(&output.unwrap_or_default())),
                },
            })
        });
        let run = parse_id(&event.workflow_run_id)?;
        let tasks = tasks.collect::<CrateResult<_>>();
        if let Err(error) = &tasks {
            // The end of the run is not lost with it.
            tracing::warn!(run_id = %run, %error, "failed to decode the results of a run");
        }
        Ok(Self { run, tasks: tasks.ok() })
    }
}
