//! Events: stored, and turned into runs of the workflows that they concern.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{filters, pattern};
use crate::embedded::core::runs::{retention, start, wakes};
use crate::embedded::core::store::{
    At, Core, Event, EventRef, PushedEvent, RESERVED_METADATA, RunOptions, Trigger, Turn, stored,
};

/// The reserved metadata key that a client may set.
const ALLOWED_METADATA: &str = "hatchet__source_workflow_run_id";

/// Stores an event and starts its runs. Returns its id and its time.
pub(crate) fn push(core: &mut Core, turn: &mut Turn<'_>, pushed: PushedEvent) -> (Uuid, At) {
    let (id, at) = (turn.uuid(), stored(turn.now));
    let event = EventRef { id, key: pushed.key.as_str().into() };
    let mut runs = Vec::new();
    for (trigger, filter) in started_by(core, &event, &pushed) {
        // Runs that cannot be started are left out without an error.
        let ids = start::start(core, turn, vec![trigger]).unwrap_or_default();
        runs.extend(ids.into_iter().filter(|run| core.runs.find(*run).is_some()).map(|run| (run, filter)));
    }
    wakes::event_arrives(core, turn, &pushed.key, &pushed.payload);
    core.events.add(Event {
        id,
        at,
        key: event.key,
        payload: pushed.payload.to_string().into(),
        metadata: pushed.metadata.to_string().into(),
        scope: pushed.scope.map(Into::into),
        runs,
    });
    retention::expect(core, at);
    (id, at)
}

/// One run for each event trigger of a workflow that matches the event, and for each of the workflow's filters that it passes.
fn started_by(core: &Core, event: &EventRef, pushed: &PushedEvent) -> Vec<(Trigger, Option<Uuid>)> {
    let mut triggers = Vec::new();
    for (name, workflow) in core.workflows.oldest_first() {
        let options = &workflow.latest.options;
        for _ in options.events.iter().filter(|trigger| pattern::matches(trigger, &pushed.key)) {
            for filter in filters::passed(core, workflow.id, event, pushed) {
                let options = RunOptions {
                    event: Some(event.clone()),
                    filter_payload: filter.map(|filter| filter.content.payload.clone()),
                    ..RunOptions::default()
                };
                let trigger = Trigger {
                    workflow: name.to_owned(),
                    input: pushed.payload.clone(),
                    metadata: metadata(event, pushed),
                    priority: pushed.priority,
                    parent: None,
                    options: Some(Box::new(options)),
                };
                triggers.push((trigger, filter.map(|filter| filter.id)));
            }
        }
    }
    triggers
}

fn metadata(event: &EventRef, pushed: &PushedEvent) -> Map<String, Value> {
    let mut all = pushed.metadata.as_object().cloned().unwrap_or_default();
    all.retain(|key, _| !key.starts_with(RESERVED_METADATA) || key == ALLOWED_METADATA);
    // Each run of the event gets its own.
    all.remove("traceparent");
    all.insert("hatchet__event_id".into(), event.id.to_string().into());
    all.insert("hatchet__event_key".into(), (&*event.key).into());
    all
}
