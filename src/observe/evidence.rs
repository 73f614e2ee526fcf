//! What was fetched about a run from each of the server's API views, before anything is concluded.

use std::sync::Arc;

use crate::error::Error;
use crate::model::RunId;
use crate::rpc::convert::{GrpcRun, RestRun, TaskConfig, TaskEvent, TaskResult};

#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// The workflow's name, without the namespace, if it is known.
    pub(super) workflow: Option<Arc<str>>,
    /// The message of the result stream, if there was one.
    pub(super) results: Option<Vec<TaskResult>>,
    pub(super) grpc: Option<GrpcRun>,
    /// Whether gRPC has dropped the run, and REST still has it.
    pub(super) is_dropped_by_grpc: bool,
    /// `None` while REST does not have the run yet.
    pub(super) rest: Option<RestRun>,
    /// The error of REST if it cannot be reached, and gRPC may be sufficient.
    pub(super) without_rest: Option<Error>,
    /// The events of the task of a single-task run. Those of a DAG run are in the run.
    pub(super) events: Vec<TaskEvent>,
}

impl Evidence {
    /// Sets the workflow's name from the REST response, if it is not known.
    pub(super) fn set_workflow(&mut self, unprefixed: impl FnOnce(&str) -> String) {
        let config = self.rest.as_ref().and_then(|rest| rest.workflow_config.as_ref());
        let name = config.map(|config| config.name.as_str()).filter(|name| !name.is_empty());
        if self.workflow.is_none() {
            self.workflow = name.map(|name| unprefixed(name).into());
        }
    }

    /// Whether this is a single-task run, whose task has the id of the run. `None` if no task is known.
    pub(super) fn is_single_task(&self, run: RunId) -> Option<bool> {
        if !self.events.is_empty() {
            return Some(true);
        }
        let by_grpc = self.grpc.iter().flat_map(|grpc| grpc.tasks.values()).map(|task| task.id);
        let by_rest = self.rest.iter().flat_map(|rest| &rest.tasks).map(|task| task.task_external_id);
        let by_stream = self.results.iter().flatten().map(|result| result.task);
        let known = by_grpc.chain(by_rest).chain(by_stream).map(|task| task.is_single_task_of(run));
        known.reduce(|one, other| one || other)
    }

    /// The tasks of the definition, in its order.
    pub(super) fn definitions(&self) -> impl Iterator<Item = &TaskConfig> {
        self.rest.iter().filter_map(|run| run.workflow_config.as_ref()).flat_map(|config| &config.tasks)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixtures::{evidence, run};
    use super::*;

    #[test]
    fn each_api_view_shows_whether_a_run_has_a_single_task() {
        assert_eq!(Evidence::default().is_single_task(run()), None);
        let events = evidence("", "", &[("STARTED", "")], &[]);
        let stream = evidence("", "", &[], &[Ok("{}")]);
        for evidence in [events, stream, evidence("RUNNING", "", &[], &[]), evidence("", "RUNNING", &[], &[])] {
            assert_eq!(evidence.is_single_task(run()), Some(true), "{evidence:?}");
            // The task of another run has another id.
            let is_other = evidence.events.is_empty();
            let other = uuid::Uuid::from_u128(7).into();
            assert_eq!(evidence.is_single_task(other), Some(!is_other), "{evidence:?}");
        }
    }

    #[test]
    fn a_known_name_of_the_workflow_is_kept() {
        let mut evidence = evidence("", "RUNNING", &[], &[]);
        let config = json!({"Name": "prod_mail", "Tasks": []});
        evidence.rest.as_mut().unwrap().workflow_config = serde_json::from_value(config).unwrap();
        let unprefixed = |name: &str| name.trim_start_matches("prod_").to_owned();
        evidence.set_workflow(unprefixed);
        assert_eq!(evidence.workflow.as_deref(), Some("work"));
        evidence.workflow = None;
        evidence.set_workflow(unprefixed);
        assert_eq!(evidence.workflow.as_deref(), Some("mail"));
        (evidence.workflow, evidence.rest) = (None, None);
        evidence.set_workflow(unprefixed);
        assert_eq!(evidence.workflow, None);
    }
}
