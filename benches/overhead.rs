//! Compares the SDK with the generated gRPC stubs: the same work through both, in one process and on one thread, with the embedded
//! engine.
//!
//! ```text
//! cargo bench --bench overhead             # criterion's groups, and then a table of ratios
//! cargo bench --bench overhead -- table    # only the table
//! ```
//!
//! Wall time on a single thread is the CPU time of SDK, stubs and engine together. So the ratio includes the engine, and the column
//! `difference` shows the cost of the SDK alone. The table measures both sides in turn and takes the median of the pairs, because the
//! speed of a machine drifts.
//!
//! The baselines call the stubs and do only what is necessary:
//!
//! - *trigger*, *bulk of 1000*: one call with the input as JSON. The SDK also tags runs, so that one stream reports on all of them, and
//!   parses the returned ids. The baseline *tagged* has the same tag, so that only the SDK's code differs.
//! - *no-op task*, *no-op task of 20,000*: one loop over `ListenV2`, heartbeats, and for each START a Tokio task that reports STARTED and COMPLETED. It neither
//!   parses inputs nor handles cancels and retries. The time is from a bulk trigger of 2000 or 20,000 runs to the end of the last one. Both sides
//!   trigger the runs and poll for the end by raw calls.
//! - *page of 50*: there are no generated stubs for REST. The baseline is an HTTP client on the loopback address that sends the two
//!   requests of the SDK (rows and total) concurrently, and reads the bytes without decoding them.

#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a command-line program, which exits on a failure"
)]

mod interleaved;
mod raw_report;

