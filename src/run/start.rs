//! Starting one run.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::handle::RunHandle;
use super::options::check_child_key;
use super::placement::Placement;
use crate::client::Client;
use crate::config::{RequestOptions, RetryPolicy};
use crate::error::{Error, ErrorKind, Result};
use crate::model::metadata::Metadata;
use crate::model::payload::encode_input;
use crate::model::{DesiredLabel, Priority, RunId, TaskId, WorkerId};
use crate::rpc::convert::{CommonRun, NewRun, Triggered};
use crate::telemetry::{EVENT_TRACEPARENT, TRACEPARENT};

#[diagnostic::on_unimplemented(
    message = "cannot start a run of `{Self}`",
    note = "a `Task<I, O>` or a `Workflow<I, O>` can be started if `I: Serialize` and `O: DeserializeOwned`; an output that borrows, \
            such as `&str`, cannot be read back: use `String`"
)]
/// A definition that can be run: a [`Task`](crate::Task), a [`Workflow`](crate::Workflow), or a [`WorkflowRef`] to a workflow that is
/// defined elsewhere.
///
/// ```
/// use hatchet::workflow::{Runnable, WorkflowRef};
///
/// fn name<R: Runnable>(workflow: &R) -> &str {
///     workflow.workflow_name()
/// }
///
/// assert_eq!(name(&WorkflowRef::<(), ()>::new("greet")), "greet");
/// ```
pub trait Runnable {
    /// The input of a run.
    type Input: Serialize;
    /// The output of a run.
    type Output: DeserializeOwned;

    /// Returns the workflow's name, without the namespace.
    fn workflow_name(&self) -> &str;

    /// Returns whether the workflow has several tasks, so that its runs are DAG runs. The default is `None`, for unknown.
    fn is_dag(&self) -> Option<bool> {
        None
    }

    /// Returns the default tags, as keys and values, of runs, schedules and crons of this workflow. A tag of a run, schedule or cron
    /// replaces the default tag with the same key. By default, there are none.
    fn default_metadata(&self) -> &[(String, String)] {
        &[]
    }

    /// Returns whether the definition has an [idempotency key](crate::model::Idempotency) that is kept for at least 10 minutes and does not
    /// end with the run, so that a start request can be repeated. The default is `None`, for unknown.
    fn has_idempotency_key(&self) -> Option<bool> {
        None
    }
}

impl<T: Runnable> Runnable for &T {
    type Input = T::Input;
    type Output = T::Output;

    fn workflow_name(&self) -> &str {
        (**self).workflow_name()
    }

    fn is_dag(&self) -> Option<bool> {
        (**self).is_dag()
    }

    fn default_metadata(&self) -> &[(String, String)] {
        (**self).default_metadata()
    }

    fn has_idempotency_key(&self) -> Option<bool> {
        (**self).has_idempotency_key()
    }
}

/// A reference to a workflow that is defined elsewhere, by name, with the input and output types that this program uses.
///
/// ```
/// use hatchet::workflow::WorkflowRef;
///
/// let greet: WorkflowRef<serde_json::Value, serde_json::Value> = WorkflowRef::new("greet");
/// ```
pub struct WorkflowRef<I, O> {
    name: String,
    types: PhantomData<fn(I) -> O>,
}

impl<I, O> WorkflowRef<I, O> {
    /// Creates a reference to the workflow with this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), types: PhantomData }
    }
}

impl<I, O> Clone for WorkflowRef<I, O> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), types: PhantomData }
    }
}

impl<I, O> fmt::Debug for WorkflowRef<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WorkflowRef").field(&self.name).finish()
    }
}

impl<I: Serialize, O: DeserializeOwned> Runnable for WorkflowRef<I, O> {
    type Input = I;
    type Output = O;

    fn workflow_name(&self) -> &str {
        &self.name
    }
}

impl Client {
    /// Returns a builder for a run; [`start`](RunBuilder::start) starts it.
    ///
    /// The input is serialized by this call, and must serialize to a JSON object. If the serialization fails, `start` returns the error.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, greet: hatchet::Task<(), String>) -> hatchet::Result<()> {
    /// let greeting = hatchet.run(&greet, &()).result().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn run<R: Runnable>(&self, workflow: &R, input: &R::Input) -> RunBuilder<R::Output> {
        let input = encode_input("input", input);
        let metadata = Metadata::of(workflow.default_metadata());
        let run = RunBuilder::prepared(self.clone(), workflow.workflow_name().to_owned(), input, metadata);
        let is_dag = workflow.is_dag() == Some(true);
        RunBuilder { has_idempotency_key: workflow.has_idempotency_key(), is_dag, ..run }
    }
}

