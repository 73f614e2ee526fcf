//! Prints the chunks that a task sends while it runs, such as the tokens of a language model.
//!
//! ```text
//! cargo run --example stream_tokens
//! ```
//!
//! If `HATCHET_CLIENT_TOKEN` is set, the example runs against a real Hatchet server.

#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;
use std::io::Write as _;
use std::time::Duration;

use hatchet::embedded::Engine;
use hatchet::model::ChunkItem;
use hatchet::{Client, Context, Task};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Prompt {
    text: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = if std::env::var_os("HATCHET_CLIENT_TOKEN").is_none() { Some(Engine::start().await?) } else { None };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;

    let answer = Task::new("example-answer", async |prompt: Prompt, context: Context| {
        let reply = format!("You asked: {} The answer is that it depends.", prompt.text);
        for token in reply.split_inclusive(' ') {
            context.put(token).await?;
            tokio::time::sleep(Duration::from_millis(80)).await;
        }
        Ok(reply.len())
    });
    let worker = hatchet.worker("answers").register(&answer).build()?.start().await?;

    // The client subscribes before it starts the run, so no chunk is missed.
    let mut chunks = hatchet.run(&answer, &Prompt { text: "To be, or not to be?".into() }).chunks();
    while let Some(item) = chunks.next().await.transpose()? {
        match item {
            ChunkItem::Chunk(chunk) => print!("{chunk}"),
            // The engine does not store chunks, and can lose some of them.
            ChunkItem::Gap(gap) => print!("[{gap}]"),
            // A later attempt sends its chunks from the start.
            ChunkItem::Restart(_) => println!("[retried]"),
            // The subscription was lost for a moment, or the stream was read too slowly, and nothing shows whether a chunk is missing.
            ChunkItem::Interrupted => print!("[chunks may be missing]"),
            _ => {}
        }
        std::io::stdout().flush()?;
    }
    println!();
    if let Some(status) = chunks.status() {
        println!("{status}, {} chunks were dropped", chunks.dropped_chunks());
    }

    worker.shutdown().await;
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    Ok(())
}
