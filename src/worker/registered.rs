//! The registered workflows of a worker, as they are stored on the server, and the task for each action.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::time::sleep;

use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{WorkflowId, convert};
use crate::run::WorkflowCache;
use crate::transport::retry_delay;
use crate::workflow::{Definition, TaskDefinition};

/// If several clients store the same new workflow at the same moment, the engine answers all but one of them with INTERNAL.
const MAX_PUT_RETRIES: u32 = 5;

/// The tasks of a worker, by action.
pub(super) type Actions = Arc<HashMap<String, RegisteredTask>>;

/// A task that the worker can run.
#[derive(Debug, Clone)]
pub(super) struct RegisteredTask {
    pub(super) definition: Arc<TaskDefinition>,
    pub(super) workflow: Arc<RegisteredWorkflow>,
    /// Whether other tasks receive its output.
    pub(super) has_followers: bool,
}

/// A workflow that the worker has stored on the server.
#[derive(Debug)]
pub(super) struct RegisteredWorkflow {
    definition: Definition,
    /// The id on the server, once the workflow is stored.
    id: RwLock<Option<WorkflowId>>,
}

/// The tasks of a definition, by action.
pub(super) fn tasks(client: &Client, definition: &Definition) -> Vec<(String, RegisteredTask)> {
    let workflow = Arc::new(RegisteredWorkflow { definition: definition.clone(), id: RwLock::default() });
    let task = |task: &Arc<TaskDefinition>| {
        let registered = RegisteredTask {
            definition: Arc::clone(task),
            workflow: Arc::clone(&workflow),
            has_followers: definition.has_followers(&task.name),
        };
        (definition.action(client, task), registered)
    };
    definition.all_tasks().map(task).collect()
}

impl RegisteredWorkflow {
    /// Refuses a workflow whose actions collide with those of another one. The engine converts actions to lower case, and would assign
    /// the tasks of each workflow to the workers of both. Only REST lists workflows; without it, [`check`](Self::check) detects the
    /// collision at the first such task.
    pub(super) async fn check_name(&self, client: &Client) -> Result<()> {
        let name = client.prefixed(&self.definition.name);
        match WorkflowCache::same_but_for_case(client, &name).await {
            Ok(None) => Ok(()),
            Ok(Some(other)) => {
                let text = format!(
                    "found {name:?}, accepted: a name that differs from the server's workflow {other:?} in more than case; their \
                    workers would run each other's tasks"
                );
                Err(Error::new(ErrorKind::AlreadyExists, text).unsent())
            }
            Err(error) => {
                tracing::warn!(workflow = name, %error, "failed to list workflows whose name differs only in case");
                Ok(())
            }
        }
    }

    /// Stores the definition, and remembers its id.
    pub(super) async fn put(&self, client: &Client) -> Result<WorkflowId> {
        let workflow = self.definition.to_server(client);
        let mut retries = 0;
        loop {
            match client.rpc().admin.put_workflow(workflow.clone()).await {
                Ok(id) => {
                    let id = convert::id(&id)?;
                    WorkflowCache::of(client).learn(workflow.name, id);
                    *self.id.write().unwrap_or_else(PoisonError::into_inner) = Some(id);
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

    /// Checks that a task of the workflow with this id belongs to this workflow.
    ///
    /// # Errors
    /// The text for the task's failure if it does not.
    pub(super) async fn check(&self, client: &Client, id: Option<&str>) -> std::result::Result<(), String> {
        let Some(id) = id.and_then(|id| convert::id::<WorkflowId>(id).ok()) else { return Ok(()) };
        let known = *self.id.read().unwrap_or_else(PoisonError::into_inner);
        if known.is_none_or(|known| known == id) {
            return Ok(());
        }
        // The workflow may have been deleted and stored again since this worker started.
        match self.put(client).await {
            Ok(current) if current != id => Err(format!(
                "the task belongs to workflow {id}, whose actions differ only in case from those of workflow {:?} ({current}), \
                which this worker has registered",
                self.definition.name
            )),
            Ok(_) => Ok(()),
            Err(error) => {
                Err(format!("failed to verify that the task belongs to workflow {:?}: {error}", self.definition.name))
            }
        }
    }
}
