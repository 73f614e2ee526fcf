//! A run that someone holds on to.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::gather::{Look, known};
use super::logs;
use crate::client::Client;
use crate::error::Result;
use crate::model::convert::rest;
use crate::model::{RunDetails, RunId, RunReport, TaskId, Trigger};
use crate::rpc::trigger_types::Event;

/// How long the history of events is waited for between looks.
const EVENT_LOOKS: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(400)];

/// A run, and the type of what it ends with. Cheap to clone; dropping it does nothing to the run.
///
/// A run of a [`Task`](crate::Task) ends with what the task returned. A run of a [`Workflow`](crate::Workflow) ends with an object
/// of what its tasks returned, by their names, also if it has only one. The server does not tell the two apart: a workflow of one
/// task that has the workflow's own name counts as a task.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, greet: hatchet::Task<(), String>) -> hatchet::Result<()> {
/// let run = hatchet.run(&greet, &()).start().await?;
/// let text = run.result().await?; // the output, or an error
/// let outcome = run.outcome().await?; // how it ended, whatever that was
/// let details = run.details().await?; // all that is known
///
/// // Later, elsewhere, by its id alone:
/// let same = hatchet.run_handle::<String>(run.id());
/// # Ok(())
/// # }
/// ```
pub struct RunHandle<O = serde_json::Value> {
    client: Client,
    id: RunId,
    /// When this client started it, if it did: then it cannot have ended long before.
    started_at: Option<Instant>,
    /// The attempt that it is about: an earlier one's end is not its end.
    from_attempt: u32,
    /// Its workflow's name, without the namespace, if this client started it.
    workflow: Option<Arc<str>>,
    output: PhantomData<fn() -> O>,
}

impl Client {
    /// A handle on a run that exists already. No round trip: whether it does, shows when it is asked for something. The type is
    /// that of what it ends with; if that does not matter, `run_handle::<serde_json::Value>(id)`.
    pub fn run_handle<O>(&self, id: RunId) -> RunHandle<O> {
        RunHandle { client: self.clone(), id, started_at: None, from_attempt: 1, workflow: None, output: PhantomData }
    }
}

impl RunReport {
    /// A handle on the run, to wait for what was begun: of one that is under way again, for the end of the new attempt.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, ids: Vec<hatchet::RunId>) -> hatchet::Result<()> {
    /// for report in hatchet.replay_runs(ids).send().await? {
    ///     println!("{}", report.handle(&hatchet).outcome().await?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn handle(&self, client: &Client) -> RunHandle {
        let run = client.run_handle(self.run);
        match self.attempt.filter(|_| self.is_done()) {
            Some(attempt) => run.at_attempt(attempt),
            None => run,
        }
    }
}

impl<O> RunHandle<O> {
    pub(super) fn started(client: Client, workflow: Arc<str>, id: RunId) -> Self {
        Self {
            client,
            id,
            started_at: Some(Instant::now()),
            from_attempt: 1,
            workflow: Some(workflow),
            output: PhantomData,
        }
    }

    /// Its workflow's name, without the namespace, if that is known.
    pub(crate) fn workflow(&self) -> Option<&Arc<str>> {
        self.workflow.as_ref()
    }

    /// The run's id.
    pub fn id(&self) -> RunId {
        self.id
    }

    /// The same run, with another type of what it ends with: for a handle that came without one, as from an event.
    pub fn typed<T>(self) -> RunHandle<T> {
        RunHandle {
            client: self.client,
            id: self.id,
            started_at: self.started_at,
            from_attempt: self.from_attempt,
            workflow: self.workflow,
            output: PhantomData,
        }
    }

    /// The client that it is asked through.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The same run, from an attempt on.
    pub(super) fn at_attempt(mut self, attempt: u32) -> Self {
        (self.started_at, self.from_attempt) = (None, attempt);
        self
    }

    /// The attempt that it is about: an earlier one's end is not its end.
    pub(crate) fn first_attempt(&self) -> u32 {
        self.from_attempt
    }

    /// Whether the end of whichever attempt comes first is the end.
    pub(crate) fn is_of_any_attempt(&self) -> bool {
        self.from_attempt <= 1
    }

    /// The ids of its tasks.
    pub(crate) async fn tasks(&self) -> Result<Vec<TaskId>> {
        let details = Look::at(self.id).fetch(&self.client).await?;
        Ok(details.tasks.iter().map(|task| task.id).collect())
    }

    /// When this client started it, if it did.
    pub(crate) fn started_at(&self) -> Option<Instant> {
        self.started_at
    }

    /// All that is known about the run now: what started it (of an event also what that carried), input, output, tasks with their attempts and times, metadata,
    /// log lines, why it was cancelled.
    ///
    /// Gathered from gRPC and REST at the same time. REST is a little behind; it is waited for, up to ten seconds, until
    /// both agree on whether the run has ended.
    ///
    /// # Errors
    /// [`RunNotFound`](crate::ErrorKind::RunNotFound) if the engine has no such run.
    ///
    /// # Cancel safety
    /// Dropping the future is safe.
    pub async fn details(&self) -> Result<RunDetails> {
        let mut details = Look::at(self.id).started_at(self.started_at).with_log().fetch(&self.client).await?;
        // Boxed, because it is the smaller part and large.
        let event = Box::pin(event_of(&self.client, &details.trigger));
        let (event, trigger) = (event.await?, &mut details.trigger);
        if let (Some(event), Trigger::Event(trigger)) = (event, trigger) {
            trigger.payload = Some(rest::input(event.payload.as_deref()));
            trigger.scope = event.scope;
        }
        Box::pin(logs::add(&self.client, &mut details)).await?;
        Ok(details)
    }
}

/// The event that started a run, if one did and the server's history has it. It gets there a moment after the run.
async fn event_of(client: &Client, trigger: &Trigger) -> Result<Option<Event>> {
    let Trigger::Event(trigger) = trigger else { return Ok(None) };
    let id = trigger.id.to_string();
    for pause in EVENT_LOOKS {
        if let Some(event) = known(client.rpc().rest.event(&id).await)? {
            return Ok(Some(event));
        }
        sleep(pause).await;
    }
    known(client.rpc().rest.event(&id).await)
}

impl<O> Clone for RunHandle<O> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            id: self.id,
            started_at: self.started_at,
            from_attempt: self.from_attempt,
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
