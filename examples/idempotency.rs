//! Allows only one run per key, so that a start request whose response was lost can be retried.
//!
//! ```text
//! cargo run --example idempotency
//! ```
//!
//! An injected fault loses the response to the first request, so this example needs the embedded engine.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;
use std::time::Duration;

use hatchet::embedded::{Engine, Fault};
use hatchet::model::Idempotency;
use hatchet::{Context, Task};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order {
    id: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = Engine::start().await?;
    let hatchet = engine.client();
    let day = Duration::from_secs(24 * 3600);
    let charge = Task::new("charge", async |order: Order, _: Context| Ok(format!("charged {}", order.id)))
        .idempotency(Idempotency::for_time("'charge:' + input.id", day));
    let worker = hatchet.worker("payments").register(&charge).build()?.start().await?;
    let order = Order { id: "o-1".into() };

    engine.faults().inject("TriggerWorkflow", Fault::LoseResponse)?;
    let lost = hatchet.run(&charge, &order).start().await;
    if let Err(error) = &lost {
        println!("first request: {error}; no side effects: {}", error.has_no_side_effects());
    }

    let second = hatchet.run(&charge, &order).start().await;
    if let Err(error) = &second {
        println!("second request: {error}; its run: {:?}", error.existing_run_id());
    }

    // The run that has the key, whichever request started it.
    let run = hatchet.run(&charge, &order).start_or_existing().await?;
    println!("{}; runs in the engine: {}", run.result().await?, engine.run_count().await);

    worker.shutdown().await;
    engine.shutdown().await;
    Ok(())
}
