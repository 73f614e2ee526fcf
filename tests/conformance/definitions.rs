//! W1, W3, W4, W10 and W14: definitions of tasks and workflows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use hatchet::model::{Total, Trigger};
use hatchet::workflow::{
    Concurrency, ConcurrencyStrategy, Condition, EventFilter, RateLimit, TaskDefaults, WorkflowRef,
};
use hatchet::{Context, ErrorKind, Outcome, RunFilter, RunStatus, Task, TaskError, Workflow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::setup::{Setup, rows};
use crate::tasks::{Doubled, Number, double, shaky};

rows! {
    w1_outputs_are_returned_unchanged,
    w3_an_on_failure_task_runs_after_failures_only,
    w3_an_on_success_task_runs_after_the_last_tasks,
    w4_retries_have_a_backoff_with_a_maximum,
    w4_a_non_retryable_error_ends_the_run,
    w4_a_workflow_has_defaults_for_its_tasks,
    w10_filters_of_the_definition_select_events,
    w14_definitions_are_rejected_with_all_reasons,
    w14_options_that_the_engine_ignores_are_rejected,
    c8_default_metadata_is_added_to_runs,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Disc { radius: f64 },
}

async fn w1_outputs_are_returned_unchanged(setup: Setup) {
    let task = Task::new(setup.name("echo"), async |input: Value, _: Context| Ok(input["value"].clone()));
    let typed = Task::new(setup.name("typed"), async |input: Number, _: Context| {
        Ok(vec![Shape::Point, Shape::Disc { radius: if input.n == 1 { 0.1 } else { 2.0 } }])
    });
    let failing: Task<Number, Doubled> = Task::new(setup.name("failing"), async |input: Number, _: Context| {
        Err(TaskError::new(format!("got {}", input.n)))
    });
    let worker = setup.hatchet.worker(setup.name("worker")).register(&task).register(&typed).register(&failing);
    let worker = worker.build().unwrap().start().await.unwrap();
    for value in [json!(null), json!(7), json!("text"), json!([1, {"a": 2}]), json!({"a": null}), json!({"_value": 5})]
    {
        assert_eq!(setup.hatchet.run(&task, &json!({ "value": value })).result().await.unwrap(), value);
    }
    let shapes = setup.hatchet.run(&typed, &Number { n: 1 }).result().await.unwrap();
    assert_eq!(shapes, [Shape::Point, Shape::Disc { radius: 0.1 }]);
    let Outcome::Failed(failure) = setup.hatchet.run(&failing, &Number { n: 3 }).outcome().await.unwrap() else {
        panic!()
    };
    assert_eq!(failure.message.as_deref(), Some("got 3"));
    worker.shutdown().await;
}

/// A task that counts its executions.
fn counted(name: &str, count: &Arc<AtomicU32>) -> Task<Number, u32> {
    let count = Arc::clone(count);
    Task::new(name, move |_: Number, _: Context| {
        let number = count.fetch_add(1, Relaxed) + 1;
        async move { Ok(number) }
    })
}

/// Fails for negative numbers.
fn checked(name: &str) -> Task<Number, i64> {
    Task::new(
        name,
        async |input: Number, _: Context| {
            if input.n < 0 { Err(TaskError::non_retryable("negative")) } else { Ok(input.n) }
        },
    )
}

async fn w3_an_on_failure_task_runs_after_failures_only(setup: Setup) {
    let count = Arc::new(AtomicU32::new(0));
    let tidy = Task::new("tidy", {
        let count = Arc::clone(&count);
        move |_: Number, context: Context| {
            count.fetch_add(1, Relaxed);
            async move { Ok(context.errors()?) }
        }
    });
    let check = checked("check");
    let flow = Workflow::<Number>::new(setup.name("flow")).task(&check).on_failure(&tidy);
    let worker = setup.worker(&flow).await;
    let run = setup.hatchet.run(&flow, &Number { n: 1 }).start().await.unwrap();
    // The output of the workflow contains that of the skipped task.
    assert_eq!(run.result().await.unwrap()["check"], json!(1));
    assert_eq!(
        (run.details().await.unwrap().task("tidy").unwrap().status.clone(), count.load(Relaxed)),
        (RunStatus::Completed, 0)
    );
    let run = setup.hatchet.run(&flow, &Number { n: -1 }).start().await.unwrap();
    let Outcome::Failed(failure) = run.outcome().await.unwrap() else { panic!() };
    assert_eq!((failure.task_name.as_deref(), failure.message.as_deref()), (Some("check"), Some("negative")));
    let details = run.details().await.unwrap();
    let errors: Value = details.task("tidy").unwrap().output().unwrap().parse().unwrap();
    assert_eq!((errors, count.load(Relaxed)), (json!({"check": "negative"}), 1));
    worker.shutdown().await;
}

async fn w3_an_on_success_task_runs_after_the_last_tasks(setup: Setup) {
    let (successes, failures) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (check, left, right) = (checked("check"), checked("left"), checked("right"));
    let thank = Task::new("thank", {
        let (successes, left, right) = (Arc::clone(&successes), left.clone(), right.clone());
        move |_: Number, context: Context| {
            successes.fetch_add(1, Relaxed);
            let sum = context.output_of(&left).and_then(|left| Ok(left + context.output_of(&right)?));
            async move { Ok(sum?) }
        }
    });
    // It may be set before the tasks that it follows.
    let flow = Workflow::<Number>::new(setup.name("flow"))
        .on_success(&thank)
        .on_failure(&counted("tidy", &failures))
        .task(&check)
        .task_after(&left, &check)
        .task_after(&right, &check);
    let worker = setup.worker(&flow).await;
    let output = setup.hatchet.run(&flow, &Number { n: 4 }).result().await.unwrap();
    assert_eq!((&output["thank"], successes.load(Relaxed), failures.load(Relaxed)), (&json!(8), 1, 0));
    let run = setup.hatchet.run(&flow, &Number { n: -4 }).start().await.unwrap();
    assert!(matches!(run.outcome().await.unwrap(), Outcome::Failed(_)));
    assert_eq!(run.details().await.unwrap().task("thank").unwrap().status, RunStatus::Cancelled);
    assert_eq!((successes.load(Relaxed), failures.load(Relaxed)), (1, 1));
    worker.shutdown().await;
}

async fn w4_retries_have_a_backoff_with_a_maximum(setup: Setup) {
    let task = shaky(setup.name("shaky")).retries(3).backoff(2.0, Duration::from_secs(3));
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &Number { n: 3 }).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), Doubled { doubled: 6 });
    let attempts = &run.details().await.unwrap().tasks[0].attempts;
    assert_eq!(attempts.len(), 4);
    let pauses = attempts.windows(2).map(|pair| pair[1].started_at.unwrap() - pair[0].finished_at.unwrap());
    let pauses: Vec<_> = pauses.map(|pause| pause.num_milliseconds()).collect();
    for (pause, expected) in pauses.iter().zip([2000, 3000, 3000]) {
        // An idle queue starts delayed retries late: the real engine up to 40 seconds, the embedded one up to 5 seconds.
        let late = if setup.engine.is_some() { 5500 } else { 40_000 };
        assert!((expected - 100..expected + late).contains(pause), "{pauses:?}");
    }
    worker.shutdown().await;
}

