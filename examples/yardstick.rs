//! How does this SDK compare with the others, on the same work? This is its program for that comparison.
//!
//! ```text
//! cargo run --release --example yardstick -- worker           # task `noop`, 100 slots, until SIGTERM or Ctrl-C
//! cargo run --release --example yardstick -- trigger N C      # starts N runs, C at a time
//! cargo run --release --example yardstick -- bulk N           # starts N runs, as many with each call as there may be
//! cargo run --release --example yardstick -- waitseq N        # starts a run and waits for it, N times
//! cargo run --release --example yardstick -- waitconc N [T]   # the same, N at once; gives up after T seconds
//! cargo run --release --example yardstick -- list PAGE WANT   # a page of PAGE runs, then a walk through WANT
//! ```
//!
//! Set up by `HATCHET_CLIENT_*`. The last line is `RESULT {json}`, with `n` (what was done) and `seconds` (how long it
//! took). Every mode but `worker` needs a worker that has run at least once: the workflow must be known.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use hatchet::{Client, Context, Outcome, RunFilter, Task, Window, WorkflowRef};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

const WORKFLOW: &str = "noop";
const USAGE: &str = "usage: yardstick worker | trigger N C | bulk N | waitseq N | waitconc N [T] | list PAGE WANT";
/// Triggers under way at the same time, where the number is not what is measured.
const TRIGGERS: usize = 100;

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
        ["worker"] => return worker(&hatchet).await,
        ["trigger", runs, at_once] => trigger(&hatchet, number(runs)?, number(at_once)?).await?,
        ["bulk", runs] => bulk(&hatchet, number(runs)?).await?,
        ["waitseq", runs] => wait(&hatchet, number(runs)?, 1, Duration::MAX).await?,
        ["waitconc", runs] => wait(&hatchet, number(runs)?, number(runs)?, Duration::MAX).await?,
        ["waitconc", runs, seconds] => {
            wait(&hatchet, number(runs)?, number(runs)?, Duration::from_secs(seconds.parse()?)).await?
        }
        ["list", page, want] => list(&hatchet, number(page)?, number(want)?).await?,
        _ => return Err(USAGE.into()),
    };
    println!("RESULT {result}");
    Ok(())
}

fn number(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("found {text:?}, accepted: a number from 1; {USAGE}"))
}

async fn worker(hatchet: &Client) -> Result<(), Box<dyn Error>> {
    let noop = Task::new(WORKFLOW, async |input: Input, _: Context| {
        if let Some(sleep_ms) = input.sleep_ms {
            tokio::time::sleep(Duration::from_millis(sleep_ms)).await;
        }
        Ok(Output { ok: true })
    });
    let starting = hatchet.worker("yardstick").slots(100).register(&noop).build()?.start();
    // It is the one large future here.
    let running = Box::pin(starting).await?;
    println!("worker {} is ready", running.id());
    stop_signal().await?;
    println!("{}", running.shutdown().await);
    Ok(())
}

/// Resolves when the program is told to stop, by whichever way the platform has.
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

fn workflow() -> WorkflowRef<Input, Output> {
    WorkflowRef::new(WORKFLOW)
}

async fn trigger(hatchet: &Client, runs: usize, at_once: usize) -> Answer {
    let (noop, input) = (workflow(), Input::default());
    let start = Instant::now();
    let starts = stream::iter(0..runs).map(|_| hatchet.run(&noop, &input).start()).buffer_unordered(at_once);
    // A run that could not be started is counted; it must not end the measurement.
    let failed = starts.filter(|started| std::future::ready(started.is_err())).count().await;
    Ok(json!({"mode": "trigger", "n": runs - failed, "failed": failed, "seconds": start.elapsed().as_secs_f64()}))
}

async fn bulk(hatchet: &Client, runs: usize) -> Answer {
    let start = Instant::now();
    let started = hatchet.run_many(&workflow(), std::iter::repeat_n(Input::default(), runs)).start().await?;
    let seconds = start.elapsed().as_secs_f64();
    let failed = started.iter().filter(|started| started.is_err()).count();
    Ok(json!({"mode": "bulk", "n": runs - failed, "failed": failed, "seconds": seconds}))
}

/// Starts runs and waits for them, so many at once. A wait that is given up counts as waiting, not as done.
async fn wait(hatchet: &Client, runs: usize, at_once: usize, longest: Duration) -> Answer {
    let (noop, triggers) = (workflow(), Semaphore::new(TRIGGERS));
    let one = async || {
        let permit = triggers.acquire().await?;
        let begun = Instant::now();
        let run = hatchet.run(&noop, &Input::default()).start().await?;
        drop(permit);
        let outcome = timeout(longest, run.outcome()).await;
        Ok::<_, Box<dyn Error>>((outcome.ok().transpose()?, begun.elapsed()))
    };
    let start = Instant::now();
    let ends: Vec<_> = stream::iter(0..runs).map(|_| one()).buffer_unordered(at_once).try_collect().await?;
    let seconds = start.elapsed().as_secs_f64();
    let completed = ends.iter().filter(|(outcome, _)| matches!(outcome, Some(Outcome::Completed(_)))).count();
    let waiting = ends.iter().filter(|(outcome, _)| outcome.is_none()).count();
    let mut waits: Vec<_> = ends.iter().map(|(_, wait)| wait.as_secs_f64() * 1000.0).collect();
    waits.sort_by(f64::total_cmp);
    let percentile = |percent: usize| waits.get((waits.len() * percent / 100).min(waits.len().saturating_sub(1)));
    Ok(json!({
        "mode": if at_once == 1 { "waitseq" } else { "waitconc" },
        "n": runs - waiting,
        "failed": runs - waiting - completed,
        "waiting": waiting,
        "seconds": seconds,
        "p50_ms": percentile(50),
        "p95_ms": percentile(95),
        "p99_ms": percentile(99),
        "max_ms": waits.last(),
    }))
}

async fn list(hatchet: &Client, page: usize, want: usize) -> Answer {
    let query = hatchet.runs(RunFilter::new(Window::all()).workflow(WORKFLOW));
    // The workflow is looked up once for a client; that is not what is measured.
    let total = query.count().await?;
    let start = Instant::now();
    let rows = query.page(page).await?.runs.len();
    let page_seconds = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let walked = query.items().take(want).try_fold(0, |count, _| std::future::ready(Ok(count + 1))).await?;
    Ok(json!({
        "mode": "list",
        "n": walked,
        "seconds": start.elapsed().as_secs_f64(),
        "page_rows": rows,
        "page_seconds": page_seconds,
        "total": total.to_string(),
    }))
}
