//! Starting runs.

use futures_util::stream::{self, StreamExt as _};
use hatchet::Client;
use serde_json::json;
use tokio::time::Instant;

use super::{Answer, Input, workflow};

pub(super) async fn trigger(hatchet: &Client, runs: usize, at_once: usize) -> Answer {
    let (noop, input) = (workflow(), Input::default());
    let start = Instant::now();
    let starts = stream::iter(0..runs).map(|_| hatchet.run(&noop, &input).start()).buffer_unordered(at_once);
    // A run that could not be started is counted; it must not end the measurement.
    let failed = starts.filter(|started| std::future::ready(started.is_err())).count().await;
    Ok(json!({"mode": "trigger", "n": runs - failed, "failed": failed, "seconds": start.elapsed().as_secs_f64()}))
}

pub(super) async fn bulk(hatchet: &Client, runs: usize) -> Answer {
    let start = Instant::now();
    let started = hatchet.run_many(&workflow(), std::iter::repeat_n(Input::default(), runs)).start().await?;
    let seconds = start.elapsed().as_secs_f64();
    let failed = started.iter().filter(|started| started.is_err()).count();
    Ok(json!({"mode": "bulk", "n": runs - failed, "failed": failed, "seconds": seconds}))
}
