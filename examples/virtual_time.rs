//! Runs a day of timeouts and crons in less than a second.
//!
//! ```text
//! cargo run --example virtual_time
//! ```
//!
//! The clock of the runtime is paused, as in a test with `#[tokio::test(start_paused = true)]`. This needs the `test-util` feature of
//! tokio. Time advances whenever all tasks wait for timers.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;
use std::time::{Duration, Instant};

use hatchet::embedded::Engine;
use hatchet::model::Window;
use hatchet::{Context, Task};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn Error>> {
    #[expect(clippy::disallowed_methods, reason = "the duration in real time is measured")]
    let started = Instant::now();
    let engine = Engine::builder().start_time("2028-02-29T00:00:00Z".parse()?).start().await?;
    let hatchet = engine.client();

    let slow: Task<(), ()> =
        Task::new("slow", async |(): (), _: Context| std::future::pending().await).timeout(Duration::from_secs(3600));
    let hourly = Task::new("hourly", async |(): (), _: Context| Ok(())).cron("0 * * * *");
    let worker = hatchet.worker("w").register(&slow).register(&hourly).build()?.start().await?;

    let outcome = hatchet.run(&slow, &()).outcome().await?;
    println!("{}: the run {outcome}", engine.now());
    tokio::time::sleep(DAY).await;
    let runs = hatchet.runs(Window::all()).counts_by_status().await?;
    println!("{}: {runs}", engine.now());

    worker.shutdown().await;
    engine.shutdown().await;
    println!("took {} ms of real time", started.elapsed().as_millis());
    Ok(())
}
