//! What the crate reports about itself: spans, events, metrics, logs of tasks, health.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

mod documentation;
mod events;
#[path = "../support/files.rs"]
mod files;
mod metrics;
#[path = "../support/observing.rs"]
mod observing;
mod task_logs;
mod traces;

use std::time::Duration;

use hatchet::worker::RunningWorker;
use hatchet::{Client, Context, Task, TaskError};

const SECOND: Duration = Duration::from_secs(1);

fn flaky() -> Task<(), u32> {
    Task::new("flaky", async |(): (), context: Context| match context.attempt() {
        1 => Err(TaskError::new("it broke")),
        attempt => Ok(attempt),
    })
    .retries(1)
}

async fn start(hatchet: &Client, task: &Task<(), u32>) -> RunningWorker {
    hatchet.worker("observed").register(task).build().unwrap().start().await.unwrap()
}
