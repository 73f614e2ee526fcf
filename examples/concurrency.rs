//! Limits how many runs of each tenant run at the same time.
//!
//! ```text
//! cargo run --example concurrency
//! ```
//!
//! With `GroupRoundRobin`, the other runs wait. With `CancelInProgress`, a new run cancels the previous one. If
//! `HATCHET_CLIENT_TOKEN` is set, the example runs against a real Hatchet server.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;
use std::time::Duration;

use hatchet::embedded::Engine;
use hatchet::workflow::{Concurrency, ConcurrencyStrategy};
use hatchet::{Client, Context, Task};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

#[derive(Serialize, Deserialize)]
struct Report {
    tenant: String,
    number: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = if std::env::var_os("HATCHET_CLIENT_TOKEN").is_none() { Some(Engine::start().await?) } else { None };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;

    let render = |name: &str, strategy| {
        Task::new(name, async |report: Report, _: Context| {
            sleep(Duration::from_millis(300)).await;
            Ok(report.number)
        })
        .concurrency(Concurrency::new("input.tenant", strategy).max_runs(1))
    };
    let waiting = render("example-render-all", ConcurrencyStrategy::GroupRoundRobin);
    let newest = render("example-render-newest", ConcurrencyStrategy::CancelInProgress);
    let worker = hatchet.worker("reports").register(&waiting).register(&newest).build()?.start().await?;

    for task in [&waiting, &newest] {
        println!("{}:", task.name());
        let (start, mut runs) = (Instant::now(), Vec::new());
        for (tenant, number) in [("acme", 1), ("acme", 2), ("other", 3), ("acme", 4)] {
            runs.push((tenant, hatchet.run(task, &Report { tenant: tenant.into(), number }).start().await?));
            sleep(Duration::from_millis(50)).await;
        }
        for (tenant, run) in runs {
            let outcome = run.outcome().await?;
            println!("  {tenant}: the run {outcome} after {:.1} s", start.elapsed().as_secs_f64());
        }
    }

    worker.shutdown().await;
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    Ok(())
}
