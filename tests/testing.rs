//! The testing kit, used as in the tests of a user.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

#[path = "support/cost.rs"]
mod cost;

use std::time::Duration;

use hatchet::embedded::{Fault, Quirks};
use hatchet::model::{LogLevel, Priority, RateLimitWindow, Trigger};
use hatchet::testing::{Harness, call};
use hatchet::workflow::{CancelCause, Condition, RateLimit};
use hatchet::{Context, Outcome, RunStatus, Task, TaskError, Workflow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use self::cost::cost;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Serialize, Deserialize)]
struct Order {
    id: String,
}

fn flaky() -> Task<Order, u32> {
    let task = Task::new("flaky", async |_: Order, context: Context| match context.attempt() {
        1..=4 => Err(TaskError::new("not yet")),
        attempt => Ok(attempt),
    });
    task.retries(10).backoff(60.0, HOUR)
}

#[tokio::test(start_paused = true)]
async fn b5_hours_of_backoff_take_milliseconds() {
    let started = Instant::now();
    let harness = Harness::start(&flaky()).await.unwrap();
    let order = Order { id: "7".into() };
    let cost = cost(async { assert_eq!(harness.run(&flaky(), &order).result().await.unwrap(), 5) }).await;
    // 60 s, and three times an hour.
    assert!(started.elapsed() > 3 * HOUR && cost < Duration::from_secs(10), "{cost:?}");
    let report = harness.shutdown().await;
    assert_eq!((report.completed, report.failed), (1, 4));
}

