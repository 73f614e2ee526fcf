//! Runs CPU-bound code alongside other tasks, and cancels it.
//!
//! ```text
//! cargo run --example blocking
//! ```
//!
//! If `HATCHET_CLIENT_TOKEN` is set, the example runs against a real Hatchet server.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;

use hatchet::embedded::Engine;
use hatchet::{Client, Context, Task, TaskError};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Limit {
    below: u64,
}

/// Counts prime numbers. Nothing can stop a thread from outside, so the code checks whether it should stop.
fn count_primes(limit: &Limit, context: &Context) -> Result<u64, TaskError> {
    let mut count = 0;
    for number in 2..limit.below {
        if number % 1000 == 0 && context.is_cancelled() {
            println!("stopped at {number}");
            return Err(TaskError::new("cancelled"));
        }
        let divisors = (2..).take_while(|divisor| divisor * divisor <= number);
        count += u64::from(divisors.into_iter().all(|divisor| number % divisor != 0));
    }
    Ok(count)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = if std::env::var_os("HATCHET_CLIENT_TOKEN").is_none() { Some(Engine::start().await?) } else { None };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;
    // On a thread for blocking code, so that other tasks and the heartbeats of the worker continue.
    let primes = Task::blocking("example-primes", |limit: Limit, context: Context| count_primes(&limit, &context));
    let hello: Task<(), String> = Task::new("example-hello", async |(): (), _: Context| Ok("hello".into()));
    // Each blocking attempt occupies a CPU core. One more slot is for `hello`.
    let slots = (std::thread::available_parallelism()?.get() + 1).try_into()?;
    let worker = hatchet.worker("counter").slots(slots).register(&primes).register(&hello).build()?.start().await?;

    println!("{} primes below 100,000", hatchet.run(&primes, &Limit { below: 100_000 }).result().await?);
    let endless = hatchet.run(&primes, &Limit { below: 1_000_000_000_000 }).start().await?;
    println!("{}", hatchet.run(&hello, &()).result().await?);
    endless.cancel().reason("the example ends").send().await?;
    println!("the endless run {}", endless.outcome().await?);

    println!("{}", worker.shutdown().await);
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    Ok(())
}
