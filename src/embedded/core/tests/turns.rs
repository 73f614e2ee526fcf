//! Turns are bounded, and time advances.

use tokio_util::sync::CancellationToken;

use super::*;
use crate::embedded::actor;
use crate::embedded::core::engine::MAX_TIMERS_PER_TURN;
use crate::time::Clock;

/// A number of runs, all of whose schedule timeouts are due.
fn with_due_timers(count: usize) -> (Bench, Vec<Uuid>) {
    let mut bench = Bench::new(Quirks::none());
    bench.put(task());
    let runs = bench.turn(|core, turn| core.trigger(turn, vec![trigger(None); count])).unwrap();
    bench.now += seconds(600);
    (bench, runs)
}

#[test]
fn a_turn_fires_no_more_timers_than_its_bound() {
    let (mut bench, runs) = with_due_timers(3 * MAX_TIMERS_PER_TURN + 1);
    let ended = |bench: &Bench| runs.iter().filter(|run| bench.run(**run).has_ended()).count();
    for turns in 1..=3 {
        bench.turn(|_, _| ());
        assert_eq!(ended(&bench), turns * MAX_TIMERS_PER_TURN);
        assert!(bench.core.next_timer().is_some_and(|at| at <= bench.now), "it is known to be behind");
    }
    bench.turn(|_, _| ());
    assert_eq!((ended(&bench), bench.core.next_timer()), (runs.len(), None));
}

#[test]
fn a_task_with_a_zero_timeout_is_retried_at_each_check() {
    let mut bench = Bench::new(Quirks::none());
    let (worker, _) = bench.worker(1);
    let run = bench.started(TaskDefinition { timeout: "0s".into(), retries: i32::MAX, ..task() });
    bench.pass_with_heartbeats(worker, seconds(10));
    assert_eq!((bench.task(run).retry_count, bench.rest(run)), (10, RestStatus::Running));
}

#[tokio::test(start_paused = true)]
async fn a_core_that_is_behind_still_answers() {
    let ended = |core: &mut Core, _: &mut Turn<'_>| core.runs().iter().filter(|run| run.has_ended()).count();
    let (bench, runs) = with_due_timers(10_000);
    let stop = CancellationToken::new();
    let (handle, running) = actor::start(bench.core, 7, Clock::tokio(None), stop.clone());
    // By the machine's clock, they have been due for a long time.
    let mut counts = vec![handle.call(ended).await.unwrap()];
    while counts.last() != Some(&runs.len()) {
        counts.push(handle.call(ended).await.unwrap());
    }
    assert!(counts.len() > 10 && counts.is_sorted(), "{counts:?}");
    stop.cancel();
    running.await.unwrap();
}

#[test]
fn a_snapshot_shows_a_run_as_it_was() {
    let mut bench = Bench::new(Quirks::none());
    bench.worker(1);
    bench.put(task());
    let others = bench.turn(|core, turn| core.trigger(turn, vec![trigger(None); 3])).unwrap();
    let run = bench.run(others[0]).ix;
    let number = |core: &Core| {
        let run = core.find_run(others[0]).unwrap();
        run.number(&run.tasks[0])
    };
    let (before, snapshot) = (number(&bench.core), bench.core.snapshot([run]));
    bench.report(others[0], ReportKind::Completed, 0, "{}");
    assert_eq!(bench.rest(others[0]), RestStatus::Completed);
    let status = |core: &Core| core.rest_run(others[0], bench.now).unwrap().rest_status();
    assert_eq!((status(&bench.core), status(&snapshot)), (RestStatus::Completed, RestStatus::Running));
    // It is the same run, and the snapshot has no other.
    assert_eq!((number(&snapshot), before), (before, number(&bench.core)));
    assert_eq!(snapshot.runs().iter().map(|run| run.id).collect::<Vec<_>>(), others[..1]);
}
