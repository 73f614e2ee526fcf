//! Calls the function of a task without a worker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::embedded::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::model::payload::encode_input;
use crate::model::{ChunkContent, LabelValue, LogLevel, Payload, Priority, RunId, WorkerId};
use crate::rpc::convert::Action;
use crate::telemetry;
use crate::time::at;
use crate::worker::WorkerBuilder;
use crate::workflow::{
    AttemptContext, CancelCause, Context, Definition, FullSlots, Stop, Task, TaskContent, TaskMessage, TaskName,
    TaskOutput, TaskResult, in_context,
};

/// The workflow of the run that the children of the called function belong to.
const PARENT: &str = "hatchet-testing-call";

/// Returns a builder for a call of the function of a task without a worker; [`Call::run`] makes the call.
///
/// If the `tracing` subscriber has a `TaskLogLayer` (feature `tracing-subscriber`), the record also contains what the function logs with
/// `tracing`.
///
/// ```
/// # use hatchet::{Context, Task};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hatchet::Result<()> {
/// use hatchet::testing::call;
///
/// let ship: Task<(), String> = Task::new("ship", async |(): (), context: Context| {
///     context.log("shipping");
///     Ok(format!("from shelf {}", context.parent_output::<u32>("reserve")?))
/// });
///
/// let record = call(&ship, &()).parent("reserve", &7).run().await?;
/// assert_eq!(record.result.unwrap(), "from shelf 7");
/// assert_eq!(record.log[0].message, "shipping");
/// # Ok(())
/// # }
/// ```
pub fn call<I: Serialize, O: DeserializeOwned>(task: &Task<I, O>, input: &I) -> Call<O>
where
    for<'a> Definition: From<&'a Task<I, O>>,
{
    Call {
        definition: Definition::from(task),
        input: encode_input("input", input),
        attempt: 1,
        parents: Ok(Map::new()),
        data: Ok(Map::new()),
        errors: BTreeMap::new(),
        metadata: Map::new(),
        priority: Priority::default(),
        cancel_cause: None,
        cancel_after: None,
        worker_labels: BTreeMap::new(),
        helpers: Vec::new(),
        output: std::marker::PhantomData,
    }
}

/// A builder for a call of the function of a task; see [`call`].
///
/// ```
/// # use hatchet::{Context, Task};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hatchet::Result<()> {
/// use hatchet::testing::call;
///
/// let retry: Task<(), u32> = Task::new("retry", async |(): (), context: Context| Ok(context.attempt()));
/// assert_eq!(call(&retry, &()).attempt(3).run().await?.result.unwrap(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is called until `run` is awaited"]
pub struct Call<O> {
    definition: Definition,
    input: Result<String>,
    attempt: u32,
    parents: Result<Map<String, Value>>,
    data: Result<Map<String, Value>>,
    errors: BTreeMap<String, String>,
    metadata: Map<String, Value>,
    priority: Priority,
    cancel_cause: Option<CancelCause>,
    cancel_after: Option<Duration>,
    worker_labels: BTreeMap<String, LabelValue>,
    /// The tasks and workflows that the task can start as children.
    helpers: Vec<Definition>,
    output: std::marker::PhantomData<fn() -> O>,
}

/// What the function of a task did; see [`call`].
///
/// ```
/// # use hatchet::{Context, Task};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hatchet::Result<()> {
/// use hatchet::testing::{CallRecord, call};
///
/// let task: Task<(), ()> = Task::new("task", async |(): (), context: Context| Ok(context.put("a").await?));
/// let record: CallRecord<()> = call(&task, &()).run().await?;
/// assert!(record.result.is_ok());
/// assert_eq!(record.chunks[0].content.text(), Some("a"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CallRecord<O> {
    /// What the function returned.
    pub result: TaskResult<O>,
    /// The lines that the function logged, oldest first.
    pub log: Vec<LoggedLine>,
    /// The chunks that the function sent, oldest first.
    pub chunks: Vec<SentChunk>,
    /// The child runs that the function started, oldest first.
    pub children: Vec<StartedRun>,
}

