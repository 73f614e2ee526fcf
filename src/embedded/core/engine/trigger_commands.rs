//! Commands on events, filters, schedules and crons.

use uuid::Uuid;

use crate::embedded::core::store::{
    At, Core, CronSpec, EventFilter, Filter, PushedEvent, ScheduledRun, StatusError, Turn,
};
use crate::embedded::core::triggers::{crons, events, filters, schedules};

impl Core {
    /// Stores an event and starts its runs. Returns its id and its time.
    pub(crate) fn push(&mut self, turn: &mut Turn<'_>, pushed: PushedEvent) -> (Uuid, At) {
        events::push(self, turn, pushed)
    }

    pub(crate) fn create_filter(
        &mut self,
        turn: &mut Turn<'_>,
        workflow: Uuid,
        content: Filter,
    ) -> Result<&EventFilter, StatusError> {
        filters::create(self, turn, workflow, content)
    }

    /// Changes a filter. `None` if it does not exist.
    pub(crate) fn update_filter(
        &mut self,
        turn: &Turn<'_>,
        id: Uuid,
        change: impl FnOnce(Filter) -> Result<Filter, StatusError>,
    ) -> Option<Result<&EventFilter, StatusError>> {
        filters::update(self, turn, id, change)
    }

    pub(crate) fn delete_filter(&mut self, id: Uuid) -> Option<EventFilter> {
        self.event_filters.remove(id)
    }

    /// Creates a schedule for each time, in order.
    pub(crate) fn schedule(
        &mut self,
        turn: &mut Turn<'_>,
        run: &ScheduledRun,
        times: &[At],
    ) -> Result<Vec<(Uuid, At)>, StatusError> {
        schedules::create(self, turn, run, times)
    }

    /// Moves a schedule to another time.
    pub(crate) fn reschedule(&mut self, turn: &Turn<'_>, id: Uuid, at: At) -> bool {
        schedules::reschedule(self, turn, id, at)
    }

    pub(crate) fn delete_schedule(&mut self, id: Uuid) -> bool {
        schedules::delete(self, id)
    }

    /// Starts the run of a schedule now, and deletes the schedule.
    pub(crate) fn start_scheduled(&mut self, turn: &mut Turn<'_>, id: Uuid) -> Option<Uuid> {
        schedules::fire(self, turn, id)
    }

    pub(crate) fn create_cron(&mut self, turn: &mut Turn<'_>, spec: CronSpec) -> Result<Uuid, StatusError> {
        crons::create(self, turn, spec)
    }

    pub(crate) fn enable_cron(&mut self, turn: &Turn<'_>, id: Uuid, enabled: bool) -> bool {
        crons::enable(self, turn, id, enabled)
    }

    pub(crate) fn delete_cron(&mut self, id: Uuid) -> bool {
        crons::delete(self, id)
    }

    /// Starts the run that a cron would start at a time.
    pub(crate) fn start_cron(&mut self, turn: &mut Turn<'_>, id: Uuid, at: At) -> Option<Uuid> {
        crons::start(self, turn, id, at)
    }
}
