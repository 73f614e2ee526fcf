//! Measures the throughput and the latency of this SDK against a Hatchet server. Programs for other SDKs can do the same work and print
//! the same results.
//!
//! ```text
//! cargo run --release --example yardstick -- worker           # task `noop`, 100 slots, until SIGTERM or Ctrl-C
//! cargo run --release --example yardstick -- trigger N C      # starts N runs, C at a time
//! cargo run --release --example yardstick -- bulk N           # starts N runs, with as many runs per call as possible
//! cargo run --release --example yardstick -- waitseq N        # starts a run and waits for it, N times
//! cargo run --release --example yardstick -- waitconc N [T]   # starts N runs at once and waits for them, up to T seconds each
//! cargo run --release --example yardstick -- list PAGE WANT   # a page of PAGE runs, then a walk through WANT
//! ```
//!
//! The environment variables `HATCHET_CLIENT_*` configure the client. The last line of the output is `RESULT {json}`, with `n` (the number
//! of operations) and `seconds` (the elapsed time). Run `worker` first: it registers the workflow that the other modes start.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

mod follow;
mod start;
mod worker;

use std::error::Error;
use std::time::Duration;

use hatchet::Client;
use hatchet::workflow::WorkflowRef;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const WORKFLOW: &str = "noop";
const USAGE: &str = "usage: yardstick worker | trigger N C | bulk N | waitseq N | waitconc N [T] | list PAGE WANT";

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Input {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sleep_ms: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Output {
    ok: bool,
}

type Answer = Result<Value, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let hatchet = Client::from_env()?;
    let result = match arguments.as_slice() {
        ["worker"] => return worker::run(&hatchet).await,
        ["trigger", runs, at_once] => start::trigger(&hatchet, number(runs)?, number(at_once)?).await?,
        ["bulk", runs] => start::bulk(&hatchet, number(runs)?).await?,
        ["waitseq", runs] => follow::wait(&hatchet, number(runs)?, 1, Duration::MAX).await?,
        ["waitconc", runs] => follow::wait(&hatchet, number(runs)?, number(runs)?, Duration::MAX).await?,
        ["waitconc", runs, seconds] => {
            follow::wait(&hatchet, number(runs)?, number(runs)?, Duration::from_secs(seconds.parse()?)).await?
        }
        ["list", page, want] => follow::list(&hatchet, number(page)?, number(want)?).await?,
        _ => return Err(USAGE.into()),
    };
    println!("RESULT {result}");
    Ok(())
}

fn workflow() -> WorkflowRef<Input, Output> {
    WorkflowRef::new(WORKFLOW)
}

fn number(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("expected a positive integer, got {text:?}; {USAGE}"))
}