/// A message that the function of a task wrote to its log.
///
/// ```
/// # use hatchet::{Context, Task};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hatchet::Result<()> {
/// use hatchet::model::LogLevel;
/// use hatchet::testing::call;
///
/// let task: Task<(), ()> = Task::new("task", async |(): (), context: Context| {
///     context.log("a");
///     Ok(())
/// });
/// assert_eq!(call(&task, &()).run().await?.log[0].level, LogLevel::Info);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LoggedLine {
    /// The severity.
    pub level: LogLevel,
    /// The message, without its level and its metadata.
    pub message: String,
    /// The metadata, an object. `None` if the line has none.
    pub metadata: Option<Value>,
}

/// A chunk that the function of a task has sent.
///
/// ```
/// # use hatchet::{Context, Task};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hatchet::Result<()> {
/// use hatchet::testing::call;
///
/// let task: Task<(), ()> = Task::new("task", async |(): (), context: Context| Ok(context.put("a").await?));
/// assert_eq!(call(&task, &()).run().await?.chunks[0].index, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SentChunk {
    /// The number of the chunk, starting at 0.
    pub index: i64,
    /// The text or the bytes.
    pub content: ChunkContent,
}

/// A child run that a task has started.
///
/// ```
/// # use hatchet::{Context, Task};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hatchet::Result<()> {
/// use hatchet::testing::call;
///
/// let child: Task<(), u32> = Task::new("child", async |(): (), _: Context| Ok(7));
/// let parent = Task::with_state("parent", child.clone(), async |child: Task<(), u32>, (): (), context: Context| {
///     Ok(context.run(&child, &()).result().await?)
/// });
/// let record = call(&parent, &()).register(&child).run().await?;
/// assert_eq!((record.result.unwrap(), record.children[0].workflow_name.as_str()), (7, "child"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StartedRun {
    /// The id of the child run. The run no longer exists, because the engine of the call has been stopped.
    pub run_id: RunId,
    /// The workflow, without the namespace.
    pub workflow_name: String,
    /// The input that the task passed.
    pub input: Payload,
}

impl<O> Call<O> {
    /// Sets the number of the attempt. The default is 1.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// Adds the output of a parent.
    ///
    /// The function can read every output that is added, even that of a task that is not its parent in the workflow, because a call does
    /// not know the workflow. On a worker, reading such an output returns [`NotFound`](ErrorKind::NotFound).
    pub fn parent(mut self, task: impl TaskName, output: &impl Serialize) -> Self {
        let name = task.task_name().to_owned();
        insert(&mut self.parents, name, output);
        self
    }

    /// Adds a parent without an output: [`Context::was_skipped`] returns `true` for it.
    pub fn skipped_parent(self, task: impl TaskName) -> Self {
        self.parent(task, &json!({"skipped": true}))
    }

    /// Adds the data of a condition, such as the payload of an event; see [`Condition`](crate::workflow::Condition).
    pub fn condition_data(mut self, name: impl Into<String>, data: &impl Serialize) -> Self {
        insert(&mut self.data, name.into(), data);
        self
    }

    /// Adds the error of a task that has failed, for an on-failure task.
    pub fn error(mut self, task: impl TaskName, message: impl Into<String>) -> Self {
        self.errors.insert(task.task_name().to_owned(), message.into());
        self
    }

