//! Workers that are processes of their own: what signals do to them, and what is left when they are killed. This test binary starts itself
//! as the worker. The tests need real time and sockets.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests may panic and print")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hatchet::embedded::{Engine, Fault};
use hatchet::{Client, Context, RunHandle, Task};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};

/// Set in the process that runs the worker, to the path of its outbox file.
const WORKER_ENV: &str = "HATCHET_TEST_WORKER_OUTBOX";
/// The timeout of each step, on a loaded machine.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The grace period of a shutdown. Longer than any test waits.
const GRACE: Duration = Duration::from_secs(600);

/// Sleeps for this number of milliseconds, and returns the id of the process that executes it.
fn nap() -> Task<Millis, u32> {
    Task::new("nap", async |input: Millis, _: Context| {
        sleep(Duration::from_millis(input.millis)).await;
        Ok(std::process::id())
    })
    .timeout(GRACE)
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Millis {
    millis: u64,
}

/// The worker, in its own process. Does nothing in the test process.
#[tokio::test]
async fn worker() {
    let Some(outbox) = std::env::var_os(WORKER_ENV) else { return };
    let worker = Client::from_env().unwrap().worker("worker").outbox_file(outbox).shutdown_grace_period(GRACE);
    let worker = worker.register(&nap()).build().unwrap().start().await.unwrap();
    let mut statuses = worker.statuses();
    tokio::spawn(async move {
        while let Some(status) = statuses.next().await {
            println!("state: {}", status.state);
        }
    });
    println!("report: {}", worker.run_until_signal().await.unwrap());
}

/// Set in the process whose worker blocks its only thread.
const BLOCKED_ENV: &str = "HATCHET_TEST_BLOCKED_WORKER";

/// The function of `docs/operations.md`, with lines for the test, and without the time in which a worker can end.
fn exit_after_second_signal() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt()).unwrap(), signal(SignalKind::terminate()).unwrap())
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            for number in 1..=2 {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                println!("signal: {number}");
            }
            std::process::exit(130);
        });
    });
}

/// A worker whose runtime has one thread, which a task blocks. Does nothing in the test process.
#[tokio::test]
async fn blocked_worker() {
    if std::env::var_os(BLOCKED_ENV).is_none() {
        return;
    }
    exit_after_second_signal();
    let block: Task<Millis, u32> = Task::new("nap", async |input: Millis, _: Context| {
        println!("state: blocked");
        std::thread::sleep(Duration::from_millis(input.millis));
        Ok(std::process::id())
    });
    let worker = Client::from_env().unwrap().worker("worker").register(&block).build().unwrap().start().await.unwrap();
    println!("state: connected");
    println!("report: {}", worker.run_until_signal().await.unwrap());
}

/// A worker in a process of its own, its engine, and the file of its outbox.
struct Process {
    engine: Engine,
    hatchet: Client,
    outbox: PathBuf,
    worker: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    async fn start(name: &str) -> Self {
        Self::start_test(name, "worker", WORKER_ENV).await
    }

    /// Starts this binary with one test only.
    async fn start_test(name: &str, test: &str, env: &str) -> Self {
        let outbox = std::env::temp_dir().join(format!("hatchet-{name}-{}", std::process::id()));
        let engine = Engine::builder().grpc_port(0).rest_port(0).start().await.unwrap();
        let mut worker = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .envs(engine.environment())
            .env(env, &outbox)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(worker.stdout.take().unwrap()).lines();
        let mut process = Self { hatchet: engine.client(), engine, outbox, worker, lines };
        process.line("state: connected").await;
        process
    }

    async fn run(&self, millis: u64) -> RunHandle<u32> {
        self.hatchet.run(&nap(), &Millis { millis }).start().await.unwrap()
    }

    /// Waits until the worker prints a line with this text, and returns the rest of the line.
    async fn line(&mut self, text: &str) -> String {
        loop {
            let line = timeout(TIMEOUT, self.lines.next_line()).await.unwrap().unwrap().unwrap();
            if let Some((_, rest)) = line.split_once(text) {
                return rest.trim().to_owned();
            }
        }
    }

    async fn signal(&self, signal: &str) {
        let id = self.worker.id().unwrap().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().await.unwrap().success());
    }

    async fn end(&mut self) -> ExitStatus {
        timeout(TIMEOUT, self.worker.wait()).await.unwrap().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        for suffix in ["", ".lock", ".new"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", self.outbox.display()));
        }
    }
}

#[tokio::test]
async fn w19_a_worker_drains_on_the_first_signal_and_stops_on_the_second() {
    for (first, second) in [("-INT", None), ("-TERM", Some("-INT")), ("-INT", Some("-TERM"))] {
        let mut process = Process::start(&format!("signals{first}{}", second.unwrap_or_default())).await;
        let run = process.run(if second.is_some() { 3_600_000 } else { 1000 }).await;
        support::until_running(&run).await;
        let signalled = Instant::now();
        process.signal(first).await;
        process.line("state: draining").await;
        if let Some(second) = second {
            process.signal(second).await;
        }
        let expected = if second.is_some() { (0, 1) } else { (1, 0) };
        let report = format!("attempts: {} completed, 0 failed, 0 cancelled, {} unfinished", expected.0, expected.1);
        assert_eq!(process.line("report: ").await, report);
        assert!(process.end().await.success());
        assert!(signalled.elapsed() < TIMEOUT, "{:?}", signalled.elapsed());
    }
}

