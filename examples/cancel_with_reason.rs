//! Cancels runs with a reason.
//!
//! ```text
//! cargo run --example cancel_with_reason
//! ```
//!
//! The reason is written to the log of the run's tasks: the dashboard shows it, and the run's details contain it. If
//! `HATCHET_CLIENT_TOKEN` is set, the example runs against a real Hatchet server.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::time::Duration;

use hatchet::embedded::Engine;
use hatchet::model::Window;
use hatchet::{Client, Context, ErrorKind, RunFilter, RunStatus, Task};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engine = if std::env::var_os("HATCHET_CLIENT_TOKEN").is_none() { Some(Engine::start().await?) } else { None };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;
    let import: Task<(), ()> = Task::new("cancel-import", async |(): (), context: Context| {
        context.cancelled().await; // clean up here
        Ok(())
    });
    let worker = hatchet.worker("imports").register(&import).build()?.start().await?;

    // One run.
    let run = hatchet.run(&import, &()).start().await?;
    let mut watch = run.watch();
    while watch.next().await.transpose()?.is_some_and(|change| !change.has_status(&RunStatus::Running)) {}
    let report = run.cancel().reason("the customer asked").by("ada").send().await?;
    println!("run {report}");
    if let Some(request) = run.details().await?.cancellation() {
        let (reason, by) = (request.reason.as_deref().unwrap_or_default(), request.by.as_deref().unwrap_or_default());
        println!("  reason {reason:?}, by {by:?}, at {}", request.requested_at);
    }

    // A run that has ended is not cancelled.
    match run.cancel().send().await {
        Err(error) if error.kind() == ErrorKind::RunState => println!("  again: {error}"),
        other => println!("  again: {other:?}"),
    }

    // All runs that match a filter.
    let batch = run.id().to_string();
    let runs = hatchet.run_many(&import, std::iter::repeat_n((), 250)).metadata("batch", &batch).start().await?;
    println!("{} more were started", runs.iter().filter(|run| run.is_ok()).count());
    let hour = Window::last(Duration::from_secs(3600));
    let all = hatchet.runs(RunFilter::new(hour).workflow("cancel-import").metadata("batch", &batch));
    // The server's list lags behind the start of the runs.
    while all.counts_by_status().await?.total() < 250 {
        sleep(Duration::from_millis(100)).await;
    }
    let mut reports = all.cancel().reason("bad deploy").by("ada").reports();
    let mut done = 0;
    while let Some(report) = reports.next().await {
        done += u32::from(report?.is_applied());
        if done % 100 == 0 {
            println!("  {done} cancelled so far");
        }
    }
    println!("{done} cancelled");

    println!("{}", worker.shutdown().await);
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    Ok(())
}
