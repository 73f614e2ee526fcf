//! Attempts that block the threads of their runtime, or never yield. Threads, sockets and the real clock are the subject.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests may panic, and use real time")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use hatchet::embedded::{Engine, Fault};
use hatchet::{Client, Config, Context, Task};
use tokio::runtime::{Builder, Runtime};

const SECOND: Duration = Duration::from_secs(1);
const PLANNED: usize = 1_000_000;
/// No thread is blocked for longer, so that a test that fails ends.
const MAX_BLOCKED: Duration = Duration::from_secs(20);

/// An engine that listens, with a thread of its own. It counts heartbeats.
struct Server {
    engine: Engine,
    runtime: Runtime,
}

impl Server {
    fn start() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let engine = runtime.block_on(Engine::builder().listen().start()).unwrap();
        engine.faults().inject_times("Heartbeat", Fault::Delay(Duration::ZERO), PLANNED).unwrap();
        Self { engine, runtime }
    }

    fn config(&self) -> Config {
        support::config(&self.engine).build().unwrap()
    }

    /// The number of heartbeats that have reached the engine.
    fn heartbeats(&self) -> usize {
        PLANNED - self.engine.faults().planned()
    }

    fn stop(self) {
        self.runtime.block_on(self.engine.shutdown());
    }
}

/// Blocks the threads of attempts.
#[derive(Clone)]
struct Block {
    blocked: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    max: Duration,
}

impl Block {
    fn new(max: Duration) -> Self {
        Self { blocked: Arc::default(), is_over: Arc::default(), max }
    }

