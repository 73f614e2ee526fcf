//! Keys that let only one run be started.

use std::collections::HashMap;

use chrono::TimeDelta;
use serde_json::Value;
use uuid::Uuid;

use super::expression::{Names, object};
use super::store::{RunIx, Version};
use super::types::{At, Code, Fault, Trigger, Turn};
use super::{Core, Quirk};

/// Keys that the engine keeps for itself.
const RESERVED: &str = "hatchet_internal_";
/// From here on, keys whose time is over are looked for and forgotten.
const MANY: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Keys {
    taken: HashMap<Box<str>, Holder>,
    /// How many may be there before the next clearing.
    most: usize,
}

impl Keys {
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.taken.len()
    }
}

#[derive(Debug)]
struct Holder {
    run: Uuid,
    until: At,
    /// Whether the end of the run frees it as well.
    ends_with_run: bool,
}

/// A run that was not started, since another one has its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Collision {
    pub(crate) existing: Uuid,
    pub(crate) colliding: Uuid,
}

/// Runs of which not all could be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Collisions {
    /// All the other ids, those of runs that never exist among them.
    pub(crate) successful: Vec<Uuid>,
    pub(crate) collisions: Vec<Collision>,
}

/// Whether a run may be started.
pub(super) enum Claim {
    Free,
    /// Another run has the key.
    Taken(Uuid),
    /// There is no key to be had: the run never exists.
    Unknowable,
}

impl Core {
    /// Takes the key of a run, if its workflow asks for one.
    pub(super) fn claim(&mut self, turn: &Turn<'_>, id: Uuid, version: &Version, trigger: &mut Trigger) -> Claim {
        let Some(idempotency) = &version.rules.idempotency else { return Claim::Free };
        let Some(key) = key(version, trigger) else { return Claim::Unknowable };
        if let Some(holder) = self.keys.taken.get(&*key)
            && holder.until > turn.now
        {
            return Claim::Taken(holder.run);
        }
        let ttl = TimeDelta::milliseconds(idempotency.ttl_ms.min(i64::from(u32::MAX) * 1000));
        let holder = Holder { run: id, until: turn.now + ttl, ends_with_run: idempotency.ends_with_run() };
        if self.keys.taken.len() >= self.keys.most.max(MANY) {
            self.keys.taken.retain(|_, holder| holder.until > turn.now);
            self.keys.most = 2 * self.keys.taken.len();
        }
        self.keys.taken.insert(key.as_str().into(), holder);
        trigger.special.get_or_insert_default().key = Some(key.into());
        Claim::Free
    }

    /// Refuses a run whose key cannot be evaluated, where the engine would answer with the id of a run that never exists.
    pub(super) fn check_key(&self, trigger: &Trigger) -> Result<(), Fault> {
        let Some(workflow) = self.definitions.find(&trigger.workflow) else { return Ok(()) };
        if workflow.latest.rules.idempotency.is_some() && key(&workflow.latest, trigger).is_none() {
            let text = format!("the idempotency key of a run of {} cannot be evaluated", trigger.workflow);
            return Err(Fault::invalid(text));
        }
        Ok(())
    }

    /// A task has ended. Its run's key may be free from now on.
    pub(super) fn free_key(&mut self, run: RunIx) {
        let Some(run) = self.runs.get(run) else { return };
        let Some(key) = run.key() else { return };
        let first = self.has(Quirk::EarlyFreeKeys);
        if !first && !run.is_ended() {
            return;
        }
        if self.keys.taken.get(key).is_some_and(|holder| holder.run == run.id && holder.ends_with_run) {
            self.keys.taken.remove(key);
        }
    }
}

/// The key of a run. None if its expression gives no text, or one of the engine's own.
fn key(version: &Version, trigger: &Trigger) -> Option<String> {
    let expression = version.rules.idempotency.as_ref()?.expression.as_ref()?;
    let (input, metadata) = (object(&trigger.input), Value::Object(trigger.metadata.clone()));
    let key = expression.text(&Names(&[("input", &input), ("additional_metadata", &metadata)]))?;
    (!key.starts_with(RESERVED)).then_some(key)
}

impl Fault {
    pub(super) fn collisions(ids: Vec<Uuid>, collisions: Vec<Collision>) -> Self {
        let successful = ids.into_iter().filter(|id| collisions.iter().all(|one| one.colliding != *id)).collect();
        Self {
            code: Code::AlreadyExists(Box::new(Collisions { successful, collisions })),
            message: "idempotency key collision".into(),
        }
    }
}
