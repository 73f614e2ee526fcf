//! Random faults while many runs are followed: everyone who waits is answered once, with the truth.
//!
//! `HATCHET_TEST_SEED` repeats one case, and `HATCHET_TEST_CASES` sets the number of cases.

use std::collections::{HashMap, HashSet};

use fastrand::Rng;
use futures_util::future::join_all;
use hatchet::embedded::{Engine, Fault, Quirk, Quirks};
use hatchet::model::{Change, Gap};
use hatchet::{Outcome, RunId, RunStatus, TaskError, Workflow};
use serde_json::Value;

use super::*;

const CASES: u64 = 10;
const RUNS: usize = 12;
const DAG_RUNS: usize = 3;
const STARTED_RUNS: usize = 6;
const STREAMS: [&str; 2] = ["SubscribeToWorkflowRuns", "SubscribeToWorkflowEvents"];
/// The calls of those who follow runs.
const GRPC: [&str; 3] = ["SubscribeToWorkflowRuns", "SubscribeToWorkflowEvents", "GetRunDetails"];
const REST: [&str; 3] = [
    "GET /api/v1/stable/workflow-runs/{run}",
    "GET /api/v1/stable/tasks/{task}/task-events",
    "GET /api/v1/stable/tenants/{tenant}/workflow-runs",
];

/// What a run does.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Plan {
    /// The number of attempts that fail.
    failures: u32,
    chunks: u64,
    millis: u64,
}

const RETRIES: u32 = 2;

impl Plan {
    fn new(rng: &mut Rng) -> Self {
        Self { failures: rng.u32(0..=RETRIES + 1), chunks: rng.u64(0..8), millis: rng.u64(1..1500) }
    }

    fn attempts(self) -> u32 {
        self.failures.min(RETRIES) + 1
    }

    /// All states of the run.
    fn states(self) -> Vec<(u32, RunStatus)> {
        (1..=self.attempts())
            .flat_map(|attempt| {
                let end = if attempt <= self.failures { RunStatus::Failed } else { RunStatus::Completed };
                [RunStatus::Queued, RunStatus::Running, end].map(|status| (attempt, status))
            })
            .collect()
    }

    fn check_outcome(self, outcome: &Outcome) {
        match outcome {
            Outcome::Completed(completed) => {
                assert!(self.failures <= RETRIES);
                assert_eq!(completed.output.parse::<u64>().unwrap(), self.chunks);
            }
            Outcome::Failed(failure) => {
                assert!(self.failures > RETRIES);
                assert_eq!(failure.message, Some(format!("failure {}", RETRIES + 1)));
            }
            other => panic!("{other:?}"),
        }
    }

    fn check_states(self, changes: &[Change]) {
        check_states(&self.states(), changes);
        let ends = changes.iter().filter(|change| change.is_final()).count();
        assert!(ends == 1 && changes.last().unwrap().is_final(), "{changes:?}");
    }
}

/// All states in order, each once. What is missing is in a gap.
fn check_states(expected: &[(u32, RunStatus)], changes: &[Change]) {
    let rest = states_after(expected, changes);
    assert!(rest.is_empty(), "{rest:?} are missing in {changes:?}");
}

/// Checks that changes are states in order, each once, and that what is missing between them is in a gap. Returns the states after the last
/// one.
pub(crate) fn states_after<'a>(expected: &'a [(u32, RunStatus)], changes: &[Change]) -> &'a [(u32, RunStatus)] {
    let mut rest = expected;
    let mut gap: Option<&Gap> = None;
    for change in changes {
        if let Change::Gap(next) = change {
            gap = Some(next);
            continue;
        }
        let state = (change.attempt(), change.status().unwrap().clone());
        let skipped = rest.iter().position(|next| *next == state);
        let skipped = skipped.unwrap_or_else(|| panic!("{state:?} is not expected in {changes:?}"));
        assert!(skipped == 0 || gap.is_some(), "no gap before {state:?} in {changes:?}");
        rest = &rest[skipped + 1..];
        gap = None;
    }
    rest
}

