//! Computes the changes of a run from its details.
//!
//! Each time, the whole history is read, and the changes that were returned before are skipped. The status beside the history is a
//! report, and is counted if it is older than the history.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use chrono::{DateTime, Utc};

use crate::model::{Attempt, AttemptStatus, Change, RunDetails, RunId, RunStatus, TaskDetails, Update};

#[derive(Debug)]
pub(super) struct Tracker {
    run: RunId,
    known: Option<AttemptStatus>,
    /// The statuses of the tasks of a DAG run.
    tasks: BTreeMap<String, AttemptStatus>,
    stale: Arc<AtomicU64>,
}

impl Tracker {
    pub(super) fn new(run: RunId, stale: Arc<AtomicU64>) -> Self {
        Self { run, known: None, tasks: BTreeMap::new(), stale }
    }

    /// The changes that are new in these details, in order.
    pub(super) fn update(&mut self, details: &RunDetails) -> Vec<Change> {
        let number = details.attempt();
        let mut changes = Vec::new();
        if details.is_single_task() || details.tasks.is_empty() {
            self.add_attempts(details, number, &mut changes);
        } else {
            self.add_tasks(details, number, &mut changes);
        }
        if let Some(outcome) = &details.outcome {
            let last = details.tasks.first().filter(|_| details.is_single_task()).and_then(|task| task.attempts.last());
            let error = last.and_then(|attempt| attempt.error.clone());
            // Whatever was returned before, a watch must end.
            let known = self.known.as_ref().map_or(0, |known| known.attempt);
            let state = AttemptStatus::new(number.max(known), outcome.status());
            let at = details.finished_at();
            changes.push(Change {
                run_id: self.run,
                task_name: None,
                state,
                changed_at: at,
                error,
                outcome: Some(outcome.clone()),
            });
            return changes;
        }
        // Every run is queued at first, even if there are no events yet.
        if self.known.is_none() {
            let first = AttemptStatus::new(1, RunStatus::Queued);
            changes.extend(self.set_run(&first, details.created_at, None).0);
        }
        if matches!(details.status, RunStatus::Queued | RunStatus::Running) {
            let (change, update) = self.set_run(&AttemptStatus::new(number, details.status.clone()), None, None);
            changes.extend(change);
            if update == Update::Outdated {
                self.stale.fetch_add(1, Relaxed);
            }
        }
        changes
    }

    /// The attempts of a single-task run are those of its task.
    fn add_attempts(&mut self, details: &RunDetails, number: u32, changes: &mut Vec<Change>) {
        for attempt in details.tasks.iter().flat_map(|task| &task.attempts) {
            for (status, at) in states(attempt) {
                // The end of the last attempt is the end of the run, which is returned with the outcome.
                if attempt.number < number || !status.is_final() {
                    let state = AttemptStatus::new(attempt.number, status);
                    changes.extend(self.set_run(&state, at, attempt.error.as_deref()).0);
                }
            }
        }
    }

    /// The attempts of a DAG run are its replays. Its tasks have attempts of their own.
    fn add_tasks(&mut self, details: &RunDetails, number: u32, changes: &mut Vec<Change>) {
        for replay in 1..=number {
            let tasks: Vec<_> = details.tasks.iter().map(|task| (task, attempts_of(task, replay))).collect();
            let all = || tasks.iter().flat_map(|(_, attempts)| attempts.iter().copied());
            let queued =
                if replay == 1 { details.created_at } else { all().filter_map(|attempt| attempt.queued_at).min() };
            changes.extend(self.set_run(&AttemptStatus::new(replay, RunStatus::Queued), queued, None).0);
            if all().any(has_run) {
                let began = all().filter_map(|attempt| attempt.started_at).min();
                changes.extend(self.set_run(&AttemptStatus::new(replay, RunStatus::Running), began, None).0);
            }
            for (task, attempts) in &tasks {
                for attempt in attempts {
                    self.add_task(task, attempt, changes);
                }
            }
            if replay < number {
                let ended = all().filter_map(|attempt| attempt.finished_at).max();
                let status = worst(tasks.iter().filter_map(|(_, attempts)| attempts.last().copied()));
                changes.extend(self.set_run(&AttemptStatus::new(replay, status), ended, None).0);
            }
        }
    }

