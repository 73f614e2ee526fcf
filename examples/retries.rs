//! Retries a task with a growing delay, and shows when its attempts started.
//!
//! ```text
//! cargo run --example retries
//! ```
//!
//! If `HATCHET_CLIENT_TOKEN` is set, the example runs against a real Hatchet server, which may start a delayed retry up to
//! 40 seconds late.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;
use std::time::Duration;

use hatchet::embedded::Engine;
use hatchet::workflow::TaskDefaults;
use hatchet::{Client, Context, Task, TaskError, Workflow};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Page {
    url: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = if std::env::var_os("HATCHET_CLIENT_TOKEN").is_none() { Some(Engine::start().await?) } else { None };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;

    let fetch = Task::new("fetch", async |page: Page, context: Context| {
        if page.url.is_empty() {
            return Err(TaskError::non_retryable("there is no URL")); // the next attempt would fail, too
        }
        if context.attempt() < 4 {
            return Err(TaskError::new("the server is busy"));
        }
        Ok(page.url.len())
    });
    // These options apply to all tasks of the workflow that do not set them. The delays are 1.5, 2 and 2 seconds.
    let defaults = TaskDefaults::new().retries(5).backoff(1.5, Duration::from_secs(2)).timeout(Duration::from_secs(30));
    let workflow = Workflow::<Page>::new("example-retries").task(&fetch).task_defaults(defaults);
    let worker = hatchet.worker("crawler").register(&workflow).build()?.start().await?;

    for url in ["https://example.org", ""] {
        let run = hatchet.run(&workflow, &Page { url: url.into() }).start().await?;
        println!("{url:?}: the run {}", run.outcome().await?);
        for attempt in run.details().await?.tasks.iter().flat_map(|task| &task.attempts) {
            println!("  attempt {} started at {:?}: {:?}", attempt.number, attempt.started_at, attempt.error);
        }
    }

    worker.shutdown().await;
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    Ok(())
}
