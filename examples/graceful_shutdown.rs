//! Shuts a worker down without losing work.
//!
//! ```text
//! cargo run --example graceful_shutdown   # then press Ctrl-C, or send SIGTERM
//! ```
//!
//! On Ctrl-C or SIGTERM, the worker accepts no new attempts, waits for running attempts until the grace period is over, and prints a
//! report. A second signal stops it immediately. If `HATCHET_CLIENT_TOKEN` is set, the example runs against a real Hatchet server.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;
use std::time::Duration;

use hatchet::embedded::Engine;
use hatchet::{Client, Context, Task};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

#[derive(Serialize, Deserialize)]
struct Nap {
    seconds: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = if std::env::var_os("HATCHET_CLIENT_TOKEN").is_none() { Some(Engine::start().await?) } else { None };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;
    let nap = Task::new("graceful-nap", async |nap: Nap, _: Context| {
        sleep(Duration::from_secs(nap.seconds)).await;
        Ok(nap.seconds)
    });
    let worker =
        hatchet.worker("napper").register(&nap).shutdown_grace_period(Duration::from_secs(10)).build()?.start().await?;
    hatchet.run_many(&nap, (1..=20).map(|seconds| Nap { seconds })).start().await?;

    println!("started 20 naps of 1 to 20 seconds; Ctrl-C or SIGTERM shuts the worker down, a second signal ends it");
    let mut statuses = worker.statuses();
    tokio::spawn(async move {
        while let Some(status) = statuses.next().await {
            println!("{}: {} running, {} queued", status.state, status.running, status.queued);
        }
    });
    let report = worker.run_until_signal().await?;
    println!("{report}");
    for attempt in &report.unfinished_attempts {
        println!("  run {} will be assigned to another worker", attempt.run_id);
    }
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    Ok(())
}
