//! What all callers of a client share: the subscription to run results, the subscription to run events, and the cache of workflows.
//! The client owns it.

mod results;
mod run_events;
mod tasks;
mod workflows;

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::model::metadata::OWN_PREFIX;
use crate::rpc::Rpc;

pub(crate) use results::{Answer, Results};
pub(crate) use run_events::{Notifications, RunEvents};
pub(crate) use tasks::Tasks;
pub(crate) use workflows::{WorkflowCache, creation_deadline, invalid_idempotency_key};

/// The shared state of a client.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) results: Results,
    pub(crate) run_events: RunEvents,
    pub(crate) workflows: Arc<WorkflowCache>,
    /// The tag of the runs that this client starts, so that one subscription reports on all of them.
    tag: (String, String),
    tasks: Tasks,
}

impl Feed {
    pub(crate) fn new(rpc: &Rpc, runtime: Handle, namespace: Option<&str>) -> Self {
        let tag = (format!("{OWN_PREFIX}client"), format!("{:016x}", fastrand::u64(..)));
        let tasks = Tasks::new(runtime);
        Self {
            results: Results::new(rpc.clone(), tasks.clone()),
            run_events: RunEvents::new(rpc.clone(), tag.clone(), tasks.clone()),
            workflows: Arc::new(WorkflowCache::new(
                rpc.clone(),
                tasks.clone(),
                namespace.unwrap_or_default().to_owned(),
            )),
            tag,
            tasks,
        }
    }

    pub(crate) fn tag(&self) -> &(String, String) {
        &self.tag
    }

    /// Ends all tasks, and waits until they have ended.
    pub(crate) async fn close(&self) {
        self.tasks.close().await;
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}
