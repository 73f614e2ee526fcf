//! Rate limits: units, windows, and dynamic limits.

use serde_json::json;

use crate::embedded::core::store::{Cel, TaskLimit, Window};
use crate::embedded::core::tests::*;
use crate::embedded::quirks::Quirk;

use RestStatus::{Cancelled, Completed, Failed, Queued, Running};

fn fixed(key: &str, units: Option<i32>) -> TaskLimit {
    let (key, window) = (key.to_owned(), None);
    TaskLimit { key, units, key_expression: None, units_expression: None, limit_expression: None, window }
}

fn cel(text: &str) -> Cel {
    Cel::of_rate_limit(text.into()).unwrap()
}

/// A limit for each user, of three units in a minute.
fn dynamic() -> TaskLimit {
    TaskLimit {
        key_expression: Some(cel("'user-' + input.u")),
        units_expression: Some(cel("input.n")),
        limit_expression: Some(cel("3")),
        ..fixed("d", None)
    }
}

impl Bench {
    fn put_limit(&mut self, key: &str, limit: i32, window: Window) {
        self.turn(|core, turn| core.put_rate_limit(turn, key, limit, window));
    }

    fn limited(&mut self, limit: TaskLimit) {
        self.put(TaskDefinition { rate_limits: vec![limit], ..task() });
    }

    fn with_input(&mut self, input: serde_json::Value) -> Uuid {
        self.turn(|core, turn| core.trigger(turn, vec![Trigger { input, ..trigger(None) }])).unwrap()[0]
    }

    fn left(&self, key: &str) -> i64 {
        self.core.rate_limits("", self.now).iter().find(|view| view.key == key).unwrap().left
    }

    fn all(&self, runs: &[Uuid]) -> Vec<RestStatus> {
        runs.iter().map(|run| self.rest(*run)).collect()
    }
}

#[test]
fn tasks_wait_until_the_limit_is_refilled() {
    let mut bench = Bench::new(Quirks::none());
    bench.put_limit("k", 2, Window::Minute);
    bench.limited(fixed("k", None));
    let (worker, _) = bench.worker(10);
    let runs: Vec<_> = (0..5).map(|_| bench.trigger()).collect();
    assert_eq!(bench.all(&runs), [Running, Running, Queued, Queued, Queued]);
    let text = "Rate limit exceeded for key k, attempting to consume 1 units, but only had 0 remaining";
    assert_eq!(bench.text(runs[2], TaskEventKind::RateLimited), text);
    assert_eq!(bench.kinds(runs[2]), [("QUEUED", 0), ("REQUEUED_RATE_LIMIT", 0)]);
    bench.report(runs[0], ReportKind::Completed, 0, "{}");
    bench.pass_with_heartbeats(worker, seconds(59));
    assert_eq!((bench.all(&runs[2..]), bench.left("k")), (vec![Queued; 3], 0));
    bench.pass_with_heartbeats(worker, seconds(1));
    assert_eq!((bench.all(&runs[2..]), bench.left("k")), (vec![Running, Running, Queued], 0));
    assert_eq!(bench.kinds(runs[4]), [("QUEUED", 0), ("REQUEUED_RATE_LIMIT", 0)], "only once");
    bench.pass_with_heartbeats(worker, seconds(60));
    assert_eq!((bench.rest(runs[4]), bench.left("k")), (Running, 1));
}

#[test]
fn a_task_that_waits_does_not_hold_up_others() {
    let mut bench = Bench::new(Quirks::none());
    bench.put_limit("k", 4, Window::Minute);
    bench.limited(fixed("k", Some(5)));
    bench.worker(10);
    let large = bench.trigger();
    bench.limited(fixed("k", Some(3)));
    let small = bench.trigger();
    assert_eq!((bench.all(&[large, small]), bench.left("k")), (vec![Queued, Running], 1));
    let text = "Rate limit exceeded for key k, attempting to consume 5 units, but only had 4 remaining";
    assert_eq!(bench.text(large, TaskEventKind::RateLimited), text);
}

#[test]
fn a_task_that_never_gets_its_units_times_out() {
    let mut bench = Bench::new(Quirks::none());
    bench.put_limit("k", 1, Window::Second);
    let limits = vec![fixed("k", Some(5))];
    bench.put(TaskDefinition { rate_limits: limits, schedule_timeout: Some("8s".into()), ..task() });
    let (worker, _) = bench.worker(10);
    let run = bench.trigger();
    bench.pass_with_heartbeats(worker, seconds(7));
    assert_eq!(bench.rest(run), Queued);
    bench.pass_with_heartbeats(worker, seconds(1));
    assert_eq!((bench.grpc(run), bench.rest(run)), (Cancelled, Failed));
}

