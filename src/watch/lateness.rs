//! Whether the events of a run are late: the pure core of the wait for them after the end of the run.
//!
//! The history of a run can show its end before the events that announce it, and its chunks, have arrived. The end of the last attempt of a
//! task for which there was no event yet shows that. But the engine announces no end of an attempt whose result was reported together with
//! others, that is of a batch, that timed out, or that was taken from its worker too often. For these, the announced end of the run counts.
//! It also follows each announced failure of an attempt, and comes too early for DAG runs. If it is not clear what it announces, the events
//! are not late: a stream that waits in vain, and then reports that chunks may be missing, would be wrong more often.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use crate::model::{RunId, TaskId};

/// By how much the clock of a worker, which has the times of the history, can be ahead of that of the engine, which has those of events.
const MAX_CLOCK_SKEW: TimeDelta = TimeDelta::seconds(30);

/// Which attempt of a task has ended, as the engine has announced it: its number, or without one the time of the announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Ending {
    Attempt(u32),
    At(DateTime<Utc>),
}

impl Ending {
    pub(super) fn new(attempt: Option<u32>, at: Option<DateTime<Utc>>) -> Option<Self> {
        attempt.map(Self::Attempt).or(at.map(Self::At))
    }
}

/// The end of an attempt that the history of the run has.
#[derive(Debug)]
struct Expected {
    task: TaskId,
    attempt: u32,
    at: Option<DateTime<Utc>>,
}

#[derive(Debug)]
pub(super) struct Lateness {
    /// The task of a single-task run. Tasks of DAG runs have other ids.
    only_task: TaskId,
    /// The ends during which the subscription was there.
    expected: Vec<Expected>,
    announced: HashSet<(TaskId, Ending)>,
    /// Whether the completion of the run was announced, how often another end of it was, and the time of the last one.
    has_completed: bool,
    failures: usize,
    run_ended_at: Option<DateTime<Utc>>,
    /// Whether the subscription was lost, so that nothing is expected.
    is_lost: bool,
}

impl Lateness {
    pub(super) fn new(run: RunId) -> Self {
        Self {
            only_task: run.into(),
            expected: Vec::new(),
            announced: HashSet::new(),
            has_completed: false,
            failures: 0,
            run_ended_at: None,
            is_lost: false,
        }
    }

    pub(super) fn lost(&mut self) {
        self.is_lost = true;
    }

    /// The history of the run has the end of an attempt during which the subscription was there.
    pub(super) fn expect(&mut self, task: TaskId, attempt: u32, at: Option<DateTime<Utc>>) {
        self.expected.push(Expected { task, attempt, at });
    }

    /// An event has announced the end of an attempt.
    pub(super) fn announced(&mut self, task: TaskId, ending: Option<Ending>) {
        self.announced.extend(ending.map(|ending| (task, ending)));
    }

    /// An event has announced the end of the run, which may be too early.
    pub(super) fn run_ended(&mut self, is_completed: bool, at: Option<DateTime<Utc>>) {
        self.has_completed |= is_completed;
        self.failures += usize::from(!is_completed);
        self.run_ended_at = self.run_ended_at.max(at);
    }

    /// The run has ended. Returns whether the end of the last attempt of a task has not been announced, although the subscription was never
    /// lost: that event and the chunks before it are late.
    pub(super) fn is_behind(&self) -> bool {
        let mut last = HashMap::<_, &Expected>::new();
        for end in &self.expected {
            let known = last.entry(end.task).or_insert(end);
            if known.attempt < end.attempt {
                *known = end;
            }
        }
        !self.is_lost && last.into_values().any(|end| !self.is_covered(end))
    }

    fn is_covered(&self, last: &Expected) -> bool {
        let announced = || self.announced.iter().filter(|(of, _)| *of == last.task).map(|(_, ending)| ending);
        let is_announced = announced().any(|ending| matches!(ending, Ending::Attempt(attempt) if *attempt >= last.attempt))
            // Those without a number are only counted, because their times are those of another clock.
            || announced().filter(|ending| matches!(ending, Ending::At(_))).count() >= self.expected_of(last.task);
        is_announced
            || if last.task == self.only_task {
                // The completion of a single-task run is never announced too early. A failure of the run that does not follow that of
                // an attempt is that of an attempt that is not announced.
                self.has_completed || self.failures > announced().count()
            } else {
                self.run_ended_at.is_some_and(|run| last.at.is_none_or(|at| at <= run + MAX_CLOCK_SKEW))
            }
    }

