//! Setting up a worker.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::driver::RunningWorker;
use super::registered::{self, Actions, RegisteredWorkflow};
use super::report::WorkerReport;
use crate::client::Client;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::model::label::check_key;
use crate::model::name::{ACCEPTED, is_name};
use crate::model::{LabelValue, WorkerId, convert};
use crate::rpc::grpc_types::NewWorker;
use crate::time::LONGEST;
use crate::workflow::Definition;

const MOST_SLOTS: u32 = 100_000;

impl Client {
    /// Prepares a worker.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, greet: hatchet::Task<(), ()>) -> hatchet::Result<()> {
    /// let worker = hatchet.worker("greeter").slots(200).register(&greet).build()?;
    /// let report = worker.run_until(async { /* a signal */ }).await?;
    /// println!("{report}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn worker(&self, name: impl Into<String>) -> WorkerBuilder {
        WorkerBuilder {
            client: self.clone(),
            name: name.into(),
            slots: 100,
            labels: BTreeMap::new(),
            grace: Duration::from_secs(30),
            cancel_grace: Duration::from_secs(1),
            definitions: Vec::new(),
        }
    }
}

/// A worker that is being set up.
#[derive(Debug, Clone)]
#[must_use = "nothing happens before `build`"]
pub struct WorkerBuilder {
    client: Client,
    name: String,
    slots: u32,
    labels: BTreeMap<String, LabelValue>,
    grace: Duration,
    cancel_grace: Duration,
    definitions: Vec<Definition>,
}

impl WorkerBuilder {
    /// How many attempts it runs at the same time, 1 to 100 000; 100 by default.
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// Says something about it that tasks and runs can ask for; see [`DesiredLabel`](crate::DesiredLabel).
    pub fn label(mut self, key: impl Into<String>, value: impl Into<LabelValue>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// How long running attempts may go on when the worker is told to stop; 30 seconds by default, ten years at most.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How long an attempt may go on after it was told that it is cancelled; 1 second by default, ten years at most. Then it is
    /// dropped. The next attempt at its task, if there is one, does not begin before: a task is never at work twice on one
    /// worker.
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.cancel_grace = grace;
        self
    }

    /// Adds a [`Task`](crate::Task) or a [`Workflow`](crate::Workflow) to what it can do. Its definition is stored on the
    /// server when the worker starts.
    pub fn register(mut self, what: impl Into<Definition>) -> Self {
        self.definitions.push(what.into());
        self
    }

    /// Checks everything, and makes the worker. Nothing is sent yet.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) with all that is wrong with the worker and its tasks.
    pub fn build(self) -> Result<Worker> {
        let mut problems: Vec<_> = self.definitions.iter().flat_map(Definition::problems).collect();
        if !is_name(&self.name) {
            problems.push(format!("name: found {:?}, accepted: {ACCEPTED}", self.name));
        }
        if !(1..=MOST_SLOTS).contains(&self.slots) {
            problems.push(format!("slots: found {}, accepted: 1 to {MOST_SLOTS}", self.slots));
        }
        for (field, length) in [("grace", self.grace), ("cancel grace", self.cancel_grace)] {
            if length > LONGEST {
                problems.push(format!("{field}: found {length:?}, accepted: at most ten years"));
            }
        }
        problems.extend(self.labels.keys().filter_map(|key| check_key(key).err()).map(|error| error.to_string()));
        if self.definitions.is_empty() {
            problems.push("it has no tasks: register at least one".into());
        }
        let (mut actions, mut workflows) = (HashMap::new(), Vec::new());
        let mut names = HashSet::new();
        for definition in &self.definitions {
            if !names.insert(definition.name.to_lowercase()) {
                problems.push(format!(
                    "workflow {:?} is registered twice, or under a name that differs only in its case",
                    definition.name
                ));
            }
            let (workflow, tasks) = registered::tasks(&self.client, definition);
            workflows.push(workflow);
            actions.extend(tasks);
        }
        if problems.is_empty() {
            return Ok(Worker {
                client: self.client,
                name: self.name,
                slots: self.slots,
                labels: self.labels,
                grace: self.grace,
                cancel_grace: self.cancel_grace,
                actions: Arc::new(actions),
                workflows,
            });
        }
        Err(Error::invalid("worker", problems.join("; ")))
    }
}

/// A worker, ready to start.
#[derive(Debug)]
#[must_use = "nothing happens before `start` or `run_until`"]
pub struct Worker {
    pub(super) client: Client,
    name: String,
    slots: u32,
    labels: BTreeMap<String, LabelValue>,
    pub(super) grace: Duration,
    pub(super) cancel_grace: Duration,
    pub(super) actions: Actions,
    /// In the order in which they were registered.
    workflows: Vec<Arc<RegisteredWorkflow>>,
}

impl Worker {
    /// Stores the definitions, registers, and begins to work. Returns when the engine knows it to be there.
    ///
    /// # Errors
    /// Whatever kept it from being known: [`Unauthenticated`](ErrorKind::Unauthenticated),
    /// [`Unavailable`](ErrorKind::Unavailable), [`Rejected`](ErrorKind::Rejected).
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) if the server has a workflow whose name differs only in case: the engine
    /// would give each worker the other's tasks.
    ///
    /// # Cancel safety
    /// Dropping the future stops the worker.
    pub async fn start(self) -> Result<RunningWorker> {
        // Boxed, because it is over soon, and whoever awaits this would carry its size along.
        let id = Box::pin(async {
            registered::check_names(&self.client, &self.workflows).await?;
            for workflow in &self.workflows {
                workflow.put(&self.client).await?;
            }
            self.registration().await
        });
        let id = id.await?;
        RunningWorker::start(self, id).await
    }

    /// Works until `stop` resolves, then drains: takes nothing new, lets what runs end within the grace, and tells what
    /// became of everything.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Cancel safety
    /// Dropping the future stops the worker without draining: what runs is dropped.
    pub async fn run_until(self, stop: impl Future) -> Result<WorkerReport> {
        let running = self.start().await?;
        stop.await;
        Ok(running.shutdown().await)
    }

    pub(super) fn slots(&self) -> usize {
        self.slots as usize
    }

    /// Makes the engine know the worker, under a new id each time.
    pub(super) fn registration(&self) -> impl Future<Output = Result<WorkerId>> + Send + use<> {
        let worker = NewWorker {
            name: self.name.clone(),
            actions: self.actions.keys().cloned().collect(),
            slots: BTreeMap::from([("default".to_owned(), i32::try_from(self.slots).unwrap_or(i32::MAX))]),
            labels: self.labels.iter().map(|(key, value)| (key.clone(), value.0.clone())).collect(),
        };
        let rpc = self.client.rpc().clone();
        async move { convert::id(&rpc.dispatcher.register(worker).await?) }
    }
}
