use std::sync::Mutex;

use prost::Message as _;
use tokio::time::{sleep, timeout};

use super::*;
use crate::config::Config;
use crate::embedded::{Engine, Fault};
use crate::model::{AttemptStatus, RunChange};
use crate::rpc::pb::WorkflowEvent;
use crate::run::RunHandle;
use crate::scripted::{Scripted, client_with};
use crate::sync::lock;
use crate::watch::TagWatch;
use crate::worker::RunningWorker;
use crate::workflow::{Context, Task};

const SECOND: Duration = Duration::from_secs(1);
const LIST: &str = "GET /api/v1/stable/tenants/{tenant}/workflow-runs";
const PLANNED: usize = 1_000_000;

/// With a namespace, the run of an event is looked up. REST can have it later than a lookup takes.
#[tokio::test(start_paused = true)]
async fn a_run_that_a_lookup_does_not_find_is_listed() {
    let (start, lists) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
    let run = uuid::Uuid::from_u128(1).to_string();
    let event = WorkflowEvent { workflow_run_id: run, ..Default::default() }.encode_to_vec();
    let listed = Arc::clone(&lists);
    let (client, _) = client_with(Config::builder().namespace("own"), move |name, _| match name {
        name if name.ends_with("/workflow-runs") => {
            lock(&listed).push(start.elapsed().as_millis());
            Scripted::Rest(200, r#"{"rows":[]}"#.into())
        }
        name if name.starts_with("GET ") => Scripted::Rest(404, String::new()),
        _ => Scripted::Stream(vec![(30 * SECOND, event.clone())], None),
    });
    let mut watch = client.watch_matching("tenant", "acme");
    assert!(timeout(59 * SECOND, watch.next()).await.is_err());
    let lists = lock(&lists).clone();
    let (first, [before @ .., looked_up, confirmed]) = lists.split_at(5) else { panic!("{lists:?}") };
    // Two at the start, two for the subscription, and one after the first event, which may not be the first one that was sent.
    assert_eq!(first, [0, 0, 1000, 11_000, 30_500]);
    // The lookup has failed after ten seconds, or up to one more. The next list is for the event, too, unless it is due before.
    assert!(before.is_empty() || before == [40_500], "{lists:?}");
    assert!((40_500..=41_500).contains(looked_up), "{lists:?}");
    assert_eq!(confirmed - looked_up, 10_000);
}

/// An engine whose subscriptions begin 200 ms after their request, with a worker for `short`, and none for `waiting`.
struct Setup {
    engine: Engine,
    short: Task<(), ()>,
    waiting: Task<(), ()>,
    worker: RunningWorker,
}

impl Setup {
    async fn new() -> Self {
        let engine = Engine::start().await.unwrap();
        engine.faults().inject_always("SubscribeToWorkflowEvents", Fault::Delay(SECOND / 5)).unwrap();
        engine.faults().inject_times(LIST, Fault::Delay(Duration::ZERO), PLANNED).unwrap();
        let task = |name| Task::new(name, async |(): (), _: Context| Ok(()));
        let (short, waiting) = (task("short"), task("waiting"));
        let start = async |task: &Task<(), ()>| {
            engine.client().worker("worker").register(task).build().unwrap().start().await.unwrap()
        };
        start(&waiting).await.shutdown().await;
        let worker = start(&short).await;
        Self { engine, short, waiting, worker }
    }

    fn watch(&self) -> TagWatch {
        self.engine.client().watch_matching("tenant", "acme")
    }

    /// Another client starts a run.
    async fn start(&self, task: &Task<(), ()>) -> RunHandle<()> {
        self.engine.client().run(task, &()).metadata("tenant", "acme").start().await.unwrap()
    }

    fn lists(&self) -> usize {
        // The other fault has no number.
        PLANNED + 1 - self.engine.faults().planned()
    }
}

/// The list is read before the stream begins, and no message follows.
#[tokio::test(start_paused = true)]
async fn a_run_that_starts_before_the_subscription_has_begun_is_returned_soon() {
    let setup = Setup::new().await;
    let (mut watch, start) = (setup.watch(), Instant::now());
    let later = async {
        sleep(SECOND / 10).await;
        setup.start(&setup.waiting).await.id()
    };
    let (change, run) = tokio::join!(timeout(50 * SECOND, watch.next()), later);
    let change = change.unwrap().unwrap().unwrap();
    assert!(change.run_id() == run && change.has_status(&RunStatus::Queued), "{change}");
    assert!(start.elapsed() < 2 * SECOND, "{:?}", start.elapsed());
    assert!(timeout(50 * SECOND, watch.next()).await.is_err(), "it waits");
    setup.worker.shutdown().await;
}

/// The engine ends the stream with each run, because there is no other one.
#[tokio::test(start_paused = true)]
async fn a_run_that_starts_after_the_end_of_a_subscription_is_returned_soon() {
    let setup = Setup::new().await;
    let mut watch = setup.watch();
    let later = async {
        sleep(20 * SECOND).await;
        setup.start(&setup.short).await.outcome().await.unwrap();
        let ended = Instant::now();
        sleep(SECOND / 10).await;
        (setup.start(&setup.waiting).await.id(), ended)
    };
    let changes = async {
        let mut changes = Vec::new();
        while changes.len() < 4 {
            changes.push(watch.next().await.unwrap().unwrap());
        }
        (changes, Instant::now())
    };
    let ((changes, at), (run, ended)) = tokio::join!(changes, later);
    let texts: Vec<_> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["QUEUED (attempt 1)", "RUNNING (attempt 1)", "COMPLETED (attempt 1)", "QUEUED (attempt 1)"]);
    assert_eq!(changes[3].run_id(), run);
    assert!(at - ended < 2 * SECOND, "{:?}", at - ended);
    setup.worker.shutdown().await;
}

/// Two at the start and two for the subscription, and then two each time the stream is idle.
#[tokio::test(start_paused = true)]
async fn a_watch_of_a_tag_without_runs_makes_few_lists() {
    let setup = Setup::new().await;
    let mut watch = setup.watch();
    for (after, expected) in [(SECOND / 2, 2), (SECOND, 3), (10 * SECOND, 4), (48 * SECOND, 4), (30 * SECOND, 6)] {
        assert!(timeout(after, watch.next()).await.is_err());
        assert_eq!(setup.lists(), expected, "after {after:?}");
    }
    setup.worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_without_a_time_is_returned_and_those_after_it_are_still_compared() {
    let (client, _) = client_with(Config::builder(), |_, _| Scripted::Hangs);
    let watch = client.watch_matching("tenant", "acme");
    let mut matching = Matching::new(watch.pending.unwrap());
    let run: RunId = uuid::Uuid::from_u128(1).into();
    let at = |second| DateTime::from_timestamp(second, 0);
    let change = |changed_at| {
        let attempt_status = AttemptStatus { attempt: 1, status: RunStatus::Running };
        Change::Run(RunChange { run_id: run, attempt_status, changed_at, error: None, outcome: None })
    };
    matching.since.insert(run, at(100).unwrap());
    let is_returned: Vec<_> =
        [at(10), None, at(20), at(100), at(30)].map(change).iter().map(|change| matching.is_returned(change)).collect();
    // The last one is after a late one, so that its time is wrong.
    assert_eq!(is_returned, [false, true, false, true, true]);
}