    fn expected_of(&self, task: TaskId) -> usize {
        self.expected.iter().filter(|end| end.task == task).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: u128 = 1;

    fn id<I: From<uuid::Uuid>>(number: u128) -> I {
        uuid::Uuid::from_u128(number).into()
    }

    fn at(second: i64) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(second, 0)
    }

    /// Of the only task of a run, whose attempts end in these seconds.
    fn expecting(ends: &[i64]) -> Lateness {
        of_task(TASK, ends)
    }

    /// Of a task of the run.
    fn of_task(task: u128, ends: &[i64]) -> Lateness {
        let mut lateness = Lateness::new(id(TASK));
        for (attempt, second) in (1..).zip(ends) {
            lateness.expect(id(task), attempt, at(*second));
        }
        lateness
    }

    #[test]
    fn an_end_that_was_not_announced_is_late() {
        let mut lateness = expecting(&[2, 4]);
        assert!(lateness.is_behind());
        lateness.announced(id(TASK), Ending::new(Some(1), at(2)));
        lateness.announced(id(TASK), Ending::new(Some(1), at(3)));
        assert!(lateness.is_behind(), "that one was announced twice");
        lateness.announced(id(TASK), Ending::new(Some(2), at(4)));
        assert!(!lateness.is_behind());
        assert!(!expecting(&[]).is_behind(), "the run was cancelled");
        let mut lateness = expecting(&[2]);
        lateness.lost();
        assert!(!lateness.is_behind(), "the event may be lost");
    }

    #[test]
    fn ends_at_the_same_time_are_different_ones() {
        let mut lateness = expecting(&[2, 2, 2]);
        for attempt in 1..=3 {
            assert!(lateness.is_behind());
            lateness.announced(id(TASK), Ending::new(Some(attempt), at(2)));
        }
        assert!(!lateness.is_behind());
    }

    #[test]
    fn ends_without_a_number_are_counted() {
        let mut lateness = expecting(&[2, 4]);
        lateness.announced(id(TASK), Ending::new(None, at(3)));
        lateness.announced(id(TASK), Ending::new(None, at(3)));
        lateness.announced(id(2), Ending::new(None, at(4)));
        lateness.announced(id(TASK), None);
        assert!(lateness.is_behind());
        lateness.announced(id(TASK), Ending::new(None, at(5)));
        assert!(!lateness.is_behind());
    }

    /// However close to it the next attempt ends, and whatever the clock of the worker shows.
    #[test]
    fn the_failure_of_a_run_after_that_of_an_attempt_is_not_the_end() {
        for second in [0, 2, 3, 900] {
            let mut lateness = expecting(&[2, second]);
            lateness.announced(id(TASK), Ending::new(Some(1), at(2)));
            lateness.run_ended(false, at(2));
            assert!(lateness.is_behind());
            lateness.run_ended(false, at(3));
            assert!(!lateness.is_behind(), "the engine did not announce the end of the attempt");
        }
    }

    #[test]
    fn the_failure_of_a_run_is_that_of_an_attempt_that_is_not_announced() {
        let mut lateness = expecting(&[900]);
        lateness.run_ended(false, at(2));
        assert!(!lateness.is_behind());
        // A timeout that is followed by a retry is not announced at all.
        let mut lateness = expecting(&[2, 4]);
        lateness.run_ended(false, at(4));
        assert!(!lateness.is_behind());
    }

    #[test]
    fn the_completion_of_a_dag_run_can_be_too_early() {
        let mut of_dag = of_task(2, &[60]);
        of_dag.run_ended(true, at(1));
        assert!(of_dag.is_behind());
        of_dag.run_ended(true, at(31));
        of_dag.run_ended(true, at(1));
        assert!(!of_dag.is_behind(), "the clock of the worker is ahead");
        let mut of_single = expecting(&[60]);
        of_single.run_ended(true, at(1));
        assert!(!of_single.is_behind());
    }
}
