//! W: batch tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use hatchet::model::{LogLevel, LogLine, TimeoutKind};
use hatchet::workflow::{BatchItem, BatchOptions};
use hatchet::{Outcome, RunHandle, RunStatus, Task, TaskError};

use crate::setup::{Setup, expect_panics, rows, until};
use crate::tasks::Number;

rows! {
    w23_a_batch_has_an_output_or_an_error_for_each_run,
    w23_keys_separate_batches_and_bad_inputs_fail_alone,
    w23_one_run_of_a_batch_is_cancelled_and_the_others_continue,
    w23_the_function_of_a_batch_fails_all_its_runs,
    w23_the_timeout_of_one_run_ends_the_batch,
}

const SECOND: Duration = Duration::from_secs(1);

/// The message of the failure of a run.
async fn failure<O: serde::de::DeserializeOwned>(run: &RunHandle<O>) -> String {
    match run.outcome().await.unwrap() {
        Outcome::Failed(failure) => failure.message.unwrap_or_default(),
        other => panic!("expected a failure, got {other:?}"),
    }
}

fn numbers(count: i64) -> impl Iterator<Item = Number> + Send {
    (0..count).map(|n| Number { n })
}

async fn start<O>(
    setup: &Setup,
    task: &Task<Number, O>,
    inputs: impl Iterator<Item = Number> + Send,
) -> Vec<RunHandle<O>>
where
    O: serde::de::DeserializeOwned + Send + 'static,
{
    let runs = setup.hatchet.run_many(task, inputs).start().await.unwrap();
    runs.into_iter().map(Result::unwrap).collect()
}

async fn log<O>(run: &RunHandle<O>) -> Vec<LogLine> {
    let (mut items, mut lines) = (run.logs(), Vec::new());
    while let Some(line) = items.next().await {
        lines.push(line.unwrap());
    }
    lines
}

async fn w23_a_batch_has_an_output_or_an_error_for_each_run(setup: Setup) {
    let calls = Arc::new(AtomicU32::new(0));
    let code = {
        let calls = Arc::clone(&calls);
        move |items: Vec<BatchItem<Number>>| {
            calls.fetch_add(1, SeqCst);
            let size = items.len();
            let result = move |item: BatchItem<Number>| {
                item.context.log(format!("number {}", item.input.n));
                match item.input.n {
                    2 => Err(TaskError::non_retryable("two is not accepted")),
                    3 if item.context.attempt() == 1 => Err(TaskError::new("not yet")),
                    n => Ok((n, size, item.context.run_id())),
                }
            };
            async move { Ok(items.into_iter().map(result).collect()) }
        }
    };
    let options = BatchOptions::new(4).max_interval(SECOND);
    let task = Task::batch(setup.name("task"), options, code).retries(1);
    let worker = setup.worker(&task).await;
    let runs = start(&setup, &task, numbers(4)).await;
    for n in [0, 1] {
        let expected = (i64::try_from(n).unwrap(), 4, runs[n].id());
        assert_eq!(runs[n].result().await.unwrap(), expected);
    }
    assert_eq!(failure(&runs[2]).await, "two is not accepted");
    // Its retry waits for a batch, and is alone in it.
    assert_eq!(runs[3].result().await.unwrap(), (3, 1, runs[3].id()));
    assert_eq!(calls.load(SeqCst), 2);
    let lines = async || log(&runs[1]).await;
    let lines = setup.fetch_until(lines, |lines| !lines.is_empty()).await;
    assert_eq!((lines[0].message.as_str(), &lines[0].level), ("number 1", &LogLevel::Info));
    let attempts = async || runs[3].details().await.unwrap().tasks[0].attempts.len();
    assert_eq!(setup.fetch_until(attempts, |attempts| *attempts == 2).await, 2);
    let report = worker.shutdown().await;
    assert_eq!(report.to_string(), "attempts: 3 completed, 2 failed, 0 cancelled, 0 unfinished");
}

