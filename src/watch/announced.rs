//! What events have announced of the ends of a run and of its attempts.
//!
//! The engine announces no end of an attempt whose result was reported together with others, that is of a batch, that timed out, or that was
//! taken from its worker too often. It announces the end of the run after each failed attempt, and too early for DAG runs.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::model::{RunId, TaskId};

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

/// The announced ends of the attempts of a task.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TaskEnds {
    pub(super) last_attempt: Option<u32>,
    pub(super) without_number: usize,
    count: usize,
}

#[derive(Debug)]
pub(super) struct Announced {
    /// The task of a single-task run. Tasks of DAG runs have other ids.
    only_task: TaskId,
    /// The ends of attempts, and their number in the order of arrival.
    attempts: HashMap<(TaskId, Ending), usize>,
    by_task: HashMap<TaskId, TaskEnds>,
    has_completed: bool,
    /// How often another end of the run than its completion was announced.
    failures: usize,
    run_ended_at: Option<DateTime<Utc>>,
}

impl Announced {
    pub(super) fn new(run: RunId) -> Self {
        Self {
            only_task: run.into(),
            attempts: HashMap::new(),
            by_task: HashMap::new(),
            has_completed: false,
            failures: 0,
            run_ended_at: None,
        }
    }

    /// The end of an attempt. One that is announced twice counts once.
    pub(super) fn attempt_ended(&mut self, task: TaskId, ending: Option<Ending>) {
        let Some(ending) = ending else { return };
        let number = self.attempts.len();
        if *self.attempts.entry((task, ending)).or_insert(number) < number {
            return;
        }
        let ends = self.by_task.entry(task).or_default();
        ends.count += 1;
        match ending {
            Ending::Attempt(attempt) => ends.last_attempt = ends.last_attempt.max(Some(attempt)),
            Ending::At(_) => ends.without_number += 1,
        }
    }

    /// The end of the run, which may be too early.
    pub(super) fn run_ended(&mut self, is_completed: bool, at: Option<DateTime<Utc>>) {
        self.has_completed |= is_completed;
        self.failures += usize::from(!is_completed);
        self.run_ended_at = self.run_ended_at.max(at);
    }

    pub(super) fn only_task(&self) -> TaskId {
        self.only_task
    }

    /// Whether the completion of a single-task run was announced. That is never too early.
    pub(super) fn has_completed(&self) -> bool {
        self.has_completed
    }

    /// The time of the last announced end of the run.
    pub(super) fn run_ended_at(&self) -> Option<DateTime<Utc>> {
        self.run_ended_at
    }

    /// The number of announced ends of attempts of all tasks.
    pub(super) fn count(&self) -> usize {
        self.attempts.len()
    }

    /// The first ends of attempts, and their tasks.
    pub(super) fn first(&self, count: usize) -> impl Iterator<Item = (TaskId, Ending)> {
        self.attempts.iter().filter(move |(_, number)| **number < count).map(|(end, _)| *end)
    }

    /// The announced ends of the attempts of a task.
    pub(super) fn of(&self, task: TaskId) -> TaskEnds {
        self.by_task.get(&task).copied().unwrap_or_default()
    }

    /// The number of failures of a single-task run that do not follow the announced end of an attempt. They are those of attempts whose ends
    /// the engine does not announce.
    pub(super) fn unannounced_failures(&self) -> usize {
        self.failures.saturating_sub(self.of(self.only_task).count)
    }
}
