//! The registered workflows of a worker, as the engine stores them, and the task for each action.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{sleep, timeout};

use super::assignments::SlotRequest;
use super::key::Key;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::WorkflowId;
use crate::transport::retry_delay;
use crate::workflow::{Definition, TaskDefinition};

/// If several clients store the same new workflow at the same moment, the engine answers all but one of them with INTERNAL.
const MAX_PUT_RETRIES: u32 = 5;

/// How long all names together may take to be checked: the worker starts without it.
const NAMES_TIMEOUT: Duration = Duration::from_secs(5);
/// How many ids of workflows are remembered.
const MAX_KNOWN_IDS: usize = 1000;

/// The tasks of a worker, by action.
pub(super) type Actions = Arc<HashMap<String, RegisteredTask>>;

/// A task that the worker can run.
#[derive(Debug, Clone)]
pub(super) struct RegisteredTask {
    pub(super) definition: Arc<TaskDefinition>,
    pub(super) workflow: Arc<RegisteredWorkflow>,
    /// Whether other tasks receive its output.
    pub(super) has_dependents: bool,
    /// The names of its parents. `None` if it follows all other tasks.
    pub(super) parents: Option<Arc<[String]>>,
    /// What each attempt occupies.
    pub(super) slots: SlotRequest,
}

/// A workflow that the worker has stored.
#[derive(Debug)]
pub(super) struct RegisteredWorkflow {
    definition: Definition,
    /// Its name in the engine.
    name: String,
    /// Its name without the namespace.
    short_name: Arc<str>,
    /// Ids of workflows of which it is known whether they are this one. A workflow that is deleted and stored again has another.
    ids: RwLock<HashMap<WorkflowId, bool>>,
}

/// The workflow of a definition, and its tasks by action, for a worker with these slots.
pub(super) fn tasks(
    client: &Client,
    definition: &Definition,
    slots: &BTreeMap<String, u32>,
) -> (Arc<RegisteredWorkflow>, Vec<(String, RegisteredTask)>) {
    let workflow = Arc::new(RegisteredWorkflow {
        definition: definition.clone(),
        name: client.prefixed(&definition.name),
        short_name: definition.name.as_str().into(),
        ids: RwLock::default(),
    });
    let task = |task: &Arc<TaskDefinition>| {
        let registered = RegisteredTask {
            definition: Arc::clone(task),
            workflow: Arc::clone(&workflow),
            has_dependents: definition.has_dependents(&task.name),
            parents: definition.parents_of(&task.name),
            slots: SlotRequest::new(task.requested_slots(), slots),
        };
        (definition.action(client, task), registered)
    };
    let tasks = definition.all_tasks().map(task).collect();
    (workflow, tasks)
}

/// Rejects to run beside a workflow whose actions would be the same: the engine lowers them, so that each worker would be given the
/// other's tasks. Only REST lists workflows, and a worker must be able to start without it: then
/// [`is_own`](RegisteredWorkflow::is_own) finds out when such a task comes.
pub(super) async fn check_names(client: &Client, workflows: &[Arc<RegisteredWorkflow>]) -> Result<()> {
    let checks = try_join_all(workflows.iter().map(|workflow| workflow.check_name(client)));
    if let Ok(checked) = timeout(NAMES_TIMEOUT, checks).await {
        return checked.map(drop);
    }
    tracing::warn!(timeout = ?NAMES_TIMEOUT, "failed to check for workflows whose names differ only in case");
    Ok(())
}

impl RegisteredWorkflow {
    pub(super) fn short_name(&self) -> Arc<str> {
        Arc::clone(&self.short_name)
    }

    async fn check_name(&self, client: &Client) -> Result<()> {
        let name = &self.name;
        match client.feed().workflows.same_except_case(name).await {
            Ok(None) => Ok(()),
            Ok(Some(other)) => {
                let text = format!(
                    "workflow {name:?}: the engine has a workflow {other:?}, whose name differs only in case: the engine would assign \
                    the tasks of each to the workers of both"
                );
                Err(Error::new(ErrorKind::AlreadyExists, text).without_side_effects())
            }
            Err(error) => {
                tracing::warn!(workflow = name, %error, "failed to check for workflows whose names differ only in case");
                Ok(())
            }
        }
    }

    pub(super) fn definition(&self) -> &Definition {
        &self.definition
    }

    /// Stores the definition, and remembers its id.
    pub(super) async fn put(&self, client: &Client) -> Result<WorkflowId> {
        let workflow = self.definition.to_engine(client);
        let mut retries = 0;
        loop {
            match client.rpc().admin.put_workflow(workflow.clone()).await {
                Ok(id) => {
                    client.feed().workflows.add(workflow.name, id);
                    self.add_id(id, true);
                    return Ok(id);
                }
                Err(error) if error.kind() == ErrorKind::Server && retries < MAX_PUT_RETRIES => {
                    retries += 1;
                    sleep(retry_delay(retries, fastrand::f64())).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether a task of the workflow with this id belongs to this workflow, if that is known.
    pub(super) fn is_known(&self, id: WorkflowId) -> Option<bool> {
        self.ids.read().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }

    /// Whether the task of an attempt of the workflow with this id belongs to this workflow, by its name over REST. If REST fails, it is assumed to.
    pub(super) async fn is_own(&self, client: &Client, id: WorkflowId, key: &Key) -> bool {
        let is_own = match client.rpc().rest.workflow(id).await {
            Ok(workflow) => workflow.name == self.name,
            // Its runs outlive a workflow that was deleted.
            Err(error) if error.is_not_found() => true,
            Err(error) => {
                tracing::warn!(workflow = self.name, workflow_id = %id, run_id = %key.run, task_id = %key.task, attempt = key.attempt(), %error, "failed to determine whether a task belongs to this workflow");
                return true;
            }
        };
        self.add_id(id, is_own);
        is_own
    }

    fn add_id(&self, id: WorkflowId, is_own: bool) {
        let mut ids = self.ids.write().unwrap_or_else(PoisonError::into_inner);
        if ids.len() < MAX_KNOWN_IDS {
            ids.insert(id, is_own);
        }
    }

    /// The error message of a task that is another workflow's.
    pub(super) fn foreign(&self, id: WorkflowId) -> String {
        format!(
            "the task belongs to workflow {id}, whose actions differ only in case from those of this worker's workflow {:?}",
            self.definition.name
        )
    }
}
