//! Concurrency limits: keys, slots, and what happens to those that exceed a limit.

use serde_json::{Value, json};

use crate::embedded::core::store::{Code, Concurrency, LimitStrategy};
use crate::embedded::core::tests::*;
use crate::embedded::quirks::Quirk;

use RestStatus::{Cancelled, Completed, Failed, Queued, Running};

const EXCEEDS: &str = "Cancelled due to concurrency strategy";

fn limit(strategy: LimitStrategy, max_runs: i32) -> Concurrency {
    by("input.k", strategy, max_runs)
}

fn by(expression: &str, strategy: LimitStrategy, max_runs: i32) -> Concurrency {
    Concurrency::new(expression.into(), Some(max_runs), Some(strategy), None).unwrap()
}

fn limited(limits: Vec<Concurrency>) -> WorkflowOptions {
    WorkflowOptions { concurrency: limits, ..WorkflowOptions::default() }
}

fn keyed(key: &str) -> Trigger {
    Trigger { input: json!({ "k": key }), ..trigger(None) }
}

impl Bench {
    /// Starts runs in one call.
    fn keyed(&mut self, keys: &[&str]) -> Vec<Uuid> {
        let triggers = keys.iter().map(|key| keyed(key)).collect();
        self.turn(|core, turn| core.trigger(turn, triggers)).unwrap()
    }

    fn statuses(&self, runs: &[Uuid]) -> Vec<RestStatus> {
        for run in runs {
            assert_eq!(self.run(*run).rest_status(), self.grpc(*run), "both views");
        }
        runs.iter().map(|run| self.run(*run).rest_status()).collect()
    }

    fn complete(&mut self, task: Uuid) {
        let attempt = self.core.find_task(task).unwrap().1.retry_count;
        self.report(task, ReportKind::Completed, attempt, "{}");
    }
}

/// A worker, and the workflow `w` with a task that has limits.
fn bench(limits: Vec<Concurrency>) -> Bench {
    let mut bench = Bench::new(Quirks::none());
    bench.put(TaskDefinition { concurrency: limits, ..task() });
    bench.worker(10);
    bench
}

#[test]
fn those_that_wait_start_one_after_the_other_and_other_keys_are_not_affected() {
    // A limit of a workflow with one task is the same as a limit of the task.
    for of_workflow in [false, true] {
        let mut bench = bench(vec![]);
        let limits = vec![limit(LimitStrategy::GroupRoundRobin, 1)];
        if of_workflow {
            bench.put_with("w", task(), limited(limits)).unwrap();
        } else {
            bench.put(TaskDefinition { concurrency: limits, ..task() });
        }
        let runs: Vec<_> = ["A", "A", "A", "B"].into_iter().flat_map(|key| bench.keyed(&[key])).collect();
        assert_eq!(bench.statuses(&runs), [Running, Queued, Queued, Running]);
        assert_eq!(bench.text(runs[1], TaskEventKind::Queued), "concurrency keys evaluated as: A");
        assert_eq!(bench.kinds(runs[1]), [("QUEUED", 0)], "nothing more happens while it waits");
        bench.complete(runs[0]);
        assert_eq!(bench.statuses(&runs), [Completed, Running, Queued, Running]);
        bench.report(runs[1], ReportKind::Failed, 0, "no");
        assert_eq!(bench.statuses(&runs), [Completed, Failed, Running, Running]);
        bench.turn(|core, turn| core.cancel(turn, &[runs[2]]));
        let next = bench.keyed(&["A"])[0];
        assert_eq!(bench.statuses(&[runs[2], next]), [Cancelled, Running]);
    }
}

