//! Waits for an event inside a workflow, with a time limit.
//!
//! ```text
//! cargo run --example conditions
//! ```
//!
//! `ship` starts when the event `example:paid` arrives, or after two seconds. The event `example:fraud` cancels it. If
//! `HATCHET_CLIENT_TOKEN` is set, the example runs against a real Hatchet server.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;
use std::time::Duration;

use hatchet::embedded::Engine;
use hatchet::workflow::Condition;
use hatchet::{Client, Context, Task, Workflow};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::sleep;

#[derive(Serialize, Deserialize)]
struct Order {
    id: String,
}

#[derive(Deserialize)]
struct Payment {
    amount: f64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = if std::env::var_os("HATCHET_CLIENT_TOKEN").is_none() { Some(Engine::start().await?) } else { None };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;

    let reserve = Task::new("reserve", async |order: Order, _: Context| Ok(format!("shelf for {}", order.id)));
    let paid = Condition::event("example:paid").matching("input.amount > 5.0").named("paid");
    let ship = Task::new("ship", async |order: Order, context: Context| {
        // The data of the alternative that was satisfied.
        let payment: Option<Payment> = context.condition_data("paid")?;
        Ok(match payment {
            Some(payment) => format!("order {} is paid with {}", order.id, payment.amount),
            None => format!("order {} is shipped on account", order.id),
        })
    })
    .wait_for(paid.or(Condition::sleep(Duration::from_secs(2))))
    .cancel_if(Condition::event("example:fraud"));
    let workflow = Workflow::<Order>::new("example-order").task(&reserve).task_after(&ship, &reserve);
    let worker = hatchet.worker("orders").register(&workflow).build()?.start().await?;

    let events = [Some(("example:paid", json!({"amount": 12.5}))), None, Some(("example:fraud", json!({})))];
    for (id, event) in ["1", "2", "3"].into_iter().zip(events) {
        let run = hatchet.run(&workflow, &Order { id: id.into() }).start().await?;
        // An event counts only if it is pushed after `reserve` has completed.
        sleep(Duration::from_millis(500)).await;
        if let Some((key, payload)) = event {
            hatchet.push(key, &payload).send().await?;
        }
        println!("the run {}", run.outcome().await?);
        if let Some(output) = run.details().await?.task("ship").and_then(|task| task.output()) {
            println!("  {}", output.parse::<String>()?);
        }
    }

    worker.shutdown().await;
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    Ok(())
}
