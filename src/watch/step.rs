//! The changes of a run, from what is observed of it: the pure core of a watch.
//!
//! [`Progress::step`] takes an observation, and returns the changes that are new in it and what the watch must do next. The history of
//! the run in the details contains all states, so changes are only taken from other observations if they follow the known state.
//!
//! The engine's history receives the attempts of a task in no order. So a state is only returned when all earlier ones are known.
//! Meanwhile the history is fetched again. If it is not complete after a while, what is missing is returned as a gap.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::feed::{Listing, TaskRow};
use crate::model::{
    Attempt, AttemptStatus, Change, Gap, RunChange, RunDetails, RunId, RunStatus, TaskChange, TaskDetails, TaskId,
    Update,
};

/// How long a watch waits for states that an earlier or later state implies.
const MAX_HOLD: Duration = Duration::from_secs(10);
/// How long a watch waits for the start of an attempt that has ended. It may never have started.
const MAX_HOLD_FOR_START: Duration = Duration::from_millis(1500);
/// The interval between fetches of an incomplete history grows from the first to the second.
const FIRST_REFETCH: Duration = Duration::from_millis(100);
const MAX_REFETCH: Duration = Duration::from_secs(2);
/// The maximum interval between fetches of a run that has not ended although all of its tasks have.
const MAX_RETRY_REFETCH: Duration = Duration::from_secs(30);
/// The time after which REST usually lists a new run.
const LIST_LAG: Duration = Duration::from_millis(250);

/// What was observed of a run.
#[derive(Debug, Clone, Copy)]
pub(super) enum Observation<'a> {
    /// The engine announced the creation of a task.
    Created { task: TaskId, at: Option<DateTime<Utc>> },
    /// A list of tasks that have not ended was fetched.
    Listed(&'a Listing),
    /// The details were fetched.
    Details(&'a RunDetails),
}

/// The result of a step.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) changes: Vec<Change>,
    pub(super) next: Next,
}

/// What a watch does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait for a list that contains the run.
    List,
    /// Wait for the start of a queued attempt, or for an event.
    WaitForStart,
    /// Wait for an event.
    WaitForEnd,
    /// Fetch the details.
    Fetch,
    /// Fetch the details after a while, or after an event.
    FetchAfter(Duration),
    /// The run has ended.
    End,
}

/// What is known of a run that is watched.
#[derive(Debug)]
pub(super) struct Progress {
    run: RunId,
    /// The attempt whose end is the end of the run.
    from_attempt: u32,
    /// Whether the watch continues after the end of the run.
    follows_replays: bool,
    /// When the client started the run, if it did.
    started_at: Option<Instant>,
    known: Option<AttemptStatus>,
    /// The statuses of the tasks of a DAG run.
    tasks: BTreeMap<TaskId, AttemptStatus>,
    /// Whether it is a DAG run, if that is known.
    is_dag: Option<bool>,
    /// The running tasks of a DAG run in the last list.
    running: Vec<(TaskId, u32)>,
    /// What the watch waits for, and since when.
    hold: Option<(Hole, Instant)>,
    refetch: Duration,
    /// The last attempt whose end was returned.
    ended_attempt: u32,
    /// When an absence from the list was last a reason to fetch.
    absent_at: Option<Instant>,
    stale: u64,
}

/// States that must be known before later ones are returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hole {
    task: Option<TaskId>,
    attempt: u32,
    /// Whether the states may not exist.
    is_optional: bool,
}

impl Progress {
    pub(super) fn new(run: RunId, from_attempt: u32, started_at: Option<Instant>) -> Self {
        Self {
            run,
            from_attempt,
            follows_replays: false,
            started_at,
            known: None,
            tasks: BTreeMap::new(),
            is_dag: None,
            running: Vec::new(),
            hold: None,
            refetch: FIRST_REFETCH,
            ended_attempt: 0,
            absent_at: None,
            stale: 0,
        }
    }

    pub(super) fn follow_replays(&mut self) {
        self.follows_replays = true;
    }

    /// The number of reports that were dropped because they were outdated.
    pub(super) fn stale_reports(&self) -> u64 {
        self.stale
    }

    pub(super) fn is_dag(&self) -> bool {
        self.is_dag == Some(true)
    }

