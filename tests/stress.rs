//! Many clients on several threads in real time: starting, waiting, watching, cancelling, and dropping futures at random points.
//!
//! `HATCHET_TEST_SEED` repeats the decisions of a run of the test; the threads still differ. `HATCHET_TEST_THREADS` is the number of
//! threads of the runtime, 4 by default.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests may panic"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use hatchet::embedded::{Engine, Quirks};
use hatchet::model::{Effect, RunSummary, Window};
use hatchet::worker::WorkerBuilder;
use hatchet::{Client, Context, Error, ErrorKind, Outcome, RunFilter, RunHandle, RunId, RunStatus, Task, TaskError};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

const CLIENTS: u64 = 1000;
/// The clients take their first steps during this time.
const SPREAD_OVER: Duration = Duration::from_secs(6);
/// A client that has not ended by then hangs.
const LIMIT: Duration = Duration::from_secs(60);
/// The execution timeout of the task that does not end.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The metadata key with the number of the client.
const TAG: &str = "number";

/// How a run is meant to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Succeeds,
    Fails,
    /// Fails at first.
    Retries,
    TimesOut,
    IsCancelled,
}

const KINDS: [Kind; 5] = [Kind::Succeeds, Kind::Fails, Kind::Retries, Kind::TimesOut, Kind::IsCancelled];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Succeeds => "succeeds",
            Self::Fails => "fails",
            Self::Retries => "retries",
            Self::TimesOut => "times-out",
            Self::IsCancelled => "is-cancelled",
        }
    }

    fn of(name: &str) -> Self {
        KINDS.into_iter().find(|kind| kind.name() == name).unwrap()
    }

    fn status(self) -> RunStatus {
        match self {
            Self::Succeeds | Self::Retries => RunStatus::Completed,
            Self::Fails => RunStatus::Failed,
            Self::TimesOut => RunStatus::TimedOut,
            Self::IsCancelled => RunStatus::Cancelled,
        }
    }

    /// The number of attempts of a run.
    fn attempts(self) -> u32 {
        if matches!(self, Self::Fails | Self::Retries) { 2 } else { 1 }
    }
}

/// How often the code of the tasks was started, and how it ended.
#[derive(Default)]
struct Executions {
    started: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
}

/// Counts an execution that was dropped.
struct Execution {
    counts: Arc<Executions>,
    alive: Arc<()>,
}

fn task(kind: Kind, counts: &Arc<Executions>, alive: &Arc<()>) -> Task<(), u32> {
    let (counts, alive) = (Arc::clone(counts), Arc::clone(alive));
    let task = Task::new(kind.name(), move |(): (), context: Context| {
        let execution = Execution { counts: Arc::clone(&counts), alive: Arc::clone(&alive) };
        async move {
            execution.counts.started.fetch_add(1, SeqCst);
            let alive = &execution.alive;
            sleep(Duration::from_millis(fastrand::u64(..60))).await;
            match kind {
                Kind::Succeeds => {}
                Kind::Retries if context.attempt() > 1 => {}
                Kind::Fails | Kind::Retries => {
                    execution.counts.failed.fetch_add(1, SeqCst);
                    return Err(TaskError::new("as planned"));
                }
                Kind::TimesOut | Kind::IsCancelled => std::future::pending().await,
            }
            drop(Arc::clone(alive));
            execution.counts.completed.fetch_add(1, SeqCst);
            Ok(context.attempt())
        }
    });
    match kind {
        Kind::TimesOut => task.timeout(TIMEOUT),
        Kind::Fails | Kind::Retries => task.retries(1),
        Kind::Succeeds | Kind::IsCancelled => task,
    }
}

/// What a client knows at its end.
struct Known {
    number: u64,
    kind: Kind,
    /// The run, unless the future that starts it was dropped.
    run: Option<RunId>,
    outcome: Option<Outcome>,
    /// Whether the client has watched the run until its end.
    watched: Option<Vec<RunStatus>>,
}

/// Polls a future for a random time, and drops it if it has not ended by then.
async fn maybe<T>(rng: &mut Rng, future: impl Future<Output = T>) -> Option<T> {
    timeout(Duration::from_millis(rng.u64(..150)), future).await.ok()
}

