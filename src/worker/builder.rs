//! Setting up a worker, and starting it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;

use super::assignments::DEFAULT_SLOT_TYPE;
use super::outbox::{JournalWriter, Limits};
use super::registered;
use super::report::WorkerReport;
use super::running::RunningWorker;
use super::setup::{Labels, Worker};
use super::signals;
use crate::client::Client;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::model::LabelValue;
use crate::model::label::check_key;
use crate::model::name::{ACCEPTED, is_name};
use crate::runtime::{self, Needs};
use crate::time::MAX_DURATION;
use crate::workflow::{Definition, check_engine};

const MAX_SLOTS: u32 = 100_000;
const MAX_OUTBOX_REPORTS: usize = 1_000_000;
/// The limits of an outbox.
const DEFAULT_OUTBOX_LIMITS: Limits = Limits { reports: 10_000, bytes: 64 << 20 };

impl Client {
    /// Returns a builder for a worker with this name.
    ///
    /// ```no_run
    /// # async fn example(hatchet: hatchet::Client, greet: hatchet::Task<(), ()>) -> hatchet::Result<()> {
    /// let worker = hatchet.worker("greeter").slots(200).register(&greet).build()?;
    /// let report = worker.run_until_signal().await?;
    /// println!("{report}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn worker(&self, name: impl Into<String>) -> WorkerBuilder {
        WorkerBuilder {
            client: self.clone(),
            name: name.into(),
            slots: BTreeMap::from([(DEFAULT_SLOT_TYPE.to_owned(), 100)]),
            labels: BTreeMap::new(),
            outbox: DEFAULT_OUTBOX_LIMITS,
            journal: None,
            batch_reports: true,
            grace: Duration::from_secs(30),
            cancel_grace: Duration::from_secs(1),
            definitions: Vec::new(),
        }
    }
}

