//! Conditions of tasks: waits, skips, cancels.

use crate::embedded::core::runs::wakes;
use crate::embedded::core::store::{Condition, ConditionAction, On};
use crate::embedded::core::tests::*;
use crate::embedded::quirks::Quirk;

use ConditionAction::{Cancel, Queue, Skip};
use RestStatus::{Cancelled, Completed, Queued, Running};

fn sleep(action: ConditionAction, group: u16, length: &str) -> Condition {
    Condition { action, group, data_key: length.into(), on: On::Sleep(length.into()) }
}

fn event(action: ConditionAction, group: u16, key: &str) -> Condition {
    let on = On::event(key.into(), "input.n > 1").unwrap();
    Condition { action, group, data_key: key.into(), on }
}

fn parent(action: ConditionAction, name: &str, text: &str) -> Condition {
    let on = On::parent(name.into(), text).unwrap();
    Condition { action, group: 9, data_key: String::new(), on }
}

/// a, then b with conditions, then c; a has completed with `{"x": 5}`.
fn chain(quirks: Quirks, conditions: Vec<Condition>) -> (Bench, Uuid, Uuid) {
    let mut bench = Bench::new(quirks);
    let (worker, _) = bench.worker(10);
    let b = TaskDefinition { conditions, ..named("b", &["a"]) };
    bench.put_all(vec![named("a", &[]), b, named("c", &["b"])], None).unwrap();
    let run = bench.trigger();
    let a = bench.of(run, "a").id;
    bench.report(a, ReportKind::Completed, 0, r#"{"x": 5}"#);
    (bench, worker, run)
}

fn push(bench: &mut Bench, key: &str, number: i32) {
    bench.turn(|core, turn| wakes::event_arrives(core, turn, key, &serde_json::json!({"n": number})));
}

/// The data of its conditions that b got.
fn triggers(bench: &mut Bench) -> serde_json::Value {
    let (_, action) = bench.actions().into_iter().find(|(_, action)| &*action.readable_id == "b").unwrap();
    let mut payload: serde_json::Value = serde_json::from_str(&action.payload).unwrap();
    payload["triggers"].take()
}

#[test]
fn a_sleep_starts_when_the_parents_have_ended() {
    let (mut bench, worker, run) = chain(Quirks::none(), vec![sleep(Queue, 0, "3s")]);
    bench.pass_with_heartbeats(worker, Duration::from_millis(2999));
    // A sleeping task does not exist yet, and the run is shown as queued.
    assert_eq!((bench.tasks(run), bench.run(run).rest_status()), (vec![("a", Queued)], Running));
    bench.pass_with_heartbeats(worker, Duration::from_millis(1));
    assert_eq!(bench.tasks(run), [("a", Queued), ("b", Running)]);
    let found = triggers(&mut bench);
    assert_eq!(found, serde_json::json!({"filter_payload": null, "3s": {"sleep_duration": "3s"}}));
}

#[test]
fn a_sleep_ends_late_as_a_quirk() {
    let (mut bench, worker, run) = chain(Quirks::none().with(Quirk::LateTimeouts), vec![sleep(Queue, 0, "1s")]);
    bench.pass_with_heartbeats(worker, Duration::from_millis(1699));
    assert_eq!(bench.tasks(run).len(), 1);
    bench.pass_with_heartbeats(worker, Duration::from_millis(201));
    assert_eq!(bench.tasks(run).len(), 2);
}

#[test]
fn a_task_without_parents_can_sleep_too() {
    let mut bench = Bench::new(Quirks::none());
    let (worker, _) = bench.worker(10);
    let a = TaskDefinition { conditions: vec![sleep(Queue, 0, "2s")], ..named("a", &[]) };
    bench.put_all(vec![a, named("b", &["a"])], None).unwrap();
    let run = bench.trigger();
    assert!(bench.tasks(run).is_empty());
    bench.pass_with_heartbeats(worker, seconds(2));
    let (_, action) = bench.actions().remove(0);
    assert!(action.payload.contains(r#""triggers":{"filter_payload":null}"#), "{}", action.payload);
}

#[test]
fn one_condition_of_a_group_is_enough_and_all_groups_are_needed() {
    let (mut bench, worker, _) = chain(Quirks::none(), vec![sleep(Queue, 0, "3s"), event(Queue, 0, "e")]);
    push(&mut bench, "e", 1);
    push(&mut bench, "other", 2);
    assert_eq!(bench.assigned(), ["a"]);
    push(&mut bench, "e", 2);
    assert_eq!(triggers(&mut bench), serde_json::json!({"filter_payload": null, "e": {"n": 2}}));
    bench.pass_with_heartbeats(worker, seconds(5));
    assert!(bench.actions().is_empty());

    let (mut bench, worker, _) = chain(Quirks::none(), vec![sleep(Queue, 0, "3s"), event(Queue, 1, "e")]);
    push(&mut bench, "e", 2);
    assert_eq!(bench.assigned(), ["a"]);
    bench.pass_with_heartbeats(worker, seconds(3));
    let both = serde_json::json!({"filter_payload": null, "e": {"n": 2}, "3s": {"sleep_duration": "3s"}});
    assert_eq!(triggers(&mut bench), both);
}

#[test]
fn a_wait_can_skip_or_cancel() {
    for (action, end) in [(Skip, Completed), (Cancel, Cancelled)] {
        let (mut bench, worker, run) = chain(Quirks::none(), vec![sleep(Queue, 0, "6s"), event(action, 1, "e")]);
        push(&mut bench, "e", 2);
        assert_eq!(bench.tasks(run), [("a", Completed), ("b", end), ("c", end)]);
        assert_eq!(bench.run(run).rest_status(), end);
        bench.pass_with_heartbeats(worker, seconds(7));
        assert_eq!(bench.assigned(), ["a"]);
    }
}

#[test]
fn a_parents_output_decides() {
    let tasks = |condition| {
        let (bench, _, run) = chain(Quirks::none(), vec![condition]);
        bench.tasks(run).into_iter().map(|(name, status)| format!("{name} {status:?}")).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(tasks(parent(Skip, "a", "output.x > 4")), "a Completed, b Completed, c Completed");
    assert_eq!(tasks(parent(Skip, "a", "output.nope > 4")), "a Queued, b Running");
    assert_eq!(tasks(parent(Cancel, "a", "output.x == 5")), "a Completed, b Cancelled, c Cancelled");
    assert_eq!(tasks(parent(Queue, "a", "output.x == 5")), "a Queued, b Running");
    // Forever.
    assert_eq!(tasks(parent(Queue, "a", "output.x > 5")), "a Queued");
    // About the output of an unknown task.
    assert_eq!(tasks(parent(Skip, "zz", "true")), "a Queued, b Running");
}

#[test]
fn expressions_of_conditions() {
    for (text, is_true) in [
        ("", true),
        ("!has(output.nope)", true),
        ("output.nope > 1 || input.x >= 5", true),
        ("size(output) == 1 && output['x'] in [4, 5] && string(output.x) == '5'", true),
        ("output", false),
        ("output.x", false),
        ("output.nope > 1", false),
        ("has(output.nope)", false),
    ] {
        let (mut bench, _, _) = chain(Quirks::none(), vec![parent(Queue, "a", text)]);
        assert_eq!(bench.assigned() == ["a", "b"], is_true, "{text}");
    }
    let invalid =
        [" ", "output.x >", "payload.x == 5", "((true)", "a b", "has(true)", "checksum(input) == 'x'", "1 == 'a'"];
    for text in invalid {
        let (mut bench, _, _) = chain(Quirks::none(), vec![parent(Queue, "a", text)]);
        assert_eq!(bench.assigned(), ["a"], "{text} is not CEL, accepted and never true");
    }
    for text in ["output.x.matches('a')", "timestamp(output.x) > timestamp(0)"] {
        let rejected = On::event("e".into(), text).unwrap_err();
        assert_eq!(rejected.message, format!("the embedded engine does not implement conditions like `{text}` yet"));
    }
}

#[test]
fn a_failed_parent_cancels_a_task_with_conditions() {
    let mut bench = Bench::new(Quirks::none());
    bench.worker(10);
    let b =
        TaskDefinition { conditions: vec![parent(Queue, "a", "true"), sleep(Queue, 1, "2s")], ..named("b", &["a"]) };
    bench.put_all(vec![named("a", &[]), b], None).unwrap();
    let run = bench.trigger();
    let a = bench.of(run, "a").id;
    bench.report(a, ReportKind::Failed, 0, "no");
    assert_eq!(bench.of(run, "b").rest_status(), Cancelled);
}

#[test]
fn a_cancel_does_not_reach_a_sleeping_task_as_a_quirk() {
    let cancelled = |quirks| {
        let (mut bench, worker, run) = chain(quirks, vec![sleep(Queue, 0, "3s")]);
        bench.turn(|core, turn| core.cancel(turn, &[run]));
        let at_once = bench.run(run).has_ended();
        bench.pass_with_heartbeats(worker, seconds(3));
        for name in ["b", "c"] {
            let id = bench.of(run, name).id;
            if bench.of(run, name).rest_status() == Running {
                bench.report(id, ReportKind::Completed, 0, "{}");
            }
        }
        (at_once, bench.of(run, "c").rest_status(), bench.of(run, "a").finals.len())
    };
    assert_eq!(cancelled(Quirks::none()), (true, Cancelled, 1));
    assert_eq!(cancelled(Quirks::none().with(Quirk::UncancellableWaits)), (false, Completed, 1));
    assert_eq!(
        cancelled(Quirks::none().with(Quirk::UncancellableWaits).with(Quirk::TwoFinalRows)),
        (false, Completed, 2)
    );
}

#[test]
fn nor_a_task_that_waits_for_an_event() {
    let cancelled = |quirks| {
        let (mut bench, _, run) = chain(quirks, vec![event(Queue, 0, "e")]);
        bench.turn(|core, turn| core.cancel(turn, &[run]));
        let at_once = (bench.run(run).rest_status(), bench.run(run).has_ended());
        push(&mut bench, "e", 2);
        for name in ["b", "c"] {
            let id = bench.of(run, name).id;
            if bench.of(run, name).rest_status() == Running {
                bench.report(id, ReportKind::Completed, 0, "{}");
            }
        }
        (at_once, bench.assigned(), bench.run(run).rest_status(), bench.of(run, "a").finals.len())
    };
    let all = || ["a", "b", "c"].map(str::to_owned).to_vec();
    assert_eq!(cancelled(Quirks::none()), ((Cancelled, true), vec!["a".to_owned()], Cancelled, 1));
    let uncancellable = Quirks::none().with(Quirk::UncancellableWaits);
    assert_eq!(cancelled(uncancellable), ((Running, false), all(), Completed, 1));
    assert_eq!(cancelled(uncancellable.with(Quirk::TwoFinalRows)), ((Running, false), all(), Completed, 2));
}

#[test]
fn a_cancel_reaches_a_task_whose_conditions_cannot_be_met() {
    for quirks in [Quirks::none(), Quirks::all()] {
        let (mut bench, _, run) = chain(quirks, vec![parent(Queue, "a", "false")]);
        bench.turn(|core, turn| core.cancel(turn, &[run]));
        assert_eq!(bench.tasks(run), [("a", Completed), ("b", Cancelled), ("c", Cancelled)]);
        assert_eq!(bench.run(run).rest_status(), Cancelled);
    }
}

#[test]
fn a_replay_sleeps_again_and_as_a_quirk_is_shown_as_ended_meanwhile() {
    let (mut bench, worker, run) = chain(Quirk::HiddenReplayWaits.into(), vec![sleep(Queue, 0, "3s")]);
    bench.pass_with_heartbeats(worker, seconds(3));
    for name in ["b", "c"] {
        let id = bench.of(run, name).id;
        bench.report(id, ReportKind::Completed, 0, "{}");
    }
    bench.turn(|core, turn| core.replay(turn, &[run]));
    let a = bench.of(run, "a").id;
    bench.report(a, ReportKind::Completed, 1, "{}");
    assert_eq!((bench.run(run).rest_status(), bench.of(run, "b").retry_count), (Completed, 0));
    bench.pass_with_heartbeats(worker, seconds(3));
    assert_eq!((bench.run(run).rest_status(), bench.of(run, "b").retry_count), (Running, 1));
}

#[test]
fn a_condition_is_satisfied_by_the_first_event_only() {
    let (mut bench, _, run) = chain(Quirks::none(), vec![event(Queue, 0, "e"), event(Queue, 1, "f")]);
    for number in 2..=4 {
        push(&mut bench, "e", number);
    }
    let met = |bench: &Bench| {
        let dag = bench.run(run).dag.as_ref().unwrap();
        dag.nodes[1].wait.as_ref().unwrap().met.len()
    };
    assert_eq!(met(&bench), 1);
    push(&mut bench, "f", 5);
    let expected = serde_json::json!({"filter_payload": null, "e": {"n": 2}, "f": {"n": 5}});
    assert_eq!(triggers(&mut bench), expected);
}

#[test]
fn the_only_task_of_a_workflow_cannot_wait() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(TaskDefinition { conditions: vec![sleep(Queue, 0, "1s")], ..task() });
    assert!(bench.turn(|core, turn| core.trigger(turn, vec![trigger(None)])).is_err());
    let mut bench = Bench::new(Quirks::none().with(Quirk::NeverCreatedRuns));
    bench.put(TaskDefinition { conditions: vec![sleep(Queue, 0, "1s")], ..task() });
    let never_created = bench.trigger();
    assert!(bench.core.find_run(never_created).is_none());
}

#[test]
fn impossible_conditions_are_rejected() {
    let mut bench = Bench::new(Quirks::none());
    let mut rejected = |condition| {
        let b = TaskDefinition { conditions: vec![condition], ..named("b", &["a"]) };
        bench.put_all(vec![named("a", &[]), b], None).unwrap_err().message
    };
    let nameless = Condition { data_key: String::new(), ..sleep(Queue, 0, "1s") };
    assert!(rejected(nameless).contains("Tasks[1].TriggerConditions[0].ReadableDataKey': on condition 'required'\n"));
    assert!(
        rejected(sleep(Queue, 0, "1d")).contains("Tasks[1].TriggerConditions[0].SleepDuration': Invalid duration.")
    );
}
