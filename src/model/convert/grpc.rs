//! From gRPC.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::Result;
use crate::model::{Payload, RunStatus, TaskId};
use crate::rpc::grpc_types::{RunState, TaskState};

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
    /// To be believed only when the run has ended.
    pub(crate) status: RunStatus,
    /// Present and empty for a task that completed, too.
    pub(crate) error: Option<String>,
    pub(crate) output: Option<Payload>,
}

pub(crate) fn run(state: RunState) -> Result<GrpcRun> {
    Ok(GrpcRun {
        status: status(&state.status),
        done: state.done,
        input: Payload::input(&state.input),
        // Absent or unreadable metadata is none: it is not what anyone asks a run for.
        metadata: serde_json::from_str(&state.metadata).unwrap_or_default(),
        tasks: state.tasks.into_iter().map(task).collect::<Result<_>>()?,
    })
}

fn task(state: TaskState) -> Result<(String, GrpcTask)> {
    let task = GrpcTask {
        id: super::id(&state.id)?,
        status: status(&state.status),
        error: state.error,
        output: state.output.as_deref().map(Payload::output),
    };
    Ok((state.name, task))
}

/// A status by its name. An evicted run is one that waits; it goes on when what it waits for has come.
pub(crate) fn status(name: &str) -> RunStatus {
    if name == "EVICTED" { RunStatus::Running } else { RunStatus::from_name(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evicted_run_goes_on_and_an_unknown_status_is_carried() {
        assert_eq!(status("EVICTED"), RunStatus::Running);
        assert_eq!(status("77"), RunStatus::Unknown("77".into()));
    }
}
