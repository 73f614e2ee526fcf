//! Random faults while many runs are followed: everyone who waits is answered once, with the truth.
//!
//! `HATCHET_TEST_SEED` repeats one case, and `HATCHET_TEST_CASES` sets the number of cases.

use std::collections::HashMap;

use fastrand::Rng;
use futures_util::future::join_all;
use hatchet::embedded::{Engine, Fault, Quirk, Quirks};
use hatchet::model::{Change, Gap};
use hatchet::{Outcome, RunId, RunStatus, TaskError, Workflow};
use serde_json::Value;

use super::*;

const CASES: u64 = 20;
const RUNS: usize = 12;
const DAG_RUNS: usize = 3;
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

    /// All states in order, each once. What is missing is in a gap.
    fn check_states(self, changes: &[Change]) {
        let expected = self.states();
        let mut rest = &expected[..];
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
            assert_eq!(change.is_final(), rest.is_empty(), "{changes:?}");
        }
        assert!(rest.is_empty(), "{rest:?} are missing in {changes:?}");
    }
}

/// The chunks of each attempt in order and once, or in a gap. The last ones of an attempt can be lost. If the subscription was lost with them,
/// that is said at the end.
fn check_chunks(plan: Plan, items: &[ChunkItem]) {
    let (mut attempt, mut next) = (0, 0);
    for item in items {
        match item {
            ChunkItem::Chunk(chunk) => {
                let text = chunk.to_string();
                let (of_attempt, number) = text.split_once('.').unwrap();
                let (of_attempt, index) = (of_attempt.parse::<u32>().unwrap(), chunk.index.unwrap());
                assert_eq!(number.parse(), Ok(index));
                assert!(of_attempt >= attempt, "{items:?}");
                if of_attempt > attempt && index != next {
                    // The attempt before has ended, or nothing says so: then the first chunks are missing without a gap.
                    next = index;
                }
                attempt = of_attempt;
                assert_eq!(index, next, "{items:?}");
                next = index + 1;
            }
            ChunkItem::Gap(gap) => {
                assert!(gap.first_index == next || gap.first_index == 0, "{items:?}");
                next = gap.last_index + 1;
            }
            ChunkItem::Interrupted => assert_eq!(item, items.last().unwrap(), "{items:?}"),
            other => panic!("{other:?}"),
        }
        assert!(u64::try_from(next).unwrap() <= plan.chunks);
    }
}

async fn send_chunks(plan: Plan, context: &Context) -> Result<(), TaskError> {
    for number in 0..plan.chunks {
        context.put(format!("{}.{number}", context.attempt())).await?;
        sleep(Duration::from_millis(plan.millis / plan.chunks)).await;
    }
    sleep(Duration::from_millis(plan.millis)).await;
    Ok(())
}

/// The tasks of a DAG run, each of which sends its chunks and returns their number.
const TASKS: [&str; 2] = ["first", "last"];

fn dag() -> Workflow<Plan> {
    let task = |name: &'static str| {
        Task::new(name, async |plan: Plan, context: Context| {
            send_chunks(plan, &context).await?;
            Ok(plan.chunks)
        })
    };
    Workflow::new("dag").task(&task(TASKS[0])).task_after(&task(TASKS[1]), [TASKS[0]])
}

