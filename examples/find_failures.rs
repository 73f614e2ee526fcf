//! Which runs failed in the last seven days? And run them again.
//!
//! ```text
//! cargo run --example find_failures             # a table of them
//! cargo run --example find_failures -- replay   # and a replay of all of them
//! ```
//!
//! Without `HATCHET_CLIENT_TOKEN`, an engine in process plays a week in which half of the runs failed.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use hatchet::embedded::Engine;
use hatchet::{Client, Context, RunFilter, RunStatus, RunningWorker, Task, TaskError, Window};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order {
    number: u32,
}

/// A worker whose task fails for odd numbers until it is mended, and some runs of it.
async fn play(hatchet: &Client, mended: &Arc<AtomicBool>) -> Result<RunningWorker, Box<dyn Error>> {
    let mended = Arc::clone(mended);
    let ship: Task<Order, u32> = Task::new("ship", move |order: Order, _: Context| {
        let fine = order.number.is_multiple_of(2) || mended.load(SeqCst);
        async move { if fine { Ok(order.number) } else { Err(TaskError::new(format!("no stock for {}", order.number))) } }
    });
    let worker = hatchet.worker("shipping").register(&ship).build()?.start().await?;
    for run in hatchet.run_many(&ship, (1..=10).map(|number| Order { number })).start().await? {
        run?.outcome().await?;
    }
    Ok(worker)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (engine, mended) = (Engine::start().await?, Arc::new(AtomicBool::new(false)));
    let (hatchet, worker) = if std::env::var_os("HATCHET_CLIENT_TOKEN").is_some() {
        (Client::from_env()?, None)
    } else {
        (engine.client(), Some(play(&engine.client(), &mended).await?))
    };

    let week = Window::last(Duration::from_secs(7 * 24 * 3600));
    let failed = hatchet.runs(RunFilter::new(week).status(RunStatus::Failed).status(RunStatus::TimedOut));
    println!("{:<36}  {:<20}  {:<9}  error", "run", "workflow", "status");
    let mut runs = failed.items();
    while let Some(run) = runs.next().await {
        let run = run?;
        let error = run.error.as_deref().unwrap_or_default();
        println!("{}  {:<20}  {:<9}  {error}", run.id, run.workflow_name, run.status);
    }

    if std::env::args().nth(1).as_deref() == Some("replay") {
        mended.store(true, SeqCst);
        let report = failed.replay().send().await?;
        println!("replayed: {report}");
    }
    if let Some(worker) = worker {
        worker.shutdown().await;
    }
    engine.shutdown().await;
    Ok(())
}