    /// Takes an observation.
    pub(super) fn step(&mut self, now: Instant, observation: Observation<'_>) -> Step {
        let mut changes = Vec::new();
        let next = match observation {
            Observation::Created { task, at } => self.created(task, at, &mut changes),
            Observation::Listed(listing) => self.listed(now, listing, &mut changes),
            Observation::Details(details) => self.details(now, details, &mut changes),
        };
        if !changes.is_empty() {
            self.refetch = FIRST_REFETCH;
            self.absent_at = None;
        }
        Step { changes, next }
    }

    /// What the watch does if nothing else is to be done.
    fn idle(&self) -> Next {
        match &self.known {
            None => Next::List,
            Some(known) if known.status == RunStatus::Queued || self.is_dag() => Next::WaitForStart,
            Some(_) => Next::WaitForEnd,
        }
    }

    fn created(&mut self, task: TaskId, at: Option<DateTime<Utc>>, changes: &mut Vec<Change>) -> Next {
        let is_dag = *self.is_dag.get_or_insert(!task.is_single_task_of(self.run));
        if self.known.is_none() && self.from_attempt <= 1 {
            self.set_run(AttemptStatus::new(1, RunStatus::Queued), at, None, changes);
        }
        // The names of the tasks of a DAG run are only in its details.
        if is_dag { Next::Fetch } else { self.idle() }
    }

    fn listed(&mut self, now: Instant, listing: &Listing, changes: &mut Vec<Change>) -> Next {
        match listing {
            Listing::Failed => Next::Fetch,
            Listing::Unknown => self.absent(now),
            Listing::Rows { rows, with_queued } => match &rows[..] {
                [] => self.is_missing_from(now, *with_queued),
                [one] if one.task.is_single_task_of(self.run) => self.listed_one(now, one, changes),
                _ => {
                    self.is_dag = Some(true);
                    let mut running: Vec<_> = rows
                        .iter()
                        .filter(|row| row.status == RunStatus::Running)
                        .map(|row| (row.task, row.attempt))
                        .collect();
                    running.sort_unstable();
                    if self.known.is_none() || running != self.running {
                        self.running = running;
                        return Next::Fetch;
                    }
                    self.idle()
                }
            },
        }
    }

    /// A list of all active tasks, or of the running ones, does not contain the run.
    fn is_missing_from(&mut self, now: Instant, with_queued: bool) -> Next {
        if self.is_dag() {
            let was_running = !std::mem::take(&mut self.running).is_empty();
            return if was_running { Next::Fetch } else { self.idle() };
        }
        match &self.known {
            // REST lists a new run a moment late.
            None if self.started_at.is_some_and(|at| now < at + LIST_LAG) => Next::List,
            Some(known) if known.status == RunStatus::Queued && !with_queued => Next::WaitForStart,
            Some(known) if known.status.is_final() => self.idle(),
            _ => self.absent(now),
        }
    }

    /// An absence is a reason to fetch, but not again and again.
    fn absent(&mut self, now: Instant) -> Next {
        if self.absent_at.is_some_and(|at| now < at + self.refetch) {
            return if self.known.is_none() { Next::FetchAfter(self.refetch) } else { self.idle() };
        }
        if self.absent_at.replace(now).is_some() {
            self.refetch = (self.refetch * 2).min(MAX_RETRY_REFETCH);
        }
        Next::Fetch
    }

    fn listed_one(&mut self, now: Instant, row: &TaskRow, changes: &mut Vec<Change>) -> Next {
        self.is_dag = Some(false);
        let listed = AttemptStatus::new(row.attempt, row.status.clone());
        if self.known.is_none() {
            if row.attempt != 1 || self.from_attempt > 1 {
                return Next::Fetch;
            }
            self.set_run(AttemptStatus::new(1, RunStatus::Queued), row.created_at, None, changes);
        }
        let Some(known) = &self.known else { return Next::Fetch };
        match known.compare(&listed) {
            Update::New if listed.attempt == known.attempt && listed.status == RunStatus::Running => {
                self.set_run(listed, row.started_at, None, changes);
                self.idle()
            }
            // An end, or another attempt: the history has the states in between.
            Update::New => Next::Fetch,
            // The last attempt has ended, and may be retried.
            Update::Outdated if known.status.is_final() && known.attempt == listed.attempt => self.absent(now),
            Update::Outdated => {
                self.stale += 1;
                self.idle()
            }
            Update::Duplicate | Update::Invalid => self.idle(),
        }
    }