#[test]
fn units_are_consumed_by_assignments_only() {
    let mut bench = Bench::new(Quirks::none());
    bench.put_limit("k", 3, Window::Minute);
    bench.put(TaskDefinition { rate_limits: vec![fixed("k", None)], retries: 1, ..task() });
    let run = bench.trigger();
    assert_eq!((bench.rest(run), bench.left("k")), (Queued, 3), "there is no worker");
    bench.worker(1);
    assert_eq!(bench.left("k"), 2);
    bench.report(run, ReportKind::Failed, 0, "no");
    assert_eq!((bench.rest(run), bench.left("k")), (Running, 1), "a retry consumes again");
    // Zero units use nothing, and negative ones are given back.
    let mut last = (run, 1);
    for (units, left) in [(0, 1), (-1, 2)] {
        bench.report(last.0, ReportKind::Completed, last.1, "{}");
        bench.limited(fixed("k", Some(units)));
        let run = bench.trigger();
        assert_eq!((bench.rest(run), bench.left("k")), (Running, left), "{units}");
        last = (run, 0);
    }
}

#[test]
fn a_larger_limit_applies_from_the_next_window_on() {
    let mut bench = Bench::new(Quirks::none());
    bench.put_limit("k", 2, Window::Minute);
    bench.limited(fixed("k", Some(2)));
    let (worker, _) = bench.worker(10);
    let runs = [bench.trigger(), bench.trigger()];
    bench.put_limit("k", 10, Window::Minute);
    let view = bench.core.rate_limits("k", bench.now).remove(0);
    assert_eq!((view.limit, view.left, view.window), (10, 0, Window::Minute));
    bench.report(runs[0], ReportKind::Completed, 0, "{}");
    bench.pass_with_heartbeats(worker, seconds(60));
    assert_eq!((bench.all(&runs), bench.left("k")), (vec![Completed, Running], 8));
    bench.put_limit("k", 0, Window::Minute);
    assert_eq!(bench.left("k"), 0, "a smaller one applies at once");
    assert!(bench.core.rate_limits("other", bench.now).is_empty());
}

#[test]
fn each_evaluated_key_is_a_limit() {
    let mut bench = Bench::new(Quirks::none());
    bench.limited(dynamic());
    bench.worker(10);
    let run = |bench: &mut Bench, user: &str, n: f64| bench.with_input(json!({"u": user, "n": n}));
    let runs = [run(&mut bench, "a", 2.0), run(&mut bench, "b", 1.9), run(&mut bench, "a", 2.0)];
    assert_eq!(bench.all(&runs), [Running, Running, Queued]);
    let views = bench.core.rate_limits("user-", bench.now);
    let views: Vec<_> = views.iter().map(|view| (view.key.as_str(), view.limit, view.left)).collect();
    assert_eq!(views, [("user-a", 3, 1), ("user-b", 3, 2)]);
    // Zero units, and negative ones.
    for (n, left) in [(0.0, 2), (-1.0, 3), (-1.0, 4)] {
        run(&mut bench, "b", n);
        assert_eq!(bench.left("user-b"), left);
    }
}

#[test]
fn a_limit_that_cannot_be_evaluated_fails_the_task() {
    let empty = "ERROR: <input>:1:0: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
    let parents = "ERROR: <input>:1:1: undeclared reference to 'parents' (in container '')\n | parents.a.x\n | ^";
    for (limit, input, expression, problem) in [
        (
            dynamic(),
            json!({"u": "a", "n": "str"}),
            "input.n",
            "expected int output for dynamic rate limit units, got string",
        ),
        (dynamic(), json!({"u": 1, "n": 1}), "'user-' + input.u", "no such overload"),
        (dynamic(), json!({"n": 1}), "'user-' + input.u", "no such key: u"),
        (TaskLimit { units_expression: None, ..dynamic() }, json!({"u": "a"}), "", empty),
        (TaskLimit { key_expression: Some(cel("parents.a.x")), ..dynamic() }, json!({"n": 1}), "parents.a.x", parents),
        (
            TaskLimit { key_expression: Some(cel("1")), ..dynamic() },
            json!({"n": 1}),
            "1",
            "expected string output for dynamic rate limit key, got int",
        ),
    ] {
        let mut bench = Bench::new(Quirks::none());
        bench.put(TaskDefinition { rate_limits: vec![limit], retries: 3, ..task() });
        bench.worker(10);
        let run = bench.with_input(input);
        let text = format!("failed to parse step expression ({expression}): {problem}");
        assert_eq!(bench.text(run, TaskEventKind::Failed), text);
        assert_eq!(bench.kinds(run), [("FAILED", 0)]);
    }
}