/// A run of [`dag`] is followed in all ways at once.
async fn follow_dag(run: &RunHandle<Value>, plan: Plan) {
    let plan = Plan { failures: 0, ..plan };
    let outcome = async {
        let Outcome::Completed(completed) = run.outcome().await.unwrap() else { panic!("expected it to complete") };
        let output: Value = completed.output.parse().unwrap();
        assert_eq!(output, serde_json::json!({ "first": plan.chunks, "last": plan.chunks }));
    };
    let watch = async {
        let (mut watch, mut of_run, mut of_tasks) = (run.watch(), Vec::new(), HashMap::<_, Vec<_>>::new());
        while let Some(change) = watch.next().await {
            let change = change.unwrap();
            match &change {
                Change::Task(task) => of_tasks.entry(task.task_id).or_default().push(change),
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
        plan.check_states(&of_run);
        assert_eq!(of_tasks.len(), TASKS.len(), "{of_tasks:?}");
        let ends = |changes: &Vec<Change>| {
            changes.iter().filter(|change| change.status() == Some(&RunStatus::Completed)).count()
        };
        assert!(of_tasks.values().all(|changes| ends(changes) == 1), "{of_tasks:?}");
    };
    let chunks = async {
        let (mut chunks, mut of_tasks, mut is_interrupted) = (run.chunks(), HashMap::<_, Vec<_>>::new(), false);
        while let Some(item) = chunks.next().await {
            assert!(!is_interrupted, "it is the last item");
            let item = item.unwrap();
            match &item {
                ChunkItem::Chunk(chunk) => of_tasks.entry(chunk.task_id).or_default().push(item),
                ChunkItem::Gap(gap) => of_tasks.entry(gap.task_id).or_default().push(item),
                _ => is_interrupted = true,
            }
        }
        assert!(of_tasks.len() <= TASKS.len(), "{of_tasks:?}");
        for items in of_tasks.values() {
            check_chunks(plan, items);
        }
    };
    tokio::join!(outcome, watch, chunks);
}

/// Injects faults at random times.
async fn disturb(engine: &Engine, mut rng: Rng) {
    loop {
        sleep(Duration::from_millis(rng.u64(1..1500))).await;
        let faults = engine.faults();
        let times = rng.usize(1..4);
        let grpc = GRPC[rng.usize(0..GRPC.len())];
        match rng.u32(0..7) {
            0 => drop(faults.interrupt(STREAMS[rng.usize(0..STREAMS.len())]).unwrap()),
            1 => drop(faults.end(STREAMS[rng.usize(0..STREAMS.len())]).unwrap()),
            2 => faults.inject_times(grpc, Fault::RefuseGrpc([14, 13, 1, 8][rng.usize(0..4)]), times).unwrap(),
            3 => faults.inject_times(grpc, Fault::LoseResponse, times).unwrap(),
            6 => {
                let fault =
                    [Fault::LoseMessage, Fault::DuplicateMessage, Fault::ReorderMessages][rng.usize(0..3)].clone();
                faults.inject_times(STREAMS[rng.usize(0..STREAMS.len())], fault, times).unwrap();
            }
            4 => {
                let fault = if rng.bool() { Fault::RefuseRest(503) } else { Fault::LoseResponse };
                faults.inject_times(REST[rng.usize(0..REST.len())], fault, times).unwrap();
            }
            _ => {
                let call = if rng.bool() { grpc } else { REST[rng.usize(0..REST.len())] };
                faults.inject_times(call, Fault::Delay(Duration::from_millis(rng.u64(0..3000))), times).unwrap();
            }
        }
    }
}

async fn case(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let quirks = [Quirk::EarlyEnd, Quirk::RestLag, Quirk::LateSubscription, Quirk::SlowHistory, Quirk::LateTimestamps];
    let quirks: Quirks = quirks.into_iter().filter(|_| rng.bool()).fold(Quirks::none(), Quirks::with);
    let engine = Engine::builder().quirks(quirks).seed(seed).start().await.unwrap();
    let hatchet = engine.client();
    let task: Task<Plan, u64> = Task::new("task", async |plan: Plan, context: Context| {
        send_chunks(plan, &context).await?;
        if context.attempt() <= plan.failures {
            return Err(TaskError::new(format!("failure {}", context.attempt())));
        }
        Ok(plan.chunks)
    });
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
    let chunks = runs.iter().map(|run| {
        let plan = by_run[&run.id()];
        async move {
            let (mut chunks, mut items) = (run.chunks(), Vec::new());
            while let Some(item) = chunks.next().await {
                items.push(item.unwrap());
            }
            check_chunks(plan, &items);
        }
    });
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
    let dags = dag_runs.iter().zip(dag_plans).map(|(run, plan)| follow_dag(run.as_ref().unwrap(), plan));
    let all = async { tokio::join!(join_all(waits), join_all(watches), join_all(chunks), tagged, join_all(dags)) };
    // If the stream has lost a result, the run is probed after five minutes.
    let disturbed = tokio::time::timeout(1000 * SECOND, all);
    tokio::select! {
        biased;
        done = disturbed => drop(done.expect("everyone is answered")),
        () = disturb(&engine, of_faults) => {}
    }
    engine.faults().clear();
    worker.shutdown().await;
    engine.shutdown().await;
}

#[test]
fn everyone_is_answered_once_with_the_truth() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let cases = number("HATCHET_TEST_CASES").unwrap_or(CASES);
    let seeds = number("HATCHET_TEST_SEED").map_or(0..cases, |seed| seed..seed + 1);
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let result = std::panic::catch_unwind(|| runtime.block_on(case(seed)));
        if let Err(panic) = result {
            eprintln!("HATCHET_TEST_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
