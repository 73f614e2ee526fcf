//! Filters of events. Those of a definition change with its versions, those of REST stay until they are deleted.

use std::sync::Arc;

use uuid::Uuid;

use super::options::Filter;
use super::turn::{At, Turn, stored};

#[derive(Debug, Clone)]
pub(crate) struct EventFilter {
    pub(crate) id: Uuid,
    pub(crate) created: At,
    pub(crate) updated: At,
    pub(crate) workflow: Uuid,
    /// Whether it belongs to a definition. If not, it was created by REST.
    pub(crate) from_definition: bool,
    /// Shared with lists that are rendered outside of the core's task.
    pub(crate) content: Arc<Filter>,
}

/// All filters, in the order of their creation.
#[derive(Debug, Default)]
pub(crate) struct EventFilters(Vec<EventFilter>);

impl EventFilters {
    pub(crate) fn of(&self, workflow: Uuid) -> impl Iterator<Item = &EventFilter> {
        self.0.iter().filter(move |filter| filter.workflow == workflow)
    }

    /// Whether the workflow has another filter with the same content.
    pub(crate) fn has_same(&self, id: Option<Uuid>, workflow: Uuid, content: &Filter) -> bool {
        let mut others = self.of(workflow).filter(|other| Some(other.id) != id);
        others.any(|other| *other.content == *content)
    }

    pub(crate) fn add(&mut self, turn: &mut Turn<'_>, workflow: Uuid, from_definition: bool, content: Filter) -> Uuid {
        let (id, created) = (turn.uuid(), stored(turn.now));
        self.0.push(EventFilter {
            id,
            created,
            updated: created,
            workflow,
            from_definition,
            content: Arc::new(content),
        });
        id
    }

    /// Removes the filters that belong to the definition of a workflow.
    pub(crate) fn remove_from_definition(&mut self, workflow: Uuid) {
        self.0.retain(|filter| filter.workflow != workflow || !filter.from_definition);
    }

    pub(crate) fn find(&self, id: Uuid) -> Option<&EventFilter> {
        self.0.iter().find(|filter| filter.id == id)
    }

    pub(crate) fn find_mut(&mut self, id: Uuid) -> Option<&mut EventFilter> {
        self.0.iter_mut().find(|filter| filter.id == id)
    }

    pub(crate) fn remove(&mut self, id: Uuid) -> Option<EventFilter> {
        let index = self.0.iter().position(|filter| filter.id == id)?;
        Some(self.0.remove(index))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &EventFilter> {
        self.0.iter()
    }
}
