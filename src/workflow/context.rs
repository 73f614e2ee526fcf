//! The context of a task.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicI32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::full_slots::FullSlots;
use super::output::{AttemptOutput, TaskOutput};
use super::stop::{CancelCause, Stop};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    LabelValue, Priority, RunId, TaskId, Trigger, WorkerId, WorkflowId, WorkflowVersionId, attempt_number, metadata,
    parse_id, trigger,
};
use crate::rpc::convert::{Action, ActionKind};
use crate::run::{Parent, RunBuilder, RunManyBuilder, Runnable};
use crate::sync::lock;

/// The context of a running task: its ids, the outputs of its parents, its cancellation, and a way to start child runs.
///
/// A `Context` is cheap to clone.
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
    attempt: AttemptContext,
    /// The number of the next child.
    next_child: Arc<AtomicI32>,
    own_output: AttemptOutput,
    /// When the engine ends the attempt, if it is known.
    timeout_at: Mutex<Option<Instant>>,
}

/// The labels of a worker, which can change.
pub(crate) type WorkerLabels = Arc<Mutex<BTreeMap<String, LabelValue>>>;

/// What the worker knows about an attempt.
pub(crate) struct AttemptContext {
    pub(crate) client: Client,
    pub(crate) worker: WorkerId,
    pub(crate) run: RunId,
    pub(crate) task: TaskId,
    pub(crate) action: Arc<Action>,
    /// The name of the workflow, without the namespace.
    pub(crate) workflow: Arc<str>,
    pub(crate) retries: u32,
    /// The names of the tasks whose outputs it may read. `None`: of all.
    pub(crate) parents: Option<Arc<[String]>>,
    pub(crate) output: TaskOutput,
    /// Requests that the attempt stops.
    pub(crate) stop: Stop,
    pub(crate) worker_labels: WorkerLabels,
    /// Receives the task and the retry count of an attempt that has released its slot.
    pub(crate) released: mpsc::UnboundedSender<(TaskId, u32)>,
    pub(crate) full_slots: FullSlots,
    /// When its execution timeout is over. `None` if the engine does not have the attempt.
    pub(crate) timeout_at: Option<Instant>,
}

/// The part of an assignment's payload that is about other tasks of the run.
#[derive(Deserialize)]
struct Others {
    #[serde(default)]
    step_run_errors: Option<BTreeMap<String, String>>,
}

impl Context {
    pub(crate) fn new(attempt: AttemptContext) -> Self {
        let (next_child, own_output) = (Arc::default(), AttemptOutput::default());
        let timeout_at = Mutex::new(attempt.timeout_at);
        Self(Arc::new(Inner { attempt, next_child, own_output, timeout_at }))
    }

    fn action(&self) -> &Action {
        &self.0.attempt.action
    }

    /// The names of the tasks whose outputs it may read. `None`: of all.
    pub(super) fn parents(&self) -> Option<&[String]> {
        self.0.attempt.parents.as_deref()
    }

    pub(super) fn output(&self) -> &TaskOutput {
        &self.0.attempt.output
    }

    pub(super) fn own_output(&self) -> &AttemptOutput {
        &self.0.own_output
    }

    /// Whether the engine has the attempt. Otherwise, its function was called without a worker.
    pub(super) fn is_of_engine(&self) -> bool {
        self.0.attempt.timeout_at.is_some()
    }

    pub(super) fn timeout_at(&self) -> Option<Instant> {
        *lock(&self.0.timeout_at)
    }

    /// The engine ends the attempt later.
    pub(super) fn extend_timeout(&self, by: Duration) {
        let mut timeout_at = lock(&self.0.timeout_at);
        *timeout_at = timeout_at.and_then(|at| at.checked_add(by));
    }

    /// The attempt does not occupy its slot any longer.
    pub(super) fn notify_released(&self) {
        // There is nobody to notify if the worker has ended.
        let _ = self.0.attempt.released.send((self.task_id(), self.action().retry_count()));
    }

