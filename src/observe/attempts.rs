//! The attempts of a task, from its events.
//!
//! The timestamps of events are not in causal order, so they do not determine the order: the retry count of an event determines its
//! attempt, and its kind determines its place within the attempt.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};

use crate::model::{Attempt, RunStatus, attempt_number};
use crate::rpc::convert::{TaskEvent, TaskEventKind};

/// What an event means for its attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Meaning {
    Queued,
    Taken,
    Started,
    Ended(RunStatus),
    /// The status does not change.
    Nothing,
}

impl Meaning {
    fn of(kind: &TaskEventKind) -> Self {
        use TaskEventKind as Kind;
        match kind {
            Kind::Created
            | Kind::Queued
            | Kind::Retrying
            | Kind::RequeuedNoWorker
            | Kind::RequeuedRateLimit
            | Kind::WaitingForBatch => Self::Queued,
            Kind::BatchFlushed | Kind::Assigned | Kind::SentToWorker | Kind::Acknowledged => Self::Taken,
            Kind::Started => Self::Started,
            Kind::Finished | Kind::Skipped => Self::Ended(RunStatus::Completed),
            Kind::Failed | Kind::Reassigned | Kind::CouldNotSendToWorker => Self::Ended(RunStatus::Failed),
            Kind::Cancelled => Self::Ended(RunStatus::Cancelled),
            Kind::TimedOut | Kind::SchedulingTimedOut => Self::Ended(RunStatus::TimedOut),
            Kind::RetriedByUser | Kind::Other(_) => Self::Nothing,
        }
    }
}

/// The ends that an attempt has.
type Ends<'a> = Vec<(RunStatus, &'a TaskEvent)>;

/// The attempts, oldest first.
pub(super) fn attempts<'a>(events: impl IntoIterator<Item = &'a TaskEvent>) -> Vec<Attempt> {
    let mut attempts: BTreeMap<u32, (Attempt, Ends<'_>)> = BTreeMap::new();
    let mut retried = HashSet::new();
    for event in events {
        let number = attempt_number(event.retry_count.unwrap_or(0));
        if event.kind == TaskEventKind::Retrying {
            retried.insert(number.saturating_sub(1));
        }
        let (attempt, ends) = attempts.entry(number).or_insert_with(|| {
            let attempt = Attempt {
                number,
                status: RunStatus::Queued,
                queued_at: None,
                started_at: None,
                finished_at: None,
                worker_id: None,
                error: None,
            };
            (attempt, Vec::new())
        });
        let meaning = Meaning::of(&event.kind);
        take(attempt, event, &meaning);
        if let Meaning::Ended(status) = meaning {
            ends.push((status, event));
        }
    }
    let with_end = |(mut attempt, ends): (Attempt, Ends<'_>)| {
        let was_retried = retried.contains(&attempt.number);
        if let Some((status, event)) = counting_end(ends, was_retried) {
            attempt.finished_at = Some(event.timestamp);
            attempt.error =
                Some(error_text(event).to_owned()).filter(|text| !text.is_empty() && status != RunStatus::Completed);
            attempt.status = status;
        }
        attempt
    };
    attempts.into_values().map(with_end).collect()
}

/// The end that counts, of all ends of an attempt. If the engine has taken the attempt from its worker, or has started another attempt
/// after a failure, the attempt failed: a late output is recorded and ignored. Otherwise it is one with an output; otherwise not a cancellation
/// if there is a failure, because all API views show a task that fails after its cancellation as failed; otherwise the first one, because the
/// schedule timeout of a run that was cancelled in the queue still passes.
fn counting_end(ends: Ends<'_>, was_retried: bool) -> Option<(RunStatus, &TaskEvent)> {
    let has_failed = ends.iter().any(|(status, _)| *status == RunStatus::Failed);
    let is_failure = |status: &RunStatus| matches!(status, RunStatus::Failed | RunStatus::TimedOut);
    let was_taken = ends.iter().any(|(_, event)| event.kind == TaskEventKind::Reassigned)
        || was_retried && ends.iter().any(|(status, _)| is_failure(status));
    let counts = |(status, _): &(RunStatus, &TaskEvent)| {
        if was_taken { is_failure(status) } else { !has_failed || *status != RunStatus::Cancelled }
    };
    // At the same time, a cancellation came first, so the order of the events does not matter.
    ends.into_iter().filter(counts).min_by_key(|(status, event)| {
        let rank = (*status != RunStatus::Cancelled, &event.kind);
        (*status != RunStatus::Completed, event.timestamp, rank)
    })
}

/// The time and the error message of an attempt's end with a status.
pub(super) fn end_of(events: &[&TaskEvent], number: u32, status: &RunStatus) -> Option<(DateTime<Utc>, String)> {
    let is_end = |event: &&&TaskEvent| {
        Meaning::of(&event.kind) == Meaning::Ended(status.clone())
            && attempt_number(event.retry_count.unwrap_or(0)) == number
    };
    events.iter().find(is_end).map(|event| (event.timestamp, error_text(event).to_owned()))
}

fn error_text(event: &TaskEvent) -> &str {
    event.error_message.as_deref().filter(|text| !text.is_empty()).unwrap_or(&event.message)
}

/// The numbers of the attempts after which a task was replayed, in order. The event is one of the attempt before.
pub(super) fn replayed_after<'a>(events: impl IntoIterator<Item = &'a TaskEvent>) -> Vec<u32> {
    let replays = events.into_iter().filter(|event| event.kind == TaskEventKind::RetriedByUser);
    let mut numbers: Vec<_> = replays.map(|event| attempt_number(event.retry_count.unwrap_or(0))).collect();
    numbers.sort_unstable();
    numbers
}

