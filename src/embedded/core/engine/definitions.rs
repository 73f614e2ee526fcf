//! Commands on workflows.

use std::sync::Arc;

use uuid::Uuid;

use crate::embedded::core::definitions::{check, options, versions};
use crate::embedded::core::store::{Core, Definition, StatusError, Turn, Version};
use crate::embedded::core::triggers::{crons, filters, schedules};
use crate::embedded::quirks::Quirk;

impl Core {
    /// Stores a definition. An unchanged definition is the same version.
    pub(crate) fn put_workflow(
        &mut self,
        turn: &mut Turn<'_>,
        mut definition: Definition,
    ) -> Result<Arc<Version>, StatusError> {
        check::check(&definition)?;
        if !self.has(Quirk::IgnoredConcurrencyFields) {
            check::refuse_unknown_fields(&definition)?;
        }
        if let Some(latest) = versions::unchanged(self, &mut definition) {
            return Ok(latest);
        }
        let tasks: Vec<_> = definition.tasks.iter().chain(&definition.on_failure).collect();
        options::check_known_rate_limits(self, &tasks)?;
        filters::check(self, &definition.name, &definition.options.filters)?;
        let latest = versions::add(self, turn, definition);
        crons::define(self, turn, &latest.name);
        filters::define(self, turn, latest.workflow, &latest.options.filters);
        Ok(latest)
    }

    /// Deletes a workflow, its schedules and its crons. Its runs and its filters stay.
    pub(crate) fn delete_workflow(&mut self, id: Uuid) -> bool {
        let Some(name) = self.find_workflow(id).map(|view| view.name.to_owned()) else { return false };
        self.workflows.remove(&name);
        crons::delete_all_of(self, &name);
        schedules::delete_all_of(self, &name);
        true
    }
}