/// A builder for a worker: its slots, definitions, labels and limits; see [`Client::worker`].
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, greet: hatchet::Task<(), ()>) -> hatchet::Result<()> {
/// let worker = hatchet.worker("mailer").register(&greet).slots(20).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until the worker is built and started"]
pub struct WorkerBuilder {
    client: Client,
    name: String,
    /// By type.
    slots: BTreeMap<String, u32>,
    labels: Labels,
    outbox: Limits,
    journal: Option<PathBuf>,
    batch_reports: bool,
    grace: Duration,
    cancel_grace: Duration,
    definitions: Vec<Definition>,
}

impl WorkerBuilder {
    /// Sets the number of default slots, from 1 to 100,000.
    ///
    /// The default is 100. An attempt occupies one slot by default, and a batch occupies one slot; see [`Task::slots`](crate::Task::slots)
    /// and [`Task::slot_request`](crate::Task::slot_request).
    pub fn slots(self, slots: u32) -> Self {
        self.slot_type(DEFAULT_SLOT_TYPE, slots)
    }

    /// Sets the number of slots of another type, from 1 to 100,000.
    ///
    /// The engine assigns an attempt only to a worker that has enough free slots of every type that the task
    /// [requests](crate::Task::slot_request). The worker counts free slots, too: if the function of a cancelled attempt takes some time to
    /// end, the next attempt waits for its slots.
    ///
    /// ```no_run
    /// # fn example(hatchet: hatchet::Client, train: hatchet::Task<(), ()>) -> hatchet::Result<()> {
    /// let worker = hatchet.worker("trainer").slot_type("gpu", 4).register(&train).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn slot_type(mut self, name: impl Into<String>, slots: u32) -> Self {
        self.slots.insert(name.into(), slots);
        self
    }

    /// Sets the maximum number of results in the outbox, from 1 to 1,000,000.
    ///
    /// The default is 10,000. The outbox holds the results of attempts that the engine has not accepted yet. If the outbox is full, or its
    /// outputs and errors exceed 64 MiB, the worker starts no further attempts until the engine accepts results again. The engine does not
    /// know that the outbox is full: attempts that it assigns in the meantime wait in the worker, and time out if they wait for longer than
    /// the timeout of their task.
    pub fn outbox_capacity(mut self, reports: usize) -> Self {
        self.outbox.reports = reports;
        self
    }

    /// Stores the results of attempts in a file before they are reported.
    ///
    /// If the process is killed, the next worker with the same file reports them. The engine accepts such a result unless it has ended the
    /// attempt or assigned it to another worker in the meantime. By default there is no file, and the attempts run again. A shutdown does not
    /// wait for the results of an earlier process: those that the engine has not accepted stay in the file. The [`WorkerReport`] does not
    /// count them.
    ///
    /// The file is created if it does not exist; the files `<path>.lock` and `<path>.new` are created next to it. Two workers cannot use
    /// the same file at the same time; a second worker does not start. The file is not synced to disk after each write, so it survives a
    /// crash of the process, but not necessarily a crash of the machine. If the file can no longer be written, an error is logged, and
    /// results are sent without being stored. The file contains outputs and error messages in plain text.
    ///
    /// ```no_run
    /// # fn example(hatchet: hatchet::Client, charge: hatchet::Task<(), ()>) -> hatchet::Result<()> {
    /// let worker = hatchet.worker("payments").outbox_file("/var/lib/payments/outbox").register(&charge).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn outbox_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.journal = Some(path.into());
        self
    }

    /// Sets whether results that have accumulated are reported in one call.
    ///
    /// The default is `true`, which more than halves the CPU time of the worker per short task. A single result is sent immediately.
    ///
    /// The engine publishes no run events about tasks whose results are reported together, so other SDKs that subscribe to a run get none;
    /// they still get the run events about the run itself. The engine stores one timestamp for all results in a call, which is off by at
    /// most 100 ms. Engines before v0.88.0 do not support this; the worker detects such an engine, and reports results individually.
    pub fn batch_reports(mut self, batch_reports: bool) -> Self {
        self.batch_reports = batch_reports;
        self
    }

    /// Adds a label, which tasks and runs can require; see [`DesiredLabel`](crate::model::DesiredLabel). The key must not be empty, and must
    /// not contain U+0000. If a key is set twice, the last value is used.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<LabelValue>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Sets how long running attempts may continue when the worker shuts down.
    ///
    /// The default is 30 seconds, and the maximum is 10 years. If the worker cannot be paused, because the REST API cannot be reached, the
    /// grace period is at most 25 seconds.
    pub fn shutdown_grace_period(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets how long an attempt may continue after its cancellation before it is dropped.
    ///
    /// The default is 1 second, and the maximum is 10 years. A worker never runs two attempts of one task at the same time: the next
    /// attempt starts only after the cancelled one has ended or was dropped, and after the function of a [blocking](crate::Task::blocking)
    /// task has returned.
    pub fn cancel_grace_period(mut self, grace: Duration) -> Self {
        self.cancel_grace = grace;
        self
    }

    /// Registers a [`Task`](crate::Task) or a [`Workflow`](crate::Workflow). The engine stores its definition when the worker starts.
    pub fn register(mut self, what: impl Into<Definition>) -> Self {
        self.definitions.push(what.into());
        self
    }

    /// Checks the options and the registered tasks, and returns the worker. Nothing is sent yet.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) with all problems of the worker and its tasks.
    pub fn build(self) -> Result<Worker> {
        let mut problems: Vec<_> = self.definitions.iter().flat_map(Definition::problems).collect();
        if !is_name(&self.name) {
            problems.push(format!("name: expected {ACCEPTED}, got {:?}", self.name));
        }
        for (name, units) in &self.slots {
            if !(1..=MAX_SLOTS).contains(units) {
                problems.push(format!("slots of type {name:?}: expected 1 to {MAX_SLOTS}, got {units}"));
            }
            if name.is_empty() || name.contains('\0') {
                problems.push(format!("slots: expected a non-empty type without U+0000, got {name:?}"));
            }
        }
        if !(1..=MAX_OUTBOX_REPORTS).contains(&self.outbox.reports) {
            problems.push(format!("outbox capacity: expected 1 to {MAX_OUTBOX_REPORTS}, got {}", self.outbox.reports));
        }
        for (field, length) in [("shutdown grace period", self.grace), ("cancel grace period", self.cancel_grace)] {
            if length > MAX_DURATION {
                problems.push(format!("{field}: expected at most 10 years, got {length:?}"));
            }
        }
        problems.extend(self.definitions.iter().flat_map(|definition| definition.slot_problems(&self.slots)));
        problems.extend(self.labels.keys().filter_map(|key| check_key(key).err()).map(|error| error.to_string()));
        if self.definitions.is_empty() {
            problems.push("expected at least one task, got none".into());
        }
        let (mut actions, mut workflows) = (HashMap::new(), Vec::new());
        let mut names = HashSet::new();
        for definition in &self.definitions {
            if !names.insert(definition.name.to_lowercase()) {
                problems.push(format!(
                    "expected workflow names that are unique regardless of case, got a second workflow named {:?}",
                    definition.name
                ));
            }
            let (workflow, tasks) = registered::tasks(&self.client, definition, &self.slots);
            workflows.push(workflow);
            actions.extend(tasks);
        }
        if problems.is_empty() {
            return Ok(Worker {
                client: self.client,
                name: self.name,
                slots: self.slots,
                labels: Arc::new(Mutex::new(self.labels)),
                outbox: self.outbox,
                journal: self.journal,
                batch_reports: self.batch_reports,
                grace: self.grace,
                cancel_grace: self.cancel_grace,
                actions: Arc::new(actions),
                workflows,
            });
        }
        Err(Error::invalid("worker", problems.join("; ")))
    }
}