/// Cancels a run that may have been cancelled before.
async fn cancel(run: &RunHandle<u32>) {
    match run.cancel().send().await {
        Ok(report) => assert!(report.is_applied() || matches!(report.effect, Effect::FinishedFirst(_)), "{report}"),
        Err(error) => assert_eq!(error.run_status(), Some(&RunStatus::Cancelled), "{error}"),
    }
}

async fn client(hatchet: Client, tasks: Arc<BTreeMap<Kind, Task<(), u32>>>, number: u64, mut rng: Rng) -> Known {
    let kind = rng.choice(KINDS).unwrap();
    sleep(SPREAD_OVER.mul_f64(rng.f64())).await;
    let mut known = Known { number, kind, run: None, outcome: None, watched: None };
    let start = || hatchet.run(&tasks[&kind], &()).metadata(TAG, number.to_string()).start();
    // One in eight is dropped. The run may have been started.
    let run: RunHandle<u32> = if rng.u8(..8) == 0 {
        match maybe(&mut rng, start()).await {
            Some(run) => run.unwrap(),
            None => return known,
        }
    } else {
        start().await.unwrap()
    };
    known.run = Some(run.id());
    for _ in 0..rng.u32(..6) {
        match rng.u8(..6) {
            0 => drop(maybe(&mut rng, run.outcome()).await.map(Result::unwrap)),
            1 => drop(maybe(&mut rng, run.result()).await),
            2 => {
                let mut watch = run.watch();
                for _ in 0..rng.u8(..4) {
                    drop(maybe(&mut rng, watch.next()).await);
                }
            }
            3 => drop(maybe(&mut rng, run.details().into_future()).await.map(Result::unwrap)),
            4 if kind == Kind::IsCancelled => drop(maybe(&mut rng, cancel(&run)).await),
            _ => tokio::task::yield_now().await,
        }
    }
    let is_dropped = rng.u8(..4) == 0;
    if is_dropped {
        return known;
    }
    let all = run.clone();
    let is_watched = rng.bool();
    let watched = async {
        let (mut watch, mut statuses) = (all.watch(), Vec::new());
        while let Some(change) = watch.next().await.filter(|_| is_watched) {
            statuses.extend(change.unwrap().status().cloned());
        }
        is_watched.then_some(statuses)
    };
    let cancelled = async {
        if kind == Kind::IsCancelled {
            sleep(Duration::from_millis(rng.u64(..500))).await;
            cancel(&run).await;
        }
    };
    let (outcome, watched, ()) = tokio::join!(run.outcome(), watched, cancelled);
    (known.outcome, known.watched) = (Some(outcome.unwrap()), watched);
    known
}

/// All runs of the engine, by the number of their client.
async fn rows(hatchet: &Client) -> BTreeMap<u64, RunSummary> {
    let (mut items, mut rows) = (hatchet.runs(Window::all()).items(), BTreeMap::new());
    while let Some(row) = items.next().await {
        let row = row.unwrap();
        let number = row.metadata[TAG].as_str().unwrap().parse().unwrap();
        assert!(rows.insert(number, row).is_none(), "one run for each client");
    }
    rows
}

/// Waits until at most this number of tasks is left. A task that ends is counted until its thread has released it.
async fn tasks_left(count: usize) {
    let alive = || Handle::current().metrics().num_alive_tasks();
    let limit = Instant::now() + Duration::from_secs(1);
    while alive() > count {
        assert!(Instant::now() < limit, "{} tasks are left, expected {count}", alive());
        tokio::task::yield_now().await;
    }
}

