//! Results whose attempts the engine may have ended.

use super::*;

#[tokio::test(start_paused = true)]
async fn results_that_name_no_attempt_are_held_while_the_worker_is_not_connected() {
    let mut outbox = Outbox::new(LIMITS, true, false);
    outbox.add(key(1), of_batch(1));
    outbox.set_doubt(Doubt::Some);
    outbox.add(key(2), of_batch(2));
    outbox.add(key(3), report(3, Completed));
    assert_eq!(shown(&outbox.next_call(Instant::now()).unwrap()), [(3, Completed)]);
    assert!(outbox.next_call(Instant::now()).is_none());
    assert_eq!(outbox.count, 3);
    check(&mut outbox, key(1), None);
    assert_eq!(shown(&outbox.next_call(Instant::now()).unwrap()), [(1, Completed)]);
}

#[tokio::test(start_paused = true)]
async fn all_results_are_held_while_other_workers_may_have_the_attempts() {
    let mut outbox = with(&[(1, Started), (1, Completed), (2, Completed)]);
    outbox.set_doubt(Doubt::All);
    let start = outbox.next_call(Instant::now()).unwrap();
    assert_eq!(shown(&start), [(1, Started)], "the engine ignores a late start");
    accept(&mut outbox, start);
    outbox.add(key(3), report(3, Failed));
    assert!(outbox.next_call(Instant::now()).is_none());
    let unchecked: HashSet<_> = outbox.unchecked().map(|(key, _)| key).collect();
    assert_eq!(unchecked, [1, 2, 3].map(key).into());
    outbox.set_checked(|(other, _)| (*other != key(3)).then_some(None));
    assert_eq!(shown(&outbox.next_call(Instant::now()).unwrap()), [(1, Completed), (2, Completed)]);
    // The end of the doubt alone sends nothing that was not checked.
    outbox.set_doubt(Doubt::None);
    assert!(outbox.next_call(Instant::now()).is_none() && outbox.has_unchecked());
    assert!(outbox.withdraw(key(3)) && !outbox.has_unchecked());
}

#[tokio::test(start_paused = true)]
async fn results_of_attempts_that_may_be_over_are_held_until_they_were_checked() {
    let mut outbox = with(&[(1, Completed)]);
    let sending = outbox.next_call(Instant::now()).unwrap();
    outbox.add(key(2), report(2, Completed));
    outbox.add(key(3), report(3, Completed));
    // The stream is lost. The attempt 4 has not ended yet, and 5 is assigned later.
    outbox.add_doubtful([1, 2, 4].map(key).into_iter());
    outbox.set_doubt(Doubt::Some);
    outbox.add(key(4), report(4, Failed));
    outbox.add(key(5), report(5, Completed));
    let unchecked: HashSet<_> = outbox.unchecked().map(|(key, _)| key).collect();
    assert_eq!(unchecked, [2, 4].map(key).into());
    let others = outbox.next_call(Instant::now()).unwrap();
    assert_eq!(shown(&others), [(3, Completed), (5, Completed)]);
    accept(&mut outbox, others);
    // One was accepted although its response was lost, and one runs.
    assert_eq!(
        (outbox.confirm(key(4), Completed), outbox.confirm(key(4), Failed)),
        (Confirmed::No, Confirmed::Removed)
    );
    outbox.end_doubt([2].map(key).into_iter());
    check(&mut outbox, key(2), None);
    outbox.set_doubt(Doubt::None);
    let call = outbox.next_call(Instant::now()).unwrap();
    assert_eq!(shown(&call), [(2, Completed)]);
    // It was checked, and fails for another reason. The one that was being sent was not.
    answer(&mut outbox, call, CallResult::Unavailable(error(ErrorKind::Unavailable)));
    answer(&mut outbox, sending, CallResult::Unavailable(error(ErrorKind::Unavailable)));
    assert_eq!(outbox.unchecked().map(|(key, _)| key).collect::<Vec<_>>(), [key(1)]);
    assert_eq!(outbox.count, 2);
}
