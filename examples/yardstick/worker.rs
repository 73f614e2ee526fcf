//! The worker, and the task that all runs execute.

use std::error::Error;
use std::time::Duration;

use hatchet::{Client, Context, Task};

use super::{Input, Output, WORKFLOW};

pub(super) async fn run(hatchet: &Client) -> Result<(), Box<dyn Error>> {
    let noop = Task::new(WORKFLOW, async |input: Input, _: Context| {
        if let Some(sleep_ms) = input.sleep_ms {
            tokio::time::sleep(Duration::from_millis(sleep_ms)).await;
        }
        Ok(Output { ok: true })
    });
    let starting = hatchet.worker("yardstick").slots(100).register(&noop).build()?.start();
    // Boxed, because this future is large.
    let running = Box::pin(starting).await?;
    println!("worker {} is ready", running.id());
    println!("{}", running.run_until_signal().await?);
    Ok(())
}
