//! Archives runs, lets the engine drop them, and queries the engine and the archive together.
//!
//! ```text
//! cargo run --example archive_and_query --features archive
//! ```
//!
//! The clock is virtual: 40 days pass in seconds. The engine drops runs after 30 days, and the archive is a directory of Parquet files.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;
use std::time::Duration;

use hatchet::archive::{Archive, History, Retention};
use hatchet::embedded::Engine;
use hatchet::model::Window;
use hatchet::{Context, RunFilter, RunStatus, Task, TaskError};
use serde::{Deserialize, Serialize};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Serialize, Deserialize)]
struct Order {
    number: u32,
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = Engine::builder().retention(30 * DAY).start().await?;
    let hatchet = engine.client();
    let ship = Task::new("ship", async |order: Order, _: Context| {
        if order.number.is_multiple_of(7) { Err(TaskError::new("out of stock")) } else { Ok(order.number) }
    });
    let worker = hatchet.worker("shipping").register(&ship).build()?.start().await?;

    let directory = std::env::temp_dir().join(format!("hatchet-archive-{}", std::process::id()));
    let archive = Archive::open(&directory.to_string_lossy())?;
    for day in 0..40 {
        for number in 0..5 {
            hatchet.run(&ship, &Order { number: day * 5 + number }).outcome().await?;
        }
        tokio::time::sleep(DAY).await;
        // In a service, `every` does this regularly; see docs/archive.md.
        let report = archive.collect(&hatchet, Retention::older_than(20 * DAY)).send().await?;
        if day % 10 == 9 {
            println!("day {}: {report}", day + 1);
        }
    }

    println!("the engine has {} runs", hatchet.runs(Window::all()).count().await?);
    println!("the archive has {} runs", archive.runs(Window::all()).count().await?);
    let failed = RunFilter::new(Window::all()).status(RunStatus::Failed);
    let history = History::new(&hatchet, &archive);
    let mut items = history.runs(failed).items();
    let (mut count, mut last) = (0, None);
    while let Some(run) = items.next().await.transpose()? {
        count += 1;
        last = Some(run.id);
    }
    println!("{count} runs have failed; the oldest of them:");
    if let Some(id) = last {
        println!("{}", history.details(id).await?);
    }
    println!("\nThe files are in {}. With DuckDB:\n", directory.display());
    println!(
        "  select status, count(*) from read_parquet('{}/runs/*/*/*.parquet') group by status",
        directory.display()
    );

    worker.shutdown().await;
    engine.shutdown().await;
    Ok(())
}