#[test]
fn a_newer_run_cancels_an_older_one() {
    let mut bench = bench(vec![limit(LimitStrategy::CancelInProgress, 1)]);
    let first = bench.keyed(&["A"])[0];
    let stream = bench.stream();
    bench.turn(|core, turn| core.watch_run(turn, stream, first));
    bench.effects();
    let second = bench.keyed(&["A"])[0];
    assert_eq!(bench.statuses(&[first, second]), [Cancelled, Running]);
    assert_eq!(bench.text(first, TaskEventKind::Cancelled), EXCEEDS);
    let mut actions = Vec::new();
    let mut events = Vec::new();
    for effect in bench.effects() {
        match effect {
            Effect::Send(_, Message::Action(action)) => actions.push((action.run, action.cancel)),
            Effect::Send(_, Message::Event(event)) => events.push((event.resource, event.kind)),
            _ => {}
        }
    }
    assert_eq!(actions, [(first, true), (second, false)]);
    assert_eq!(events, [(Resource::Task(first), EventKind::Cancelled), (Resource::Run, EventKind::Cancelled)]);
    // Of those that arrive together, only the newest starts.
    let together = bench.keyed(&["B", "B", "A"]);
    assert_eq!(bench.statuses(&together), [Cancelled, Running, Running]);
    let names: Vec<_> = bench.kinds(together[0]).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["QUEUED", "CANCELLED"]);
    assert_eq!(bench.statuses(&[second]), [Cancelled]);
}

#[test]
fn a_newer_run_is_cancelled_while_another_has_the_slot() {
    let mut bench = bench(vec![limit(LimitStrategy::CancelNewest, 2)]);
    let runs = bench.keyed(&["A", "A", "A", "B"]);
    assert_eq!(bench.statuses(&runs), [Running, Running, Cancelled, Running]);
    assert_eq!(bench.text(runs[2], TaskEventKind::Cancelled), EXCEEDS);
    assert_eq!(bench.actions().len(), 3, "nothing was sent about it");
    bench.complete(runs[0]);
    let next = bench.keyed(&["A", "A"]);
    assert_eq!(bench.statuses(&next), [Running, Cancelled]);
}

#[test]
fn a_second_limit_only_applies_to_what_the_first_lets_through() {
    let mut bench = bench(vec![
        limit(LimitStrategy::GroupRoundRobin, 1),
        by("additional_metadata.tag", LimitStrategy::CancelNewest, 2),
    ]);
    let runs = bench.keyed(&["A", "A", "A", "A"]);
    assert_eq!(bench.text(runs[0], TaskEventKind::Queued), "concurrency keys evaluated as: A x");
    for run in &runs {
        assert_eq!(bench.rest(*run), Running);
        bench.complete(*run);
    }
    assert_eq!(bench.statuses(&runs), [Completed; 4]);
}

#[test]
fn an_empty_key_is_a_key() {
    let mut bench = bench(vec![limit(LimitStrategy::GroupRoundRobin, 1)]);
    let runs = bench.keyed(&["", ""]);
    assert_eq!(bench.statuses(&runs), [Running, Queued]);
    assert_eq!(bench.text(runs[0], TaskEventKind::Queued), "concurrency keys evaluated as: ");
}

#[test]
fn a_limit_of_zero_lets_nothing_run() {
    let mut bench = bench(vec![limit(LimitStrategy::GroupRoundRobin, 0)]);
    let run = bench.keyed(&["A"])[0];
    bench.pass(seconds(10));
    assert_eq!(bench.statuses(&[run]), [Queued]);
}

#[test]
fn a_task_without_a_key_fails_when_it_is_created() {
    for (expression, problem) in [
        ("input.k", "no such key: k"),
        ("1", "expected string output for concurrency key, got int"),
        ("input.n", "expected string output for concurrency key, got int"),
        ("input.n + 'x'", "no such overload"),
        ("true", "output must evaluate to a string or integer: got bool"),
    ] {
        let mut bench = bench(vec![]);
        let limits = vec![by(expression, LimitStrategy::GroupRoundRobin, 1)];
        bench.put(TaskDefinition { concurrency: limits, retries: 2, ..task() });
        let run = bench.trigger();
        let text = format!("failed to parse step expression ({expression}): {problem}");
        assert_eq!(bench.text(run, TaskEventKind::Failed), text);
        assert_eq!((bench.kinds(run), bench.rest(run)), (vec![("FAILED", 0)], Failed));
        let view = bench.task(run).grpc_view(bench.now);
        assert_eq!((view.status, view.error), (Failed, Some(&*text)));
        let stream = bench.stream();
        bench.turn(|core, turn| core.open_results(turn, stream));
        bench.turn(|core, turn| core.ask_result(turn, stream, run));
        bench.pass(seconds(1));
        let result = bench.effects().into_iter().find_map(|effect| match effect {
            Effect::Send(_, Message::Result(result)) => Some(result),
            _ => None,
        });
        assert_eq!(result.unwrap().tasks[0].end, Err(text.into()));
    }
}

