//! Starting runs.

use std::cmp::Reverse;
use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::idempotency::{Claim, Collision};
use super::json::{go_text, jsonb_text};
use super::store::{Child, Dag, QueueOrder, Run, RunIx, State, Task, TaskEventKind, TaskKey, Version};
use super::types::{EventKind, Fault, Resource, RunEvent, Trigger, Turn, stored};
use super::{Core, Quirk};

/// How the keys of metadata begin that the engine has for itself.
pub(super) const RESERVED: &str = "hatchet__";

/// Those that do not mean a child that has been started before.
fn new_ones<'a>(triggers: &'a mut [Trigger], known: &'a [Option<Uuid>]) -> impl Iterator<Item = &'a mut Trigger> {
    triggers.iter_mut().zip(known).filter(|(_, known)| known.is_none()).map(|(trigger, _)| trigger)
}

/// A run of one task that has conditions never comes to be.
fn is_stuck(version: &Version) -> bool {
    !version.is_dag() && version.steps.iter().any(|step| !step.definition.conditions.is_empty())
}

impl Core {
    /// Starts runs, in the order they are given, all with one stamp.
    pub(crate) fn trigger(&mut self, turn: &mut Turn<'_>, mut triggers: Vec<Trigger>) -> Result<Vec<Uuid>, Fault> {
        if !self.has(Quirk::PhantomRuns) {
            let unknown: Vec<_> = triggers
                .iter()
                .map(|trigger| trigger.workflow.as_str())
                .filter(|name| self.definitions.find(name).is_none())
                .collect();
            if !unknown.is_empty() {
                return Err(Fault::invalid(format!("workflow names not found: {}", unknown.join(", "))));
            }
        }
        self.check_parents(&triggers)?;
        // Children that are there are looked for before any is made, so that one that is twice in a call is made twice.
        // They come before the keys, too: who asks for one again needs none.
        let known: Vec<_> = triggers.iter().map(|trigger| self.known_child(turn, trigger)).collect();
        // What a child inherits may be part of its key.
        for Trigger { parent, metadata, .. } in new_ones(&mut triggers, &known) {
            if let Some(parent) = parent {
                self.inherit(parent, metadata);
            }
        }
        if !self.has(Quirk::PhantomRuns) {
            let stuck = |name: &str| self.definitions.find(name).is_some_and(|known| is_stuck(&known.latest));
            if triggers.iter().any(|trigger| stuck(&trigger.workflow)) {
                return Err(Fault::unimplemented("conditions of the only task of a workflow"));
            }
            new_ones(&mut triggers, &known).try_for_each(|trigger| self.check_key(trigger))?;
        }
        let mut ids = Vec::with_capacity(triggers.len());
        let mut created = Vec::with_capacity(triggers.len());
        let mut collisions = Vec::new();
        let mut again = Vec::new();
        for ((mut trigger, known), place) in triggers.into_iter().zip(known).zip(0..) {
            if let Some(known) = known {
                ids.push(known);
                again.push((known, trigger));
                continue;
            }
            let id = turn.uuid();
            ids.push(id);
            if let Some(version) = self.version(turn, &trigger.workflow).filter(|version| !is_stuck(version)) {
                match self.claim(turn, id, &version, &mut trigger) {
                    Claim::Free => created.push(self.create(turn, id, place, version, trigger)),
                    Claim::Taken(existing) => collisions.push(Collision { existing, colliding: id }),
                    Claim::Unknowable => {}
                }
            }
        }
        // All are in their queues before the first is given away, so that the urgent ones go first.
        let mut queued = Vec::with_capacity(created.len());
        if self.has(Quirk::RestartedChildren) && !created.is_empty() {
            queued.extend(again.iter().filter_map(|(id, trigger)| self.restart(turn, *id, trigger)));
        }
        for &run in &created {
            if self.runs.get(run).is_some_and(|run| run.dag.is_some()) {
                queued.extend(self.unfold(turn, run));
                self.expect_early_end(turn, run);
            } else {
                let key = TaskKey { run, place: 0 };
                self.record(key, TaskEventKind::Queued, turn.now, None, None);
                self.enqueue(turn, key, None);
                queued.push(key);
            }
        }
        for key in queued {
            self.hand_out(turn, key);
        }
        // The others have been started all the same.
        if collisions.is_empty() { Ok(ids) } else { Err(Fault::collisions(ids, collisions)) }
    }

    /// Gives a new task to a worker if there is one, and announces it.
    pub(super) fn hand_out(&mut self, turn: &mut Turn<'_>, key: TaskKey) {
        self.offer(turn, key);
        self.announce_first(key);
    }

    pub(super) fn offer(&mut self, turn: &mut Turn<'_>, key: TaskKey) {
        if let Some(action) = self.action_of(key) {
            self.assign(turn, &action);
        }
    }

    pub(super) fn announce_first(&mut self, key: TaskKey) {
        // A new attempt is no creation.
        if self.runs.task(key).is_some_and(|(_, task)| task.is_first()) {
            self.announce_creation(key);
        }
    }

    fn create(
        &mut self,
        turn: &mut Turn<'_>,
        id: Uuid,
        place: usize,
        version: Arc<Version>,
        trigger: Trigger,
    ) -> RunIx {
        let Trigger { input, mut metadata, priority, parent, special, .. } = trigger;
        metadata.entry("traceparent").or_insert_with(|| turn.traceparent().into());
        let priority = priority.or(version.default_priority).unwrap_or(1);
        // Only an object survives; anything else is nothing to the worker.
        let input = if input.is_object() { go_text(&input) } else { "null".to_owned() };
        let task = |step: u16, id: Uuid, state: State| Task {
            id,
            step,
            retry_count: 0,
            app_retries: 0,
            lost_sends: 0,
            state,
            finals: Vec::new(),
            events: Vec::new(),
            logs: Vec::new(),
        };
        let tasks = if version.is_dag() {
            (0..).zip(&version.steps).map(|(step, _)| task(step, turn.uuid(), State::Absent)).collect()
        } else {
            let order = QueueOrder { urgency: Reverse(0), number: 0 };
            [task(0, id, State::Queued { timer: None, order })].into()
        };
        let run = self.runs.add(Run {
            id,
            ix: RunIx::default(),
            created: stored(turn.now),
            place: u16::try_from(place).unwrap_or(u16::MAX),
            input: input.into(),
            metadata: jsonb_text(&Value::Object(metadata)).into(),
            priority: u8::try_from(priority).unwrap_or(1),
            special,
            tasks,
            dag: version.is_dag().then(|| Box::new(Dag::new(&version))),
            child: parent.map(|parent| Box::new(Child { parent, restarted: None })),
            version,
        });
        self.join_family(turn, run);
        run
    }

    /// To those who watch, a task «started» when it was made, whether a worker has it or not.
    pub(super) fn announce_creation(&mut self, key: TaskKey) {
        let Some((run, task)) = self.runs.task(key) else { return };
        self.publish(&RunEvent {
            run: run.id,
            resource: Resource::Task(task.id),
            kind: EventKind::Started,
            at: run.created(task),
            payload: "".into(),
            retry_count: Some(0),
            index: None,
            hangup: false,
        });
    }
}
