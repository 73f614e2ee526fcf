//! Counts the instructions of SDK operations, and compares them with the generated stubs. Unlike times, instruction counts are stable.
//!
//! ```text
//! cargo bench --bench instructions                          # needs valgrind
//! cargo bench --bench instructions -- trigger               # only this operation
//! ```
//!
//! Each side is a separate process under callgrind, which performs the same operations over TCP against the embedded engine in this
//! process. It runs twice, with N and with 2N operations: the difference is the cost of N operations, without startup and shutdown. The
//! times are CPU times of the same process without callgrind, with the kernel: the medians of five alternating runs. All
//! user-space code of the process is counted: SDK, tonic, hyper, h2 and libc.
//!
//! The baseline of each operation is in `raw.rs`. That of `watch` is a stream of the events of each run, which lacks what a watch adds: it
//! neither reports each state and attempt, nor verifies that nothing is missing.
//!
//! `dispatch` is the dispatch of an assignment, from its arrival to the start of the code and from its end to the report, with the calls
//! that the loop makes, too; `task` is the same with reports that are sent together. The instructions of
//! their parts are only visible in the profile: `CALLGRIND_OUT=<file>` keeps it.
//!
//! A second table has code that runs without a connection, see `alone.rs`.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "benchmarks print to the terminal and may panic"
)]

mod alone;
mod child;
mod raw;
#[path = "../raw_report.rs"]
mod raw_report;
mod sdk;
mod work;

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hatchet::embedded::Engine;
use hatchet::model::Window;
use hatchet::worker::RunningWorker;
use hatchet::{Context, RunStatus, Task};
use tokio::runtime::Runtime;

use self::alone::Alone;
use self::work::{Input, Output, Side, WORKFLOW, Work, input};

/// How long a task of the operations `wait` and `watch` takes: so long that its result is subscribed to before it ends.
const TASK: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Copy)]
enum Tool {
    Callgrind,
    /// No tool: the processor's time.
    Clock,
}

/// An engine, and what it needs so that the process under measurement can do its operations.
struct Bed {
    engine: Engine,
    /// For the operations `wait` and `watch`.
    worker: Option<RunningWorker>,
}

impl Bed {
    async fn new(work: Work) -> Self {
        let engine = Engine::builder().listen().start().await.unwrap();
        let noop = Task::new(WORKFLOW, async |_: Input, _: Context| {
            tokio::time::sleep(TASK).await;
            Ok(Output { ok: true })
        });
        let starting = engine.client().worker("bench").register(&noop).build().unwrap().start();
        let worker = Box::pin(starting).await.unwrap();
        if work.waits() {
            return Self { engine, worker: Some(worker) };
        }
        drop(worker.shutdown().await);
        Self { engine, worker: None }
    }

