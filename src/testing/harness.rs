//! An embedded engine with a worker.

use crate::client::Client;
use crate::embedded::{Engine, EngineBuilder, Quirks};
use crate::error::Result;
use crate::model::RateLimitWindow;
use crate::run::{RunBuilder, RunManyBuilder, Runnable};
use crate::worker::{RunningWorker, WorkerBuilder, WorkerReport};
use crate::workflow::Definition;

/// An embedded engine, and a worker with the definitions under test.
///
/// Dropping it stops both.
///
/// ```
/// # use hatchet::{Context, Task};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hatchet::Result<()> {
/// use hatchet::embedded::Fault;
/// use hatchet::testing::Harness;
///
/// let greet: Task<(), String> = Task::new("greet", async |(): (), _: Context| Ok("hello".to_owned()));
/// let harness = Harness::start(&greet).await?;
///
/// // The run completes although the engine loses a response.
/// harness.engine().faults().inject("SendStepActionEvent", Fault::LoseResponse)?;
/// let run = harness.run(&greet, &()).start().await?;
/// assert_eq!(run.result().await?, "hello");
/// assert_eq!(run.details().await?.tasks[0].attempts.len(), 1);
/// assert_eq!(harness.shutdown().await.completed, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it stops the engine and the worker"]
pub struct Harness {
    // Dropped before the engine.
    worker: RunningWorker,
    engine: Engine,
    client: Client,
}

impl Harness {
    /// Starts an engine without quirks, and a worker with one definition.
    ///
    /// # Errors
    /// The errors of [`HarnessBuilder::start`].
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped, the engine and the worker are stopped.
    pub async fn start(definition: impl Into<Definition>) -> Result<Self> {
        Self::builder().register(definition).start().await
    }

    /// Returns a builder for a harness with several definitions, with quirks, or with another number of slots.
    pub fn builder() -> HarnessBuilder {
        HarnessBuilder { engine: Engine::builder(), definitions: Vec::new(), slots: 100, rate_limits: Vec::new() }
    }

    /// Returns the engine, for fault injection and for its clock.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Returns the client of the engine, for events, schedules, queries and everything else.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the worker that executes the registered tasks, for example to pause it.
    pub fn worker(&self) -> &RunningWorker {
        &self.worker
    }

    /// Returns a builder for a run; see [`Client::run`].
    pub fn run<R: Runnable>(&self, workflow: &R, input: &R::Input) -> RunBuilder<R::Output> {
        self.client.run(workflow, input)
    }

    /// Returns a builder for many runs; see [`Client::run_many`].
    pub fn run_many<'a, R: Runnable<Input: 'a>>(
        &self,
        workflow: &R,
        inputs: impl IntoIterator<Item = R::Input, IntoIter: Send + 'a>,
    ) -> RunManyBuilder<'a, R::Output> {
        self.client.run_many(workflow, inputs)
    }

    /// Shuts the worker down gracefully, stops the engine, and returns the report of the worker.
    ///
    /// The shutdown takes at least 1.75 seconds of real time, unless the clock is paused.
    ///
    /// # Panics
    /// Panics if the background code of the worker or the engine has panicked.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped, the worker and the engine are stopped immediately, and running attempts are
    /// dropped.
    pub async fn shutdown(self) -> WorkerReport {
        let report = self.worker.shutdown().await;
        self.engine.shutdown().await;
        report
    }
}

/// A builder for a [`Harness`] with several definitions, defects or limits; see [`Harness::builder`].
///
/// ```
/// # use hatchet::{Context, Task};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hatchet::Result<()> {
/// use hatchet::embedded::Quirks;
/// use hatchet::testing::Harness;
///
/// # let parent: Task<(), ()> = Task::new("parent", async |(): (), _: Context| Ok(()));
/// # let child: Task<(), ()> = Task::new("child", async |(): (), _: Context| Ok(()));
/// let harness = Harness::builder().register(&parent).register(&child).quirks(Quirks::all()).slots(2).start().await?;
/// # drop(harness);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing happens until `start` is awaited"]
pub struct HarnessBuilder {
    engine: EngineBuilder,
    definitions: Vec<Definition>,
    slots: u32,
    rate_limits: Vec<(String, u32, RateLimitWindow)>,
}

impl HarnessBuilder {
    /// Registers a task or a workflow with the worker.
    pub fn register(mut self, definition: impl Into<Definition>) -> Self {
        self.definitions.push(definition.into());
        self
    }

    /// Sets the number of slots of the worker. The default is 100.
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// Enables defects of the real engine.
    ///
    /// By default, none is enabled. This replaces the quirks of an [`engine`](Self::engine) that was set before.
    pub fn quirks(mut self, quirks: impl Into<Quirks>) -> Self {
        self.engine = self.engine.quirks(quirks);
        self
    }

    /// Replaces the engine, for example with one whose clock starts at another time.
    ///
    /// Quirks that were set before with [`quirks`](Self::quirks) are discarded.
    pub fn engine(mut self, engine: EngineBuilder) -> Self {
        self.engine = engine;
        self
    }

    /// Creates a rate limit before the worker starts: the engine rejects a task with a static limit that does not exist.
    ///
    /// See [`Client::rate_limit`].
    pub fn rate_limit(mut self, key: impl Into<String>, limit: u32, window: RateLimitWindow) -> Self {
        self.rate_limits.push((key.into(), limit, window));
        self
    }

    /// Starts the engine and the worker.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if a definition or a rate limit is invalid (the error lists all problems of the
    /// definitions), and the errors of [`EngineBuilder::start`] and [`Worker::start`](crate::Worker::start).
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped, the engine and the worker are stopped.
    pub async fn start(self) -> Result<Harness> {
        let engine = self.engine.start().await?;
        let client = engine.client();
        for (key, limit, window) in self.rate_limits {
            client.rate_limit(key, limit, window).send().await?;
        }
        let worker = client.worker("testing").slots(self.slots);
        let worker = self.definitions.into_iter().fold(worker, WorkerBuilder::register);
        let worker = worker.build()?.start().await?;
        Ok(Harness { worker, engine, client })
    }
}
