//! Assignments, and how workers lose them.

use crate::embedded::core::tests::*;
use crate::embedded::quirks::Quirk;

#[test]
fn urgent_tasks_come_first_and_tasks_sent_together_in_the_order_of_creation() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(task());
    let triggers = |priorities: &[i32]| priorities.iter().map(|priority| trigger(Some(*priority))).collect::<Vec<_>>();
    bench.turn(|core, turn| core.trigger(turn, triggers(&[1, 3, 2, 3, 1]))).unwrap();
    bench.worker(3);
    let sent: Vec<_> = bench.actions().into_iter().map(|(_, action)| action.priority).collect();
    assert_eq!(sent, [3, 2, 3]);
}

#[test]
fn five_seconds_after_its_last_heartbeat_a_worker_gets_nothing_new() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(task());
    let (worker, _) = bench.worker(10);
    bench.pass(seconds(5));
    bench.trigger();
    assert_eq!(bench.actions().len(), 1);
    bench.pass(Duration::from_millis(1));
    bench.trigger();
    assert!(bench.actions().is_empty());
    bench.heartbeat(worker);
    assert_eq!(bench.actions().len(), 1);
}

#[test]
fn after_half_a_minute_of_silence_the_task_goes_to_another_worker() {
    let mut bench = Bench::new(Quirks::none());
    let (silent, _) = bench.worker(1);
    let id = bench.started(task());
    bench.actions();
    let (other, stream) = bench.worker(1);
    bench.pass_with_heartbeats(other, Duration::from_millis(29_999));
    assert!(bench.actions().is_empty());
    bench.heartbeat(other);
    bench.pass(Duration::from_millis(1));
    let moved: Vec<_> =
        bench.actions().into_iter().map(|(stream, action)| (stream, action.task, action.retry_count)).collect();
    assert_eq!(moved, [(stream, id, 1)]);
    assert_eq!(bench.text(id, TaskEventKind::Reassigned), "Worker did not send a heartbeat for 30 seconds");
    // Neither the next attempt nor its queueing is recorded.
    let expected = [
        ("QUEUED", 0),
        ("ASSIGNED", 0),
        ("SENT_TO_WORKER", 0),
        ("REASSIGNED", 0),
        ("ASSIGNED", 1),
        ("SENT_TO_WORKER", 1),
    ];
    assert_eq!(bench.kinds(id), expected);

    // The result of the old worker comes too late.
    bench.heartbeat(silent);
    bench.report(id, ReportKind::Completed, 0, "{}");
    assert_eq!(bench.grpc(id), RestStatus::Running);
}

#[test]
fn a_worker_that_reconnects_keeps_its_tasks() {
    let mut bench = Bench::new(Quirks::none());
    let (worker, old) = bench.worker(1);
    let id = bench.started(task());
    bench.pass_with_heartbeats(worker, seconds(28));
    bench.turn(|core, turn| core.close_stream(turn, old));
    let stream = bench.stream();
    bench.turn(|core, _| core.listen(worker, stream)).unwrap();
    // Half a minute has passed since the first heartbeat, but not since the last.
    bench.pass(seconds(3));
    assert!(!bench.kinds(id).contains(&("REASSIGNED", 0)));
    // Before its next heartbeat it is assigned nothing.
    bench.report(id, ReportKind::Completed, 0, "{}");
    bench.effects();
    bench.trigger();
    assert!(bench.actions().is_empty());
    bench.heartbeat(worker);
    assert_eq!(bench.actions()[0].0, stream);
}

#[test]
fn a_heartbeat_after_the_stream_is_rejected() {
    let mut bench = Bench::new(Quirks::none());
    let (worker, stream) = bench.worker(1);
    bench.turn(|core, turn| core.close_stream(turn, stream));
    let rejected = bench.turn(|core, turn| core.heartbeat(turn, worker)).unwrap_err();
    assert_eq!(rejected.message, format!("Heartbeat rejected: worker stream is not active: {worker}"));
}

#[test]
fn tasks_for_a_worker_whose_close_went_unnoticed_fail_after_ten_tries() {
    let quirks = Quirks::none().with(Quirk::UndetectedClose);
    let forgotten = (0..10).find_map(|_| {
        let mut bench = Bench::new(quirks);
        let (worker, stream) = bench.worker(1);
        // With one more random number, the coin has the other result.
        for _ in 0..4 {
            bench.turn(|core, turn| core.close_stream(turn, stream));
            if bench.turn(|core, turn| core.heartbeat(turn, worker)).is_ok() {
                return Some((bench, worker));
            }
            bench.turn(|_, turn| turn.uuid());
            bench.turn(|core, _| core.listen(worker, stream)).unwrap();
        }
        None
    });
    let (mut bench, worker) = forgotten.expect("a coin that falls both ways");
    let id = bench.started(task());
    bench.pass_with_heartbeats(worker, seconds(25));
    assert_eq!((bench.grpc(id), bench.rest(id)), (RestStatus::Failed, RestStatus::Failed));
    assert_eq!(bench.task(id).retry_count, 10);
    assert!(bench.text(id, TaskEventKind::Failed).starts_with("Could not send task to worker."));
}

