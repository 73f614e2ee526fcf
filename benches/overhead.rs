//! What does the SDK cost on top of the generated stubs? The same work through both, in one process and on one thread,
//! against the embedded engine.
//!
//! ```text
//! cargo bench --bench overhead             # criterion's groups, and then a table of ratios
//! cargo bench --bench overhead -- table    # only the table
//! ```
//!
//! Wall time on a single thread is the processor's time of all that takes part: SDK, stubs and engine. So a ratio
//! flatters the SDK as far as the engine is in it, and the column `SDK's own` has what is left without: the difference.
//! The table measures both sides in turn and takes the median of the pairs, since a machine's speed drifts.
//!
//! The floors, each a caller of the stubs who does nothing that is not needed:
//!
//! - *trigger*, *bulk of 1000*: the input as JSON, one call. The SDK also tags runs, so that one stream can tell of all
//!   of them, and checks the answer's ids; *tagged* is the floor with the same tag, where only the SDK's code is left.
//! - *no-op task*: one loop over `ListenV2`, a heartbeat beside it, and for each START a task that reports STARTED and
//!   COMPLETED. It reads no input, keeps no account, hears no cancel and retries nothing. Measured from a bulk trigger of
//!   2000 runs to the end of the last; both, and looking for it, are raw on either side.
//! - *page of 50*: there are no generated stubs for REST, so the floor is a plain HTTP client on the loopback address that
//!   sends the SDK's two requests (the rows and the total) at the same time, and reads the bytes without decoding them.

#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for the terminal, which can do nothing better with a failure than to end"
)]

mod interleaved;

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
    ActionType, AssignedAction, BulkTriggerWorkflowRequest, HeartbeatRequest, StepActionEvent, StepActionEventType,
    WorkerListenRequest, WorkerRegisterRequest,
};
use hatchet::workflow::WorkflowRef;
use hatchet::{Client, Config, Context, RunFilter, RunStatus, Task};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use self::interleaved::{interleaved, median};

const WORKFLOW: &str = "noop";
const BULK: usize = 1000;
/// So many that the millisecond by which their end is looked for does not count.
const TASKS: usize = 2000;
/// Runs after which a fresh engine is taken: with more, memory that is met for the first time would be in the figures.
const RUNS_PER_ENGINE: u64 = 20_000;
/// Runs that the list has.
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

/// An engine that knows the workflow, and what both sides call it through.
struct Bed {
    engine: Engine,
    client: Client,
    workflows: WorkflowServiceClient<RawChannel>,
    noop: WorkflowRef<Input, Output>,
}

