//! Whether the events of a run are late: the pure core of the wait for them after the end of the run.
//!
//! The history of a run can show its end before the events that announce it, and its chunks, have arrived. The end of an attempt for which
//! there was no event yet shows that. But the engine announces no end of an attempt whose result was reported together with others, that
//! is of a batch, or that was taken from its worker too often. It announces the end of all their runs, which is later than they are.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use crate::model::{RunId, TaskId};

/// By how much the clock of a worker, which has the times of the history, can be ahead of that of the engine, which has those of events.
const MAX_CLOCK_SKEW: TimeDelta = TimeDelta::seconds(1);

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
    /// Whether the completion of the run was announced, and the time of the last end of it that was.
    has_completed: bool,
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
        self.run_ended_at = self.run_ended_at.max(at);
    }

    /// The run has ended. Returns whether the end of an attempt has not been announced, although the subscription was never lost: that event
    /// and the chunks before it are late.
    pub(super) fn is_behind(&self) -> bool {
        if self.is_lost {
            return false;
        }
        let mut missing = HashMap::<_, usize>::new();
        for end in self.expected.iter().filter(|end| !self.is_covered(end)) {
            *missing.entry(end.task).or_default() += 1;
        }
        // Those without a number are only counted, because their times are those of another clock.
        let without_number =
            |task| self.announced.iter().filter(|(of, ending)| *of == task && matches!(ending, Ending::At(_))).count();
        missing.into_iter().any(|(task, count)| without_number(task) < count)
    }

    fn is_covered(&self, end: &Expected) -> bool {
        self.announced.contains(&(end.task, Ending::Attempt(end.attempt)))
            // The completion of a single-task run is never announced too early.
            || self.has_completed && end.task == self.only_task
            || end.at.zip(self.run_ended_at).is_some_and(|(end, run)| end <= run + MAX_CLOCK_SKEW)
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

    #[test]
    fn the_end_of_the_run_is_later_than_all_ends_before_it() {
        for task in [TASK, 2] {
            let mut lateness = of_task(task, &[2, 9]);
            lateness.run_ended(false, at(2));
            assert!(lateness.is_behind(), "the engine also announces it after each failed attempt");
            lateness.run_ended(false, at(8));
            assert!(!lateness.is_behind(), "the clock of the worker is ahead");
        }
    }

    #[test]
    fn the_completion_of_a_dag_run_can_be_too_early() {
        let mut of_dag = of_task(2, &[9]);
        of_dag.run_ended(true, at(1));
        assert!(of_dag.is_behind());
        of_dag.run_ended(true, at(9));
        of_dag.run_ended(true, at(1));
        assert!(!of_dag.is_behind());
        // In a single-task run, only the clock of the worker can be that wrong.
        let mut of_single = expecting(&[9]);
        of_single.run_ended(true, at(1));
        assert!(!of_single.is_behind());
    }
}
