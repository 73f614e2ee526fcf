//! Runs, as gRPC returns their details.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::Result;
use crate::model::{Payload, RunStatus, TaskId, parse_id};
use crate::rpc::pb;

/// A run, as gRPC returns it.
#[derive(Debug, Clone)]
pub(crate) struct GrpcRun {
    pub(crate) status: RunStatus,
    /// Whether the engine reports that nothing is left to do.
    pub(crate) done: bool,
    /// `None` if it is too large for the response, or not stored yet.
    pub(crate) input: Option<Payload>,
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
            input: Some(text(run.input)).filter(|input| !input.trim().is_empty()).map(|input| Payload::input(&input)),
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
    fn an_empty_input_is_none() {
        let input = |bytes: &[u8]| {
            let run = pb::v1::GetRunDetailsResponse { input: bytes.to_vec().into(), ..Default::default() };
            GrpcRun::try_from(run).unwrap().input
        };
        assert_eq!((input(b""), input(b"{}")), (None, Some(Payload::input("{}"))));
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
