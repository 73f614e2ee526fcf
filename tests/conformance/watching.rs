//! S and B: watches of several runs, conditions, and waits for many runs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use futures_util::StreamExt as _;
use hatchet::embedded::Fault;
use hatchet::model::{Change, ChangeKind, ChunkItem, Until};
use hatchet::stream::TagWatch;
use hatchet::{Context, Outcome, RunHandle, RunId, RunStatus, Task, Workflow};

use crate::chunks::texts;
use crate::following::{check_flow, flow};
use crate::setup::{Setup, rows};
use crate::tasks::{Number, double, endless, shaky};

rows! {
    s11_watches_that_start_the_run_return_all_states,
    s11_watches_of_several_runs_return_all_states_of_each,
    s11_watches_of_a_tag_return_all_runs_that_follow,
    s11_watches_of_a_tag_return_earlier_runs_on_request,
    s11_watches_of_a_tag_include_runs_that_have_not_ended,
    s11_watches_of_a_tag_can_follow_replays,
    s11_watches_of_a_tag_are_limited_to_the_namespace,
    s11_watches_can_be_limited_to_kinds_and_tasks,
    s11_watches_can_follow_replays,
    s11_watches_can_follow_replays_of_a_dag,
    s11_conditions_are_waited_for,
    b2_watches_and_chunks_of_a_run_that_they_start_are_complete,
    b2_all_chunks_and_all_changes_of_a_run_can_be_read,
    b3_watches_waits_and_chunks_survive_lost_streams,
    b4_thousands_of_runs_are_awaited_at_once,
}

const ONE: Number = Number { n: 1 };
const SECOND: Duration = Duration::from_secs(1);

fn completed() -> Vec<String> {
    ["QUEUED", "RUNNING", "COMPLETED"].map(|status| format!("{status} (attempt 1)")).to_vec()
}

async fn s11_watches_that_start_the_run_return_all_states(setup: Setup) {
    let task = double(setup.name("double"));
    let worker = setup.worker(&task).await;
    for _ in 0..3 {
        let (mut watch, mut states) = (setup.hatchet.run(&task, &ONE).watch(), Vec::new());
        while let Some(change) = watch.next().await {
            states.push(change.unwrap().to_string());
        }
        assert_eq!(states, completed());
    }
    worker.shutdown().await;
}

async fn s11_watches_of_several_runs_return_all_states_of_each(setup: Setup) {
    let task = shaky(setup.name("shaky")).retries(1);
    let worker = setup.worker(&task).await;
    let inputs = (0..20).map(|n| Number { n: n % 2 });
    let runs: Vec<_> =
        setup.hatchet.run_many(&task, inputs).start().await.unwrap().into_iter().map(Result::unwrap).collect();
    let missing = setup.hatchet.run_handle("00000000-0000-4000-8009-000000000009".parse().unwrap()).typed();
    let mut watch = setup.hatchet.watch_many(runs.iter().chain([&missing]));
    let (mut states, mut errors): (HashMap<RunId, Vec<String>>, _) = (HashMap::new(), Vec::new());
    while let Some(change) = watch.next().await {
        match change {
            Ok(change) => states.entry(change.run_id()).or_default().push(change.to_string()),
            Err(error) => errors.push((error.kind(), error.run_id())),
        }
    }
    assert_eq!(errors, [(hatchet::ErrorKind::RunNotFound, Some(missing.id()))]);
    let retried = ["QUEUED (attempt 1)", "RUNNING (attempt 1)", "FAILED (attempt 1)"].map(str::to_owned).into_iter();
    let retried: Vec<_> =
        retried.chain(completed().iter().map(|state| state.replace("attempt 1", "attempt 2"))).collect();
    for (number, run) in runs.iter().enumerate() {
        assert_eq!(states[&run.id()], if number % 2 == 0 { completed() } else { retried.clone() });
    }
    worker.shutdown().await;
}

