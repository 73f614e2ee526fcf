//! The changes of a run, from what is observed of it: the pure core of a watch.
//!
//! [`Progress::step`] takes an observation, and returns the changes that are new in it and what the watch must do next. The history of
//! the run in the details contains all states, so changes are only taken from other observations if they follow the known state.
//!
//! The engine's history receives the attempts of a task in no order. So a state is only returned when all earlier ones are known.
//! Meanwhile the history is fetched again. If it is not complete after a while, what is missing is returned as a gap.

mod attempts;
#[cfg(feature = "__benches")]
pub(crate) mod bench;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::feed::{Listing, TaskRow};
use crate::model::{
    Attempt, AttemptStatus, Change, Gap, Outcome, RunChange, RunDetails, RunId, RunStatus, TaskChange, TaskDetails,
    TaskId, Update,
};
use attempts::{Hole, attempts_of, find_gap, find_hole, has_run, states, worst};

/// How long a watch waits for states that an earlier or later state implies.
const MAX_HOLD: Duration = Duration::from_secs(10);
/// How long a watch waits for the start of an attempt that has ended. It may never have started.
const MAX_HOLD_FOR_START: Duration = Duration::from_millis(1500);
/// The interval between fetches of an incomplete history grows from the first to the second.
const FIRST_REFETCH: Duration = Duration::from_millis(100);
const MAX_REFETCH: Duration = Duration::from_secs(2);
/// The maximum interval between fetches of a run that has not ended although all of its tasks have.
const MAX_RETRY_REFETCH: Duration = Duration::from_secs(30);
/// From this interval on, the fetches of such a run are a precaution: what follows is nearly always announced. The fetches before
/// are for a history that lags: under load, by up to eight seconds.
const FIRST_PRECAUTION: Duration = Duration::from_secs(10);
/// Below this interval, it is doubled, and then it grows faster: the history rarely lags by more.
const MAX_USUAL_LAG: Duration = Duration::from_millis(400);
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
    /// The same, but the fetch is only a precaution, which other fetches precede.
    Precaution(Duration),
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
    /// Whether the run had no active task when it was last fetched, so that no list contains it.
    is_inactive: bool,
    /// The last attempt whose end was returned.
    ended_attempt: u32,
    /// When an absence from the list was last a reason to fetch.
    absent_at: Option<Instant>,
    ignored: u64,
}

