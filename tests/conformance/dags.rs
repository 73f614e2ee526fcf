//! DAG runs, for several sections of the table.

use std::collections::BTreeSet;
use std::time::Duration;

use hatchet::model::TimeoutKind;
use hatchet::{Context, Outcome, RunFilter, RunStatus, Task, TaskError, Workflow};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::setup::{Setup, rows};
use crate::tasks::{Number, double};

rows! {
    m3_details_have_the_output_of_each_task,
    m4_failed_dags_name_the_failed_task_and_its_error,
    s6_dags_with_a_timed_out_task_have_timed_out,
    m5_details_have_the_times_of_each_task,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Outputs {
    first: i64,
    left: i64,
    right: i64,
    last: Vec<i64>,
}

/// A diamond: two tasks depend on the first one, and the last one depends on both.
fn diamond(name: String) -> Workflow<Number, Outputs> {
    let first = Task::new("first", async |input: Number, _: Context| Ok(input.n));
    let side = |name: &str, factor: i64| {
        Task::new(name, move |_: Number, context: Context| async move {
            Ok(context.parent_output::<i64>("first")? * factor)
        })
    };
    let last = Task::new("last", async |_: Number, context: Context| {
        Ok(vec![context.parent_output::<i64>("left")?, context.parent_output::<i64>("right")?])
    });
    Workflow::new(name)
        .task(&first)
        .task_after(&side("left", 2), ["first"])
        .task_after(&side("right", 3), ["first"])
        .task_after(&last, ["left", "right"])
        .typed()
}

async fn m3_details_have_the_output_of_each_task(setup: Setup) {
    let flow = diamond(setup.name("diamond"));
    let worker = setup.worker(&flow).await;
    let run = setup.hatchet.run(&flow, &Number { n: 7 }).start().await.unwrap();
    let expected = Outputs { first: 7, left: 14, right: 21, last: vec![14, 21] };
    assert_eq!(run.result().await.unwrap(), expected);
    let details = run.details().await.unwrap();
    assert_eq!(details.output().unwrap().parse::<Outputs>().unwrap(), expected);
    let names: Vec<_> = details.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["first", "left", "right", "last"], "in the order of the definition");
    assert_eq!(details.task("last").unwrap().output().unwrap().parse::<Vec<i64>>().unwrap(), [14, 21]);
    assert!(details.tasks.iter().all(|task| task.status == RunStatus::Completed && task.attempts.len() == 1));
    assert_eq!(
        (details.input.as_ref().unwrap().parse::<Number>().unwrap().n, details.attempt(), details.conflicts.len()),
        (7, 1, 0)
    );
    assert_eq!(details.workflow_name.as_deref(), Some(flow.name()));
    // A list of tasks also contains their names.
    let tasks = setup.hatchet.tasks(RunFilter::new(setup.window()).workflow(flow.name()));
    let names = async || {
        let rows = tasks.page(10).await.unwrap().items;
        rows.into_iter().filter_map(|row| row.name).collect::<BTreeSet<_>>()
    };
    setup.eventually(async || names().await.into_iter().eq(["first", "last", "left", "right"])).await;
    worker.shutdown().await;
}

async fn m4_failed_dags_name_the_failed_task_and_its_error(setup: Setup) {
    let succeeding = Task::new("succeeding", async |_: Number, _: Context| Ok(1));
    let broken: Task<Number, ()> = Task::new("broken", async |_: Number, context: Context| {
        Err(TaskError::new(format!("broke at attempt {}", context.attempt())))
    })
    .retries(1);
    let never = Task::new("never", async |_: Number, _: Context| Ok(3));
    let cleanup = Task::new("cleanup", async |_: Number, context: Context| Ok(json!({ "errors": context.errors()? })));
    let flow: Workflow<Number> = Workflow::new(setup.name("flow"))
        .task(&succeeding)
        .task_after(&broken, ["succeeding"])
        .task_after(&never, ["broken"])
        .on_failure(&cleanup);
    let worker = setup.worker(&flow).await;
    let run = setup.hatchet.run(&flow, &Number { n: 1 }).start().await.unwrap();
    let Outcome::Failed(failure) = run.outcome().await.unwrap() else { panic!() };
    assert_eq!(
        (failure.task_name.as_deref(), failure.message.as_deref()),
        (Some("broken"), Some("broke at attempt 2"))
    );
    let details = run.details().await.unwrap();
    assert_eq!(details.outcome, Some(Outcome::Failed(failure)));
    let status = |name: &str| details.task(name).unwrap().status.clone();
    assert_eq!(
        [status("succeeding"), status("broken"), status("never")],
        [RunStatus::Completed, RunStatus::Failed, RunStatus::Cancelled]
    );
    let broken = details.task("broken").unwrap();
    let errors: Vec<_> = broken.attempts.iter().map(|attempt| attempt.error.as_deref().unwrap()).collect();
    assert_eq!(errors, ["broke at attempt 1", "broke at attempt 2"]);
    let output: Value = details.task("cleanup").unwrap().output().unwrap().parse().unwrap();
    assert_eq!(output, json!({"errors": {"broken": "broke at attempt 2"}}));
    worker.shutdown().await;
}

async fn s6_dags_with_a_timed_out_task_have_timed_out(setup: Setup) {
    let slow: Task<Number, ()> =
        Task::new("slow", async |_: Number, _: Context| std::future::pending().await).timeout(Duration::from_secs(2));
    let never = Task::new("never", async |_: Number, _: Context| Ok(3));
    let flow: Workflow<Number> = Workflow::new(setup.name("flow")).task(&slow).task_after(&never, ["slow"]);
    let worker = setup.worker(&flow).await;
    let run = setup.hatchet.run(&flow, &Number { n: 1 }).start().await.unwrap();
    let Outcome::TimedOut(timeout) = run.outcome().await.unwrap() else { panic!() };
    assert_eq!((timeout.kind, timeout.task_name.as_deref()), (TimeoutKind::Execution, Some("slow")));
    let details = run.details().await.unwrap();
    assert_eq!((&details.status, &details.task("slow").unwrap().status), (&RunStatus::TimedOut, &RunStatus::TimedOut));
    worker.shutdown().await;
}

async fn m5_details_have_the_times_of_each_task(setup: Setup) {
    let nap = |name: &str| {
        Task::new(name, async |_: Number, _: Context| {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Ok(0)
        })
    };
    let flow: Workflow<Number> = Workflow::new(setup.name("flow")).task(&nap("a")).task_after(&nap("b"), ["a"]);
    let single = double(setup.name("double"));
    let worker = setup.hatchet.worker(setup.name("worker")).register(&flow).register(&single);
    let worker = worker.build().unwrap().start().await.unwrap();
    let run = setup.hatchet.run(&flow, &Number { n: 1 }).start().await.unwrap();
    run.outcome().await.unwrap();
    let details = run.details().await.unwrap();
    for task in &details.tasks {
        let ran_for = task.ran_for().unwrap();
        assert!((300..800).contains(&ran_for.as_millis()), "{}: {ran_for:?}", task.name);
        assert!(task.queued_for().is_some());
    }
    assert!(details.ran_for().unwrap() >= Duration::from_millis(600), "the sum of both tasks");
    assert!(details.elapsed().unwrap() >= details.ran_for().unwrap(), "the tasks run one after the other");
    assert!(details.started_at() >= details.created_at && details.finished_at() > details.started_at());
    worker.shutdown().await;
}
