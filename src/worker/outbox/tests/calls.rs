//! Which reports share a call.

use super::*;

#[tokio::test(start_paused = true)]
async fn accumulated_reports_are_sent_in_one_call() {
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
    assert_eq!(outbox.next_wake(Instant::now()), Some(Instant::now() + SLOW_CALL));
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
    let call = outbox.next_call(Instant::now()).unwrap();
    let at = |millis| chrono::DateTime::<chrono::Utc>::default() + TimeDelta::milliseconds(millis);
    assert_eq!(call.at, at(60));
}

/// The engine stores the time of the last start in a call for all of them.
#[tokio::test(start_paused = true)]
async fn an_attempt_does_not_end_before_the_time_that_is_stored_for_its_start() {
    let mut outbox = Outbox::new(LIMITS, true, false);
    let at = |millis| chrono::DateTime::<chrono::Utc>::default() + TimeDelta::milliseconds(millis);
    for (task, kind, millis) in [(1, Started, 0), (1, Completed, 10), (2, Started, 90)] {
        outbox.add(key(task), report(task, kind).not_before(at(millis)));
    }
    let starts = outbox.next_call(Instant::now()).unwrap();
    assert_eq!(shown(&starts), [(1, Started), (2, Started)]);
    accept(&mut outbox, starts);
    assert_eq!(outbox.next_call(Instant::now()).unwrap().entries[0].report.at, at(90));
}

/// The end is being written to the journal while the start is accepted.
#[tokio::test(start_paused = true)]
async fn an_end_in_the_journal_is_not_before_its_start_either() {
    let mut outbox = Outbox::new(LIMITS, true, true);
    let at = |millis| chrono::DateTime::<chrono::Utc>::default() + TimeDelta::milliseconds(millis);
    for (task, kind, millis) in [(1, Started, 0), (1, Completed, 10), (2, Started, 90)] {
        outbox.add(key(task), report(task, kind).not_before(at(millis)));
    }
    let Unsaved { entries, .. } = outbox.take_unsaved().unwrap();
    let starts = outbox.next_call(Instant::now()).unwrap();
    accept(&mut outbox, starts);
    outbox.saved(Saved { journal: None, entries, numbers: vec![1] });
    assert_eq!(outbox.next_call(Instant::now()).unwrap().entries[0].report.at, at(90));
    assert!(outbox.started_at.is_empty());
}

/// The engine accepts a call with the results of tasks that it does not know.
#[tokio::test(start_paused = true)]
async fn results_of_an_earlier_process_are_sent_one_by_one() {
    let mut outbox = with(&[]);
    for task in 1..=30 {
        outbox.add_saved(u64::try_from(task).unwrap(), key(task), report(task, Completed));
    }
    for task in 31..=32 {
        outbox.add(key(task), report(task, Completed));
    }
    for task in 1..=16 {
        assert_eq!(shown(&outbox.next_call(Instant::now()).unwrap()), [(task, Completed)]);
    }
    // The others do not wait for them.
    assert_eq!(shown(&outbox.next_call(Instant::now()).unwrap()), [(31, Completed), (32, Completed)]);
    assert!(outbox.next_call(Instant::now()).is_none() && outbox.next_wake(Instant::now()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_rejected_call_is_sent_again_report_by_report() {
    let mut outbox = with(&[(1, Completed), (2, Completed)]);
    let call = outbox.next_call(Instant::now()).unwrap();
    assert!(answer(&mut outbox, call, CallResult::Rejected(error(ErrorKind::Rejected))).is_empty());
    let (first, second) = (outbox.next_call(Instant::now()).unwrap(), outbox.next_call(Instant::now()).unwrap());
    assert_eq!((shown(&first), shown(&second)), (vec![(1, Completed)], vec![(2, Completed)]));
    let rejected = answer(&mut outbox, first, CallResult::Rejected(error(ErrorKind::Rejected)));
    assert!(rejected.len() == 1 && matches!(rejected[0].resolution, Resolution::Rejected(_)));
    assert!(matches!(accept(&mut outbox, second)[0].resolution, Resolution::Accepted));
}

#[tokio::test(start_paused = true)]
async fn a_batch_with_an_internal_error_is_split_after_a_pause() {
    let mut outbox = with(&[(1, Completed), (2, Completed)]);
    let call = outbox.next_call(Instant::now()).unwrap();
    assert!(answer(&mut outbox, call, CallResult::InternalError(error(ErrorKind::Server))).is_empty());
    assert!(outbox.next_call(Instant::now()).is_none());
    let (start, wake) = (Instant::now(), outbox.next_wake(Instant::now()).unwrap());
    assert_eq!(wake - start, retry_delay(1, NO_JITTER));
    tokio::time::advance(wake - start).await;
    for task in [1, 2] {
        let call = outbox.next_call(Instant::now()).unwrap();
        assert_eq!(shown(&call), [(task, Completed)]);
        assert_eq!(accept(&mut outbox, call).len(), 1);
    }
    // A start is not sent again after an internal error, so it needs no pause.
    let mut outbox = with(&[(1, Started), (2, Started)]);
    let call = outbox.next_call(Instant::now()).unwrap();
    answer(&mut outbox, call, CallResult::InternalError(error(ErrorKind::Server)));
    assert_eq!(shown(&outbox.next_call(Instant::now()).unwrap()), [(1, Started)]);
}

#[tokio::test(start_paused = true)]
async fn an_engine_without_batches_gets_single_reports_for_some_minutes() {
    let mut outbox = with(&[(1, Completed), (2, Completed)]);
    let call = outbox.next_call(Instant::now()).unwrap();
    answer(&mut outbox, call, CallResult::NoBatches);
    for task in [1, 2] {
        let call = outbox.next_call(Instant::now()).unwrap();
        assert_eq!(shown(&call), [(task, Completed)]);
        accept(&mut outbox, call);
    }
    tokio::time::advance(NO_BATCHES_FOR).await;
    outbox.add(key(3), report(3, Completed));
    outbox.add(key(4), report(4, Completed));
    assert_eq!(shown(&outbox.next_call(Instant::now()).unwrap()), [(3, Completed), (4, Completed)]);
}