/// What `docs/operations.md` says about signals while all threads of a runtime are blocked.
#[tokio::test]
async fn a_process_whose_threads_are_blocked_is_ended_by_a_thread_of_its_own() {
    let mut process = Process::start_test("blocked", "blocked_worker", BLOCKED_ENV).await;
    process.run(120_000).await;
    process.line("state: blocked").await;
    for number in ["1", "2"] {
        process.signal("-TERM").await;
        assert_eq!(process.line("signal: ").await, number);
    }
    assert_eq!(process.end().await.code(), Some(130));
}

/// Waits until a file contains a string.
async fn until_contains(file: &Path, text: &str) {
    let contains = async {
        while !std::fs::read_to_string(file).is_ok_and(|content| content.contains(text)) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TIMEOUT, contains).await.unwrap();
}

#[tokio::test]
async fn w22_finished_work_outlives_a_process_that_is_killed() {
    let mut process = Process::start("killed").await;
    for call in ["SendStepActionEvent", "SendBatchActionEvent"] {
        // The code of `UNAVAILABLE`.
        process.engine.faults().inject_always(call, Fault::RejectGrpc(14)).unwrap();
    }
    let id = process.worker.id().unwrap();
    let run = process.run(1).await;
    until_contains(&process.outbox, "\"number\"").await;
    process.signal("-KILL").await;
    assert_eq!(process.end().await.code(), None, "it was killed");
    process.engine.faults().clear();

    let worker = process.hatchet.worker("worker").outbox_file(&process.outbox).register(&nap()).build().unwrap();
    let worker = timeout(TIMEOUT, worker.start()).await.unwrap().unwrap();
    // Not the id of this process, in which the task would run again.
    assert_eq!(timeout(TIMEOUT, run.result()).await.unwrap().unwrap(), id);
    worker.shutdown().await;
}

/// A laptop that sleeps, or a machine that is paused: the engine assigns the attempts of the worker again, and its late results are not those
/// of the runs.
#[tokio::test]
async fn w17_a_process_that_was_frozen_reports_no_attempt_that_it_has_lost() {
    let mut process = Process::start("frozen").await;
    // It ends while the process is frozen, and not before on a slow machine.
    let run = process.run(5_000).await;
    support::until_running(&run).await;
    process.signal("-STOP").await;
    // The engine waits for 30 seconds. Nobody else has the task.
    sleep(Duration::from_secs(33)).await;
    process.signal("-CONT").await;
    let id = process.worker.id().unwrap();
    assert_eq!(timeout(TIMEOUT, run.result()).await.unwrap().unwrap(), id);
    let details = run.details().await.unwrap();
    assert_eq!(details.conflicts.len(), 0, "{details:?}");
    let completed = |task: &hatchet::model::TaskDetails| {
        task.attempts.iter().filter(|attempt| attempt.status == hatchet::RunStatus::Completed).count()
    };
    assert_eq!(details.tasks.iter().map(completed).collect::<Vec<_>>(), [1], "{details:?}");
    assert_eq!(details.tasks[0].attempts.len(), 2, "{details:?}");
    process.signal("-TERM").await;
    assert_eq!(process.line("report: ").await, "attempts: 1 completed, 0 failed, 1 cancelled, 0 unfinished");
    assert!(process.end().await.success());
}

/// The same, while another worker runs the next attempt: the late result of the frozen process is not counted, before or after that one.
#[tokio::test]
async fn w17_the_late_result_of_a_frozen_process_is_not_counted_beside_that_of_another_worker() {
    let mut process = Process::start("replaced").await;
    // It ends while the process is frozen, and not before on a slow machine.
    let run = process.run(5_000).await;
    support::until_running(&run).await;
    process.signal("-STOP").await;
    // It takes as long as the test wants.
    let (started, mut is_started) = mpsc::channel(1);
    let end = Arc::new(Notify::new());
    let state = (started, Arc::clone(&end));
    let other: Task<Millis, u32> =
        Task::with_state("nap", state, async |(started, end), _: Millis, context: Context| {
            started.send(context.attempt()).await?;
            end.notified().await;
            Ok(std::process::id())
        });
    let other = process.hatchet.worker("other").register(&other.timeout(GRACE)).build().unwrap();
    let other = other.start().await.unwrap();
    // The engine waits for 30 seconds.
    assert_eq!(timeout(2 * TIMEOUT, is_started.recv()).await.unwrap(), Some(2));
    process.signal("-CONT").await;
    // Its attempt has ended, and a shutdown waits until it is known whose it is.
    process.signal("-TERM").await;
    assert_eq!(process.line("report: ").await, "attempts: 0 completed, 0 failed, 1 cancelled, 0 unfinished");
    assert!(process.end().await.success());
    assert_eq!(other.status().running, 1, "it was not disturbed");
    end.notify_one();
    assert_eq!(timeout(TIMEOUT, run.result()).await.unwrap().unwrap(), std::process::id());
    let details = run.details().await.unwrap();
    let attempts = details.tasks.iter().flat_map(|task| &task.attempts);
    let completed = attempts.clone().filter(|attempt| attempt.status == hatchet::RunStatus::Completed).count();
    assert_eq!((details.conflicts.len(), attempts.count(), completed), (0, 2, 1), "{details:?}");
    assert_eq!(other.shutdown().await.to_string(), "attempts: 1 completed, 0 failed, 0 cancelled, 0 unfinished");
}
