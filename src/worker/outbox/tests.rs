use proptest::prelude::*;
use uuid::Uuid;

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

fn accept(outbox: &mut Outbox, call: Call) -> Vec<Settled> {
    outbox.sent(Instant::now(), Sent { call, verdict: Verdict::Accepted }, NO_JITTER)
}

fn answer(outbox: &mut Outbox, call: Call, verdict: Verdict) -> Vec<Settled> {
    outbox.sent(Instant::now(), Sent { call, verdict }, NO_JITTER)
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
    let settled = accept(&mut outbox, end);
    assert!(settled.len() == 1 && settled[0].key == key(1) && settled[0].result.is_ok());
    assert!(outbox.count == 0);
}

#[tokio::test(start_paused = true)]
async fn what_has_accumulated_leaves_as_one() {
    let mut outbox = with(&[(1, Completed)]);
    let first = outbox.next_call(Instant::now()).unwrap();
    outbox.add(key(2), report(2, Completed));
    let second = outbox.next_call(Instant::now()).unwrap();
    assert_eq!((shown(&first), shown(&second)), (vec![(1, Completed)], vec![(2, Completed)]), "each alone and at once");
    for task in 3..500 {
        outbox.add(key(task), report(task, Completed));
    }
    outbox.add(key(500), report(500, Failed));
    let failed = outbox.next_call(Instant::now()).unwrap();
    assert_eq!(shown(&failed), [(500, Failed)], "another kind");
    assert!(outbox.next_call(Instant::now()).is_none());
    accept(&mut outbox, first);
    assert_eq!(outbox.next_call(Instant::now()).unwrap().entries.len(), MAX_BATCH);
    // The others do not wait for slow calls.
    assert!(outbox.next_call(Instant::now()).is_none());
    assert_eq!(outbox.next_wake(), Some(Instant::now() + SLOW_CALL));
    tokio::time::advance(SLOW_CALL).await;
    assert_eq!(outbox.next_call(Instant::now()).unwrap().entries.len(), MAX_BATCH);
}