#[test]
fn the_slot_of_a_dag_is_held_until_the_run_has_ended() {
    let mut bench = bench(vec![]);
    let tasks = || vec![named("a", &[]), named("b", &["a"])];
    bench.define("w", tasks(), None, limited(vec![limit(LimitStrategy::GroupRoundRobin, 1)])).unwrap();
    let [first, second] = bench.keyed(&["A", "A"])[..] else { panic!() };
    assert_eq!(bench.assigned(), ["a"]);
    let a = bench.of(first, "a").id;
    bench.complete(a);
    assert_eq!((bench.assigned(), bench.run(second).rest_status()), (vec!["b".to_owned()], Queued));
    let message = bench.of(first, "b").events[0].message.clone();
    assert_eq!(message.as_deref(), Some("concurrency keys evaluated as: A"));
    let b = bench.of(first, "b").id;
    bench.complete(b);
    assert_eq!((bench.assigned(), bench.run(first).rest_status()), (vec!["a".to_owned()], Completed));
    assert_eq!(bench.run(second).rest_status(), Running);
}

#[test]
fn a_dag_that_exceeds_a_limit_is_cancelled() {
    for strategy in [LimitStrategy::CancelInProgress, LimitStrategy::CancelNewest] {
        let mut bench = bench(vec![]);
        let tasks = vec![named("a", &[]), named("b", &["a"])];
        bench.define("w", tasks, Some(named("f", &[])), limited(vec![limit(strategy, 1)])).unwrap();
        let first = bench.keyed(&["A"])[0];
        let second = bench.keyed(&["A"])[0];
        let (loser, winner) = if strategy == LimitStrategy::CancelNewest { (second, first) } else { (first, second) };
        assert_eq!((bench.run(loser).rest_status(), bench.run(winner).rest_status()), (Cancelled, Running));
        let message = |name| {
            let event = bench.of(loser, name).events.iter().find(|event| event.kind == TaskEventKind::Cancelled);
            event.unwrap().message.clone()
        };
        assert_eq!((message("a").as_deref(), message("b")), (Some(EXCEEDS), None));
        // The winner has the only slot until its end.
        for name in ["a", "b"] {
            let task = bench.of(winner, name).id;
            bench.complete(task);
        }
        assert_eq!(bench.run(winner).rest_status(), Completed);
        let third = bench.keyed(&["A"])[0];
        assert_eq!(bench.run(third).rest_status(), Running);
    }
}

#[test]
fn a_task_of_a_dag_without_a_key_fails_the_run() {
    let broken = || vec![by("input.nothing", LimitStrategy::GroupRoundRobin, 1)];
    // A limit of the workflow fails the first task, a limit of the middle task only that one.
    let mut bench = bench(vec![]);
    let tasks = || vec![named("a", &[]), named("b", &["a"]), named("c", &["b"])];
    bench.define("w", tasks(), None, limited(broken())).unwrap();
    let run = bench.trigger();
    assert_eq!(bench.tasks(run), [("a", Failed), ("b", Cancelled), ("c", Cancelled)]);
    assert!(bench.run(run).has_ended());
    let mut tasks = tasks();
    tasks[1].concurrency = broken();
    bench.put_all(tasks, None).unwrap();
    let run = bench.trigger();
    let a = bench.of(run, "a").id;
    bench.complete(a);
    assert_eq!(bench.tasks(run), [("a", Completed), ("b", Failed), ("c", Cancelled)]);
    assert_eq!(bench.run(run).rest_status(), Failed);
}

