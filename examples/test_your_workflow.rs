//! Tests a workflow with an engine on virtual time, and the function of one task alone.
//!
//! ```text
//! cargo run --example test_your_workflow
//! ```
//!
//! In a project, the functions are tests with `#[tokio::test(start_paused = true)]`, which needs the `test-util` feature of tokio.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;
use std::time::Duration;

use hatchet::testing::{Harness, call};
use hatchet::{Context, Task, TaskError, Workflow};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    items: u32,
}

/// What a program would have: two tasks, and a workflow.
struct Shop {
    reserve: Task<Order, u32>,
    ship: Task<Order, String>,
    flow: Workflow<Order>,
}

fn shop() -> Shop {
    let reserve = Task::new("reserve", async |order: Order, context: Context| match (order.items, context.attempt()) {
        (0, _) => Err(TaskError::non_retryable("there is nothing to reserve")),
        (_, 1 | 2) => Err(TaskError::new("the warehouse is closed")),
        (items, _) => Ok(items * 10),
    });
    let reserve = reserve.retries(5).backoff(60.0, Duration::from_secs(3600));
    let ship = Task::new("ship", async |_: Order, context: Context| {
        context.log("shipping");
        Ok(format!("from shelf {}", context.parent_output::<u32>("reserve")?))
    });
    let flow = Workflow::new("order").task(&reserve).task_after(&ship, &reserve);
    Shop { reserve, ship, flow }
}

async fn an_order_is_shipped_after_retries() -> hatchet::Result<()> {
    let shop = shop();
    let harness = Harness::start(&shop.flow).await?;
    let run = harness.run(&shop.flow, &Order { items: 3 }).start().await?;
    run.outcome().await?;
    let details = run.details().await?;
    let attempts: Vec<_> = details.tasks.iter().map(|task| (task.name.as_str(), task.attempts.len())).collect();
    assert_eq!(attempts, [("reserve", 3), ("ship", 1)]);
    assert!(details.elapsed().is_some_and(|elapsed| elapsed > Duration::from_secs(3600)), "an hour of virtual time");
    assert_eq!(harness.shutdown().await.to_string(), "attempts: 2 completed, 2 failed, 0 cancelled, 0 unfinished");
    Ok(())
}

async fn an_empty_order_is_rejected() -> hatchet::Result<()> {
    let record = call(&shop().reserve, &Order { items: 0 }).run().await?;
    assert!(record.result.is_err_and(|error| !error.is_retryable()));
    Ok(())
}

async fn shipping_names_the_shelf() -> hatchet::Result<()> {
    let record = call(&shop().ship, &Order { items: 3 }).parent("reserve", &30).run().await?;
    assert_eq!(record.result.ok().as_deref(), Some("from shelf 30"));
    assert_eq!(record.log.first().map(|line| line.message.as_str()), Some("shipping"));
    Ok(())
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn Error>> {
    an_order_is_shipped_after_retries().await?;
    an_empty_order_is_rejected().await?;
    shipping_names_the_shelf().await?;
    println!("3 tests passed");
    Ok(())
}