    fn add_task(&mut self, task: &TaskDetails, attempt: &Attempt, changes: &mut Vec<Change>) {
        for (status, at) in states(attempt) {
            let state = AttemptStatus::new(attempt.number, status);
            let known = self.tasks.get(&task.name);
            if known.is_none_or(|known| self.compare(known, &state) == Update::New) {
                let error = attempt.error.clone().filter(|_| state.status.is_final());
                self.tasks.insert(task.name.clone(), state.clone());
                changes.push(Change {
                    run_id: self.run,
                    task_name: Some(task.name.clone()),
                    state,
                    changed_at: at,
                    error,
                    outcome: None,
                });
            }
        }
    }

    fn set_run(
        &mut self,
        state: &AttemptStatus,
        at: Option<DateTime<Utc>>,
        error: Option<&str>,
    ) -> (Option<Change>, Update) {
        let update = self.known.as_ref().map_or(Update::New, |known| self.compare(known, state));
        let change = (update == Update::New).then(|| {
            self.known = Some(state.clone());
            let error = error.filter(|_| state.status.is_final()).map(str::to_owned);
            Change { run_id: self.run, task_name: None, state: state.clone(), changed_at: at, error, outcome: None }
        });
        (change, update)
    }

    fn compare(&self, known: &AttemptStatus, report: &AttemptStatus) -> Update {
        let update = known.compare(report);
        if update == Update::Invalid {
            tracing::warn!(run = %self.run, %known, %report, "dropped an invalid transition");
        }
        update
    }
}

/// The attempts of a task that belong to the n-th attempt of its run.
fn attempts_of(task: &TaskDetails, replay: u32) -> Vec<&Attempt> {
    let after = |nth: u32| task.replayed_after.get(usize::try_from(nth).ok()?).copied();
    let from = replay.checked_sub(2).and_then(after).unwrap_or(0);
    let to = replay.checked_sub(1).and_then(after).unwrap_or(u32::MAX);
    // A task that was replayed less often has no attempts in later replays.
    let takes_part = replay == 1 || replay.checked_sub(2).and_then(after).is_some();
    task.attempts.iter().filter(|attempt| takes_part && attempt.number > from && attempt.number <= to).collect()
}

/// The final status of a run whose tasks ended with these attempts.
fn worst<'a>(last: impl Iterator<Item = &'a Attempt>) -> RunStatus {
    let rank = |status: &RunStatus| match status {
        RunStatus::Failed => 3,
        RunStatus::TimedOut => 2,
        RunStatus::Completed => 0,
        _ => 1,
    };
    last.map(|attempt| attempt.status.clone()).max_by_key(rank).unwrap_or(RunStatus::Cancelled)
}

fn has_run(attempt: &Attempt) -> bool {
    // A report of the beginning may be missing; one that a worker had has run all the same.
    attempt.started_at.is_some() || attempt.worker_id.is_some() || attempt.status == RunStatus::Running
}