/// The chunks of a task: those of each attempt in order and once, or in a gap. What is missing without a gap is said at the end: from the first
/// item on, or of the whole run if the stream has started it. Returns whether something is.
#[must_use]
fn check_chunks(plan: Plan, items: &[ChunkItem], from_start: bool) -> bool {
    let count = i64::try_from(plan.chunks).unwrap();
    let (mut attempt, mut next, mut is_missing, mut has_begun) = (0, count, false, false);
    let mut has_restarted = false;
    for item in items {
        match item {
            ChunkItem::Chunk(chunk) => {
                let text = chunk.to_string();
                let (of_attempt, number) = text.split_once('.').unwrap();
                let (of_attempt, index) = (of_attempt.parse::<u32>().unwrap(), chunk.index.unwrap());
                assert_eq!(number.parse(), Ok(index));
                assert!(of_attempt >= attempt, "{items:?}");
                // If the first chunks of an attempt and the end of the one before are lost, the restart can be late.
                let is_restart = of_attempt > attempt || index > 0;
                assert!(if has_restarted { is_restart } else { index > 0 || attempt == 0 }, "{items:?}");
                has_restarted = false;
                if of_attempt > attempt && !has_begun {
                    // If nothing says that the attempt before has ended, a chunk seems to be one of it.
                    is_missing |= next < count || index > 0 || from_start && attempt == 0 && of_attempt > 1;
                    assert!(attempt > 0 || index == 0, "{items:?}");
                    next = index;
                }
                is_missing |= attempt > 0 && of_attempt > attempt + 1;
                assert_eq!(index, next, "{items:?}");
                (attempt, next, has_begun) = (of_attempt, index + 1, false);
            }
            ChunkItem::Restart(_) => {
                assert!(!has_restarted && attempt > 0, "{items:?}");
                has_restarted = true;
            }
            ChunkItem::Gap(gap) => {
                if gap.first_index == 0 {
                    is_missing |= next < count;
                    has_begun = true;
                } else {
                    assert_eq!(gap.first_index, next, "{items:?}");
                }
                next = gap.last_index + 1;
            }
            other => panic!("{other:?}"),
        }
        assert!(next <= count, "{items:?}");
    }
    assert!(!has_restarted, "{items:?}");
    is_missing || (!items.is_empty() || from_start && count > 0) && (next < count || attempt < plan.attempts())
}

/// Reads the chunks of a run, and checks those of each task. `is_strict`: no single messages are lost.
async fn read_chunks<O>(mut chunks: hatchet::stream::RunChunks<O>, plan: Plan, from_start: bool, is_strict: bool) {
    let (mut of_tasks, mut is_interrupted) = (HashMap::<_, Vec<_>>::new(), false);
    while let Some(item) = chunks.next().await {
        assert!(!is_interrupted, "it is the last item");
        let item = item.unwrap();
        match &item {
            ChunkItem::Chunk(chunk) => of_tasks.entry(chunk.task_id).or_default().push(item),
            ChunkItem::Gap(gap) => of_tasks.entry(gap.task_id).or_default().push(item),
            ChunkItem::Restart(restart) => of_tasks.entry(restart.task_id).or_default().push(item),
            _ => is_interrupted = true,
        }
    }
    assert!(of_tasks.len() <= TASKS.len(), "{of_tasks:?}");
    if from_start && of_tasks.is_empty() {
        assert!(!check_chunks(plan, &[], true) || is_interrupted || !is_strict, "{plan:?}: nothing was received");
    }
    for items in of_tasks.values() {
        let is_missing = check_chunks(plan, items, from_start);
        assert!(!is_missing || is_interrupted || !is_strict, "{plan:?}: {items:?}");
    }
}

