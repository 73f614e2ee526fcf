//! Commands on workflows.

use std::sync::Arc;

use uuid::Uuid;

use crate::embedded::core::definitions::{check, options, versions};
use crate::embedded::core::runs::{concurrency, pauses};
use crate::embedded::core::store::{Core, Definition, Pause, StatusError, Turn, Version};
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
            check::reject_unknown_fields(&definition)?;
        }
        if let Some(latest) = versions::unchanged(self, &mut definition) {
            return Ok(latest);
        }
        let tasks: Vec<_> = definition.tasks.iter().chain(&definition.on_failure).collect();
        options::check_known_rate_limits(self, &tasks)?;
        options::check_dynamic_and_shared_limits(self, &definition)?;
        filters::check(self, &definition.name, &definition.options.filters)?;
        concurrency::share(self, turn, &definition);
        let latest = versions::add(self, turn, definition);
        crons::define(self, turn, &latest.name);
        filters::define(self, turn, latest.workflow, &latest.options.filters);
        Ok(latest)
    }

    /// Pauses a workflow, if it exists.
    pub(crate) fn pause_workflow(&mut self, turn: &mut Turn<'_>, id: Uuid, pause: Pause) {
        pauses::pause(self, turn, id, pause);
    }

    /// Ends the pause of a workflow, if it exists and is paused.
    pub(crate) fn unpause_workflow(&mut self, turn: &mut Turn<'_>, id: Uuid) {
        pauses::unpause(self, turn, id);
        if let Some(name) = self.find_workflow(id).map(|view| view.name.to_owned()) {
            schedules::resume(self, turn, &name);
        }
    }

    /// Deletes a workflow, its schedules and its crons. Its runs and its filters stay; what a pause held up is queued.
    pub(crate) fn delete_workflow(&mut self, turn: &mut Turn<'_>, id: Uuid) -> bool {
        let Some(name) = self.find_workflow(id).map(|view| view.name.to_owned()) else { return false };
        pauses::unpause(self, turn, id);
        self.workflows.remove(&name);
        crons::delete_all_of(self, &name);
        schedules::delete_all_of(self, &name);
        true
    }
}