    fn details(&mut self, now: Instant, details: &RunDetails, changes: &mut Vec<Change>) -> Next {
        self.is_dag = Some(!details.tasks.is_empty() && !details.is_single_task());
        let hole = match self.history(details, false, changes) {
            Some(hole) => {
                let since = match self.hold {
                    Some((held, since)) if held == hole && changes.is_empty() => since,
                    _ => self.hold.insert((hole, now)).1,
                };
                let limit = if hole.is_optional { MAX_HOLD_FOR_START } else { MAX_HOLD };
                if now < since + limit { Some(hole) } else { self.history(details, true, changes) }
            }
            None => None,
        };
        if hole.is_some() {
            return self.fetch_later(MAX_REFETCH);
        }
        self.hold = None;
        if details.has_ended_since(self.from_attempt) {
            self.end(details, changes);
            return if self.follows_replays { self.idle() } else { Next::End };
        }
        self.current(details, changes);
        let is_active = |task: &TaskDetails| task.attempts.last().is_none_or(|last| !last.status.is_final());
        // Something follows, which may not be announced: a retry, another task, a replay, or the end.
        if !details.tasks.iter().any(is_active) {
            return self.fetch_later(MAX_RETRY_REFETCH);
        }
        self.idle()
    }

    fn fetch_later(&mut self, max: Duration) -> Next {
        let pause = self.refetch;
        self.refetch = (pause * 2).min(max);
        Next::FetchAfter(pause.min(max))
    }

    /// Takes the states of the history up to the first hole, or with gaps instead of holes.
    fn history(&mut self, details: &RunDetails, with_gaps: bool, changes: &mut Vec<Change>) -> Option<Hole> {
        if !self.is_dag() {
            return self.attempts(details, with_gaps, changes);
        }
        // The attempts of a DAG run are its replays. Its tasks have attempts of their own.
        let number = details.attempt();
        let mut first_hole = None;
        for replay in 1..=number {
            let tasks: Vec<_> = details.tasks.iter().map(|task| (task, attempts_of(task, replay))).collect();
            let all = || tasks.iter().flat_map(|(_, attempts)| attempts.iter().copied());
            let created_at = if replay == 1 { details.created_at } else { None };
            let queued_at = created_at.or_else(|| all().filter_map(|attempt| attempt.queued_at).min());
            self.set_run(AttemptStatus::new(replay, RunStatus::Queued), queued_at, None, changes);
            if all().any(has_run) {
                let began = all().filter_map(|attempt| attempt.started_at).min();
                self.set_run(AttemptStatus::new(replay, RunStatus::Running), began, None, changes);
            }
            let must_end = replay < number || details.has_ended_since(self.from_attempt);
            for (task, attempts) in &tasks {
                let hole = self.task(task, attempts, must_end, with_gaps, changes);
                first_hole = first_hole.or(hole);
            }
            if first_hole.is_some() {
                return first_hole;
            }
            if replay < number {
                let ended = all().filter_map(|attempt| attempt.finished_at).max();
                let status = worst(tasks.iter().filter_map(|(_, attempts)| attempts.last().copied()));
                self.set_run(AttemptStatus::new(replay, status), ended, None, changes);
            }
        }
        None
    }

    /// The attempts of a single-task run are those of its task.
    fn attempts(&mut self, details: &RunDetails, with_gaps: bool, changes: &mut Vec<Change>) -> Option<Hole> {
        let task = details.tasks.first()?;
        let (number, has_ended) = (details.attempt(), details.has_ended_since(self.from_attempt));
        let first = self.known.as_ref().map_or(1, |known| known.attempt);
        let mut expected = first;
        let mut holes = Holes::new(None, with_gaps);
        for attempt in task.attempts.iter().skip_while(|attempt| attempt.number < first) {
            let is_last = attempt.number >= number;
            let must_end = (!is_last || has_ended) && !task.replayed_after.contains(&attempt.number);
            let hole = holes.before(expected, attempt, must_end);
            self.gap(holes.take_gap(), task, changes);
            if hole.is_some_and(|hole| hole.attempt < attempt.number) {
                return hole;
            }
            for (status, at) in states(attempt) {
                // The end of the last attempt is the end of the run, which is returned with the outcome.
                let is_held = status.is_final() && (is_last || hole.is_some());
                if !is_held {
                    let error = attempt.error.clone().filter(|_| status.is_final());
                    self.set_run(AttemptStatus::new(attempt.number, status), at, error, changes);
                }
            }
            if hole.is_some() {
                return hole;
            }
            expected = attempt.number.saturating_add(1);
        }
        None
    }

