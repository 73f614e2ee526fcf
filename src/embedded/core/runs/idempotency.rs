//! Idempotency keys: only one run is started for each key.

use chrono::TimeDelta;
use serde_json::Value;
use uuid::Uuid;

use crate::embedded::core::expression::{Names, object};
use crate::embedded::core::store::{Core, Holder, Idempotency, RunIx, StatusError, Trigger, Turn, Version};
use crate::embedded::quirks::Quirk;

/// The number of the method in which the end of the run frees the key.
const STATUS: i32 = 1;
/// The prefix of keys that are reserved for the engine.
const RESERVED: &str = "hatchet_internal_";

/// Whether a run may be started.
pub(crate) enum Claim {
    Free,
    /// Another run has the key.
    Taken(Uuid),
    /// The key cannot be evaluated: the run is never created.
    Unknowable,
}

/// Takes the key of a run, if its workflow has keys.
pub(crate) fn claim(core: &mut Core, turn: &Turn<'_>, id: Uuid, version: &Version, trigger: &mut Trigger) -> Claim {
    let Some(idempotency) = &version.options.idempotency else { return Claim::Free };
    let Some(key) = key(version, trigger) else { return Claim::Unknowable };
    if let Some(run) = core.keys.holder(&key, turn.now) {
        return Claim::Taken(run);
    }
    let ttl = TimeDelta::milliseconds(idempotency.ttl_ms.min(i64::from(u32::MAX) * 1000));
    let holder = Holder { run: id, until: turn.now + ttl, ends_with_run: idempotency.ends_with_run() };
    core.keys.take(&key, holder, turn.now);
    trigger.options.get_or_insert_default().key = Some(key.into());
    Claim::Free
}

/// Rejects a run whose key cannot be evaluated. The real engine answers with the id of a run that it never creates.
pub(crate) fn check(core: &Core, trigger: &Trigger) -> Result<(), StatusError> {
    let Some(workflow) = core.workflows.find(&trigger.workflow) else { return Ok(()) };
    if workflow.latest.options.idempotency.is_some() && key(&workflow.latest, trigger).is_none() {
        let text = format!("the idempotency key of a run of {} cannot be evaluated", trigger.workflow);
        return Err(StatusError::invalid(text));
    }
    Ok(())
}

/// Frees the key of a run, after one of its tasks has ended.
pub(crate) fn free(core: &mut Core, run: RunIx) {
    let Some(run) = core.runs.get(run) else { return };
    if let Some(key) = run.key().filter(|_| run.has_ended() || core.has(Quirk::EarlyFreeKeys)) {
        core.keys.free(key, run.id);
    }
}

/// The key of a run. `None` if its expression is not a string, or one that is reserved for the engine.
fn key(version: &Version, trigger: &Trigger) -> Option<String> {
    let expression = version.options.idempotency.as_ref()?.expression.parsed.as_ref()?;
    let (input, metadata) = (object(&trigger.input), Value::Object(trigger.metadata.clone()));
    let key = expression.text(&Names(&[("input", &input), ("additional_metadata", &metadata)]))?;
    (!key.starts_with(RESERVED)).then_some(key)
}

impl Idempotency {
    /// Whether the end of the run frees the key.
    fn ends_with_run(&self) -> bool {
        self.method == STATUS
    }
}