impl Bed {
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
        let bed = Self { engine, client, workflows, noop: WorkflowRef::new(WORKFLOW) };
        // Once each, so that nothing is done for the first time: the SDK looks the workflow up before its first run.
        bed.trigger(Side::Raw).await;
        bed.trigger(Side::Sdk).await;
        bed
    }

    async fn trigger(&self, side: Side) {
        match side {
            Side::Sdk => drop(black_box(self.client.run(&self.noop, &input()).start().await.unwrap())),
            raw => {
                let answer = self.workflows.clone().trigger_workflow(raw.request(&input())).await.unwrap();
                black_box(answer.into_inner().workflow_run_id);
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
        let answer =
            self.workflows.clone().bulk_trigger_workflow(BulkTriggerWorkflowRequest { workflows }).await.unwrap();
        answer.into_inner().workflow_run_ids
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Raw,
    /// Raw, with the tag that the SDK gives its runs.
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

/// The time of so many triggers, one after the other.
async fn triggers(side: Side, mut count: u64) -> Duration {
    let mut spent = Duration::ZERO;
    while count > 0 {
        let now = count.min(RUNS_PER_ENGINE);
        let bed = Bed::new().await;
        let start = Instant::now();
        for _ in 0..now {
            bed.trigger(side).await;
        }
        spent += start.elapsed();
        bed.engine.shutdown().await;
        count -= now;
    }
    spent
}

/// The time of so many bulks.
async fn bulks(side: Side, mut count: u64) -> Duration {
    let mut spent = Duration::ZERO;
    while count > 0 {
        let now = count.min(RUNS_PER_ENGINE / BULK as u64);
        let bed = Bed::new().await;
        let start = Instant::now();
        for _ in 0..now {
            bed.bulk(side, BULK).await;
        }
        spent += start.elapsed();
        bed.engine.shutdown().await;
        count -= now;
    }
    spent
}

/// The time in which a worker gets so many tasks done, from their trigger to the last one's result.
async fn tasks(side: Side, mut count: u64) -> Duration {
    let mut spent = Duration::ZERO;
    while count > 0 {
        let now = count.min(TASKS as u64);
        let bed = Bed::new().await;
        let worker = match side {
            Side::Sdk => {
                let noop = Task::new(WORKFLOW, async |_: Input, _: Context| Ok(Output { ok: true }));
                let starting = bed.client.worker("bench").register(&noop).build().unwrap().start();
                let running = Box::pin(starting).await.unwrap();
                Working::Sdk { _running: running }
            }
            _ => Working::Raw(tokio::spawn(raw_worker(bed.client.clone()))),
        };
        // Also done before it begins: whatever the worker does for the first time.
        round(&bed, 20).await;
        spent += round(&bed, usize::try_from(now).unwrap()).await;
        if let Working::Raw(task) = &worker {
            task.abort();
        }
        drop(worker);
        bed.engine.shutdown().await;
        count -= now;
    }
    spent
}

enum Working {
    Raw(tokio::task::JoinHandle<()>),
    Sdk { _running: hatchet::worker::RunningWorker },
}

/// Triggers runs and waits for the last one. Not by a stream of results: it is slow to tell of what had ended before it
/// was asked, and with a stream of events the engine would have more to do for each task.
async fn round(bed: &Bed, runs: usize) -> Duration {
    let mut admin = AdminServiceClient::new(bed.client.raw_channel());
    let start = Instant::now();
    let mut ids = bed.raw_bulk(Side::Raw, runs).await;
    let last = GetRunDetailsRequest { external_id: ids.pop().unwrap() };
    while !admin.get_run_details(last.clone()).await.unwrap().into_inner().done {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let spent = start.elapsed();
    // The queue is first in, first out, so little can be left of the others. None may be lost.
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
    let beats = async {
        let (mut dispatcher, worker_id) = (dispatcher.clone(), worker_id.clone());
        loop {
            let beat = HeartbeatRequest { worker_id: worker_id.clone(), heartbeat_at: None };
            // The first beats may come before the stream is there.
            let pause = if dispatcher.heartbeat(beat).await.is_ok() { 2000 } else { 1 };
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
        () = work => panic!("the stream has ended"),
        () = beats => {}
    }
}

async fn raw_task(mut dispatcher: DispatcherClient<RawChannel>, worker_id: String, action: AssignedAction) {
    let started = StepActionEvent {
        worker_id,
        job_id: action.job_id,
        job_run_id: action.job_run_id,
        task_id: action.task_id,
        task_run_external_id: action.task_run_external_id,
        action_id: action.action_id,
        event_timestamp: Some(std::time::SystemTime::UNIX_EPOCH.into()),
        event_type: StepActionEventType::StepEventTypeStarted as i32,
        retry_count: Some(action.retry_count),
        ..Default::default()
    };
    let completed = StepActionEvent {
        event_type: StepActionEventType::StepEventTypeCompleted as i32,
        event_payload: r#"{"ok":true}"#.into(),
        ..started.clone()
    };
    dispatcher.send_step_action_event(started).await.unwrap();
    dispatcher.send_step_action_event(completed).await.unwrap();
}

/// An engine on the loopback address with some runs, and both ways to list them.
struct Shelf {
    engine: Engine,
    client: Client,
    http: HttpClient<HttpConnector, Empty<&'static [u8]>>,
    authorization: String,
    rows: String,
    total: String,
}

impl Shelf {
    async fn new() -> Self {
        let engine = Engine::builder().listen(0, 0).start().await.unwrap();
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
        let asked = format!(
            "{server}/api/v1/stable/tenants/{}/workflow-runs?since=1970-01-01T00%3A00%3A00.000000Z&only_tasks=false&additional_metadata_operator=AND",
            engine.tenant()
        );
        Self {
            engine,
            client,
            http: HttpClient::builder(TokioExecutor::new()).build(HttpConnector::new()),
            authorization: format!("Bearer {token}"),
            rows: format!("{asked}&limit={PAGE}&offset=0"),
            total: format!("{asked}&limit=1&offset=0"),
        }
    }

    async fn get(&self, uri: &str) -> Result<usize, Box<dyn std::error::Error>> {
        let request = http::Request::get(uri).header("authorization", &self.authorization).body(Empty::new())?;
        let answer = self.http.request(request).await?;
        assert!(answer.status().is_success(), "{}", answer.status());
        Ok(answer.into_body().collect().await?.to_bytes().len())
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
    let shelf = runtime.block_on(Shelf::new());
    bench(each("page of 50", PAGE), &|side, count| runtime.block_on(shelf.pages(side, count)), &two);
    runtime.block_on(shelf.engine.shutdown());
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
    println!("\n{:<28} {:>10} {:>10} {:>7} {:>10}", "µs for each", "raw", "SDK", "ratio", "SDK's own");
    let sdk = Side::Sdk;
    for (floor, name) in [(Side::Raw, ""), (Side::Tagged, ", floor tagged")] {
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
    for (floor, name) in [(Side::Raw, ""), (Side::Tagged, ", floor tagged")] {
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
    let shelf = Shelf::new().await;
    row("page of 50", 21, 100, async || shelf.pages(Side::Raw, 100).await, async || shelf.pages(sdk, 100).await).await;
    shelf.engine.shutdown().await;
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut criterion = Criterion::default().configure_from_args();
    groups(&mut criterion, &runtime);
    criterion.final_summary();
    // Not when the benchmarks are only tried out or listed.
    let arguments: HashSet<_> = std::env::args().collect();
    if arguments.contains("--bench") && !arguments.contains("--test") && !arguments.contains("--list") {
        runtime.block_on(table());
    }
}