    /// Adds a tag to the metadata of the run.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), Value::String(value.into()));
        self
    }

    /// Sets the payload of the event filter that started the run; see [`Context::filter_payload`].
    pub fn filter_payload(self, payload: &impl Serialize) -> Self {
        self.condition_data("filter_payload", payload)
    }

    /// Makes an event with this key the trigger of the run; see [`Context::trigger`]. The id of the event is random.
    pub fn event(mut self, key: impl Into<String>) -> Self {
        self.metadata.insert("hatchet__event_id".into(), Uuid::new_v4().to_string().into());
        self.metadata.insert("hatchet__event_key".into(), Value::String(key.into()));
        self
    }

    /// Sets the priority of the run; see [`Context::priority`]. The default is [`Low`](Priority::Low).
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Marks the attempt as cancelled by the engine before the function starts.
    pub fn cancelled(self) -> Self {
        self.cancelled_because(CancelCause::Engine)
    }

    /// Marks the attempt as cancelled before the function starts. [`Context::cancel_cause`] returns `cause`.
    pub fn cancelled_because(mut self, cause: CancelCause) -> Self {
        self.cancel_cause = Some(cause);
        self
    }

    /// Marks the attempt as cancelled by the engine when the function has run for this time.
    ///
    /// ```
    /// # use hatchet::{Context, Task};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> hatchet::Result<()> {
    /// use std::time::Duration;
    /// use hatchet::testing::call;
    ///
    /// let poll: Task<(), u32> = Task::new("poll", async |(): (), context: Context| {
    ///     let mut polls = 0;
    ///     while !context.is_cancelled() {
    ///         tokio::time::sleep(Duration::from_millis(10)).await;
    ///         polls += 1;
    ///     }
    ///     Ok(polls)
    /// });
    /// let record = call(&poll, &()).cancelled_after(Duration::from_millis(30)).run().await?;
    /// assert!(record.result.unwrap() > 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancelled_after(mut self, time: Duration) -> Self {
        self.cancel_after = Some(time);
        self
    }

    /// Adds a label to those of the worker; see [`Context::worker_labels`].
    pub fn worker_label(mut self, key: impl Into<String>, value: impl Into<LabelValue>) -> Self {
        self.worker_labels.insert(key.into(), value.into());
        self
    }

    /// Registers a task or a workflow, so that the function can start runs of it and wait for them; other definitions are unknown to the
    /// engine.
    ///
    /// A worker executes these runs. The shutdown of this worker takes at least 1.75 seconds of real time, unless the clock is paused.
    pub fn register(mut self, definition: impl Into<Definition>) -> Self {
        self.helpers.push(definition.into());
        self
    }
}

