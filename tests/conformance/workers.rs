//! W: workers.

use std::time::Duration;

use chrono::TimeDelta;
use hatchet::worker::WorkerState;
use hatchet::{Context, ErrorKind, Outcome, RunHandle, Task, TaskError};
use serde::{Deserialize, Serialize, Serializer};

use crate::setup::{Setup, expect_panics, rows};
use crate::tasks::{Doubled, Number, double, endless};

rows! {
    w15_panics_fail_the_task_and_not_the_worker,
    b11_shutdown_reports_all_attempts,
    w21_a_worker_whose_client_is_closed_ends_with_the_reason,
    w24_the_delay_of_a_retry_is_applied_or_rejected,
}

/// A type whose serialization panics.
#[derive(Deserialize)]
struct PanickingOutput;

impl Serialize for PanickingOutput {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("serialization panicked")
    }
}

/// A type whose deserialization panics.
#[derive(Serialize)]
struct PanickingInput;

impl<'de> Deserialize<'de> for PanickingInput {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("deserialization panicked")
    }
}

async fn failure<O>(run: RunHandle<O>) -> String {
    match run.outcome().await.unwrap() {
        Outcome::Failed(failure) => failure.message.unwrap_or_default(),
        other => panic!("{other:?}"),
    }
}

async fn w15_panics_fail_the_task_and_not_the_worker(setup: Setup) {
    // The input type panics twice: when the worker inspects the type, and when it deserializes an input.
    expect_panics(4);
    let code: Task<Number, Doubled> =
        Task::new(setup.name("code"), async |_: Number, _: Context| panic!("in the code"));
    let input: Task<PanickingInput, Doubled> =
        Task::new(setup.name("input"), async |_: PanickingInput, _: Context| Ok(Doubled { doubled: 1 }));
    let output: Task<Number, PanickingOutput> =
        Task::new(setup.name("output"), async |_: Number, _: Context| Ok(PanickingOutput));
    let wrong: Task<Number, Doubled> = double(setup.name("wrong"));
    let worker =
        setup.hatchet.worker(setup.name("worker")).register(&code).register(&input).register(&output).register(&wrong);
    let worker = worker.build().unwrap().start().await.unwrap();
    let hatchet = &setup.hatchet;
    let n = Number { n: 1 };
    assert_eq!(failure(hatchet.run(&code, &n).start().await.unwrap()).await, "the task panicked: in the code");
    // The input is serialized by another type.
    let any = hatchet::workflow::WorkflowRef::<Number, Doubled>::new(input.name());
    assert_eq!(
        failure(hatchet.run(&any, &n).start().await.unwrap()).await,
        "the task panicked: deserialization panicked"
    );
    assert_eq!(
        failure(hatchet.run(&output, &n).start().await.unwrap()).await,
        "the task panicked: serialization panicked"
    );
    // An invalid input is a failure with a reason.
    let any = hatchet::workflow::WorkflowRef::<serde_json::Value, Doubled>::new(wrong.name());
    let text = failure(hatchet.run(&any, &serde_json::json!({"m": 1})).start().await.unwrap()).await;
    assert!(text.starts_with("failed to deserialize the input") && text.contains("missing field `n`"), "{text}");
    assert_eq!(hatchet.run(&wrong, &n).start().await.unwrap().result().await.unwrap(), Doubled { doubled: 2 });
    let report = worker.shutdown().await;
    assert_eq!((report.completed, report.failed, report.total()), (1, 4, 5));
}

async fn w21_a_worker_whose_client_is_closed_ends_with_the_reason(setup: Setup) {
    let hatchet = setup.client_with(|config| config);
    let task = double(setup.name("double"));
    let worker = hatchet.worker(setup.name("worker")).register(&task).build().unwrap().start().await.unwrap();
    let mut statuses = worker.statuses();
    while statuses.next().await.unwrap().state != WorkerState::Connected {}
    hatchet.close().await;
    assert_eq!(worker.stopped().await.unwrap_err().kind(), ErrorKind::Closed);
    while statuses.next().await.unwrap().state != WorkerState::Draining {}
}

/// A delay of one second is applied by new engines. With an older one, the attempt fails and is not retried.
async fn w24_the_delay_of_a_retry_is_applied_or_rejected(setup: Setup) {
    let task: Task<Number, u32> =
        Task::new(setup.name("task"), async |_: Number, context: Context| match context.attempt() {
            1 => Err(TaskError::retry_after("overloaded", Duration::from_secs(1))),
            attempt => Ok(attempt),
        })
        .retries(3);
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &Number { n: 1 }).start().await.unwrap();
    match run.outcome().await.unwrap() {
        Outcome::Failed(failure) => {
            let message = failure.message.unwrap_or_default();
            let expected = "overloaded (the retry after 1s needs engine v0.111.0 or later, got v";
            assert!(message.starts_with(expected), "{message}");
            assert_eq!(run.details().await.unwrap().attempt(), 1);
        }
        outcome => {
            assert!(setup.engine.is_none(), "{outcome:?}");
            let details = run.details().await.unwrap();
            let [first, second] = &details.tasks[0].attempts[..] else { panic!("{details:?}") };
            assert!(second.started_at.unwrap() - first.finished_at.unwrap() >= TimeDelta::seconds(1), "{details:?}");
        }
    }
    worker.shutdown().await;
}

async fn b11_shutdown_reports_all_attempts(setup: Setup) {
    let (short, stuck) = (double(setup.name("double")), endless(setup.name("endless")));
    let worker = setup
        .hatchet
        .worker(setup.name("worker"))
        .register(&short)
        .register(&stuck)
        .shutdown_grace_period(std::time::Duration::from_secs(1));
    let worker = worker.build().unwrap().start().await.unwrap();
    setup.hatchet.run(&short, &Number { n: 1 }).start().await.unwrap().result().await.unwrap();
    let unfinished = setup.hatchet.run(&stuck, &Number { n: 1 }).start().await.unwrap();
    let cancelled = setup.hatchet.run(&stuck, &Number { n: 2 }).start().await.unwrap();
    for run in [&unfinished, &cancelled] {
        crate::support::until_running(run).await;
    }
    cancelled.cancel().send().await.unwrap();
    assert_eq!(cancelled.outcome().await.unwrap().status(), hatchet::RunStatus::Cancelled);
    let report = worker.shutdown().await;
    assert_eq!((report.completed, report.failed, report.cancelled), (1, 0, 1));
    assert_eq!((report.unfinished, report.unfinished_attempts.len()), (1, 1));
    assert_eq!(
        (
            report.unfinished_attempts[0].run_id,
            report.unfinished_attempts[0].attempt,
            report.unfinished_attempts[0].is_finished
        ),
        (unfinished.id(), 1, false)
    );
    assert_eq!(report.to_string(), "attempts: 1 completed, 0 failed, 1 cancelled, 1 unfinished");
}
