//! Shows two progress bars, for started and ended runs, and then prints the sum of the results.
//!
//! ```text
//! cargo run --example live_progress
//! ```
//!
//! If `HATCHET_CLIENT_TOKEN` is set, the example runs against a real Hatchet server.

#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;
use std::time::Duration;

use hatchet::embedded::Engine;
use hatchet::model::ChangeKind;
use hatchet::{Client, Context, RunStatus, Task};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

const RUNS: u64 = 200;

#[derive(Serialize, Deserialize)]
struct Number {
    n: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = if std::env::var_os("HATCHET_CLIENT_TOKEN").is_none() { Some(Engine::start().await?) } else { None };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;

    let square = Task::new("example-square", async |Number { n }: Number, _: Context| {
        tokio::time::sleep(Duration::from_millis(100 + n % 7 * 50)).await;
        Ok(n * n)
    });
    let worker = hatchet.worker("squares").slots(20).register(&square).build()?.start().await?;
    let runs = hatchet.run_many(&square, (1..=RUNS).map(|n| Number { n })).start().await?;
    let runs = runs.into_iter().collect::<hatchet::Result<Vec<_>>>()?;

    let style = ProgressStyle::with_template("{msg:8} {wide_bar} {pos}/{len}")?;
    let bars = MultiProgress::new();
    let bar = |text| bars.add(ProgressBar::new(RUNS).with_style(style.clone()).with_message(text));
    let (started, ended) = (bar("started"), bar("ended"));

    // One stream for all runs. They share the requests that show which of them have started.
    let mut changes = hatchet.watch_many(&runs).only(ChangeKind::Run);
    while let Some(change) = changes.next().await.transpose()? {
        started.inc(change.has_status(&RunStatus::Running).into());
        ended.inc(change.is_final().into());
    }
    bars.clear()?;

    // The results, each with the id of its run, in the order in which the runs end.
    let (mut results, mut sum) = (hatchet.results(&runs), 0);
    while let Some((_, result)) = results.next().await {
        sum += result?;
    }
    println!("{RUNS} runs, the sum of the squares is {sum}");

    worker.shutdown().await;
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    Ok(())
}