#[test]
fn a_retry_gives_its_slot_back_and_is_more_urgent_than_others() {
    let mut bench = bench(vec![]);
    let limits = vec![limit(LimitStrategy::GroupRoundRobin, 1)];
    bench.put(TaskDefinition { concurrency: limits.clone(), retries: 1, ..task() });
    let runs = bench.keyed(&["A", "A"]);
    bench.report(runs[0], ReportKind::Failed, 0, "no");
    assert_eq!(bench.statuses(&runs), [Running, Queued]);
    let retry =
        bench.task(runs[0]).events.iter().find(|event| event.retry_count == 1 && event.kind == TaskEventKind::Queued);
    assert_eq!(retry.unwrap().message, None, "only a new task reports its keys");
    // During a backoff, another one has the slot.
    bench.put(TaskDefinition { concurrency: limits, retries: 1, backoff_factor: Some(2.0), ..task() });
    let runs = bench.keyed(&["A", "A"]);
    bench.report(runs[0], ReportKind::Failed, 0, "no");
    assert_eq!(bench.statuses(&runs), [Queued, Running]);
    let worker = *bench.core.workers.keys().next().unwrap();
    bench.pass_with_heartbeats(worker, seconds(5));
    bench.complete(runs[1]);
    assert_eq!(bench.statuses(&runs), [Running, Completed]);
}

#[test]
fn one_that_waits_times_out_or_as_a_quirk_when_a_slot_changes() {
    for quirks in [Quirks::none(), Quirk::LateLimitTimeouts.into()] {
        let mut bench = Bench::new(quirks);
        let limits = vec![limit(LimitStrategy::GroupRoundRobin, 1)];
        bench.put(TaskDefinition { concurrency: limits, schedule_timeout: Some("3s".into()), ..task() });
        let (worker, _) = bench.worker(10);
        let runs = bench.keyed(&["A", "A"]);
        bench.pass_with_heartbeats(worker, seconds(4));
        let late = quirks != Quirks::none();
        assert_eq!(bench.rest(runs[1]), if late { Queued } else { Failed });
        bench.complete(runs[0]);
        assert_eq!((bench.rest(runs[1]), bench.grpc(runs[1])), (Failed, Cancelled));
        assert_eq!(bench.kinds(runs[1]), [("QUEUED", 0), ("SCHEDULING_TIMED_OUT", 0)]);
    }
}

#[test]
fn each_version_has_slots_of_its_own() {
    let mut bench = bench(vec![limit(LimitStrategy::GroupRoundRobin, 1)]);
    let first = bench.keyed(&["A"])[0];
    bench.put(TaskDefinition { concurrency: vec![limit(LimitStrategy::GroupRoundRobin, 1)], retries: 1, ..task() });
    let second = bench.keyed(&["A"])[0];
    assert_eq!(bench.statuses(&[first, second]), [Running, Running]);
}

#[test]
fn a_replayed_run_waits_again() {
    let mut bench = bench(vec![limit(LimitStrategy::GroupRoundRobin, 1)]);
    let first = bench.keyed(&["A"])[0];
    bench.complete(first);
    let second = bench.keyed(&["A"])[0];
    bench.turn(|core, turn| core.replay(turn, &[first]));
    assert_eq!(bench.statuses(&[first, second]), [Queued, Running]);
    bench.complete(second);
    assert_eq!(bench.statuses(&[first, second]), [Running, Completed]);
    let messages = bench.task(first).events.iter().filter(|event| event.kind == TaskEventKind::Queued);
    assert!(messages.clone().count() == 2 && messages.into_iter().all(|event| event.message.is_some()));
}

#[test]
fn unknown_fields_are_rejected_or_as_a_quirk_ignored() {
    let newer = Concurrency::new("'x'".into(), None, None, Some("max_runs_expression")).unwrap();
    let options = || limited(vec![newer.clone()]);
    let error = Bench::new(Quirks::none()).put_with("w", task(), options()).unwrap_err();
    let text = "the field `max_runs_expression` of concurrency limits needs engine v0.106.5 or later";
    assert_eq!(error.message, text);
    let mut bench = Bench::new(Quirk::IgnoredConcurrencyFields.into());
    bench.put_with("w", task(), options()).unwrap();
    bench.worker(5);
    // Without other fields, the newest of a key runs.
    let runs = bench.keyed(&["A", "B"]);
    assert_eq!(bench.statuses(&runs), [Cancelled, Running]);
}

