//! Starting runs.

use std::cmp::Reverse;
use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::idempotency::Claim;
use super::{admission, announce, children, dag, idempotency, progress, retention};
use crate::embedded::core::definitions::versions;
use crate::embedded::core::format::json::{go_text, jsonb_text};
use crate::embedded::core::store::{
    Child, Collision, Core, Dag, QueueOrder, Run, RunIx, State, StatusError, Task, TaskKey, Trigger, Turn, Version,
    stored,
};
use crate::embedded::quirks::Quirk;

/// Starts runs in the order of their triggers. All have the same creation time. Returns their ids, of which some may belong to
/// children that were already started, or to runs that are never created.
pub(crate) fn start(
    core: &mut Core,
    turn: &mut Turn<'_>,
    mut triggers: Vec<Trigger>,
) -> Result<Vec<Uuid>, StatusError> {
    check_workflows(core, &triggers)?;
    children::check_parents(core, &triggers)?;
    // Known children are searched for before any run is created, so a child that occurs twice in a call is started twice. This comes
    // before the idempotency keys, because a trigger of a known child needs none.
    let known: Vec<_> = triggers.iter().map(|trigger| children::known(core, turn, trigger)).collect();
    // What a child inherits may be part of its key.
    for Trigger { parent, metadata, .. } in new_runs(&mut triggers, &known) {
        if let Some(parent) = parent {
            children::inherit(core, parent, metadata);
        }
    }
    check_new_runs(core, &mut triggers, &known)?;
    let mut ids = Vec::with_capacity(triggers.len());
    let mut created = Vec::with_capacity(triggers.len());
    let mut collisions = Vec::new();
    let mut again = Vec::new();
    for ((mut trigger, known), call_index) in triggers.into_iter().zip(known).zip(0..) {
        if let Some(known) = known {
            ids.push(known);
            again.push((known, trigger));
            continue;
        }
        let id = turn.uuid();
        ids.push(id);
        let version = versions::of_new_run(core, turn, &trigger.workflow);
        if let Some(version) = version.filter(|version| !is_stuck(version)) {
            match idempotency::claim(core, turn, id, &version, &mut trigger) {
                Claim::Free => created.push(create(core, turn, id, call_index, version, trigger)),
                Claim::Taken(existing) => collisions.push(Collision { existing, colliding: id }),
                Claim::Unknowable => {}
            }
        }
    }
    // All are queued before the first is assigned, so that the urgent ones come first.
    let mut queued = Vec::with_capacity(created.len());
    if core.has(Quirk::RestartedChildren) && !created.is_empty() {
        queued.extend(again.iter().filter_map(|(id, trigger)| restart(core, turn, *id, trigger)));
    }
    for run in created {
        queued.extend(enqueue(core, turn, run));
    }
    for key in queued {
        progress::hand_out(core, turn, key);
    }
    // Collisions do not affect the other runs.
    if collisions.is_empty() { Ok(ids) } else { Err(StatusError::collisions(ids, collisions)) }
}

/// The triggers that do not mean a known child.
fn new_runs<'a>(triggers: &'a mut [Trigger], known: &'a [Option<Uuid>]) -> impl Iterator<Item = &'a mut Trigger> {
    triggers.iter_mut().zip(known).filter(|(_, known)| known.is_none()).map(|(trigger, _)| trigger)
}

fn check_workflows(core: &Core, triggers: &[Trigger]) -> Result<(), StatusError> {
    if core.has(Quirk::NeverCreatedRuns) {
        return Ok(());
    }
    let names = triggers.iter().map(|trigger| trigger.workflow.as_str());
    let unknown: Vec<_> = names.filter(|name| core.workflows.find(name).is_none()).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(StatusError::invalid(format!("workflow names not found: {}", unknown.join(", "))))
}

