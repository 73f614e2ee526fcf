//! Whether chunks may have been lost without a gap, because the subscription was lost: the pure core of
//! [`ChunkItem::Interrupted`](crate::model::ChunkItem::Interrupted).
//!
//! The engine also ends a subscription when all runs that it has seen have ended. So a loss alone says nothing: it matters only if an
//! attempt had not ended before it, and no later chunk shows that none is missing.
//!
//! The engine announces no end of an attempt whose result was reported together with others, and that of its run. A single-task run that is
//! announced as completed has ended. Other ends of runs are also announced while attempts follow.
//!
//! With the chunks of children, the tasks are not known: a child can start, send chunks and end while the subscription is lost. Then
//! each loss matters that the end of the run itself does not precede.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::announced::{Announced, Ending};
use super::reorder::Place;
use crate::model::{RunId, RunStatus, TaskId};

/// The number of losses that are remembered. Without the oldest ones, chunks may be missing.
const MAX_LOSSES: usize = 1000;
/// All events of an attempt have arrived if its end has been in the history for this long.
pub(super) const ALL_ARRIVED_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Continuity {
    announced: Announced,
    /// Whether the chunks of children are read, too. Of their tasks, nothing is kept.
    with_children: bool,
    /// The ends of attempts that the history of the run has.
    recorded: Vec<Recorded>,
    /// The tasks that have sent chunks in an attempt that has not ended.
    sending: HashSet<TaskId>,
    /// The last status of the run.
    status: Option<RunStatus>,
    losses: VecDeque<Loss>,
    /// Whether nothing has arrived since the last loss.
    is_lost: bool,
    /// The number of losses that are no longer remembered.
    forgotten: u64,
}

/// The end of an attempt in the history of the run.
#[derive(Debug, Clone, Copy)]
struct Recorded {
    task: TaskId,
    attempt: u32,
    at: DateTime<Utc>,
    /// Since when it has been known.
    since: Instant,
}

/// A loss of the subscription.
#[derive(Debug)]
struct Loss {
    since: Instant,
    /// The number of ends that were announced before it.
    announced: usize,
    /// Whether the completion of the run was announced before it, and how many failures that did not follow an announced end of an attempt.
    has_completed: bool,
    unannounced: usize,
    sending: HashSet<TaskId>,
    /// The tasks of which later chunks have arrived.
    resumed: HashMap<TaskId, Resumed>,
}

/// The first chunk of a task after a loss.
#[derive(Debug, Clone, Copy)]
struct Resumed {
    sent_at: Option<DateTime<Utc>>,
    /// Whether it looks like one of the attempt before. If that had ended, it is of the next one, of which the first chunks were lost.
    is_of_same_attempt: bool,
}

impl Continuity {
    pub(super) fn new(run: RunId, with_children: bool) -> Self {
        Self {
            announced: Announced::new(run),
            with_children,
            recorded: Vec::new(),
            sending: HashSet::new(),
            status: None,
            losses: VecDeque::new(),
            is_lost: false,
            forgotten: 0,
        }
    }

    /// The subscription was lost, or chunks were dropped.
    pub(super) fn lost(&mut self, now: Instant) {
        if std::mem::replace(&mut self.is_lost, true) {
            return;
        }
        self.losses.push_back(Loss {
            since: now,
            announced: self.announced.count(),
            has_completed: self.announced.has_completed(),
            unannounced: self.announced.unannounced_failures(),
            sending: self.sending.clone(),
            resumed: HashMap::new(),
        });
        if self.losses.len() > MAX_LOSSES {
            self.losses.pop_front();
            self.forgotten += 1;
        }
    }

    /// A chunk has arrived. Returns whether chunks may be missing before it that no gap reports.
    pub(super) fn chunk(&mut self, task: TaskId, place: Place, sent_at: Option<DateTime<Utc>>) -> bool {
        self.is_lost = false;
        if !self.with_children {
            self.sending.insert(task);
        }
        let resumed = match place {
            Place::Outdated => return false,
            Place::Unnumbered => {
                let is_uncertain = !self.losses.is_empty();
                self.losses.clear();
                return is_uncertain;
            }
            // If chunks of this attempt are missing, that is a gap.
            Place::SameAttempt => Resumed { sent_at, is_of_same_attempt: true },
            Place::NewAttempt => Resumed { sent_at, is_of_same_attempt: false },
        };
        if self.with_children {
            return false;
        }
        // Earlier losses were followed by earlier chunks.
        for loss in self.losses.iter_mut().rev().take_while(|loss| !loss.resumed.contains_key(&task)) {
            loss.resumed.insert(task, resumed);
        }
        false
    }

