//! Commands on runs and tasks.

use uuid::Uuid;

use crate::embedded::core::runs::{cancels, replays, start};
use crate::embedded::core::store::{At, Core, Report, StatusError, Trigger, Turn};
use crate::embedded::core::workers::{logs, refresh, release, reports};

impl Core {
    /// Starts runs.
    pub(crate) fn trigger(&mut self, turn: &mut Turn<'_>, triggers: Vec<Trigger>) -> Result<Vec<Uuid>, StatusError> {
        start::start(self, turn, triggers)
    }

    /// Cancels runs or tasks. Ignores unknown ids.
    pub(crate) fn cancel(&mut self, turn: &mut Turn<'_>, ids: &[Uuid]) {
        cancels::cancel(self, turn, ids);
    }

    /// Replays runs or tasks, and returns the ids of the tasks. Ignores unknown ids.
    pub(crate) fn replay(&mut self, turn: &mut Turn<'_>, ids: &[Uuid]) -> Vec<Uuid> {
        let replayed = replays::replay(self, turn, ids);
        if replayed.set_timers {
            self.advance(turn);
        }
        replayed.tasks
    }

    /// A worker's report about an attempt.
    pub(crate) fn report(&mut self, turn: &mut Turn<'_>, report: Report) -> Result<(), StatusError> {
        reports::report(self, turn, report)
    }

    /// A chunk that a task puts into its stream.
    pub(crate) fn chunk(
        &mut self,
        turn: &mut Turn<'_>,
        task: Uuid,
        message: &[u8],
        index: Option<i64>,
        at: Option<At>,
    ) -> Result<(), StatusError> {
        reports::chunk(self, turn, task, message, index, at)
    }

    /// Extends the execution timeout of a running attempt, and returns its new end.
    pub(crate) fn refresh_timeout(&mut self, turn: &mut Turn<'_>, task: Uuid, by: &str) -> Result<At, StatusError> {
        refresh::refresh_timeout(self, turn, task, by)
    }

    /// Releases the slots of a running attempt.
    pub(crate) fn release_slot(&mut self, turn: &mut Turn<'_>, task: Uuid) -> Result<(), StatusError> {
        release::release_slot(self, turn, task)
    }

    /// Adds a line to a task's log.
    pub(crate) fn put_log(
        &mut self,
        turn: &Turn<'_>,
        task: Uuid,
        message: &str,
        level: Option<&str>,
        metadata: &str,
        retry_count: Option<i32>,
    ) -> Result<(), StatusError> {
        logs::put_log(self, turn, task, message, level, metadata, retry_count)
    }
}