fn take(attempt: &mut Attempt, event: &TaskEvent, meaning: &Meaning) {
    if let Some(worker) = event.worker_id.filter(|_| *meaning != Meaning::Nothing) {
        attempt.worker_id = Some(worker);
    }
    match meaning {
        Meaning::Queued => earliest(&mut attempt.queued_at, event.timestamp),
        Meaning::Taken => raise(attempt, RunStatus::Running),
        Meaning::Started => {
            earliest(&mut attempt.started_at, event.timestamp);
            raise(attempt, RunStatus::Running);
        }
        // Which end counts is decided when all are known.
        Meaning::Ended(_) | Meaning::Nothing => {}
    }
}

fn earliest(time: &mut Option<DateTime<Utc>>, at: DateTime<Utc>) {
    *time = Some(time.map_or(at, |known| known.min(at)));
}

fn raise(attempt: &mut Attempt, status: RunStatus) {
    if !attempt.status.is_final() {
        attempt.status = status;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(super) fn event(kind: &str, retry_count: u32, second: u32) -> TaskEvent {
        TaskEvent {
            task_id: None,
            kind: TaskEventKind::from_name(kind),
            timestamp: format!("2026-11-23T14:00:{second:02}Z").parse().unwrap(),
            retry_count: Some(retry_count),
            message: String::new(),
            error_message: (kind == "FAILED").then(|| "it broke".into()),
            worker_id: None,
        }
    }

    #[test]
    fn events_belong_to_attempts_by_their_retry_count() {
        let events = [
            event("FINISHED", 1, 9),
            event("STARTED", 1, 8),
            event("QUEUED", 1, 7),
            event("RETRYING", 1, 6),
            event("FAILED", 0, 5),
            event("STARTED", 0, 4),
            event("QUEUED", 0, 3),
            event("SENT_TO_WORKER", 0, 2),
            event("SOMETHING_NEW", 0, 1),
        ];
        let [first, second] = attempts(&events).try_into().unwrap();
        assert_eq!((first.number, first.status, first.error.as_deref()), (1, RunStatus::Failed, Some("it broke")));
        assert_eq!((second.number, second.status, second.error), (2, RunStatus::Completed, None));
        assert_eq!(second.queued_at.unwrap().timestamp() % 60, 6);
    }

    #[test]
    fn an_output_counts_more_than_a_late_cancel_in_either_order() {
        let (a, b) = (event("FINISHED", 0, 1), event("CANCELLED", 0, 2));
        assert_eq!(attempts(&[a.clone(), b.clone()])[0].status, RunStatus::Completed);
        assert_eq!(attempts(&[b, a])[0].status, RunStatus::Completed);
    }

    #[test]
    fn a_late_output_of_an_attempt_that_was_taken_from_its_worker_does_not_count() {
        let reassigned = [event("REASSIGNED", 0, 5), event("FINISHED", 0, 9), event("ASSIGNED", 1, 6)];
        assert_eq!(attempts(&reassigned)[0].status, RunStatus::Failed);
        let retried = [event("TIMED_OUT", 0, 5), event("RETRYING", 1, 6), event("FINISHED", 0, 9)];
        assert_eq!(attempts(&retried)[0].status, RunStatus::TimedOut);
        // The last attempt counts as completed, and so does one that was replayed.
        let flipped = [event("FAILED", 0, 5), event("FINISHED", 0, 9), event("RETRIED_BY_USER", 0, 10)];
        assert_eq!(attempts(&flipped)[0].status, RunStatus::Completed);
    }

    #[test]
    fn retry_counts_saturate() {
        for (retry_count, number) in [(0, 1), (2_147_483_647, 2_147_483_648), (u32::MAX, u32::MAX)] {
            let events = [event("STARTED", retry_count, 1), event("RETRIED_BY_USER", retry_count, 2)];
            assert_eq!(attempts(&events).first().map(|attempt| attempt.number), Some(number));
            assert_eq!(replayed_after(&events), [number]);
        }
    }

    #[test]
    fn a_schedule_timeout_after_a_cancel_changes_nothing() {
        let (a, b) = (event("CANCELLED", 0, 1), event("SCHEDULING_TIMED_OUT", 0, 5));
        assert_eq!(attempts(&[a.clone(), b.clone()])[0].status, RunStatus::Cancelled);
        assert_eq!(attempts(&[b.clone(), a])[0].status, RunStatus::Cancelled);
        // A run that was cancelled after its timeout had timed out.
        let late = event("CANCELLED", 0, 9);
        assert_eq!(attempts(&[b.clone(), late.clone()])[0].status, RunStatus::TimedOut);
        assert_eq!(attempts(&[late, b])[0].status, RunStatus::TimedOut);
    }

    proptest! {
        #[test]
        fn ends_in_any_order_are_one(
            (ends, shuffled) in proptest::collection::vec(
                (proptest::sample::select(vec!["FINISHED", "FAILED", "CANCELLED", "TIMED_OUT", "SCHEDULING_TIMED_OUT"]), 0u32..4),
                2..6,
            ).prop_flat_map(|ends| (Just(ends.clone()), Just(ends).prop_shuffle())),
        ) {
            let status = |ends: &[(&str, u32)]| {
                let events: Vec<_> = ends.iter().map(|(kind, at)| event(kind, 0, *at)).collect();
                let attempt = attempts(&events).remove(0);
                (attempt.status, attempt.finished_at)
            };
            prop_assert_eq!(status(&ends), status(&shuffled));
        }

        #[test]
        fn the_order_of_events_does_not_matter(order in Just((0..9).collect::<Vec<usize>>()).prop_shuffle()) {
            let kinds = ["QUEUED", "ASSIGNED", "SENT_TO_WORKER", "STARTED", "FAILED"];
            let more = ["RETRYING", "QUEUED", "STARTED", "TIMED_OUT"];
            let events: Vec<_> = kinds.iter().map(|kind| (kind, 0)).chain(more.iter().map(|kind| (kind, 1)))
                .enumerate().map(|(at, (kind, retry))| event(kind, retry, u32::try_from(at).unwrap())).collect();
            let shuffled: Vec<_> = order.iter().map(|at| events[*at].clone()).collect();
            prop_assert_eq!(attempts(&shuffled), attempts(&events));
        }
    }
}