/// Reads until some runs have ended, and returns the states of each run.
async fn read(watch: &mut TagWatch, mut ends: usize) -> BTreeMap<RunId, Vec<String>> {
    let mut states: BTreeMap<RunId, Vec<String>> = BTreeMap::new();
    while ends > 0 {
        let change = watch.next().await.unwrap().unwrap();
        ends -= usize::from(change.is_final());
        states.entry(change.run_id()).or_default().push(change.to_string());
    }
    states
}

fn ids<'a, O: 'a>(runs: impl IntoIterator<Item = &'a RunHandle<O>>) -> BTreeSet<RunId> {
    runs.into_iter().map(RunHandle::id).collect()
}

async fn s11_watches_of_a_tag_return_all_runs_that_follow(setup: Setup) {
    let (task, tenant) = (double(setup.name("double")), setup.name("tenant"));
    let worker = setup.worker(&task).await;
    let start = async |client: &hatchet::Client, tenant: &str| {
        client.run(&task, &ONE).metadata("tenant", tenant).start().await.unwrap()
    };
    let before = start(&setup.hatchet, &tenant).await;
    before.result().await.unwrap();
    // REST has its end.
    before.details().await.unwrap();
    tokio::time::sleep(SECOND).await;
    let mut watch = setup.hatchet.watch_matching("tenant", &tenant);
    let other = setup.client_with(|config| config);
    let started = async {
        tokio::time::sleep(SECOND).await;
        let mut runs = Vec::new();
        for number in 0..6 {
            runs.push(start([&setup.hatchet, &other][number % 2], &tenant).await);
            start(&other, "another").await;
            if number % 2 == 0 {
                tokio::time::sleep(SECOND * 2).await;
            }
        }
        runs
    };
    let (states, runs) = tokio::join!(read(&mut watch, 6), started);
    assert_eq!(states.keys().copied().collect::<BTreeSet<_>>(), ids(&runs), "not the one from before");
    for of_run in states.values() {
        assert_eq!(*of_run, completed());
    }
    worker.shutdown().await;
}

async fn s11_watches_of_a_tag_return_earlier_runs_on_request(setup: Setup) {
    let (task, tenant) = (double(setup.name("double")), setup.name("tenant"));
    let worker = setup.worker(&task).await;
    let start = async || setup.hatchet.run(&task, &ONE).metadata("tenant", &tenant).start().await.unwrap();
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(start().await);
    }
    for run in &runs {
        run.result().await.unwrap();
    }
    let since = runs[0].details().await.unwrap().created_at.unwrap();
    let mut watch = setup.hatchet.watch_matching("tenant", &tenant).since(since);
    // Runs that start during the list are neither lost nor returned twice.
    let started = async {
        let mut runs = Vec::new();
        for _ in 0..5 {
            runs.push(start().await);
            tokio::time::sleep(SECOND / 10).await;
        }
        runs
    };
    let (states, later) = tokio::join!(read(&mut watch, 8), started);
    assert_eq!(states.keys().copied().collect::<BTreeSet<_>>(), ids(runs.iter().chain(&later)));
    for of_run in states.values() {
        assert_eq!(*of_run, completed());
    }
    assert!(tokio::time::timeout(3 * SECOND, watch.next()).await.is_err(), "nothing is returned twice");
    worker.shutdown().await;
}

async fn s11_watches_of_a_tag_include_runs_that_have_not_ended(setup: Setup) {
    let (task, tenant) = (double(setup.name("double")), setup.name("tenant"));
    setup.worker(&task).await.shutdown().await;
    let run = setup.hatchet.run(&task, &ONE).metadata("tenant", &tenant).start().await.unwrap();
    setup.eventually(async || run.details().await.unwrap().created_at.is_some()).await;
    let other = setup.client_with(|config| config);
    let mut watch = other.watch_matching("tenant", &tenant);
    // The run was created long before.
    let mut since = other.watch_matching("tenant", &tenant).since(chrono::Utc::now() + chrono::TimeDelta::minutes(1));
    for watch in [&mut watch, &mut since] {
        assert!(watch.next().await.unwrap().unwrap().has_status(&RunStatus::Queued));
    }
    let worker = setup.worker(&task).await;
    let (states, of_since) = tokio::join!(read(&mut watch, 1), read(&mut since, 1));
    assert_eq!(states, BTreeMap::from([(run.id(), completed()[1..].to_vec())]));
    assert_eq!(of_since, states);
    worker.shutdown().await;
}

