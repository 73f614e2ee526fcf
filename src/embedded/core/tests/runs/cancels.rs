//! Scheduling timeouts of tasks that were cancelled while queued.

use crate::embedded::core::tests::*;
use crate::embedded::quirks::Quirk;

const COUNT: usize = 400;

fn queued(quirks: impl Into<Quirks>) -> (Bench, Vec<Uuid>) {
    let mut bench = Bench::new(quirks.into());
    bench.put(TaskDefinition { schedule_timeout: Some("10s".into()), ..task() });
    let runs = bench.turn(|core, turn| core.trigger(turn, vec![trigger(None); COUNT])).unwrap();
    bench.pass(seconds(3));
    (bench, runs)
}

/// The number of runs that REST shows as failed. gRPC shows all as cancelled.
fn failed(bench: &Bench, runs: &[Uuid]) -> usize {
    assert!(runs.iter().all(|run| bench.grpc(*run) == RestStatus::Cancelled));
    let of = |status| runs.iter().filter(|run| bench.rest(**run) == status).count();
    let failed = of(RestStatus::Failed);
    assert_eq!(failed + of(RestStatus::Cancelled), runs.len());
    failed
}

#[test]
fn one_in_five_tasks_cancelled_while_queued_gets_a_scheduling_timeout() {
    let (mut bench, runs) = queued(Quirk::TimedOutCancels);
    bench.turn(|core, turn| core.cancel(turn, &runs));
    assert_eq!(failed(&bench, &runs), 0);
    bench.pass(Duration::from_millis(6999));
    assert_eq!(failed(&bench, &runs), 0);
    bench.pass(Duration::from_millis(1));
    let count = failed(&bench, &runs);
    assert!((60..=100).contains(&count), "{count} of {COUNT}");
    for run in &runs {
        let kinds: Vec<_> =
            bench.kinds(*run).into_iter().map(|(kind, _)| kind).skip_while(|kind| *kind != "CANCELLED").collect();
        let timed_out = bench.rest(*run) == RestStatus::Failed;
        assert_eq!(kinds, if timed_out { vec!["CANCELLED", "SCHEDULING_TIMED_OUT"] } else { vec!["CANCELLED"] });
    }
    bench.pass(seconds(3600));
    assert_eq!(failed(&bench, &runs), count);
}

#[test]
fn single_cancels_are_affected_too() {
    let (mut bench, runs) = queued(Quirk::TimedOutCancels);
    for run in &runs {
        bench.turn(|core, turn| core.cancel(turn, &[*run]));
    }
    bench.pass(seconds(7));
    let count = failed(&bench, &runs);
    assert!((60..=100).contains(&count), "{count} of {COUNT}");
}

#[test]
fn without_the_quirk_none_is_affected() {
    let (mut bench, runs) = queued(Quirks::none());
    bench.turn(|core, turn| core.cancel(turn, &runs));
    bench.pass(seconds(3600));
    assert_eq!(failed(&bench, &runs), 0);
}

#[test]
fn running_tasks_are_not_affected() {
    let (mut bench, runs) = queued(Quirk::TimedOutCancels);
    bench.worker(i32::try_from(COUNT).unwrap());
    bench.turn(|core, turn| core.cancel(turn, &runs));
    bench.pass(seconds(3600));
    assert_eq!(failed(&bench, &runs), 0);
}

#[test]
fn tasks_that_are_replayed_before_the_timeout_are_not_affected() {
    let (mut bench, runs) = queued(Quirk::TimedOutCancels);
    bench.turn(|core, turn| core.cancel(turn, &runs));
    bench.turn(|core, turn| core.replay(turn, &runs));
    bench.pass(Duration::from_millis(9999));
    assert!(
        runs.iter().all(|run| bench.rest(*run) == RestStatus::Queued),
        "the timeout of the first attempt has passed"
    );
    bench.pass(Duration::from_millis(1));
    assert!(runs.iter().all(|run| bench.kinds(*run).last() == Some(&("SCHEDULING_TIMED_OUT", 1))));
}