    fn block_thread(&self) {
        let start = Instant::now();
        self.blocked.fetch_add(1, SeqCst);
        while !self.is_over.load(SeqCst) && start.elapsed() < self.max {
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn until_blocked(&self, count: usize) {
        wait_until("the threads are blocked", || self.blocked.load(SeqCst) == count);
    }
}

/// Ends the blocks in the end, also after a failure: a runtime waits for its threads.
impl Drop for Block {
    fn drop(&mut self) {
        if thread::panicking() {
            self.is_over.store(true, SeqCst);
        }
    }
}

/// Returns how long it took until the condition was true.
fn wait_until(what: &str, condition: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < MAX_BLOCKED, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
    start.elapsed()
}

/// Blocks threads of the runtime of a worker with some slots. Returns after how many seconds the engine has received `heartbeats` of them,
/// one second after the threads were blocked: what was on its way then does not count.
fn heartbeats_while_blocked(mut runtime: Builder, slots: u32, blocked: usize, heartbeats: usize) -> Duration {
    let (server, block) = (Server::start(), Block::new(MAX_BLOCKED));
    let task: Task<(), u32> =
        Task::with_state("blocks", block.clone(), async |block: Block, (): (), context: Context| {
            block.block_thread();
            Ok(context.attempt())
        });
    let (config, runs) = (server.config(), vec![(); blocked]);
    let worker = thread::spawn(move || {
        runtime.enable_all().build().unwrap().block_on(async {
            let hatchet = Client::new(config).unwrap();
            let worker = hatchet.worker("worker").slots(slots).register(&task).build().unwrap().start().await.unwrap();
            let results = hatchet.run_many(&task, runs).results().await.unwrap();
            let attempts: Vec<_> = results.into_iter().map(Result::unwrap).collect();
            (attempts, worker.shutdown().await)
        })
    });
    block.until_blocked(blocked);
    thread::sleep(SECOND);
    let before = server.heartbeats();
    let elapsed = wait_until("heartbeats arrive", || server.heartbeats() >= before + heartbeats);
    block.is_over.store(true, SeqCst);
    let (attempts, report) = worker.join().unwrap();
    assert_eq!(attempts, vec![1; blocked], "no attempt was assigned again");
    assert_eq!((report.completed, report.total()), (blocked as u64, blocked as u64), "{report}");
    server.stop();
    elapsed
}

fn threads(count: usize) -> Builder {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(count);
    builder
}

/// The thread for heartbeats sends its first one six seconds after the last one of the runtime, and the next one twelve seconds later, or
/// two seconds later if all slots are taken. The cases take several seconds each, so they run at the same time.
#[test]
fn heartbeats_continue_while_threads_of_the_runtime_are_blocked() {
    thread::scope(|scope| {
        let current_thread = Builder::new_current_thread;
        let cases =
            [(threads(2), 10, 2, 1), (current_thread(), 10, 1, 1), (threads(2), 10, 1, 2), (current_thread(), 1, 1, 2)];
        let cases = cases.map(|(runtime, slots, blocked, heartbeats)| {
            scope.spawn(move || heartbeats_while_blocked(runtime, slots, blocked, heartbeats))
        });
        let [all, current_thread, one_of_two, full] = cases.map(|case| case.join().unwrap());
        assert!(all > 2 * SECOND && all < 8 * SECOND, "{all:?}: the runtime is blocked");
        assert!(
            current_thread > 2 * SECOND && current_thread < 8 * SECOND,
            "{current_thread:?}: the runtime is blocked"
        );
        assert!(full > 4 * SECOND && full < 10 * SECOND, "{full:?}: there is no free slot");
        assert!(one_of_two < 8 * SECOND, "{one_of_two:?}: the free thread sends the heartbeats");
    });
}

/// Its code is left behind, and counts as unfinished.
#[test]
fn a_worker_whose_tasks_never_yield_can_be_ended() {
    let runtime = threads(3).enable_all().build().unwrap();
    let block = Block::new(MAX_BLOCKED);
    let (report, elapsed) = runtime.block_on(async {
        let engine = Engine::start().await.unwrap();
        let hatchet = engine.client();
        let spins: Task<(), ()> = Task::with_state("spins", block.clone(), async |block: Block, (): (), _: Context| {
            block.block_thread();
            Ok(())
        });
        let code = block.clone();
        let blocking: Task<(), ()> = Task::blocking("blocking", move |(): (), _: Context| {
            code.block_thread();
            Ok(())
        });
        let worker = hatchet.worker("worker").register(&spins).register(&blocking);
        let worker = worker.shutdown_grace_period(SECOND / 2).cancel_grace_period(SECOND / 10);
        let worker = worker.build().unwrap().start().await.unwrap();
        hatchet.run(&spins, &()).start().await.unwrap();
        hatchet.run(&blocking, &()).start().await.unwrap();
        block.until_blocked(2);
        let start = Instant::now();
        (worker.shutdown().await, start.elapsed())
    });
    assert!(!block.is_over.swap(true, SeqCst), "the code has not ended");
    // The engine may assign attempts for 1.75 seconds. The code has 0.1 seconds to end, and reports have five.
    assert!(elapsed > SECOND && elapsed < 9 * SECOND, "{elapsed:?}");
    assert_eq!((report.unfinished, report.total()), (2, 2), "{report}");
    assert!(report.unfinished_attempts.iter().all(|task| !task.is_finished), "{report:?}");
}

/// The engine frees the slot of an attempt that it has ended, and starts the next one. The thread of the first one is still busy.
#[test]
fn a_cancelled_blocking_attempt_keeps_its_slot_until_its_thread_is_free() {
    for times_out in [true, false] {
        let (block, executions) = (Block::new(MAX_BLOCKED), Arc::new(AtomicUsize::new(0)));
        let report = threads(2).enable_all().build().unwrap().block_on(async {
            let engine = Engine::start().await.unwrap();
            let hatchet = engine.client();
            let (code, count) = (block.clone(), Arc::clone(&executions));
            let task: Task<(), u32> = Task::blocking("task", move |(): (), context: Context| {
                if count.fetch_add(1, SeqCst) == 0 {
                    code.block_thread();
                }
                Ok(context.attempt())
            });
            let task = task.timeout(if times_out { 3 * SECOND } else { 600 * SECOND }).retries(3);
            let worker = hatchet.worker("worker").slots(1).cancel_grace_period(SECOND / 10).register(&task);
            let worker = worker.build().unwrap().start().await.unwrap();
            let first = hatchet.run(&task, &()).start().await.unwrap();
            block.until_blocked(1);
            // The next attempt is one of the same task, or one of another run.
            let next = if times_out {
                first
            } else {
                first.cancel().send().await.unwrap();
                hatchet.run(&task, &()).start().await.unwrap()
            };
            let mut statuses = worker.statuses();
            while statuses.next().await.unwrap().queued == 0 {}
            tokio::time::sleep(SECOND).await;
            let status = worker.status();
            assert_eq!((status.running, status.queued, executions.load(SeqCst)), (1, 1, 1), "{times_out}");
            block.is_over.store(true, SeqCst);
            assert_eq!(next.result().await.unwrap(), if times_out { 2 } else { 1 });
            worker.shutdown().await
        });
        assert_eq!((report.completed, report.cancelled, report.total()), (1, 1, 2), "{times_out}: {report}");
    }
}

/// A shutdown does not wait for a thread of which nobody needs the result.
#[test]
fn a_shutdown_ends_although_the_thread_of_a_cancelled_attempt_is_busy() {
    let (runtime, block) = (threads(2).enable_all().build().unwrap(), Block::new(MAX_BLOCKED));
    let (report, elapsed) = runtime.block_on(async {
        let engine = Engine::start().await.unwrap();
        let hatchet = engine.client();
        let code = block.clone();
        let task: Task<(), ()> = Task::blocking("task", move |(): (), _: Context| {
            code.block_thread();
            Ok(())
        });
        let worker = hatchet.worker("worker").shutdown_grace_period(SECOND / 2).register(&task);
        let worker = worker.cancel_grace_period(SECOND / 10).build().unwrap().start().await.unwrap();
        let run = hatchet.run(&task, &()).start().await.unwrap();
        block.until_blocked(1);
        run.cancel().send().await.unwrap();
        let start = Instant::now();
        (worker.shutdown().await, start.elapsed())
    });
    assert!(!block.is_over.swap(true, SeqCst), "the code has not ended");
    assert_eq!((report.cancelled, report.total()), (1, 1), "{report}");
    // The engine may assign attempts for 1.75 seconds.
    assert!(elapsed > SECOND && elapsed < 6 * SECOND, "{elapsed:?}");
}

/// Results are written to the file of the outbox, and reported, although each thread for blocking code is busy.
#[test]
fn results_do_not_wait_for_blocking_attempts() {
    let path = std::env::temp_dir().join(format!("hatchet-outbox-blocked-{}", std::process::id()));
    let (server, block) = (Server::start(), Block::new(MAX_BLOCKED));
    let (config, code) = (server.config(), block.clone());
    let runtime = threads(2).max_blocking_threads(1).enable_all().build().unwrap();
    let report = runtime.block_on(async {
        let hatchet = Client::new(config).unwrap();
        let blocking: Task<(), ()> = Task::blocking("blocking", move |(): (), _: Context| {
            code.block_thread();
            Ok(())
        });
        let short: Task<(), u32> = Task::new("short", async |(): (), context: Context| Ok(context.attempt()));
        let worker = hatchet.worker("worker").outbox_file(&path).register(&blocking).register(&short);
        let worker = worker.build().unwrap().start().await.unwrap();
        hatchet.run(&blocking, &()).start().await.unwrap();
        block.until_blocked(1);
        let result = hatchet.run(&short, &()).result();
        assert_eq!(tokio::time::timeout(10 * SECOND, result).await.unwrap().unwrap(), 1);
        assert!(!block.is_over.swap(true, SeqCst), "the thread is still blocked");
        worker.shutdown().await
    });
    for suffix in ["", ".lock", ".new"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
    }
    assert_eq!((report.completed, report.total()), (2, 2), "{report}");
    server.stop();
}

/// What `docs/operations.md` says about a runtime whose threads are all blocked. The engine closes the stream of assignments after 50
/// seconds, because its pings are not answered, and accepts no heartbeats after that. The last one was up to twelve seconds earlier.
#[test]
#[ignore = "it takes two minutes"]
fn a_blocked_runtime_keeps_its_attempts_for_more_than_a_minute() {
    thread::scope(|scope| {
        for (runtime, blocked) in [(Builder::new_current_thread(), 1), (threads(2), 2)] {
            scope.spawn(move || until_reassigned(runtime, blocked));
        }
    });
}

/// Blocks all threads of a runtime until the engine has assigned their attempts to another worker.
fn until_reassigned(mut runtime: Builder, blocked: usize) {
    let (server, block) = (Server::start(), Block::new(180 * SECOND));
    let (config, task) = (server.config(), blocks(Some(block.clone())));
    let (send_health, health) = std::sync::mpsc::channel();
    let worker = thread::spawn(move || {
        runtime.enable_all().build().unwrap().block_on(async {
            let hatchet = Client::new(config).unwrap();
            let worker = hatchet.worker("blocked").register(&task).build().unwrap().start().await.unwrap();
            let health = worker.health(([127, 0, 0, 1], 0)).start().await.unwrap();
            send_health.send(health.address()).unwrap();
            let results = hatchet.run_many(&task, vec![(); blocked]).results().await.unwrap();
            (results.into_iter().map(Result::unwrap).collect::<Vec<_>>(), worker.shutdown().await)
        })
    });
    let address = health.recv().unwrap();
    block.until_blocked(blocked);
    let start = Instant::now();
    let elapsed = server.runtime.block_on(async {
        let hatchet = server.engine.client();
        let other = blocks(None);
        let worker = hatchet.worker("other").register(&other).build().unwrap().start().await.unwrap();
        let mut is_live = true;
        let completed = async || {
            let runs = hatchet.runs(hatchet::model::Window::all()).counts_by_status().await.unwrap();
            runs.get(&hatchet::RunStatus::Completed).unwrap_or_default()
        };
        while completed().await < blocked as u64 && start.elapsed() < 170 * SECOND {
            tokio::time::sleep(SECOND / 10).await;
            is_live &= start.elapsed() < 20 * SECOND || is_healthy(address);
        }
        let elapsed = start.elapsed();
        assert!(!is_live, "/livez fails while the runtime is blocked");
        assert_eq!(worker.shutdown().await.completed, blocked as u64);
        elapsed
    });
    assert!(elapsed > 65 * SECOND && elapsed < 85 * SECOND, "{elapsed:?}");
    block.is_over.store(true, SeqCst);
    let (attempts, report) = worker.join().unwrap();
    assert_eq!(attempts, vec![2; blocked], "the old results are not those of the runs: {report}");
    assert_eq!(report.total(), blocked as u64, "{report}");
    server.stop();
}

/// A task that blocks its thread, and returns the number of the attempt.
fn blocks(block: Option<Block>) -> Task<(), u32> {
    let task = Task::with_state("blocks", block, async |block: Option<Block>, (): (), context: Context| {
        block.iter().for_each(Block::block_thread);
        Ok(context.attempt())
    });
    task.timeout(600 * SECOND)
}

/// With another thread, nothing is lost.
#[test]
#[ignore = "it takes two minutes"]
fn an_attempt_that_blocks_one_of_two_threads_for_two_minutes_is_not_assigned_again() {
    let (server, block) = (Server::start(), Block::new(120 * SECOND));
    let (config, task) = (server.config(), blocks(Some(block.clone())));
    let (attempt, report, was_live) = threads(2).enable_all().build().unwrap().block_on(async {
        let hatchet = Client::new(config).unwrap();
        let worker = hatchet.worker("blocked").register(&task).build().unwrap().start().await.unwrap();
        let health = worker.health(([127, 0, 0, 1], 0)).start().await.unwrap();
        let address = health.address();
        let run = hatchet.run(&task, &()).start().await.unwrap();
        let was_live = thread::spawn(move || {
            block.until_blocked(1);
            let start = Instant::now();
            let mut was_live = true;
            while start.elapsed() < 100 * SECOND {
                thread::sleep(SECOND);
                was_live &= is_healthy(address);
            }
            was_live
        });
        let attempt = run.result().await.unwrap();
        drop(health);
        (attempt, worker.shutdown().await, was_live.join().unwrap())
    });
    assert!(was_live, "the free thread sends the heartbeats");
    assert_eq!((attempt, report.completed, report.total()), (1, 1, 1), "{report}");
    server.stop();
}

fn is_healthy(address: std::net::SocketAddr) -> bool {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response.starts_with("HTTP/1.1 200")
}
