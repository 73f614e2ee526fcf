//! User code that blocks, panics in unusual places, or returns values that the engine cannot store.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

mod support;

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use hatchet::{Context, ErrorKind, Outcome, Task, TaskError, Workflow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::timeout;

const SECOND: Duration = Duration::from_secs(1);

/// Uses real time and real threads, because a blocked thread is the subject. The task blocks its thread until another task has
/// completed, so the result depends only on the worker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocking_code_does_not_delay_other_tasks() {
    let (engine, hatchet) = support::engine_with_quirks().await;
    let (unblock, blocked) = mpsc::channel::<()>();
    let blocked = Mutex::new(blocked);
    let blocks: Task<(), ()> = Task::new("blocks", move |(): (), _: Context| {
        blocked.lock().unwrap().recv_timeout(60 * SECOND).unwrap();
        async { Ok(()) }
    });
    let other: Task<(), u32> = Task::new("other", async |(): (), _: Context| Ok(7));
    let worker = hatchet.worker("worker").register(&blocks).register(&other).build().unwrap().start().await.unwrap();
    let run = hatchet.run(&blocks, &()).start().await.unwrap();
    for _ in 0..20 {
        let result =
            timeout(20 * SECOND, hatchet.run(&other, &()).result()).await.expect("other tasks are not delayed");
        assert_eq!(result.unwrap(), 7);
    }
    unblock.send(()).unwrap();
    run.result().await.unwrap();
    let report = worker.shutdown().await;
    assert_eq!((report.completed, report.total()), (21, 21));
    engine.shutdown().await;
}

/// Panics when it is dropped, with a payload that panics when it is dropped, too.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::panic::panic_any(Bomb);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nested_panics_count_as_one_failure() {
    let (_engine, hatchet) = support::engine_with_quirks().await;
    let value: Task<(), ()> = Task::new("value", async |(): (), _: Context| std::panic::panic_any(Bomb));
    let local: Task<(), ()> = Task::new("local", async |(): (), _: Context| {
        let _bomb = Bomb;
        std::future::pending().await
    })
    .timeout(SECOND);
    let worker = hatchet.worker("worker").register(&value).register(&local).build().unwrap().start().await.unwrap();
    let outcome = hatchet.run(&value, &()).start().await.unwrap().outcome().await.unwrap();
    assert_eq!(outcome.to_string(), "failed: the task panicked");
    let outcome = hatchet.run(&local, &()).start().await.unwrap().outcome().await.unwrap();
    assert!(matches!(outcome, Outcome::TimedOut(_)), "{outcome}");
    let report = worker.shutdown().await;
    assert_eq!((report.failed, report.cancelled, report.unfinished, report.total()), (1, 1, 0, 2), "{report}");
}

/// An input or an output that panics when it is dropped.
#[derive(Serialize, Deserialize)]
struct Fragile {
    number: u32,
}

impl Drop for Fragile {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::panic::panic_any(format!("dropped {}", self.number));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn w15_inputs_and_outputs_that_panic_when_they_are_dropped_fail_the_attempt() {
    let (_engine, hatchet) = support::engine_with_quirks().await;
    let input = Task::new("input", async |input: Fragile, _: Context| Ok(input.number));
    let output = Task::new("output", async |(): (), _: Context| Ok(Fragile { number: 8 }));
    // The output is dropped when it cannot be stored, too.
    let late = Task::new("late", async |input: Fragile, context: Context| {
        context.cancelled().await;
        Ok(input)
    });
    let late = late.timeout(SECOND);
    let worker = hatchet.worker("worker").register(&input).register(&output).register(&late);
    let worker = worker.build().unwrap().start().await.unwrap();
    // By name, so that this test has no such values.
    let outcome = async |name: &str, input: Value| {
        let task = hatchet::workflow::WorkflowRef::<Value, Value>::new(name);
        hatchet.run(&task, &input).outcome().await.unwrap()
    };
    for _ in 0..2 {
        assert_eq!(outcome("input", json!({"number": 7})).await.to_string(), "failed: the task panicked: dropped 7");
        assert_eq!(outcome("output", json!({})).await.to_string(), "failed: the task panicked: dropped 8");
    }
    let timed_out = outcome("late", json!({"number": 9})).await;
    assert!(matches!(timed_out, Outcome::TimedOut(_)), "{timed_out}");
    let report = worker.shutdown().await;
    assert_eq!((report.failed, report.cancelled, report.total()), (4, 1, 5), "{report}");
}

#[tokio::test(start_paused = true)]
async fn long_error_texts_are_truncated_and_the_task_is_retried() {
    let (_engine, hatchet) = support::engine_with_quirks().await;
    let task: Task<(), u32> = Task::new("verbose", async |(): (), context: Context| match context.attempt() {
        1 => Err(TaskError::new("x".repeat(5_000_000))),
        attempt => Ok(attempt),
    })
    .retries(1);
    let worker = support::start_worker(&hatchet, &task).await;
    let run = hatchet.run(&task, &()).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), 2);
    let details = run.details().await.unwrap();
    let error = details.tasks.first().unwrap().attempts.first().unwrap().error.clone().unwrap();
    assert!(error.starts_with("xxx") && error.ends_with("x… (5000000 bytes, cut at 1048576)"));
    worker.shutdown().await;
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Place {
    latitude: f64,
    longitude: f64,
}

