mod calls;
mod doubt;

use std::collections::HashSet;

use chrono::TimeDelta;
use proptest::prelude::*;
use uuid::Uuid;

use super::call::MAX_BATCH;
use super::schedule::{MAX_SLOW_CALLS, SLOW_CALL};
use super::*;
use crate::error::ErrorKind;
use crate::rpc::convert::Action;
use crate::rpc::pb;

const LIMITS: Limits = Limits { reports: 1000, bytes: 1 << 20 };
const NO_JITTER: f64 = 0.0;

fn key(task: u128) -> Key {
    Key { run: Uuid::from_u128(task + 1).into(), task: Uuid::from_u128(task + 1).into(), retry_count: 0 }
}

fn report(task: u128, kind: ReportKind) -> Report {
    let action = Action::from(pb::AssignedAction { task_run_external_id: key(task).task.into(), ..Default::default() });
    Report::new(Uuid::from_u128(7).into(), &action, kind, chrono::DateTime::default(), "{}".into())
}

fn started(task: u128) -> Report {
    report(task, Started)
}

fn with(reports: &[(u128, ReportKind)]) -> Outbox {
    let mut outbox = Outbox::new(LIMITS, true, false);
    for (task, kind) in reports {
        outbox.add(key(*task), report(*task, *kind));
    }
    outbox
}

fn shown(call: &Call) -> Vec<(u128, ReportKind)> {
    call.entries.iter().map(|entry| (Uuid::from(entry.key.task).as_u128() - 1, entry.report.kind)).collect()
}

fn accept(outbox: &mut Outbox, call: Call) -> Vec<ResolvedReport> {
    outbox.sent(Instant::now(), Sent { call, result: CallResult::Accepted }, NO_JITTER)
}

fn answer(outbox: &mut Outbox, call: Call, result: CallResult) -> Vec<ResolvedReport> {
    outbox.sent(Instant::now(), Sent { call, result }, NO_JITTER)
}

fn error(kind: ErrorKind) -> Error {
    Error::new(kind, "broken")
}

use ReportKind::{Completed, Failed, Started};

#[tokio::test(start_paused = true)]
async fn the_end_of_an_attempt_follows_its_start() {
    let mut outbox = with(&[(1, Started), (1, Completed)]);
    let start = outbox.next_call(Instant::now()).unwrap();
    assert_eq!(shown(&start), [(1, Started)]);
    assert!(outbox.next_call(Instant::now()).is_none());
    assert!(accept(&mut outbox, start).is_empty());
    let end = outbox.next_call(Instant::now()).unwrap();
    assert_eq!(shown(&end), [(1, Completed)]);
    let resolved = accept(&mut outbox, end);
    assert!(resolved.len() == 1 && resolved[0].key == key(1) && matches!(resolved[0].resolution, Resolution::Accepted));
    assert!(outbox.count == 0);
}

#[tokio::test(start_paused = true)]
async fn an_outage_keeps_all_reports_and_sends_one_call_at_a_time() {
    let mut outbox = with(&[(1, Completed), (2, Completed), (3, Failed)]);
    let call = outbox.next_call(Instant::now()).unwrap();
    assert!(answer(&mut outbox, call, CallResult::Unavailable(error(ErrorKind::Unavailable))).is_empty());
    assert!(outbox.outage.is_some() && outbox.count == 3);
    assert!(outbox.next_call(Instant::now()).is_none());
    tokio::time::advance(outbox.next_wake(Instant::now()).unwrap() - Instant::now()).await;
    let call = outbox.next_call(Instant::now()).unwrap();
    assert_eq!(shown(&call), [(3, Failed)], "others are tried first");
    assert!(outbox.next_call(Instant::now()).is_none() && outbox.next_wake(Instant::now()).is_none());
    assert_eq!(accept(&mut outbox, call).len(), 1);
    assert!(outbox.outage.is_none());
    assert_eq!(shown(&outbox.next_call(Instant::now()).unwrap()), [(1, Completed), (2, Completed)]);
}