    /// The attempts of a task of a DAG run, of one replay.
    fn task(
        &mut self,
        task: &TaskDetails,
        attempts: &[&Attempt],
        must_end: bool,
        with_gaps: bool,
        changes: &mut Vec<Change>,
    ) -> Option<Hole> {
        let known = self.tasks.get(&task.id).map_or(0, |known| known.attempt);
        let first = attempts.first().map_or(1, |first| first.number);
        let mut expected = known.max(1);
        // What precedes the first attempt of a replay belongs to an earlier one, whose holes have been dealt with.
        if task.replayed_after.contains(&first.saturating_sub(1)) {
            expected = expected.max(first);
        }
        let from = expected;
        let mut holes = Holes::new(Some(task.id), with_gaps);
        let last = attempts.last().map(|last| last.number);
        for attempt in attempts.iter().skip_while(|attempt| attempt.number < from) {
            let is_last = Some(attempt.number) == last;
            let must_end = (!is_last || must_end) && !task.replayed_after.contains(&attempt.number);
            let hole = holes.before(expected, attempt, must_end);
            self.gap(holes.take_gap(), task, changes);
            if hole.is_some_and(|hole| hole.attempt < attempt.number) {
                return hole;
            }
            for (status, at) in states(attempt).filter(|(status, _)| hole.is_none() || !status.is_final()) {
                let error = attempt.error.clone().filter(|_| status.is_final());
                self.set_task(task, AttemptStatus::new(attempt.number, status), at, error, changes);
            }
            if hole.is_some() {
                return hole;
            }
            expected = attempt.number.saturating_add(1);
        }
        None
    }

    fn gap(&self, missing: Option<(u32, u32)>, task: &TaskDetails, changes: &mut Vec<Change>) {
        let task_name = self.is_dag().then(|| task.name.clone());
        changes.extend(missing.map(|(first_attempt, last_attempt)| {
            Change::Gap(Gap { run_id: self.run, task_name, first_attempt, last_attempt })
        }));
    }

    /// The end of the run. Whatever was returned before, a watch must end.
    fn end(&mut self, details: &RunDetails, changes: &mut Vec<Change>) {
        let Some(outcome) = &details.outcome else { return };
        let number = details.attempt().max(self.known.as_ref().map_or(0, |known| known.attempt));
        if number <= self.ended_attempt {
            return;
        }
        self.ended_attempt = number;
        let last = details.tasks.first().filter(|_| !self.is_dag()).and_then(|task| task.attempts.last());
        let state = AttemptStatus::new(number, outcome.status());
        self.known = Some(state.clone());
        changes.push(Change::Run(RunChange {
            run_id: self.run,
            state,
            changed_at: details.finished_at(),
            error: last.and_then(|attempt| attempt.error.clone()),
            outcome: Some(outcome.clone()),
        }));
    }

    /// The status beside the history.
    fn current(&mut self, details: &RunDetails, changes: &mut Vec<Change>) {
        // Every run is queued at first, even if there are no events yet.
        if self.known.is_none() {
            self.set_run(AttemptStatus::new(1, RunStatus::Queued), details.created_at, None, changes);
        }
        if matches!(details.status, RunStatus::Queued | RunStatus::Running) {
            let reported = AttemptStatus::new(details.attempt(), details.status.clone());
            if self.set_run(reported, None, None, changes) == Update::Outdated {
                self.stale += 1;
            }
        }
    }

    fn set_run(
        &mut self,
        state: AttemptStatus,
        changed_at: Option<DateTime<Utc>>,
        error: Option<String>,
        changes: &mut Vec<Change>,
    ) -> Update {
        let update = compare(self.run, self.known.as_ref(), &state);
        if update == Update::New {
            self.known = Some(state.clone());
            changes.push(Change::Run(RunChange { run_id: self.run, state, changed_at, error, outcome: None }));
        }
        update
    }

