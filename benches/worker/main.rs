//! Compares the worker with a loop over the generated stubs: the throughput with 1, 100 and 1000 slots, tasks with inputs and outputs of
//! 1 MiB, and the latency of a single task.
//!
//! ```text
//! cargo bench --bench worker
//! ```
//!
//! Both sides use one thread and the embedded engine. Its work is included on both sides, so that the column `difference` shows the cost
//! of the SDK alone. The loop in `raw.rs` does only what is necessary.
//!
//! - *throughput*: from the call that starts all runs to the end of the last one. The loop sends each report in a call of its own.
//! - *to the code*: from the call that starts a run until its code runs: the time of the engine, and from the assignment to the start.
//! - *to the report*: from the end of the code until a subscriber is notified of the end of the run: the time until the report is sent, and
//!   the time of the engine.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    reason = "a command-line program, which exits on a failure, and which measures real time"
)]

#[path = "../interleaved.rs"]
mod interleaved;
mod raw;
#[path = "../raw_report.rs"]
mod raw_report;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hatchet::embedded::Engine;
use hatchet::raw::RawChannel;
use hatchet::raw::pb::dispatcher_client::DispatcherClient;
use hatchet::raw::pb::v1::admin_service_client::AdminServiceClient;
use hatchet::raw::pb::v1::{GetRunDetailsRequest, TriggerWorkflowRequest};
use hatchet::raw::pb::workflow_service_client::WorkflowServiceClient;
use hatchet::raw::pb::{BulkTriggerWorkflowRequest, SubscribeToWorkflowRunsRequest};
use hatchet::worker::RunningWorker;
use hatchet::{Client, Context, Task};
use interleaved::{interleaved, median};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub(crate) const WORKFLOW: &str = "work";
/// The number of runs in one call.
const BULK: usize = 1000;
const MIB: usize = 1 << 20;
/// How long the code of a task takes when latencies are measured: longer than the report of its start.
pub(crate) const CODE: Duration = Duration::from_millis(3);

/// How much is measured.
#[derive(Clone, Copy)]
struct Scale {
    rounds: usize,
    /// For each number of slots.
    tasks: [(u32, usize); 3],
    large_tasks: usize,
    latencies: usize,
}

const FULL: Scale =
    Scale { rounds: 11, tasks: [(1, 2000), (100, 10_000), (1000, 10_000)], large_tasks: 100, latencies: 1000 };
const SMALL: Scale = Scale { rounds: 1, tasks: [(1, 5), (100, 20), (1000, 20)], large_tasks: 2, latencies: 5 };

/// A payload, which the task returns.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Payload {
    pub(crate) text: String,
}

impl Payload {
    fn of(bytes: usize) -> Self {
        Self { text: "x".repeat(bytes) }
    }
}

/// When the code of the tasks started and ended.
#[derive(Clone, Default)]
pub(crate) struct Times(Arc<Mutex<Vec<(Instant, Instant)>>>);

impl Times {
    pub(crate) async fn measure(&self) {
        let start = Instant::now();
        tokio::time::sleep(CODE).await;
        self.0.lock().unwrap().push((start, Instant::now()));
    }
}

enum Working {
    Raw(JoinHandle<()>),
    Sdk(RunningWorker),
}

/// An engine with a worker.
struct Setup {
    engine: Engine,
    client: Client,
    worker: Working,
}

impl Setup {
    /// `times`: whether the code of the tasks takes some time, and is measured.
    async fn new(is_raw: bool, slots: u32, times: Option<Times>) -> Self {
        let engine = Engine::start().await.unwrap();
        let client = engine.client();
        let task =
            Task::with_state(WORKFLOW, times.clone(), async |times: Option<Times>, input: Payload, _: Context| {
                if let Some(times) = times {
                    times.measure().await;
                }
                Ok(input)
            });
        let starting = client.worker("bench").slots(slots).register(&task).build().unwrap().start();
        let running = Box::pin(starting).await.unwrap();
        let worker = if is_raw {
            // It has stored the definition.
            Box::pin(running.shutdown()).await;
            Working::Raw(raw::start(&client, slots, times).await)
        } else {
            Working::Sdk(running)
        };
        let setup = Self { engine, client, worker };
        // A warm-up of the worker.
        setup.round(20, 10).await;
        setup
    }

    fn workflows(&self) -> WorkflowServiceClient<RawChannel> {
        WorkflowServiceClient::new(self.client.raw_channel())
    }