#[tokio::test(start_paused = true)]
async fn floats_keep_their_bits() {
    let (_engine, hatchet) = support::engine_with_quirks().await;
    let place = Place { latitude: 123_456_789.123_456_79, longitude: -0.1 + -0.2 };
    let first = Task::new("first", async |place: Place, _: Context| Ok(place));
    let second = Task::new("second", async |_: Place, context: Context| {
        context.parent_output::<Place>("first").map_err(Into::into)
    });
    let flow = Workflow::new("flow").task(&first).task_after(&second, ["first"]);
    let worker = support::start_worker(&hatchet, &flow).await;
    let run = hatchet.run(&flow, &place).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), json!({"first": place, "second": place}));
    let details = run.details().await.unwrap();
    assert_eq!(details.input.as_ref().unwrap().parse::<Place>().unwrap(), place);
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn values_that_the_engine_would_change_are_rejected() {
    let (_engine, hatchet) = support::engine_with_quirks().await;
    let large: Task<(), u64> = Task::new("large", async |(): (), _: Context| Ok(u64::MAX));
    let nan: Task<(), Option<f64>> = Task::new("nan", async |(): (), _: Context| Ok(Some(f64::NAN)));
    let after: Task<(), u64> = Task::new("after", async |(): (), context: Context| Ok(context.parent_output("large")?));
    let flow = Workflow::new("flow").task(&large).task_after(&after, ["large"]);
    let worker = hatchet.worker("worker").register(&large).register(&nan).register(&flow);
    let worker = worker.build().unwrap().start().await.unwrap();
    // Without dependents, the result of the run keeps all digits.
    assert_eq!(hatchet.run(&large, &()).result().await.unwrap(), u64::MAX);
    for (outcome, text) in [
        (hatchet.run(&nan, &()).start().await.unwrap().outcome().await.unwrap(), "expected a finite number, got NaN"),
        (hatchet.run(&flow, &()).start().await.unwrap().outcome().await.unwrap(), "got 18446744073709551615"),
    ] {
        let Outcome::Failed(failure) = outcome else { panic!("{outcome}") };
        assert!(failure.to_string().contains(text), "{failure}");
    }
    let any = hatchet::workflow::WorkflowRef::<Value, Value>::new("large");
    let error = hatchet.run(&any, &json!({"order": {"id": u64::MAX}})).start().await.unwrap_err();
    assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::InvalidInput, true));
    assert!(error.to_string().starts_with("invalid input: order: id: expected an integer from "), "{error}");
    worker.shutdown().await;
}