impl<O: DeserializeOwned> Call<O> {
    /// Calls the task function.
    ///
    /// Each call starts an embedded engine, which needs a Tokio runtime with timers, and stops it at the end.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the input, the outputs of the parents or a registered definition are invalid.
    /// [`Decode`](ErrorKind::Decode) if the output of the function cannot be deserialized as `O`.
    ///
    /// # Panics
    /// Panics if the task function panics.
    ///
    /// # Cancel safety
    /// This method is not cancel safe: if the future is dropped, the task function is dropped at its current await, and the record is lost.
    pub async fn run(self) -> Result<CallRecord<O>> {
        let engine = Engine::start().await?;
        let client = engine.client();
        let worker = if self.helpers.is_empty() {
            None
        } else {
            let worker = self.helpers.into_iter().fold(client.worker("helpers"), WorkerBuilder::register);
            Some(worker.build()?.start().await?)
        };
        // Children need a parent that exists.
        let Some(task) = self.definition.all_tasks().next().map(Arc::clone) else {
            return Err(Error::invalid("definition", "expected a task, got none"));
        };
        // A run of the definition itself might have to wait for a condition or a limit.
        let parent = Task::<Value, Value>::new(PARENT, async |input: Value, _: Context| Ok(input));
        client.rpc().admin.put_workflow(Definition::from(&parent).to_engine(&client)).await?;
        let input = self.input?;
        let value = serde_json::from_str(&input)
            .map_err(|error| Error::new(ErrorKind::InvalidInput, "failed to parse the input").with_source(error))?;
        let run = client.run(&parent, &value).start().await?;
        let errors = (!self.errors.is_empty()).then(|| ("step_run_errors".to_owned(), json!(self.errors)));
        let payload = [
            ("input".to_owned(), value),
            ("parents".to_owned(), json!(self.parents?)),
            ("triggers".to_owned(), json!(self.data?)),
            ("triggered_by".to_owned(), json!("manual")),
        ];
        let payload = Value::Object(payload.into_iter().chain(errors).collect());
        let metadata = Value::Object(self.metadata).to_string();
        let action =
            Action::synthetic(run.id(), &task.name, payload.to_string(), metadata, self.attempt, self.priority);
        let (output, mut messages) = TaskOutput::new();
        let stop = Stop::default();
        if let Some(cause) = self.cancel_cause {
            stop.stop(cause);
        }
        let to_cancel = stop.clone();
        let context = Context::new(AttemptContext {
            client: client.clone(),
            worker: Uuid::nil().into(),
            run: run.id(),
            task: run.id().into(),
            action: Arc::new(action),
            workflow: self.definition.name.as_str().into(),
            retries: task.max_retries(),
            parents: None,
            output,
            stop,
            worker_labels: Arc::new(Mutex::new(self.worker_labels)),
            released: tokio::sync::mpsc::unbounded_channel().0,
            full_slots: FullSlots::default(),
            timeout_at: None,
        });
        let (mut log, mut chunks) = (Vec::new(), Vec::new());
        let mut collect = |message: TaskMessage| match message.content {
            TaskContent::Log { level, message, metadata, .. } => {
                let metadata = serde_json::from_str(&metadata).ok();
                log.push(LoggedLine { level, message, metadata });
            }
            TaskContent::Chunk { index, content, .. } => chunks.push(SentChunk { index, content }),
        };
        // As a worker does, so that a `TaskLogLayer` finds the attempt.
        let (run_id, worker_id) = (run.id(), WorkerId::from(Uuid::nil()));
        let span = || {
            let workflow_name = &self.definition.name;
            telemetry::attempt_span(&run_id, &run_id, &task.name, workflow_name, self.attempt, &worker_id)
        };
        let (payload, current) = (payload.to_string(), context.clone());
        let code = async { task.handler.run(&payload, context, false).await };
        let mut code = Box::pin(in_context(current, span, code));
        let mut cancel_at = self.cancel_after.and_then(|after| Instant::now().checked_add(after));
        let result = loop {
            tokio::select! {
                biased;
                result = &mut code => break result,
                () = at(cancel_at) => {
                    to_cancel.stop(CancelCause::Engine);
                    cancel_at = None;
                }
                // The queue is bounded: the function waits if nobody reads it.
                Some(message) = messages.recv() => collect(message),
            }
        };
        while let Ok(message) = messages.try_recv() {
            collect(message);
        }
        let mut record = CallRecord { result: decode(result)?, log, chunks, children: Vec::new() };
        let mut children = run.children().await?;
        children.sort_by_key(|child| child.created_at);
        for child in children {
            let details = client.run_handle(child.id).details().await?;
            let workflow_name = details.workflow_name.unwrap_or_default();
            // As for a rerun: the engine replaces an input that is not an object.
            let input = details.input.unwrap_or_else(|| Payload::input("{}"));
            record.children.push(StartedRun { run_id: child.id, workflow_name, input });
        }
        if let Some(worker) = worker {
            worker.shutdown().await;
        }
        engine.shutdown().await;
        Ok(record)
    }
}

fn insert(values: &mut Result<Map<String, Value>>, name: String, value: &impl Serialize) {
    let Ok(all) = values else { return };
    match serde_json::to_value(value) {
        Ok(value) => {
            all.insert(name, value);
        }
        Err(error) => {
            *values = Err(Error::invalid(name, "expected a value that can be serialized as JSON, got one that cannot")
                .with_source(error));
        }
    }
}

fn decode<O: DeserializeOwned>(result: TaskResult<String>) -> Result<TaskResult<O>> {
    match result {
        Ok(output) => Ok(Ok(Payload::output(&output).parse_as(&"the output")?)),
        Err(error) => Ok(Err(error)),
    }
}
