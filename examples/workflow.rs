//! Runs a workflow with several tasks, once successfully and once with a failure.
//!
//! ```text
//! cargo run --example workflow
//! ```
//!
//! `ship` starts when `reserve` and `charge` have completed, and reads the output of `reserve`. `apologize` runs if another task
//! fails. If `HATCHET_CLIENT_TOKEN` is set, the example runs against a real Hatchet server.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;
use std::time::Duration;

use hatchet::embedded::Engine;
use hatchet::{Client, Context, Task, TaskError, Workflow};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

#[derive(Serialize, Deserialize)]
struct Order {
    id: String,
    card: String,
}

/// The output of a run: the outputs of the tasks by task name.
#[derive(Deserialize)]
struct Shipped {
    charge: f64,
    ship: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = if std::env::var_os("HATCHET_CLIENT_TOKEN").is_none() { Some(Engine::start().await?) } else { None };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;

    let reserve = Task::new("reserve", async |_: Order, _: Context| {
        sleep(Duration::from_millis(80)).await;
        Ok("shelf 7".to_owned())
    });
    let charge = Task::new("charge", async |order: Order, _: Context| {
        sleep(Duration::from_millis(120)).await;
        if order.card == "expired" { Err(TaskError::non_retryable("the card has expired")) } else { Ok(12.5) }
    })
    .retries(2);
    let ship = Task::new("ship", async |order: Order, context: Context| {
        let shelf: String = context.parent_output("reserve")?;
        sleep(Duration::from_millis(60)).await;
        Ok(format!("order {} from {shelf}", order.id))
    });
    let apologize = Task::new("apologize", async |order: Order, context: Context| {
        println!("order {}: {:?}", order.id, context.errors()?);
        Ok(())
    });
    let workflow = Workflow::new("example-order")
        .task(&reserve)
        .task(&charge)
        .task_after(&ship, ["reserve", "charge"])
        .on_failure(&apologize)
        .typed::<Shipped>();
    let worker = hatchet.worker("orders").register(&workflow).build()?.start().await?;

    let run = hatchet.run(&workflow, &Order { id: "1".into(), card: "valid".into() }).start().await?;
    let shipped = run.result().await?;
    println!("{}, charged {}", shipped.ship, shipped.charge);
    // A tree of the tasks, each with a bar on one time axis: `·` while it was queued, `█` while it ran.
    println!("{}", run.details().await?);

    let run = hatchet.run(&workflow, &Order { id: "2".into(), card: "expired".into() }).start().await?;
    println!("the run {}", run.outcome().await?);
    println!("{}", run.details().await?);

    worker.shutdown().await;
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    Ok(())
}
