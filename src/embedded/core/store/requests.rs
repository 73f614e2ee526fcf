//! Requests of clients and workers, after validation of their syntax.

use std::time::Duration;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::labels::{DesiredLabel, Label};
use super::turn::At;

/// The prefix of metadata keys that are reserved for the engine.
pub(crate) const RESERVED_METADATA: &str = "hatchet__";

/// A request to start a run.
#[derive(Debug, Clone)]
pub(crate) struct Trigger {
    pub(crate) workflow: String,
    pub(crate) input: Value,
    /// Empty if the caller sent something that is not an object: the engine drops that.
    pub(crate) metadata: serde_json::Map<String, Value>,
    pub(crate) priority: Option<i32>,
    /// For a child: the task that starts it.
    pub(crate) parent: Option<ParentLink>,
    pub(crate) options: Option<Box<RunOptions>>,
}

/// The parent of a child run, and the position of the child among its siblings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParentLink {
    pub(crate) task: Uuid,
    pub(crate) index: Option<i32>,
    pub(crate) key: Option<Box<str>>,
}

/// What most runs do not have. It is stored apart from the run to keep runs small.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct RunOptions {
    /// The event that started the run.
    pub(crate) event: Option<EventRef>,
    /// The payload of the filter that the event passed.
    pub(crate) filter_payload: Option<Value>,
    /// The desired worker.
    pub(crate) worker: Option<Uuid>,
    pub(crate) labels: BTreeMap<String, DesiredLabel>,
    /// The idempotency key.
    pub(crate) key: Option<Box<str>>,
    /// Whether its input was read from the database, so that its first attempt also gets the database's JSON text.
    pub(crate) from_database: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventRef {
    pub(crate) id: Uuid,
    pub(crate) key: Arc<str>,
}

/// The registration of a worker.
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
    /// In the spelling of REST.
    pub(crate) language: Option<&'static str>,
    pub(crate) language_version: String,
    pub(crate) os: String,
    pub(crate) extra: String,
    pub(crate) sdk_version: String,
}

/// A worker's report about an attempt.
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
    /// The delay before the next attempt, instead of the backoff of the definition.
    pub(crate) retry_after: Option<Duration>,
    /// Reports of a batch are not published to event streams.
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
