//! Measures the memory of each run in the embedded engine, finished or queued, and of each future of this SDK that waits for the outcome
//! of a run, of each watch, and of each slot of a worker that runs an attempt. It fails if a goal is missed.
//!
//! ```text
//! cargo bench --bench memory
//! ```
//!
//! *Heap* is the memory that the program has allocated, counted by a wrapper around the allocator. *RSS* is the value of the system,
//! which includes the allocator's overhead. Each part runs in a separate process, because RSS is meaningless after memory was freed. The
//! memory that the embedded engine uses for a waiter is measured separately, with a stream of results for as many runs, and subtracted,
//! because a remote server would use it in another process.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a command-line program, which exits on a failure"
)]

mod bare_worker;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use hatchet::embedded::Engine;
use hatchet::model::Window;
use hatchet::raw::pb::SubscribeToWorkflowRunsRequest;
use hatchet::raw::pb::dispatcher_client::DispatcherClient;
use hatchet::worker::RunningWorker;
use hatchet::{Client, Context, RunHandle, RunStatus, Task};
use peak_alloc::PeakAlloc;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::sleep;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Large enough that fixed costs are negligible.
const RUNS: usize = 100_000;
/// The number of runs per call.
const BATCH: usize = 1000;
const WAITERS: usize = 100_000;
/// The numbers of waiters of a process of its own.
const RESIDENT_WAITERS: [usize; 3] = [1000, 10_000, 100_000];
const SLOTS: usize = 1000;
/// The number of runs before the memory of a worker process is measured: few, so that they leave no memory that the measured ones reuse.
const WARM_UP: usize = 20;
const WATCHES: [usize; 2] = [1000, 10_000];
/// After this time, each run has been fetched once, and the memory for it has been freed.
const STABLE_AFTER: Duration = Duration::from_secs(8);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Input {
    customer: String,
    number: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Output {
    ok: bool,
}

/// Whether a goal was missed.
static MISSED: AtomicBool = AtomicBool::new(false);

/// The memory at a point in time, in bytes.
#[derive(Debug, Clone, Copy)]
struct Memory {
    heap: usize,
    /// `None` if the system does not report it.
    rss: Option<usize>,
}

impl Memory {
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<usize>().ok());
        Self { heap: ALLOCATOR.current_usage(), rss: kib.map(|kib| kib * 1024) }
    }

    /// The bytes for each of `count` items that were created since `before`.
    fn each(self, before: Self, count: usize) -> Each {
        let each = |now: usize, before: usize| now.saturating_sub(before) / count;
        Each {
            heap: each(self.heap, before.heap),
            rss: self.rss.zip(before.rss).map(|(now, before)| each(now, before)),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Each {
    heap: usize,
    rss: Option<usize>,
}

impl Each {
    /// Subtracts another value. RSS values of two processes cannot be subtracted.
    fn less(self, other: Self) -> Self {
        Self { heap: self.heap.saturating_sub(other.heap), rss: None }
    }

    /// `goal`: for the resident memory if it is known, otherwise for the heap.
    fn print(self, what: &str, goal: Option<usize>) {
        let rss = self.rss.map_or_else(|| "-".into(), |rss| rss.to_string());
        let is_met = |goal: &usize| self.rss.unwrap_or(self.heap) < *goal;
        MISSED.fetch_or(!goal.iter().all(is_met), Relaxed);
        let goal =
            goal.map_or_else(String::new, |goal| format!("{goal:>8} {}", if is_met(&goal) { "met" } else { "MISSED" }));
        println!("{what:<58} {:>8} {rss:>8} {goal}", self.heap);
    }
}

fn noop() -> Task<Input, Output> {
    Task::new("noop", async |_: Input, _: Context| Ok(Output { ok: true }))
}

async fn start_worker(client: &Client) -> RunningWorker {
    let starting = client.worker("bench").register(&noop()).build().unwrap().start();
    Box::pin(starting).await.unwrap()
}

/// An engine that knows the workflow and has no worker.
async fn engine() -> (Engine, Client) {
    let engine = Engine::start().await.unwrap();
    let client = engine.client();
    let worker = start_worker(&client).await;
    client.run(&noop(), &Input { customer: "acme".into(), number: 0 }).start().await.unwrap().outcome().await.unwrap();
    drop(worker.shutdown().await);
    (engine, client)
}

async fn start(client: &Client, runs: usize) -> Vec<RunHandle<Output>> {
    let inputs = (0..runs).map(|number| Input { customer: "acme".into(), number });
    let started = client.run_many(&noop(), inputs).start().await.unwrap();
    started.into_iter().map(|run| run.unwrap()).collect()
}

/// Starts runs in batches and drops their handles, so that the memory for starting them is freed.
async fn start_in_batches(client: &Client, runs: usize) {
    for started in (0..runs).step_by(BATCH) {
        drop(start(client, BATCH.min(runs - started)).await);
    }
}

/// Runs that are all queued, and then executed.
async fn queued(count: usize) {
    let (engine, client) = engine().await;
    let before = Memory::now();
    start_in_batches(&client, count).await;
    Memory::now().each(before, count).print("a queued run", None);
    let worker = start_worker(&client).await;
    finished(&client, count).await;
    drop(worker.shutdown().await);
    Memory::now().each(before, count).print("the same run, finished", Some(1536));
    engine.shutdown().await;
}

/// Runs that are executed immediately, so that the queue stays short.
async fn finished_immediately(count: usize) {
    let (engine, client) = engine().await;
    let worker = start_worker(&client).await;
    let before = Memory::now();
    for batch in 1..=count / BATCH {
        start_in_batches(&client, BATCH).await;
        finished(&client, batch * BATCH).await;
    }
    drop(worker.shutdown().await);
    Memory::now().each(before, count).print("a run that finished soon after its start", Some(1536));
    engine.shutdown().await;
}

/// Waits until `count` runs have completed, in addition to the first run of the workflow.
async fn finished(client: &Client, count: usize) {
    let all = client.runs(Window::all());
    while all.counts_by_status().await.unwrap().get(&RunStatus::Completed) <= Some(count as u64) {
        sleep(Duration::from_millis(20)).await;
    }
}

/// The memory of the engine for each run that a stream of results waits for.
async fn bare_waiters(count: usize) -> Each {
    let (engine, client) = engine().await;
    let ids: Vec<_> = start(&client, count).await.iter().map(RunHandle::id).collect();
    let before = Memory::now();
    let requests =
        ids.iter().map(|id| SubscribeToWorkflowRunsRequest { workflow_run_id: id.to_string() }).collect::<Vec<_>>();
    let requests = stream::iter(requests).chain(stream::pending());
    let mut dispatcher = DispatcherClient::new(client.raw_channel());
    let listening = tokio::spawn(async move {
        // The headers are sent with the first result, which never arrives.
        let _ = dispatcher.subscribe_to_workflow_runs(requests).await;
    });
    sleep(STABLE_AFTER).await;
    let each = Memory::now().each(before, count);
    listening.abort();
    engine.shutdown().await;
    each
}

/// The memory for each pending `outcome()`, without its handle.
async fn waiters(count: usize, start_waits: impl FnOnce(Vec<RunHandle<Output>>) -> JoinSet<()>) -> (Each, usize) {
    let (engine, client) = engine().await;
    let handles = start(&client, count).await;
    let before = Memory::now();
    ALLOCATOR.reset_peak_usage();
    let waits = start_waits(handles);
    sleep(STABLE_AFTER).await;
    let each = Memory::now().each(before, count);
    let peak = ALLOCATOR.peak_usage().saturating_sub(before.heap) / count;
    drop(waits);
    engine.shutdown().await;
    (each, peak)
}

/// One Tokio task for each wait.
fn spawned(handles: Vec<RunHandle<Output>>) -> JoinSet<()> {
    handles.into_iter().map(|handle| async move { drop(handle.outcome().await.expect("the run never ends")) }).collect()
}

/// One Tokio task for all waits.
fn joined(handles: Vec<RunHandle<Output>>) -> JoinSet<()> {
    let mut one = JoinSet::new();
    one.spawn(async move {
        join_all(handles.iter().map(RunHandle::outcome)).await;
    });
    one
}

/// One Tokio task for each watch.
fn watched(_: &Client, handles: Vec<RunHandle<Output>>) -> JoinSet<()> {
    let watch = |handle: RunHandle<Output>| async move {
        let mut changes = handle.watch();
        while let Some(change) = changes.next().await {
            change.expect("the run is queued");
        }
    };
    handles.into_iter().map(watch).collect()
}

/// One stream for all runs.
fn watched_in_one(client: &Client, handles: Vec<RunHandle<Output>>) -> JoinSet<()> {
    let (mut one, mut changes) = (JoinSet::new(), client.watch_many(handles));
    one.spawn(async move {
        while let Some(change) = changes.next().await {
            change.expect("the run is queued");
        }
    });
    one
}

/// The memory for each queued run that is watched, without its handle. It includes that of the engine, which has one subscription for all.
async fn watches(count: usize, start_watches: fn(&Client, Vec<RunHandle<Output>>) -> JoinSet<()>) -> Each {
    let (engine, client) = engine().await;
    let handles = start(&client, count).await;
    let before = Memory::now();
    let watches = start_watches(&client, handles);
    sleep(STABLE_AFTER).await;
    let each = Memory::now().each(before, count);
    drop(watches);
    engine.shutdown().await;
    each
}

/// The memory for each run that a separate Tokio task starts and waits for, in the SDK and the engine, including the handle.
async fn own_starts<F: Future<Output = ()> + Send + 'static>(count: usize, one: impl Fn(Client) -> F) -> Each {
    let (engine, client) = engine().await;
    let before = Memory::now();
    let mut waits = JoinSet::new();
    for _ in 0..count / BATCH {
        for _ in 0..BATCH {
            waits.spawn(one(client.clone()));
        }
        sleep(Duration::from_millis(100)).await;
    }
    sleep(STABLE_AFTER).await;
    let each = Memory::now().each(before, count);
    drop(waits);
    engine.shutdown().await;
    each
}

fn one_run(client: &Client) -> hatchet::builder::RunBuilder<Output> {
    client.run(&noop(), &Input { customer: "acme".into(), number: 42 })
}

async fn start_and_wait(client: Client) {
    let run = one_run(&client).start().await.expect("the engine is there");
    drop(run.outcome().await.expect("it never ends"));
}

async fn outcome_of_one(client: Client) {
    drop(one_run(&client).outcome().await.expect("it never ends"));
}

/// The memory of the engine for each queued run that nobody waits for.
async fn queued_runs(count: usize) -> Each {
    let (engine, client) = engine().await;
    let before = Memory::now();
    start_in_batches(&client, count).await;
    sleep(STABLE_AFTER).await;
    let each = Memory::now().each(before, count);
    engine.shutdown().await;
    each
}

/// A task that does not end.
fn endless() -> Task<Input, Output> {
    Task::new("noop", async |_: Input, _: Context| std::future::pending().await)
}

/// Starts runs and waits until a worker has all of them. Returns the memory for each.
async fn held(client: &Client, count: usize) -> Each {
    let running = || async { client.runs(Window::all()).counts_by_status().await.unwrap().get(&RunStatus::Running) };
    let before = Memory::now();
    start_in_batches(client, count).await;
    while running().await != Some(count as u64) {
        sleep(Duration::from_millis(20)).await;
    }
    sleep(STABLE_AFTER).await;
    Memory::now().each(before, count)
}

/// The memory for each running attempt of a worker over the stubs, which keeps nothing of it.
async fn bare_slots(count: usize) -> Each {
    let (engine, client) = engine().await;
    let receiving = tokio::spawn({
        let client = client.clone();
        async move { bare_worker::receive(&client, "noop", count).await }
    });
    let each = held(&client, count).await;
    receiving.abort();
    engine.shutdown().await;
    each
}

async fn slots(count: usize) {
    let bare = bare_slots(count).await;
    bare.print("a running attempt, in the engine", None);
    let (engine, client) = engine().await;
    let slots = u32::try_from(count).unwrap();
    let starting = client.worker("bench").slots(slots).register(&endless()).build().unwrap().start();
    let worker = Box::pin(starting).await.unwrap();
    let each = held(&client, count).await;
    each.print("a running attempt, in the engine and the worker", None);
    each.less(bare).print("a running attempt, in the worker", Some(8192));
    drop(worker);
    engine.shutdown().await;
}

/// Has a worker in another process run this many attempts at the same time, and prints what it needs for each.
async fn resident(count: usize) {
    let engine = Engine::builder().listen().start().await.unwrap();
    let mut process = spawn(&engine, count, "part=worker");
    // On another thread: the engine runs on this one.
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let ready = tokio::task::spawn_blocking(move || (lines.next().unwrap().unwrap(), lines));
    let (line, mut lines) = ready.await.unwrap();
    assert_eq!(line, "ready");
    let client = engine.client();
    for runs in [WARM_UP, count] {
        let number = usize::from(runs == count);
        let inputs = (0..runs).map(|_| Input { customer: "acme".into(), number });
        drop(client.run_many(&noop(), inputs).start().await.unwrap());
        let status = if number == 0 { RunStatus::Completed } else { RunStatus::Running };
        while client.runs(Window::all()).counts_by_status().await.unwrap().get(&status) != Some(runs as u64) {
            sleep(Duration::from_millis(20)).await;
        }
        sleep(STABLE_AFTER).await;
        writeln!(process.stdin.as_mut().unwrap()).unwrap();
    }
    let line = tokio::task::spawn_blocking(move || lines.next().unwrap().unwrap()).await.unwrap();
    println!("{line}");
    joined_process(process).await;
    engine.shutdown().await;
}

/// Another process of this program, with a client of an engine.
fn spawn(engine: &Engine, count: usize, part: &str) -> Child {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.arg(count.to_string()).args(std::env::args().filter(|argument| argument == "--bench")).arg(part);
    program.envs(engine.environment());
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

async fn joined_process(mut process: Child) {
    let status = tokio::task::spawn_blocking(move || process.wait()).await.unwrap().unwrap();
    MISSED.fetch_or(!status.success(), Relaxed);
}

/// The worker of [`resident`]. A line of input says that the attempts have ended, or run.
async fn worker_process(count: usize) {
    let task = Task::new("noop", async |input: Input, _: Context| match input.number {
        0 => Ok(Output { ok: true }),
        _ => std::future::pending().await,
    });
    let client = Client::from_env().unwrap();
    let slots = u32::try_from(count).unwrap();
    let starting = client.worker("bench").slots(slots).register(&task).build().unwrap().start();
    let worker = Box::pin(starting).await.unwrap();
    println!("ready");
    let line = || tokio::task::spawn_blocking(|| std::io::stdin().lines().next().unwrap().unwrap());
    line().await.unwrap();
    // The pages of the program and the buffers of the connection are in use now.
    let before = Memory::now();
    line().await.unwrap();
    Memory::now().each(before, count).print("a running attempt, in a worker process", Some(8192));
    drop(worker);
}

/// Has another process start this many runs, each in a task that waits for it, and prints what it needs for each.
async fn resident_waits(count: usize) {
    let engine = Engine::builder().listen().start().await.unwrap();
    drop(start_worker(&engine.client()).await.shutdown().await);
    let mut process = spawn(&engine, count, "part=waiter");
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    println!("{}", tokio::task::spawn_blocking(move || lines.next().unwrap().unwrap()).await.unwrap());
    joined_process(process).await;
    engine.shutdown().await;
}

/// The client of [`resident_waits`].
async fn waiter_process(count: usize) {
    let client = Client::from_env().unwrap();
    let mut waits = JoinSet::new();
    (0..WARM_UP).for_each(|_| drop(waits.spawn(start_and_wait(client.clone()))));
    sleep(STABLE_AFTER).await;
    let before = Memory::now();
    for _ in 0..count / WARM_UP {
        (0..WARM_UP).for_each(|_| drop(waits.spawn(start_and_wait(client.clone()))));
        sleep(Duration::from_millis(2)).await;
    }
    // All are started, and the memory for that is freed.
    sleep(2 * STABLE_AFTER).await;
    let each = Memory::now().each(before, count);
    let queued = client.runs(Window::all()).counts_by_status().await.unwrap().get(&RunStatus::Queued);
    assert_eq!(queued, Some((WARM_UP + count) as u64));
    each.print(&format!("start() and outcome(), {count} in a process"), Some(1024));
}

async fn waits(count: usize) {
    let queued = queued_runs(count).await;
    let bare = bare_waiters(count).await;
    bare.print("a wait, in the engine", None);
    let (joined, joined_peak) = waiters(count, joined).await;
    joined.less(bare).print("a pending outcome(), all in one task, in the SDK", Some(1024));
    let (spawned, spawned_peak) = waiters(count, spawned).await;
    spawned.less(bare).print("a pending outcome(), a task for each, in the SDK", Some(1024));
    let started = own_starts(count, start_and_wait).await.less(queued).less(bare);
    started.print("start() and outcome(), a task for each, in the SDK", Some(1024));
    let outcome = own_starts(count, outcome_of_one).await.less(queued).less(bare);
    outcome.print("run().outcome(), a task for each, in the SDK", Some(1024));
    println!("peak of both sides: {joined_peak} in one task, {spawned_peak} in a task for each");
    let (engine, client) = engine().await;
    let handle = client.run_handle("00000000-0000-4000-8000-000000000000".parse().unwrap()).typed::<Output>();
    println!("size of the future: {}; size of the RunHandle: {}", size_of_val(&handle.outcome()), size_of_val(&handle));
    engine.shutdown().await;
}

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    // Without `--bench`, a small run checks that the benchmark works.
    let is_bench = arguments.iter().any(|argument| argument == "--bench");
    let (runs, waiters) = if is_bench { (RUNS, WAITERS) } else { (BATCH, BATCH) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match arguments.last().map(String::as_str) {
        Some("part=queued") => runtime.block_on(queued(runs)),
        Some("part=finished") => runtime.block_on(finished_immediately(runs)),
        Some("part=slots") => runtime.block_on(async {
            let count = if is_bench { SLOTS } else { 10 };
            slots(count).await;
            resident(count).await;
        }),
        Some("part=worker") => runtime.block_on(worker_process(arguments.get(1).unwrap().parse().unwrap())),
        Some("part=waiter") => runtime.block_on(waiter_process(arguments.get(1).unwrap().parse().unwrap())),
        Some("part=watches") => runtime.block_on(async {
            for count in WATCHES {
                let count = if is_bench { count } else { count / 100 };
                watches(count, watched).await.print(&format!("a watch(), of {count} in a task for each"), None);
                let each = watches(count, watched_in_one).await;
                each.print(&format!("a run of a watch_many(), of {count}"), None);
            }
        }),
        Some("part=waits") => runtime.block_on(async {
            waits(waiters).await;
            for count in RESIDENT_WAITERS {
                resident_waits(if is_bench { count } else { count / 50 }).await;
            }
        }),
        _ => {
            println!("{:<58} {:>8} {:>8} {:>8}", "bytes for each", "heap", "RSS", "goal");
            for part in ["part=queued", "part=finished", "part=waits", "part=watches", "part=slots"] {
                let mut program = Command::new(std::env::current_exe().unwrap());
                program.args(is_bench.then_some("--bench")).arg(part);
                MISSED.fetch_or(!program.status().unwrap().success(), Relaxed);
            }
        }
    }
    // A small run only checks that the benchmark works.
    assert!(!is_bench || !MISSED.load(Relaxed), "a goal was missed");
}
