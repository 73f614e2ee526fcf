//! Passes typed outputs from task to task, and skips a task.
//!
//! ```text
//! cargo run --example dag
//! ```
//!
//! `refund` is skipped for small amounts, `report` checks whether it was skipped, and `archive` runs when all others have completed. If
//! `HATCHET_CLIENT_TOKEN` is set, the example runs against a real Hatchet server.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;

use hatchet::embedded::Engine;
use hatchet::workflow::Condition;
use hatchet::{Client, Context, Task, Workflow};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Claim {
    customer: String,
    amount: f64,
}

/// The output of `check`.
#[derive(Serialize, Deserialize)]
struct Checked {
    amount: f64,
}

/// The output of a run: the outputs of the tasks by task name.
#[derive(Deserialize)]
struct Outputs {
    report: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = if std::env::var_os("HATCHET_CLIENT_TOKEN").is_none() { Some(Engine::start().await?) } else { None };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;

    let check = Task::new("check", async |claim: Claim, _: Context| Ok(Checked { amount: claim.amount.round() }));
    let refund = Task::with_state("refund", check.clone(), async |check, claim: Claim, context: Context| {
        // The type of the output is known. Reading the output of a task that is not a parent fails the task without a retry.
        let checked = context.output_of(&check)?;
        Ok(format!("{} for {}", checked.amount, claim.customer))
    })
    .skip_if(Condition::parent(&check, "output.amount < 10.0"));
    let report = Task::with_state("report", refund.clone(), async |refund, claim: Claim, context: Context| {
        let refunded = context.output_unless_skipped(&refund)?;
        Ok(refunded.unwrap_or_else(|| format!("nothing for {}", claim.customer)))
    });
    let archive = Task::new("archive", async |claim: Claim, _: Context| {
        println!("archived the claim of {}", claim.customer);
        Ok(())
    });
    let workflow = Workflow::new("example-claim")
        .task(&check)
        .task_after(&refund, &check)
        .task_after(&report, (&check, &refund))
        .on_success(&archive)
        .typed::<Outputs>();
    let worker = hatchet.worker("claims").register(&workflow).build()?.start().await?;

    for (customer, amount) in [("Ada", 120.4), ("Bob", 3.2)] {
        let outputs = hatchet.run(&workflow, &Claim { customer: customer.into(), amount }).result().await?;
        println!("{}", outputs.report);
    }

    worker.shutdown().await;
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    Ok(())
}