async fn w23_keys_separate_batches_and_bad_inputs_fail_alone(setup: Setup) {
    let code = async |items: Vec<BatchItem<Number>>| {
        let all: Vec<_> = items.iter().map(|item| item.input.n).collect();
        Ok(items.iter().map(|_| Ok(all.clone())).collect())
    };
    let options = BatchOptions::new(3).key("input.key").max_interval(SECOND / 2);
    let task = Task::batch(setup.name("task"), options, code);
    let worker = setup.worker(&task).await;
    let untyped = hatchet::workflow::WorkflowRef::<serde_json::Value, Vec<u32>>::new(setup.name("task"));
    let inputs = [
        serde_json::json!({"key": "a", "n": 1}),
        serde_json::json!({"key": "b", "n": 2}),
        serde_json::json!({"key": "a", "n": 3}),
        serde_json::json!({"key": "a", "n": "text"}),
    ];
    let runs: Vec<_> = setup.hatchet.run_many(&untyped, inputs).start().await.unwrap();
    let runs: Vec<_> = runs.into_iter().map(Result::unwrap).collect();
    for (at, expected) in [(0, vec![1, 3]), (1, vec![2]), (2, vec![1, 3])] {
        let mut numbers = runs[at].result().await.unwrap();
        numbers.sort_unstable();
        assert_eq!(numbers, expected);
    }
    let message = failure(&runs[3]).await;
    assert!(message.contains("invalid type: string \"text\", expected i64"), "{message}");
    let report = worker.shutdown().await;
    assert_eq!((report.completed, report.failed, report.total()), (3, 1, 4));
}

async fn w23_one_run_of_a_batch_is_cancelled_and_the_others_continue(setup: Setup) {
    let code = async |items: Vec<BatchItem<Number>>| {
        // Until the first is cancelled. The order of the items is not that of the runs.
        let first = items.iter().find(|item| item.input.n == 0).unwrap();
        first.context.cancelled().await;
        Ok(items.iter().map(|item| Ok(item.context.is_cancelled())).collect())
    };
    let task = Task::batch(setup.name("task"), BatchOptions::new(3), code);
    let worker = setup.worker(&task).await;
    let runs = start(&setup, &task, numbers(3)).await;
    until(&runs[0], RunStatus::Running).await;
    runs[0].cancel().reason("one of them").send().await.unwrap();
    for run in &runs[1..] {
        assert!(!run.result().await.unwrap());
    }
    assert!(matches!(runs[0].outcome().await.unwrap(), Outcome::Cancelled(_)));
    let report = worker.shutdown().await;
    assert_eq!(report.to_string(), "attempts: 2 completed, 0 failed, 1 cancelled, 0 unfinished");
}

async fn w23_the_function_of_a_batch_fails_all_its_runs(setup: Setup) {
    expect_panics(1);
    let code = async |items: Vec<BatchItem<Number>>| match items.iter().map(|item| item.input.n).max() {
        Some(1) => Err(TaskError::non_retryable("the database is away")),
        Some(11) => panic!("as planned"),
        // Too few, and too many.
        Some(21) => Ok(vec![Ok(0)]),
        _ => Ok(vec![Ok(0), Ok(0), Ok(0)]),
    };
    let task = Task::batch(setup.name("task"), BatchOptions::new(2), code).retries(0);
    let worker = setup.worker(&task).await;
    for (first, expected) in [
        (0, "the database is away"),
        (10, "the task panicked: as planned"),
        (20, "expected 2 results, one for each item of the batch, got 1"),
        (30, "expected 2 results, one for each item of the batch, got 3"),
    ] {
        let runs = start(&setup, &task, (first..first + 2).map(|n| Number { n })).await;
        for run in &runs {
            assert_eq!(failure(run).await, expected);
        }
    }
    let report = worker.shutdown().await;
    assert_eq!((report.failed, report.total()), (8, 8));
}

async fn w23_the_timeout_of_one_run_ends_the_batch(setup: Setup) {
    let code = async |items: Vec<BatchItem<Number>>| {
        if items.len() == 2 {
            std::future::pending::<()>().await;
        }
        Ok(items.into_iter().map(|item| Ok(item.input.n)).collect())
    };
    let task = Task::batch(setup.name("task"), BatchOptions::new(2), code).timeout(2 * SECOND);
    let worker =
        setup.hatchet.worker(setup.name("worker")).slots(1).register(&task).build().unwrap().start().await.unwrap();
    let runs = start(&setup, &task, numbers(2)).await;
    for run in &runs {
        let Outcome::TimedOut(timeout) = run.outcome().await.unwrap() else {
            panic!("expected a timeout, got {:?}", run.details().await)
        };
        assert_eq!(timeout.kind, TimeoutKind::Execution);
    }
    // The slot is free again.
    assert_eq!(setup.hatchet.run(&task, &Number { n: 7 }).result().await.unwrap(), 7);
    let report = worker.shutdown().await;
    assert_eq!(report.to_string(), "attempts: 1 completed, 0 failed, 2 cancelled, 0 unfinished");
}
