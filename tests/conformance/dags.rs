//! Runs of several tasks, in all the rows that are about them.

use std::collections::BTreeSet;
use std::time::Duration;

use hatchet::model::TimeoutKind;
use hatchet::{Context, Outcome, RunFilter, RunStatus, Task, TaskError, Workflow};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::tasks::{Number, double};
use crate::world::{World, rows};

rows! {
    m3_the_output_of_each_task_of_a_dag,
    m4_a_failed_dag_tells_which_task_and_why,
    s6_a_task_of_a_dag_that_times_out,
    m5_times_of_each_task,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Outputs {
    first: i64,
    left: i64,
    right: i64,
    last: Vec<i64>,
}

/// A diamond: each of two follows the first, and the last follows both.
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

async fn m3_the_output_of_each_task_of_a_dag(world: World) {
    let flow = diamond(world.name("diamond"));
    let worker = world.worker(&flow).await;
    let run = world.hatchet.run(&flow, &Number { n: 7 }).start().await.unwrap();
    let expected = Outputs { first: 7, left: 14, right: 21, last: vec![14, 21] };
    assert_eq!(run.result().await.unwrap(), expected);
    let details = run.details().await.unwrap();
    assert_eq!(details.output().unwrap().parse::<Outputs>().unwrap(), expected);
    let names: Vec<_> = details.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["first", "left", "right", "last"], "in the order of the definition");
    assert_eq!(details.task("last").unwrap().output().unwrap().parse::<Vec<i64>>().unwrap(), [14, 21]);
    assert!(details.tasks.iter().all(|task| task.status == RunStatus::Completed && task.attempts.len() == 1));
    assert_eq!((details.input.parse::<Number>().unwrap().n, details.attempt(), details.conflicts.len()), (7, 1, 0));
    assert_eq!(details.workflow_name.as_deref(), Some(flow.name()));
    // A list of tasks has their names, too.
    let tasks = world.hatchet.tasks(RunFilter::new(world.window()).workflow(flow.name()));
    let names = async || {
        let rows = tasks.page(10).await.unwrap().items;
        rows.into_iter().filter_map(|row| row.name).collect::<BTreeSet<_>>()
    };
    world.eventually(async || names().await.into_iter().eq(["first", "last", "left", "right"])).await;
    worker.shutdown().await;
}

async fn m4_a_failed_dag_tells_which_task_and_why(world: World) {
    let fine = Task::new("fine", async |_: Number, _: Context| Ok(1));
    let broken: Task<Number, ()> = Task::new("broken", async |_: Number, context: Context| {
        Err(TaskError::new(format!("broke at attempt {}", context.attempt())))
    })
    .retries(1);
    let never = Task::new("never", async |_: Number, _: Context| Ok(3));
    let tidy = Task::new("tidy", async |_: Number, context: Context| Ok(json!({ "errors": context.errors()? })));
    let flow: Workflow<Number> = Workflow::new(world.name("flow"))
        .task(&fine)
        .task_after(&broken, ["fine"])
        .task_after(&never, ["broken"])
        .on_failure(&tidy);
    let worker = world.worker(&flow).await;
    let run = world.hatchet.run(&flow, &Number { n: 1 }).start().await.unwrap();
    let Outcome::Failed(failure) = run.outcome().await.unwrap() else { panic!() };
    assert_eq!((failure.task_name.as_deref(), failure.message.as_str()), (Some("broken"), "broke at attempt 2"));
    let details = run.details().await.unwrap();
    assert_eq!(details.outcome, Some(Outcome::Failed(failure)));
    let status = |name: &str| details.task(name).unwrap().status.clone();
    assert_eq!(
        [status("fine"), status("broken"), status("never")],
        [RunStatus::Completed, RunStatus::Failed, RunStatus::Cancelled]
    );
    let broken = details.task("broken").unwrap();
    let errors: Vec<_> = broken.attempts.iter().map(|attempt| attempt.error.as_deref().unwrap()).collect();
    assert_eq!(errors, ["broke at attempt 1", "broke at attempt 2"]);
    let tidied: Value = details.task("tidy").unwrap().output().unwrap().parse().unwrap();
    assert_eq!(tidied, json!({"errors": {"broken": "broke at attempt 2"}}));
    worker.shutdown().await;
}

async fn s6_a_task_of_a_dag_that_times_out(world: World) {
    let slow: Task<Number, ()> =
        Task::new("slow", async |_: Number, _: Context| std::future::pending().await).timeout(Duration::from_secs(2));
    let never = Task::new("never", async |_: Number, _: Context| Ok(3));
    let flow: Workflow<Number> = Workflow::new(world.name("flow")).task(&slow).task_after(&never, ["slow"]);
    let worker = world.worker(&flow).await;
    let run = world.hatchet.run(&flow, &Number { n: 1 }).start().await.unwrap();
    let Outcome::TimedOut(timeout) = run.outcome().await.unwrap() else { panic!() };
    assert_eq!((timeout.kind, timeout.task_name.as_deref()), (TimeoutKind::Execution, Some("slow")));
    let details = run.details().await.unwrap();
    assert_eq!((&details.status, &details.task("slow").unwrap().status), (&RunStatus::TimedOut, &RunStatus::TimedOut));
    worker.shutdown().await;
}

async fn m5_times_of_each_task(world: World) {
    let nap = |name: &str| {
        Task::new(name, async |_: Number, _: Context| {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Ok(0)
        })
    };
    let flow: Workflow<Number> = Workflow::new(world.name("flow")).task(&nap("a")).task_after(&nap("b"), ["a"]);
    let single = double(world.name("double"));
    let worker = world.hatchet.worker(world.name("worker")).register(&flow).register(&single);
    let worker = worker.build().unwrap().start().await.unwrap();
    let run = world.hatchet.run(&flow, &Number { n: 1 }).start().await.unwrap();
    run.outcome().await.unwrap();
    let details = run.details().await.unwrap();
    for task in &details.tasks {
        let working = task.ran_for().unwrap();
        assert!((300..800).contains(&working.as_millis()), "{}: {working:?}", task.name);
        assert!(task.queued_for().is_some());
    }
    assert!(details.ran_for().unwrap() >= Duration::from_millis(600), "the sum of both");
    assert!(details.elapsed().unwrap() >= details.ran_for().unwrap(), "one after the other");
    assert!(details.started_at() >= details.created_at && details.finished_at() > details.started_at());
    worker.shutdown().await;
}