async fn run(plan: Plan, context: &Context) -> Result<u64, TaskError> {
    for number in 0..plan.chunks {
        context.put(format!("{}.{number}", context.attempt())).await?;
        sleep(Duration::from_millis(plan.millis / plan.chunks)).await;
    }
    sleep(Duration::from_millis(plan.millis)).await;
    if context.attempt() <= plan.failures {
        return Err(TaskError::new(format!("failure {}", context.attempt())));
    }
    Ok(plan.chunks)
}

/// The tasks of a DAG run, each of which sends its chunks and returns their number.
const TASKS: [&str; 2] = ["first", "last"];

fn dag() -> Workflow<Plan> {
    let task = |name: &'static str| {
        Task::new(name, async |plan: Plan, context: Context| run(plan, &context).await).retries(RETRIES)
    };
    Workflow::new("dag").task(&task(TASKS[0])).task_after(&task(TASKS[1]), [TASKS[0]])
}

/// A run of [`dag`] is followed in all ways at once. If the first task fails, the last one does not run.
async fn follow_dag(run: &RunHandle<Value>, plan: Plan, is_strict: bool) {
    let fails = plan.failures > RETRIES;
    let outcome = async {
        match run.outcome().await.unwrap() {
            Outcome::Completed(completed) if !fails => {
                let output: Value = completed.output.parse().unwrap();
                assert_eq!(output, serde_json::json!({ "first": plan.chunks, "last": plan.chunks }));
            }
            Outcome::Failed(_) if fails => {}
            other => panic!("{other:?}"),
        }
    };
    let watch = async {
        let (mut watch, mut of_run, mut of_tasks) = (run.watch(), Vec::new(), HashMap::<_, Vec<_>>::new());
        while let Some(change) = watch.next().await {
            let change = change.unwrap();
            match &change {
                Change::Task(task) => of_tasks.entry(task.task_name.clone()).or_default().push(change),
                // A gap says that changes of any task may be missing.
                Change::Gap(_) => {
                    for changes in of_tasks.values_mut() {
                        changes.push(change.clone());
                    }
                    of_run.push(change);
                }
                _ => of_run.push(change),
            }
        }
        let end = if fails { RunStatus::Failed } else { RunStatus::Completed };
        check_states(&[RunStatus::Queued, RunStatus::Running, end].map(|status| (1, status)), &of_run);
        assert!(of_run.last().unwrap().is_final(), "{of_run:?}");
        check_states(&plan.states(), &of_tasks[TASKS[0]]);
        if fails {
            let last = of_tasks.get(TASKS[1]).and_then(|changes| changes.last()).and_then(Change::status);
            assert!(last.is_none_or(|status| *status == RunStatus::Cancelled), "{of_tasks:?}");
        } else {
            check_states(&plan.states(), &of_tasks[TASKS[1]]);
        }
    };
    tokio::join!(outcome, watch, read_chunks(run.chunks(), plan, false, is_strict));
}

/// Some of the defects of the real engine that concern those who follow runs.
pub(crate) fn random_quirks(rng: &mut Rng) -> Quirks {
    let all = [
        Quirk::EarlyEnd,
        Quirk::RestLag,
        Quirk::LateSubscription,
        Quirk::SlowHistory,
        Quirk::LateTimestamps,
        Quirk::LateChunks,
    ];
    all.into_iter().filter(|_| rng.bool()).fold(Quirks::none(), Quirks::with)
}