    /// An event has announced the end of an attempt of a task of the run.
    pub(super) fn announced(&mut self, task: TaskId, ending: Option<Ending>) {
        self.is_lost = false;
        self.sending.remove(&task);
        self.announced.attempt_ended(task, ending);
    }

    /// An event has announced the end of the run. For a DAG run, that may be too early.
    pub(super) fn run_ended(&mut self, is_completed: bool, at: Option<DateTime<Utc>>) {
        self.is_lost = false;
        self.announced.run_ended(is_completed, at);
        if is_completed || self.announced.unannounced_failures() > 0 {
            self.sending.remove(&self.announced.only_task());
        }
    }

    /// What was announced.
    pub(super) fn announcements(&self) -> &Announced {
        &self.announced
    }

    /// The history of the run has the end of an attempt, which its worker has reported.
    pub(super) fn recorded(&mut self, task: TaskId, attempt: u32, at: Option<DateTime<Utc>>, now: Instant) {
        self.recorded.extend(at.map(|at| Recorded { task, attempt, at, since: now }));
    }

    /// The run has this status. What follows its end is no loss.
    pub(super) fn run_is(&mut self, status: &RunStatus) {
        self.status = Some(status.clone());
    }

    /// The run has ended. Returns whether chunks may be missing that no gap reports.
    pub(super) fn ended(&self) -> bool {
        self.forgotten > 0 || self.losses.iter().any(|loss| self.may_have_lost(loss))
    }

    /// The ends in the history have the time of the worker, and announced ends that of the engine. So they are only counted.
    fn may_have_lost(&self, loss: &Loss) -> bool {
        let only_task = self.announced.only_task();
        let is_affected = |end: &&Recorded| match loss.resumed.get(&end.task) {
            _ if loss.has_completed && end.task == only_task => false,
            // If chunks of its attempt are missing before it, that is a gap.
            Some(Resumed { sent_at: Some(sent_at), .. }) => end.at < *sent_at,
            Some(Resumed { sent_at: None, .. }) => false,
            None => true,
        };
        let affected = || self.recorded.iter().filter(is_affected);
        // The ends that are known to be from before the loss: those that were announced, and those that had been in the history for long.
        let was_over = affected().filter(|end| end.since + ALL_ARRIVED_AFTER <= loss.since);
        let was_over = was_over.map(|end| (end.task, Ending::Attempt(end.attempt)));
        let known: HashSet<_> = self.announced.first(loss.announced).chain(was_over).collect();
        let mut known = count_by_task(known.into_iter().map(|(task, _)| task));
        *known.entry(only_task).or_default() += loss.unannounced;
        let affected = count_by_task(affected().map(|end| end.task));
        let is_resumed = |task: &TaskId| loss.resumed.get(task).is_some_and(|resumed| resumed.is_of_same_attempt);
        !loss.sending.iter().all(is_resumed)
            // The end of a run that was cancelled is not announced as that of an attempt.
            || self.with_children && !self.status.as_ref().is_some_and(is_reported)
            || affected.iter().any(|(task, count)| known.get(task).unwrap_or(&0) < count)
    }
}

/// Whether a status is the end of an attempt that its worker has reported. Only such ends follow all chunks of the attempt.
pub(super) fn is_reported(status: &RunStatus) -> bool {
    matches!(status, RunStatus::Completed | RunStatus::Failed)
}