#[test]
fn a_dynamic_limit_without_a_size_blocks_unless_that_is_negative() {
    let mut bench = Bench::new(Quirks::none());
    bench.limited(TaskLimit { limit_expression: None, ..dynamic() });
    let (worker, _) = bench.worker(10);
    let run = bench.with_input(json!({"u": "a", "n": 1}));
    bench.pass_with_heartbeats(worker, seconds(100));
    let view = bench.core.rate_limits("", bench.now).remove(0);
    assert_eq!((bench.rest(run), view.limit, view.left), (Queued, 0, 0));
    // With a negative size, only existing limits are used: the task waits until it exists.
    bench.limited(TaskLimit { limit_expression: Some(cel("-1")), ..dynamic() });
    let run = bench.with_input(json!({"u": "b", "n": 1}));
    let text = "Rate limit exceeded for key , attempting to consume 0 units, but only had 0 remaining";
    assert_eq!((bench.rest(run), bench.text(run, TaskEventKind::RateLimited)), (Queued, text));
    bench.put_limit("user-b", 5, Window::Hour);
    assert_eq!((bench.rest(run), bench.left("user-b")), (Running, 4));
}

#[test]
fn definitions_need_existing_limits() {
    let mut bench = Bench::new(Quirks::none());
    let put = |bench: &mut Bench, limits: Vec<TaskLimit>| {
        bench.put_all(vec![TaskDefinition { rate_limits: limits, ..task() }], None).map(drop)
    };
    assert_eq!(put(&mut bench, vec![fixed("k", None)]), Err(StatusError::internal()));
    bench.put_limit("k", 1, Window::Day);
    assert_eq!(put(&mut bench, vec![fixed("k", None), fixed("k", Some(2))]), Err(StatusError::internal()));
    for units in [None, Some(0), Some(-1)] {
        assert_eq!(put(&mut bench, vec![fixed("k", units)]), Ok(()));
    }
    let error = |bench: &mut Bench, limit: TaskLimit| put(bench, vec![limit]).unwrap_err().message;
    let start = "Validation failed with the following errors:\n0: validation failed on field 'CreateWorkflowVersionOpts.Tasks[0].RateLimits[0].";
    let text = format!("{start}Key': on condition 'required'\n");
    assert_eq!(error(&mut bench, TaskLimit { key: String::new(), ..dynamic() }), text);
    assert_eq!(error(&mut bench, fixed("", None)), text);
    let text = format!("{start}KeyExpr': Invalid CEL expression\n");
    assert_eq!(error(&mut bench, TaskLimit { key_expression: Some(cel("input.")), ..dynamic() }), text);
    // A limit that a workflow uses cannot be deleted.
    let delete = |bench: &mut Bench, key: &'static str| bench.turn(|core, _| core.delete_rate_limit(key));
    assert!(!delete(&mut bench, "k") && delete(&mut bench, "unknown"));
    bench.put(task());
    assert!(delete(&mut bench, "k") && bench.core.rate_limits("", bench.now).is_empty());
}

#[test]
fn limits_are_slow_as_a_quirk() {
    let mut bench = Bench::new(Quirk::SlowRateLimits.into());
    bench.put_limit("k", 1, Window::Second);
    bench.limited(fixed("k", None));
    let (worker, _) = bench.worker(10);
    let runs: Vec<_> = (0..5).map(|_| bench.trigger()).collect();
    let text = "Rate limit exceeded for key , attempting to consume 0 units, but only had 0 remaining";
    assert_eq!((bench.rest(runs[0]), bench.text(runs[0], TaskEventKind::RateLimited)), (Queued, text));
    bench.pass_with_heartbeats(worker, Duration::from_millis(1200));
    assert_eq!(bench.all(&runs[..2]), [Running, Queued]);
    let start = bench.now;
    while bench.rest(runs[4]) == Queued {
        bench.pass_with_heartbeats(worker, Duration::from_millis(100));
    }
    let took = (bench.now - start).num_milliseconds();
    assert!((4 * 1700..4 * 3000).contains(&took), "{took} ms");
    assert_eq!(bench.all(&runs), [Running; 5]);
    bench.report(runs[0], ReportKind::Completed, 0, "{}");
    assert_eq!(bench.rest(runs[0]), Completed);
}

#[test]
fn a_task_that_waits_for_a_limit_times_out_in_time_or_when_the_limit_is_refilled_as_a_quirk() {
    for (quirks, window, ends_after) in [
        (Quirks::none(), Window::Minute, 8),
        (Quirk::LateRateLimitTimeouts.into(), Window::Minute, 60),
        (Quirk::LateRateLimitTimeouts.into(), Window::Second, 8),
    ] {
        let mut bench = Bench::new(quirks);
        bench.put_limit("k", 1, window);
        let limits = vec![fixed("k", Some(if window == Window::Second { 5 } else { 1 }))];
        bench.put(TaskDefinition { rate_limits: limits, schedule_timeout: Some("8s".into()), ..task() });
        bench.worker(10);
        let first = bench.trigger();
        let waiting = if window == Window::Second { first } else { bench.trigger() };
        assert_eq!(bench.rest(waiting), Queued);
        bench.pass(Duration::from_secs(ends_after - 1));
        assert_eq!(bench.rest(waiting), Queued, "before {ends_after} s");
        bench.pass(Duration::from_secs(1));
        assert_eq!(bench.rest(waiting), Failed, "after {ends_after} s");
    }
}
