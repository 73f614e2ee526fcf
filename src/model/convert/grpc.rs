//! From protobuf.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::Result;
use crate::model::{Payload, RunStatus, TaskId};
use crate::rpc::pb;

/// A run as gRPC shows it.
#[derive(Debug, Clone)]
pub(crate) struct GrpcRun {
    pub(crate) status: RunStatus,
    /// Whether the engine says that nothing is left to do.
    pub(crate) done: bool,
    pub(crate) input: Payload,
    pub(crate) metadata: BTreeMap<String, Value>,
    /// By their names in the workflow.
    pub(crate) tasks: BTreeMap<String, GrpcTask>,
}

#[derive(Debug, Clone)]
pub(crate) struct GrpcTask {
    pub(crate) id: TaskId,
    /// Present and empty for a task that completed, too.
    pub(crate) error: Option<String>,
    pub(crate) output: Option<Payload>,
}

pub(crate) fn run(answer: &pb::v1::GetRunDetailsResponse) -> Result<GrpcRun> {
    Ok(GrpcRun {
        status: status(answer.status),
        done: answer.done,
        input: text(&answer.input),
        // Absent or unreadable metadata is none: it is not what anyone asks a run for.
        metadata: serde_json::from_slice(&answer.additional_metadata).unwrap_or_default(),
        tasks: answer
            .task_runs
            .iter()
            .map(|(name, detail)| Ok((name.clone(), task(detail)?)))
            .collect::<Result<_>>()?,
    })
}

fn task(detail: &pb::v1::TaskRunDetail) -> Result<GrpcTask> {
    Ok(GrpcTask {
        id: super::id(&detail.external_id)?,
        error: detail.error.clone(),
        output: detail.output.as_deref().map(text),
    })
}

fn text(bytes: &[u8]) -> Payload {
    Payload::new(&String::from_utf8_lossy(bytes))
}

/// An evicted run is one that waits; it goes on when what it waits for has come.
pub(crate) fn status(number: i32) -> RunStatus {
    match pb::v1::RunStatus::try_from(number) {
        Ok(pb::v1::RunStatus::Queued) => RunStatus::Queued,
        Ok(pb::v1::RunStatus::Running | pb::v1::RunStatus::Evicted) => RunStatus::Running,
        Ok(pb::v1::RunStatus::Completed) => RunStatus::Completed,
        Ok(pb::v1::RunStatus::Failed) => RunStatus::Failed,
        Ok(pb::v1::RunStatus::Cancelled) => RunStatus::Cancelled,
        Err(_) => RunStatus::Unknown(number.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s10_a_status_number_that_is_not_known_is_carried() {
        assert_eq!(status(77), RunStatus::Unknown("77".into()));
        let answer = pb::v1::GetRunDetailsResponse { status: 77, ..Default::default() };
        assert_eq!(run(&answer).unwrap().status, RunStatus::Unknown("77".into()));
    }

    #[test]
    fn every_status_of_the_contract_is_known() {
        assert!((0..6).all(|number| !matches!(status(number), RunStatus::Unknown(_))));
    }
}
