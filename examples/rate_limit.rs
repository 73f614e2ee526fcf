//! Limits how often tasks run: by a limit that all of them share, and by a limit for each user.
//!
//! ```text
//! cargo run --example rate_limit
//! ```
//!
//! If `HATCHET_CLIENT_TOKEN` is set, the example runs against a real Hatchet server.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;
use std::time::Duration;

use hatchet::embedded::Engine;
use hatchet::model::RateLimitWindow;
use hatchet::workflow::RateLimit;
use hatchet::{Client, Context, Task};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

#[derive(Serialize, Deserialize)]
struct Prompt {
    user: String,
    tokens: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = if std::env::var_os("HATCHET_CLIENT_TOKEN").is_none() { Some(Engine::start().await?) } else { None };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;

    // A static limit must exist before a worker registers a task that uses it.
    let calls = hatchet.rate_limit("example-calls", 10, RateLimitWindow::Minute).send().await?;
    let per_user = RateLimit::dynamic("'example-tokens:' + input.user", RateLimitWindow::Minute);
    let ask = Task::new("example-ask", async |prompt: Prompt, _: Context| Ok(format!("answered {}", prompt.user)))
        .rate_limit(RateLimit::new(calls.key()))
        .rate_limit(per_user.limit(100).units_expression("input.tokens"));
    let worker = hatchet.worker("prompts").register(&ask).build()?.start().await?;

    for (user, tokens) in [("ada", 60), ("ada", 30), ("ada", 50), ("bob", 50)] {
        let run = hatchet.run(&ask, &Prompt { user: user.into(), tokens }).start().await?;
        // The third run waits until the window of Ada's limit ends, for up to a minute.
        if let Ok(answer) = timeout(Duration::from_secs(3), run.result()).await {
            println!("{tokens} tokens: {}", answer?);
        } else {
            println!("{tokens} tokens: {user} waits");
            run.cancel().reason("the example ends").send().await?;
        }
    }
    for limit in hatchet.rate_limits().key_contains("example-").get().await? {
        println!("{}: {} of {} units left", limit.key, limit.remaining, limit.limit);
    }

    worker.shutdown().await;
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    Ok(())
}