    /// Starts runs with inputs of this size, and waits for the end of the last one. None may be lost.
    async fn round(&self, runs: usize, bytes: usize) -> Duration {
        let request = request(&Payload::of(bytes));
        let bulk = (3 * MIB / (bytes + 1024)).clamp(1, BULK);
        let mut ids = Vec::new();
        let start = Instant::now();
        while ids.len() < runs {
            let workflows = vec![request.clone(); bulk.min(runs - ids.len())];
            let request = BulkTriggerWorkflowRequest { workflows };
            let response = self.workflows().bulk_trigger_workflow(request).await.unwrap();
            ids.extend(response.into_inner().workflow_run_ids);
        }
        let mut admin = AdminServiceClient::new(self.client.raw_channel());
        let mut elapsed = Duration::ZERO;
        // The queue is first in, first out: when the last one has ended, the others have almost ended, too.
        for external_id in ids.into_iter().rev() {
            let run = GetRunDetailsRequest { external_id };
            while !admin.get_run_details(run.clone()).await.unwrap().into_inner().done {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if elapsed.is_zero() {
                elapsed = start.elapsed();
            }
        }
        elapsed
    }

    async fn stop(self) {
        match self.worker {
            Working::Raw(task) => task.abort(),
            Working::Sdk(worker) => drop(worker),
        }
        self.engine.shutdown().await;
    }
}

fn request(input: &Payload) -> TriggerWorkflowRequest {
    TriggerWorkflowRequest { name: WORKFLOW.into(), input: serde_json::to_string(input).unwrap(), ..Default::default() }
}

async fn throughput(is_raw: bool, slots: u32, tasks: usize, bytes: usize) -> Duration {
    let setup = Setup::new(is_raw, slots, None).await;
    let elapsed = setup.round(tasks, bytes).await;
    setup.stop().await;
    elapsed
}

/// The times to the code and to the report, of one run after the other.
async fn latencies(is_raw: bool, count: usize) -> [Vec<f64>; 2] {
    let times = Times::default();
    let setup = Setup::new(is_raw, 100, Some(times.clone())).await;
    let (subscribe, mut ids) = mpsc::unbounded_channel();
    let requests = futures_util::stream::poll_fn(move |cx| ids.poll_recv(cx));
    let (sender, mut ends) = mpsc::unbounded_channel();
    let mut dispatcher = DispatcherClient::new(setup.client.raw_channel());
    let reading = tokio::spawn(async move {
        let mut results = dispatcher.subscribe_to_workflow_runs(requests).await.unwrap().into_inner();
        while let Some(result) = results.message().await.unwrap() {
            let _ = sender.send((Instant::now(), result.workflow_run_id));
        }
    });
    let mut found = [Vec::new(), Vec::new()];
    for _ in 0..count {
        times.0.lock().unwrap().clear();
        let start = Instant::now();
        let response = setup.workflows().trigger_workflow(request(&Payload::of(10))).await.unwrap();
        let workflow_run_id = response.into_inner().workflow_run_id;
        subscribe.send(SubscribeToWorkflowRunsRequest { workflow_run_id: workflow_run_id.clone() }).unwrap();
        let (end, ended) = ends.recv().await.unwrap();
        assert_eq!(ended, workflow_run_id);
        let measured = times.0.lock().unwrap().clone();
        assert_eq!(measured.len(), 1, "one run");
        let (code_start, code_end) = measured[0];
        for (times, elapsed) in found.iter_mut().zip([code_start - start, end - code_end]) {
            times.push(elapsed.as_secs_f64() * 1e6);
        }
    }
    reading.abort();
    setup.stop().await;
    found
}

fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent / 100).min(values.len() - 1)]
}

/// The medians of both sides, and the medians of the ratios and of the differences of the pairs.
fn print(name: &str, pairs: &[(f64, f64)]) {
    let median = |of: &dyn Fn(&(f64, f64)) -> f64| median(pairs.iter().map(of));
    println!(
        "{name:<44} {:>9.2} {:>9.2} {:>7.2} {:>10.2}",
        median(&|pair| pair.0),
        median(&|pair| pair.1),
        median(&|pair| pair.1 / pair.0),
        median(&|pair| pair.1 - pair.0)
    );
}

async fn row(name: &str, rounds: usize, slots: u32, tasks: usize, bytes: usize) {
    let each = |time: Duration| time.as_secs_f64() * 1e6 / tasks as f64;
    let pairs = interleaved(
        rounds,
        async || throughput(true, slots, tasks, bytes).await,
        async || throughput(false, slots, tasks, bytes).await,
    );
    print(name, &pairs.await.into_iter().map(|(raw, sdk)| (each(raw), each(sdk))).collect::<Vec<_>>());
}

async fn table(scale: Scale) {
    println!("{:<44} {:>9} {:>9} {:>7} {:>10}", "µs", "raw", "SDK", "ratio", "difference");
    for (slots, tasks) in scale.tasks {
        row(&format!("a task of {tasks}, slots: {slots}"), scale.rounds, slots, tasks, 10).await;
    }
    let name = format!("a task of {}, 1 MiB in and out, slots: 100", scale.large_tasks);
    row(&name, scale.rounds, 100, scale.large_tasks, MIB - 100).await;
    let mut rows = [const { Vec::new() }; 4];
    for round in 0..scale.rounds.min(5) {
        let (raw, sdk) = if round % 2 == 0 {
            let raw = latencies(true, scale.latencies).await;
            (raw, latencies(false, scale.latencies).await)
        } else {
            let sdk = latencies(false, scale.latencies).await;
            (latencies(true, scale.latencies).await, sdk)
        };
        for (row, (part, percent)) in rows.iter_mut().zip([(0, 50), (0, 99), (1, 50), (1, 99)]) {
            row.push((percentile(&raw[part], percent), percentile(&sdk[part], percent)));
        }
    }
    let names = [
        "to the code, median",
        "to the code, 99th percentile",
        "to the report, median",
        "to the report, 99th percentile",
    ];
    for (name, pairs) in names.into_iter().zip(&rows) {
        print(name, pairs);
    }
}

fn main() {
    // Without `--bench`, a small run checks that the benchmark works.
    let scale = if std::env::args().any(|argument| argument == "--bench") { FULL } else { SMALL };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(table(scale));
}
