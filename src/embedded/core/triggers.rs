//! Starting runs.

use std::cmp::Reverse;
use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::idempotency::{Claim, Collision};
use super::json::{go_text, jsonb_text};
use super::store::{QueueOrder, Run, RunIx, State, Task, TaskEventKind, TaskKey, Version};
use super::types::{EventKind, Fault, Resource, RunEvent, Trigger, Turn, stored};
use super::{Core, Quirk};

impl Core {
    /// Starts runs, in the order they are given, all with one stamp.
    pub(crate) fn trigger(&mut self, turn: &mut Turn<'_>, triggers: Vec<Trigger>) -> Result<Vec<Uuid>, Fault> {
        if !self.has(Quirk::PhantomRuns) {
            let unknown: Vec<_> = triggers
                .iter()
                .map(|trigger| trigger.workflow.as_str())
                .filter(|name| self.definitions.find(name).is_none())
                .collect();
            if !unknown.is_empty() {
                return Err(Fault::invalid(format!("workflow names not found: {}", unknown.join(", "))));
            }
            self.check_keys(&triggers)?;
        }
        let mut ids = Vec::with_capacity(triggers.len());
        let mut created = Vec::with_capacity(triggers.len());
        let mut collisions = Vec::new();
        for mut trigger in triggers {
            let id = turn.uuid();
            ids.push(id);
            if let Some(workflow) = self.definitions.find(&trigger.workflow) {
                let version = Arc::clone(&workflow.latest);
                match self.claim(turn, id, &version, &mut trigger) {
                    Claim::Free => created.push(self.create(turn, id, version, trigger)),
                    Claim::Taken(existing) => collisions.push(Collision { existing, colliding: id }),
                    Claim::Unknowable => {}
                }
            }
        }
        // All are in their queues before the first is given away, so that the urgent ones go first.
        for &run in &created {
            let key = TaskKey { run, place: 0 };
            self.record(key, TaskEventKind::Queued, turn.now, None, None);
            self.enqueue(turn, key, None);
        }
        for &run in &created {
            let Some(stored) = self.runs.get(run) else { continue };
            if let Some(step) = stored.version.steps.first() {
                let action = Arc::clone(&step.action);
                self.assign(turn, &action);
            }
            self.announce_creation(run);
        }
        // The others have been started all the same.
        if collisions.is_empty() { Ok(ids) } else { Err(Fault::collisions(ids, collisions)) }
    }

    fn create(&mut self, turn: &mut Turn<'_>, id: Uuid, version: Arc<Version>, trigger: Trigger) -> RunIx {
        let Trigger { input, mut metadata, priority, special, .. } = trigger;
        metadata.entry("traceparent").or_insert_with(|| turn.traceparent().into());
        let priority = priority.or(version.default_priority).unwrap_or(1);
        // Only an object survives; anything else is nothing to the worker.
        let input = if input.is_object() { go_text(&input) } else { "null".to_owned() };
        self.runs.add(Run {
            id,
            version,
            created: stored(turn.now),
            input: input.into(),
            metadata: jsonb_text(&Value::Object(metadata)).into(),
            priority: u8::try_from(priority).unwrap_or(1),
            special,
            tasks: Box::new([Task {
                id,
                step: 0,
                retry_count: 0,
                app_retries: 0,
                lost_sends: 0,
                state: State::Queued { timer: None, order: QueueOrder { urgency: Reverse(0), number: 0 } },
                finals: Vec::new(),
                events: Vec::new(),
                logs: Vec::new(),
            }]),
        })
    }

    /// To those who watch, a task «started» when it was made, whether a worker has it or not.
    fn announce_creation(&mut self, run: RunIx) {
        let Some(run) = self.runs.get(run) else { return };
        let events: Vec<_> = run
            .tasks
            .iter()
            .map(|task| RunEvent {
                run: run.id,
                resource: Resource::Task(task.id),
                kind: EventKind::Started,
                at: run.created,
                payload: "".into(),
                retry_count: Some(0),
                index: None,
                hangup: false,
            })
            .collect();
        for event in events {
            self.publish(&event);
        }
    }
}