#[test]
fn the_newest_run_of_a_key_sets_its_limit() {
    let by_input = limit(LimitStrategy::GroupRoundRobin, 1).with_max_runs_expression("input.n".into()).unwrap();
    let mut bench = bench(vec![by_input]);
    let start = |bench: &mut Bench, key: &str, n: Value| {
        let trigger = Trigger { input: json!({ "k": key, "n": n }), ..trigger(None) };
        bench.turn(|core, turn| core.trigger(turn, vec![trigger])).unwrap()[0]
    };
    let runs = [("A", 1), ("A", 1), ("B", 2), ("B", 2)].map(|(key, n)| start(&mut bench, key, json!(n)));
    assert_eq!(bench.statuses(&runs), [Running, Queued, Running, Running]);
    let newest = start(&mut bench, "A", json!(3));
    assert_eq!(bench.statuses(&[runs[1], newest]), [Running, Running], "it holds for those that wait, too");
    // Zero lets all wait. Those that have slots keep them.
    let held = start(&mut bench, "A", json!(0));
    bench.complete(newest);
    assert_eq!(bench.statuses(&[runs[0], runs[1], held]), [Running, Running, Queued]);
    let next = start(&mut bench, "A", json!(4));
    assert_eq!(bench.statuses(&[held, next]), [Running, Running]);
    // An invalid number fails the task without an attempt.
    for (n, problem) in [
        (json!(-1), "expected max runs of 0 to 2147483647, got -1"),
        (json!("x"), "expected int output for max runs, got string"),
    ] {
        let run = start(&mut bench, "A", n);
        assert_eq!(bench.statuses(&[run]), [Failed]);
        assert_eq!(
            bench.text(run, TaskEventKind::Failed),
            format!("failed to parse step expression (input.n): {problem}")
        );
    }
}

#[test]
fn tasks_of_several_workflows_share_a_limit_by_its_name() {
    let shared = |name: &str, max_runs| Concurrency {
        name: Some(name.into()),
        is_tenant_scoped: true,
        ..by("'all'", LimitStrategy::GroupRoundRobin, max_runs)
    };
    let mut bench = Bench::new(Quirks::none());
    bench.worker(10);
    let put = |bench: &mut Bench, name: &str, limits| {
        bench.put_with(name, TaskDefinition { concurrency: limits, ..task() }, WorkflowOptions::default())
    };
    put(&mut bench, "one", vec![shared("api", 1)]).unwrap();
    put(&mut bench, "two", vec![shared("api", 1)]).unwrap();
    put(&mut bench, "other", vec![shared("other", 1)]).unwrap();
    let start = |bench: &mut Bench, name: &str| {
        let trigger = Trigger { workflow: name.into(), ..trigger(None) };
        bench.turn(|core, turn| core.trigger(turn, vec![trigger])).unwrap()[0]
    };
    let runs = ["one", "two", "two", "other"].map(|name| start(&mut bench, name));
    assert_eq!(bench.statuses(&runs), [Running, Queued, Queued, Running]);
    bench.complete(runs[0]);
    assert_eq!(bench.statuses(&runs), [Completed, Running, Queued, Running]);
    // The last definition holds for all of them.
    put(&mut bench, "one", vec![shared("api", 2)]).unwrap();
    assert_eq!(bench.statuses(&runs), [Completed, Running, Running, Running]);
    // Without a name, or in another order than elsewhere, it is rejected.
    let error = put(&mut bench, "three", vec![shared("", 1)]).unwrap_err().message;
    assert_eq!(error, "a name is required for tenant-scoped concurrency");
    put(&mut bench, "four", vec![shared("api", 2), shared("other", 1)]).unwrap();
    let error = put(&mut bench, "five", vec![shared("other", 1), shared("api", 2)]).unwrap_err().message;
    assert_eq!(error, "tenant-scoped concurrency other and api must have the same order in all tasks");
}

