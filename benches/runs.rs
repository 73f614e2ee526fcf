//! What do many runs cost? Paging, pages, details and bulk triggers at scale, against the embedded engine, with the raw
//! calls beside them where there are any.
//!
//! ```text
//! cargo bench --bench runs
//! ```
//!
//! All of it is on one thread: SDK, stubs and engine. So a ratio flatters the SDK as far as the engine is in it. Both sides
//! of a pair are measured in turn, and medians are taken, since a machine's speed drifts. Allocations are counted; where
//! the raw calls are taken off, what is left is the SDK's own.
#![expect(
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for the terminal, which can do nothing better with a failure than to end"
)]

use std::time::Duration;

use futures_util::future::join4;
use hatchet::embedded::Engine;
use hatchet::raw::pb::BulkTriggerWorkflowRequest;
use hatchet::raw::pb::v1::admin_service_client::AdminServiceClient;
use hatchet::raw::pb::v1::{GetRunDetailsRequest, TriggerWorkflowRequest};
use hatchet::raw::pb::workflow_service_client::WorkflowServiceClient;
use hatchet::{Client, Context, RunFilter, RunHandle, RunId, RunStatus, Task, Window, Workflow};
use http::Method;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::Instant;

const MANY: usize = 10_000;
const FINISHED: usize = 100_000;
const BULK: usize = 100_000;
const PAIRS: usize = 15;

fn work(name: &str) -> Task<Value, Value> {
    Task::new(name, async |_: Value, _: Context| Ok(json!({"ok": true})))
}

fn diamond() -> Workflow<Value> {
    Workflow::new("diamond")
        .task(&work("a"))
        .task_after(&work("b"), ["a"])
        .task_after(&work("c"), ["a"])
        .task_after(&work("d"), ["b", "c"])
}

async fn start(hatchet: &Client, count: usize) -> Vec<RunHandle<Value>> {
    let inputs = (0..count).map(|n| json!({ "n": n }));
    let runs = hatchet.run_many(&work("work"), inputs).metadata("tier", "gold").start().await.unwrap();
    runs.into_iter().map(Result::unwrap).collect()
}