async fn w4_a_non_retryable_error_ends_the_run(setup: Setup) {
    let task = checked(&setup.name("check")).retries(5);
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &Number { n: -1 }).start().await.unwrap();
    assert!(matches!(run.outcome().await.unwrap(), Outcome::Failed(_)));
    assert_eq!(run.details().await.unwrap().tasks[0].attempts.len(), 1);
    worker.shutdown().await;
}

async fn w4_a_workflow_has_defaults_for_its_tasks(setup: Setup) {
    let (retried, once) = (shaky("retried".into()), shaky("once".into()).retries(0));
    let flow = |name: &str, task| {
        let flow = Workflow::<Number>::new(setup.name(name)).task(task);
        flow.task_defaults(TaskDefaults::new().retries(2).timeout(Duration::from_secs(30)))
    };
    let (retried, once) = (flow("retried", &retried), flow("once", &once));
    let worker = setup.hatchet.worker(setup.name("worker")).register(&retried).register(&once).build().unwrap();
    let worker = worker.start().await.unwrap();
    let (retried, once) = (setup.hatchet.run(&retried, &Number { n: 2 }), setup.hatchet.run(&once, &Number { n: 2 }));
    assert_eq!(retried.result().await.unwrap()["retried"], json!({"doubled": 4}));
    assert!(matches!(once.outcome().await.unwrap(), Outcome::Failed(_)));
    worker.shutdown().await;
}

#[derive(Serialize, Deserialize)]
struct Region {
    name: String,
}

async fn w10_filters_of_the_definition_select_events(setup: Setup) {
    let key = setup.name("paid");
    let region = |name: &str| Region { name: name.into() };
    let filter =
        |expression: &str, scope: &str, name: &str| EventFilter::new(expression).scope(scope).payload(&region(name));
    let audit = Task::new(setup.name("audit"), async |input: Number, context: Context| {
        let region: Option<Region> = context.filter_payload()?;
        Ok(format!("{} in {}", input.n, region.map_or_else(|| "no region".to_owned(), |region| region.name)))
    })
    .on_event(&key)
    .default_filter(filter("input.n > 10", "eu", "Europe"))
    .default_filter(filter("input.n == 1", "us", "America"));
    let worker = setup.worker(&audit).await;
    let push = async |n: i64, scope: Option<&str>| {
        let event = setup.hatchet.push(&key, &Number { n });
        let event = if let Some(scope) = scope { event.scope(scope) } else { event };
        event.send().await.unwrap()
    };
    for (n, scope) in [(11, None), (10, Some("eu")), (11, Some("us")), (11, Some("other"))] {
        push(n, scope).await;
    }
    let (eu, us) = (push(11, Some("eu")).await, push(1, Some("us")).await);
    for (event, output) in [(eu, "11 in Europe"), (us, "1 in America")] {
        let runs = setup.fetch_until(async || event.runs().await.unwrap(), |runs| !runs.is_empty()).await;
        assert_eq!(runs.len(), 1);
        let run = setup.hatchet.run_handle(runs[0].id()).typed::<String>();
        assert_eq!(run.result().await.unwrap(), output);
        assert!(matches!(run.details().await.unwrap().trigger, Trigger::Event(_)));
    }
    let runs = setup.hatchet.runs(RunFilter::new(setup.window()).workflow(audit.name()));
    setup.eventually(async || runs.count().await.unwrap() == Total::Exactly(2)).await;
    // A run without an event has no filter.
    assert_eq!(setup.hatchet.run(&audit, &Number { n: 5 }).result().await.unwrap(), "5 in no region");
    worker.shutdown().await;
}