async fn s11_watches_of_a_tag_can_follow_replays(setup: Setup) {
    let (task, tenant) = (double(setup.name("double")), setup.name("tenant"));
    let worker = setup.worker(&task).await;
    let mut with = setup.hatchet.watch_matching("tenant", &tenant).follow_replays();
    let mut without = setup.hatchet.watch_matching("tenant", &tenant);
    let started = async {
        // A real engine needs a moment to subscribe.
        tokio::time::sleep(SECOND).await;
        setup.hatchet.run(&task, &ONE).metadata("tenant", &tenant).start().await.unwrap()
    };
    let (run, first, _) = tokio::join!(started, read(&mut with, 1), read(&mut without, 1));
    assert_eq!(first, BTreeMap::from([(run.id(), completed())]));
    for attempt in 2..=3 {
        run.replay().send().await.unwrap();
        let expected =
            completed().iter().map(|state| state.replace("attempt 1", &format!("attempt {attempt}"))).collect();
        assert_eq!(read(&mut with, 1).await, BTreeMap::from([(run.id(), expected)]));
    }
    assert!(tokio::time::timeout(3 * SECOND, without.next()).await.is_err(), "only on request");
    worker.shutdown().await;
}

async fn s11_watches_of_a_tag_are_limited_to_the_namespace(setup: Setup) {
    let tenant = setup.name("tenant");
    let [own, other] = ["own", "other"].map(|name| setup.client_with(|config| config.namespace(setup.name(name))));
    // The same name in two namespaces.
    let task = double("double".to_owned());
    let mut workers = Vec::new();
    for client in [&own, &other] {
        workers.push(client.worker("worker").register(&task).build().unwrap().start().await.unwrap());
    }
    let start =
        async |client: &hatchet::Client| client.run(&task, &ONE).metadata("tenant", &tenant).start().await.unwrap();
    let before = start(&own).await;
    start(&other).await.result().await.unwrap();
    before.result().await.unwrap();
    let since = before.details().await.unwrap().created_at.unwrap();
    let mut watch = own.watch_matching("tenant", &tenant).since(since);
    let started = async {
        tokio::time::sleep(SECOND).await;
        let mut runs = vec![before.clone()];
        for number in 0..6 {
            match number % 2 {
                0 => runs.push(start(&own).await),
                _ => drop(start(&other).await),
            }
        }
        runs
    };
    let (states, runs) = tokio::join!(read(&mut watch, 4), started);
    assert_eq!(states.keys().copied().collect::<BTreeSet<_>>(), ids(&runs));
    for of_run in states.values() {
        assert_eq!(*of_run, completed());
    }
    assert!(tokio::time::timeout(3 * SECOND, watch.next()).await.is_err(), "nothing of the other namespace");
    for worker in workers {
        worker.shutdown().await;
    }
}

async fn s11_watches_can_be_limited_to_kinds_and_tasks(setup: Setup) {
    let step = |name: &str| Task::new(name, async |_: Number, _: Context| Ok(1));
    let flow: Workflow<Number> = Workflow::new(setup.name("flow")).task(&step("a")).task_after(&step("b"), ["a"]);
    let worker = setup.worker(&flow).await;
    let run = setup.hatchet.run(&flow, &ONE).start().await.unwrap();
    let of_b = async {
        let (mut watch, mut states) = (run.watch().task("b"), Vec::new());
        while let Some(change) = watch.next().await {
            states.push(change.unwrap().to_string());
        }
        states
    };
    let own = async {
        let (mut watch, mut states) = (run.watch().only(ChangeKind::Run), Vec::new());
        while let Some(change) = watch.next().await {
            states.push(change.unwrap().to_string());
        }
        states
    };
    let (of_b, own) = tokio::join!(of_b, own);
    assert_eq!(of_b, completed().iter().map(|state| format!("b: {state}")).collect::<Vec<_>>());
    assert_eq!(own, completed());
    worker.shutdown().await;
}

