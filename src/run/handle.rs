//! A handle to a run.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use tokio::time::Instant;

use crate::client::Client;
use crate::model::{RunId, RunReport};
use crate::observe::{DetailsBuilder, LogItems};

/// A handle to a run, with the type of its output.
///
/// A handle is cheap to clone. Dropping a handle does not affect the run.
///
/// The output of a run of a [`Task`](crate::Task) is the task's output. The output of a run of a [`Workflow`](crate::Workflow) is an object
/// with the outputs of its tasks by task name, even if the workflow has only one task. The server does not distinguish a task from a
/// workflow whose only task has the name of the workflow: such a workflow counts as a task.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, greet: hatchet::Task<(), String>) -> hatchet::Result<()> {
/// let run = hatchet.run(&greet, &()).start().await?;
/// let text = run.result().await?; // the output, or an error
/// let outcome = run.outcome().await?; // completed, failed, cancelled or timed out
/// let details = run.details().await?; // its tasks, attempts, times and log lines
///
/// // Later, elsewhere, by its id alone:
/// let same = hatchet.run_handle(run.id()).typed::<String>();
/// # Ok(())
/// # }
/// ```
pub struct RunHandle<O = serde_json::Value> {
    client: Client,
    id: RunId,
    /// When this client started the run, if it did. Then the run cannot have ended long ago.
    started_at: Option<Instant>,
    /// The first attempt that counts: the end of an earlier attempt is not the end of the run.
    from_attempt: u32,
    /// Whether the run is known to be a DAG run.
    is_dag: bool,
    /// The workflow's name, without the namespace, if this client started the run.
    workflow: Option<Arc<str>>,
    output: PhantomData<fn() -> O>,
}

impl Client {
    /// Returns a handle to an existing run.
    ///
    /// Nothing is sent, so this does not check that the run exists; the methods of the handle report a missing run. [`RunHandle::typed`]
    /// sets the type of the output.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, id: hatchet::RunId) -> hatchet::Result<()> {
    /// let text = hatchet.run_handle(id).typed::<String>().result().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn run_handle(&self, id: RunId) -> RunHandle {
        RunHandle {
            client: self.clone(),
            id,
            started_at: None,
            from_attempt: 1,
            is_dag: false,
            workflow: None,
            output: PhantomData,
        }
    }
}

impl RunReport {
    /// Returns a handle to the run. For a replayed run, the handle waits for the end of the new attempt.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, ids: Vec<hatchet::RunId>) -> hatchet::Result<()> {
    /// for report in hatchet.replay_many(ids).send().await? {
    ///     println!("{}", report.handle(&hatchet).outcome().await?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn handle(&self, client: &Client) -> RunHandle {
        let run = client.run_handle(self.run_id);
        match self.attempt.filter(|_| self.is_applied()) {
            Some(attempt) => run.at_attempt(attempt),
            None => run,
        }
    }
}

impl<O> RunHandle<O> {
    pub(crate) fn started(client: &Client, workflow: Arc<str>, id: RunId) -> Self {
        Self {
            client: client.without_options(),
            id,
            started_at: Some(Instant::now()),
            from_attempt: 1,
            is_dag: false,
            workflow: Some(workflow),
            output: PhantomData,
        }
    }

    /// The same run, which may have existed before: it can have ended long ago, and may have been started by another client.
    pub(super) fn of_any_age(mut self) -> Self {
        self.started_at = None;
        self
    }

    /// Sets whether the run is one of a workflow that is known to be a DAG.
    pub(super) fn of_dag(mut self, is_dag: bool) -> Self {
        self.set_dag(is_dag);
        self
    }

    pub(super) fn set_dag(&mut self, is_dag: bool) {
        self.is_dag = is_dag;
    }

    /// Whether the run is known to be a DAG run.
    pub(crate) fn is_dag(&self) -> bool {
        self.is_dag
    }

    /// The workflow's name, without the namespace, if it is known.
    pub(crate) fn workflow(&self) -> Option<&Arc<str>> {
        self.workflow.as_ref()
    }

    /// Returns the id. Another process can pass it to [`Client::run_handle`].
    pub fn id(&self) -> RunId {
        self.id
    }

    /// Returns a handle to the same run with another output type. Nothing is sent.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, id: hatchet::RunId) -> hatchet::Result<()> {
    /// let length: usize = hatchet.run_handle(id).typed::<usize>().result().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn typed<T>(self) -> RunHandle<T> {
        RunHandle {
            client: self.client,
            id: self.id,
            started_at: self.started_at,
            from_attempt: self.from_attempt,
            is_dag: self.is_dag,
            workflow: self.workflow,
            output: PhantomData,
        }
    }

    /// Returns the client that this handle uses.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The same run, starting at an attempt.
    pub(super) fn at_attempt(mut self, attempt: u32) -> Self {
        (self.started_at, self.from_attempt) = (None, attempt);
        self
    }

    /// The first attempt that counts: the end of an earlier attempt is not the end of the run.
    pub(crate) fn first_attempt(&self) -> u32 {
        self.from_attempt
    }

    /// Whether the end of any attempt is the end of the run.
    pub(crate) fn is_of_any_attempt(&self) -> bool {
        self.from_attempt <= 1
    }

    /// When this client started it, if it did.
    pub(crate) fn started_at(&self) -> Option<Instant> {
        self.started_at
    }

    /// Returns a builder for a request that fetches the current details of the run: its trigger (for an event, with the event's payload),
    /// its input, its output, its metadata, the reason for its cancellation, and its tasks with their attempts and times.
    ///
    /// Log lines are fetched [on request](DetailsBuilder::logs).
    ///
    /// The request is sent when the builder is awaited. The details are fetched over gRPC and REST at the same time. The REST API lags
    /// behind, so the request takes up to 10 seconds until both agree on whether the run has ended.
    ///
    /// ```no_run
    /// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
    /// let details = run.details().await?;
    /// println!("{} after {:?}", details.status, details.elapsed());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RunNotFound`](crate::ErrorKind::RunNotFound) if the engine has no such run. [`InvalidInput`](crate::ErrorKind::InvalidInput) if
    /// more than 1000 log lines are requested, or if the timeout is out of range.
    ///
    /// # Cancel safety
    /// The request is cancel safe: it only reads.
    pub fn details(&self) -> DetailsBuilder {
        DetailsBuilder::new(self.client.clone(), self.id, self.started_at).known_dag(self.is_dag)
    }

    /// Returns a stream of all log lines of the run's tasks: task by task, the oldest line of each task first.
    ///
    /// The engine truncates lines at 10,000 characters, and sets their timestamps when it receives them. Lines that are written during
    /// the iteration are included.
    ///
    /// ```no_run
    /// # async fn example(run: hatchet::RunHandle<()>) -> hatchet::Result<()> {
    /// let mut lines = run.logs();
    /// while let Some(line) = lines.next().await.transpose()? {
    ///     println!("{} {}", line.level, line.message);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn logs(&self) -> LogItems {
        LogItems::new(self.client.clone(), self.id)
    }
}

impl<O> Clone for RunHandle<O> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            id: self.id,
            started_at: self.started_at,
            from_attempt: self.from_attempt,
            is_dag: self.is_dag,
            workflow: self.workflow.clone(),
            output: PhantomData,
        }
    }
}

impl<O> fmt::Debug for RunHandle<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunHandle").field("id", &self.id).finish_non_exhaustive()
    }
}
