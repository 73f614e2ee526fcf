//! Whether the events of a run are late: the pure core of the wait for them after the end of the run.
//!
//! The history of a run can show its end before the events that announce it, and its chunks, have arrived. The end of the last attempt of a
//! task for which there was no event yet shows that. But not all ends are [announced](super::announced). For the others, the announced end of
//! the run counts. If it is not clear what it announces, the events are not late: a stream that waits in vain, and then reports that chunks
//! may be missing, would be wrong more often.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::announced::Announced;
use crate::model::TaskId;

/// By how much the clock of a worker, which has the times of the history, can be ahead of that of the engine, which has those of events.
pub(super) const MAX_CLOCK_SKEW: TimeDelta = TimeDelta::seconds(30);

/// The end of an attempt that the history of the run has.
#[derive(Debug, Clone, Copy)]
struct Expected {
    attempt: u32,
    at: Option<DateTime<Utc>>,
}

#[derive(Debug, Default)]
pub(super) struct Lateness {
    /// The ends during which the subscription was there: the last one of each task, and their number.
    expected: HashMap<TaskId, (Expected, usize)>,
    /// Whether the subscription was lost, so that nothing is expected.
    is_lost: bool,
}

impl Lateness {
    pub(super) fn lost(&mut self) {
        self.is_lost = true;
    }

    /// The history of the run has the end of an attempt during which the subscription was there.
    pub(super) fn expect(&mut self, task: TaskId, attempt: u32, at: Option<DateTime<Utc>>) {
        let end = Expected { attempt, at };
        let (last, count) = self.expected.entry(task).or_insert((end, 0));
        *count += 1;
        if last.attempt < attempt {
            *last = end;
        }
    }

    /// The run has ended. Returns whether the end of the last attempt of a task has not been announced, although the subscription was never
    /// lost: that event and the chunks before it are late.
    pub(super) fn is_behind(&self, announced: &Announced) -> bool {
        !self.is_lost && self.expected.iter().any(|(task, end)| !is_covered(*task, *end, announced))
    }
}

/// Whether the last of a number of ends of a task was announced.
fn is_covered(task: TaskId, (last, count): (Expected, usize), announced: &Announced) -> bool {
    let of_task = announced.of(task);
    // Those without a number are only counted, because their times are those of another clock.
    of_task.last_attempt.is_some_and(|attempt| attempt >= last.attempt)
        || of_task.without_number >= count
        || if task == announced.only_task() {
            announced.has_completed() || announced.unannounced_failures() > 0
        } else {
            announced.run_ended_at().is_some_and(|run| last.at.is_none_or(|at| at <= run + MAX_CLOCK_SKEW))
        }
}

#[cfg(test)]
mod tests {
    use super::super::announced::Ending;
    use super::*;

    const TASK: u128 = 1;

    fn id<I: From<uuid::Uuid>>(number: u128) -> I {
        uuid::Uuid::from_u128(number).into()
    }

    fn at(second: i64) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(second, 0)
    }

    /// The ends in the history, and what was announced.
    struct Bench {
        lateness: Lateness,
        announced: Announced,
    }

    impl Bench {
        fn announced(&mut self, task: TaskId, ending: Option<Ending>) {
            self.announced.attempt_ended(task, ending);
        }

        fn run_ended(&mut self, is_completed: bool, at: Option<DateTime<Utc>>) {
            self.announced.run_ended(is_completed, at);
        }

        fn lost(&mut self) {
            self.lateness.lost();
        }

        fn is_behind(&self) -> bool {
            self.lateness.is_behind(&self.announced)
        }
    }

    /// Of the only task of a run, whose attempts end in these seconds.
    fn expecting(ends: &[i64]) -> Bench {
        of_task(TASK, ends)
    }

    /// Of a task of the run.
    fn of_task(task: u128, ends: &[i64]) -> Bench {
        let mut lateness = Lateness::default();
        for (attempt, second) in (1..).zip(ends) {
            lateness.expect(id(task), attempt, at(*second));
        }
        Bench { lateness, announced: Announced::new(id(TASK)) }
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