#[test]
fn a_replay_after_the_timeout_can_complete() {
    let (mut bench, runs) = queued(Quirk::TimedOutCancels);
    bench.turn(|core, turn| core.cancel(turn, &runs));
    bench.pass(seconds(7));
    bench.worker(i32::try_from(COUNT).unwrap());
    bench.turn(|core, turn| core.replay(turn, &runs));
    for run in &runs {
        bench.report(*run, ReportKind::Completed, 1, "{}");
    }
    assert!(
        runs.iter().all(|run| (bench.rest(*run), bench.grpc(*run)) == (RestStatus::Completed, RestStatus::Completed))
    );
}

#[test]
fn a_dag_fails_with_its_task() {
    let mut failed = 0;
    for number in 0..40 {
        let mut bench = Bench::new(Quirk::TimedOutCancels.into());
        bench.numbers = number * 1000;
        let a = TaskDefinition { schedule_timeout: Some("10s".into()), ..named("a", &[]) };
        bench.put_all(vec![a, named("b", &["a"])], None).unwrap();
        let run = bench.trigger();
        bench.turn(|core, turn| core.cancel(turn, &[run]));
        bench.pass(seconds(10));
        assert_eq!(bench.tasks(run), [("a", RestStatus::Cancelled), ("b", RestStatus::Cancelled)]);
        let expected = if bench.of(run, "a").rest_status() == RestStatus::Failed {
            RestStatus::Failed
        } else {
            RestStatus::Cancelled
        };
        assert_eq!(bench.run(run).rest_status(), expected);
        failed += u32::from(expected == RestStatus::Failed);
    }
    assert!((2..=16).contains(&failed), "{failed} of 40");
}

/// The actions that a worker gets: whether they are cancels, and the task's run or name.
fn sent(bench: &mut Bench) -> Vec<(bool, Uuid)> {
    bench.actions().into_iter().map(|(_, action)| (action.cancel, action.task)).collect()
}

#[test]
fn a_cancel_does_not_start_what_it_cancels() {
    for quirks in [Quirks::none(), Quirk::TwoFinalRows.into()] {
        let mut bench = Bench::new(quirks);
        bench.worker(1);
        bench.put_all(vec![named("a", &[]), named("b", &[]), named("c", &["a", "b"])], None).unwrap();
        let run = bench.trigger();
        let ids = ["a", "b"].map(|name| bench.of(run, name).id);
        bench.effects();
        bench.turn(|core, turn| core.cancel(turn, &[run]));
        assert_eq!(sent(&mut bench), [(true, ids[0])], "{quirks:?}");
        assert_eq!(bench.tasks(run).iter().filter(|(_, status)| *status == RestStatus::Cancelled).count(), 3);

        // The same for several ids of one call, with a further run that gets the slot.
        bench.put(task());
        let [first, second, other] = std::array::from_fn(|_| bench.trigger());
        bench.effects();
        bench.turn(|core, turn| core.cancel(turn, &[first, second]));
        assert_eq!(sent(&mut bench), [(true, first), (false, other)]);
        assert_eq!(
            [first, second, other].map(|run| bench.rest(run)),
            [RestStatus::Cancelled, RestStatus::Cancelled, RestStatus::Running]
        );
    }
}

#[test]
fn the_end_of_a_dag_whose_tasks_are_cancelled_together_is_sent_once() {
    let mut bench = Bench::new(Quirks::none());
    bench.worker(2);
    bench.put_all(vec![named("a", &[]), named("b", &[])], None).unwrap();
    for by_task in [false, true] {
        let run = bench.trigger();
        let stream = bench.stream();
        bench.turn(|core, turn| {
            core.open_results(turn, stream);
            core.ask_result(turn, stream, run);
        });
        bench.effects();
        let ids = if by_task { ["a", "b"].map(|name| bench.of(run, name).id).to_vec() } else { vec![run] };
        bench.turn(|core, turn| core.cancel(turn, &ids));
        let results: Vec<_> = bench
            .effects()
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Send(_, Message::Result(result)) => Some(result.tasks.len()),
                _ => None,
            })
            .collect();
        assert_eq!(results, [2], "{by_task}");
    }
}
