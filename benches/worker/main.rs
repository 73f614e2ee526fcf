//! Compares the worker with a loop over the generated stubs: the throughput with 1, 100 and 1000 slots, tasks with inputs and outputs of
//! 1 MiB, and the latency of a single task.
//!
//! ```text
//! cargo bench --bench worker
//! ```
//!
//! Both sides use one thread. The work of the embedded engine, or of the server, is included on both sides, so that the column `difference`
//! shows the cost of the SDK alone. The loop in `raw.rs` does only what is necessary.
//!
//! - *throughput*: from the call that starts all runs to the end of the last one. The loop sends each report in a call of its own.
//! - *to the code*: from the moment at which a server sends an assignment until its code runs.
//! - *to the report*: from the end of the code until the server has received its report.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    reason = "a command-line program, which exits on a failure, and which measures real time"
)]

#[path = "../dispatcher.rs"]
mod dispatcher;
#[path = "../interleaved.rs"]
mod interleaved;
mod latency;
mod raw;
#[path = "../raw_report.rs"]
mod raw_report;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hatchet::embedded::Engine;
use hatchet::raw::RawChannel;
use hatchet::raw::pb::BulkTriggerWorkflowRequest;
use hatchet::raw::pb::v1::admin_service_client::AdminServiceClient;
use hatchet::raw::pb::v1::{GetRunDetailsRequest, TriggerWorkflowRequest};
use hatchet::raw::pb::workflow_service_client::WorkflowServiceClient;
use hatchet::worker::RunningWorker;
use hatchet::{Client, Context, Task};
use interleaved::{interleaved, median};
use latency::latencies;
use serde::{Deserialize, Serialize};
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
    pub(crate) fn of(bytes: usize) -> Self {
        Self { text: "x".repeat(bytes) }
    }
}

/// When the code of the tasks started and ended.
#[derive(Clone, Default)]
pub(crate) struct Times(Arc<Mutex<Vec<(Instant, Instant)>>>);

impl Times {
    /// Those of the only task since the last call.
    pub(crate) fn take(&self) -> (Instant, Instant) {
        let mut times = self.0.lock().unwrap();
        assert_eq!(times.len(), 1, "one task");
        times.remove(0)
    }

    pub(crate) async fn measure(&self) {
        let start = Instant::now();
        tokio::time::sleep(CODE).await;
        self.0.lock().unwrap().push((start, Instant::now()));
    }
}

pub(crate) enum Worker {
    Raw(JoinHandle<()>),
    Sdk(RunningWorker),
}

impl Worker {
    /// `times`: whether the code of the tasks takes some time, and is measured.
    pub(crate) async fn start(client: &Client, is_raw: bool, slots: u32, times: Option<Times>) -> Self {
        let task =
            Task::with_state(WORKFLOW, times.clone(), async |times: Option<Times>, input: Payload, _: Context| {
                if let Some(times) = times {
                    times.measure().await;
                }
                Ok(input)
            });
        let starting = client.worker("bench").slots(slots).register(&task).build().unwrap().start();
        let running = Box::pin(starting).await.unwrap();
        if !is_raw {
            return Self::Sdk(running);
        }
        // It has stored the definition.
        Box::pin(running.shutdown()).await;
        Self::Raw(raw::start(client, slots, times).await)
    }

    pub(crate) fn stop(self) {
        match self {
            Self::Raw(task) => task.abort(),
            Self::Sdk(worker) => drop(worker),
        }
    }
}

/// An engine with a worker.
struct Setup {
    engine: Engine,
    client: Client,
    worker: Worker,
}

impl Setup {
    async fn new(is_raw: bool, slots: u32) -> Self {
        let engine = Engine::start().await.unwrap();
        let client = engine.client();
        let worker = Worker::start(&client, is_raw, slots, None).await;
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
        self.worker.stop();
        self.engine.shutdown().await;
    }
}

fn request(input: &Payload) -> TriggerWorkflowRequest {
    TriggerWorkflowRequest { name: WORKFLOW.into(), input: serde_json::to_string(input).unwrap(), ..Default::default() }
}

async fn throughput(is_raw: bool, slots: u32, tasks: usize, bytes: usize) -> Duration {
    let setup = Setup::new(is_raw, slots).await;
    let elapsed = setup.round(tasks, bytes).await;
    setup.stop().await;
    elapsed
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