use std::alloc::System;
use std::collections::HashSet;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use futures_util::future::try_join;
use hatchet::config::TlsStrategy;
use hatchet::embedded::Engine;
use hatchet::model::Window;
use hatchet::raw::RawChannel;
use hatchet::raw::pb::dispatcher_client::DispatcherClient;
use hatchet::raw::pb::v1::admin_service_client::AdminServiceClient;
use hatchet::raw::pb::v1::{
    CreateTaskOpts, CreateWorkflowVersionRequest, GetRunDetailsRequest, TriggerWorkflowRequest,
};
use hatchet::raw::pb::workflow_service_client::WorkflowServiceClient;
use hatchet::raw::pb::{
    ActionType, AssignedAction, BulkTriggerWorkflowRequest, HeartbeatRequest, WorkerListenRequest,
    WorkerRegisterRequest,
};
use hatchet::workflow::WorkflowRef;
use hatchet::{Client, Config, Context, RunFilter, RunStatus, Task};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use self::interleaved::{interleaved, median};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const WORKFLOW: &str = "noop";
const BULK: usize = 1000;
/// Large enough that the poll interval of one millisecond is negligible.
const TASKS: usize = 2000;
/// The number of tasks of the row with many tasks.
const MANY_TASKS: usize = 20_000;
/// The number of runs after which a new engine is started, so that first accesses to memory are not measured.
const RUNS_PER_ENGINE: u64 = 20_000;
/// The number of listed runs.
const LISTED: usize = 1000;
const PAGE: usize = 50;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Input {
    customer: String,
    number: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Output {
    ok: bool,
}

fn input() -> Input {
    Input { customer: "acme".into(), number: 42 }
}

/// An engine with a workflow, and the clients of both sides.
struct Setup {
    engine: Engine,
    client: Client,
    workflows: WorkflowServiceClient<RawChannel>,
    noop: WorkflowRef<Input, Output>,
}

impl Setup {
    async fn new() -> Self {
        let engine = Engine::start().await.unwrap();
        let client = engine.client();
        let definition = CreateWorkflowVersionRequest {
            name: WORKFLOW.into(),
            tasks: vec![CreateTaskOpts {
                readable_id: WORKFLOW.into(),
                action: format!("{WORKFLOW}:{WORKFLOW}"),
                timeout: "60s".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        AdminServiceClient::new(client.raw_channel()).put_workflow(definition).await.unwrap();
        let workflows = WorkflowServiceClient::new(client.raw_channel());
        let setup = Self { engine, client, workflows, noop: WorkflowRef::new(WORKFLOW) };
        // A warm-up: the SDK fetches the workflow before its first run.
        setup.trigger(Side::Raw).await;
        setup.trigger(Side::Sdk).await;
        setup
    }

    async fn trigger(&self, side: Side) {
        match side {
            Side::Sdk => drop(black_box(self.client.run(&self.noop, &input()).start().await.unwrap())),
            raw => {
                let response = self.workflows.clone().trigger_workflow(raw.request(&input())).await.unwrap();
                black_box(response.into_inner().workflow_run_id);
            }
        }
    }

    async fn bulk(&self, side: Side, runs: usize) {
        match side {
            Side::Sdk => {
                let inputs = std::iter::repeat_with(input).take(runs);
                let started = self.client.run_many(&self.noop, inputs).start().await.unwrap();
                assert!(black_box(started).iter().all(Result::is_ok));
            }
            raw => assert_eq!(black_box(self.raw_bulk(raw, runs).await).len(), runs),
        }
    }

    async fn raw_bulk(&self, side: Side, runs: usize) -> Vec<String> {
        let workflows = std::iter::repeat_with(|| side.request(&input())).take(runs).collect();
        let response =
            self.workflows.clone().bulk_trigger_workflow(BulkTriggerWorkflowRequest { workflows }).await.unwrap();
        response.into_inner().workflow_run_ids
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Raw,
    /// The stubs, with the tag that the SDK adds.
    Tagged,
    Sdk,
}

impl Side {
    fn request(self, input: &Input) -> TriggerWorkflowRequest {
        TriggerWorkflowRequest {
            name: WORKFLOW.into(),
            input: serde_json::to_string(input).unwrap(),
            additional_metadata: (self == Self::Tagged).then(|| r#"{"hatchet_rs__client":"0123456789abcdef"}"#.into()),
            ..Default::default()
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Tagged => "tagged",
            Self::Sdk => "sdk",
        }
    }
}

/// The time of `count` sequential triggers.
async fn triggers(side: Side, mut count: u64) -> Duration {
    let mut spent = Duration::ZERO;
    while count > 0 {
        let now = count.min(RUNS_PER_ENGINE);
        let setup = Setup::new().await;
        let start = Instant::now();
        for _ in 0..now {
            setup.trigger(side).await;
        }
        spent += start.elapsed();
        setup.engine.shutdown().await;
        count -= now;
    }
    spent
}

/// The time of `count` sequential bulk triggers.
async fn bulks(side: Side, mut count: u64) -> Duration {
    let mut spent = Duration::ZERO;
    while count > 0 {
        let now = count.min(RUNS_PER_ENGINE / BULK as u64);
        let setup = Setup::new().await;
        let start = Instant::now();
        for _ in 0..now {
            setup.bulk(side, BULK).await;
        }
        spent += start.elapsed();
        setup.engine.shutdown().await;
        count -= now;
    }
    spent
}

/// The time of `count` tasks, from their trigger to the end of the last one.
async fn tasks(side: Side, mut count: u64) -> Duration {
    let mut spent = Duration::ZERO;
    while count > 0 {
        let now = count.min(MANY_TASKS as u64);
        let setup = Setup::new().await;
        let worker = match side {
            Side::Sdk => {
                let noop = Task::new(WORKFLOW, async |_: Input, _: Context| Ok(Output { ok: true }));
                let starting = setup.client.worker("bench").register(&noop).build().unwrap().start();
                let running = Box::pin(starting).await.unwrap();
                Working::Sdk { _running: running }
            }
            _ => Working::Raw(tokio::spawn(raw_worker(setup.client.clone()))),
        };
        // A warm-up of the worker.
        round(&setup, 20).await;
        spent += round(&setup, usize::try_from(now).unwrap()).await;
        if let Working::Raw(task) = &worker {
            task.abort();
        }
        drop(worker);
        setup.engine.shutdown().await;
        count -= now;
    }
    spent
}

enum Working {
    Raw(tokio::task::JoinHandle<()>),
    Sdk { _running: hatchet::worker::RunningWorker },
}

/// Triggers runs and polls for the end of the last one. A stream of results is slow for runs that have ended before the request, and a
/// stream of events would add work to the engine for each task.
async fn round(setup: &Setup, runs: usize) -> Duration {
    let mut admin = AdminServiceClient::new(setup.client.raw_channel());
    let start = Instant::now();
    let mut ids = setup.raw_bulk(Side::Raw, runs).await;
    let last = GetRunDetailsRequest { external_id: ids.pop().unwrap() };
    while !admin.get_run_details(last.clone()).await.unwrap().into_inner().done {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let spent = start.elapsed();
    // The queue is first in, first out, so the other runs have almost ended. None may be lost.
    for external_id in ids {
        let run = GetRunDetailsRequest { external_id };
        while !admin.get_run_details(run.clone()).await.unwrap().into_inner().done {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    spent
}

/// A worker over the stubs alone.
async fn raw_worker(client: Client) {
    let mut dispatcher = DispatcherClient::new(client.raw_channel());
    let registration = WorkerRegisterRequest {
        worker_name: "bench".into(),
        actions: vec![format!("{WORKFLOW}:{WORKFLOW}")],
        slot_config: [("default".to_owned(), 100)].into(),
        ..Default::default()
    };
    let worker_id = dispatcher.register(registration).await.unwrap().into_inner().worker_id;
    let heartbeats = async {
        let (mut dispatcher, worker_id) = (dispatcher.clone(), worker_id.clone());
        loop {
            let request = HeartbeatRequest { worker_id: worker_id.clone(), heartbeat_at: None };
            // The first heartbeats may be sent before the stream is open.
            let pause = if dispatcher.heartbeat(request).await.is_ok() { 2000 } else { 1 };
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    };
    let work = async {
        let request = WorkerListenRequest { worker_id: worker_id.clone() };
        let mut actions = dispatcher.clone().listen_v2(request).await.unwrap().into_inner();
        while let Some(action) = actions.message().await.unwrap() {
            assert_eq!(action.action_type, ActionType::StartStepRun as i32);
            tokio::spawn(raw_task(dispatcher.clone(), worker_id.clone(), action));
        }
    };
    tokio::select! {
        biased;
        () = work => panic!("the stream ended"),
        () = heartbeats => {}
    }
}

async fn raw_task(mut dispatcher: DispatcherClient<RawChannel>, worker_id: String, action: AssignedAction) {
    let started = raw_report::started(worker_id, action);
    let completed = raw_report::completed(&started, r#"{"ok":true}"#.into());
    dispatcher.send_step_action_event(started).await.unwrap();
    dispatcher.send_step_action_event(completed).await.unwrap();
}

/// An engine on the loopback address with some runs, and the clients of both sides.
struct ListSetup {
    engine: Engine,
    client: Client,
    http: HttpClient<HttpConnector, Empty<&'static [u8]>>,
    authorization: String,
    rows: String,
    total: String,
}

impl ListSetup {
    async fn new() -> Self {
        let engine = Engine::builder().listen().start().await.unwrap();
        let environment = engine.environment();
        let variable = |name: &str| environment.iter().find(|(other, _)| *other == name).unwrap().1.clone();
        let (token, server) = (variable("HATCHET_CLIENT_TOKEN"), variable("HATCHET_CLIENT_SERVER_URL"));
        let config = Config::builder().token(token.clone()).tls_strategy(TlsStrategy::None).build().unwrap();
        let client = Client::new(config).unwrap();
        let noop = Task::new(WORKFLOW, async |_: Input, _: Context| Ok(Output { ok: true }));
        let starting = engine.client().worker("bench").register(&noop).build().unwrap().start();
        let worker = Box::pin(starting).await.unwrap();
        let runs = engine.client().runs(Window::all());
        drop(engine.client().run_many(&noop, std::iter::repeat_with(input).take(LISTED)).start().await.unwrap());
        while runs.counts_by_status().await.unwrap().get(&RunStatus::Completed) < Some(LISTED as u64) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(worker);
        let list = format!(
            "{server}/api/v1/stable/tenants/{}/workflow-runs?since=1970-01-01T00%3A00%3A00.000000Z&only_tasks=false&additional_metadata_operator=AND",
            engine.tenant_id()
        );
        Self {
            engine,
            client,
            http: HttpClient::builder(TokioExecutor::new()).build(HttpConnector::new()),
            authorization: format!("Bearer {token}"),
            rows: format!("{list}&limit={PAGE}&offset=0"),
            total: format!("{list}&limit=1&offset=0"),
        }
    }

    async fn get(&self, uri: &str) -> Result<usize, Box<dyn std::error::Error>> {
        let request = http::Request::get(uri).header("authorization", &self.authorization).body(Empty::new())?;
        let response = self.http.request(request).await?;
        assert!(response.status().is_success(), "{}", response.status());
        Ok(response.into_body().collect().await?.to_bytes().len())
    }

    async fn page(&self, side: Side) {
        if side == Side::Sdk {
            let page = self.client.runs(RunFilter::new(Window::all())).page(PAGE).await.unwrap();
            assert_eq!(black_box(page).items.len(), PAGE);
        } else {
            let (rows, total) = try_join(self.get(&self.rows), self.get(&self.total)).await.unwrap();
            assert!(black_box(rows) > black_box(total));
        }
    }

    async fn pages(&self, side: Side, count: u64) -> Duration {
        let start = Instant::now();
        for _ in 0..count {
            self.page(side).await;
        }
        start.elapsed()
    }
}

fn groups(criterion: &mut Criterion, runtime: &Runtime) {
    let each = |group: &str, size: usize| (group.to_owned(), Throughput::Elements(size as u64));
    let mut bench = |(name, throughput): (String, Throughput), time: &dyn Fn(Side, u64) -> Duration, sides: &[Side]| {
        let mut group = criterion.benchmark_group(name);
        group
            .throughput(throughput)
            .sample_size(10)
            .warm_up_time(Duration::from_secs(1))
            .measurement_time(Duration::from_secs(3));
        for &side in sides {
            group.bench_function(BenchmarkId::from_parameter(side.name()), |bencher| {
                bencher.iter_custom(|count| time(side, count));
            });
        }
        group.finish();
    };
    let all = [Side::Raw, Side::Tagged, Side::Sdk];
    let two = [Side::Raw, Side::Sdk];
    bench(each("trigger", 1), &|side, count| runtime.block_on(triggers(side, count)), &all);
    bench(each("bulk of 1000", BULK), &|side, count| runtime.block_on(bulks(side, count)), &all);
    bench(each("no-op task", 1), &|side, count| runtime.block_on(tasks(side, count)), &two);
    let lists = runtime.block_on(ListSetup::new());
    bench(each("page of 50", PAGE), &|side, count| runtime.block_on(lists.pages(side, count)), &two);
    runtime.block_on(lists.engine.shutdown());
}

/// Measures two sides in turn, and prints a row: the medians, and the median of the ratios and differences of the pairs.
async fn row(
    name: &str,
    rounds: usize,
    per_round: usize,
    raw: impl AsyncFn() -> Duration,
    sdk: impl AsyncFn() -> Duration,
) {
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(u32::try_from(per_round).unwrap());
    let pairs: Vec<_> =
        interleaved(rounds, raw, sdk).await.into_iter().map(|(raw, sdk)| (micros(raw), micros(sdk))).collect();
    let median = |of: &dyn Fn(&(f64, f64)) -> f64| median(pairs.iter().map(of));
    let (raw, sdk) = (median(&|pair| pair.0), median(&|pair| pair.1));
    let (ratio, own) = (median(&|pair| pair.1 / pair.0), median(&|pair| pair.1 - pair.0));
    println!("{name:<28} {raw:>10.2} {sdk:>10.2} {ratio:>7.2} {own:>10.2}");
}

async fn table() {
    println!("\n{:<28} {:>10} {:>10} {:>7} {:>10}", "µs for each", "raw", "SDK", "ratio", "difference");
    let sdk = Side::Sdk;
    for (floor, name) in [(Side::Raw, ""), (Side::Tagged, ", tagged")] {
        let count = 2000;
        row(
            &format!("trigger{name}"),
            21,
            count,
            async || triggers(floor, count as u64).await,
            async || triggers(sdk, count as u64).await,
        )
        .await;
    }
    for (floor, name) in [(Side::Raw, ""), (Side::Tagged, ", tagged")] {
        let name = format!("run of a bulk of 1000{name}");
        row(&name, 21, 5 * BULK, async || bulks(floor, 5).await, async || bulks(sdk, 5).await).await;
    }
    row(
        "no-op task",
        31,
        TASKS,
        async || tasks(Side::Raw, TASKS as u64).await,
        async || tasks(sdk, TASKS as u64).await,
    )
    .await;
    row(
        "no-op task of 20 000",
        7,
        MANY_TASKS,
        async || tasks(Side::Raw, MANY_TASKS as u64).await,
        async || tasks(sdk, MANY_TASKS as u64).await,
    )
    .await;
    for side in [Side::Raw, sdk] {
        let region = Region::new(ALLOCATOR);
        tasks(side, MANY_TASKS as u64).await;
        let change = region.change();
        let (count, bytes) = (change.allocations + change.reallocations, change.bytes_allocated);
        let name = side.name();
        println!(
            "no-op task, {name}: {} allocations, {} bytes, with the engine",
            count / MANY_TASKS,
            bytes / MANY_TASKS
        );
    }
    let lists = ListSetup::new().await;
    row("page of 50", 21, 100, async || lists.pages(Side::Raw, 100).await, async || lists.pages(sdk, 100).await).await;
    lists.engine.shutdown().await;
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut criterion = Criterion::default().configure_from_args();
    groups(&mut criterion, &runtime);
    criterion.final_summary();
    // The table is not printed in test mode and for `--list`.
    let arguments: HashSet<_> = std::env::args().collect();
    if arguments.contains("--bench") && !arguments.contains("--test") && !arguments.contains("--list") {
        runtime.block_on(table());
    }
}
