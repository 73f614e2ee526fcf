//! Retries, errors that are not retried, panics and timeouts, and how each of them ends a run.
//!
//! ```text
//! cargo run --example errors_and_retries
//! ```
//!
//! If `HATCHET_CLIENT_TOKEN` is set, the example runs against a real Hatchet server.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;
use std::time::Duration;

use hatchet::embedded::Engine;
use hatchet::{Client, Context, ErrorKind, Task, TaskError};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Job {
    problem: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = if std::env::var_os("HATCHET_CLIENT_TOKEN").is_none() { Some(Engine::start().await?) } else { None };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;
    let work = Task::new("errors-work", async |job: Job, context: Context| {
        match job.problem.as_str() {
            "once" if context.attempt() > 1 => Ok(context.attempt()),
            "input" => Err(TaskError::non_retryable("the input is wrong, and will be wrong in each attempt")),
            "panic" => panic_with(&job.problem),
            "hang" => std::future::pending().await,
            number => Ok(number.parse::<u32>()?), // any error converts with `?`
        }
    })
    .retries(2)
    .timeout(Duration::from_secs(1));
    let worker = hatchet.worker("errors").register(&work).build()?.start().await?;

    for problem in ["once", "7", "input", "panic", "hang"] {
        let run = hatchet.run(&work, &Job { problem: problem.into() }).start().await?;
        match run.result().await {
            Ok(output) => print!("{problem:5}  output {output}"),
            // The run ended without an output. `Error::outcome` has the same information as `RunHandle::outcome`.
            Err(error) if error.kind() == ErrorKind::RunFailed => match error.outcome() {
                Some(outcome) => print!("{problem:5}  {outcome}"),
                None => print!("{problem:5}  {error}"),
            },
            // The outcome is not known. The run is not affected.
            Err(error) => return Err(error.into()),
        }
        println!("; attempts: {}", run.details().await?.attempt());
    }

    worker.shutdown().await;
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    Ok(())
}

#[expect(clippy::panic, reason = "a panic of a task fails its attempt, and not the worker")]
fn panic_with(text: &str) -> Result<u32, TaskError> {
    panic!("a {text} in the task")
}