async fn timed<T>(what: impl Future<Output = T>) -> Duration {
    let begun = Instant::now();
    drop(what.await);
    begun.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Two things in turn: their medians.
async fn pairs<A, B>(one: impl AsyncFn() -> A, other: impl AsyncFn() -> B) -> (Duration, Duration) {
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        ones.push(timed(one()).await);
        others.push(timed(other()).await);
    }
    (median(ones), median(others))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn row(what: &str, raw: Duration, ours: Duration) {
    println!("{what:<58} {:>10.1} µs {:>10.1} µs {:>6.2}", micros(raw), micros(ours), micros(ours) / micros(raw));
}

fn listed(hatchet: &Client, query: &str) -> String {
    let tenant = hatchet.tenant().unwrap();
    format!("/api/v1/stable/tenants/{tenant}/workflow-runs?only_tasks=false&since=1970-01-01T00:00:00Z&{query}")
}

async fn rest(hatchet: &Client, path: &str) -> usize {
    hatchet.raw_rest(Method::GET, path, None).await.unwrap().1.len()
}

/// Walks to a row, and measures the page that begins there.
async fn page_at(hatchet: &Client, filter: &RunFilter, row: usize) -> Duration {
    let mut times = Vec::new();
    for _ in 0..PAIRS {
        let mut items = hatchet.runs(filter.clone()).items();
        for _ in 0..row {
            items.next().await.unwrap().unwrap();
        }
        // Pages of the walk have 200 rows, and the next item needs a new one.
        times.push(timed(items.next()).await);
    }
    median(times)
}

async fn paging(hatchet: &Client) {
    start(hatchet, MANY).await;
    let filter = RunFilter::new(Window::all()).workflow("work");
    let (first, last) = (page_at(hatchet, &filter, 0).await, page_at(hatchet, &filter, MANY - 200).await);
    println!(
        "{:<58} {:>10.1} µs {:>10.1} µs {:>6.2}",
        "page of a walk: at row 0, at row 9 800, ratio",
        micros(first),
        micros(last),
        micros(last) / micros(first)
    );
    let (zero, far) = (listed(hatchet, "limit=200&offset=0"), listed(hatchet, "limit=200&offset=9800"));
    let (zero, far) = pairs(async || rest(hatchet, &zero).await, async || rest(hatchet, &far).await).await;
    println!(
        "{:<58} {:>10.1} µs {:>10.1} µs {:>6.2}",
        "the same by offset, raw",
        micros(zero),
        micros(far),
        micros(far) / micros(zero)
    );
    let indexed = RunFilter::new(Window::all()).workflow("work").status(RunStatus::Queued).metadata("tier", "gold");
    let query = hatchet.runs(indexed);
    let mut times = Vec::new();
    for _ in 0..PAIRS {
        times.push(timed(async { query.page(50).await.unwrap() }).await);
    }
    let time = median(times);
    let verdict = if time < Duration::from_millis(100) { "under" } else { "NOT under" };
    println!(
        "query by workflow, status and metadata among 10 000 runs: {:.2} ms, {verdict} 100 ms",
        micros(time) / 1000.0
    );
}

/// Reads all of them, and counts what that allocates beside the raw answers.
fn walk(runtime: &Runtime, hatchet: &Client) {
    let filter = RunFilter::new(Window::all()).workflow("work");
    let mut seen = 0;
    let ours = allocation_counter::measure(|| {
        runtime.block_on(async {
            let mut items = hatchet.runs(filter).items();
            while let Some(run) = items.next().await {
                run.unwrap();
                seen += 1;
            }
        });
    });
    assert_eq!(seen, MANY);
    let raw = allocation_counter::measure(|| {
        runtime.block_on(async {
            for offset in (0..MANY).step_by(200) {
                rest(hatchet, &listed(hatchet, &format!("limit=200&offset={offset}"))).await;
            }
        });
    });
    let each = |ours: u64, raw: u64| ours.saturating_sub(raw) as f64 / MANY as f64;
    let (count, bytes) = (each(ours.count_total, raw.count_total), each(ours.bytes_total, raw.bytes_total));
    println!("allocations for each listed run, the SDK's own: {count:.1}, of {bytes:.0} bytes in all");
    let time = runtime.block_on(timed(async {
        let mut items = hatchet.runs(RunFilter::new(Window::all()).workflow("work")).items();
        while items.next().await.is_some() {}
    }));
    println!(
        "{MANY} runs paged through: {:.0} ms, {:.1} µs for each",
        micros(time) / 1000.0,
        micros(time) / MANY as f64
    );
}

async fn details(hatchet: &Client, what: &str, run: RunId) {
    let id = run.to_string();
    let raw = async || {
        let (path, mut admin) =
            (format!("/api/v1/stable/workflow-runs/{id}"), AdminServiceClient::new(hatchet.raw_channel()));
        let of_task = |what: &str| format!("/api/v1/stable/tasks/{id}/{what}?limit=1000");
        let (events, logs) = (of_task("task-events"), of_task("logs"));
        let request = GetRunDetailsRequest { external_id: id.clone() };
        join4(admin.get_run_details(request), rest(hatchet, &path), rest(hatchet, &events), rest(hatchet, &logs))
            .await
            .1
    };
    let handle: RunHandle<Value> = hatchet.run_handle(run);
    let (raw, ours) = pairs(raw, async || handle.details().await.unwrap()).await;
    row(what, raw, ours);
}

async fn bulk(hatchet: &Client) {
    let (mut raws, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let mut workflows = WorkflowServiceClient::new(hatchet.raw_channel());
        raws.push(
            timed(async {
                for chunk in 0..BULK / 1000 {
                    let run = |n: usize| TriggerWorkflowRequest {
                        name: "work".into(),
                        input: json!({ "n": chunk * 1000 + n }).to_string(),
                        additional_metadata: Some(r#"{"tier":"gold"}"#.into()),
                        ..Default::default()
                    };
                    let workflows_of = BulkTriggerWorkflowRequest { workflows: (0..1000).map(run).collect() };
                    workflows.bulk_trigger_workflow(workflows_of).await.unwrap();
                }
            })
            .await,
        );
        ours.push(timed(start(hatchet, BULK)).await);
    }
    let each = |times| median(times) / u32::try_from(BULK).unwrap();
    row("a run of run_many of 100 000", each(raws), each(ours));
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!("{:<58} {:>13} {:>13} {:>6}", "", "raw", "this crate", "ratio");
    // Runs that wait: nothing but the question goes on.
    let waiting = runtime.block_on(Engine::start()).unwrap();
    let hatchet = waiting.client();
    runtime.block_on(async {
        let worker = hatchet.worker("worker").register(&work("work")).build().unwrap().start().await.unwrap();
        worker.shutdown().await;
        paging(&hatchet).await;
    });
    walk(&runtime, &hatchet);
    // Runs that have ended.
    let ended = runtime.block_on(Engine::start()).unwrap();
    let hatchet = ended.client();
    runtime.block_on(async {
        let worker = hatchet.worker("worker").slots(1000).register(&work("work")).register(&diamond());
        let worker = worker.build().unwrap().start().await.unwrap();
        let runs = start(&hatchet, FINISHED).await;
        let query = hatchet.runs(RunFilter::new(Window::all()).workflow("work"));
        while query.counts_by_status().await.unwrap().get(&RunStatus::Completed) < Some(FINISHED as u64) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let path = listed(&hatchet, "limit=50&offset=0");
        let (raw, ours) = pairs(async || rest(&hatchet, &path).await, async || query.page(50).await.unwrap()).await;
        row("page of 50 with its total, 100 000 finished; raw without", raw, ours);
        details(&hatchet, "details of a run of one task", runs[0].id()).await;
        let dag = hatchet.run(&diamond(), &json!({})).start().await.unwrap();
        dag.outcome().await.unwrap();
        details(&hatchet, "details of a run of four tasks", dag.id()).await;
        worker.shutdown().await;
        bulk(&hatchet).await;
    });
}