/// The states of a run that is replayed twice, of one watch.
async fn states_of_replays<O>(run: &RunHandle<O>) -> Vec<String> {
    let (mut watch, mut states) = (run.watch().follow_replays(), Vec::new());
    for attempt in 1..=3 {
        loop {
            let change = watch.next().await.unwrap().unwrap();
            states.push(change.to_string());
            if change.is_final() {
                break;
            }
        }
        if attempt < 3 {
            run.replay().send().await.unwrap();
        }
    }
    states
}

async fn s11_watches_can_follow_replays_of_a_dag(setup: Setup) {
    let flow = flow(&setup, 200);
    let worker = setup.worker(&flow).await;
    let run = setup.hatchet.run(&flow, &ONE).start().await.unwrap();
    check_flow(&states_of_replays(&run).await, 3);
    worker.shutdown().await;
}

async fn s11_watches_can_follow_replays(setup: Setup) {
    let task = double(setup.name("double"));
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &ONE).start().await.unwrap();
    let states = states_of_replays(&run).await;
    let expected = (1..=3).flat_map(|attempt| {
        completed().into_iter().map(move |state| state.replace("attempt 1", &format!("attempt {attempt}")))
    });
    assert_eq!(states, expected.collect::<Vec<_>>());
    worker.shutdown().await;
}

async fn s11_conditions_are_waited_for(setup: Setup) {
    let task = endless(setup.name("endless"));
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &ONE).start().await.unwrap();
    let change = run.until(RunStatus::Running).await.unwrap();
    assert!(matches!(change, Some(Change::Run(change)) if change.attempt_status.status == RunStatus::Running));
    let ended = run.until(Until::attempt(2).or(Until::ended()));
    let cancelled = async {
        tokio::time::sleep(SECOND).await;
        run.cancel().send().await.unwrap();
    };
    let (change, ()) = tokio::join!(ended, cancelled);
    assert!(change.unwrap().unwrap().has_status(&RunStatus::Cancelled));
    assert_eq!(run.until(RunStatus::Completed).await.unwrap(), None, "the run has ended before");
    worker.shutdown().await;
}

/// Subscriptions are lost each second for a while: nothing is returned twice or in the wrong order, and each missing chunk is reported. The
/// engine waits five seconds for the chunks that a subscription has missed, before it sends those that follow.
async fn b3_watches_waits_and_chunks_survive_lost_streams(setup: Setup) {
    const CHUNKS: i64 = 32;
    let Some(unreliable) = setup.unreliable_client().await else { return };
    let slow = Task::new(setup.name("slow"), async |_: Number, context: Context| {
        for number in 0..CHUNKS {
            context.put(number.to_string()).await?;
            tokio::time::sleep(SECOND / 2).await;
        }
        Ok(7)
    });
    let worker = setup.worker(&slow).await;
    let run = unreliable.hatchet.run(&slow, &ONE).start().await.unwrap();
    let lost = async {
        for _ in 0..5 {
            tokio::time::sleep(SECOND).await;
            unreliable.lose_streams();
        }
    };
    let chunks = async {
        let (mut chunks, mut items) = (run.chunks(), Vec::new());
        while let Some(item) = chunks.next().await {
            items.push(item.unwrap());
        }
        items
    };
    let states = crate::setup::states(&run);
    let (states, outcome, result, chunks, ()) = tokio::join!(states, run.outcome(), run.result(), chunks, lost);
    assert_eq!(states, completed());
    assert!(matches!(outcome.unwrap(), Outcome::Completed(_)));
    assert_eq!(result.unwrap(), 7);
    let mut next = 0;
    for item in &chunks {
        match item {
            ChunkItem::Chunk(chunk) => {
                assert_eq!((chunk.index, chunk.to_string()), (Some(next), next.to_string()), "{chunks:?}");
                next += 1;
            }
            ChunkItem::Gap(gap) => {
                assert_eq!(gap.first_index, next, "{chunks:?}");
                next = gap.last_index + 1;
            }
            item => assert_eq!(item, chunks.last().unwrap(), "{chunks:?}"),
        }
    }
    let arrived = chunks.iter().filter(|item| matches!(item, ChunkItem::Chunk(_))).count();
    assert!(arrived >= 4, "a stream is open in the end: {chunks:?}");
    // The last ones may be missing. The stream ends with a notice then.
    assert!(next == CHUNKS || chunks.last() == Some(&ChunkItem::Interrupted), "{chunks:?}");
    worker.shutdown().await;
}

