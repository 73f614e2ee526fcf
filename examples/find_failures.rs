//! Lists the runs that failed in the last seven days, and can replay them.
//!
//! ```text
//! cargo run --example find_failures             # prints a table of the newest ones
//! cargo run --example find_failures -- replay   # also replays all of them
//! ```
//!
//! Without `HATCHET_CLIENT_TOKEN`, it uses an in-process engine in which half of the runs have failed.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use hatchet::embedded::Engine;
use hatchet::model::Window;
use hatchet::worker::RunningWorker;
use hatchet::{Client, Context, RunFilter, RunStatus, Task, TaskError};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order {
    number: u32,
}

/// A worker whose task fails for odd numbers until it is fixed, and some runs of it.
async fn start_runs(hatchet: &Client, is_fixed: &Arc<AtomicBool>) -> Result<RunningWorker, Box<dyn Error>> {
    let is_fixed = Arc::clone(is_fixed);
    let ship: Task<Order, u32> = Task::new("ship", move |order: Order, _: Context| {
        let works = order.number.is_multiple_of(2) || is_fixed.load(SeqCst);
        async move { if works { Ok(order.number) } else { Err(TaskError::new(format!("no stock for {}", order.number))) } }
    });
    let worker = hatchet.worker("shipping").register(&ship).build()?.start().await?;
    for run in hatchet.run_many(&ship, (1..=10).map(|number| Order { number })).start().await? {
        run?.outcome().await?;
    }
    Ok(worker)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let is_fixed = Arc::new(AtomicBool::new(false));
    let engine = if std::env::var_os("HATCHET_CLIENT_TOKEN").is_none() { Some(Engine::start().await?) } else { None };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;
    let worker = if engine.is_some() { Some(start_runs(&hatchet, &is_fixed).await?) } else { None };

    let week = Window::last(Duration::from_secs(7 * 24 * 3600));
    let failed = hatchet.runs(RunFilter::new(week).status(RunStatus::Failed).status(RunStatus::TimedOut));
    // One page and the total number: a week can have many runs. `failed.items()` is a stream of all of them.
    let page = failed.page(20).await?;
    println!("{:<36}  {:<20}  {:<9}  error", "run", "workflow", "status");
    for run in &page.items {
        let error = run.error.as_deref().unwrap_or_default();
        let workflow = run.workflow_name.as_deref().unwrap_or_default();
        println!("{}  {workflow:<20}  {:<9}  {error}", run.id, run.status);
    }
    println!("the newest {} of {}", page.items.len(), page.total);

    if std::env::args().nth(1).as_deref() == Some("replay") {
        is_fixed.store(true, SeqCst);
        let report = failed.replay().send().await?;
        println!("{report}");
    }
    if let Some(worker) = worker {
        worker.shutdown().await;
    }
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    Ok(())
}
