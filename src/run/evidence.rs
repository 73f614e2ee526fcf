//! What is known about how a run stands, from each of the server's surfaces, before anything is concluded.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::client::Client;
use crate::error::Error;
use crate::model::convert::grpc::{GrpcRun, GrpcTask};
use crate::model::convert::{self, rest};
use crate::model::{Attempt, LogLine, Payload, RunId, RunStatus, TaskId};
use crate::rpc::grpc_types::RunEnd;
use crate::rpc::rest_types::{Run as RestRun, Task as RestTask, TaskEvent};

use super::history::{attempts, replayed_after};

/// One entry of the result stream. There should be one for a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskEnd {
    pub(crate) id: String,
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
                id: task.id,
                task: task.name,
                end: match (task.error, task.output) {
                    (Some(error), _) => Err(error),
                    (None, output) => Ok(Payload::output(&output.unwrap_or_default())),
                },
            })
            .collect()
    }
}

/// Everything that was gathered about a run.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// The workflow's name, without the namespace, if it is known.
    pub(crate) workflow: Option<Arc<str>>,
    /// Whether gRPC alone is sufficient if REST cannot be reached.
    pub(crate) grpc_suffices: bool,
    /// The error of REST if it cannot be reached.
    pub(crate) without_rest: Option<Error>,
    /// What the result stream sent, if it was asked.
    pub(crate) results: Option<Vec<TaskEnd>>,
    pub(crate) grpc: Option<GrpcRun>,
    /// Missing while REST does not know the run yet.
    pub(crate) rest: Option<RestRun>,
    /// The events of the run's one task. Those of a run of several are in the run.
    pub(crate) events: Vec<TaskEvent>,
    /// The first lines of the log of the run's one task, if they are wanted. Those of a run of several have each their own.
    pub(crate) log: Option<Vec<LogLine>>,
}

/// What is known about one task of a run.
#[derive(Debug)]
pub(crate) struct TaskEvidence<'a> {
    pub(crate) id: TaskId,
    pub(crate) name: String,
    /// Its entries in the result stream.
    pub(crate) results: Vec<&'a Result<Payload, String>>,
    pub(crate) grpc: Option<&'a GrpcTask>,
    pub(crate) rest: Option<&'a RestTask>,
    pub(crate) events: Vec<&'a TaskEvent>,
    /// What the events come to: the attempts, oldest first, and those after which it was replayed.
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) replayed_after: Vec<u32>,
    /// How many retries its definition allows.
    pub(crate) retries: i64,
}

impl Evidence {
    /// Sets the workflow's name from the REST response.
    pub(crate) fn learn_workflow(&mut self, client: &Client) {
        let config = self.rest.as_ref().and_then(|rest| rest.workflow_config.as_ref());
        let name = config.map(|config| config.name.as_str()).filter(|name| !name.is_empty());
        if self.workflow.is_none() {
            self.workflow = name.map(|name| client.unprefixed(name).into());
        }
    }

    /// Whether the run is of one task, which then has the id of the run.
    pub(crate) fn is_of_one_task(&self, run: RunId) -> bool {
        let by_grpc = self.grpc.iter().flat_map(|grpc| grpc.tasks.values()).any(|task| task.id.is_of_its_own(run));
        let by_rest = || self.rest.iter().flat_map(|rest| &rest.tasks).any(|task| run.is(&task.task_external_id));
        let by_results = || self.results.iter().flatten().any(|result| run.is(&result.id));
        by_grpc || by_rest() || by_results() || !self.events.is_empty()
    }

    /// The run's tasks that exist, in the order of the definition.
    pub(crate) fn tasks(&self, run: RunId) -> Vec<TaskEvidence<'_>> {
        let single = self.is_of_one_task(run);
        let mut tasks: Vec<_> =
            self.names(run, single).into_iter().map(|(id, name)| self.task(id, name, single)).collect();
        let place = |name: &str| self.definitions().position(|task| task.readable_id == name).unwrap_or(usize::MAX);
        tasks.sort_by_key(|task| place(&task.name));
        tasks
    }

    /// Every surface leaves some out: gRPC those that it forgets or cannot send, REST those that it does not know yet.
    fn names(&self, run: RunId, single: bool) -> BTreeMap<TaskId, String> {
        let by_grpc = self.grpc.iter().flat_map(|run| &run.tasks).map(|(name, task)| (task.id, name.clone()));
        let by_rest = self.rest.iter().flat_map(|run| &run.shape);
        let by_rest =
            by_rest.filter_map(|item| Some((convert::id(&item.task_external_id).ok()?, item.task_name.clone())));
        let by_results = self.results.iter().flatten();
        let by_results = by_results.filter_map(|end| Some((convert::id(&end.id).ok()?, end.task.clone())));
        let mut names: BTreeMap<_, _> = by_rest.chain(by_results).chain(by_grpc).collect();
        if single && names.is_empty() {
            names.extend(self.definitions().next().map(|task| (run.into(), task.readable_id.clone())));
        }
        names
    }

    fn definitions(&self) -> impl Iterator<Item = &crate::rpc::rest_types::TaskConfig> {
        self.rest.iter().filter_map(|run| run.workflow_config.as_ref()).flat_map(|config| &config.tasks)
    }

    fn task(&self, id: TaskId, name: String, single: bool) -> TaskEvidence<'_> {
        let events: Vec<_> = if single {
            self.events.iter().collect()
        } else {
            self.rest.iter().flat_map(|run| &run.task_events).filter(|event| id.is(&event.task_id)).collect()
        };
        TaskEvidence {
            id,
            results: self.results.iter().flatten().filter(|end| id.is(&end.id)).map(|end| &end.end).collect(),
            grpc: self.grpc.as_ref().and_then(|run| run.tasks.values().find(|task| task.id == id)),
            rest: self.rest.iter().flat_map(|run| &run.tasks).find(|task| id.is(&task.task_external_id)),
            attempts: attempts(events.iter().copied()),
            replayed_after: replayed_after(events.iter().copied()),
            events,
            retries: self.definitions().find(|task| task.readable_id == name).map_or(0, |task| task.retries),
            name,
        }
    }

    /// The state by REST's run, which is the steady one.
    pub(crate) fn steady(&self) -> Option<RunStatus> {
        self.rest.as_ref().map(|run| rest::status(&run.run.status))
    }
}

impl TaskEvidence<'_> {
    /// Whether it was replayed and has not begun anew: then what is shown of it is its old end.
    pub(crate) fn is_to_begin_anew(&self) -> bool {
        let replayed = self.replayed_after.last();
        replayed.is_some() && replayed == self.attempts.last().map(|last| &last.number)
    }

    /// Whether the newest attempt was cancelled.
    pub(crate) fn was_cancelled(&self) -> bool {
        self.attempts.last().is_some_and(|last| last.status == RunStatus::Cancelled)
    }

    /// The text of an event of a kind, if the newest attempt has one.
    pub(crate) fn last_end(&self, kind: &str) -> Option<String> {
        let newest = self.events.iter().map(|event| event.retry_count).max()?;
        let event = self.events.iter().find(|event| event.retry_count == newest && event.event_type == kind)?;
        let error = event.error_message.as_deref().filter(|text| !text.is_empty());
        Some(error.unwrap_or(&event.message).to_owned())
    }

    /// The state by REST's run.
    pub(crate) fn steady(&self) -> Option<RunStatus> {
        self.rest.map(|task| rest::status(&task.status))
    }
}