    fn set_task(
        &mut self,
        task: &TaskDetails,
        state: AttemptStatus,
        changed_at: Option<DateTime<Utc>>,
        error: Option<String>,
        changes: &mut Vec<Change>,
    ) {
        if compare(self.run, self.tasks.get(&task.id), &state) == Update::New {
            self.tasks.insert(task.id, state.clone());
            let (run_id, task_id, task_name) = (self.run, task.id, task.name.clone());
            changes.push(Change::Task(TaskChange { run_id, task_id, task_name, state, changed_at, error }));
        }
    }
}

fn compare(run: RunId, known: Option<&AttemptStatus>, report: &AttemptStatus) -> Update {
    let Some(known) = known else { return Update::New };
    let update = known.compare(report);
    if update == Update::Invalid {
        tracing::warn!(run_id = %run, %known, %report, "dropped an invalid transition");
    }
    update
}

/// Finds what is missing in the attempts of a task.
struct Holes {
    task: Option<TaskId>,
    with_gaps: bool,
    gap: Option<(u32, u32)>,
}

impl Holes {
    fn new(task: Option<TaskId>, with_gaps: bool) -> Self {
        Self { task, with_gaps, gap: None }
    }

    /// What is missing before the end of an attempt. With gaps, nothing is.
    fn before(&mut self, expected: u32, attempt: &Attempt, must_end: bool) -> Option<Hole> {
        let hole = |attempt, is_optional| Some(Hole { task: self.task, attempt, is_optional });
        let is_incomplete = is_unknown(attempt) || must_end && !attempt.status.is_final();
        if self.with_gaps {
            let first = if expected < attempt.number { Some(expected) } else { None };
            let last = if is_incomplete { Some(attempt.number) } else { None };
            let last = last.or(first.map(|_| attempt.number.saturating_sub(1)));
            self.gap = last.map(|last| (first.unwrap_or(attempt.number), last));
            return None;
        }
        if expected < attempt.number {
            return hole(expected, false);
        }
        if is_incomplete {
            return hole(attempt.number, false);
        }
        if must_end && lacks_start(attempt) { hole(attempt.number, true) } else { None }
    }

    fn take_gap(&mut self) -> Option<(u32, u32)> {
        self.gap.take()
    }
}

/// Whether nothing but the number of an attempt is known.
fn is_unknown(attempt: &Attempt) -> bool {
    let Attempt { queued_at, started_at, finished_at, worker_id, .. } = attempt;
    queued_at.is_none() && started_at.is_none() && finished_at.is_none() && worker_id.is_none()
}

