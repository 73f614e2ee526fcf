//! What a task is given beside its input.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::model::{RunId, TaskId, metadata};

/// One attempt at a task, as the engine gives it to a worker.
#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) run: RunId,
    pub(crate) task: TaskId,
    pub(crate) task_name: String,
    pub(crate) retry_count: u32,
    /// JSON text of an object.
    pub(crate) metadata: String,
}

/// What a task is given beside its input: who it is, and whether it is still wanted. Cheap to clone.
///
/// ```
/// use std::time::Duration;
/// use hatchet::{Context, Task};
///
/// let poll: Task<(), u32> = Task::new("poll", async |(): (), context: Context| {
///     tokio::select! {
///         () = tokio::time::sleep(Duration::from_secs(60)) => {}
///         () = context.cancelled() => {} // a moment to tidy up
///     }
///     Ok(context.attempt())
/// });
/// ```
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    assignment: Assignment,
    client: Client,
    cancelled: CancellationToken,
}

impl Context {
    pub(crate) fn new(assignment: Assignment, client: Client, cancelled: CancellationToken) -> Self {
        Self(Arc::new(Inner { assignment, client, cancelled }))
    }

    /// The run that this task belongs to.
    pub fn run_id(&self) -> RunId {
        self.0.assignment.run
    }

    /// This task.
    pub fn task_id(&self) -> TaskId {
        self.0.assignment.task
    }

    /// The task's name in the workflow.
    pub fn task_name(&self) -> &str {
        &self.0.assignment.task_name
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.0.assignment.retry_count + 1
    }

    /// The run's metadata, without the keys that the engine and this crate added. Read anew at each call.
    pub fn metadata(&self) -> BTreeMap<String, Value> {
        metadata::split(serde_json::from_str(&self.0.assignment.metadata).unwrap_or_default()).0
    }

    /// The client that the worker works with.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// Resolves when the attempt is no longer wanted: it was cancelled, it has timed out, or the worker is shutting down
    /// and its grace is over. A task that goes on is dropped shortly afterwards, at its next await.
    ///
    /// # Cancel safety
    /// Dropping the future is safe.
    pub async fn cancelled(&self) {
        self.0.cancelled.cancelled().await;
    }

    /// Whether the attempt is no longer wanted; for work between awaits.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.is_cancelled()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("assignment", &self.0.assignment).finish_non_exhaustive()
    }
}