#[tokio::test(start_paused = true)]
async fn internal_errors_delay_one_report_and_end_after_a_while() {
    let mut outbox = with(&[(1, Completed)]);
    let (started, mut calls) = (Instant::now(), 0);
    let resolved = loop {
        let Some(call) = outbox.next_call(Instant::now()) else {
            tokio::time::advance(outbox.next_wake(Instant::now()).unwrap() - Instant::now()).await;
            continue;
        };
        calls += 1;
        let resolved = answer(&mut outbox, call, CallResult::InternalError(error(ErrorKind::Server)));
        if let Some(resolved) = resolved.into_iter().next() {
            break resolved;
        }
        // Others are sent meanwhile.
        outbox.add(key(2), report(2, Completed));
        let other = outbox.next_call(Instant::now()).unwrap();
        assert_eq!(shown(&other), [(2, Completed)]);
        accept(&mut outbox, other);
    };
    assert!(matches!(resolved.resolution, Resolution::Rejected(_)) && calls > 50, "{calls}");
    assert!(started.elapsed() <= MAX_INTERNAL_ERRORS && started.elapsed() + 3 * SLOW_CALL * 8 > MAX_INTERNAL_ERRORS);
}

#[tokio::test(start_paused = true)]
async fn accepted_starts_do_not_show_that_results_are_accepted() {
    let mut outbox = with(&[(1, Completed)]);
    let mut now = Instant::now();
    for task in 2..200 {
        let call = outbox.next_call(now).unwrap();
        assert!(answer(&mut outbox, call, CallResult::InternalError(error(ErrorKind::Server))).is_empty());
        outbox.add(key(task), started(task));
        let start = outbox.next_call(now).unwrap();
        assert_eq!(shown(&start), [(task, Started)]);
        accept(&mut outbox, start);
        tokio::time::advance(outbox.next_wake(now).unwrap() - now).await;
        now = Instant::now();
    }
    assert_eq!(outbox.count, 1, "it is not given up");
}

#[tokio::test(start_paused = true)]
async fn a_requested_delay_is_limited() {
    let mut outbox = with(&[(1, Completed)]);
    let call = outbox.next_call(Instant::now()).unwrap();
    let asked = crate::error::RetryAfter::Delay(Duration::from_secs(3600));
    let away = error(ErrorKind::Unavailable).transient().with_retry_after(Some(asked));
    answer(&mut outbox, call, CallResult::Unavailable(away));
    assert_eq!(outbox.next_wake(Instant::now()), Some(Instant::now() + MAX_PUSHBACK));
}

#[tokio::test(start_paused = true)]
async fn results_of_an_earlier_process_do_not_fill_the_outbox() {
    let mut outbox = Outbox::new(Limits { reports: 1, bytes: 1 << 20 }, true, false);
    outbox.add_saved(1, key(1), report(1, Completed));
    assert!(!outbox.is_full(), "the worker can start an attempt");
    outbox.add(key(2), report(2, Completed));
    assert!(outbox.is_full());
    assert!(outbox.withdraw_recovered(key(1)) && outbox.is_full());
    assert!(outbox.withdraw(key(2)) && !outbox.is_full());
    assert_eq!((outbox.count, outbox.bytes, outbox.recovered), (0, 0, (0, 0)));
}

/// The engine shows the end that the worker has reported: the response was lost, or is on the way.
#[tokio::test(start_paused = true)]
async fn an_end_that_the_engine_shows_is_accepted_wherever_its_report_is() {
    let mut outbox = with(&[(1, Completed), (2, Failed)]);
    assert_eq!(outbox.confirm(key(1), Failed), Confirmed::No, "another end");
    assert_eq!(outbox.confirm(key(1), Completed), Confirmed::Removed);
    assert_eq!(outbox.confirm(key(1), Completed), Confirmed::No, "it was removed");
    for (kind, is_accepted) in [(Failed, true), (Completed, false)] {
        let mut outbox = with(&[(2, Failed)]);
        let call = outbox.next_call(Instant::now()).unwrap();
        assert_eq!(outbox.confirm(key(2), kind), Confirmed::InFlight);
        let resolved = answer(&mut outbox, call, CallResult::Unavailable(error(ErrorKind::Unavailable)));
        let [ResolvedReport { resolution, .. }] = &resolved[..] else { panic!("{resolved:?}") };
        assert_eq!(matches!(resolution, Resolution::Accepted), is_accepted, "{resolution:?}");
        assert_eq!((outbox.count, outbox.shown_ends.len()), (0, 0));
    }
    assert_eq!(outbox.count, 1);
}

