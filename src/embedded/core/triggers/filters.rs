//! Filters: which events start a run of a workflow.

use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use crate::embedded::core::expression::{Names, object};
use crate::embedded::core::store::{Core, EventFilter, EventRef, Filter, PushedEvent, StatusError, Turn, stored};

/// The filters of a workflow that an event passes. `[None]` if the workflow has no filters.
pub(crate) fn passed<'a>(
    core: &'a Core,
    workflow: Uuid,
    event: &EventRef,
    pushed: &PushedEvent,
) -> Vec<Option<&'a EventFilter>> {
    let all = || core.event_filters.of(workflow);
    if all().next().is_none() {
        return vec![None];
    }
    let (id, key): (Value, Value) = (event.id.to_string().into(), (&*event.key).into());
    let (input, metadata) = (object(&pushed.payload), object(&pushed.metadata));
    let is_true = |filter: &&EventFilter| {
        let payload = object(&filter.content.payload);
        let names = [
            ("input", &input),
            ("additional_metadata", &metadata),
            ("payload", &payload),
            ("event_id", &id),
            ("event_key", &key),
        ];
        filter.content.expression.parsed.as_ref().is_some_and(|expression| expression.is_true(&Names(&names)))
    };
    let in_scope = all().filter(|filter| pushed.scope.as_deref() == Some(&filter.content.scope));
    in_scope.filter(is_true).map(Some).collect()
}

/// Replaces the filters of a workflow's definition, unless they are the same.
pub(crate) fn define(core: &mut Core, turn: &mut Turn<'_>, workflow: Uuid, filters: &[Filter]) {
    let all = &mut core.event_filters;
    if all.of(workflow).filter(|filter| filter.from_definition).map(|filter| &*filter.content).eq(filters) {
        return;
    }
    all.remove_from_definition(workflow);
    for content in filters {
        all.add(turn, workflow, true, content.clone());
    }
}

/// Rejects filters of a definition that are equal to each other, or to a filter that REST created.
pub(crate) fn check(core: &Core, workflow: &str, filters: &[Filter]) -> Result<(), StatusError> {
    let workflow = core.workflows.find(workflow).map(|workflow| workflow.id);
    let of_rest = workflow.into_iter().flat_map(|workflow| core.event_filters.of(workflow));
    let others: Vec<_> = of_rest.filter(|filter| !filter.from_definition).map(|filter| &*filter.content).collect();
    let is_duplicate = |(index, filter): (usize, &Filter)| {
        others.contains(&filter) || filters.iter().take(index).any(|other| other == filter)
    };
    if filters.iter().enumerate().any(is_duplicate) { Err(StatusError::internal()) } else { Ok(()) }
}

/// Creates a filter by REST. The engine does not check whether the workflow exists.
pub(crate) fn create<'a>(
    core: &'a mut Core,
    turn: &mut Turn<'_>,
    workflow: Uuid,
    content: Filter,
) -> Result<&'a EventFilter, StatusError> {
    if core.event_filters.has_same(None, workflow, &content) {
        return Err(StatusError::internal());
    }
    let id = core.event_filters.add(turn, workflow, false, content);
    core.event_filters.find(id).ok_or_else(StatusError::internal)
}

/// Changes a filter. `None` if it does not exist.
pub(crate) fn update<'a>(
    core: &'a mut Core,
    turn: &Turn<'_>,
    id: Uuid,
    change: impl FnOnce(Filter) -> Result<Filter, StatusError>,
) -> Option<Result<&'a EventFilter, StatusError>> {
    let EventFilter { workflow, content, .. } = core.event_filters.find(id)?;
    let (workflow, content) = match change(Filter::clone(content)) {
        Ok(content) => (*workflow, content),
        Err(rejected) => return Some(Err(rejected)),
    };
    if core.event_filters.has_same(Some(id), workflow, &content) {
        return Some(Err(StatusError::internal()));
    }
    let filter = core.event_filters.find_mut(id)?;
    (filter.content, filter.updated) = (Arc::new(content), stored(turn.now));
    Some(Ok(filter))
}
