//! The states that the attempts of a task imply, and those that are missing.

use chrono::{DateTime, Utc};

use crate::model::{Attempt, RunStatus, TaskDetails, TaskId};

/// States that must be known before later ones are returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) task: TaskId,
    pub(super) attempt: u32,
    /// Whether the states may not exist.
    pub(super) is_optional: bool,
}

/// What is missing between the expected attempt and the end of another one, which must have ended if `must_end`.
pub(super) fn find_hole(task: TaskId, expected: u32, attempt: &Attempt, must_end: bool) -> Option<Hole> {
    let hole = |attempt, is_optional| Some(Hole { task, attempt, is_optional });
    if expected < attempt.number {
        return hole(expected, false);
    }
    if is_incomplete(attempt, must_end) {
        return hole(attempt.number, false);
    }
    if must_end && lacks_start(attempt) { hole(attempt.number, true) } else { None }
}

/// The first and the last of the attempts whose states are missing between the expected attempt and the end of another one.
pub(super) fn find_gap(expected: u32, attempt: &Attempt, must_end: bool) -> Option<(u32, u32)> {
    let first = expected.min(attempt.number);
    let last = if is_incomplete(attempt, must_end) { Some(attempt.number) } else { attempt.number.checked_sub(1) };
    last.filter(|last| first <= *last).map(|last| (first, last))
}

fn is_incomplete(attempt: &Attempt, must_end: bool) -> bool {
    is_unknown(attempt) || must_end && !attempt.status.is_final()
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
pub(super) fn attempts_of(task: &TaskDetails, replay: u32) -> Vec<&Attempt> {
    let after = |nth: u32| task.replayed_after.get(usize::try_from(nth).ok()?).copied();
    let from = replay.checked_sub(2).and_then(after).unwrap_or(0);
    let to = replay.checked_sub(1).and_then(after).unwrap_or(u32::MAX);
    // A task that was replayed less often has no attempts in later replays.
    let takes_part = replay == 1 || replay.checked_sub(2).and_then(after).is_some();
    task.attempts.iter().filter(|attempt| takes_part && attempt.number > from && attempt.number <= to).collect()
}

/// The final status of a run whose tasks ended with these attempts.
pub(super) fn worst<'a>(last: impl Iterator<Item = &'a Attempt>) -> RunStatus {
    let rank = |status: &RunStatus| match status {
        RunStatus::Failed => 3,
        RunStatus::TimedOut => 2,
        RunStatus::Completed => 0,
        _ => 1,
    };
    last.map(|attempt| attempt.status.clone()).max_by_key(rank).unwrap_or(RunStatus::Cancelled)
}

pub(super) fn has_run(attempt: &Attempt) -> bool {
    // A report of the beginning may be missing; one that a worker had has run all the same.
    attempt.started_at.is_some() || attempt.worker_id.is_some() || attempt.status == RunStatus::Running
}

/// The states that an attempt has been in, in order.
pub(super) fn states(attempt: &Attempt) -> impl Iterator<Item = (RunStatus, Option<DateTime<Utc>>)> {
    let queued = Some((RunStatus::Queued, attempt.queued_at));
    let running = has_run(attempt).then_some((RunStatus::Running, attempt.started_at));
    let ended = attempt.status.is_final().then(|| (attempt.status.clone(), attempt.finished_at));
    [queued, running, ended].into_iter().flatten()
}