/// After an accepted failure, the engine shows the next attempt.
#[tokio::test(start_paused = true)]
async fn the_response_counts_for_an_end_in_flight_that_the_engine_shows_as_another() {
    for (result, is_accepted) in
        [(CallResult::Accepted, true), (CallResult::Unavailable(error(ErrorKind::Unavailable)), false)]
    {
        let mut outbox = with(&[(1, Failed)]);
        assert!(!outbox.ended_in_flight(key(1)), "it is not sent yet");
        let call = outbox.next_call(Instant::now()).unwrap();
        assert!(outbox.ended_in_flight(key(1)));
        let [ResolvedReport { resolution, .. }] = &answer(&mut outbox, call, result)[..] else { panic!("one result") };
        assert_eq!(matches!(resolution, Resolution::Accepted), is_accepted, "{resolution:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_not_in_flight_can_be_withdrawn() {
    let mut outbox = with(&[(1, Started), (1, Completed), (2, Completed)]);
    assert!(outbox.withdraw(key(1)) && !outbox.withdraw(key(1)));
    let _start = outbox.next_call(Instant::now()).unwrap();
    let end = outbox.next_call(Instant::now()).unwrap();
    assert!(!outbox.withdraw(key(2)), "it is in flight");
    assert_eq!(accept(&mut outbox, end).len(), 1);
    assert_eq!((outbox.count, outbox.starting.len()), (0, 1), "only the start is left");
}

#[tokio::test(start_paused = true)]
async fn the_outbox_is_full_by_count_or_size() {
    let mut outbox = Outbox::new(Limits { reports: 2, bytes: 100 }, true, false);
    outbox.add(key(1), report(1, Completed));
    assert!(!outbox.is_full());
    outbox.add(key(2), report(2, Completed));
    assert!(outbox.is_full());
    let mut outbox = Outbox::new(Limits { reports: 2, bytes: 2 }, true, false);
    outbox.add(key(1), report(1, Completed));
    assert!(outbox.is_full());
}

#[tokio::test(start_paused = true)]
async fn an_end_is_sent_when_it_is_in_the_journal() {
    let mut outbox = Outbox::new(LIMITS, true, true);
    outbox.add_saved(3, key(1), report(1, Completed));
    outbox.add(key(2), report(2, Completed));
    let recovered = outbox.next_call(Instant::now()).unwrap();
    assert_eq!(shown(&recovered), [(1, Completed)]);
    let Unsaved { entries, accepted } = outbox.take_unsaved().unwrap();
    assert_eq!((entries.len(), accepted.len()), (1, 0));
    assert!(outbox.take_unsaved().is_none());
    accept(&mut outbox, recovered);
    // The journal cannot be written any longer: the report is sent nevertheless.
    assert!(outbox.saved(Saved { journal: None, entries, numbers: Vec::new() }).0.is_none());
    let end = outbox.next_call(Instant::now()).unwrap();
    assert_eq!(shown(&end), [(2, Completed)]);
    accept(&mut outbox, end);
    assert_eq!(outbox.take_unsaved().unwrap().accepted, [3]);
    assert_eq!(outbox.count, 0);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_during_a_call_counts_if_the_call_fails() {
    let mut outbox = with(&[(1, Completed), (2, Completed)]);
    let call = outbox.next_call(Instant::now()).unwrap();
    assert!(!outbox.withdraw(key(1)), "it is in flight");
    let resolved = answer(&mut outbox, call, CallResult::Unavailable(error(ErrorKind::Unavailable)));
    assert!(resolved.len() == 1 && resolved[0].key == key(1));
    assert!(matches!(resolved[0].resolution, Resolution::Withdrawn));
    assert_eq!(outbox.count, 1);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_during_a_call_counts_whatever_error_the_call_returns() {
    let internal = CallResult::InternalError as fn(Error) -> CallResult;
    for (kind, result) in [
        (ErrorKind::TooLarge, CallResult::Rejected as fn(Error) -> CallResult),
        (ErrorKind::Rejected, CallResult::Rejected),
        (ErrorKind::Closed, CallResult::Rejected),
        (ErrorKind::Server, internal),
    ] {
        let mut outbox = Outbox::new(LIMITS, true, false);
        outbox.add_saved(9, key(1), report(1, Completed));
        let call = outbox.next_call(Instant::now()).unwrap();
        assert!(!outbox.withdraw(key(1)), "it is in flight");
        let resolved = answer(&mut outbox, call, result(error(kind)));
        assert!(
            matches!(resolved[..], [ResolvedReport { resolution: Resolution::Withdrawn, .. }]),
            "{kind}: {resolved:?}"
        );
        assert_eq!((outbox.count, outbox.shown_ends.len(), &outbox.accepted[..]), (0, 0, &[9][..]), "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_attempt_whose_report_is_given_up_counts_as_cancelled() {
    let mut outbox = with(&[(1, Completed)]);
    let call = outbox.next_call(Instant::now()).unwrap();
    answer(&mut outbox, call, CallResult::InternalError(error(ErrorKind::Server)));
    tokio::time::advance(MAX_INTERNAL_ERRORS).await;
    let call = outbox.next_call(Instant::now()).unwrap();
    assert!(!outbox.withdraw(key(1)), "it is in flight");
    outbox.add(key(2), report(2, Failed));
    let other = outbox.next_call(Instant::now()).unwrap();
    accept(&mut outbox, other);
    let resolved = answer(&mut outbox, call, CallResult::InternalError(error(ErrorKind::Server)));
    assert!(matches!(resolved[..], [ResolvedReport { resolution: Resolution::Withdrawn, .. }]), "{resolved:?}");
}

#[tokio::test(start_paused = true)]
async fn a_report_that_always_fails_does_not_hold_up_others() {
    let mut outbox = with(&[(1, Completed), (2, Completed), (3, Failed)]);
    let mut accepted = Vec::new();
    for _ in 0..100 {
        let Some(call) = outbox.next_call(Instant::now()) else {
            tokio::time::advance(outbox.next_wake(Instant::now()).unwrap() - Instant::now()).await;
            continue;
        };
        let fails = shown(&call).contains(&(1, Completed));
        let result = if fails { CallResult::Unavailable(error(ErrorKind::Timeout)) } else { CallResult::Accepted };
        accepted.extend(answer(&mut outbox, call, result).into_iter().map(|resolved| resolved.key));
    }
    assert_eq!(accepted, [key(3), key(2)]);
    assert_eq!(outbox.count, 1);
}

#[tokio::test(start_paused = true)]
async fn calls_that_fail_together_count_once() {
    let mut outbox = with(&[(1, Completed), (2, Failed)]);
    let (first, second) = (outbox.next_call(Instant::now()).unwrap(), outbox.next_call(Instant::now()).unwrap());
    for call in [first, second] {
        answer(&mut outbox, call, CallResult::Unavailable(error(ErrorKind::Unavailable)));
    }
    assert_eq!(outbox.outage.unwrap().failures, 1);
}

#[tokio::test(start_paused = true)]
async fn no_call_is_made_while_the_maximum_number_is_in_flight() {
    let mut outbox = Outbox::new(LIMITS, false, false);
    for task in 0..80 {
        outbox.add(key(task), report(task, Completed));
    }
    let calls: Vec<_> = std::iter::from_fn(|| outbox.next_call(Instant::now())).collect();
    assert_eq!(calls.len(), MAX_SLOW_CALLS);
    tokio::time::advance(2 * SLOW_CALL).await;
    assert!(outbox.next_call(Instant::now()).is_none() && outbox.next_wake(Instant::now()).is_none());
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Add(u128, bool),
    /// A call is made, if there is one.
    Send,
    /// One of the calls in flight gets an answer.
    Answer(usize, u8),
    Withdraw(u128),
    /// What must be written to the journal is written, or not.
    Save(bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u128..40, any::<bool>()).prop_map(|(task, failed)| Step::Add(task, failed)),
        4 => Just(Step::Send),
        4 => (0usize..8, 0u8..8).prop_map(|(call, answer)| Step::Answer(call, answer)),
        1 => (0u128..40).prop_map(Step::Withdraw),
        2 => prop::bool::weighted(0.9).prop_map(Step::Save),
        1 => (1u64..2000).prop_map(Step::Wait),
    ]
}

/// With a search for each of them, this would take minutes.
#[tokio::test(start_paused = true)]
async fn withdrawing_and_requeueing_many_results_is_fast() {
    const COUNT: u128 = 50_000;
    let reports: Vec<_> = (0..COUNT).map(|task| (task, Completed)).collect();
    let mut outbox = with(&reports);
    let call = outbox.next_call(Instant::now()).unwrap();
    let sent = shown(&call);
    assert_eq!(sent.len(), MAX_BATCH);
    // Their place is at the front of all others.
    assert!(answer(&mut outbox, call, CallResult::NoBatches).is_empty());
    let again = outbox.next_call(Instant::now()).unwrap();
    assert_eq!(shown(&again), sent[..1]);
    for task in (1..COUNT).rev() {
        assert!(outbox.withdraw(key(task)));
    }
    assert!(!outbox.withdraw(key(0)), "it is being sent");
    assert_eq!(outbox.count, 1);
}

proptest! {
    /// Whatever the engine answers: each result is resolved or withdrawn once, follows its start, and leaves the journal.
    #[test]
    fn each_result_is_resolved_once_and_after_its_start(
        has_journal in any::<bool>(),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let (mut outbox, mut flying) = (Outbox::new(LIMITS, true, has_journal), Vec::<Call>::new());
            let (mut added, mut ended, mut saved) = (HashSet::new(), HashSet::new(), HashSet::<u64>::new());
            let mut saves = 0..;
            let mut steps = steps.into_iter().fuse();
            for round in 0..10_000 {
                if outbox.count == 0 && outbox.starting.is_empty() && flying.is_empty() && steps.len() == 0 {
                    break;
                }
                // In the end, everything is accepted.
                let last = [Step::Save(true), Step::Send, Step::Answer(0, 0)];
                let step = steps.next().unwrap_or(last[round % 3]);
                let mut resolved = Vec::new();
                assert_eq!(outbox.places.len(), outbox.count, "each result has a place");
                match step {
                    Step::Add(task, failed) if added.insert(task) => {
                        outbox.add(key(task), started(task));
                        outbox.add(key(task), report(task, if failed { Failed } else { Completed }));
                    }
                    Step::Send => {
                        if let Some(call) = outbox.next_call(Instant::now()) {
                            for entry in &call.entries {
                                let is_start = entry.report.kind == Started;
                                assert_eq!(outbox.starting.contains_key(&entry.key), is_start, "{:?}", entry.key);
                                assert_eq!(entry.report.size(), 2, "the text is kept");
                            }
                            flying.push(call);
                        } else {
                            let wake = outbox.next_wake(Instant::now());
                            assert!(wake.is_none_or(|wake| wake > Instant::now()), "a wake in vain");
                            if let Some(wake) = wake {
                                tokio::time::advance(wake - Instant::now()).await;
                            }
                        }
                    }
                    Step::Answer(call, how) if !flying.is_empty() => {
                        let call = flying.swap_remove(call % flying.len());
                        let result = match how {
                            0..4 => CallResult::Accepted,
                            4 => CallResult::Unavailable(error(ErrorKind::Unavailable)),
                            5 => CallResult::InternalError(error(ErrorKind::Server)),
                            6 => CallResult::Rejected(error(ErrorKind::NotFound)),
                            _ => CallResult::NoBatches,
                        };
                        resolved = answer(&mut outbox, call, result);
                    }
                    Step::Add(..) | Step::Answer(..) => {}
                    Step::Withdraw(task) => {
                        if outbox.withdraw(key(task)) {
                            assert!(ended.insert(key(task)), "withdrawn after its end");
                        }
                    }
                    Step::Save(_) if !outbox.has_journal => {}
                    Step::Save(works) => {
                        if let Some(Unsaved { entries, accepted }) = outbox.take_unsaved() {
                            assert!(accepted.iter().all(|number| saved.remove(number)));
                            let numbers: Vec<u64> = entries.iter().filter_map(|_| saves.next().filter(|_| works)).collect();
                            saved.extend(&numbers);
                            // A journal that fails is not used any longer; without one, there is nothing to compare.
                            let journal = None;
                            let has_journal = works;
                            resolved = outbox.saved(Saved { journal, entries, numbers }).1;
                            outbox.has_journal = has_journal;
                        }
                    }
                    Step::Wait(millis) => tokio::time::advance(Duration::from_millis(millis)).await,
                }
                for resolved in resolved {
                    assert!(ended.insert(resolved.key), "resolved twice");
                }
            }
            assert_eq!(ended.len(), added.len());
            assert_eq!((outbox.count, outbox.bytes), (0, 0));
            assert!(outbox.starting.is_empty() && outbox.in_flight.is_empty() && outbox.shown_ends.is_empty());
            assert!(outbox.accepted.iter().all(|number| saved.remove(number)));
            assert!(saved.is_empty(), "{saved:?} remain in the journal");
        });
    }
}

fn check(outbox: &mut Outbox, key: Key, retry_count: Option<u32>) {
    outbox.set_checked(|(other, _)| (*other == key).then_some(retry_count));
}

fn of_batch(task: u128) -> Report {
    report(task, Completed).in_batch("b")
}

#[tokio::test(start_paused = true)]
async fn results_that_name_no_attempt_are_not_sent_after_an_outage_before_they_were_checked() {
    let mut outbox = with(&[(1, Completed)]);
    let first = outbox.next_call(Instant::now()).unwrap();
    for task in 2..5 {
        outbox.add(key(task), of_batch(task));
    }
    outbox.add(key(5), report(5, Completed));
    answer(&mut outbox, first, CallResult::Unavailable(error(ErrorKind::Unavailable)));
    let unchecked: Vec<_> = outbox.unchecked().map(|(key, batch)| (key, batch.unwrap().to_string())).collect();
    assert_eq!(unchecked, [2, 3, 4].map(|task| (key(task), "b".to_owned())));
    tokio::time::advance(SLOW_CALL).await;
    let others = outbox.next_call(Instant::now()).unwrap();
    assert_eq!(shown(&others), [(5, Completed), (1, Completed)]);
    accept(&mut outbox, others);
    // The outage is over.
    assert!(outbox.next_call(Instant::now()).is_none() && outbox.has_unchecked());
    check(&mut outbox, key(2), Some(7));
    check(&mut outbox, key(3), None);
    assert!(outbox.withdraw(key(4)) && !outbox.has_unchecked());
    let call = outbox.next_call(Instant::now()).unwrap();
    let counts: Vec<_> = call.entries.iter().map(|entry| (entry.key, entry.report.retry_count())).collect();
    assert_eq!(counts, [(key(2), Some(7)), (key(3), None)]);
    // The one without a retry count is checked again.
    answer(&mut outbox, call, CallResult::Unavailable(error(ErrorKind::Unavailable)));
    assert_eq!(outbox.unchecked().map(|(key, _)| key).collect::<Vec<_>>(), [key(3)]);
}

#[tokio::test(start_paused = true)]
async fn results_with_the_same_guessed_key_are_all_sent() {
    let mut outbox = Outbox::new(LIMITS, true, false);
    outbox.set_doubt(Doubt::Some);
    outbox.add_saved(1, key(1), report(1, Completed).in_batch("a"));
    outbox.add_saved(2, key(1), report(1, Completed).in_batch("b"));
    assert_eq!(outbox.unchecked().count(), 2);
    check(&mut outbox, key(1), None);
    assert!(!outbox.has_unchecked());
    outbox.set_doubt(Doubt::None);
    for number in [1, 2] {
        let call = outbox.next_call(Instant::now()).unwrap();
        assert_eq!(shown(&call), [(1, Completed)]);
        assert_eq!(accept(&mut outbox, call).len(), 1, "{number}");
    }
    assert_eq!((outbox.count, outbox.accepted.len()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn an_end_of_an_earlier_process_does_not_replace_that_of_an_attempt_with_the_same_key() {
    let mut outbox = with(&[(1, Started)]);
    outbox.add_saved(1, key(1), report(1, Completed).in_batch("a"));
    outbox.add(key(1), report(1, Completed));
    let mut sent = 0;
    while let Some(call) = outbox.next_call(Instant::now()) {
        sent += accept(&mut outbox, call).len();
    }
    assert_eq!((sent, outbox.count), (2, 0));
}
