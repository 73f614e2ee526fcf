//! What is known about how a run stands, from each of the server's surfaces, before anything is concluded.

use crate::model::Payload;
use crate::model::convert::grpc::GrpcRun;
use crate::rpc::grpc_types::RunEnd;
use crate::rpc::rest_types::{Run as RestRun, TaskEvent};

/// One entry of the result stream. There should be one for a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskEnd {
    pub(crate) task: String,
    pub(crate) end: Result<Payload, String>,
}

impl TaskEnd {
    /// Reads the entries of a message.
    ///
    /// An error that is present and empty is an end without an output, and not a success without one.
    pub(crate) fn read(end: RunEnd) -> Vec<Self> {
        end.tasks
            .into_iter()
            .map(|task| Self {
                task: task.name,
                end: match (task.error, task.output) {
                    (Some(error), _) => Err(error),
                    (None, output) => Ok(Payload::new(&output.unwrap_or_default())),
                },
            })
            .collect()
    }
}

/// Everything that was gathered about a run.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// What the result stream sent, if it was asked.
    pub(crate) results: Option<Vec<TaskEnd>>,
    pub(crate) grpc: Option<GrpcRun>,
    /// Missing while REST does not know the run yet.
    pub(crate) rest: Option<RestRun>,
    /// The events of the run's one task.
    pub(crate) events: Vec<TaskEvent>,
}
