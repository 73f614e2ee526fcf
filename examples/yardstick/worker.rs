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
    stop_signal().await?;
    println!("{}", running.shutdown().await);
    Ok(())
}

/// Resolves at Ctrl-C or, on Unix, at `SIGTERM`.
async fn stop_signal() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminated.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