#[test]
fn a_paused_worker_gets_nothing() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(task());
    let (worker, _) = bench.worker(1);
    bench.turn(|core, turn| core.pause(turn, worker, true));
    bench.trigger();
    assert!(bench.actions().is_empty());
    bench.turn(|core, turn| core.pause(turn, worker, false));
    assert_eq!(bench.actions().len(), 1);
}

#[test]
fn as_a_quirk_a_pause_is_noticed_late() {
    let mut bench = Bench::new(Quirks::none().with(Quirk::LatePause));
    bench.put(task());
    let (worker, _) = bench.worker(2);
    bench.turn(|core, turn| core.pause(turn, worker, true));
    bench.pass(Duration::from_millis(1499));
    bench.trigger();
    assert_eq!(bench.actions().len(), 1);
    bench.pass(Duration::from_millis(1));
    bench.trigger();
    assert!(bench.actions().is_empty());
}

#[test]
fn a_worker_without_a_stream_gets_nothing() {
    for quirks in [Quirks::none(), Quirks::all()] {
        let mut bench = Bench::new(quirks);
        let worker = bench.turn(|core, turn| core.register(turn, registration(1))).unwrap();
        // The heartbeat is accepted, and REST shows the worker as active.
        bench.heartbeat(worker);
        assert_eq!(bench.core.worker(worker).unwrap().status(bench.now), "ACTIVE");
        let id = bench.started(task());
        bench.heartbeat(worker);
        assert_eq!((bench.rest(id), bench.kinds(id).len()), (RestStatus::Queued, 2), "{quirks:?}");
        let stream = bench.stream();
        bench.turn(|core, _| core.listen(worker, stream)).unwrap();
        bench.heartbeat(worker);
        assert_eq!(bench.rest(id), RestStatus::Running);
    }
}

#[test]
fn an_unsubscribed_worker_gets_nothing() {
    let mut bench = Bench::new(Quirks::none());
    let (worker, _) = bench.worker(2);
    let running = bench.started(task());
    bench.turn(|core, _| core.unsubscribe(worker)).unwrap();
    assert!(bench.turn(|core, turn| core.heartbeat(turn, worker)).is_err());
    let id = bench.trigger();
    bench.report(running, ReportKind::Completed, 0, "{}");
    assert_eq!((bench.rest(running), bench.rest(id)), (RestStatus::Completed, RestStatus::Queued));
}

#[test]
fn as_a_quirk_an_unsubscribed_worker_gets_tasks_that_cannot_be_sent() {
    let mut bench = Bench::new(Quirk::UndetectedUnsubscribe.into());
    let (worker, _) = bench.worker(2);
    let running = bench.started(task());
    bench.effects();
    bench.turn(|core, _| core.unsubscribe(worker)).unwrap();
    assert!(bench.effects().is_empty(), "its stream stays open");
    bench.heartbeat(worker);
    assert_eq!(bench.core.worker(worker).unwrap().status(bench.now), "ACTIVE");
    let lost = bench.trigger();
    bench.pass_with_heartbeats(worker, seconds(25));
    assert_eq!((bench.rest(lost), bench.task(lost).retry_count), (RestStatus::Failed, 10));
    assert!(bench.actions().is_empty());
    // Reports are still accepted, and another stream works.
    bench.report(running, ReportKind::Completed, 0, "{}");
    assert_eq!(bench.rest(running), RestStatus::Completed);
    let stream = bench.stream();
    bench.turn(|core, _| core.listen(worker, stream)).unwrap();
    bench.heartbeat(worker);
    bench.trigger();
    assert_eq!(bench.actions()[0].0, stream);
}

#[test]
fn each_task_without_a_worker_is_recorded_even_behind_one_that_was() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(task());
    let urgencies = [1, 3, 2];
    let runs = urgencies
        .map(|priority| bench.turn(|core, turn| core.trigger(turn, vec![trigger(Some(priority))])).unwrap()[0]);
    for run in runs {
        assert_eq!(bench.kinds(run), [("QUEUED", 0), ("REQUEUED_NO_WORKER", 0)]);
    }
}

#[test]
fn a_retry_comes_before_more_urgent_tasks() {
    let mut bench = Bench::new(Quirks::none());
    let (worker, _) = bench.worker(1);
    bench.put(TaskDefinition { retries: 2, timeout: "2s".into(), ..task() });
    let low = bench.turn(|core, turn| core.trigger(turn, vec![trigger(Some(1))])).unwrap()[0];
    bench.turn(|core, turn| core.trigger(turn, vec![trigger(Some(3)); 3])).unwrap();
    bench.report(low, ReportKind::Failed, 0, "no");
    bench.pass_with_heartbeats(worker, seconds(2));
    let started: Vec<_> = bench
        .actions()
        .into_iter()
        .filter(|(_, action)| !action.cancel)
        .map(|(_, action)| (action.task == low, action.retry_count))
        .collect();
    assert_eq!(started, [(true, 0), (true, 1), (true, 2)], "after a failure, and after a timeout");
}