#[tokio::test(start_paused = true)]
async fn b5_workflows_run_with_faults_and_quirks() {
    let reserve = Task::new("reserve", async |order: Order, _: Context| Ok(order.id.len()));
    let ship =
        Task::with_state("ship", reserve.clone(), async |reserve: Task<Order, usize>, _: Order, context: Context| {
            Ok(context.output_of(&reserve)? + 1)
        });
    let flow = Workflow::new("order").task(&reserve).task_after(&ship, &reserve);
    let harness = Harness::builder().register(&flow).quirks(Quirks::all()).slots(1).start().await.unwrap();
    harness.engine().faults().inject("SendStepActionEvent", Fault::LoseResponse).unwrap();
    let run = harness.run(&flow, &Order { id: "abc".into() }).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), json!({"reserve": 3, "ship": 4}));
    assert_eq!(run.details().await.unwrap().status, RunStatus::Completed);
    assert_eq!(harness.worker().status().slots, 1);
    harness.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn b5_a_task_can_be_called_alone() {
    let child: Task<Order, String> = Task::new("child", async |order: Order, _: Context| Ok(order.id));
    let task =
        Task::with_state("task", child.clone(), async |child: Task<Order, String>, order: Order, context: Context| {
            context.log_with(LogLevel::Warn, format!("order {}", order.id), json!({"attempt": context.attempt()}))?;
            context.put("one").await?;
            context.put_json(&json!({"two": 2})).await?;
            let shelf: u32 = context.parent_output("reserve")?;
            let tenant = context.metadata()["tenant"].clone();
            let name = context.run(&child, &order).result().await?;
            Ok(json!({"shelf": shelf, "tenant": tenant, "child": name}))
        });
    let order = Order { id: "7".into() };
    let record = call(&task, &order)
        .attempt(2)
        .parent("reserve", &3)
        .metadata("tenant", "acme")
        .register(&child)
        .run()
        .await
        .unwrap();
    assert_eq!(record.result.unwrap(), json!({"shelf": 3, "tenant": "acme", "child": "7"}));
    let [line] = &record.log[..] else { panic!("{:?}", record.log) };
    assert_eq!(
        (&line.level, line.message.as_str(), &line.metadata),
        (&LogLevel::Warn, "order 7", &Some(json!({"attempt": 2})))
    );
    let chunks: Vec<_> = record.chunks.iter().map(|chunk| (chunk.index, chunk.content.text().unwrap())).collect();
    assert_eq!(chunks, [(0, "one"), (1, r#"{"two":2}"#)]);
    let [started] = &record.children[..] else { panic!("{:?}", record.children) };
    assert_eq!((started.workflow_name.as_str(), started.input.as_str()), ("child", r#"{"id":"7"}"#));

    let error = call(&task, &order).run().await.unwrap().result.unwrap_err();
    assert!(error.message().contains("reserve"), "{error}");
    let record = call(&task, &order).parent("reserve", &3).metadata("tenant", "acme").run().await.unwrap();
    let error = record.result.unwrap_err();
    assert!(error.message().contains("no workflow \"child\""), "{error}");
    let waits: Task<Order, ()> = Task::new("waits", async |_: Order, context: Context| {
        context.cancelled().await;
        Err(TaskError::new("stopped"))
    });
    let record = call(&waits, &order).cancelled().run().await.unwrap();
    assert_eq!(record.result.unwrap_err().message(), "stopped");
    let knows: Task<Order, String> = Task::new("knows", async |_: Order, context: Context| {
        Ok(format!("{:?} {:?}", context.cancel_cause(), context.worker_labels()))
    });
    let record = call(&knows, &order).cancelled_because(CancelCause::Shutdown).worker_label("gpu", "a100").run();
    assert_eq!(record.await.unwrap().result.unwrap(), r#"Some(Shutdown) {"gpu": String("a100")}"#);
    assert_eq!(call(&knows, &order).run().await.unwrap().result.unwrap(), "None {}");
}

/// There is no attempt at the engine, and no worker with slots.
#[tokio::test(start_paused = true)]
async fn b5_a_task_that_controls_its_attempt_can_be_called_alone() {
    let task: Task<(), u64> = Task::new("task", async |(): (), context: Context| {
        let begin = Instant::now();
        assert_eq!(context.refresh_timeout(HOUR).send().await?, None);
        context.release_slot().send().await?;
        context.cancelled().await;
        assert_eq!(context.cancel_cause(), Some(CancelCause::Engine));
        Ok(begin.elapsed().as_secs())
    });
    let record = call(&task, &()).cancelled_after(MINUTE).run().await.unwrap();
    assert_eq!(record.result.unwrap(), 60);
}

/// Whatever the task has to wait for in a run.
#[tokio::test(start_paused = true)]
async fn b5_a_task_with_conditions_and_limits_can_be_called_alone() {
    let code = async |(): (), context: Context| {
        let Trigger::Event(event) = context.trigger() else { return Err(TaskError::new("expected an event")) };
        let region: Option<String> = context.filter_payload()?;
        let payment: Option<Value> = context.condition_data("payment")?;
        Ok((event.key.unwrap_or_default(), region, payment.unwrap_or_default(), context.priority()))
    };
    let ship: Task<(), (String, Option<String>, Value, Option<Priority>)> =
        Task::new("ship", code).wait_for(Condition::event("paid")).rate_limit(RateLimit::new("parcels")).slots(1000);
    let call = call(&ship, &()).event("order:paid").filter_payload(&"eu").condition_data("payment", &7);
    let record = call.priority(Priority::High).run().await.unwrap();
    let expected = ("order:paid".to_owned(), Some("eu".to_owned()), json!(7), Some(Priority::High));
    assert_eq!(record.result.unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn b5_a_harness_has_rate_limits() {
    let task: Task<(), ()> = Task::new("task", async |(): (), _: Context| Ok(())).rate_limit(RateLimit::new("calls"));
    let harness =
        Harness::builder().register(&task).rate_limit("calls", 2, RateLimitWindow::Minute).start().await.unwrap();
    let started = Instant::now();
    let runs = harness.run_many(&task, [(), (), ()]).start().await.unwrap();
    for run in runs {
        run.unwrap().result().await.unwrap();
    }
    // The third run waits for the next window.
    assert!((MINUTE / 2..2 * MINUTE).contains(&started.elapsed()), "{:?}", started.elapsed());
    harness.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn b5_an_on_failure_task_gets_the_errors() {
    let tidy: Task<Order, Vec<String>> = Task::new("tidy", async |_: Order, context: Context| {
        Ok(context.errors()?.into_iter().map(|(task, error)| format!("{task}: {error}")).collect())
    });
    let record = call(&tidy, &Order { id: "7".into() }).error("pay", "no money").run().await.unwrap();
    assert_eq!(record.result.unwrap(), ["pay: no money"]);
    let pay: Task<Order, ()> = Task::new("pay", async |_: Order, _: Context| Err(TaskError::non_retryable("no money")));
    let flow = Workflow::new("order").task(&pay).on_failure(&tidy);
    let outcome = Harness::start(&flow).await.unwrap().run(&flow, &Order { id: "7".into() }).outcome().await.unwrap();
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
}
