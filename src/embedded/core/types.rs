//! What goes into the core and comes out of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, SubsecRound as _, Utc};
use uuid::Uuid;

use super::conditions::Condition;
use super::idempotency::Collisions;
use super::rules::{EventRef, Rules, Special, Wanted};

/// A moment by the engine's clock.
pub(crate) type At = DateTime<Utc>;

/// A moment as the database keeps it: to the microsecond. What is shown of it can so be asked for again.
pub(super) fn stored(at: At) -> At {
    at.trunc_subsecs(6)
}

/// What a turn of the core needs from outside: the time, and fresh random numbers for ids.
pub(crate) struct Turn<'a> {
    pub(crate) now: At,
    pub(crate) random: &'a mut dyn FnMut() -> u128,
    /// The same for all commands that came at once.
    pub(crate) round: u64,
}

impl Turn<'_> {
    pub(crate) fn uuid(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes((self.random)().to_be_bytes()).into_uuid()
    }

    /// A W3C trace context, as the engine adds one to each run's metadata.
    pub(crate) fn traceparent(&mut self) -> String {
        format!("00-{:032x}-{:016x}-01", (self.random)() | 1, (self.random)() >> 64 | 1)
    }

    /// A number below another.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        u32::try_from((self.random)() % u128::from(end.max(1))).unwrap_or_default()
    }

    /// True in half of the cases.
    pub(crate) fn coin(&mut self) -> bool {
        (self.random)() & 1 == 0
    }
}

/// A refusal, in the terms of gRPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: Code,
    pub(crate) message: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Code {
    InvalidArgument,
    NotFound,
    AlreadyExists(Box<Collisions>),
    FailedPrecondition,
    Internal,
    Unimplemented,
    Unavailable,
}

impl Fault {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { code: Code::InvalidArgument, message: message.into() }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self { code: Code::NotFound, message: message.into() }
    }

    /// How the engine answers to what its code did not expect.
    pub(crate) fn internal() -> Self {
        Self { code: Code::Internal, message: "An internal error occurred.".into() }
    }

    /// The embedded engine has no such thing yet, and says so rather than to pretend.
    pub(crate) fn unimplemented(what: &str) -> Self {
        Self { code: Code::Unimplemented, message: format!("the embedded engine does not implement {what} yet") }
    }
}

/// A workflow's definition, checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Definition {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) default_priority: Option<i32>,
    pub(crate) input_json_schema: Option<Vec<u8>>,
    /// At least one. Their order makes no difference.
    pub(crate) tasks: Vec<TaskDefinition>,
    /// The task that runs when another has failed.
    pub(crate) on_failure: Option<TaskDefinition>,
    pub(crate) rules: Rules,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TaskDefinition {
    pub(crate) readable_id: String,
    pub(crate) action: String,
    /// Names of the tasks that come before it.
    pub(crate) parents: Vec<String>,
    pub(crate) conditions: Vec<Condition>,
    /// As it was written; empty when it was not set.
    pub(crate) timeout: String,
    pub(crate) schedule_timeout: Option<String>,
    pub(crate) retries: i32,
    pub(crate) backoff_factor: Option<f32>,
    pub(crate) backoff_max_seconds: Option<i32>,
    /// What is wanted of a worker.
    pub(crate) labels: BTreeMap<String, Wanted>,
}

/// A request to start a run, its texts checked.
#[derive(Debug, Clone)]
pub(crate) struct Trigger {
    pub(crate) workflow: String,
    pub(crate) input: serde_json::Value,
    /// Not an object when the caller sent none that is one: then the engine drops it.
    pub(crate) metadata: serde_json::Map<String, serde_json::Value>,
    pub(crate) priority: Option<i32>,
    /// The task that starts it, for a child.
    pub(crate) parent: Option<ParentLink>,
    pub(crate) special: Option<Box<Special>>,
}

/// Whose child a run is, and which of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParentLink {
    pub(crate) task: Uuid,
    pub(crate) index: Option<i32>,
    pub(crate) key: Option<Box<str>>,
}

/// A worker as it registers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registration {
    pub(crate) name: String,
    pub(crate) actions: Vec<String>,
    pub(crate) slots: BTreeMap<String, i32>,
    pub(crate) labels: BTreeMap<String, Label>,
    pub(crate) runtime: Runtime,
}

/// What a worker reports about its program.
#[derive(Debug, Clone, Default)]
pub(crate) struct Runtime {
    /// In REST's spelling.
    pub(crate) language: Option<&'static str>,
    pub(crate) language_version: String,
    pub(crate) os: String,
    pub(crate) extra: String,
    pub(crate) sdk_version: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Label {
    Text(String),
    Number(i32),
    Nothing,
}

/// What a worker says about an attempt.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) task: Uuid,
    pub(crate) worker: Option<Uuid>,
    pub(crate) kind: ReportKind,
    pub(crate) at: Option<At>,
    /// `None` means the current attempt.
    pub(crate) retry_count: Option<i32>,
    pub(crate) payload: String,
    pub(crate) should_not_retry: bool,
    /// Reports of a batch are not shown to those who watch events.
    pub(crate) batch: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReportKind {
    Started,
    Acknowledged,
    Completed,
    Failed,
    Cancelled,
}

/// An open stream, by the number its opener gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamId(pub(crate) u64);

/// What a turn wants done outside.
#[derive(Debug)]
pub(crate) enum Effect {
    Send(StreamId, Message),
    /// End a stream: well, or with a status.
    End(StreamId, Result<(), Fault>),
}

#[derive(Debug)]
pub(crate) enum Message {
    Action(Box<Action>),
    Result(RunResult),
    Event(RunEvent),
}

/// Work for a worker, or its cancellation.
#[derive(Debug)]
pub(crate) struct Action {
    pub(crate) cancel: bool,
    pub(crate) run: Uuid,
    pub(crate) task: Uuid,
    pub(crate) step: Uuid,
    pub(crate) readable_id: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) payload: String,
    pub(crate) retry_count: i32,
    pub(crate) metadata: String,
    pub(crate) priority: i32,
    pub(crate) workflow: Uuid,
    pub(crate) version: Uuid,
    pub(crate) parent: Option<ParentLink>,
    pub(crate) event: Option<EventRef>,
}

/// How a run ended, for those who wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunResult {
    pub(crate) run: Uuid,
    pub(crate) at: At,
    pub(crate) tasks: Vec<TaskResult>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskResult {
    pub(crate) task: Uuid,
    pub(crate) readable_id: Arc<str>,
    pub(crate) end: Result<Arc<str>, Arc<str>>,
}

/// Something that happened to a run, for those who watch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunEvent {
    pub(crate) run: Uuid,
    pub(crate) resource: Resource,
    pub(crate) kind: EventKind,
    pub(crate) at: At,
    pub(crate) payload: Arc<str>,
    pub(crate) retry_count: Option<i32>,
    pub(crate) index: Option<i64>,
    pub(crate) hangup: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    Run,
    Task(Uuid),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    Started,
    Completed,
    Failed,
    Cancelled,
    Stream,
}
