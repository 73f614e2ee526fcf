//! The context of a task.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicI32;

use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{RunId, TaskId, attempt_number, metadata};
use crate::rpc::convert::Action;
use crate::run::{Parent, RunBuilder, RunManyBuilder, Runnable};

/// The context of a running task: its ids, the outputs of its parents, its cancellation, and a way to start child runs. It is cheap
/// to clone.
///
/// ```
/// use std::time::Duration;
/// use hatchet::{Context, Task};
///
/// let poll: Task<(), u32> = Task::new("poll", async |(): (), context: Context| {
///     tokio::select! {
///         () = tokio::time::sleep(Duration::from_secs(60)) => {}
///         () = context.cancelled() => {} // clean up here
///     }
///     Ok(context.attempt())
/// });
/// ```
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    run: RunId,
    task: TaskId,
    action: Arc<Action>,
    client: Client,
    cancelled: CancellationToken,
    /// The number of the next child.
    next_child: Arc<AtomicI32>,
}

/// The part of an assignment's payload that is about other tasks of the run.
#[derive(Deserialize)]
struct Others {
    #[serde(default)]
    step_run_errors: Option<BTreeMap<String, String>>,
}

impl Context {
    pub(crate) fn new(
        run: RunId,
        task: TaskId,
        action: Arc<Action>,
        client: Client,
        cancelled: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner { run, task, action, client, cancelled, next_child: Arc::default() }))
    }

    /// Returns the id of the run that this task belongs to.
    pub fn run_id(&self) -> RunId {
        self.0.run
    }

    /// This task.
    pub fn task_id(&self) -> TaskId {
        self.0.task
    }

    /// The task's name in the workflow.
    pub fn task_name(&self) -> &str {
        self.0.action.task_name()
    }

    /// Returns the number of this attempt, starting at 1.
    ///
    /// ```
    /// use hatchet::{Context, Task};
    ///
    /// let shaky = Task::new("shaky", async |(): (), context: Context| Ok(context.attempt())).retries(3);
    /// ```
    pub fn attempt(&self) -> u32 {
        attempt_number(self.0.action.retry_count())
    }

    /// Returns the run's metadata, without the keys that the engine and this crate added. The JSON is parsed on every call.
    pub fn metadata(&self) -> BTreeMap<String, Value> {
        metadata::split(serde_json::from_str(self.0.action.metadata()).unwrap_or_default()).0
    }

    /// Returns the error messages of the failed tasks of the run by task name, for the on-failure task.
    ///
    /// ```
    /// use hatchet::{Context, Task};
    ///
    /// let apologize: Task<(), ()> = Task::new("apologize", async |(): (), context: Context| {
    ///     for (task, message) in context.errors()? {
    ///         println!("{task}: {message}");
    ///     }
    ///     Ok(())
    /// });
    /// ```
    ///
    /// # Errors
    /// [`Decode`](ErrorKind::Decode) if the engine's JSON cannot be parsed.
    pub fn errors(&self) -> Result<BTreeMap<String, String>> {
        Ok(self.others()?.step_run_errors.unwrap_or_default())
    }

    /// The payload of the assignment.
    pub(super) fn payload(&self) -> &str {
        self.0.action.payload()
    }

    fn others(&self) -> Result<Others> {
        serde_json::from_str(self.payload())
            .map_err(|error| Error::new(ErrorKind::Decode, "failed to parse the assignment").with_source(error))
    }

    /// Prepares a child run, which is linked to this task and inherits the run's metadata.
    ///
    /// A retry of the task does not start its children again: the n-th child of a task is the same run in each attempt, even if its input
    /// or workflow differs. So call [`start`](RunBuilder::start) in the same order in each attempt, or set
    /// [keys](RunBuilder::child_key); children with keys have no index. Clones of the context share one counter.
    ///
    /// ```
    /// # use hatchet::{Context, Task};
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct Page { url: String }
    /// # fn example(fetch: Task<Page, String>) {
    /// let crawl: Task<Page, usize> = Task::new("crawl", move |page: Page, context: Context| {
    ///     let fetch = fetch.clone();
    ///     async move { Ok(context.run(&fetch, &page).start().await?.result().await?.len()) }
    /// });
    /// # }
    /// ```
    pub fn run<R: Runnable>(&self, workflow: &R, input: &R::Input) -> RunBuilder<R::Output> {
        self.client().run(workflow, input).child_of(self.parent())
    }

    /// Prepares many child runs of one workflow; see [`run`](Self::run).
    pub fn run_many<R: Runnable>(
        &self,
        workflow: &R,
        inputs: impl IntoIterator<Item = R::Input>,
    ) -> RunManyBuilder<R::Output> {
        self.client().run_many(workflow, inputs).child_of(self.parent())
    }

    fn parent(&self) -> Parent {
        let Inner { run, task, next_child, .. } = &*self.0;
        Parent { run: *run, task: *task, next: Arc::clone(next_child), again: self.attempt() > 1 }
    }

    /// Returns the client of the worker. Runs that are started through it, and not through the context, are not children.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// Resolves when the attempt must stop: it was cancelled, it has timed out, or the worker is shutting down and its grace period is
    /// over. A task that continues is dropped at its next await after the worker's
    /// [`cancel_grace_period`](crate::worker::WorkerBuilder::cancel_grace_period).
    ///
    /// ```
    /// use hatchet::{Context, Task};
    ///
    /// let endless: Task<(), ()> = Task::new("endless", async |(): (), context: Context| {
    ///     context.cancelled().await;
    ///     Ok(()) // clean up here
    /// });
    /// ```
    ///
    /// # Cancel safety
    /// This method is cancel safe: it can be called again.
    pub async fn cancelled(&self) {
        self.0.cancelled.cancelled().await;
    }

    /// Returns whether the attempt must stop, for code between awaits.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.is_cancelled()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Context");
        shown.field("run", &self.0.run).field("task", &self.0.task).field("attempt", &self.attempt());
        shown.finish_non_exhaustive()
    }
}