/// The task whose child a run is.
#[derive(Debug, Clone)]
pub(crate) struct Parent {
    pub(crate) run: RunId,
    pub(crate) task: TaskId,
    /// The number of its next child.
    pub(crate) next: Arc<AtomicI32>,
    /// Whether it may have started its children already, in an earlier attempt.
    pub(crate) again: bool,
}

impl Parent {
    /// Takes the numbers of the next children: the first of them.
    pub(super) fn take(&self, count: usize) -> i32 {
        self.next.fetch_add(i32::try_from(count).unwrap_or(i32::MAX), Relaxed)
    }
}

/// A builder for a run; see [`Client::run`].
///
/// [`start`](Self::start) starts the run, with the metadata and the priority of its definition unless others are set.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, greet: hatchet::Task<(), ()>) -> hatchet::Result<()> {
/// let run = hatchet.run(&greet, &()).metadata("tenant", "acme").priority(hatchet::Priority::High).start().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is started until `start` is awaited"]
pub struct RunBuilder<O> {
    client: Client,
    workflow: String,
    input: Result<String>,
    metadata: Metadata,
    own_metadata: Metadata,
    priority: Option<Priority>,
    placement: Placement,
    request: RequestOptions,
    parent: Option<Parent>,
    child_key: Option<String>,
    is_dag: bool,
    /// Whether the definition has an idempotency key, if that is known.
    has_idempotency_key: Option<bool>,
    output: PhantomData<fn() -> O>,
}

impl<O> RunBuilder<O> {
    pub(super) fn prepared(client: Client, workflow: String, input: Result<String>, metadata: Metadata) -> Self {
        Self {
            client,
            workflow,
            input,
            metadata,
            own_metadata: Metadata::default(),
            priority: None,
            placement: Placement::default(),
            request: RequestOptions::default(),
            parent: None,
            child_key: None,
            is_dag: false,
            has_idempotency_key: None,
            output: PhantomData,
        }
    }

    /// The client that will start the run.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// A tag of this crate's own.
    pub(crate) fn own_metadata(mut self, key: &str, value: serde_json::Value) -> Self {
        self.own_metadata.insert(key.to_owned(), value);
        self
    }

    pub(super) fn with_placement(self, placement: Placement) -> Self {
        Self { placement, ..self }
    }

    pub(super) fn with_request(mut self, request: RequestOptions) -> Self {
        self.request = request;
        self
    }

    pub(crate) fn child_of(mut self, parent: Parent) -> Self {
        self.parent = Some(parent);
        self
    }

    /// Sets the key that identifies a child run, independent of the order in which a task starts its children.
    ///
    /// If a child with the same key already exists, `start` returns a handle to it and starts nothing. By default, a child is identified by
    /// its index: the first child of a task has the index 0.
    ///
    /// The server does not distinguish keys from indexes, so a key must not be an integer. A key is accepted only for runs that are
    /// started through a task's [`Context`](crate::Context::run).
    pub fn child_key(mut self, key: impl Into<String>) -> Self {
        self.child_key = Some(key.into());
        self
    }

