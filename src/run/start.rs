//! Starting one run.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::handle::RunHandle;
use super::placement::{Placement, placement_options};
use super::workflow_cache::WorkflowCache;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::metadata::{Metadata, OWN_PREFIX};
use crate::model::payload::encode_input;
use crate::model::{Priority, RunId, TaskId, convert};
use crate::rpc::grpc_types::{NewRun, Triggered};

#[diagnostic::on_unimplemented(
    message = "no run of `{Self}` can be started",
    note = "a `Task<I, O>` or a `Workflow<I, O>` can be started if `I: Serialize` and `O: DeserializeOwned`; an output that borrows, \
            such as `&str`, cannot be read back: use `String`"
)]
/// Something that can be run: a [`Task`](crate::Task), a [`Workflow`](crate::Workflow), or a [`WorkflowRef`] to one that is
/// defined elsewhere.
pub trait Runnable {
    /// What a run of it is started with.
    type Input: Serialize;
    /// What a run of it ends with.
    type Output: DeserializeOwned;

    /// The workflow's name, without the namespace.
    fn workflow_name(&self) -> &str;
}

impl<T: Runnable> Runnable for &T {
    type Input = T::Input;
    type Output = T::Output;

    fn workflow_name(&self) -> &str {
        (**self).workflow_name()
    }
}

/// A workflow that is defined elsewhere, by its name and the types that this program knows it by.
///
/// ```
/// use hatchet::WorkflowRef;
///
/// let greet: WorkflowRef<serde_json::Value, serde_json::Value> = WorkflowRef::new("greet");
/// ```
pub struct WorkflowRef<I, O> {
    name: String,
    types: PhantomData<fn(I) -> O>,
}

impl<I, O> WorkflowRef<I, O> {
    /// Refers to the workflow with this name.
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
    /// Prepares a run; [`start`](RunBuilder::start) starts it.
    ///
    /// The input is turned into JSON here, which must be an object; if that fails, `start` says so.
    pub fn run<R: Runnable>(&self, workflow: &R, input: &R::Input) -> RunBuilder<R::Output> {
        let input = encode_input("input", input);
        RunBuilder::prepared(self.clone(), workflow.workflow_name().to_owned(), input, Metadata::default())
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

/// A run that is about to be started.
#[derive(Debug)]
#[must_use = "nothing is started before `start`"]
pub struct RunBuilder<O> {
    client: Client,
    workflow: String,
    input: Result<String>,
    metadata: Metadata,
    own_metadata: Metadata,
    priority: Option<Priority>,
    placement: Placement,
    parent: Option<Parent>,
    child_key: Option<String>,
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
            parent: None,
            child_key: None,
            output: PhantomData,
        }
    }

    /// A tag of this crate's own.
    pub(super) fn own_metadata(mut self, key: &str, value: serde_json::Value) -> Self {
        self.own_metadata.insert(key.to_owned(), value);
        self
    }

    pub(crate) fn child_of(mut self, parent: Parent) -> Self {
        self.parent = Some(parent);
        self
    }

    /// What makes a child run the same one, in whichever order a task starts its children: a second child with the same
    /// key is the first one, and nothing of it is run again. Without a key it is the child's number.
    ///
    /// Keys and numbers share one space for the engine, so a key must not be a number. Only for runs that are started through a
    /// task's [`Context`](crate::Context::run).
    pub fn child_key(mut self, key: impl Into<String>) -> Self {
        self.child_key = Some(key.into());
        self
    }

