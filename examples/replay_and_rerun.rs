//! Executes a failed run again: as a new attempt of the same run, and as a new run.
//!
//! ```text
//! cargo run --example replay_and_rerun
//! ```
//!
//! If `HATCHET_CLIENT_TOKEN` is set, the example runs against a real Hatchet server.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use hatchet::embedded::Engine;
use hatchet::{Client, Context, Task, TaskError};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Invoice {
    number: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = if std::env::var_os("HATCHET_CLIENT_TOKEN").is_none() { Some(Engine::start().await?) } else { None };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;
    let printer_works = Arc::new(AtomicBool::new(false));
    let print: Task<Invoice, String> = Task::new("replay-print", {
        let printer_works = Arc::clone(&printer_works);
        move |invoice: Invoice, _: Context| {
            let works = printer_works.load(SeqCst);
            async move {
                if works { Ok(format!("invoice {}", invoice.number)) } else { Err(TaskError::new("out of paper")) }
            }
        }
    });
    let worker = hatchet.worker("printer").register(&print).build()?.start().await?;

    let run = hatchet.run(&print, &Invoice { number: 1 }).metadata("customer", "acme").start().await?;
    println!("run {} {}", run.id(), run.outcome().await?);
    printer_works.store(true, SeqCst);

    // A new attempt of the same run. The handle in the response waits for the end of that attempt.
    let replayed = run.replay().send().await?;
    println!("attempt {} prints {:?}", replayed.attempt, replayed.run.result().await?);

    println!("{}", run.details().await?);

    // A new run with the input and the metadata of the original, here with another input.
    let rerun = run.rerun().input(&Invoice { number: 2 }).metadata("why", "wrong number").start().await?;
    println!("run {} prints {:?}", rerun.id(), rerun.result().await?);
    let details = rerun.details().await?;
    if let Some(original) = details.original_run_id() {
        println!("it is a rerun of run {original}, with the metadata {:?}", details.metadata);
    }

    worker.shutdown().await;
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    Ok(())
}