    /// Adds a tag to the run. Runs can be found by their tags. Values are strings, because the engine compares tags as strings.
    ///
    /// Keys must not be empty, must not contain a colon, must not begin with `hatchet__` or `hatchet_rs__`, and must not be
    /// `traceparent`. All tags of a run together are limited to 64 KiB of JSON.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into().into());
        self
    }

    /// Sets the priority of the run. The default is the workflow's default priority.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Sets the timeout of each call that this request makes, including its retries, from 1 ms to 24 hours.
    ///
    /// The default is the configured [`rpc_timeout`](crate::config::ConfigBuilder::rpc_timeout). The wait for the run is not limited.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy of the calls that this request makes.
    ///
    /// The default is the configured [policy](crate::config::ConfigBuilder::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.request.retry = Some(policy);
        self
    }

    /// Requests a specific worker.
    ///
    /// The request has an effect only if the task is [sticky](crate::Task::sticky), and the sticky strategy determines whether the run may
    /// use another worker.
    ///
    /// The server does not report what was requested. [`Attempt::worker_id`](crate::model::Attempt::worker_id) is the worker that ran an
    /// attempt.
    pub fn desired_worker(mut self, worker: WorkerId) -> Self {
        self.placement.worker = Some(worker);
        self
    }

    /// Requests workers with a label; see [`DesiredLabel`].
    ///
    /// This request replaces the task's request for the same label, and has no effect if the task is sticky.
    ///
    /// The server does not report what was requested. [`Attempt::worker_id`](crate::model::Attempt::worker_id) is the worker that ran an
    /// attempt.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, render: hatchet::Task<(), ()>) -> hatchet::Result<()> {
    /// hatchet.run(&render, &()).desired_label("gpu", "a100").start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn desired_label(mut self, key: impl Into<String>, label: impl Into<DesiredLabel>) -> Self {
        self.placement.label(key.into(), label.into());
        self
    }

    /// Starts the run, and returns a handle without waiting for the run to end.
    ///
    /// The server answers a start request for an unknown workflow with the id of a run that it never creates. Therefore, before it returns,
    /// this method fetches the first run that the client starts of a workflow, and after that at most one run of the workflow per minute.
    /// If a workflow is deleted in between, a wait for the run returns [`RunNotFound`](crate::ErrorKind::RunNotFound).
    ///
    /// The method needs gRPC only. Without the REST API, it reports an unknown workflow after 10 seconds, and the engine may still create
    /// the run later.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, greet: hatchet::Task<(), String>) -> hatchet::Result<()> {
    /// let run = hatchet.run(&greet, &()).metadata("tenant", "acme").start().await?;
    /// println!("started run {}", run.id());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`WorkflowNotFound`](crate::ErrorKind::WorkflowNotFound) if the server has no such workflow.
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) if another run has the same [idempotency key](crate::model::Idempotency).
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) or [`TooLarge`](crate::ErrorKind::TooLarge) if the request is invalid or too large;
    /// nothing is sent then. For all other errors, the run may have been started if
    /// [`has_no_side_effects`](crate::Error::has_no_side_effects) returns `false`. In that case, the request is not retried.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the run may have been started. A
    /// [child](crate::Context::run) gets its index when this method is called, even if the future is never polled.
    pub fn start(self) -> impl Future<Output = Result<RunHandle<O>>> {
        let Numbered { number, builder } = self.numbered();
        // The run is encoded now, too, so that the future does not hold what it is made of.
        let prepared = builder.prepare(number);
        // Boxed, so that a future that starts a run and waits for it does not keep the memory for the start.
        Box::pin(async move { prepared?.start().await })
    }

    /// Starts the run, or returns a handle to the run that has its [idempotency key](crate::model::Idempotency).
    ///
    /// While the engine keeps the key, this method can be called again after any error, also by another process. The workflow must have a
    /// key that does not end with its run, and that is kept for at least 10 minutes; a longer [timeout](Self::timeout) of the call needs a
    /// key that is kept longer.
    ///
    /// In contrast to [`start`](Self::start), the call is repeated within its timeout if its response is lost: if the first call started a
    /// run, the engine reports that run. To find out whether a new run was started, use `start`, which reports an existing run as an
    /// [error](crate::Error::existing_run_id).
    ///
    /// Keys are shared by all workflows of a tenant. If a run of another workflow has the same key, this method returns a handle to that
    /// run, whose output may not match the type of the handle.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
    /// use std::time::Duration;
    /// use hatchet::model::Idempotency;
    /// use hatchet::{Context, Task};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Order { id: String }
    ///
    /// let day = Duration::from_secs(24 * 3600);
    /// let charge = Task::new("charge", async |order: Order, _: Context| Ok(order.id))
    ///     .idempotency(Idempotency::for_time("'charge:' + input.id", day));
    /// let order = Order { id: "17".into() };
    /// let run = hatchet.run(&charge, &order).start_or_existing().await?;
    /// let again = hatchet.run(&charge, &order).start_or_existing().await?;
    /// assert_eq!(run.id(), again.id());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) before anything is sent if the definition is a [`Task`](crate::Task) or a
    /// [`Workflow`](crate::Workflow) without such a key. For a [`WorkflowRef`], the client does not know whether the workflow has such a
    /// key. If it has none, or if the server has an older definition without it, two runs may be started. The other errors are those of
    /// [`start`](Self::start), without `AlreadyExists`.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the run may have been started. The method can be
    /// called again.
    pub fn start_or_existing(self) -> impl Future<Output = Result<RunHandle<O>>> {
        let has_key = self.has_idempotency_key;
        let Numbered { number, builder } = self.numbered();
        let prepared = builder.prepare(number);
        async move {
            let prepared = prepared?;
            if has_key == Some(false) {
                let problem = "expected a definition with an idempotency key that is kept for at least 10 minutes and does not end with the run, got none";
                return Err(Error::invalid("workflow", problem));
            }
            Prepared { has_key: true, ..prepared }.start().await
        }
    }

    /// Takes the index of a child now and not when a future is polled: the order of calls is the same in each attempt, even if the futures
    /// are spawned.
    pub(crate) fn numbered(self) -> Numbered<O> {
        let number = self.parent.as_ref().filter(|_| self.child_key.is_none()).map(|parent| parent.take(1));
        Numbered { number: number.unwrap_or_default(), builder: self }
    }

    fn prepare(self, number: i32) -> Result<Prepared<O>> {
        let client = self.client.with(self.request)?;
        let is_child = self.parent.is_some();
        let may_exist = self.parent.as_ref().is_some_and(|parent| parent.again);
        let own = self.own_metadata.with_trace(trace_keys(is_child));
        let common = common(&client, &self.workflow, &self.metadata, &own, self.priority)?;
        let (input, mut common) = (self.input?, self.placement.apply(common)?);
        check_child_key(self.child_key.as_deref(), is_child)?;
        if let Some(parent) = self.parent {
            common = common.children_of(parent.run, parent.task, self.child_key);
        }
        let run = common.encode().run(input, is_child.then_some(number));
        let prepared = Prepared::new(client, self.workflow.into(), run).may_exist(may_exist);
        Ok(Prepared { is_dag: self.is_dag, ..prepared })
    }
}

