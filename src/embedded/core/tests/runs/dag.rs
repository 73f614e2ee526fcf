//! DAGs.

use crate::embedded::core::store::Code;
use crate::embedded::core::tests::*;
use crate::embedded::quirks::Quirk;

use RestStatus::{Cancelled, Completed, Failed, Queued, Running};

/// a, then b and c, then d.
fn diamond() -> Vec<TaskDefinition> {
    vec![named("a", &[]), named("b", &["a"]), named("c", &["a"]), named("d", &["b", "c"])]
}

/// A started diamond, with a worker that has slots for all of it.
fn started(quirks: Quirks, on_failure: Option<TaskDefinition>) -> (Bench, Uuid, Uuid) {
    let mut bench = Bench::new(quirks);
    let (worker, _) = bench.worker(10);
    bench.put_all(diamond(), on_failure).unwrap();
    let run = bench.trigger();
    (bench, worker, run)
}

fn complete(bench: &mut Bench, run: Uuid, name: &str, output: &str) {
    let task = bench.of(run, name);
    let (id, retry_count) = (task.id, task.retry_count);
    bench.report(id, ReportKind::Completed, retry_count, output);
}

fn complete_all(bench: &mut Bench, run: Uuid) {
    for name in ["a", "b", "c", "d"] {
        complete(bench, run, name, "{}");
    }
}

fn fail(bench: &mut Bench, run: Uuid, name: &str) {
    let task = bench.of(run, name);
    let (id, retry_count) = (task.id, task.retry_count);
    bench.report(id, ReportKind::Failed, retry_count, "no");
}