async fn stress(seed: u64) {
    let engine = Engine::builder().quirks(Quirks::all()).seed(seed).start().await.unwrap();
    let idle = Handle::current().metrics().num_alive_tasks();
    let hatchet = engine.client();
    let (counts, alive) = (Arc::<Executions>::default(), Arc::new(()));
    let tasks: BTreeMap<_, _> = KINDS.into_iter().map(|kind| (kind, task(kind, &counts, &alive))).collect();
    let worker = tasks.values().fold(hatchet.worker("worker").slots(2000), WorkerBuilder::register);
    let worker = worker.build().unwrap().start().await.unwrap();
    let tasks = Arc::new(tasks);

    let mut rng = Rng::with_seed(seed);
    let started = Instant::now();
    let clients =
        (0..CLIENTS).map(|number| tokio::spawn(client(hatchet.clone(), Arc::clone(&tasks), number, rng.fork())));
    let clients: Vec<_> = clients.collect();
    let ended = timeout(LIMIT, join_all(clients)).await.expect("no client hangs");
    let all: Vec<Known> = ended.into_iter().map(Result::unwrap).collect();
    let (known, waited) = (all.len(), all.iter().filter(|known| known.outcome.is_some()).count());
    eprintln!("{known} clients ended after {:?}, {waited} with an outcome", started.elapsed());

    // The runs that no client has cancelled.
    let endless = RunFilter::new(Window::all()).workflow(Kind::IsCancelled.name()).status(RunStatus::Running);
    let report = hatchet.runs(endless.clone().status(RunStatus::Queued)).cancel().send().await.unwrap();
    assert!(report.stopped_by.is_none() && report.unknown == 0 && report.no_effect == 0, "{report}");

    // Every run ends, and is accounted for.
    let limit = Instant::now() + LIMIT;
    let mut rows = rows(&hatchet).await;
    while rows.values().any(|row| !row.status.is_final()) {
        assert!(Instant::now() < limit, "{:?}", rows.values().find(|row| !row.status.is_final()));
        sleep(Duration::from_millis(200)).await;
        rows = self::rows(&hatchet).await;
    }
    assert_eq!(rows.len(), engine.run_count().await);
    for (number, row) in &rows {
        let kind = Kind::of(row.workflow_name.as_deref().unwrap_or_default());
        assert_eq!((kind, row.status.clone()), (all[usize::try_from(*number).unwrap()].kind, kind.status()), "{row:?}");
        assert_eq!(row.attempt, kind.attempts(), "{row:?}");
    }
    for known in &all {
        let row = rows.get(&known.number);
        if let Some(run) = known.run {
            assert_eq!(row.map(|row| row.id), Some(run), "a run that was started exists");
        }
        if let Some(outcome) = &known.outcome {
            assert_eq!(outcome.status(), known.kind.status(), "{outcome:?}");
        }
        if let Some(watched) = &known.watched {
            assert_eq!(watched.first(), Some(&RunStatus::Queued), "{watched:?}");
            assert_eq!(watched.last(), Some(&known.kind.status()), "{watched:?}");
            assert!(
                watched[..watched.len() - 1]
                    .iter()
                    .all(|status| *status != known.kind.status() || known.kind == Kind::Fails)
            );
        }
    }
    let started = |status| rows.values().filter(|row| row.status == status).count() as u64;

    // The worker's report adds up.
    let report = worker.shutdown().await;
    assert_eq!(report.completed, counts.completed.load(SeqCst), "{report}");
    assert_eq!(report.completed, started(RunStatus::Completed), "{report}");
    assert_eq!(report.failed, counts.failed.load(SeqCst), "{report}");
    assert_eq!(report.unfinished, 0, "{report}");
    let dropped = counts.started.load(SeqCst) - report.completed - report.failed;
    // An attempt can be cancelled before its code is started, and a run before it is assigned.
    let ended_by_engine = started(RunStatus::Cancelled) + started(RunStatus::TimedOut);
    assert!((dropped..=ended_by_engine).contains(&report.cancelled), "{report}, {dropped} dropped, {ended_by_engine}");

    // Nothing is left.
    let outcome = hatchet.run_handle(rows[rows.keys().next().unwrap()].id).outcome().await.unwrap();
    assert!(outcome.status().is_final());
    hatchet.close().await;
    assert_eq!(hatchet.runs(Window::all()).count().await.map_err(|error: Error| error.kind()), Err(ErrorKind::Closed));
    drop(tasks);
    assert_eq!(Arc::strong_count(&alive), 1, "the definitions and the code of all attempts are dropped");
    tasks_left(idle).await;
    engine.shutdown().await;
    tasks_left(0).await;
}

#[test]
fn a_thousand_clients_that_start_wait_watch_and_drop_at_random() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = number("HATCHET_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    let threads = number("HATCHET_TEST_THREADS").unwrap_or(4);
    eprintln!("HATCHET_TEST_SEED={seed} HATCHET_TEST_THREADS={threads}");
    let threads = usize::try_from(threads).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
    runtime.block_on(stress(seed));
}