fn count_by_task(tasks: impl Iterator<Item = TaskId>) -> HashMap<TaskId, usize> {
    let mut counts = HashMap::new();
    for task in tasks {
        *counts.entry(task).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(number: u128) -> TaskId {
        uuid::Uuid::from_u128(number).into()
    }

    fn at(second: i64) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(second, 0)
    }

    /// A single-task run, whose task is 1.
    fn run() -> RunId {
        uuid::Uuid::from_u128(1).into()
    }

    /// What happens to the chunks of a task.
    enum Step {
        Chunk(Place, i64),
        End(i64),
        /// The run is announced as completed.
        Completion,
        /// The run is announced as failed.
        RunFailure,
        Loss,
    }

    use Step::{Chunk, Completion, End, Loss, RunFailure};

    /// Whether chunks may be missing, if these ends are in the history.
    fn is_uncertain(steps: &[Step], ends: &[i64]) -> bool {
        let mut continuity = Continuity::new(run(), false);
        let mut is_uncertain = false;
        for step in steps {
            match step {
                Chunk(place, second) => is_uncertain |= continuity.chunk(task(1), *place, at(*second)),
                End(second) => continuity.announced(task(1), Ending::new(None, at(*second))),
                Completion => continuity.run_ended(true, None),
                RunFailure => continuity.run_ended(false, None),
                Loss => continuity.lost(Instant::now()),
            }
        }
        for (attempt, second) in (1..).zip(ends) {
            continuity.recorded(task(1), attempt, at(*second), Instant::now());
        }
        is_uncertain | continuity.ended()
    }

    const NEW: Place = Place::NewAttempt;
    const SAME: Place = Place::SameAttempt;

    #[test]
    fn a_loss_after_the_last_end_loses_nothing() {
        assert!(!is_uncertain(&[Chunk(NEW, 1), End(2)], &[2]));
        assert!(!is_uncertain(&[Chunk(NEW, 1), End(2), Loss], &[2]));
        assert!(!is_uncertain(&[Chunk(NEW, 1), End(2), Chunk(NEW, 3), End(4), Loss, Loss], &[2, 4]));
        assert!(!is_uncertain(&[End(2), Loss], &[2]), "without chunks");
        assert!(!is_uncertain(&[Loss], &[]), "the run was cancelled in the queue");
    }

    #[test]
    fn a_loss_during_an_attempt_may_lose_its_last_chunks() {
        assert!(is_uncertain(&[Chunk(NEW, 1), Loss, End(3)], &[3]));
        assert!(is_uncertain(&[Chunk(NEW, 1), Loss], &[3]));
        assert!(is_uncertain(&[Loss], &[3]));
        assert!(is_uncertain(&[Chunk(NEW, 1), Loss], &[]), "the attempt was cancelled");
        // It is between the attempts, and the second one may have sent chunks.
        assert!(is_uncertain(&[Chunk(NEW, 1), End(2), Loss], &[2, 4]));
        // The second loss.
        assert!(is_uncertain(&[Chunk(NEW, 1), Loss, Chunk(SAME, 2), Loss, End(4)], &[4]));
        assert!(is_uncertain(&[Chunk(NEW, 1), End(2), Loss, Chunk(NEW, 3), Loss], &[2, 5]));
    }

    /// The result was reported together with others, so only the end of the run is announced.
    #[test]
    fn a_loss_after_the_completion_of_a_single_task_run_loses_nothing() {
        assert!(!is_uncertain(&[Chunk(NEW, 1), Completion, Loss], &[2]));
        assert!(!is_uncertain(&[Chunk(NEW, 1), End(2), Chunk(NEW, 3), Completion, Loss], &[2, 4]));
        assert!(is_uncertain(&[Chunk(NEW, 1), Loss, Completion, Loss], &[2]));
        // The completion of a DAG run can be announced when it starts.
        let mut continuity = Continuity::new(uuid::Uuid::from_u128(9).into(), false);
        continuity.run_ended(true, None);
        continuity.lost(Instant::now());
        continuity.recorded(task(1), 1, at(2), Instant::now());
        assert!(continuity.ended());
    }

    /// The failure was reported together with others, so only that of the run is announced.
    #[test]
    fn a_loss_after_the_failure_of_a_run_loses_nothing_of_the_attempt_that_failed() {
        assert!(!is_uncertain(&[Chunk(NEW, 1), RunFailure, Loss], &[2]));
        assert!(!is_uncertain(&[RunFailure, Loss], &[2]));
        assert!(!is_uncertain(&[Chunk(NEW, 1), End(2), RunFailure, Chunk(NEW, 3), RunFailure, Loss], &[2, 4]));
        assert!(is_uncertain(&[Chunk(NEW, 1), RunFailure, Loss], &[2, 4]), "the retry");
        assert!(is_uncertain(&[Chunk(NEW, 1), End(2), RunFailure, Loss], &[2, 4]), "the retry");
    }

    #[test]
    fn attempts_that_end_at_the_same_time_are_different_ones() {
        let mut continuity = Continuity::new(run(), false);
        for attempt in 1..=3 {
            continuity.announced(task(1), Ending::new(Some(attempt), at(2)));
            continuity.recorded(task(1), 1, at(2), Instant::now());
        }
        continuity.lost(Instant::now());
        assert!(!continuity.ended());
    }

    /// The stream began after the first attempt had ended.
    #[test]
    fn a_loss_long_after_an_attempt_has_lost_nothing_of_it() {
        let is_uncertain = |later: Duration, second_ends: bool| {
            let (mut continuity, start) = (Continuity::new(run(), false), Instant::now());
            continuity.recorded(task(1), 1, at(1), start);
            continuity.lost(start + later);
            if second_ends {
                continuity.recorded(task(1), 2, at(100), start + later);
            }
            continuity.ended()
        };
        // The stream began with the second attempt, whose end was announced.
        let (mut continuity, start) = (Continuity::new(run(), false), Instant::now());
        continuity.recorded(task(1), 1, at(1), start);
        continuity.announced(task(1), Ending::new(Some(2), at(100)));
        continuity.recorded(task(1), 2, at(100), start + ALL_ARRIVED_AFTER);
        continuity.lost(start + ALL_ARRIVED_AFTER);
        assert!(!continuity.ended());
        assert!(!is_uncertain(ALL_ARRIVED_AFTER, false));
        assert!(is_uncertain(ALL_ARRIVED_AFTER / 2, false), "its last events may have been on their way");
        assert!(is_uncertain(ALL_ARRIVED_AFTER, true), "the second attempt may have sent chunks");
    }

    #[test]
    fn the_number_of_remembered_losses_is_limited() {
        let steps = |count| (0..count).flat_map(|_| [Loss, Chunk(SAME, 2)]).chain([End(3)]).collect::<Vec<_>>();
        assert!(!is_uncertain(&steps(MAX_LOSSES), &[3]));
        assert!(is_uncertain(&steps(MAX_LOSSES + 1), &[3]));
    }

    #[test]
    fn a_later_chunk_shows_what_is_missing() {
        assert!(!is_uncertain(&[Chunk(NEW, 1), Loss, Chunk(SAME, 2), End(3)], &[3]));
        assert!(!is_uncertain(&[Chunk(NEW, 1), End(2), Loss, Chunk(NEW, 3), Chunk(SAME, 4)], &[2, 5]));
        // The engine ends the subscription when the run has ended.
        assert!(!is_uncertain(&[Chunk(NEW, 1), Loss, Chunk(SAME, 2), End(3), Loss], &[3]));
        assert!(!is_uncertain(&[Chunk(NEW, 1), Loss, Loss, Chunk(SAME, 2), Loss, Chunk(SAME, 3), End(4), Loss], &[4]));
        // The first attempt has ended during the loss.
        assert!(is_uncertain(&[Chunk(NEW, 1), Loss, Chunk(NEW, 3), Chunk(SAME, 4)], &[2, 5]));
        // The same, and the first chunks of the second one, so that the next one seems to be of the first one.
        assert!(is_uncertain(&[Chunk(NEW, 1), Loss, Chunk(SAME, 4)], &[2, 5]));
        assert!(!is_uncertain(&[Loss, Chunk(NEW, 3)], &[5]), "a chunk after the first one has a number");
        assert!(is_uncertain(&[Chunk(NEW, 1), Loss, Chunk(Place::Outdated, 1)], &[5]));
    }

    /// A run whose task is 1, with a child whose task is 2.
    #[test]
    fn a_child_may_have_sent_chunks_during_a_loss() {
        // The steps, the ends of task 1 in the history, and the final status of the run.
        let is_uncertain = |steps: &[Step], ends: &[i64], status: RunStatus| {
            let mut continuity = Continuity::new(run(), true);
            for step in steps {
                match step {
                    Chunk(place, second) => assert!(!continuity.chunk(task(1), *place, at(*second))),
                    End(second) => continuity.announced(task(1), Ending::new(None, at(*second))),
                    Completion => continuity.run_ended(true, None),
                    RunFailure => continuity.run_ended(false, None),
                    Loss => continuity.lost(Instant::now()),
                }
            }
            continuity.chunk(task(2), NEW, at(1));
            for (attempt, second) in (1..).zip(ends) {
                continuity.recorded(task(1), attempt, at(*second), Instant::now());
            }
            continuity.run_is(&status);
            assert!(continuity.sending.is_empty(), "nothing is kept of the tasks of children");
            continuity.ended()
        };
        // The run itself shows by a later chunk that none of its own is missing.
        assert!(is_uncertain(&[Chunk(NEW, 1), Loss, Chunk(SAME, 5), End(6)], &[6], RunStatus::Completed));
        assert!(is_uncertain(&[Loss, End(6)], &[6], RunStatus::Failed));
        // A child can be cancelled with the run.
        assert!(is_uncertain(&[Chunk(NEW, 1), End(2), Loss], &[2], RunStatus::Cancelled));
        assert!(is_uncertain(&[Loss], &[], RunStatus::TimedOut));
        // The run had ended before, or was not lost.
        assert!(!is_uncertain(&[Chunk(NEW, 1), End(6), Loss], &[6], RunStatus::Completed));
        assert!(!is_uncertain(&[Chunk(NEW, 1), End(6)], &[6], RunStatus::Completed));
    }

    #[test]
    fn a_chunk_without_a_number_shows_nothing_and_is_reported_once() {
        let mut continuity = Continuity::new(run(), false);
        continuity.lost(Instant::now());
        assert!(continuity.chunk(task(1), Place::Unnumbered, at(1)));
        assert!(!continuity.chunk(task(1), Place::Unnumbered, at(2)));
        assert!(!continuity.ended());
    }
}
