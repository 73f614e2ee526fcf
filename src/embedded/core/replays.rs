//! Running again what has ended.

use std::time::Duration;

use uuid::Uuid;

use super::store::{Run, RunIx, State, Task, TaskEventKind, TaskKey, Waits};
use super::timers::Timer;
use super::types::Turn;
use super::{Core, Quirk};

const TEXT: &str = "Task was replayed, resetting task result.";
/// So many of one call get through, if replays get lost.
const TAKEN: usize = 200;
/// Of those, the first are done at once, and then so long each of them takes.
const AT_ONCE: usize = 10;
const EACH: Duration = Duration::from_millis(30);
/// How much longer than its last one a call can take.
const MORE: u32 = 60;

/// What is replayed at once: a run, or one step of a DAG with all that comes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replay {
    Run(RunIx),
    Step(TaskKey),
}

impl Core {
    /// Replays runs or tasks. Tells which tasks these are, whatever becomes of them; what does not exist is left out.
    pub(crate) fn replay(&mut self, turn: &mut Turn<'_>, ids: &[Uuid]) -> Vec<Uuid> {
        let known: Vec<_> = ids.iter().filter_map(|id| self.meant(*id)).collect();
        let mut told = Vec::with_capacity(known.len());
        for replay in &known {
            match replay {
                Replay::Run(ix) => {
                    told.extend(self.runs.get(*ix).into_iter().flat_map(Run::present).map(|task| task.id));
                }
                Replay::Step(key) => told.extend(self.runs.task(*key).map(|(_, task)| task.id)),
            }
        }
        if self.has(Quirk::LostReplays) {
            self.replay_some(turn, &known);
        } else {
            for replay in known {
                self.replay_now(turn, replay);
            }
        }
        told
    }

    fn meant(&self, id: Uuid) -> Option<Replay> {
        match self.runs.task_key(id) {
            Some(key) if self.runs.get(key.run)?.dag.is_some() => Some(Replay::Step(key)),
            Some(key) => Some(Replay::Run(key.run)),
            None => self.runs.index(id).map(Replay::Run),
        }
    }

    /// Takes the first of a call, one after the other; and if those of an earlier call are not through, none.
    fn replay_some(&mut self, turn: &mut Turn<'_>, replays: &[Replay]) {
        if replays.is_empty() || self.replays_until.is_some_and(|until| until > turn.now) {
            return;
        }
        let mut due = turn.now;
        for (replay, place) in replays.iter().take(TAKEN).zip(0..) {
            if place >= AT_ONCE {
                due += EACH;
            }
            self.timers.set(due, Timer::Replay(*replay));
        }
        self.replays_until = Some(due + Duration::from_millis(turn.below(MORE).into()));
        // The first may be due now.
        self.advance(turn);
    }

    /// What runs, or lies between two attempts, stays as it is.
    pub(super) fn replay_now(&mut self, turn: &mut Turn<'_>, replay: Replay) {
        let (Replay::Run(ix) | Replay::Step(TaskKey { run: ix, .. })) = replay;
        let Some(run) = self.runs.get(ix) else { return };
        if run.dag.is_some() {
            self.replay_dag(turn, ix, replay);
            return;
        }
        let key = TaskKey { run: ix, place: 0 };
        if run.tasks.first().is_some_and(|task| matches!(task.state, State::Ended | State::Queued { .. })) {
            self.note_replay(turn, key);
            self.renew(turn, key);
            self.record(key, TaskEventKind::Queued, turn.now, None, None);
            self.enqueue(turn, key, None);
            if let Some(action) = self.action_of(key) {
                self.assign(turn, &action);
            }
        }
    }

    /// A DAG is replayed when all of it has ended, and left alone before.
    fn replay_dag(&mut self, turn: &mut Turn<'_>, ix: RunIx, replay: Replay) {
        let Some(run) = self.runs.get(ix).filter(|run| run.is_over()) else { return };
        let places: Vec<u16> = match replay {
            Replay::Run(_) => run.tasks.iter().map(|task| task.step).collect(),
            Replay::Step(key) => run.following(key.place),
        };
        // All are noted at once, also those that begin anew only after others.
        for place in places {
            let key = TaskKey { run: ix, place };
            let Some(place) = self.runs.place_mut(key) else { continue };
            place.waits = Waits::Parents;
            if place.created.is_some() {
                self.note_replay(turn, key);
            }
        }
        self.follow(turn, ix);
        self.finish(turn, ix);
    }

    fn note_replay(&mut self, turn: &mut Turn<'_>, key: TaskKey) {
        self.record(key, TaskEventKind::Replayed, turn.now, None, Some(TEXT));
    }

    /// Begins the count of retries anew, with the next attempt.
    pub(super) fn renew(&mut self, turn: &mut Turn<'_>, key: TaskKey) {
        self.release(turn, key);
        if let Some(task) = self.runs.task_mut(key) {
            task.retry_count += 1;
            (task.app_retries, task.lost_sends) = (0, 0);
        }
    }
}

impl Run {
    /// Whether all tasks have ended and none waits to begin anew.
    fn is_over(&self) -> bool {
        let waits = self.dag.iter().flat_map(|dag| &dag.places).any(|place| place.waits != Waits::Nothing);
        self.is_ended() && !waits
    }

    /// A step and all that comes after it.
    fn following(&self, place: u16) -> Vec<u16> {
        let mut found = vec![place];
        let mut at = 0;
        while let Some(parent) = found.get(at).copied() {
            let next = (0..).zip(&self.version.steps).filter(|(_, step)| step.parents.contains(&parent));
            let next: Vec<u16> = next.map(|(place, _)| place).filter(|place| !found.contains(place)).collect();
            found.extend(next);
            at += 1;
        }
        found
    }
}

impl Task {
    /// Whether it has never been replayed or retried.
    pub(super) fn is_first(&self) -> bool {
        self.retry_count == 0
    }
}
