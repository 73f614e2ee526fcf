//! Crons.

use std::sync::Arc;
use std::time::Duration;

use chrono::SecondsFormat;
use uuid::Uuid;

use super::stored::{NEXT_CHECK, object, start_stored};
use crate::embedded::core::format::cron::CronSchedule;
use crate::embedded::core::store::{At, Core, Cron, CronSpec, PausedRuns, StatusError, Timer, Turn, stored};
use crate::embedded::quirks::Quirk;

/// How long a cron with an invalid expression exists.
const INVALID_CRON_LIFETIME: Duration = Duration::from_millis(300);

/// Replaces the crons of a workflow's definition by those of its latest version.
pub(crate) fn define(core: &mut Core, turn: &mut Turn<'_>, workflow: &str) {
    let Some(known) = core.workflows.find(workflow) else { return };
    let version = Arc::clone(&known.latest);
    let is_old = |cron: &&Cron| cron.from_definition && !cron.dropped;
    for id in core.crons.of(workflow).filter(is_old).map(|cron| cron.id).collect::<Vec<_>>() {
        if !lingers(core, turn, id, &version.options.crons) {
            delete(core, id);
        }
    }
    for expression in &version.options.crons {
        let spec = CronSpec {
            workflow: workflow.to_owned(),
            name: String::new(),
            expression: expression.clone(),
            input: version.options.cron_input.clone(),
            metadata: None,
            priority: version.default_priority,
        };
        add(core, turn, spec, true, CronSchedule::of_definition(expression));
    }
}

/// Marks a cron of a definition as dropped if it fires once more, although the latest version does not have it.
fn lingers(core: &mut Core, turn: &Turn<'_>, id: Uuid, crons: &[String]) -> bool {
    let until = turn.now + NEXT_CHECK;
    let lingers = core.has(Quirk::LingeringCrons);
    let Some(cron) = core.crons.get_mut(id) else { return false };
    cron.dropped = lingers && !crons.contains(&cron.spec.expression) && cron.next.is_some_and(|(at, _)| at <= until);
    cron.dropped
}

/// Creates a cron by REST.
pub(crate) fn create(core: &mut Core, turn: &mut Turn<'_>, spec: CronSpec) -> Result<Uuid, StatusError> {
    if spec.name.is_empty() {
        return Err(StatusError::invalid("cron name is required"));
    }
    if core.workflows.find(&spec.workflow).is_none() {
        return Err(StatusError::invalid("workflow not found"));
    }
    if core.crons.has_same(&spec) {
        return Err(StatusError::invalid("cron trigger with that name-expression pair already exists"));
    }
    let schedule = CronSchedule::of_rest(&spec.expression);
    if schedule.is_none() && !core.has(Quirk::DisappearingCrons) {
        return Err(StatusError::invalid("Invalid cron expression"));
    }
    Ok(add(core, turn, spec, false, schedule))
}

fn add(
    core: &mut Core,
    turn: &mut Turn<'_>,
    spec: CronSpec,
    from_definition: bool,
    schedule: Option<CronSchedule>,
) -> Uuid {
    let id = turn.uuid();
    core.crons.add(id, stored(turn.now), spec, from_definition, schedule);
    set_timer(core, turn, id);
    id
}

fn set_timer(core: &mut Core, turn: &Turn<'_>, id: Uuid) {
    let Some(cron) = core.crons.get_mut(id) else { return };
    let next = match &cron.schedule {
        Some(schedule) => schedule.next(turn.now).filter(|_| cron.enabled),
        None => Some(turn.now + INVALID_CRON_LIFETIME),
    };
    cron.next = next.map(|at| (at, core.timers.set(at, Timer::Cron(id))));
}

pub(crate) fn delete(core: &mut Core, id: Uuid) -> bool {
    let Some(cron) = core.crons.remove(id) else { return false };
    if let Some((_, timer)) = cron.next {
        core.timers.clear(timer);
    }
    true
}

/// Deletes the crons of a deleted workflow.
pub(crate) fn delete_all_of(core: &mut Core, workflow: &str) {
    for id in core.crons.of(workflow).map(|cron| cron.id).collect::<Vec<_>>() {
        delete(core, id);
    }
}

pub(crate) fn enable(core: &mut Core, turn: &Turn<'_>, id: Uuid, enabled: bool) -> bool {
    let Some(cron) = core.crons.get_mut(id) else { return false };
    cron.enabled = enabled;
    if let Some((_, timer)) = cron.next.take() {
        core.timers.clear(timer);
    }
    set_timer(core, turn, id);
    true
}

/// Starts the run of a cron that is due, and sets its next timer. A cron with an invalid expression disappears instead.
pub(crate) fn fire(core: &mut Core, turn: &mut Turn<'_>, id: Uuid) {
    let Some(cron) = core.crons.get_mut(id) else { return };
    let at = cron.next.take().map_or(turn.now, |(at, _)| at);
    if cron.schedule.is_none() {
        core.crons.remove(id);
        return;
    }
    let dropped = cron.dropped;
    let pause = core.workflows.find(&cron.spec.workflow).and_then(|workflow| workflow.pause.as_ref());
    if pause.is_none_or(|pause| pause.crons == PausedRuns::Queue) {
        start(core, turn, id, at);
    }
    if dropped {
        core.crons.remove(id);
    } else {
        set_timer(core, turn, id);
    }
}

/// Starts the run that a cron starts at a time.
pub(crate) fn start(core: &mut Core, turn: &mut Turn<'_>, id: Uuid, at: At) -> Option<Uuid> {
    let spec = CronSpec::clone(&core.crons.get(id)?.spec);
    let mut metadata = object(spec.metadata);
    metadata.insert("hatchet__cron_expression".into(), spec.expression.into());
    metadata.insert("hatchet__cron_name".into(), spec.name.into());
    metadata.insert("hatchet__cron_scheduled_at".into(), at.to_rfc3339_opts(SecondsFormat::Secs, true).into());
    start_stored(core, turn, spec.workflow, spec.input.unwrap_or_default(), metadata, spec.priority)
}