/// A task's types need only the traits that the worker needs.
#[tokio::test(start_paused = true)]
async fn task_outputs_need_not_be_deserializable() {
    let (_engine, hatchet) = support::engine_with_quirks().await;
    let says = Task::new("says", async |(): (), _: Context| Ok("done"));
    let worker = support::start_worker(&hatchet, &says).await;
    let says = hatchet::workflow::WorkflowRef::<(), String>::new("says");
    assert_eq!(hatchet.run(&says, &()).result().await.unwrap(), "done");
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn non_object_input_types_are_rejected_when_the_worker_is_built() {
    let (_engine, hatchet) = support::engine_with_quirks().await;
    let number = Task::new("number", async |n: u32, _: Context| Ok(n));
    let list = Task::new("list", async |n: Vec<u32>, _: Context| Ok(n));
    let error = hatchet.worker("worker").register(&number).register(&list).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    for text in [
        "task \"number\": input type: expected a type that deserializes from a JSON object, or (), got one that deserializes from a number",
        "task \"list\": input type: expected a type that deserializes from a JSON object, or (), got one that deserializes from a list",
    ] {
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_that_are_assigned_during_shutdown_are_unfinished() {
    use hatchet::embedded::Fault;
    let (engine, hatchet) = support::engine_with_quirks().await;
    let started = Arc::new(AtomicU32::new(0));
    let slow: Task<(), ()> = Task::new("slow", {
        let started = Arc::clone(&started);
        move |(): (), _: Context| {
            started.fetch_add(1, SeqCst);
            async {
                tokio::time::sleep(20 * SECOND).await;
                Ok(())
            }
        }
    });
    let worker = hatchet
        .worker("worker")
        .shutdown_grace_period(3 * SECOND)
        .register(&slow)
        .build()
        .unwrap()
        .start()
        .await
        .unwrap();
    let first = hatchet.run(&slow, &()).start().await.unwrap().id();
    tokio::time::sleep(SECOND).await;
    // A worker that cannot be paused stops its heartbeats, and still gets assignments for a few seconds.
    engine.faults().inject_always("PATCH /api/v1/workers/{worker}", Fault::RejectRest(503)).unwrap();
    let late = async {
        // After the timeout of the pause (two seconds) and the grace period, and before the engine detects it.
        tokio::time::sleep(Duration::from_millis(5500)).await;
        hatchet.run(&slow, &()).start().await.unwrap().id()
    };
    let (report, late) = tokio::join!(worker.shutdown(), late);
    assert_eq!((report.unfinished, report.total()), (2, 2), "{report}");
    let unfinished: Vec<_> =
        report.unfinished_attempts.iter().map(|one| (one.run_id, one.attempt, one.is_finished)).collect();
    assert_eq!(unfinished.len(), 2);
    assert!(unfinished.contains(&(first, 1, false)) && unfinished.contains(&(late, 1, false)), "{unfinished:?}");
    assert_eq!(started.load(SeqCst), 1, "the second attempt was not started");
}

#[tokio::test(start_paused = true)]
async fn workflows_that_differ_only_in_case_are_rejected() {
    use hatchet::embedded::Fault;
    let (engine, hatchet) = support::engine_with_quirks().await;
    let upper: Task<(), String> = Task::new("SendEmail", async |(): (), _: Context| Ok("upper".to_owned()));
    let lower: Task<(), String> = Task::new("sendemail", async |(): (), _: Context| Ok("lower".to_owned()));
    let first = support::start_worker(&hatchet, &upper).await;
    let rejected = hatchet.worker("second").register(&lower).build().unwrap().start().await.unwrap_err();
    assert_eq!((rejected.kind(), rejected.has_no_side_effects()), (ErrorKind::AlreadyExists, true));
    assert!(
        rejected.to_string().contains("the engine has a workflow \"SendEmail\", whose name differs only in case"),
        "{rejected}"
    );

    // If the list of workflows is not available, each run is checked.
    engine.faults().inject("GET /api/v1/tenants/{tenant}/workflows", Fault::RejectRest(501)).unwrap();
    let second = hatchet.worker("second").register(&lower).build().unwrap().start().await.unwrap();
    let mut outcomes = Vec::new();
    for _ in 0..10 {
        for task in [&upper, &lower] {
            outcomes.push((task.name(), hatchet.run(task, &()).start().await.unwrap().outcome().await.unwrap()));
        }
    }
    let is_wrong = |(name, outcome): &(&str, Outcome)| match outcome {
        Outcome::Completed(done) => {
            done.output.parse::<String>().unwrap() != if *name == "SendEmail" { "upper" } else { "lower" }
        }
        Outcome::Failed(failure) => !failure.to_string().contains("whose actions differ only in case"),
        _ => true,
    };
    assert!(!outcomes.iter().any(is_wrong), "{outcomes:?}");
    assert!(
        outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed(_))),
        "some runs were assigned to the wrong worker"
    );
    first.shutdown().await;
    second.shutdown().await;
}