/// Whether the start of an attempt that has ended may be missing.
fn lacks_start(attempt: &Attempt) -> bool {
    let may_have_started = match attempt.status {
        RunStatus::Failed => true,
        // A task that was skipped, or whose schedule timeout passed, has no start.
        RunStatus::Completed | RunStatus::TimedOut => attempt.worker_id.is_some(),
        _ => false,
    };
    may_have_started && attempt.started_at.is_none()
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
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn progress() -> Progress {
        Progress::new("00000000-0000-4000-8001-000000000001".parse().unwrap(), 1, None)
    }

    fn update(progress: &mut Progress, details: &RunDetails) -> Vec<Change> {
        progress.step(Instant::now(), Observation::Details(details)).changes
    }

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
        let task = |change: &Change| change.task_name().map(|task| format!("{task} ")).unwrap_or_default();
        let end = |change: &Change| if change.is_final() { "!" } else { "" };
        changes
            .iter()
            .map(|change| match change.state() {
                Some(state) => format!("{}{state}{}", task(change), end(change)),
                None => change.to_string(),
            })
            .collect()
    }

    #[test]
    fn a_watch_from_the_end_returns_every_change() {
        let mut progress = progress();
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
        assert_eq!(texts(&update(&mut progress, &end)), all);
    }

    #[test]
    fn fetches_in_between_return_each_change_once() {
        use RunStatus::{Completed, Failed, Queued, Running};
        let mut progress = progress();
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
        let each: Vec<_> = fetched.iter().map(|details| texts(&update(&mut progress, details)).join(", ")).collect();
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
        assert_eq!(progress.stale, 0, "to read the history again is no report");
    }

    #[test]
    fn a_report_that_is_outdated_is_skipped_and_counted() {
        use RunStatus::{Queued, Running};
        let mut progress = progress();
        assert_eq!(
            texts(&update(&mut progress, &details(Running, &[], None))),
            ["QUEUED (attempt 1)", "RUNNING (attempt 1)"]
        );
        assert!(update(&mut progress, &details(Queued, &[], None)).is_empty());
        assert_eq!(progress.stale, 1);
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
        let mut progress = progress();
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
        let each: Vec<_> = fetched.iter().map(|details| texts(&update(&mut progress, details)).join(", ")).collect();
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
        assert_eq!(progress.stale, 1, "the flicker");
    }

    #[test]
    fn a_replay_is_an_attempt_of_the_whole_run() {
        use RunStatus::{Completed, Failed};
        let mut progress = progress();
        let tasks = vec![
            task(1, "a", &[(1, Completed), (2, Completed)], &[1]),
            task(2, "b", &[(1, Failed), (2, Failed), (3, Completed)], &[2]),
        ];
        let end = RunDetails { tasks, ..details(Completed, &[], Some(done())) };
        let runs: Vec<_> = texts(&update(&mut progress, &end))
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

    #[test]
    fn later_attempts_wait_for_earlier_ones_whose_events_are_late() {
        use RunStatus::{Completed, Failed, Running};
        let (mut progress, start) = (progress(), Instant::now());
        let mut at = |seconds: u32, details: &RunDetails| {
            let step = progress.step(start + SECOND * seconds, Observation::Details(details));
            (texts(&step.changes).join(", "), step.next)
        };
        let first = [(1, Running, true)];
        assert_eq!(at(0, &details(Running, &first, None)).0, "QUEUED (attempt 1), RUNNING (attempt 1)");
        // The first attempt has failed, and its end is not in the history.
        let second = [(1, Running, true), (2, Running, true)];
        assert_eq!(at(1, &details(Running, &second, None)), (String::new(), Next::FetchAfter(FIRST_REFETCH)));
        assert_eq!(at(2, &details(Running, &second, None)), (String::new(), Next::FetchAfter(2 * FIRST_REFETCH)));
        let complete = [(1, Failed, true), (2, Running, true)];
        let late = at(9, &details(Running, &complete, None));
        assert_eq!(late.0, "FAILED (attempt 1), QUEUED (attempt 2), RUNNING (attempt 2)");
        // The third attempt is never in the history. The run ends with the fourth one.
        let rest = [(1, Failed, true), (2, Failed, true), (4, Completed, true)];
        let end = details(Completed, &rest, Some(done()));
        assert_eq!(at(10, &end).0, "FAILED (attempt 2)");
        assert_eq!(at(19, &end).0, "");
        let last = at(20, &end);
        assert_eq!(
            last.0,
            "states of attempt 3 are missing, QUEUED (attempt 4), RUNNING (attempt 4), COMPLETED (attempt 4)!"
        );
        assert_eq!(last.1, Next::End);
    }

    #[test]
    fn an_attempt_of_a_task_of_a_dag_can_be_late_too() {
        use RunStatus::{Completed, Queued, Running};
        let (mut progress, start) = (progress(), Instant::now());
        let fetch = |tasks, outcome| RunDetails { tasks, ..details(Running, &[], outcome) };
        let mut at = |seconds: u32, details: &RunDetails| {
            texts(&progress.step(start + SECOND * seconds, Observation::Details(details)).changes).join(", ")
        };
        let tasks = || vec![task(1, "a", &[(2, Completed)], &[]), task(2, "b", &[(1, Queued)], &[])];
        let run = "QUEUED (attempt 1), RUNNING (attempt 1)";
        assert_eq!(at(0, &fetch(tasks(), None)), format!("{run}, b QUEUED (attempt 1)"));
        let end = || vec![task(1, "a", &[(2, Completed)], &[]), task(2, "b", &[(1, Completed)], &[])];
        assert_eq!(at(1, &fetch(end(), Some(done()))), "b RUNNING (attempt 1), b COMPLETED (attempt 1)");
        assert_eq!(
            at(12, &fetch(end(), Some(done()))),
            "a: states of attempt 1 are missing, a QUEUED (attempt 2), a RUNNING (attempt 2), a COMPLETED (attempt 2), \
             COMPLETED (attempt 1)!"
        );
    }

    fn listed(rows: Vec<TaskRow>, with_queued: bool) -> Listing {
        Listing::Rows { rows, with_queued }
    }

    fn row(attempt: u32, status: RunStatus) -> TaskRow {
        let run: RunId = "00000000-0000-4000-8001-000000000001".parse().unwrap();
        TaskRow { run, task: run.into(), attempt, status, created_at: None, started_at: None }
    }

    #[test]
    fn a_list_shows_the_start_of_the_first_attempt() {
        use RunStatus::{Queued, Running};
        let (mut progress, now) = (progress(), Instant::now());
        let mut list = |rows, with_queued| {
            let step = progress.step(now, Observation::Listed(&listed(rows, with_queued)));
            (texts(&step.changes).join(", "), step.next)
        };
        let nothing = String::new;
        assert_eq!(list(vec![row(1, Queued)], true), ("QUEUED (attempt 1)".into(), Next::WaitForStart));
        assert_eq!(list(Vec::new(), false), (nothing(), Next::WaitForStart), "it is still queued");
        assert_eq!(list(vec![row(1, Running)], false), ("RUNNING (attempt 1)".into(), Next::WaitForEnd));
        assert_eq!(list(vec![row(1, Queued)], true), (nothing(), Next::WaitForEnd), "REST is behind");
        assert_eq!(
            list(vec![row(2, Queued)], true),
            (nothing(), Next::Fetch),
            "the end of attempt 1 is in the history"
        );
        assert_eq!(list(Vec::new(), false), (nothing(), Next::Fetch), "it is no longer running");
        assert_eq!(list(Vec::new(), false), (nothing(), Next::WaitForEnd), "not again and again");
        assert_eq!(progress.stale, 1);
    }

    /// A run of a single task: what happens, and when REST has it.
    struct World {
        rng: fastrand::Rng,
        /// The state, when it is reached, and when its event is in the history.
        events: Vec<(AttemptStatus, Duration, Duration)>,
        ends_at: Duration,
    }

    impl World {
        /// Events can be late by up to `max_delay`. Of those that may be lost, some are.
        fn new(seed: u64, max_delay: Duration, may_lose: bool) -> Self {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut now, mut events) = (Duration::ZERO, Vec::new());
            let attempts = rng.u32(1..=4);
            for attempt in 1..=attempts {
                let end = if attempt < attempts { RunStatus::Failed } else { RunStatus::Completed };
                for status in [RunStatus::Queued, RunStatus::Running, end] {
                    now += Duration::from_millis(rng.u64(0..800));
                    // A start may be missing for good, so a watch waits for it for a shorter time.
                    let max = if status == RunStatus::Running { max_delay.min(SECOND) } else { max_delay };
                    let delay = max.mul_f64(rng.f64());
                    let is_lost = may_lose && rng.u8(..) < 50;
                    let visible = if is_lost { Duration::MAX } else { now + delay };
                    events.push((AttemptStatus::new(attempt, status), now, visible));
                }
            }
            Self { rng, ends_at: now, events }
        }

        fn truth(&self) -> Vec<AttemptStatus> {
            self.events.iter().map(|(state, ..)| state.clone()).collect()
        }

        /// The state at a time.
        fn current(&self, at: Duration) -> Option<&AttemptStatus> {
            self.events.iter().take_while(|(_, reached, _)| *reached <= at).map(|(state, ..)| state).last()
        }

        fn details(&self, at: Duration) -> RunDetails {
            let mut attempts: BTreeMap<u32, Attempt> = BTreeMap::new();
            let time = DateTime::UNIX_EPOCH;
            for (state, ..) in self.events.iter().filter(|(_, reached, visible)| *reached <= at && *visible <= at) {
                let attempt = attempts.entry(state.attempt).or_insert_with(|| unknown(state.attempt));
                match &state.status {
                    RunStatus::Queued => attempt.queued_at = Some(time),
                    status => {
                        attempt.worker_id = Some(uuid::Uuid::from_u128(7).into());
                        let has_started = *status == RunStatus::Running;
                        *(if has_started { &mut attempt.started_at } else { &mut attempt.finished_at }) = Some(time);
                        if !attempt.status.is_final() {
                            attempt.status = status.clone();
                        }
                    }
                }
            }
            // A fetch waits for the end to be in the history, unless it is lost.
            let shows_end = self.events.last().is_none_or(|(.., visible)| *visible <= at || *visible == Duration::MAX);
            let outcome = (at >= self.ends_at && shows_end).then(done);
            if let (Some(_), Some((last, ..))) = (&outcome, self.events.last()) {
                attempts.entry(last.attempt).or_insert_with(|| unknown(last.attempt)).status = last.status.clone();
            }
            let current = self.current(at).map_or(RunStatus::Queued, |state| state.status.clone());
            let status = if current.is_final() && outcome.is_none() { RunStatus::Queued } else { current };
            let mut details = details(status, &[], outcome);
            details.tasks[0].attempts = attempts.into_values().collect();
            details
        }

        /// The row of a list that may be behind.
        fn listing(&mut self, at: Duration) -> Listing {
            let behind = at.saturating_sub(Duration::from_millis(self.rng.u64(0..700)));
            let with_queued = self.rng.bool();
            let rows = self.current(behind).filter(|state| match state.status {
                RunStatus::Queued => with_queued,
                _ => !state.status.is_final(),
            });
            listed(rows.map(|state| row(state.attempt, state.status.clone())).into_iter().collect(), with_queued)
        }
    }

    fn unknown(number: u32) -> Attempt {
        let status = RunStatus::Queued;
        Attempt { number, status, queued_at: None, started_at: None, finished_at: None, worker_id: None, error: None }
    }

    /// Watches a world with random observations, and returns the changes.
    fn follow(world: &mut World) -> Vec<Change> {
        let (mut progress, start, mut now) = (progress(), Instant::now(), Duration::ZERO);
        let (mut next, mut changes) = (Next::List, Vec::new());
        let task: TaskId = progress.run.into();
        for _ in 0..10_000 {
            let listing = world.listing(now);
            let details = world.details(now);
            let observation = match (next, world.rng.u8(0..10)) {
                (Next::End, _) => break,
                (Next::Fetch, _) | (_, 0..2) => Observation::Details(&details),
                (_, 2) => Observation::Created { task, at: None },
                (_, 3..6) => Observation::Listed(&listing),
                (Next::FetchAfter(delay), _) => {
                    now += delay;
                    next = Next::Fetch;
                    continue;
                }
                _ => {
                    now += Duration::from_millis(world.rng.u64(0..600));
                    continue;
                }
            };
            let step = progress.step(start + now, observation);
            changes.extend(step.changes);
            next = step.next;
        }
        assert_eq!(next, Next::End, "a watch ends: {changes:?}");
        changes
    }

    fn states_of(changes: &[Change]) -> Vec<AttemptStatus> {
        changes.iter().filter_map(Change::state).cloned().collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        /// Whatever is observed and whenever it arrives, all states are returned in order.
        #[test]
        fn all_states_are_returned_in_order(seed: u64) {
            let mut world = World::new(seed, 8 * SECOND, false);
            let changes = follow(&mut world);
            prop_assert_eq!(states_of(&changes), world.truth());
            prop_assert!(!changes.iter().any(|change| change.kind() == crate::model::ChangeKind::Gap));
        }

        /// What is lost is a gap, and what is returned is in order and ends once.
        #[test]
        fn lost_states_are_gaps(seed: u64) {
            let mut world = World::new(seed, SECOND, true);
            let changes = follow(&mut world);
            let (truth, states) = (world.truth(), states_of(&changes));
            let mut rest = truth.iter();
            prop_assert!(states.iter().all(|state| rest.any(|other| other == state)), "{states:?}");
            prop_assert_eq!(changes.iter().filter(|change| change.is_final()).count(), 1);
            prop_assert!(changes.last().is_some_and(Change::is_final));
            let in_gap = |attempt: u32| changes.iter().any(|change| {
                matches!(change, Change::Gap(gap) if (gap.first_attempt..=gap.last_attempt).contains(&attempt))
            });
            // An attempt that has no end, or nothing at all, is in a gap.
            let missing = truth.iter().filter(|state| state.status.is_final() && !states.contains(state));
            for state in missing {
                prop_assert!(in_gap(state.attempt), "{state} of {changes:?}");
            }
        }
    }
}
