//! Starting runs.

use hatchet::Client;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Answer, Input, workflow};

pub(super) async fn trigger(hatchet: &Client, runs: usize, at_once: usize) -> Answer {
    let start = Instant::now();
    // Each Tokio task starts its share of the runs, like the requests in a server.
    let share = |task| runs / at_once + usize::from(task < runs % at_once);
    let tasks: JoinSet<_> = (0..at_once).map(|task| some(hatchet.clone(), share(task))).collect();
    let failed: usize = tasks.join_all().await.into_iter().sum();
    Ok(json!({"mode": "trigger", "n": runs - failed, "failed": failed, "seconds": start.elapsed().as_secs_f64()}))
}

/// Starts runs one after the other. Runs that could not be started are counted; they must not end the measurement.
async fn some(hatchet: Client, runs: usize) -> usize {
    let (noop, input) = (workflow(), Input::default());
    let mut failed = 0;
    for _ in 0..runs {
        failed += usize::from(hatchet.run(&noop, &input).start().await.is_err());
    }
    failed
}

pub(super) async fn bulk(hatchet: &Client, runs: usize) -> Answer {
    let start = Instant::now();
    let started = hatchet.run_many(&workflow(), std::iter::repeat_n(Input::default(), runs)).start().await?;
    let seconds = start.elapsed().as_secs_f64();
    let failed = started.iter().filter(|started| started.is_err()).count();
    Ok(json!({"mode": "bulk", "n": runs - failed, "failed": failed, "seconds": seconds}))
}
