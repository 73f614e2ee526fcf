//! Waiting for runs, and listing them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use hatchet::model::Window;
use hatchet::{Client, Outcome, RunFilter};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::{Answer, Input, WORKFLOW, workflow};

/// The maximum number of concurrent start requests, so that `wait` measures waits and not start requests.
const TRIGGERS: usize = 100;

/// Starts runs and waits for them, at most `at_once` at a time. A run that has not ended after `longest` counts as `waiting`, not in `n`.
pub(super) async fn wait(hatchet: &Client, runs: usize, at_once: usize, longest: Duration) -> Answer {
    let triggers = Arc::new(Semaphore::new(TRIGGERS));
    let start = Instant::now();
    // Each wait is a separate Tokio task, like the requests in a server.
    let tasks = stream::iter(0..runs).map(|_| tokio::spawn(one(hatchet.clone(), Arc::clone(&triggers), longest)));
    let ends: Vec<_> = tasks.buffer_unordered(at_once).try_collect().await?;
    let ends: Vec<_> = ends.into_iter().collect::<hatchet::Result<_>>()?;
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

/// Starts a run and waits for it: its outcome, if it ended in time, and how long that took.
async fn one(
    hatchet: Client,
    triggers: Arc<Semaphore>,
    longest: Duration,
) -> hatchet::Result<(Option<Outcome>, Duration)> {
    // The semaphore is never closed.
    let permit = triggers.acquire_owned().await.ok();
    let started = Instant::now();
    let run = hatchet.run(&workflow(), &Input::default()).start().await?;
    drop(permit);
    let outcome = timeout(longest, run.outcome()).await;
    Ok((outcome.ok().transpose()?, started.elapsed()))
}

pub(super) async fn list(hatchet: &Client, page: usize, want: usize) -> Answer {
    let query = hatchet.runs(RunFilter::new(Window::all()).workflow(WORKFLOW));
    // The workflow is looked up once for a client; that is not what is measured.
    let total = query.count().await?;
    let start = Instant::now();
    let rows = query.page(page).await?.items.len();
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