impl Worker {
    /// Stores the definitions, registers the worker, and starts it. Returns when the engine has accepted the worker's first heartbeat.
    ///
    /// # Errors
    /// [`Unauthenticated`](ErrorKind::Unauthenticated), [`Unavailable`](ErrorKind::Unavailable) or [`Rejected`](ErrorKind::Rejected) if the
    /// worker could not be registered. [`AlreadyExists`](ErrorKind::AlreadyExists) if the engine has a workflow whose name differs only in
    /// case: the engine would assign the tasks of each workflow to the workers of both. [`Unimplemented`](ErrorKind::Unimplemented) if a
    /// definition has an option for which the engine is too old, with the version that it needs. [`NotFound`](ErrorKind::NotFound) if a
    /// task uses a rate limit that does not exist. [`Config`](ErrorKind::Config) if the file of the [outbox](WorkerBuilder::outbox_file)
    /// cannot be used, or if there is no Tokio runtime with timers. [`Timeout`](ErrorKind::Timeout) if no heartbeat is accepted within 30
    /// seconds.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the definitions and the worker may have been
    /// stored. The worker is stopped.
    pub fn start(self) -> impl Future<Output = Result<RunningWorker>> + Send {
        // Boxed, because it is short-lived and would add its size to the caller's future.
        Box::pin(async move {
            runtime::require("a worker", Needs::Timers)?;
            let journal = match self.journal.clone() {
                Some(path) => {
                    let tenant = self.client.config().tenant_id();
                    Some(JournalWriter::open(&path, &tenant.to_string(), &self.client.clock()).await?)
                }
                None => None,
            };
            let definitions: Vec<_> = self.workflows.iter().map(|workflow| workflow.definition()).collect();
            check_engine(&self.client, &definitions).await?;
            registered::check_names(&self.client, &self.workflows).await?;
            for workflow in &self.workflows {
                workflow.put(&self.client).await?;
            }
            let id = self.registration().await?;
            RunningWorker::start(self, id, journal).await
        })
    }

    /// Starts the worker, runs it until `stop` resolves, and then shuts it down gracefully.
    ///
    /// To watch the status of the worker or to serve its health, call [`start`](Self::start) and then [`RunningWorker::run_until`]. During
    /// the shutdown, the worker accepts no new attempts and waits for running attempts until the grace period is over. The method then
    /// returns a report. If `stop` resolves before the worker has started, the start is cancelled, and the report is empty.
    ///
    /// To shut the worker down on SIGINT or SIGTERM, use [`run_until_signal`](Self::run_until_signal). To stop the worker immediately, drop
    /// the future.
    ///
    /// ```no_run
    /// # async fn example(worker: hatchet::Worker, drain: tokio::sync::oneshot::Receiver<()>) -> hatchet::Result<()> {
    /// println!("{}", worker.run_until(drain).await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`start`](Self::start). [`Unauthenticated`](ErrorKind::Unauthenticated) if the token is revoked,
    /// [`Unimplemented`](ErrorKind::Unimplemented) if the engine no longer supports a call, and [`Closed`](ErrorKind::Closed) if the
    /// client is closed. In these cases the worker shuts down and logs its report. [`Closed`](ErrorKind::Closed) with the panic message if
    /// this crate's own background code panicked.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the worker is stopped immediately, and running
    /// attempts are dropped.
    pub async fn run_until(self, stop: impl Future) -> Result<WorkerReport> {
        let mut stop = pin!(stop);
        let running = tokio::select! {
            biased;
            // It may take a minute to start, if the server cannot be reached.
            _ = &mut stop => return Ok(WorkerReport::default()),
            running = self.start() => running?,
        };
        running.run_until(stop).await
    }

    /// Starts the worker, and runs it until the process receives SIGINT or SIGTERM (on Windows, Ctrl-C or another request to close).
    ///
    /// The first signal shuts the worker down gracefully. The second signal stops it immediately; see [`RunningWorker::run_until_signal`].
    /// If a signal arrives before the worker has started, the start is cancelled, and the report is empty.
    ///
    /// ```no_run
    /// # async fn example(worker: hatchet::Worker) -> hatchet::Result<()> {
    /// println!("{}", worker.run_until_signal().await?); // attempts: 12 completed, 1 failed, 0 cancelled, 2 unfinished
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`run_until`](Self::run_until), and [`Config`](ErrorKind::Config) if the signals cannot be received.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped after its first poll, the worker is stopped immediately, and running
    /// attempts are dropped.
    pub async fn run_until_signal(self) -> Result<WorkerReport> {
        let mut signals = signals::listen()?;
        let running = tokio::select! {
            biased;
            Some(()) = signals.next() => return Ok(WorkerReport::default()),
            running = self.start() => running?,
        };
        running.run_until_signals(signals).await
    }
}
