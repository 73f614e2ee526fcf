//! A task whose function gets the inputs of several runs at once.
//!
//! ```text
//! cargo run --example batch
//! ```
//!
//! If `HATCHET_CLIENT_TOKEN` is set, the example runs against a real Hatchet server.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;
use std::time::Duration;

use hatchet::embedded::Engine;
use hatchet::workflow::{BatchItem, BatchOptions};
use hatchet::{Client, Task, TaskError};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Row {
    id: u32,
    text: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = if std::env::var_os("HATCHET_CLIENT_TOKEN").is_none() { Some(Engine::start().await?) } else { None };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;

    // Up to four rows at once. A row waits for at most half a second for others.
    let options = BatchOptions::new(4).max_interval(Duration::from_millis(500));
    let insert = Task::batch("example-insert", options, async |items: Vec<BatchItem<Row>>| {
        println!("insert {} rows", items.len());
        let result = |item: &BatchItem<Row>| match item.input.text.as_str() {
            "" => Err(TaskError::non_retryable("expected a non-empty string, got an empty one")),
            _ => Ok(item.input.id),
        };
        Ok(items.iter().map(result).collect())
    });
    let worker = hatchet.worker("inserter").register(&insert).build()?.start().await?;

    let texts = ["one", "two", "", "four", "five", "six"];
    let rows = (1..).zip(texts).map(|(id, text)| Row { id, text: text.into() });
    for result in hatchet.run_many(&insert, rows).results().await? {
        match result {
            Ok(id) => println!("row {id} is stored"),
            Err(error) => println!("{error}"),
        }
    }

    worker.shutdown().await;
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    Ok(())
}