    /// Has a worker in the other process do this many tasks.
    async fn feed(&self, count: usize) {
        let client = self.engine.client();
        let noop = hatchet::workflow::WorkflowRef::<Input, Output>::new(WORKFLOW);
        let started = client.run_many(&noop, std::iter::repeat_with(input).take(count)).start().await.unwrap();
        assert!(started.iter().all(Result::is_ok));
        let runs = client.runs(Window::all());
        while runs.counts_by_status().await.unwrap().get(&RunStatus::Completed) < Some(count as u64) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What this many operations take: instructions, or nanoseconds.
fn measure(runtime: &Runtime, tool: Tool, work: Work, side: Side, count: usize) -> f64 {
    let bed = runtime.block_on(Bed::new(work));
    let program = std::env::current_exe().unwrap();
    let mut command = match tool {
        Tool::Clock => Command::new(&program),
        Tool::Callgrind => {
            let mut valgrind = Command::new("valgrind");
            valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(&program);
            if let Some(file) = std::env::var_os("CALLGRIND_OUT") {
                let file = format!("{}.{}.{}.{count}", file.display(), work.name(), side.name());
                valgrind = Command::new("valgrind");
                valgrind.arg("--tool=callgrind").arg(format!("--callgrind-out-file={file}")).arg(&program);
            }
            valgrind
        }
    };
    command.args(["part", work.name(), side.name(), &count.to_string()]);
    command.envs(bed.engine.environment()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let result = supervise(runtime, &bed, work, &mut child, count);
    drop(bed.worker);
    runtime.block_on(bed.engine.shutdown());
    match tool {
        Tool::Clock => result.0,
        Tool::Callgrind => result.1.unwrap(),
    }
}

/// Waits for the process: the nanoseconds that it reports, and callgrind's count.
fn supervise(runtime: &Runtime, bed: &Bed, work: Work, child: &mut Child, count: usize) -> (f64, Option<f64>) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    if work.is_worker() {
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        runtime.block_on(bed.feed(count));
    }
    drop(child.stdin.take());
    let nanos = lines.next().unwrap_or_else(|| Ok("0".into())).unwrap().parse().unwrap();
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(child.wait().unwrap().success(), "{log}");
    let collected = log.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    (nanos, collected)
}

/// The instructions of one operation, on average.
fn instructions(runtime: &Runtime, work: Work, side: Side) -> f64 {
    let count = work.operations();
    let [once, twice] = [count, 2 * count].map(|count| measure(runtime, Tool::Callgrind, work, side, count));
    (twice - once) / f64::from(u32::try_from(count).unwrap())
}

/// The microseconds of one operation on both sides, on average: the medians of several pairs, and the median of their ratios.
fn times(runtime: &Runtime, work: Work) -> [f64; 3] {
    // The clock is coarse, and an operation is fast. A wait is mostly idle: many of them take minutes.
    let count = if work.waits() { work.operations() } else { 20 * work.operations() };
    let each =
        |side| measure(runtime, Tool::Clock, work, side, count) / f64::from(u32::try_from(count).unwrap()) / 1000.0;
    let pairs: Vec<_> = (0..5).map(|_| (each(Side::Raw), each(Side::Sdk))).collect();
    let median = |of: fn(&(f64, f64)) -> f64| {
        let mut values: Vec<_> = pairs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    [median(|pair| pair.0), median(|pair| pair.1), median(|pair| pair.1 / pair.0)]
}

/// The instructions of one operation without a connection.
fn alone_each(alone: Alone, waiting: usize) -> f64 {
    let measure = |count: usize| -> f64 {
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(std::env::current_exe().unwrap());
        let output = valgrind.args(["alone", alone.name(), &waiting.to_string(), &count.to_string()]).output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{log}");
        log.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok()).unwrap()
    };
    let count = alone.operations();
    (measure(2 * count) - measure(count)) / f64::from(u32::try_from(count).unwrap())
}

fn row(runtime: &Runtime, work: Work) {
    let [raw, sdk] = [Side::Raw, Side::Sdk].map(|side| instructions(runtime, work, side));
    let [raw_time, sdk_time, time_ratio] = times(runtime, work);
    println!(
        "{:<10} {raw:>10.0} {sdk:>10.0} {:>7.2} {raw_time:>10.2} {sdk_time:>10.2} {time_ratio:>7.2}",
        work.name(),
        sdk / raw
    );
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    if let ["part", work, side, count] = arguments[..] {
        return child::run(Work::named(work).unwrap(), Side::named(side).unwrap(), count.parse().unwrap());
    }
    if let ["alone", name, waiting, count] = arguments[..] {
        let alone = Alone::named(name).unwrap();
        return child::alone(alone, waiting.parse().unwrap(), count.parse().unwrap());
    }
    // `cargo test` starts benchmarks without `--bench`. Nothing is measured then.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        return println!("valgrind is not installed: no instructions are counted");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    println!(
        "{:<10} {:>10} {:>10} {:>7} {:>10} {:>10} {:>7}",
        "", "raw", "SDK", "ratio", "raw, µs", "SDK, µs", "ratio"
    );
    for work in Work::ALL {
        if arguments.is_empty() || arguments.contains(&work.name()) {
            row(&runtime, work);
        }
    }
    println!("\n{:<45} {:>12}", "", "instructions");
    for alone in Alone::ALL {
        if arguments.is_empty() || arguments.contains(&alone.name()) {
            for waiting in alone.waiting() {
                println!("{:<45} {:>12.0}", alone.describe(*waiting), alone_each(alone, *waiting));
            }
        }
    }
}