/// Injects faults at random times.
async fn disturb(engine: &Engine, mut rng: Rng, loses_messages: bool) {
    loop {
        sleep(Duration::from_millis(rng.u64(1..1500))).await;
        let faults = engine.faults();
        let times = rng.usize(1..4);
        let grpc = GRPC[rng.usize(0..GRPC.len())];
        match rng.u32(0..if loses_messages { 7 } else { 6 }) {
            0 => drop(faults.interrupt(STREAMS[rng.usize(0..STREAMS.len())]).unwrap()),
            1 => drop(faults.end(STREAMS[rng.usize(0..STREAMS.len())]).unwrap()),
            2 => faults.inject_times(grpc, Fault::RejectGrpc([14, 13, 1, 8][rng.usize(0..4)]), times).unwrap(),
            3 => faults.inject_times(grpc, Fault::LoseResponse, times).unwrap(),
            6 => {
                let delayed = Fault::DelayMessage(Duration::from_millis(rng.u64(0..3000)));
                let all = [Fault::LoseMessage, Fault::DuplicateMessage, Fault::ReorderMessages, delayed];
                let fault = all[rng.usize(0..all.len())].clone();
                faults.inject_times(STREAMS[rng.usize(0..STREAMS.len())], fault, times).unwrap();
            }
            4 => {
                let fault = if rng.bool() { Fault::RejectRest(503) } else { Fault::LoseResponse };
                faults.inject_times(REST[rng.usize(0..REST.len())], fault, times).unwrap();
            }
            _ => {
                let call = if rng.bool() { grpc } else { REST[rng.usize(0..REST.len())] };
                faults.inject_times(call, Fault::Delay(Duration::from_millis(rng.u64(0..3000))), times).unwrap();
            }
        }
    }
}

/// Waits for those who follow runs, while faults are injected.
pub(crate) async fn while_disturbed<T>(
    engine: &Engine,
    rng: Rng,
    loses_messages: bool,
    limit: Duration,
    followers: impl Future<Output = T>,
) {
    tokio::select! {
        biased;
        done = tokio::time::timeout(limit, followers) => drop(done.expect("everyone is answered")),
        () = disturb(engine, rng, loses_messages) => {}
    }
}

/// Each result once, in one stream.
async fn read_results(hatchet: &Client, runs: &[RunHandle<u64>], by_run: &HashMap<RunId, Plan>) {
    let (mut results, mut ended) = (hatchet.results(runs), HashSet::new());
    while let Some((run, result)) = results.next().await {
        assert!(ended.insert(run), "it is returned once");
        match result {
            Ok(chunks) => assert_eq!(chunks, by_run[&run].chunks),
            Err(error) => by_run[&run].check_outcome(error.outcome().unwrap()),
        }
    }
    assert_eq!(ended.len(), RUNS);
}

/// The states of each run, in one stream.
async fn watch_many(hatchet: &Client, runs: &[RunHandle<u64>], by_run: &HashMap<RunId, Plan>) {
    let (mut watch, mut changes) = (hatchet.watch_many(runs), HashMap::<_, Vec<_>>::new());
    while let Some(change) = watch.next().await {
        let change = change.unwrap();
        changes.entry(change.run_id()).or_default().push(change);
    }
    assert_eq!(changes.len(), RUNS);
    for (run, changes) in &changes {
        by_run[run].check_states(changes);
    }
}

