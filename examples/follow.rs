//! Follows a run: its status changes, its outcome, and its details.
//!
//! ```text
//! cargo run --example follow
//! ```
//!
//! The first attempt fails and is retried: a failed attempt is not the end of the run. If `HATCHET_CLIENT_TOKEN` is set, the example
//! runs against a real Hatchet server.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;
use std::time::Duration;

use hatchet::embedded::Engine;
use hatchet::{Client, Context, Outcome, Task, TaskError};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = if std::env::var_os("HATCHET_CLIENT_TOKEN").is_none() { Some(Engine::start().await?) } else { None };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;
    let report = Task::new("follow-report", async |(): (), context: Context| {
        sleep(Duration::from_millis(300)).await;
        if context.attempt() == 1 { Err(TaskError::new("the database is busy")) } else { Ok("42 pages".to_owned()) }
    })
    .retries(1);
    let worker = hatchet.worker("reports").register(&report).build()?.start().await?;

    let run = hatchet.run(&report, &()).metadata("tenant", "acme").start().await?;
    let mut changes = run.watch();
    while let Some(change) = changes.next().await {
        let change = change?;
        println!("{change} {}", change.error().unwrap_or_default());
    }

    match run.outcome().await? {
        Outcome::Completed(completed) => println!("output: {}", completed.output.parse::<String>()?),
        other => println!("the run {other}"), // failed, was cancelled or timed out
    }

    let details = run.details().await?;
    println!("{details}"); // a tree of the tasks, each with a bar on one time axis
    println!("queued for {:?}, ran for {:?}", details.queued_for(), details.ran_for());

    worker.shutdown().await;
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    Ok(())
}