async fn b4_thousands_of_runs_are_awaited_at_once(setup: Setup) {
    let count = if setup.engine.is_some() { 10_000 } else { 300 };
    let task = double(setup.name("double"));
    let worker = setup.hatchet.worker(setup.name("worker")).slots(200).register(&task);
    let worker = worker.build().unwrap().start().await.unwrap();
    let inputs = (0..count).map(|n| Number { n });
    let runs: Vec<_> =
        setup.hatchet.run_many(&task, inputs).start().await.unwrap().into_iter().map(Result::unwrap).collect();
    let expected: HashMap<_, _> = runs.iter().zip(0..).map(|(run, n)| (run.id(), 2 * n)).collect();
    // Each stream uses one up.
    let faults = setup.engine.as_ref().map(hatchet::embedded::Engine::faults);
    if let Some(faults) = &faults {
        faults.inject_times("SubscribeToWorkflowRuns", Fault::Delay(Duration::ZERO), 1000).unwrap();
    }
    let (mut results, mut seen) = (setup.hatchet.results(&runs), HashMap::new());
    while let Some((run, result)) = results.next().await {
        assert!(seen.insert(run, result.unwrap().doubled).is_none(), "each run is returned once");
    }
    assert_eq!(seen, expected);
    if let Some(faults) = &faults {
        assert_eq!(faults.planned(), 999, "all of them are awaited on one stream");
        faults.clear();
    }
    worker.shutdown().await;
}

/// All chunks of a run have arrived: their numbers. A loaded real engine may announce the end of the run, and close the stream, before it
/// announces the end of the attempt.
fn check_all_chunks(setup: &Setup, texts: &[String], count: usize) {
    let chunks = texts.strip_suffix(&["interrupted".to_owned()]).filter(|_| setup.engine.is_none()).unwrap_or(texts);
    assert_eq!(chunks, (0..count).map(|number| number.to_string()).collect::<Vec<_>>());
}

/// A task that sends the first chunk at once, and ends at once after the last one.
fn chat(setup: &Setup) -> Task<Number, i64> {
    Task::new(setup.name("chat"), async |Number { n }: Number, context: Context| {
        for number in 0..n {
            context.put(format!("{number}")).await?;
        }
        Ok(n)
    })
}

async fn b2_watches_and_chunks_of_a_run_that_they_start_are_complete(setup: Setup) {
    let chat = chat(&setup);
    let worker = setup.worker(&chat).await;
    check_all_chunks(&setup, &texts(setup.hatchet.run(&chat, &Number { n: 50 }).chunks()).await, 50);
    let (mut watch, mut states) = (setup.hatchet.run(&chat, &ONE).watch(), Vec::new());
    while let Some(change) = watch.next().await {
        states.push(change.unwrap().to_string());
    }
    assert_eq!(states, completed());
    worker.shutdown().await;
}

async fn b2_all_chunks_and_all_changes_of_a_run_can_be_read(setup: Setup) {
    let chat = chat(&setup);
    let worker = setup.worker(&chat).await;
    let mut chunks = setup.hatchet.run(&chat, &Number { n: 50 }).chunks();
    assert_eq!(chunks.run_id(), None);
    let run = chunks.started().await.unwrap();
    assert_eq!(chunks.run_id(), Some(run.id()));
    let states = run.watch().map(|change| change.unwrap().to_string()).collect::<Vec<_>>();
    // The run may have ended long before its chunks are read.
    assert_eq!(run.result().await.unwrap(), 50);
    let (states, chunks) = tokio::join!(states, texts(chunks));
    assert_eq!(states, completed());
    check_all_chunks(&setup, &chunks, 50);
    worker.shutdown().await;
}
