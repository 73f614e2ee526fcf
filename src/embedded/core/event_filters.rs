//! Filters: what decides which events start a run of a workflow. Those of a definition come and go with its versions, those
//! of REST stay until they are deleted.

use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::Core;
use super::events::Pushed;
use super::expression::{Names, object};
use super::rules::{EventRef, Filter};
use super::types::{At, Fault, Turn, stored};

#[derive(Debug, Clone)]
pub(crate) struct EventFilter {
    pub(crate) id: Uuid,
    pub(crate) created: At,
    pub(crate) updated: At,
    pub(crate) workflow: Uuid,
    /// Whether it is of a definition, and not of REST.
    pub(crate) defined: bool,
    /// Shared with lists that are rendered outside of the core's task.
    pub(crate) what: Arc<Filter>,
}

/// In the order of their creation.
#[derive(Debug, Default)]
pub(super) struct EventFilters(Vec<EventFilter>);

impl EventFilters {
    fn of(&self, workflow: Uuid) -> impl Iterator<Item = &EventFilter> {
        self.0.iter().filter(move |filter| filter.workflow == workflow)
    }

    /// Whether there is another of the same workflow that says the same.
    fn has_like(&self, id: Option<Uuid>, workflow: Uuid, what: &Filter) -> bool {
        let mut others = self.of(workflow).filter(|other| Some(other.id) != id);
        others.any(|other| *other.what == *what)
    }

    fn add(&mut self, turn: &mut Turn<'_>, workflow: Uuid, defined: bool, what: Filter) -> Uuid {
        let (id, created) = (turn.uuid(), stored(turn.now));
        self.0.push(EventFilter { id, created, updated: created, workflow, defined, what: Arc::new(what) });
        id
    }

    /// What lets an event through to a workflow: no filter, if there is none at all, or each one that is true.
    pub(super) fn pass(&self, workflow: Uuid, event: &EventRef, pushed: &Pushed) -> Vec<Option<&EventFilter>> {
        if self.of(workflow).next().is_none() {
            return vec![None];
        }
        let (id, key): (Value, Value) = (event.id.to_string().into(), (&*event.key).into());
        let (input, metadata) = (object(&pushed.payload), object(&pushed.metadata));
        let is_true = |filter: &&EventFilter| {
            let payload = object(&filter.what.payload);
            let names = [
                ("input", &input),
                ("additional_metadata", &metadata),
                ("payload", &payload),
                ("event_id", &id),
                ("event_key", &key),
            ];
            filter.what.expression.as_ref().is_some_and(|expression| expression.is_true(&Names(&names)))
        };
        let in_scope = self.of(workflow).filter(|filter| pushed.scope.as_deref() == Some(&filter.what.scope));
        in_scope.filter(is_true).map(Some).collect()
    }
}

impl Core {
    /// Puts the filters of a definition in the place of those of the version before, unless they are the same.
    pub(super) fn define_filters(&mut self, turn: &mut Turn<'_>, workflow: Uuid, filters: &[Filter]) {
        let all = &mut self.event_filters;
        if all.of(workflow).filter(|filter| filter.defined).map(|filter| &*filter.what).eq(filters) {
            return;
        }
        all.0.retain(|filter| filter.workflow != workflow || !filter.defined);
        for what in filters {
            all.add(turn, workflow, true, what.clone());
        }
    }

    /// Refuses those of a definition that say the same as each other, or as one of REST.
    pub(super) fn check_filters(&self, workflow: Option<Uuid>, filters: &[Filter]) -> Result<(), Fault> {
        let of_rest = workflow.into_iter().flat_map(|workflow| self.event_filters.of(workflow));
        let others: Vec<_> = of_rest.filter(|filter| !filter.defined).map(|filter| &*filter.what).collect();
        let doubled = |(at, filter): (usize, &Filter)| {
            others.contains(&filter) || filters.iter().take(at).any(|other| other == filter)
        };
        if filters.iter().enumerate().any(doubled) { Err(Fault::internal()) } else { Ok(()) }
    }

    /// Makes one. Whether there is such a workflow is not looked at.
    pub(crate) fn create_filter(
        &mut self,
        turn: &mut Turn<'_>,
        workflow: Uuid,
        what: Filter,
    ) -> Result<&EventFilter, Fault> {
        if self.event_filters.has_like(None, workflow, &what) {
            return Err(Fault::internal());
        }
        let id = self.event_filters.add(turn, workflow, false, what);
        self.find_filter(id).ok_or_else(Fault::internal)
    }

    pub(crate) fn find_filter(&self, id: Uuid) -> Option<&EventFilter> {
        self.event_filters.0.iter().find(|filter| filter.id == id)
    }

    /// All, in the order of a list: by their ids.
    pub(crate) fn all_filters(&self) -> Vec<&EventFilter> {
        let mut all: Vec<_> = self.event_filters.0.iter().collect();
        all.sort_by_key(|filter| std::cmp::Reverse(filter.id));
        all
    }

    /// Changes one. None if it is not there.
    pub(crate) fn update_filter(
        &mut self,
        turn: &Turn<'_>,
        id: Uuid,
        change: impl FnOnce(Filter) -> Result<Filter, Fault>,
    ) -> Option<Result<&EventFilter, Fault>> {
        let EventFilter { workflow, what, .. } = self.find_filter(id)?;
        let (workflow, what) = match change(Filter::clone(what)) {
            Ok(what) => (*workflow, what),
            Err(fault) => return Some(Err(fault)),
        };
        if self.event_filters.has_like(Some(id), workflow, &what) {
            return Some(Err(Fault::internal()));
        }
        let filter = self.event_filters.0.iter_mut().find(|filter| filter.id == id)?;
        (filter.what, filter.updated) = (Arc::new(what), stored(turn.now));
        Some(Ok(filter))
    }

    pub(crate) fn delete_filter(&mut self, id: Uuid) -> Option<EventFilter> {
        let at = self.event_filters.0.iter().position(|filter| filter.id == id)?;
        Some(self.event_filters.0.remove(at))
    }
}