#[test]
fn tasks_are_created_when_their_parents_have_completed() {
    let (mut bench, _, run) = started(Quirks::none(), None);
    assert_ne!(bench.of(run, "a").id, run);
    assert_eq!(bench.assigned(), ["a"]);
    assert_eq!(bench.tasks(run), [("a", Running)]);

    complete(&mut bench, run, "a", r#"{"from": "a"}"#);
    assert_eq!(bench.assigned(), ["b", "c"]);
    // A task that has ended is shown as queued until all have ended.
    assert_eq!(bench.tasks(run), [("a", Queued), ("b", Running), ("c", Running)]);
    complete(&mut bench, run, "c", "{}");
    assert!(bench.assigned().is_empty());
    complete(&mut bench, run, "b", r#"{"from": "b"}"#);

    let (_, action) = bench.actions().remove(0);
    let payload: serde_json::Value = serde_json::from_str(&action.payload).unwrap();
    assert_eq!(payload["parents"], serde_json::json!({"a": {"from": "a"}, "b": {"from": "b"}, "c": {}}));
    assert_eq!(bench.run(run).rest_status(), Running);
    complete(&mut bench, run, "d", "{}");
    assert_eq!(bench.tasks(run), [("a", Completed), ("b", Completed), ("c", Completed), ("d", Completed)]);
    assert_eq!(bench.run(run).rest_status(), Completed);
}

#[test]
fn between_two_layers_nothing_runs() {
    let mut bench = Bench::new(Quirks::none());
    bench.put_all(diamond(), None).unwrap();
    let run = bench.trigger();
    assert_eq!((bench.tasks(run), bench.run(run).rest_status()), (vec![("a", Queued)], Queued));
    bench.worker(1);
    complete(&mut bench, run, "a", "{}");
    // b has the only slot.
    assert_eq!(bench.tasks(run), [("a", Queued), ("b", Running), ("c", Queued)]);
    assert_eq!(bench.run(run).rest_status(), Running);
}

#[test]
fn between_two_layers_grpc_shows_it_as_queued_as_a_quirk() {
    let (mut bench, _, run) = started(Quirks::none().with(Quirk::LateDependents), None);
    assert_eq!(bench.tasks(run)[0], ("a", Running));
    complete(&mut bench, run, "a", "{}");
    let queued = [("a", Queued), ("b", Queued), ("c", Queued)];
    assert_eq!((bench.tasks(run), bench.run(run).rest_status()), (queued.to_vec(), Running));
    bench.pass(Duration::from_millis(19));
    assert_eq!(bench.tasks(run), queued);
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.tasks(run), [("a", Queued), ("b", Running), ("c", Running)]);
}

#[test]
fn a_failure_cancels_its_followers_immediately() {
    let (mut bench, _, run) = started(Quirks::none(), None);
    complete(&mut bench, run, "a", "{}");
    fail(&mut bench, run, "b");
    assert_eq!(bench.of(run, "d").rest_status(), Cancelled);
    assert_eq!(bench.of(run, "d").events.iter().map(|event| event.kind.name()).collect::<Vec<_>>(), ["CANCELLED"]);
    // The other task continues, and the run ends with it.
    assert_eq!(bench.run(run).rest_status(), Running);
    complete(&mut bench, run, "c", "{}");
    assert_eq!(bench.tasks(run), [("a", Completed), ("b", Failed), ("c", Completed), ("d", Cancelled)]);
    assert_eq!(bench.run(run).rest_status(), Failed);
}

#[test]
fn a_task_is_retried_before_it_fails() {
    let mut bench = Bench::new(Quirks::none());
    bench.worker(10);
    bench.put_all(vec![TaskDefinition { retries: 1, ..named("a", &[]) }, named("b", &["a"])], None).unwrap();
    let run = bench.trigger();
    fail(&mut bench, run, "a");
    assert_eq!(bench.assigned(), ["a", "a"]);
    assert_eq!(bench.tasks(run), [("a", Running)]);
    complete(&mut bench, run, "a", "{}");
    assert_eq!(bench.assigned(), ["b"]);
}

#[test]
fn the_on_failure_task_runs_with_the_first_failure() {
    let (mut bench, _, run) = started(Quirks::none(), Some(named("cleanup", &[])));
    complete(&mut bench, run, "a", r#"{"n": 1}"#);
    bench.effects();
    fail(&mut bench, run, "b");
    let (_, action) = bench.actions().remove(0);
    assert_eq!(&*action.readable_id, "cleanup");
    let payload: serde_json::Value = serde_json::from_str(&action.payload).unwrap();
    assert_eq!(payload["step_run_errors"], serde_json::json!({"b": "no"}));
    assert_eq!(payload["parents"], serde_json::json!({"a": {"n": 1}}));
    complete(&mut bench, run, "cleanup", "{}");
    complete(&mut bench, run, "c", "{}");
    assert_eq!(bench.run(run).rest_status(), Failed);
}

#[test]
fn without_a_failure_the_on_failure_task_is_skipped() {
    for cancelled in [false, true] {
        let (mut bench, _, run) = started(Quirks::none(), Some(named("cleanup", &[])));
        if cancelled {
            bench.turn(|core, turn| core.cancel(turn, &[run]));
        } else {
            complete_all(&mut bench, run);
        }
        let cleanup = bench.of(run, "cleanup");
        assert_eq!(cleanup.grpc_view(bench.now).output, Some(r#"{"skipped":true}"#));
        assert_eq!(cleanup.events.iter().map(|event| event.kind.name()).collect::<Vec<_>>(), ["SKIPPED"]);
        assert_eq!(bench.run(run).rest_status(), if cancelled { Cancelled } else { Completed });
    }
}

#[test]
fn an_output_that_says_skipped_skips_followers_without_other_parents() {
    let mut bench = Bench::new(Quirks::none());
    bench.worker(10);
    bench.put_all(vec![named("a", &[]), named("x", &[]), named("b", &["a"]), named("c", &["a", "x"])], None).unwrap();
    let run = bench.trigger();
    complete(&mut bench, run, "a", r#"{"skipped": true, "y": 1}"#);
    complete(&mut bench, run, "x", "{}");
    assert_eq!(bench.assigned(), ["a", "x", "c"]);
    assert_eq!(bench.of(run, "b").rest_status(), Completed);
}

#[test]
fn a_cancel_reaches_all_tasks_and_completed_ones_only_as_a_quirk() {
    let cancelled = |quirks| {
        let (mut bench, _, run) = started(quirks, None);
        complete(&mut bench, run, "a", "{}");
        bench.effects();
        bench.turn(|core, turn| core.cancel(turn, &[run]));
        let sent: Vec<_> =
            bench.actions().into_iter().map(|(_, action)| (action.cancel, action.readable_id.to_string())).collect();
        assert_eq!(sent, [(true, "b".to_owned()), (true, "c".to_owned())]);
        assert_eq!(bench.tasks(run), [("a", Completed), ("b", Cancelled), ("c", Cancelled), ("d", Cancelled)]);
        assert_eq!(bench.run(run).rest_status(), Cancelled);
        bench.of(run, "a").finals.len()
    };
    assert_eq!((cancelled(Quirks::none()), cancelled(Quirks::none().with(Quirk::TwoFinalRows))), (1, 2));
}

#[test]
fn one_task_of_a_dag_can_be_cancelled() {
    let (mut bench, _, run) = started(Quirks::none(), None);
    complete(&mut bench, run, "a", "{}");
    let b = bench.of(run, "b").id;
    bench.turn(|core, turn| core.cancel(turn, &[b]));
    assert_eq!(bench.tasks(run), [("a", Queued), ("b", Queued), ("c", Running), ("d", Queued)]);
}

#[test]
fn creations_of_tasks_and_one_end_are_announced() {
    let (mut bench, _, run) = started(Quirks::none(), None);
    let stream = bench.stream();
    bench.turn(|core, turn| core.watch_run(turn, stream, run));
    bench.effects();
    fail(&mut bench, run, "a");
    let sent: Vec<_> =
        bench.events().into_iter().map(|event| (event.resource != Resource::Run, event.kind, event.hangup)).collect();
    let made = (true, EventKind::Started, false);
    assert_eq!(sent, [(true, EventKind::Failed, false), made, made, made, (false, EventKind::Failed, true)]);
}

#[test]
fn an_early_end_is_announced_as_a_quirk() {
    let (mut bench, worker, run) = started(Quirks::none().with(Quirk::EarlyDagEnd), None);
    let stream = bench.stream();
    bench.turn(|core, _| core.watch_tag(stream, "tag", "x"));
    bench.pass_with_heartbeats(worker, seconds(1));
    let sent = bench.events();
    assert_eq!((sent[0].resource, sent[0].kind, sent[0].hangup), (Resource::Run, EventKind::Completed, true));
    assert_eq!(bench.run(run).rest_status(), Running);
}

#[test]
fn a_result_that_is_too_large_is_sent_empty() {
    let (mut bench, _, run) = started(Quirks::none(), None);
    let stream = bench.stream();
    bench.turn(|core, turn| {
        core.open_results(turn, stream);
        core.ask_result(turn, stream, run);
    });
    let big = format!(r#"{{"x": "{}"}}"#, "x".repeat(3 << 20));
    for (name, output) in [("a", &*big), ("b", &*big), ("c", "{}"), ("d", "{}")] {
        complete(&mut bench, run, name, output);
    }
    let results = bench.effects().into_iter().find_map(|effect| match effect {
        Effect::Send(_, Message::Result(result)) => Some(result.tasks.len()),
        _ => None,
    });
    assert_eq!(results, Some(0));
}

#[test]
fn impossible_definitions_are_rejected() {
    let mut bench = Bench::new(Quirks::none());
    let unknown = bench.put_all(vec![named("t", &["zz"])], None).unwrap_err();
    assert_eq!(unknown, StatusError::invalid("dag parent not found: parent step 'zz' not found for step 't'"));
    for (tasks, on_failure) in [
        (vec![], None),
        (vec![named("a", &[]), named("a", &[])], None),
        (vec![named("a", &["b"]), named("b", &["a"])], None),
        (vec![named("a", &["a"])], None),
        (vec![named("a", &[]), named("b", &["a", "a"])], None),
        (vec![named("a", &[])], Some(named("f", &["a"]))),
        (vec![named("a", &[])], Some(named("a", &[]))),
    ] {
        assert_eq!(bench.put_all(tasks, on_failure).unwrap_err().code, Code::Internal);
    }
    let late = TaskDefinition { timeout: "1d".into(), ..named("b", &[]) };
    let text = bench.put_all(vec![named("a", &[]), late], None).unwrap_err().message;
    assert!(text.contains("'CreateWorkflowVersionOpts.Tasks[1].Timeout'"), "{text}");
}

#[test]
fn the_order_of_tasks_makes_no_new_version_and_that_of_parents_does() {
    let mut bench = Bench::new(Quirks::none());
    let first = bench.put_all(diamond(), None).unwrap();
    let turned = diamond().into_iter().rev().collect();
    assert_eq!(bench.put_all(turned, None).unwrap(), first);
    let mut other = diamond();
    other[3].parents.reverse();
    assert_ne!(bench.put_all(other, None).unwrap(), first);
}

#[test]
fn a_run_keeps_its_version() {
    let (mut bench, _, run) = started(Quirks::none(), None);
    bench.put_all(vec![named("a", &[]), named("b", &["a"])], None).unwrap();
    complete_all(&mut bench, run);
    assert_eq!(bench.run(run).rest_status(), Completed);
}

#[test]
fn an_output_that_is_not_an_object_blocks_followers_as_a_quirk() {
    for (quirks, stuck) in [(Quirks::none(), false), (Quirks::none().with(Quirk::StuckDependents), true)] {
        for (output, odd) in [("{}", false), ("", false), ("null", false), ("[1]", true), ("7", true)] {
            let (mut bench, _, run) = started(quirks, None);
            complete(&mut bench, run, "a", output);
            assert_eq!(bench.tasks(run).len(), if stuck && odd { 1 } else { 3 }, "{output}");
        }
    }
}