/// Attempts of a task that are taken together.
struct Part<'a> {
    task: &'a TaskDetails,
    attempts: &'a [&'a Attempt],
    /// The first that is not known to its end.
    first: u32,
    /// The number of the last attempt, which need not be there. It may be active, unless `must_end`.
    last: u32,
    must_end: bool,
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
            is_inactive: false,
            ended_attempt: 0,
            absent_at: None,
            ignored: 0,
        }
    }

    pub(super) fn follow_replays(&mut self) {
        self.follows_replays = true;
    }

    /// The number of updates that were ignored because they were outdated, repeated or impossible.
    pub(super) fn ignored_updates(&self) -> u64 {
        self.ignored
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

    /// Events may have been lost. Returns what is next if the list after that does not show what they would have: the end of a run without an
    /// active task, a replay that is over, or the end of a task whose successor is queued.
    pub(super) fn missed(&self) -> Option<Next> {
        let is_affected = self.has_ended() || self.is_inactive || self.is_dag();
        is_affected.then_some(Next::Precaution(Duration::ZERO))
    }

    /// An event has announced a change, which the history may not have yet.
    pub(super) fn announced(&mut self) {
        self.refetch = FIRST_REFETCH;
    }

    fn has_ended(&self) -> bool {
        self.known.as_ref().is_some_and(|known| known.status.is_final())
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
        if matches!(listing, Listing::Rows { rows, .. } if !rows.is_empty()) && std::mem::take(&mut self.is_inactive) {
            // It was inactive when it was last fetched.
            return Next::Fetch;
        }
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
            return match was_running {
                true => Next::Fetch,
                false if with_queued && !self.is_inactive && !self.has_ended() => self.absent(now),
                false => self.idle(),
            };
        }
        match &self.known {
            // REST lists a new run a moment late.
            None if self.started_at.is_some_and(|at| now < at + LIST_LAG) => Next::List,
            Some(known) if known.status == RunStatus::Queued && !with_queued => Next::WaitForStart,
            Some(known) if known.status.is_final() || self.is_inactive => self.idle(),
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
        let is_first = self.known.is_none();
        if is_first {
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
            Update::Outdated | Update::Duplicate | Update::Invalid => {
                self.ignored += u64::from(!is_first);
                self.idle()
            }
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
            return Next::FetchAfter(self.next_refetch(2, MAX_REFETCH));
        }
        self.hold = None;
        if details.has_ended_since(self.from_attempt) {
            self.end(details, changes);
            return if self.follows_replays { self.idle() } else { Next::End };
        }
        self.current(details, changes);
        // A task that has ended, and whose last attempt has not, has an attempt whose events follow.
        let is_active = |task: &TaskDetails| {
            !task.status.is_final() && task.attempts.last().is_none_or(|last| !last.status.is_final())
        };
        // Something follows, which may not be announced: a retry, another task, a replay, or the end.
        self.is_inactive = !details.tasks.iter().any(is_active);
        if self.is_inactive {
            // Nothing can follow but its end, which is not in the history yet.
            let has_completed =
                |task: &TaskDetails| task.attempts.last().is_some_and(|last| last.status == RunStatus::Completed);
            if details.outcome.is_none() && details.is_single_task() && details.tasks.iter().all(has_completed) {
                return Next::FetchAfter(self.next_refetch(2, MAX_REFETCH));
            }
            let factor = if self.refetch < MAX_USUAL_LAG { 2 } else { 4 };
            let pause = self.next_refetch(factor, MAX_RETRY_REFETCH);
            return if pause < FIRST_PRECAUTION { Next::FetchAfter(pause) } else { Next::Precaution(pause) };
        }
        self.idle()
    }

    fn next_refetch(&mut self, factor: u32, max: Duration) -> Duration {
        let pause = self.refetch;
        self.refetch = (pause * factor).min(max);
        pause.min(max)
    }

    /// Takes the states of the history up to the first hole, or with gaps instead of holes.
    fn history(&mut self, details: &RunDetails, with_gaps: bool, changes: &mut Vec<Change>) -> Option<Hole> {
        if !self.is_dag() {
            return self.single_task(details, with_gaps, changes);
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
    fn single_task(&mut self, details: &RunDetails, with_gaps: bool, changes: &mut Vec<Change>) -> Option<Hole> {
        let task = details.tasks.first()?;
        let first = self.known.as_ref().map_or(1, |known| known.attempt);
        let attempts: Vec<_> = task.attempts.iter().collect();
        let must_end = details.has_ended_since(self.from_attempt);
        let part = Part { task, attempts: &attempts, first, last: details.attempt(), must_end };
        self.attempts(&part, with_gaps, changes)
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
        let last = attempts.last()?.number;
        let first_of_replay = attempts.first()?.number;
        let mut first = self.tasks.get(&task.id).map_or(1, |known| known.attempt.max(1));
        // What precedes the first attempt of a replay belongs to an earlier one, whose holes have been dealt with.
        if task.replayed_after.contains(&first_of_replay.saturating_sub(1)) {
            first = first.max(first_of_replay);
        }
        self.attempts(&Part { task, attempts, first, last, must_end }, with_gaps, changes)
    }

    /// Takes the states of attempts of a task up to the first hole, or with gaps instead of holes.
    fn attempts(&mut self, part: &Part<'_>, with_gaps: bool, changes: &mut Vec<Change>) -> Option<Hole> {
        let &Part { task, attempts, first, last, must_end } = part;
        let mut expected = first;
        for attempt in attempts.iter().skip_while(|attempt| attempt.number < first) {
            let is_last = attempt.number >= last;
            let must_end = (!is_last || must_end) && !task.replayed_after.contains(&attempt.number);
            let hole = if with_gaps {
                self.gap(find_gap(expected, attempt, must_end), task, changes);
                None
            } else {
                find_hole(task.id, expected, attempt, must_end)
            };
            if hole.is_some_and(|hole| hole.attempt < attempt.number) {
                return hole;
            }
            for (status, at) in states(attempt) {
                // The last end of a single-task run is the end of the run, which is returned with the outcome.
                let is_held = hole.is_some() || is_last && !self.is_dag();
                if status.is_final() && is_held {
                    continue;
                }
                let error = attempt.error.clone().filter(|_| status.is_final());
                let state = AttemptStatus::new(attempt.number, status);
                if self.is_dag() {
                    self.set_task(task, state, at, error, changes);
                } else {
                    self.set_run(state, at, error, changes);
                }
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
        let last = details.tasks.first().and_then(|task| task.attempts.last());
        let error = match outcome {
            Outcome::Failed(failure) if self.is_dag() => failure.message.clone(),
            Outcome::TimedOut(timeout) if self.is_dag() => timeout.message.clone(),
            _ if self.is_dag() => None,
            _ => last.and_then(|attempt| attempt.error.clone()),
        };
        let state = AttemptStatus::new(number, outcome.status());
        self.known = Some(state.clone());
        changes.push(Change::Run(RunChange {
            run_id: self.run,
            attempt_status: state,
            changed_at: details.finished_at(),
            error,
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
                self.ignored += 1;
            }
        }
    }

    fn set_run(
        &mut self,
        attempt_status: AttemptStatus,
        changed_at: Option<DateTime<Utc>>,
        error: Option<String>,
        changes: &mut Vec<Change>,
    ) -> Update {
        let update = compare(self.run, self.known.as_ref(), &attempt_status);
        if update == Update::New {
            self.known = Some(attempt_status.clone());
            changes.push(Change::Run(RunChange { run_id: self.run, attempt_status, changed_at, error, outcome: None }));
        }
        self.ignored += u64::from(update == Update::Invalid);
        update
    }

    fn set_task(
        &mut self,
        task: &TaskDetails,
        attempt_status: AttemptStatus,
        changed_at: Option<DateTime<Utc>>,
        error: Option<String>,
        changes: &mut Vec<Change>,
    ) {
        let update = compare(self.run, self.tasks.get(&task.id), &attempt_status);
        self.ignored += u64::from(update == Update::Invalid);
        if update == Update::New {
            self.tasks.insert(task.id, attempt_status.clone());
            let (run_id, task_id, task_name) = (self.run, task.id, task.name.clone());
            changes.push(Change::Task(TaskChange { run_id, task_id, task_name, attempt_status, changed_at, error }));
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
