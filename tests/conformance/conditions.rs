//! W2 and W9: outputs of parents, and conditions.

use std::time::Duration;

use hatchet::workflow::Condition;
use hatchet::{Context, ErrorKind, Outcome, RunHandle, RunStatus, Task, Workflow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::setup::{Setup, rows};
use crate::tasks::Number;

rows! {
    w2_outputs_of_parents_are_typed_and_skipped_ones_visible,
    w2_a_task_that_is_not_a_parent_fails_without_a_retry,
    w9_a_task_waits_for_an_event_or_a_sleep,
    w9_a_task_waits_for_all_of_its_conditions,
    w9_tasks_are_skipped_by_the_outputs_of_parents,
    w9_waiting_tasks_are_skipped_and_cancelled_by_events,
    w9_one_of_several_parents_cancels_a_task,
}

/// Returns its input.
fn number(name: &str) -> Task<Number, i64> {
    Task::new(name, async |input: Number, _: Context| Ok(input.n))
}

/// Pushes an event until a run has ended: the engine notices only events after the tasks before the waiting one have ended.
async fn push_until_ended(setup: &Setup, key: &str, payload: &Value, run: &RunHandle<Value>) -> Outcome {
    loop {
        setup.hatchet.push(key, payload).send().await.unwrap();
        if let Ok(outcome) = timeout(Duration::from_millis(500), run.outcome()).await {
            return outcome.unwrap();
        }
    }
}

async fn status(run: &RunHandle<Value>, task: &str) -> RunStatus {
    run.details().await.unwrap().task(task).unwrap().status.clone()
}

async fn w2_outputs_of_parents_are_typed_and_skipped_ones_visible(setup: Setup) {
    #[derive(Clone, Serialize, Deserialize)]
    struct Checked {
        amount: i64,
    }
    let check = Task::new("check", async |input: Number, _: Context| Ok(Checked { amount: input.n }));
    let refund = number("refund").skip_if(Condition::parent(&check, "output.amount < 10"));
    let report = Task::new("report", {
        let (check, refund) = (check.clone(), refund.clone());
        move |_: Number, context: Context| {
            let (check, refund) = (check.clone(), refund.clone());
            async move {
                let checked = context.output_of(&check)?;
                let refunded: Option<i64> = context.output_unless_skipped(&refund)?;
                let by_name = context.parent_output::<Checked>("check")?.amount;
                let skipped = (context.was_skipped(&check)?, context.was_skipped("refund")?);
                if let Err(error) = context.output_of(&refund) {
                    assert_eq!(error.kind(), ErrorKind::NotFound);
                    assert_eq!(error.to_string(), "task \"refund\" was skipped, so it has no output");
                }
                Ok((checked.amount, by_name, refunded, skipped))
            }
        }
    });
    let flow = Workflow::<Number>::new(setup.name("flow"))
        .task(&check)
        .task_after(&refund, &check)
        .task_after(&report, (&check, &refund));
    let worker = setup.worker(&flow).await;
    let output = async |n| setup.hatchet.run(&flow, &Number { n }).result().await.unwrap()["report"].clone();
    assert_eq!(output(12).await, json!([12, 12, 12, [false, false]]));
    assert_eq!(output(5).await, json!([5, 5, null, [false, true]]));
    worker.shutdown().await;
}

async fn w2_a_task_that_is_not_a_parent_fails_without_a_retry(setup: Setup) {
    let stranger = number("stranger");
    let last: Task<Number, i64> = Task::new("last", {
        let stranger = stranger.clone();
        move |_: Number, context: Context| {
            let output = context.output_of(&stranger);
            async move { Ok(output?) }
        }
    })
    .retries(3);
    // It is a sibling of the parent: the engine passes its output on if it ends first.
    let flow =
        Workflow::<Number>::new(setup.name("flow")).task(&number("first")).task(&stranger).task_after(&last, "first");
    let worker = setup.worker(&flow).await;
    let run = setup.hatchet.run(&flow, &Number { n: 1 }).start().await.unwrap();
    let Outcome::Failed(failure) = run.outcome().await.unwrap() else { panic!() };
    let text = "task \"stranger\" is not a parent of task \"last\", or has no output";
    assert_eq!((failure.task_name.as_deref(), failure.message.as_deref()), (Some("last"), Some(text)));
    assert_eq!(run.details().await.unwrap().task("last").unwrap().attempts.len(), 1);
    worker.shutdown().await;
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Payment {
    amount: i64,
}

/// `second` returns the data of its conditions.
fn waiting(
    setup: &Setup,
    name: &str,
    change: impl FnOnce(Task<Number, Value>, &Task<Number, i64>) -> Task<Number, Value>,
) -> Workflow<Number> {
    let first = number("first");
    let second = Task::new("second", async |_: Number, context: Context| {
        let payment: Option<Payment> = context.condition_data("paid")?;
        let slept: Option<Value> = context.condition_data("nap")?;
        Ok(json!({"paid": payment, "slept": slept}))
    });
    let second = change(second, &first);
    let third = number("third");
    let flow = Workflow::<Number>::new(setup.name(name)).task(&first).task_after(&second, &first);
    flow.task_after(&third, &second)
}

async fn w9_a_task_waits_for_an_event_or_a_sleep(setup: Setup) {
    let key = setup.name("paid");
    let flow = |name: &str, nap: Duration| {
        waiting(&setup, name, |task, _| {
            let paid = Condition::event(&key).matching("input.amount > 5").named("paid");
            task.wait_for(paid.or(Condition::sleep(nap).named("nap")))
        })
    };
    let (short, long) = (flow("short", Duration::from_secs(2)), flow("long", Duration::from_secs(3600)));
    let worker = setup.hatchet.worker(setup.name("worker")).register(&short).register(&long).build().unwrap();
    let worker = worker.start().await.unwrap();
    let run = setup.hatchet.run(&short, &Number { n: 1 }).start().await.unwrap();
    assert_eq!(run.result().await.unwrap()["second"], json!({"paid": null, "slept": {"sleep_duration": "2s"}}));
    let details = run.details().await.unwrap();
    let time = |task: &str| details.task(task).unwrap().attempts[0].started_at.unwrap();
    assert!((time("second") - time("first")).num_milliseconds() >= 1900);

    let run = setup.hatchet.run(&long, &Number { n: 1 }).start().await.unwrap();
    // This event does not match.
    setup.hatchet.push(&key, &Payment { amount: 5 }).send().await.unwrap();
    let outcome = push_until_ended(&setup, &key, &json!({"amount": 7}), &run).await;
    assert!(matches!(outcome, Outcome::Completed(_)), "{outcome:?}");
    assert_eq!(run.result().await.unwrap()["second"], json!({"paid": {"amount": 7}, "slept": null}));
    worker.shutdown().await;
}

async fn w9_a_task_waits_for_all_of_its_conditions(setup: Setup) {
    let key = setup.name("paid");
    let flow = waiting(&setup, "flow", |task, first| {
        task.wait_for(Condition::event(&key).named("paid"))
            .wait_for(Condition::sleep(Duration::from_secs(2)).named("nap"))
            .wait_for(Condition::parent(first, "output._value == 1"))
    });
    let worker = setup.worker(&flow).await;
    let run = setup.hatchet.run(&flow, &Number { n: 1 }).start().await.unwrap();
    push_until_ended(&setup, &key, &json!({"amount": 1}), &run).await;
    let output = run.result().await.unwrap()["second"].clone();
    assert_eq!(output, json!({"paid": {"amount": 1}, "slept": {"sleep_duration": "2s"}}));
    worker.shutdown().await;
}

async fn w9_tasks_are_skipped_by_the_outputs_of_parents(setup: Setup) {
    let flow = waiting(&setup, "flow", |task, first| {
        task.skip_if(
            Condition::parent(first, "output._value > 10").or(Condition::parent("first", "output._value == 3")),
        )
    });
    let worker = setup.worker(&flow).await;
    for (n, is_skipped) in [(11, true), (3, true), (5, false)] {
        let run = setup.hatchet.run(&flow, &Number { n }).start().await.unwrap();
        let output = run.result().await.unwrap();
        // A task whose only parent was skipped is skipped, too.
        assert_eq!(output["second"] == json!({"skipped": true}), is_skipped, "{output}");
        assert_eq!(output["third"] == json!({"skipped": true}), is_skipped, "{output}");
        assert_eq!(status(&run, "second").await, RunStatus::Completed);
    }
    worker.shutdown().await;
}

async fn w9_waiting_tasks_are_skipped_and_cancelled_by_events(setup: Setup) {
    let (skip, stop) = (setup.name("skip"), setup.name("stop"));
    let flow = waiting(&setup, "flow", |task, _| {
        task.wait_for(Condition::sleep(Duration::from_secs(3600)))
            .skip_if(Condition::event(&skip))
            .cancel_if(Condition::event(&stop))
    });
    let worker = setup.worker(&flow).await;
    let run = setup.hatchet.run(&flow, &Number { n: 1 }).start().await.unwrap();
    push_until_ended(&setup, &skip, &json!({}), &run).await;
    assert_eq!(run.result().await.unwrap()["third"], json!({"skipped": true}));
    let run = setup.hatchet.run(&flow, &Number { n: 1 }).start().await.unwrap();
    let outcome = push_until_ended(&setup, &stop, &json!({}), &run).await;
    assert!(matches!(outcome, Outcome::Cancelled(_)), "{outcome:?}");
    assert_eq!(
        (status(&run, "first").await, status(&run, "third").await),
        (RunStatus::Completed, RunStatus::Cancelled)
    );
    worker.shutdown().await;
}

async fn w9_one_of_several_parents_cancels_a_task(setup: Setup) {
    let (left, right) = (number("left"), number("right"));
    let last = number("last").cancel_if(Condition::parent(&left, "output._value == 1"));
    let failing: Task<Number, i64> = Task::new("right", async |_: Number, _: Context| {
        sleep(Duration::from_millis(100)).await;
        Err(hatchet::TaskError::new("broken"))
    });
    let flow = |name: &str, right: &Task<Number, i64>| {
        Workflow::<Number>::new(setup.name(name)).task(&left).task(right).task_after(&last, (&left, right))
    };
    let (fine, broken) = (flow("fine", &right), flow("broken", &failing));
    let worker = setup.hatchet.worker(setup.name("worker")).register(&fine).register(&broken).build().unwrap();
    let worker = worker.start().await.unwrap();
    let run = setup.hatchet.run(&fine, &Number { n: 1 }).start().await.unwrap();
    assert!(matches!(run.outcome().await.unwrap(), Outcome::Cancelled(_)));
    assert_eq!(status(&run, "last").await, RunStatus::Cancelled);
    assert_eq!(setup.hatchet.run(&fine, &Number { n: 2 }).result().await.unwrap()["last"], json!(2));
    // The failure of the other parent still cancels it.
    let run = setup.hatchet.run(&broken, &Number { n: 2 }).start().await.unwrap();
    assert!(matches!(run.outcome().await.unwrap(), Outcome::Failed(_)));
    assert_eq!(status(&run, "last").await, RunStatus::Cancelled);
    worker.shutdown().await;
}