    /// Returns the id of the run that this task belongs to.
    pub fn run_id(&self) -> RunId {
        self.0.attempt.run
    }

    /// Returns the id of the task that this attempt belongs to. Retries have the same id.
    pub fn task_id(&self) -> TaskId {
        self.0.attempt.task
    }

    /// Returns the task's name in the workflow.
    pub fn task_name(&self) -> &str {
        self.action().task_name()
    }

    /// Returns the name of the workflow that this task belongs to, without the namespace of the client.
    pub fn workflow_name(&self) -> &str {
        &self.0.attempt.workflow
    }

    /// Returns the id of the workflow, if the engine reports it.
    pub fn workflow_id(&self) -> Option<WorkflowId> {
        parse_id(self.action().workflow()?).ok()
    }

    /// Returns the id of the version of the workflow that the run uses, if the engine reports it.
    pub fn workflow_version_id(&self) -> Option<WorkflowVersionId> {
        parse_id(self.action().workflow_version()?).ok()
    }

    /// Returns the id under which the engine knows the worker that runs this attempt.
    pub fn worker_id(&self) -> WorkerId {
        self.0.attempt.worker
    }

    /// Returns the current labels of the worker that runs this attempt, including labels that
    /// [`set_labels`](crate::worker::RunningWorker::set_labels) has added or changed.
    ///
    /// ```
    /// use hatchet::{Context, Task};
    ///
    /// let render: Task<(), bool> = Task::new("render", async |(): (), context: Context| {
    ///     Ok(context.worker_labels().get("gpu") == Some(&"a100".into()))
    /// });
    /// ```
    pub fn worker_labels(&self) -> BTreeMap<String, LabelValue> {
        lock(&self.0.attempt.worker_labels).clone()
    }

    /// Returns the priority of the run, or `None` if the engine reports no priority that this version of the crate knows.
    pub fn priority(&self) -> Option<Priority> {
        let priorities = [Priority::Low, Priority::Medium, Priority::High];
        priorities.into_iter().find(|priority| priority.number() == self.action().priority())
    }

    /// Returns what started the run. The JSON of the metadata is parsed on every call.
    ///
    /// ```
    /// use hatchet::model::Trigger;
    /// use hatchet::{Context, Task};
    ///
    /// let ship: Task<(), ()> = Task::new("ship", async |(): (), context: Context| {
    ///     if let Trigger::Event(event) = context.trigger() {
    ///         println!("because of the event {}", event.event_id);
    ///     }
    ///     Ok(())
    /// });
    /// ```
    pub fn trigger(&self) -> Trigger {
        let parent = self.action().parent_task().and_then(|task| parse_id(task).ok());
        let mut engine = self.all_metadata().1;
        trigger::remove_namespace(&mut engine, self.client().namespace());
        trigger::read(&engine, parent)
    }

    /// Returns the number of this attempt, starting at 1.
    ///
    /// ```
    /// use hatchet::{Context, Task};
    ///
    /// let shaky = Task::new("shaky", async |(): (), context: Context| Ok(context.attempt())).retries(3);
    /// ```
    pub fn attempt(&self) -> u32 {
        attempt_number(self.action().retry_count())
    }

    /// Returns the maximum number of attempts: 1 plus the task's [retries](crate::Task::retries).
    ///
    /// Attempts that are reassigned from a lost worker, and replays, do not count, so [`attempt`](Self::attempt) can be greater.
    ///
    /// ```
    /// use hatchet::{Context, Task};
    ///
    /// let shaky: Task<(), ()> = Task::new("shaky", async |(): (), context: Context| {
    ///     if context.attempt() >= context.max_attempts() {
    ///         context.log("this is the last attempt");
    ///     }
    ///     Ok(())
    /// });
    /// ```
    pub fn max_attempts(&self) -> u32 {
        self.0.attempt.retries.saturating_add(1)
    }

    /// Returns the run's metadata, without the keys that the engine and this crate added. The JSON is parsed on every call.
    pub fn metadata(&self) -> BTreeMap<String, Value> {
        self.all_metadata().0
    }