async fn w14_definitions_are_rejected_with_all_reasons(setup: Setup) {
    let (a, b) = (double("a".into()).backoff(2.0, Duration::from_secs(1)), double("b".into()).slots(0));
    let c = double("c".into()).wait_for(Condition::event("k:*")).rate_limit(RateLimit::new(""));
    let flow = Workflow::<Number>::new(setup.name("flow"))
        .task_after(&a, (&b, "nobody"))
        .task_after(&b, &a)
        .task(&c)
        .task(&c)
        .cron("@daily")
        .concurrency(Concurrency::new("input.(", ConcurrencyStrategy::CancelNewest).max_runs(0))
        .default_filter(EventFilter::new("true"));
    let error = setup.hatchet.worker(setup.name("worker")).register(&flow).build().unwrap_err();
    assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::InvalidInput, true));
    let text = error.to_string();
    for problem in [
        "cron: expected 5 fields, or 6 with seconds first, got 1 (in \"@daily\")",
        "cron: expected cron_input, or an input type that deserializes from {}, got neither for task \"a\": missing field `n`",
        "filter: expected a non-empty scope without U+0000, got \"\"",
        "filter: expected an event key together with a filter, got none",
        "concurrency: expected a CEL expression, got \"input.(\": at character 7: expected a field name, got \"(\"",
        "concurrency: expected a maximum of 1 to 2147483647 runs, got 0",
        "got a second task named \"c\"",
        "task \"a\": expected a task of the workflow as a parent, got \"nobody\"",
        "task \"a\": expected an acyclic graph",
        "task \"a\": backoff: expected retries together with a backoff, got 0",
        "task \"b\": slots: expected 1 to 2147483647 of type \"default\", got 0",
        "task \"c\": wait_for: event: expected a non-empty key without U+0000 or `*` (wildcards are not supported), got \"k:*\"",
        "task \"c\": rate limit \"\": expected a non-empty key without U+0000, got \"\"",
    ] {
        assert!(text.contains(problem), "{problem}: {text}");
    }
    // Nothing was sent.
    let any: WorkflowRef<Number, Value> = WorkflowRef::new(flow.name());
    let error = setup.hatchet.run(&any, &Number { n: 1 }).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WorkflowNotFound);
}

async fn w14_options_that_the_engine_ignores_are_rejected(setup: Setup) {
    let limit = Concurrency::new("'all'", ConcurrencyStrategy::GroupRoundRobin).max_runs_expression("input.n");
    let task = double(setup.name("double")).concurrency(limit);
    let started = setup.hatchet.worker(setup.name("worker")).register(&task).build().unwrap().start().await;
    let error = match (started, &setup.engine) {
        (Err(error), _) => error,
        // A newer engine has the option.
        (Ok(worker), None) => {
            worker.shutdown().await;
            return;
        }
        (Ok(_), Some(_)) => panic!("expected an error"),
    };
    assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Unimplemented, true));
    let text = error.to_string();
    let option = format!("task {:?}: max_runs_expression: expected engine v0.106.5 or later, got v", task.name());
    assert!(text.starts_with(&option), "{text}");
    let error = setup.hatchet.run(&task, &Number { n: 1 }).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WorkflowNotFound, "nothing was stored");
}

async fn c8_default_metadata_is_added_to_runs(setup: Setup) {
    let task = double(setup.name("double")).default_metadata("team", "billing").default_metadata("tier", "free");
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &Number { n: 1 }).metadata("tier", "gold").start().await.unwrap();
    run.result().await.unwrap();
    assert_eq!(json!(run.details().await.unwrap().metadata), json!({"team": "billing", "tier": "gold"}));
    let runs = setup.hatchet.run_many(&task, [Number { n: 1 }]).each(|_, options| options.metadata("team", "ops"));
    let run = runs.start().await.unwrap().remove(0).unwrap();
    run.result().await.unwrap();
    assert_eq!(json!(run.details().await.unwrap().metadata), json!({"team": "ops", "tier": "free"}));
    worker.shutdown().await;
}
