//! Whether chunks may have been lost without a gap, because the subscription was lost: the pure core of
//! [`ChunkItem::Interrupted`](crate::model::ChunkItem::Interrupted).
//!
//! The engine also ends a subscription when all runs that it has seen have ended. So a loss alone says nothing: it matters only if an
//! attempt had not ended before it, and no later chunk shows that none is missing.

use std::collections::{HashMap, HashSet, VecDeque};

use chrono::{DateTime, Utc};

use super::reorder::Place;
use crate::model::TaskId;

/// The number of losses that are remembered. Without the oldest ones, chunks may be missing.
const MAX_LOSSES: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Continuity {
    /// The ends of attempts that were announced, and their number in the order of arrival.
    announced: HashMap<(TaskId, DateTime<Utc>), usize>,
    /// The ends of attempts that the history of the run has.
    recorded: Vec<(TaskId, DateTime<Utc>)>,
    /// The tasks that have sent chunks in an attempt that has not ended.
    sending: HashSet<TaskId>,
    losses: VecDeque<Loss>,
    /// Whether nothing has arrived since the last loss.
    is_lost: bool,
    has_forgotten: bool,
}

/// A loss of the subscription.
#[derive(Debug)]
struct Loss {
    /// The number of ends that were announced before it.
    announced: usize,
    sending: HashSet<TaskId>,
    /// The tasks of which later chunks have arrived, and when the attempt of these began if it is another one.
    resumed: HashMap<TaskId, Option<DateTime<Utc>>>,
}

impl Continuity {
    /// The subscription was lost.
    pub(super) fn lost(&mut self) {
        if std::mem::replace(&mut self.is_lost, true) {
            return;
        }
        let (announced, sending) = (self.announced.len(), self.sending.clone());
        self.losses.push_back(Loss { announced, sending, resumed: HashMap::new() });
        if self.losses.len() > MAX_LOSSES {
            self.losses.pop_front();
            self.has_forgotten = true;
        }
    }

    /// A chunk has arrived. Returns whether chunks may be missing before it that no gap reports.
    pub(super) fn chunk(&mut self, task: TaskId, place: Place, sent_at: Option<DateTime<Utc>>) -> bool {
        self.is_lost = false;
        self.sending.insert(task);
        let began_at = match place {
            Place::Outdated => return false,
            Place::Unnumbered => {
                let is_uncertain = !self.losses.is_empty();
                self.losses.clear();
                return is_uncertain;
            }
            // If chunks of this attempt are missing, that is a gap.
            Place::SameAttempt => None,
            Place::NewAttempt => sent_at,
        };
        // Earlier losses were followed by earlier chunks.
        for loss in self.losses.iter_mut().rev().take_while(|loss| !loss.resumed.contains_key(&task)) {
            loss.resumed.insert(task, began_at);
        }
        false
    }

    /// An event has announced the end of an attempt.
    pub(super) fn announced(&mut self, task: TaskId, at: Option<DateTime<Utc>>) {
        self.is_lost = false;
        self.sending.remove(&task);
        if let Some(at) = at {
            let number = self.announced.len();
            // One that is announced twice counts once.
            self.announced.entry((task, at)).or_insert(number);
        }
    }

    /// The history of the run has the end of an attempt, which its worker has reported.
    pub(super) fn recorded(&mut self, task: TaskId, at: Option<DateTime<Utc>>) {
        self.recorded.extend(at.map(|at| (task, at)));
    }

    /// The run has ended. Returns whether chunks may be missing that no gap reports.
    pub(super) fn ended(&self) -> bool {
        self.has_forgotten || self.losses.iter().any(|loss| self.may_have_lost(loss))
    }

    /// The ends in the history have the time of the worker, and announced ends that of the engine. So they are only counted.
    fn may_have_lost(&self, loss: &Loss) -> bool {
        let is_affected = |(task, at): &&(TaskId, DateTime<Utc>)| match loss.resumed.get(task) {
            Some(None) => false,
            // A chunk of this attempt or of an earlier one shows that none is missing after it.
            Some(Some(began_at)) => at < began_at,
            None => true,
        };
        let affected = count_by_task(self.recorded.iter().filter(is_affected).map(|(task, _)| *task));
        let before = self.announced.iter().filter(|(_, number)| **number < loss.announced);
        let announced = count_by_task(before.map(|((task, _), _)| *task));
        let is_resumed = |task: &TaskId| matches!(loss.resumed.get(task), Some(None));
        !loss.sending.iter().all(is_resumed)
            || affected.iter().any(|(task, count)| announced.get(task).unwrap_or(&0) < count)
    }
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

    /// What happens to the chunks of a task.
    enum Step {
        Chunk(Place, i64),
        End(i64),
        Loss,
    }

    use Step::{Chunk, End, Loss};

    /// Whether chunks may be missing, if these ends are in the history.
    fn is_uncertain(steps: &[Step], ends: &[i64]) -> bool {
        let mut continuity = Continuity::default();
        let mut is_uncertain = false;
        for step in steps {
            match step {
                Chunk(place, second) => is_uncertain |= continuity.chunk(task(1), *place, at(*second)),
                End(second) => continuity.announced(task(1), at(*second)),
                Loss => continuity.lost(),
            }
        }
        for second in ends {
            continuity.recorded(task(1), at(*second));
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
        assert!(!is_uncertain(&[Loss, Chunk(NEW, 3)], &[5]), "a chunk after the first one has a number");
        assert!(is_uncertain(&[Chunk(NEW, 1), Loss, Chunk(Place::Outdated, 1)], &[5]));
    }

    #[test]
    fn a_chunk_without_a_number_shows_nothing_and_is_reported_once() {
        let mut continuity = Continuity::default();
        continuity.lost();
        assert!(continuity.chunk(task(1), Place::Unnumbered, at(1)));
        assert!(!continuity.chunk(task(1), Place::Unnumbered, at(2)));
        assert!(!continuity.ended());
    }
}