    /// The keys of the user, and those of the engine and of this crate.
    fn all_metadata(&self) -> (BTreeMap<String, Value>, BTreeMap<String, Value>) {
        metadata::split(serde_json::from_str(self.action().metadata()).unwrap_or_default())
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
        self.action().payload()
    }

    fn others(&self) -> Result<Others> {
        serde_json::from_str(self.payload())
            .map_err(|error| Error::new(ErrorKind::Decode, "failed to parse the assignment").with_source(error))
    }

    /// Returns a builder for a child run, which is linked to this task and inherits the run's metadata.
    ///
    /// A retry of the task does not start its children again: the n-th child of a task is the same run in each attempt, even if its input
    /// or workflow differs. So call [`start`](RunBuilder::start) in the same order in each attempt, or set [keys](RunBuilder::child_key);
    /// children with keys are not counted. Clones of the context share one counter.
    ///
    /// An attempt holds its slot while it waits for a child, and its execution timeout continues. If waiting attempts occupy all slots of
    /// the workers, their children cannot start. If all slots of the worker are taken when a child is prepared, a warning is logged, once
    /// for each worker.
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

    /// Returns a builder for many child runs of one workflow; see [`run`](Self::run).
    pub fn run_many<'a, R: Runnable<Input: 'a>>(
        &self,
        workflow: &R,
        inputs: impl IntoIterator<Item = R::Input, IntoIter: Send + 'a>,
    ) -> RunManyBuilder<'a, R::Output> {
        self.client().run_many(workflow, inputs).child_of(self.parent())
    }

    fn parent(&self) -> Parent {
        if self.0.attempt.full_slots.take_warning() {
            tracing::warn!(
                worker_id = %self.worker_id(), run_id = %self.run_id(), task_id = %self.task_id(), attempt = self.attempt(),
                task_name = self.task_name(),
                "an attempt starts a child run while all default slots of its worker are taken; it holds its slot while it waits"
            );
        }
        let next = Arc::clone(&self.0.next_child);
        // The number of an attempt of a batch is a guess: another worker may have run earlier ones.
        let again = self.attempt() > 1 || self.action().kind() == ActionKind::StartBatch;
        Parent { run: self.run_id(), task: self.task_id(), next, again }
    }

    /// Returns the client of the worker.
    ///
    /// Runs that are started through this client, and not through the context, are not children of the task.
    pub fn client(&self) -> &Client {
        &self.0.attempt.client
    }

    /// Resolves when the attempt must stop: it was cancelled, it has timed out, it was reassigned, or the worker is shutting down and its
    /// grace period is over.
    ///
    /// A function that continues is dropped at its next await after the worker's
    /// [`cancel_grace_period`](crate::worker::WorkerBuilder::cancel_grace_period). Its result is ignored: the engine has already ended the
    /// attempt, or assigns it to another worker.
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
        self.0.attempt.stop.requested().await;
    }

    /// Returns whether the attempt must stop, for code that does not await.
    pub fn is_cancelled(&self) -> bool {
        self.0.attempt.stop.is_requested()
    }

    /// Returns why the attempt must stop, or `None` if it need not stop.
    ///
    /// ```
    /// use hatchet::workflow::CancelCause;
    /// use hatchet::{Context, Task};
    ///
    /// let import: Task<(), ()> = Task::new("import", async |(): (), context: Context| {
    ///     context.cancelled().await;
    ///     match context.cancel_cause() {
    ///         Some(CancelCause::Shutdown) => {} // keep what is done: another worker continues
    ///         _ => {}                           // remove it
    ///     }
    ///     Ok(())
    /// });
    /// ```
    pub fn cancel_cause(&self) -> Option<CancelCause> {
        self.0.attempt.stop.cause()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Context");
        shown.field("run", &self.run_id()).field("task", &self.task_id()).field("attempt", &self.attempt());
        shown.finish_non_exhaustive()
    }
}