#[tokio::test(start_paused = true)]
async fn reports_of_different_times_are_not_sent_as_one() {
    let mut outbox = Outbox::new(LIMITS, true, false);
    for (task, millis) in [(1, 0), (2, 60), (3, 120)] {
        let mut report = report(task, Completed);
        report.at += TimeDelta::milliseconds(millis);
        outbox.add(key(task), report);
    }
    assert_eq!(outbox.next_call(Instant::now()).unwrap().entries.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_outage_keeps_all_reports_and_sends_one_call_at_a_time() {
    let mut outbox = with(&[(1, Completed), (2, Completed), (3, Failed)]);
    let call = outbox.next_call(Instant::now()).unwrap();
    assert!(answer(&mut outbox, call, Verdict::Unavailable(error(ErrorKind::Unavailable))).is_empty());
    assert!(outbox.outage.is_some() && outbox.count == 3);
    assert!(outbox.next_call(Instant::now()).is_none());
    tokio::time::advance(outbox.next_wake().unwrap() - Instant::now()).await;
    let call = outbox.next_call(Instant::now()).unwrap();
    assert_eq!(shown(&call), [(1, Completed), (2, Completed)]);
    assert!(outbox.next_call(Instant::now()).is_none() && outbox.next_wake().is_none());
    assert_eq!(accept(&mut outbox, call).len(), 2);
    assert!(outbox.outage.is_none());
    assert_eq!(shown(&outbox.next_call(Instant::now()).unwrap()), [(3, Failed)]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_is_sent_again_report_by_report() {
    let mut outbox = with(&[(1, Completed), (2, Completed)]);
    let call = outbox.next_call(Instant::now()).unwrap();
    assert!(answer(&mut outbox, call, Verdict::Refused(error(ErrorKind::Rejected))).is_empty());
    let (first, second) = (outbox.next_call(Instant::now()).unwrap(), outbox.next_call(Instant::now()).unwrap());
    assert_eq!((shown(&first), shown(&second)), (vec![(1, Completed)], vec![(2, Completed)]));
    let refused = answer(&mut outbox, first, Verdict::Refused(error(ErrorKind::Rejected)));
    assert!(refused.len() == 1 && refused[0].result.is_err());
    assert!(accept(&mut outbox, second)[0].result.is_ok());
}

#[tokio::test(start_paused = true)]
async fn internal_errors_delay_one_report_and_end_after_a_while() {
    let mut outbox = with(&[(1, Completed)]);
    let (started, mut calls) = (Instant::now(), 0);
    let settled = loop {
        let Some(call) = outbox.next_call(Instant::now()) else {
            tokio::time::advance(outbox.next_wake().unwrap() - Instant::now()).await;
            continue;
        };
        calls += 1;
        let settled = answer(&mut outbox, call, Verdict::InternalError(error(ErrorKind::Server)));
        if let Some(settled) = settled.into_iter().next() {
            break settled;
        }
        // Others are sent meanwhile.
        outbox.add(key(2), report(2, Completed));
        let other = outbox.next_call(Instant::now()).unwrap();
        assert_eq!(shown(&other), [(2, Completed)]);
        accept(&mut outbox, other);
    };
    assert!(settled.result.is_err() && calls > 50, "{calls}");
    assert!(started.elapsed() <= MAX_INTERNAL_ERRORS && started.elapsed() + 3 * SLOW_CALL * 8 > MAX_INTERNAL_ERRORS);
}

#[tokio::test(start_paused = true)]
async fn an_engine_without_batches_gets_single_reports() {
    let mut outbox = with(&[(1, Completed), (2, Completed)]);
    let call = outbox.next_call(Instant::now()).unwrap();
    answer(&mut outbox, call, Verdict::NoBatches);
    for task in [1, 2] {
        assert_eq!(shown(&outbox.next_call(Instant::now()).unwrap()), [(task, Completed)]);
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
    assert_eq!(outbox.count, 1);
}

#[tokio::test(start_paused = true)]
async fn it_is_full_by_number_and_by_size() {
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
    assert!(outbox.saved(Saved { journal: None, entries, numbers: Vec::new() }).is_none());
    let end = outbox.next_call(Instant::now()).unwrap();
    assert_eq!(shown(&end), [(2, Completed)]);
    accept(&mut outbox, end);
    assert_eq!(outbox.take_unsaved().unwrap().accepted, [3]);
    assert_eq!(outbox.count, 0);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Add(u128, bool),
    /// A call is made, if there is one.
    Send,
    /// One of the calls in flight gets an answer.
    Answer(usize, u8),
    Withdraw(u128),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u128..40, any::<bool>()).prop_map(|(task, failed)| Step::Add(task, failed)),
        4 => Just(Step::Send),
        4 => (0usize..8, 0u8..8).prop_map(|(call, answer)| Step::Answer(call, answer)),
        1 => (0u128..40).prop_map(Step::Withdraw),
        1 => (1u64..2000).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever the engine answers: each end is settled or withdrawn once, and follows its start.
    #[test]
    fn each_end_is_settled_once_and_after_its_start(steps in prop::collection::vec(step(), 0..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let (mut outbox, mut flying) = (Outbox::new(LIMITS, true, false), Vec::<Call>::new());
            let (mut added, mut ended) = (HashSet::new(), HashSet::new());
            let mut drain = 0..10_000;
            let mut steps = steps.into_iter().fuse();
            while drain.next().is_some() && !(outbox.count == 0 && steps.len() == 0) {
                // In the end, everything is accepted.
                let step = steps.next();
                let step = step.unwrap_or(if flying.is_empty() { Step::Send } else { Step::Answer(0, 0) });
                match step {
                    Step::Add(task, failed) if added.insert(task) => {
                        outbox.add(key(task), started(task));
                        outbox.add(key(task), report(task, if failed { Failed } else { Completed }));
                    }
                    Step::Add(..) => {}
                    Step::Send => match outbox.next_call(Instant::now()) {
                        Some(call) => {
                            for entry in &call.entries {
                                let is_start = entry.report.kind == Started;
                                assert_eq!(outbox.starting.contains_key(&entry.key), is_start, "{:?}", entry.key);
                                assert_eq!(entry.report.size(), 2, "the text is kept");
                            }
                            flying.push(call);
                        }
                        None => tokio::time::advance(Duration::from_millis(300)).await,
                    },
                    Step::Answer(call, how) if !flying.is_empty() => {
                        let call = flying.swap_remove(call % flying.len());
                        let verdict = match how {
                            0..4 => Verdict::Accepted,
                            4 => Verdict::Unavailable(error(ErrorKind::Unavailable)),
                            5 => Verdict::InternalError(error(ErrorKind::Server)),
                            6 => Verdict::Refused(error(ErrorKind::Rejected)),
                            _ => Verdict::NoBatches,
                        };
                        for settled in answer(&mut outbox, call, verdict) {
                            assert!(ended.insert(settled.key), "settled twice");
                        }
                    }
                    Step::Answer(..) => {}
                    Step::Withdraw(task) => {
                        if outbox.withdraw(key(task)) {
                            assert!(ended.insert(key(task)), "withdrawn after its end");
                        }
                    }
                    Step::Wait(millis) => tokio::time::advance(Duration::from_millis(millis)).await,
                }
            }
            assert_eq!(ended.len(), added.len());
            assert!(outbox.count == 0 && outbox.bytes == 0 && outbox.starting.is_empty() && outbox.in_flight.is_empty());
        });
    }
}
