//! Cancelling what a user asks to be cancelled.

use std::time::Duration;

use uuid::Uuid;

use super::store::{End, Run, RunIx, State, Task, TaskEventKind, TaskKey, Waits};
use super::timers::Timer;
use super::types::Turn;
use super::{Core, Quirk};

/// One in this many tasks that are cancelled while queued gets a scheduling timeout later (measured: 83 of 383).
const TIMED_OUT_ONE_IN: u32 = 5;
/// How long each of many cancels takes: 2000 take a little over six seconds.
const EACH: Duration = Duration::from_millis(3);

impl Core {
    /// Cancels runs or tasks. Ids that do not exist are ignored.
    pub(crate) fn cancel(&mut self, turn: &mut Turn<'_>, ids: &[Uuid]) {
        let slow = self.has(Quirk::SlowCancels);
        for (id, place) in ids.iter().zip(0..) {
            if slow && place > 0 {
                self.timers.set(turn.now + EACH * place, Timer::Cancel(*id));
            } else {
                self.cancel_one(turn, *id);
            }
        }
    }

    pub(super) fn cancel_one(&mut self, turn: &mut Turn<'_>, id: Uuid) {
        if let Some(key) = self.runs.task_key(id) {
            self.cancel_task(turn, key);
        } else if let Some(run) = self.runs.index(id) {
            self.cancel_dag(turn, run);
        }
    }

    /// Cancels the tasks that there are; those that are not there yet follow from that.
    fn cancel_dag(&mut self, turn: &mut Turn<'_>, ix: RunIx) {
        let Some(run) = self.runs.get(ix) else { return };
        let was_ended = run.is_ended();
        let (mut ended, mut active) = (Vec::new(), Vec::new());
        for task in run.present() {
            let key = TaskKey { run: ix, place: task.step };
            if task.state == State::Ended { ended.push(key) } else { active.push(key) }
        }
        if self.has(Quirk::TwoFinalRows) {
            for key in ended {
                self.record(key, TaskEventKind::Cancelled, turn.now, None, None);
                self.settle(turn, key, End::Cancelled);
                self.disorder(turn, key);
            }
        }
        for key in active {
            self.cancel_task(turn, key);
        }
        let waiting: Vec<_> = self.waiting_places(ix);
        let any = self.cancel_waits(turn, waiting.into_iter());
        self.follow(turn, ix);
        if any || was_ended && self.has(Quirk::TwoFinalRows) {
            self.finish(turn, ix);
        }
    }

    /// Keeps the schedule timeout of some tasks that are cancelled while queued.
    pub(super) fn keep_schedule_timeout(&mut self, turn: &mut Turn<'_>, key: TaskKey) {
        let Some((_, task)) = self.runs.task(key).filter(|_| self.has(Quirk::TimedOutCancels)) else { return };
        let State::Queued { timer: Some((at, _)), .. } = task.state else { return };
        let retry_count = task.retry_count;
        if turn.below(TIMED_OUT_ONE_IN) == 0 {
            self.timers.set(at, Timer::TimedOutCancel(key, retry_count));
        }
    }

    /// Adds a scheduling timeout to a task that was cancelled, if it is still in the same attempt.
    pub(super) fn time_out_cancelled(&mut self, turn: &mut Turn<'_>, key: TaskKey, retry_count: i32) {
        let is_it = |(_, task): (&Run, &Task)| task.retry_count == retry_count && task.state == State::Ended;
        if self.runs.task(key).is_some_and(is_it) {
            self.record(key, TaskEventKind::ScheduleTimedOut, turn.now, None, None);
            self.add_end(turn, key, End::ScheduleTimedOut);
        }
    }

    fn waiting_places(&self, ix: RunIx) -> Vec<TaskKey> {
        let places = self.runs.get(ix).and_then(|run| run.dag.as_ref()).into_iter().flat_map(|dag| &dag.places);
        let waiting = (0..).zip(places).filter(|(_, place)| place.waits != Waits::Nothing);
        waiting.map(|(place, _)| TaskKey { run: ix, place }).collect()
    }
}
