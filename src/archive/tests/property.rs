//! Random runs, replays, collections, crashes and compactions, while the engine drops old runs.

use super::*;

/// What happens in the property test.
#[derive(Debug, Clone)]
enum Action {
    Start(u32),
    StartDag(u32),
    StartAndCancel,
    Replay(usize),
    Collect,
    CollectAndCrash(usize),
    CollectTwice,
    Compact,
    CompactAndCrash(usize),
    Sweep,
    Wait(u32),
}

/// The engine drops the runs of a day this long after its end. Most waits are longer.
const ENGINE_RETENTION: Duration = Duration::from_secs(3600);

/// Each operation of the store has two steps. A collection or compaction that ends before the step does not crash.
fn crash_step() -> impl Strategy<Value = usize> {
    prop_oneof![0usize..15, 0usize..50, 0usize..200]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (0u32..10).prop_map(Action::Start),
        1 => (0u32..10).prop_map(Action::StartDag),
        1 => Just(Action::StartAndCancel),
        2 => any::<usize>().prop_map(Action::Replay),
        2 => Just(Action::Collect),
        2 => crash_step().prop_map(Action::CollectAndCrash),
        1 => Just(Action::CollectTwice),
        1 => Just(Action::Compact),
        1 => crash_step().prop_map(Action::CompactAndCrash),
        1 => Just(Action::Sweep),
        3 => (1u32..50).prop_map(Action::Wait),
    ]
}

/// A walk over pages, one page after each action. The token is a string in between, as if another process continued.
#[derive(Default)]
struct Walk {
    token: Option<String>,
    /// What must be on its pages, unless it is on none yet.
    expected: Vec<RunId>,
    seen: Vec<RunSummary>,
}

impl Walk {
    /// The token for the next page. `existing`: the runs that exist when a walk begins.
    fn next(&mut self, existing: impl Iterator<Item = RunId>) -> Option<PageToken> {
        if self.token.is_none() {
            self.expected = existing.collect();
            self.seen.clear();
        }
        self.token.as_ref().map(|token| token.parse().unwrap())
    }

    fn add(&mut self, page: Page<RunSummary>) {
        self.seen.extend(page.items);
        self.token = page.next.map(|token| token.to_string());
        assert!(self.seen.is_sorted_by(|one, other| one.created_at >= other.created_at), "newest first");
        let ids: BTreeSet<_> = self.seen.iter().map(|run| run.id).collect();
        assert_eq!(ids.len(), self.seen.len(), "none twice");
        if self.token.is_none() {
            assert!(self.expected.iter().all(|id| ids.contains(id)), "none missed");
        }
    }
}

async fn apply(bench: &Bench, actions: Vec<Action>, size: usize) {
    let client = &bench.client;
    let dag: Workflow<Input> = {
        let first = Task::new("first", async |input: Input, _: Context| Ok(input));
        // Like the other task: odd numbers fail until they are replayed.
        let second = Task::new("second", async |input: Input, context: Context| {
            if input.n % 2 == 1 && context.attempt() == 1 { Err(TaskError::new("odd")) } else { Ok(input.n) }
        });
        Workflow::new("dag").task(&first).task_after(&second, ["first"])
    };
    let slow = slow("slow");
    let worker = client.worker("other").register(&dag).register(&slow).build().unwrap().start().await.unwrap();
    let (mut over_archive, mut over_history) = (Walk::default(), Walk::default());
    let mut expected: BTreeMap<RunId, RunSummary> = BTreeMap::new();
    for action in actions {
        match action {
            // The runs of one call have the same creation time.
            Action::Start(n) => {
                let runs = client.run_many(&bench.task, [Input { n }, Input { n: n + 1 }]).start().await.unwrap();
                for run in runs {
                    run.unwrap().outcome().await.unwrap();
                }
            }
            Action::StartDag(n) => drop(client.run(&dag, &Input { n }).outcome().await.unwrap()),
            Action::StartAndCancel => {
                let run = client.run(&slow, &json!({})).start().await.unwrap();
                sleep(Duration::from_secs(1)).await;
                run.cancel().reason("not needed").send().await.unwrap();
                sleep(Duration::from_secs(10)).await;
            }
            Action::Replay(at) => {
                // The engine rejects the replay of a cancelled run.
                let can_be_replayed = |(_, run): &(RunId, RunSummary)| run.status != RunStatus::Cancelled;
                let live: Vec<_> = bench.live().await.into_iter().filter(can_be_replayed).map(|(id, _)| id).collect();
                if let Some(id) = live.get(at % live.len().max(1)) {
                    // A new end at the very time of the last one would be the same version of the run, which real time rules out.
                    sleep(Duration::from_secs(1)).await;
                    client.run_handle(*id).replay().send().await.unwrap().run.outcome().await.unwrap();
                    sleep(Duration::from_secs(60)).await;
                }
            }
            Action::Collect => drop(bench.other().collect(client, all()).send().await.unwrap()),
            Action::CollectAndCrash(step) => {
                drop(bench.crashing(&Crash::at(step)).collect(client, all()).send().await);
            }
            Action::CollectTwice => {
                let (one, other) = (bench.other(), bench.other());
                let (one, other) = tokio::join!(one.collect(client, all()).send(), other.collect(client, all()).send());
                one.unwrap();
                other.unwrap();
            }
            Action::Compact => drop(bench.other().compact().send().await.unwrap()),
            Action::CompactAndCrash(step) => drop(bench.crashing(&Crash::at(step)).compact().send().await),
            Action::Sweep => drop(bench.other().sweep().grace_period(Duration::ZERO).send().await.unwrap()),
            Action::Wait(hours) => {
                // Nothing may be dropped before it is archived. The engine drops runs at a full hour, and started at one. All other
                // actions together take less than an hour, so it drops runs only during waits.
                expected.extend(bench.live().await);
                bench.other().collect(client, all()).send().await.unwrap();
                sleep(HOUR * hours).await;
            }
        }
        expected.extend(bench.live().await);
        let history = History::new(client, &bench.archive).paged(3);
        assert_eq!(listed(history.runs(Window::all()).items()).await, expected);
        let query = history.runs(Window::all());
        let token = over_history.next(expected.keys().copied());
        over_history.add(token.map_or(query.clone(), |token| query.after(token)).page(size).await.unwrap());
        let archived = bench.archived().await;
        let query = bench.archive.runs(Window::all());
        let token = over_archive.next(archived.keys().copied());
        over_archive.add(token.map_or(query.clone(), |token| query.after(token)).page(size).await.unwrap());
        let failed = RunFilter::new(Window::all()).status(RunStatus::Failed);
        let seen = listed(history.runs(failed).items()).await;
        let is_failed = |(_, run): &(&RunId, &RunSummary)| run.status == RunStatus::Failed;
        assert!(expected.iter().filter(is_failed).eq(seen.iter()), "{seen:?}");
    }
    bench.other().collect(client, all()).send().await.unwrap();
    assert_eq!(bench.archived().await, expected);
    worker.shutdown().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn the_view_has_every_ended_run_once_in_its_newest_state(
        actions in proptest::collection::vec(action(), 5..30),
        size in 1usize..6,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let bench = Bench::keeping(ENGINE_RETENTION).await;
            apply(&bench, actions, size).await;
            bench.end().await;
        });
    }
}