    /// Tags the run. Tags are what runs are found by: strings, since the engine compares nothing else.
    ///
    /// Keys must not be empty, have no colon, and not begin with `hatchet__`, `hatchet_rs__` or be `traceparent`. All tags
    /// together may have 64 KiB as JSON.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into().into());
        self
    }

    /// How urgent it is. Without it, the workflow's default priority holds.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    placement_options!();

    /// Starts the run and returns at once, without waiting for it.
    ///
    /// The server answers an unknown workflow with the id of a run that it never creates. So the first run of a workflow, and
    /// one a minute after that, is looked up by its id before this returns. A workflow that is deleted in between is noticed
    /// by whoever waits for the run: that ends with [`RunNotFound`](crate::ErrorKind::RunNotFound). Needs gRPC only; without the
    /// REST API, an unknown workflow is noticed after ten seconds, and it cannot be ruled out that a run comes to be later.
    ///
    /// # Errors
    /// [`WorkflowNotFound`](crate::ErrorKind::WorkflowNotFound); [`AlreadyExists`](crate::ErrorKind::AlreadyExists) if
    /// another run has its [idempotency key](crate::Idempotency); [`InvalidInput`](crate::ErrorKind::InvalidInput) and
    /// [`TooLarge`](crate::ErrorKind::TooLarge) before anything is sent. For any other, ask
    /// [`never_reached_server`](crate::Error::never_reached_server): if it is `false`, the run may have been started. It
    /// is not started again by itself.
    ///
    /// # Cancel safety
    /// Dropping the future after its first poll leaves open whether the run was started. The number of a
    /// [child](crate::Context::run) is taken by the call itself, even if the future is dropped.
    pub fn start(self) -> impl Future<Output = Result<RunHandle<O>>> {
        // Now, and not when it is polled: the order of calls is the same in each attempt, also of futures that are spawned.
        let number = self.parent.as_ref().filter(|_| self.child_key.is_none()).map(|parent| parent.take(1));
        self.start_as(number.unwrap_or_default())
    }

    async fn start_as(self, number: i32) -> Result<RunHandle<O>> {
        let common = common(&self.client, &self.workflow, &self.metadata, self.own_metadata, self.priority)?;
        let mut run = self.placement.apply(common.with_input(self.input?))?;
        match (self.parent, self.child_key) {
            (Some(_), Some(key)) if key.is_empty() || key.parse::<i64>().is_ok() => {
                let problem = format!("found {key:?}, accepted: a string that is not a number");
                return Err(Error::invalid("child key", problem));
            }
            (Some(parent), key) => {
                run = run.child_of(parent.run.into(), parent.task.into(), number, key);
            }
            (None, Some(_)) => {
                return Err(Error::invalid(
                    "child key",
                    "it is of use only to runs that are started through a task's context",
                ));
            }
            (None, None) => {}
        }
        match self.client.rpc().workflows.trigger(&run).await.map_err(of_workflow)? {
            Triggered::Run(id) => {
                WorkflowCache::confirm(&self.client, &self.workflow, &id).await?;
                Ok(RunHandle::started(self.client, self.workflow.into(), convert::id(&id)?))
            }
            Triggered::Taken(existing) => Err(Error::collision(convert::id(&existing)?)),
        }
    }
}

/// What a trigger does not find is its workflow.
pub(super) fn of_workflow(error: Error) -> Error {
    // A run that is put into a queue is checked before.
    let is_unknown = error.kind() == ErrorKind::Rejected && error.to_string().contains("workflow names not found");
    match error.kind() {
        ErrorKind::NotFound => error.with_kind(ErrorKind::WorkflowNotFound).unsent(),
        _ if is_unknown => error.with_kind(ErrorKind::WorkflowNotFound).unsent(),
        _ => error,
    }
}

/// What the runs of one call have in common: name, metadata and priority.
pub(super) fn common(
    client: &Client,
    workflow: &str,
    metadata: &Metadata,
    own: Metadata,
    priority: Option<Priority>,
) -> Result<NewRun> {
    // Checked as the user gave it, before this crate's own key joins it.
    metadata.check()?;
    let mut all = metadata.clone();
    all.extend(own);
    let (key, value) = watch_tag(client);
    all.insert(key, value.into());
    Ok(NewRun::new(client.prefixed(workflow), all.encode()?, priority.map(Priority::number)))
}

/// The tag that this client gives its runs, so that one stream tells it of all of them.
pub(crate) fn watch_tag(client: &Client) -> (String, String) {
    struct ClientId(String);
    let id = client.shared(|| ClientId(format!("{:016x}", fastrand::u64(..))));
    (format!("{OWN_PREFIX}client"), id.0.clone())
}