/// Rejects what the real engine answers with the id of a run that it never creates.
fn check_new_runs(core: &Core, triggers: &mut [Trigger], known: &[Option<Uuid>]) -> Result<(), StatusError> {
    if core.has(Quirk::NeverCreatedRuns) {
        return Ok(());
    }
    let stuck = |name: &str| core.workflows.find(name).is_some_and(|known| is_stuck(&known.latest));
    if triggers.iter().any(|trigger| stuck(&trigger.workflow)) {
        return Err(StatusError::unimplemented("conditions of the only task of a workflow"));
    }
    new_runs(triggers, known).try_for_each(|trigger| idempotency::check(core, trigger))
}

/// The real engine never creates a run whose only task has conditions.
fn is_stuck(version: &Version) -> bool {
    !version.is_dag() && version.steps.iter().any(|step| !step.definition.conditions.is_empty())
}

fn create(
    core: &mut Core,
    turn: &mut Turn<'_>,
    id: Uuid,
    call_index: usize,
    version: Arc<Version>,
    trigger: Trigger,
) -> RunIx {
    let Trigger { input, mut metadata, priority, parent, options, .. } = trigger;
    metadata.entry("traceparent").or_insert_with(|| turn.traceparent().into());
    let priority = priority.or(version.default_priority).unwrap_or(1);
    let tasks = if version.is_dag() {
        (0..).zip(&version.steps).map(|(step, _)| new_task(step, turn.uuid(), State::Absent)).collect()
    } else {
        let order = QueueOrder { urgency: Reverse(0), number: 0 };
        [new_task(0, id, State::Queued { timer: None, order })].into()
    };
    let run = core.runs.add(Run {
        id,
        ix: RunIx::default(),
        created: stored(turn.now),
        call_index: u16::try_from(call_index).unwrap_or(u16::MAX),
        input: stored_input(&input),
        metadata: jsonb_text(&Value::Object(metadata)).into(),
        priority: u8::try_from(priority).unwrap_or(1),
        options,
        tasks,
        dag: version.is_dag().then(|| Box::new(Dag::new(&version))),
        child: parent.map(|parent| Box::new(Child { parent, restarted: None })),
        version,
    });
    children::join(core, turn, run);
    retention::expect(core, stored(turn.now));
    run
}

/// An input as JSON text. A worker gets `null` instead of an input that is not an object.
fn stored_input(input: &Value) -> Box<str> {
    if input.is_object() { go_text(input).into() } else { "null".into() }
}

fn new_task(step: u16, id: Uuid, state: State) -> Task {
    Task {
        id,
        step,
        retry_count: 0,
        app_retries: 0,
        lost_sends: 0,
        state,
        finals: Vec::new(),
        events: Vec::new(),
        logs: Vec::new(),
    }
}

/// Queues the first tasks of a new run, and returns them.
fn enqueue(core: &mut Core, turn: &mut Turn<'_>, run: RunIx) -> Vec<TaskKey> {
    if core.runs.get(run).is_some_and(|run| run.dag.is_some()) {
        let queued = dag::unfold(core, turn, run);
        dag::expect_early_end(core, turn, run);
        announce::if_ended(core, turn, run);
        return queued;
    }
    let key = TaskKey { run, index: 0 };
    if admission::begin(core, turn, key) {
        return vec![key];
    }
    announce::creation(core, key);
    announce::if_ended(core, turn, run);
    Vec::new()
}

/// Starts a child that has ended a second time, under the same id and as if it were the first time.
fn restart(core: &mut Core, turn: &mut Turn<'_>, id: Uuid, trigger: &Trigger) -> Option<TaskKey> {
    let key = core.runs.task_key(id)?;
    let run = core.runs.run_mut(key.run).filter(|run| run.dag.is_none() && run.has_ended())?;
    let child = run.child.as_deref_mut()?;
    child.restarted = Some(stored_input(&trigger.input));
    let parent = child.parent.clone();
    let task = core.runs.task_mut(key)?;
    (task.retry_count, task.app_retries, task.lost_sends) = (0, 0, 0);
    // An end of a later attempt would be that of an attempt that has not begun.
    task.finals.retain(|row| row.retry_count == 0);
    core.families.add(turn.round, &parent, id, key.run);
    admission::begin(core, turn, key).then_some(key)
}