/// The states that an attempt has been in, in order.
fn states(attempt: &Attempt) -> impl Iterator<Item = (RunStatus, Option<DateTime<Utc>>)> {
    let queued = Some((RunStatus::Queued, attempt.queued_at));
    let running = has_run(attempt).then_some((RunStatus::Running, attempt.started_at));
    let ended = attempt.status.is_final().then(|| (attempt.status.clone(), attempt.finished_at));
    [queued, running, ended].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Completed, Outcome, Payload};

    fn details(status: RunStatus, attempts: &[(u32, RunStatus, bool)], outcome: Option<Outcome>) -> RunDetails {
        let run: RunId = "00000000-0000-4000-8001-000000000001".parse().unwrap();
        let at: DateTime<Utc> = "2026-11-23T14:00:00Z".parse().unwrap();
        let attempts = attempts.iter().map(|(number, status, started)| Attempt {
            number: *number,
            status: status.clone(),
            queued_at: Some(at),
            started_at: started.then_some(at),
            finished_at: status.is_final().then_some(at),
            worker_id: None,
            error: None,
        });
        RunDetails {
            id: run,
            workflow_id: None,
            workflow_name: None,
            trigger: crate::model::Trigger::Manual,
            logs: Vec::new(),
            workflow_version_id: None,
            status: status.clone(),
            outcome,
            input: Payload::input("{}"),
            metadata: std::collections::BTreeMap::default(),
            engine_metadata: std::collections::BTreeMap::default(),
            created_at: Some(at),
            tasks: vec![TaskDetails {
                id: run.into(),
                name: "work".into(),
                status,
                outcome: None,
                replayed_after: Vec::new(),
                attempts: attempts.collect(),
            }],
            conflicts: Vec::new(),
        }
    }

    fn done() -> Outcome {
        Outcome::Completed(Completed { output: Payload::output("{}") })
    }

    fn texts(changes: &[Change]) -> Vec<String> {
        let task = |change: &Change| change.task_name.as_ref().map(|task| format!("{task} ")).unwrap_or_default();
        let end = |change: &Change| if change.is_final() { "!" } else { "" };
        changes.iter().map(|change| format!("{}{}{}", task(change), change.state, end(change))).collect()
    }

    #[test]
    fn a_watch_from_the_end_returns_every_change() {
        let mut tracker = Tracker::new("00000000-0000-4000-8001-000000000001".parse().unwrap(), Arc::default());
        let end = details(
            RunStatus::Completed,
            &[(1, RunStatus::Failed, true), (2, RunStatus::Completed, true)],
            Some(done()),
        );
        let all = [
            "QUEUED (attempt 1)",
            "RUNNING (attempt 1)",
            "FAILED (attempt 1)",
            "QUEUED (attempt 2)",
            "RUNNING (attempt 2)",
            "COMPLETED (attempt 2)!",
        ];
        assert_eq!(texts(&tracker.update(&end)), all);
    }

    #[test]
    fn fetches_in_between_return_each_change_once() {
        use RunStatus::{Completed, Failed, Queued, Running};
        let mut tracker = Tracker::new("00000000-0000-4000-8001-000000000001".parse().unwrap(), Arc::default());
        let fetched = [
            details(Queued, &[], None),
            details(Running, &[], None),
            details(Running, &[(1, Queued, false)], None),
            details(Running, &[(1, Running, true)], None),
            // The failure is there, and the next attempt is not: the failure is returned only when it is known not to be the end.
            details(Running, &[(1, Failed, true)], None),
            details(Queued, &[(1, Failed, true), (2, Queued, false)], None),
            details(Completed, &[(1, Failed, true), (2, Completed, true)], Some(done())),
        ];
        let each: Vec<_> = fetched.iter().map(|details| texts(&tracker.update(details)).join(", ")).collect();
        assert_eq!(
            each,
            [
                "QUEUED (attempt 1)",
                "RUNNING (attempt 1)",
                "",
                "",
                "",
                "FAILED (attempt 1), QUEUED (attempt 2)",
                "RUNNING (attempt 2), COMPLETED (attempt 2)!",
            ]
        );
        assert_eq!(tracker.stale.load(Relaxed), 0, "to read the history again is no report");
    }

    #[test]
    fn a_report_that_is_outdated_is_skipped_and_counted() {
        use RunStatus::{Queued, Running};
        let mut tracker = Tracker::new("00000000-0000-4000-8001-000000000001".parse().unwrap(), Arc::default());
        assert_eq!(texts(&tracker.update(&details(Running, &[], None))), ["QUEUED (attempt 1)", "RUNNING (attempt 1)"]);
        assert!(tracker.update(&details(Queued, &[], None)).is_empty());
        assert_eq!(tracker.stale.load(Relaxed), 1);
    }

    fn task(number: u32, name: &str, attempts: &[(u32, RunStatus)], replayed_after: &[u32]) -> TaskDetails {
        let one = details(RunStatus::Running, &[], None);
        let attempts = attempts.iter().map(|(number, status)| Attempt {
            number: *number,
            status: status.clone(),
            queued_at: one.created_at,
            started_at: (*status != RunStatus::Queued).then_some(one.created_at).flatten(),
            finished_at: status.is_final().then_some(one.created_at).flatten(),
            worker_id: None,
            error: None,
        });
        TaskDetails {
            id: format!("00000000-0000-4000-8002-{number:012}").parse().unwrap(),
            name: name.into(),
            status: RunStatus::Queued,
            outcome: None,
            attempts: attempts.collect(),
            replayed_after: replayed_after.to_vec(),
        }
    }

    #[test]
    fn a_dag_run_has_changes_of_its_own_and_of_its_tasks() {
        use RunStatus::{Completed, Failed, Queued, Running};
        let mut tracker = Tracker::new("00000000-0000-4000-8001-000000000001".parse().unwrap(), Arc::default());
        let fetch =
            |status: RunStatus, tasks: Vec<TaskDetails>, outcome| RunDetails { tasks, ..details(status, &[], outcome) };
        let fetched = [
            fetch(Queued, vec![task(1, "a", &[(1, Queued)], &[])], None),
            fetch(Running, vec![task(1, "a", &[(1, Running)], &[])], None),
            // Between two layers the run flickers.
            fetch(Queued, vec![task(1, "a", &[(1, Completed)], &[])], None),
            fetch(
                Running,
                vec![task(1, "a", &[(1, Completed)], &[]), task(2, "b", &[(1, Failed), (2, Running)], &[])],
                None,
            ),
            fetch(
                Completed,
                vec![task(1, "a", &[(1, Completed)], &[]), task(2, "b", &[(1, Failed), (2, Completed)], &[])],
                Some(done()),
            ),
        ];
        let each: Vec<_> = fetched.iter().map(|details| texts(&tracker.update(details)).join(", ")).collect();
        assert_eq!(
            each,
            [
                "QUEUED (attempt 1), a QUEUED (attempt 1)",
                "RUNNING (attempt 1), a RUNNING (attempt 1)",
                "a COMPLETED (attempt 1)",
                "b QUEUED (attempt 1), b RUNNING (attempt 1), b FAILED (attempt 1), b QUEUED (attempt 2), b RUNNING (attempt 2)",
                "b COMPLETED (attempt 2), COMPLETED (attempt 1)!",
            ]
        );
        assert_eq!(tracker.stale.load(Relaxed), 1, "the flicker");
    }

    #[test]
    fn a_replay_is_an_attempt_of_the_whole_run() {
        use RunStatus::{Completed, Failed};
        let mut tracker = Tracker::new("00000000-0000-4000-8001-000000000001".parse().unwrap(), Arc::default());
        let tasks = vec![
            task(1, "a", &[(1, Completed), (2, Completed)], &[1]),
            task(2, "b", &[(1, Failed), (2, Failed), (3, Completed)], &[2]),
        ];
        let end = RunDetails { tasks, ..details(Completed, &[], Some(done())) };
        let runs: Vec<_> = texts(&tracker.update(&end))
            .into_iter()
            .filter(|text| text.starts_with(|c: char| c.is_uppercase()))
            .collect();
        assert_eq!(
            runs,
            [
                "QUEUED (attempt 1)",
                "RUNNING (attempt 1)",
                "FAILED (attempt 1)",
                "QUEUED (attempt 2)",
                "RUNNING (attempt 2)",
                "COMPLETED (attempt 2)!",
            ]
        );
    }
}