#[test]
fn shared_limits_have_the_same_order_whatever_is_between_them() {
    let put = |bench: &mut Bench, workflow: &str, names: &[&str]| {
        let shared = |name: &&str| Concurrency {
            name: Some((*name).into()),
            is_tenant_scoped: true,
            ..by("'all'", LimitStrategy::GroupRoundRobin, 1)
        };
        let concurrency = names.iter().map(shared).collect();
        bench.put_with(workflow, TaskDefinition { concurrency, ..task() }, WorkflowOptions::default())
    };
    for [first, second] in [[&["c", "a"][..], &["a", "b", "c"]], [&["a", "b", "c"], &["c", "a"]]] {
        let mut bench = Bench::new(Quirks::none());
        put(&mut bench, "one", first).unwrap();
        let error = put(&mut bench, "two", second).unwrap_err().message;
        assert!(error.ends_with("must have the same order in all tasks"), "{error}");
        put(&mut bench, "two", &["b", "d"]).unwrap();
    }
}

#[test]
fn a_shared_limit_can_be_defined_with_another_expression() {
    let mut bench = Bench::new(Quirks::none());
    bench.worker(10);
    let put = |bench: &mut Bench, expression: &str, max_runs: &str| {
        let limit = Concurrency {
            name: Some("api".into()),
            is_tenant_scoped: true,
            ..by(expression, LimitStrategy::GroupRoundRobin, 1)
        };
        let limit = if max_runs.is_empty() { limit } else { limit.with_max_runs_expression(max_runs.into()).unwrap() };
        let task = TaskDefinition { concurrency: vec![limit], retries: 1, ..task() };
        bench.put_with("w", task, WorkflowOptions::default()).unwrap();
    };
    let start = |bench: &mut Bench| {
        let trigger = Trigger { input: json!({ "k": "A", "n": 3 }), ..trigger(None) };
        bench.turn(|core, turn| core.trigger(turn, vec![trigger])).unwrap()[0]
    };
    put(&mut bench, "input.k", "input.n");
    let runs = [start(&mut bench), start(&mut bench)];
    assert_eq!(bench.statuses(&runs), [Running, Running]);
    // The number is that of the limit again, and not that of the last expression.
    put(&mut bench, "input.k", "");
    let third = start(&mut bench);
    bench.complete(runs[1]);
    assert_eq!(bench.statuses(&[runs[0], third]), [Running, Queued]);
    // A retry cannot evaluate the new expression, so it is the last one.
    put(&mut bench, "input.nothing", "");
    bench.report(runs[0], ReportKind::Failed, 0, "no");
    assert_eq!(bench.statuses(&[runs[0], third]), [Failed, Running]);
    assert!(bench.text(runs[0], TaskEventKind::Failed).contains("input.nothing"), "{:?}", bench.kinds(runs[0]));
}

#[test]
fn a_workflow_with_several_tasks_has_no_dynamic_and_no_shared_limits() {
    let shared = Concurrency {
        name: Some("api".into()),
        is_tenant_scoped: true,
        ..by("'all'", LimitStrategy::GroupRoundRobin, 1)
    };
    let by_input = by("'all'", LimitStrategy::GroupRoundRobin, 1).with_max_runs_expression("input.n".into()).unwrap();
    for (limit, field) in [(shared, "tenant-scoped concurrency (name api)"), (by_input, "max_runs_expression")] {
        let mut bench = Bench::new(Quirks::none());
        let tasks = vec![
            TaskDefinition { readable_id: "a".into(), ..task() },
            TaskDefinition { readable_id: "b".into(), ..task() },
        ];
        let error = bench.define("w", tasks, None, limited(vec![limit])).unwrap_err();
        assert!(error.code == Code::InvalidArgument && error.message.starts_with(field), "{error:?}");
    }
}

#[test]
fn invalid_keys_are_rejected() {
    for text in ["input.", "parents.a.x"] {
        let limits = || vec![by(text, LimitStrategy::GroupRoundRobin, 1)];
        let mut bench = Bench::new(Quirks::none());
        let error = bench.put_with("w", task(), limited(limits())).unwrap_err().message;
        assert!(error.ends_with("Opts.Concurrency[0].Expression': Invalid CEL expression\n"), "{error}");
        let task = TaskDefinition { concurrency: limits(), ..task() };
        let error = bench.put_all(vec![task], None).unwrap_err().message;
        assert!(error.ends_with("Opts.Tasks[0].Concurrency[0].Expression': Invalid CEL expression\n"), "{error}");
    }
}