/// A run that has its index among the children of its parent, if it has one.
pub(crate) struct Numbered<O> {
    number: i32,
    builder: RunBuilder<O>,
}

impl<O> Numbered<O> {
    /// Starts the run, perhaps with a tag of this crate's own.
    pub(crate) async fn start(self, tag: Option<(String, String)>) -> Result<RunHandle<O>> {
        let Self { number, mut builder } = self;
        if let Some((key, value)) = tag {
            builder = builder.own_metadata(&key, value.into());
        }
        builder.prepare(number)?.start().await
    }
}

/// A run that is encoded.
pub(super) struct Prepared<O> {
    client: Client,
    workflow: Arc<str>,
    run: NewRun,
    is_dag: bool,
    /// Whether the workflow has an idempotency key that makes it safe to repeat the call.
    has_key: bool,
    /// Whether the run may be a child that an earlier attempt has started, perhaps through another client.
    may_exist: bool,
    output: PhantomData<fn() -> O>,
}

impl<O> Prepared<O> {
    pub(super) fn new(client: Client, workflow: Arc<str>, run: NewRun) -> Self {
        Self { client, workflow, run, is_dag: false, has_key: false, may_exist: false, output: PhantomData }
    }

    /// The same for a child that an earlier attempt of its parent may have started.
    pub(super) fn may_exist(self, may_exist: bool) -> Self {
        Self { may_exist, ..self }
    }

    /// With a key, a run that has the key already is returned, and not an error.
    pub(super) async fn start(self) -> Result<RunHandle<O>> {
        let Self { client, workflow, run, is_dag, has_key, may_exist, .. } = self;
        let call = client.rpc().workflows.trigger(&run, has_key);
        drop(run);
        match call.await.map_err(|error| of_workflow(error, &workflow))? {
            Triggered::Run(id) => {
                client.feed().workflows.confirm(&workflow, &[id], client.rpc_timeout()).await?;
                let run = RunHandle::started(&client, workflow, id).of_dag(is_dag);
                Ok(if may_exist { run.of_any_age() } else { run })
            }
            Triggered::Taken(existing) if has_key => Ok(client.run_handle(existing).typed().of_dag(is_dag)),
            Triggered::Taken(existing) => Err(Error::collision(existing)),
        }
    }
}

/// Maps "not found" errors of a trigger to the workflow. The server checks the workflow before it queues a run.
pub(super) fn of_workflow(error: Error, workflow: &str) -> Error {
    let is_unknown = error.kind() == ErrorKind::Rejected && error.to_string().contains("workflow names not found");
    if error.kind() == ErrorKind::NotFound || is_unknown { Error::workflow_not_found(workflow, error) } else { error }
}

/// The metadata keys of the trace of a run. A child would inherit that of the event of its parent.
pub(super) fn trace_keys(is_child: bool) -> &'static [&'static str] {
    if is_child { &[TRACEPARENT, EVENT_TRACEPARENT] } else { &[TRACEPARENT] }
}

/// What the runs of one call have in common: name, metadata and priority.
pub(super) fn common(
    client: &Client,
    workflow: &str,
    metadata: &Metadata,
    own: &Metadata,
    priority: Option<Priority>,
) -> Result<CommonRun> {
    // Checked as the user gave it, before this crate's own key joins it.
    metadata.check()?;
    let (key, value) = client.feed().tag();
    let metadata = metadata.encode_with(own, Some((key, value)))?;
    Ok(CommonRun::new(client.prefixed(workflow), metadata, priority.map(Priority::number)))
}
