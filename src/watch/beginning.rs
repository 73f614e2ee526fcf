//! Whether a subscription that should have begun before its run has missed some of it. The engine does not confirm a subscription, and can
//! need longer than the client waits. The creation of each task is an event, which precedes its chunks.

use std::collections::HashMap;

use crate::feed::ChunkEvent;
use crate::model::TaskId;

#[derive(Debug)]
pub(super) struct Beginning {
    /// Whether the subscription should have begun before the run.
    from_start: bool,
    has_begun: bool,
    /// The tasks of the run, and whether an event of each has arrived.
    tasks: HashMap<TaskId, bool>,
    /// The number of those that have ended without an event.
    missed: usize,
}

impl Beginning {
    pub(super) fn new(from_start: bool) -> Self {
        Self { from_start, has_begun: false, tasks: HashMap::new(), missed: 0 }
    }

    /// An event of the run has arrived. Returns whether chunks may be missing before it.
    pub(super) fn arrived(&mut self, event: &ChunkEvent) -> bool {
        // The end of a DAG run is announced when it starts.
        let Some(task) = event.task().filter(|_| self.from_start) else { return false };
        if self.tasks.insert(task, true) == Some(false) {
            self.missed = self.missed.saturating_sub(1);
        }
        !std::mem::replace(&mut self.has_begun, true) && !matches!(event, ChunkEvent::Created(..))
    }

    /// The history of the run has the end of an attempt of a task.
    pub(super) fn recorded(&mut self, task: TaskId) {
        if self.from_start && !self.tasks.contains_key(&task) {
            self.tasks.insert(task, false);
            self.missed += 1;
        }
    }

    /// The run has ended. Returns whether a task has ended of which no event has arrived.
    pub(super) fn has_missed_tasks(&self) -> bool {
        self.missed > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RunId;

    fn run() -> RunId {
        uuid::Uuid::from_u128(9).into()
    }

    fn task(number: u128) -> TaskId {
        uuid::Uuid::from_u128(number).into()
    }

    fn created(number: u128) -> ChunkEvent {
        ChunkEvent::Created(run(), task(number))
    }

    fn ended(number: u128) -> ChunkEvent {
        ChunkEvent::AttemptEnded { run: run(), task: task(number), attempt: Some(1), is_completed: true, at: None }
    }

    #[test]
    fn the_first_event_is_that_of_the_creation() {
        let mut beginning = Beginning::new(true);
        let early_end = ChunkEvent::RunEnded { run: run(), is_completed: true, at: None };
        let events = [early_end, created(1), ended(1), ended(2)];
        assert!(events.iter().all(|event| !beginning.arrived(event)));
        let mut beginning = Beginning::new(true);
        assert!(beginning.arrived(&ended(1)));
        assert!(!beginning.arrived(&ended(2)), "once");
        assert!(!Beginning::new(false).arrived(&ended(1)));
    }

    #[test]
    fn a_task_of_which_no_event_has_arrived_is_missed() {
        let mut beginning = Beginning::new(true);
        beginning.arrived(&created(2));
        beginning.recorded(task(1));
        beginning.recorded(task(1));
        beginning.recorded(task(2));
        assert!(beginning.has_missed_tasks());
        beginning.arrived(&ended(1));
        assert!(!beginning.has_missed_tasks(), "it was late");
        let mut of_handle = Beginning::new(false);
        of_handle.recorded(task(1));
        assert!(!of_handle.has_missed_tasks());
    }
}
