//! Replays.

use crate::embedded::core::tests::*;
use crate::embedded::core::{RunFilter, Selection};
use crate::embedded::quirks::Quirk;

impl Bench {
    fn replay(&mut self, ids: &[Uuid]) -> Vec<Uuid> {
        self.turn(|core, turn| core.replay(turn, ids))
    }

    fn attempts(&self, run: Uuid) -> Vec<i32> {
        self.run(run).tasks.iter().map(|task| task.retry_count).collect()
    }
}

/// A run that has completed, and a worker.
fn completed(quirks: Quirks) -> (Bench, Uuid) {
    let mut bench = Bench::new(quirks);
    bench.worker(1000);
    let id = bench.started(TaskDefinition { retries: 1, ..task() });
    bench.report(id, ReportKind::Completed, 0, r#"{"n": 0}"#);
    bench.effects();
    (bench, id)
}

#[test]
fn a_replay_is_the_next_attempt_under_the_same_id() {
    let (mut bench, id) = completed(Quirks::none());
    assert_eq!(bench.replay(&[id]), [id]);
    assert_eq!((bench.rest(id), bench.grpc(id)), (RestStatus::Running, RestStatus::Running));
    let (_, action) = bench.actions().remove(0);
    assert_eq!((action.task, action.retry_count), (id, 1));
    assert!(bench.kinds(id).contains(&("RETRIED_BY_USER", 0)));
    assert_eq!(bench.text(id, TaskEventKind::Replayed), "Task was replayed, resetting task result.");

    // It has all of its retries again.
    bench.report(id, ReportKind::Failed, 1, "no");
    assert_eq!(bench.task(id).retry_count, 2);
    bench.report(id, ReportKind::Completed, 2, r#"{"n": 2}"#);
    assert_eq!(bench.task(id).grpc_view(bench.now).output, Some(r#"{"n": 2}"#));
    assert_eq!(bench.task(id).finals.len(), 1);
}

#[test]
fn unknown_ids_are_left_out_and_running_tasks_are_returned_but_not_replayed() {
    let mut bench = Bench::new(Quirks::none());
    let id = bench.started(task());
    // A queued task gets another attempt, and is in its queue once.
    assert_eq!(bench.replay(&[Uuid::from_u128(9), id]), [id]);
    assert_eq!((bench.task(id).retry_count, bench.core.queues.entries().count()), (1, 1));
    bench.worker(1);
    assert_eq!(bench.replay(&[id, id]), [id, id]);
    assert_eq!((bench.task(id).retry_count, bench.rest(id)), (1, RestStatus::Running));
}

#[test]
fn a_cancelled_run_can_be_replayed() {
    let (mut bench, _) = completed(Quirks::none());
    let id = bench.trigger();
    bench.turn(|core, turn| core.cancel(turn, &[id]));
    bench.replay(&[id]);
    bench.report(id, ReportKind::Completed, 1, "{}");
    assert_eq!(bench.rest(id), RestStatus::Completed);
}

#[test]
fn the_result_stream_sends_only_the_new_end() {
    let (mut bench, id) = completed(Quirks::none());
    bench.replay(&[id]);
    let stream = bench.stream();
    bench.turn(|core, turn| {
        core.open_results(turn, stream);
        core.ask_result(turn, stream, id);
    });
    bench.effects();
    bench.report(id, ReportKind::Completed, 1, r#"{"n": 1}"#);
    let ends: Vec<_> = bench
        .effects()
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Send(_, Message::Result(result)) => Some(result.tasks),
            _ => None,
        })
        .flatten()
        .map(|row| row.end.unwrap().to_string())
        .collect();
    assert_eq!(ends, [r#"{"n": 1}"#]);
}

/// a, then b, then c, with an on-failure task; all ended.
fn chain(failing: bool) -> (Bench, Uuid) {
    let mut bench = Bench::new(Quirks::none());
    bench.worker(10);
    let tasks = vec![named("a", &[]), named("b", &["a"]), named("c", &["b"])];
    bench.put_all(tasks, Some(named("f", &[]))).unwrap();
    let run = bench.trigger();
    for name in if failing { &["a", "f"][..] } else { &["a", "b", "c"] } {
        let kind = if failing && *name == "a" { ReportKind::Failed } else { ReportKind::Completed };
        let id = bench.of(run, name).id;
        bench.report(id, kind, 0, r#"{"n": 0}"#);
    }
    assert!(bench.run(run).has_ended());
    bench.effects();
    (bench, run)
}

#[test]
fn all_tasks_of_a_dag_are_replayed_in_their_order() {
    for failing in [false, true] {
        let (mut bench, run) = chain(failing);
        assert_eq!(bench.replay(&[run]).len(), 4);
        assert_eq!((bench.assigned(), bench.attempts(run)), (vec!["a".into()], vec![1, 0, 0, 0]));
        // All are recorded as replayed immediately, including those that have not restarted.
        let ran = if failing { ["a", "f", "f"] } else { ["a", "b", "c"] };
        for name in ran {
            let replays = bench.of(run, name).events.iter().filter(|event| event.kind == TaskEventKind::Replayed);
            assert_eq!(replays.map(|event| event.retry_count).collect::<Vec<_>>(), [0], "{name}");
        }
        for name in ["a", "b", "c"] {
            let id = bench.of(run, name).id;
            bench.report(id, ReportKind::Completed, 1, r#"{"n": 1}"#);
        }
        assert_eq!((bench.assigned(), bench.attempts(run)), (vec!["b".into(), "c".into()], vec![1, 1, 1, 1]));
        assert_eq!(bench.run(run).rest_status(), RestStatus::Completed);
        assert_eq!(bench.of(run, "f").grpc_view(bench.now).output, Some(r#"{"skipped":true}"#));
    }
}

#[test]
fn one_step_is_replayed_with_all_dependents() {
    let (mut bench, run) = chain(false);
    let (b, c) = (bench.of(run, "b").id, bench.of(run, "c").id);
    assert_eq!(bench.replay(&[b]), [b]);
    let (_, action) = bench.actions().remove(0);
    assert!(action.task == b && action.payload.contains(r#""parents": {"a": {"n": 0}, "f""#), "{}", action.payload);
    bench.report(b, ReportKind::Completed, 1, "{}");
    bench.report(c, ReportKind::Completed, 1, "{}");
    assert_eq!(bench.attempts(run), [0, 1, 1, 0]);
    assert_eq!(bench.run(run).rest_status(), RestStatus::Completed);
}

#[test]
fn a_dag_that_has_not_ended_is_left_alone() {
    let (mut bench, run) = chain(false);
    let other = bench.trigger();
    assert_eq!(bench.replay(&[other]), [bench.of(other, "a").id]);
    bench.replay(&[run]);
    bench.replay(&[run]);
    assert_eq!((bench.attempts(run), bench.attempts(other)), (vec![1, 0, 0, 0], vec![0, 0, 0, 0]));
}

/// The number of replayed runs, for a number of calls with a number of runs each, and a time between the calls.
fn replayed(quirks: Quirks, calls: usize, of: usize, apart: Duration) -> usize {
    let (mut bench, _) = completed(quirks);
    let runs: Vec<_> = (0..calls * of).map(|_| bench.trigger()).collect();
    for id in &runs {
        bench.report(*id, ReportKind::Completed, 0, "{}");
    }
    for call in runs.chunks(of) {
        assert_eq!(bench.replay(call).len(), of, "all are named in the answer");
        bench.pass(apart);
    }
    bench.pass(seconds(60));
    runs.iter().filter(|id| bench.kinds(**id).contains(&("RETRIED_BY_USER", 0))).count()
}

#[test]
fn replays_get_lost_as_a_quirk() {
    let lost = Quirks::none().with(Quirk::LostReplays);
    assert_eq!(replayed(Quirks::none(), 1, 500, seconds(1)), 500);
    for (calls, of, apart, fewest, most) in [
        (1, 500, seconds(1), 200, 200),
        (1, 100, seconds(1), 100, 100),
        // Measured: 300, 250 and 450.
        (5, 100, Duration::from_millis(1500), 250, 350),
        (10, 50, seconds(1), 200, 300),
        (20, 25, Duration::from_millis(500), 400, 475),
        // A call after the end of the last one: none is lost.
        (5, 100, seconds(8), 500, 500),
    ] {
        let done = replayed(lost, calls, of, apart);
        assert!((fewest..=most).contains(&done), "{calls} calls of {of}, {apart:?} apart: {done}");
    }
}

#[test]
fn running_and_waiting_tasks_are_not_replayed_with_lost_replays_either() {
    let mut bench = Bench::new(Quirks::all());
    let id = bench.started(task());
    assert_eq!(bench.replay(&[id]), [id]);
    bench.pass(seconds(1));
    assert_eq!((bench.task(id).retry_count, bench.core.queues.entries().count()), (1, 1), "queued: another attempt");
    bench.worker(1);
    assert_eq!(bench.replay(&[id]), [id]);
    bench.pass(seconds(1));
    assert_eq!((bench.task(id).retry_count, bench.rest(id)), (1, RestStatus::Running));
    bench.turn(|core, turn| core.cancel(turn, &[id]));
    assert_eq!(bench.replay(&[id]), [id]);
    bench.pass(seconds(1));
    assert_eq!((bench.task(id).retry_count, bench.rest(id)), (2, RestStatus::Running), "cancelled: it is accepted");
}

#[test]
fn a_filter_selects_the_newest() {
    let (mut bench, id) = completed(Quirks::none());
    bench.pass(seconds(1));
    let newer = bench.trigger();
    let filter = |filter: RunFilter, statuses: &[&str], tags: &[&str]| {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        filter.with_texts(&texts(statuses), &texts(tags))
    };
    let since = RunFilter { since: Some(bench.now - TimeDelta::seconds(60)), ..RunFilter::default() };
    let found = |statuses: &[&str], tags: &[&str], most| {
        bench.core.selected(Selection::Filter(filter(since.clone(), statuses, tags).unwrap()), most, bench.now)
    };
    assert_eq!(found(&[], &[], 10), [newer, id]);
    assert_eq!(found(&[], &[], 1), [newer]);
    assert_eq!(found(&["COMPLETED"], &[], 10), [id]);
    assert_eq!(found(&[], &["tag:x"], 10), [newer, id]);
    // Of two values for one key, the last counts.
    assert!(found(&[], &["tag:x", "tag:y"], 10).is_empty());
    // Without a start, nothing matches.
    assert!(bench.core.selected(Selection::Filter(RunFilter::default()), 10, bench.now).is_empty());
    assert!(
        filter(RunFilter::default(), &["NOPE"], &[]).is_err() && filter(RunFilter::default(), &[], &["x"]).is_err()
    );
}

#[test]
fn a_replayed_dag_that_waits_has_not_ended() {
    use crate::embedded::core::store::{Condition, ConditionAction, On};
    for quirks in [Quirks::none(), Quirk::HiddenReplayWaits.into()] {
        let mut bench = Bench::new(quirks);
        let (worker, _) = bench.worker(10);
        let sleep =
            Condition { action: ConditionAction::Queue, group: 0, data_key: "s".into(), on: On::Sleep("3s".into()) };
        bench
            .put_all(vec![TaskDefinition { conditions: vec![sleep], ..named("a", &[]) }, named("b", &["a"])], None)
            .unwrap();
        let run = bench.trigger();
        let complete = |bench: &mut Bench, attempt| {
            bench.pass_with_heartbeats(worker, seconds(3));
            for name in ["a", "b"] {
                let id = bench.of(run, name).id;
                bench.report(id, ReportKind::Completed, attempt, "{}");
            }
        };
        complete(&mut bench, 0);
        assert!(bench.run(run).has_ended());
        let stream = bench.stream();
        bench.turn(|core, turn| core.open_results(turn, stream));
        bench.replay(&[run]);
        bench.turn(|core, turn| core.ask_result(turn, stream, run));
        bench.effects();
        bench.pass_with_heartbeats(worker, seconds(2));
        assert!(bench.effects().is_empty(), "not the old result");
        let shown = if quirks == Quirks::none() { RestStatus::Running } else { RestStatus::Completed };
        assert_eq!((bench.run(run).has_ended(), bench.run(run).rest_status()), (false, shown));
        complete(&mut bench, 1);
        let results = bench.effects();
        let results = results.iter().filter(|effect| matches!(effect, Effect::Send(_, Message::Result(_))));
        assert_eq!(results.count(), 1);
        assert_eq!((bench.attempts(run), bench.run(run).rest_status()), (vec![1, 1], RestStatus::Completed));
    }
}