async fn case(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let loses_messages = rng.bool();
    let engine = Engine::builder().quirks(random_quirks(&mut rng)).seed(seed).start().await.unwrap();
    let hatchet = engine.client();
    let task: Task<Plan, u64> = Task::new("task", async |plan: Plan, context: Context| run(plan, &context).await);
    let task = task.retries(RETRIES);
    let dag = dag();
    let worker = hatchet.worker("worker").slots(4).register(&task).register(&dag);
    let worker = worker.build().unwrap().start().await.unwrap();
    let plans: Vec<_> = (0..RUNS).map(|_| Plan::new(&mut rng)).collect();
    let runs = hatchet.run_many(&task, plans.clone()).metadata("tag", "a").start().await.unwrap();
    let runs: Vec<_> = runs.into_iter().map(Result::unwrap).collect();
    let dag_plans: Vec<_> = (0..DAG_RUNS).map(|_| Plan::new(&mut rng)).collect();
    let dag_runs = hatchet.run_many(&dag, dag_plans.clone()).start().await.unwrap();
    let by_run: HashMap<RunId, Plan> = runs.iter().map(RunHandle::id).zip(plans.iter().copied()).collect();
    let (mut of_waits, mut of_watches, of_faults) = (rng.fork(), rng.fork(), rng.fork());
    let waits = runs.iter().map(|run| {
        let (plan, mut rng) = (by_run[&run.id()], of_waits.fork());
        async move {
            // Some waits are dropped and repeated.
            while rng.bool() {
                let wait = Duration::from_millis(rng.u64(0..2000));
                if let Ok(outcome) = tokio::time::timeout(wait, run.outcome()).await {
                    plan.check_outcome(&outcome.unwrap());
                }
            }
            let outcomes = join_all((0..rng.usize(1..4)).map(|_| run.outcome())).await;
            for outcome in outcomes {
                plan.check_outcome(&outcome.unwrap());
            }
        }
    });
    let watches = runs.iter().map(|run| {
        let (plan, delay) = (by_run[&run.id()], Duration::from_millis(of_watches.u64(0..3000)));
        async move {
            sleep(delay).await;
            let (mut watch, mut changes) = (run.watch(), Vec::new());
            while let Some(change) = watch.next().await {
                changes.push(change.unwrap());
            }
            plan.check_states(&changes);
        }
    });
    let chunks = runs.iter().enumerate().map(|(number, run)| {
        let chunks = if number % 4 == 0 { run.chunks().with_children() } else { run.chunks() };
        read_chunks(chunks, by_run[&run.id()], false, !loses_messages)
    });
    // Streams that start their runs, while others do.
    let (client, task) = (&hatchet, &task);
    let of_starts = (0..STARTED_RUNS).map(|number| {
        let (plan, delay) = (Plan::new(&mut rng), Duration::from_millis(rng.u64(0..3000)));
        async move {
            sleep(delay).await;
            let chunks = client.run(task, &plan).chunks();
            let chunks = if number % 4 == 0 { chunks.with_children() } else { chunks };
            read_chunks(chunks, plan, true, !loses_messages).await;
        }
    });
    let of_starts: Vec<_> = of_starts.collect();
    let tagged = async {
        let mut watch = hatchet.watch_matching("tag", "a").since(engine.now() - chrono::TimeDelta::hours(1));
        let (mut changes, mut ended): (HashMap<RunId, Vec<Change>>, _) = (HashMap::new(), 0);
        while ended < RUNS {
            let change = watch.next().await.unwrap().unwrap();
            ended += usize::from(change.is_final());
            changes.entry(change.run_id()).or_default().push(change);
        }
        for (run, changes) in &changes {
            by_run[run].check_states(changes);
        }
    };
    let dags =
        dag_runs.iter().zip(dag_plans).map(|(run, plan)| follow_dag(run.as_ref().unwrap(), plan, !loses_messages));
    let all = async {
        let watches = async { tokio::join!(join_all(watches), watch_many(&hatchet, &runs, &by_run), tagged) };
        let results = read_results(&hatchet, &runs, &by_run);
        tokio::join!(join_all(waits), results, watches, join_all(chunks), join_all(of_starts), join_all(dags))
    };
    // If the stream has lost a result, the run is probed after five minutes.
    while_disturbed(&engine, of_faults, loses_messages, 1000 * SECOND, all).await;
    engine.faults().clear();
    worker.shutdown().await;
    engine.shutdown().await;
}

#[test]
fn everyone_is_answered_once_with_the_truth() {
    for_each_seed(CASES, case);
}

/// Runs some cases, each on virtual time of its own, and prints the seed of one that fails.
pub(crate) fn for_each_seed<F: Future<Output = ()>>(cases: u64, case: impl Fn(u64) -> F) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let cases = number("HATCHET_TEST_CASES").unwrap_or(cases);
    let seeds = number("HATCHET_TEST_SEED").map_or(0..cases, |seed| seed..seed + 1);
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let one = std::panic::AssertUnwindSafe(|| runtime.block_on(case(seed)));
        if let Err(panic) = std::panic::catch_unwind(one) {
            eprintln!("HATCHET_TEST_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
