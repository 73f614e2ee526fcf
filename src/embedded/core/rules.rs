//! What a definition says beside its tasks: what starts its runs, which of them are one, and which worker may have them. And
//! what a run has of it that most runs do not have.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::cron::Clockwork;
use super::definitions::Problems;
use super::expression::{Expression, Problem};
use super::types::{Fault, Label};

/// What expressions of filters may use.
pub(crate) const FILTER_NAMES: &[&str] = &["input", "additional_metadata", "payload", "event_id", "event_key"];
/// What expressions of idempotency keys may use.
const KEY_NAMES: &[&str] = &["input", "additional_metadata", "workflow_run_id", "checksum()"];

/// The rules of a definition, checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Rules {
    pub(crate) events: Vec<String>,
    pub(crate) filters: Vec<Filter>,
    pub(crate) crons: Vec<String>,
    /// JSON.
    pub(crate) cron_input: Option<Value>,
    pub(crate) sticky: Option<Sticky>,
    pub(crate) idempotency: Option<Idempotency>,
}

/// Decides whether an event of its scope starts a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Filter {
    pub(crate) text: String,
    pub(crate) scope: String,
    pub(crate) payload: Value,
    /// None for an empty text, which is never true, and for one that is no CEL.
    pub(crate) expression: Option<Expression>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sticky {
    Soft,
    Hard,
}

/// Lets only one run be started for a key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Idempotency {
    pub(crate) text: String,
    pub(crate) ttl_ms: i64,
    /// A number that is none of the contract is refused in the engine's words.
    pub(crate) method: i32,
    pub(crate) expression: Option<Expression>,
}

/// What is wanted of one label of a worker.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) value: Label,
    pub(crate) required: bool,
    pub(crate) comparator: Comparator,
    pub(crate) weight: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparator {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// What most runs do not have.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Special {
    /// The event that started it.
    pub(crate) event: Option<EventRef>,
    /// The payload of the filter that let it through.
    pub(crate) filter_payload: Option<Value>,
    /// The worker that it should go to.
    pub(crate) worker: Option<Uuid>,
    pub(crate) labels: BTreeMap<String, Wanted>,
    pub(crate) key: Option<Box<str>>,
    /// Its payload comes from the database, and has that one's text from the first attempt on.
    pub(crate) from_database: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventRef {
    pub(crate) id: Uuid,
    pub(crate) key: Arc<str>,
}

impl Filter {
    /// A filter as it was sent. An expression that may be CEL and cannot be followed here is said to be.
    pub(crate) fn new(text: String, scope: String, payload: Value) -> Result<Self, Fault> {
        let expression = match Expression::parse(&text, FILTER_NAMES) {
            Ok(expression) => Some(expression),
            Err(Problem::Broken) => None,
            Err(Problem::Missing) => return Err(missing(&text)),
        };
        Ok(Self { text, scope, payload, expression })
    }
}

impl Idempotency {
    pub(crate) fn new(text: String, ttl_ms: i64, method: i32) -> Result<Self, Fault> {
        let expression = match Expression::parse(&text, KEY_NAMES) {
            Ok(expression) => Some(expression),
            Err(Problem::Broken) => None,
            Err(Problem::Missing) => return Err(missing(&text)),
        };
        Ok(Self { text, ttl_ms, method, expression })
    }

    /// Whether the key is free when the run has ended.
    pub(crate) fn ends_with_run(&self) -> bool {
        self.method == 1
    }
}

fn missing(text: &str) -> Fault {
    Fault::unimplemented(&format!("the CEL expression `{text}`"))
}

impl Rules {
    /// What the engine's validator has against them.
    pub(super) fn check(&self, problems: &mut Problems) {
        for (at, text) in self.crons.iter().enumerate() {
            if Clockwork::of_definition(text).is_none() {
                problems.add(&format!("CronTriggers[{at}]"), "Invalid cron expression");
            }
        }
        let Some(idempotency) = &self.idempotency else { return };
        if idempotency.text.is_empty() {
            problems.add("Idempotency.Expression", "on condition 'required'");
        } else if idempotency.expression.is_none() {
            problems.add("Idempotency.Expression", "Invalid CEL expression");
        }
        match idempotency.ttl_ms {
            0 => problems.add("Idempotency.TTLMs", "on condition 'required'"),
            ..0 => problems.add("Idempotency.TTLMs", "on condition 'min' [ 1 ]: got invalid type"),
            _ => {}
        }
        if !(0..=1).contains(&idempotency.method) {
            problems.add("Idempotency.Method", "on condition 'oneof' [ TTL STATUS ]: got invalid type");
        }
    }

    /// What the engine stumbles over after it has checked them, and what there is none of here.
    pub(super) fn check_further(&self) -> Result<(), Fault> {
        let doubled = |texts: &[String]| {
            let mut known = HashSet::new();
            !texts.iter().all(|text| known.insert(text))
        };
        if doubled(&self.events) || doubled(&self.crons) {
            return Err(Fault::internal());
        }
        Ok(())
    }

    /// No filters leave those of the version before as they are.
    pub(super) fn keep_filters_of(&mut self, before: &Self) {
        if self.filters.is_empty() {
            self.filters.clone_from(&before.filters);
        }
    }
}
