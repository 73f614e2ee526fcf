//! The end of a client: `close`, and dropping the last clone. On the embedded engine, on a paused clock.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

use std::future::pending;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use hatchet::embedded::{Engine, Fault, Quirks};
use hatchet::model::{CronSpec, Effect, Window};
use hatchet::worker::RunningWorker;
use hatchet::{Client, Context, Error, ErrorKind, Result, RunHandle, RunStatus, Task};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// The longest interval between two fetches of a watch.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(2);

/// An engine, a worker with a client of its own, and a task that takes an hour.
struct Setup {
    engine: Engine,
    worker: RunningWorker,
    slow: Task<(), u32>,
}

impl Setup {
    async fn new() -> Self {
        let engine = Engine::builder().quirks(Quirks::all()).seed(7).start().await.unwrap();
        let slow = Task::new("slow", async |(): (), context: Context| {
            sleep(HOUR).await;
            Ok(context.attempt())
        })
        .timeout(2 * HOUR);
        let worker = engine.client().worker("worker").register(&slow).build().unwrap().start().await.unwrap();
        Self { engine, worker, slow }
    }

    /// A client that shares nothing with the worker.
    fn client(&self) -> Client {
        self.engine.client_with(hatchet::Config::builder()).unwrap()
    }

    async fn end(self) {
        self.worker.shutdown().await;
        self.engine.shutdown().await;
    }
}

async fn until_running<O>(run: &RunHandle<O>) {
    let mut watch = run.watch();
    while !watch.next().await.unwrap().unwrap().has_status(&RunStatus::Running) {}
}

fn alive_tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

fn assert_closed(call: &str, error: &Error) {
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Closed, "the client is shut down"), "{call}");
}

#[tokio::test(start_paused = true)]
async fn waits_that_are_running_end_immediately() {
    let setup = Setup::new().await;
    let hatchet = setup.client();
    let run = hatchet.run(&setup.slow, &()).start().await.unwrap();
    let (builder, other_handle) = (hatchet.run(&setup.slow, &()), run.clone());
    let ended = async |wait: BoxFuture<'_, Error>| (wait.await, Instant::now());
    let close = async {
        sleep(60 * SECOND).await;
        let started = Instant::now();
        hatchet.close().await;
        assert_eq!(started.elapsed(), Duration::ZERO, "nothing has to be waited for");
        started
    };
    let (outcome, result, of_builder, closed_at) = tokio::join!(
        ended(run.outcome().map(Result::unwrap_err).boxed()),
        ended(other_handle.result().map(Result::unwrap_err).boxed()),
        ended(builder.result().map(Result::unwrap_err).boxed()),
        close
    );
    for (call, (error, at)) in [("outcome", &outcome), ("result", &result), ("run.result", &of_builder)] {
        assert_closed(call, error);
        assert_eq!(*at, closed_at, "{call}");
    }
    // A wait does nothing to the run. What was started before its wait failed was started.
    assert!(outcome.0.has_no_side_effects() && result.0.has_no_side_effects());
    assert!(!of_builder.0.has_no_side_effects());
    // The runs are not affected.
    let other = setup.client();
    assert_eq!(other.run_handle(run.id()).typed::<u32>().result().await.unwrap(), 1);
    setup.end().await;
}

#[tokio::test(start_paused = true)]
async fn watches_that_are_running_end_with_the_error_and_are_fused() {
    let setup = Setup::new().await;
    let hatchet = setup.client();
    let run = hatchet.run(&setup.slow, &()).start().await.unwrap();
    let mut watches = [run.watch(), hatchet.run(&setup.slow, &()).watch()];
    for watch in &mut watches {
        while !watch.next().await.unwrap().unwrap().has_status(&RunStatus::Running) {}
    }
    let close = async {
        sleep(60 * SECOND).await;
        hatchet.close().await;
        Instant::now()
    };
    let ended =
        join_all(watches.iter_mut().map(async |watch| (watch.next().await.unwrap().unwrap_err(), Instant::now())));
    let (ended, closed_at) = tokio::join!(ended, close);
    for (error, at) in ended {
        assert_closed("watch", &error);
        assert!(at - closed_at <= MAX_POLL_INTERVAL, "{:?}", at - closed_at);
    }
    for watch in &mut watches {
        assert!(watch.next().await.is_none());
    }
    setup.end().await;
}

/// Every call of a client, of its handles and of its queries.
fn calls<'a>(hatchet: &'a Client, task: &'a Task<(), u32>, run: &'a RunHandle<u32>) -> Vec<(&'static str, Call<'a>)> {
    fn call<'a, T: 'a>(future: impl Future<Output = Result<T>> + Send + 'a) -> Call<'a> {
        future.map(Result::err).boxed()
    }
    let all = hatchet.runs(Window::all());
    let (page, count, counts, mut items) = (all.clone(), all.clone(), all.clone(), all.items());
    let (cancel, replay) = (all.cancel(), all.replay());
    let (mut watch, mut logs, mut reruns) = (run.watch(), run.logs(), run.reruns().items());
    let cron = hatchet.cron_handle("7c0b6d4e-9a43-4f6e-8a3b-0c6f0a3a5f11".parse().unwrap());
    let schedule = hatchet.schedule_handle("7c0b6d4e-9a43-4f6e-8a3b-0c6f0a3a5f11".parse().unwrap());
    let event = hatchet.event_handle("7c0b6d4e-9a43-4f6e-8a3b-0c6f0a3a5f11".parse().unwrap());
    let worker = hatchet.worker("late").register(task).build().unwrap();
    vec![
        ("run", call(hatchet.run(task, &()).start())),
        ("run.result", call(hatchet.run(task, &()).result())),
        ("run.outcome", call(hatchet.run(task, &()).outcome())),
        ("run_many", call(hatchet.run_many(task, [()]).start().map(|runs| runs?.pop().unwrap()))),
        ("run_many.results", call(hatchet.run_many(task, [()]).results().map(|results| results?.pop().unwrap()))),
        ("outcome", call(run.outcome())),
        ("result", call(run.result())),
        ("details", call(run.details().into_future())),
        ("watch", call(async move { watch.next().await.unwrap() })),
        ("logs", call(async move { logs.next().await.unwrap() })),
        ("cancel", call(run.cancel().send())),
        ("replay", call(run.replay().send())),
        ("rerun", call(run.rerun().start())),
        ("children", call(run.children().into_future())),
        ("reruns", call(async move { reruns.next().await.unwrap() })),
        ("page", call(async move { page.page(10).await })),
        ("count", call(async move { count.count().await })),
        ("counts_by_status", call(async move { counts.counts_by_status().await })),
        ("items", call(async move { items.next().await.unwrap() })),
        ("cancel by filter", call(async move { stopped_by(cancel.send().await) })),
        ("replay by filter", call(async move { stopped_by(replay.send().await) })),
        ("push", call(hatchet.push("key", &json!({})).send())),
        ("push_many", call(hatchet.push_many("key", [json!({})]).send().map(|events| events?.pop().unwrap()))),
        ("event.details", call(async move { event.details().await })),
        ("schedule", call(hatchet.schedule(task, &(), "2100-01-01T00:00:00Z".parse().unwrap()).send())),
        ("schedules", call(hatchet.schedules().get())),
        ("schedule.details", call(async move { schedule.details().await })),
        ("cron", call(hatchet.cron(task, &(), CronSpec::new("name", "* * * * *")).send())),
        ("crons", call(hatchet.crons().get())),
        ("cron.details", call(async move { cron.details().await })),
        ("worker", call(worker.start())),
    ]
}

type Call<'a> = BoxFuture<'a, Option<Error>>;

/// The error that stopped a bulk command.
fn stopped_by(report: Result<hatchet::model::BulkReport>) -> Result<()> {
    report.and_then(|report| report.stopped_by.map_or(Ok(()), Err))
}

#[tokio::test(start_paused = true)]
async fn later_calls_fail_immediately_and_send_nothing() {
    let setup = Setup::new().await;
    let hatchet = setup.client();
    let run = hatchet.run(&setup.slow, &()).start().await.unwrap();
    until_running(&run).await;
    let planned = calls(&hatchet, &setup.slow, &run);
    hatchet.close().await;
    let runs = setup.engine.run_count().await;
    for (name, call) in planned.into_iter().chain(calls(&hatchet, &setup.slow, &run)) {
        let started = Instant::now();
        let error = call.await.unwrap_or_else(|| panic!("{name} succeeds"));
        assert_closed(name, &error);
        assert!(error.has_no_side_effects() && !error.is_transient(), "{name}");
        assert_eq!(started.elapsed(), Duration::ZERO, "{name}");
    }
    // Commands for many runs report the error for each run.
    for reports in [hatchet.cancel_many([run.id()]).send().await, hatchet.replay_many([run.id()]).send().await] {
        let report = reports.unwrap().pop().unwrap();
        let Effect::Unknown(error) = report.effect else { panic!("{report}") };
        assert_closed("many", &error);
    }
    assert_eq!(setup.engine.run_count().await, runs);
    setup.end().await;
}

#[tokio::test(start_paused = true)]
async fn clones_and_handles_are_closed_and_other_clients_are_not() {
    let setup = Setup::new().await;
    let (hatchet, other) = (setup.client(), setup.client());
    let clone = hatchet.clone();
    let run = clone.run(&setup.slow, &()).start().await.unwrap();
    hatchet.close().await;
    assert_closed("clone", &clone.runs(Window::all()).count().await.unwrap_err());
    assert_closed("handle", &run.details().await.unwrap_err());
    assert_closed("client of a handle", &run.client().run(&setup.slow, &()).start().await.unwrap_err());
    assert_eq!(other.run(&setup.slow, &()).result().await.unwrap(), 1);
    // What needs no server still works.
    assert_eq!((clone.tenant_id(), run.client().namespace()), (setup.engine.tenant_id(), None));
    setup.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_can_be_closed_repeatedly_and_concurrently() {
    let setup = Setup::new().await;
    let hatchet = setup.client();
    let run = hatchet.run(&setup.slow, &()).start().await.unwrap();
    let wait = tokio::spawn(async move { run.result().await });
    sleep(SECOND).await;
    tokio::join!(hatchet.close(), hatchet.close(), async { hatchet.clone().close().await });
    hatchet.close().await;
    assert_closed("wait", &wait.await.unwrap().unwrap_err());
    // A client that was never used.
    setup.client().close().await;
    setup.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_dropped_after_its_first_poll_has_closed_the_client() {
    let setup = Setup::new().await;
    let hatchet = setup.client();
    let run = hatchet.run(&setup.slow, &()).start().await.unwrap();
    let wait = tokio::spawn(async move { run.result().await });
    sleep(SECOND).await;
    assert!(hatchet.close().now_or_never().is_none(), "the tasks have not ended yet");
    assert_closed("wait", &wait.await.unwrap().unwrap_err());
    assert_closed("count", &hatchet.runs(Window::all()).count().await.unwrap_err());
    setup.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_close_that_was_never_polled_does_nothing() {
    let setup = Setup::new().await;
    let hatchet = setup.client();
    drop(hatchet.close());
    assert_eq!(hatchet.run(&setup.slow, &()).result().await.unwrap(), 1);
    setup.end().await;
}

#[tokio::test(start_paused = true)]
async fn calls_that_were_sent_complete() {
    let setup = Setup::new().await;
    let hatchet = setup.client();
    // The workflow is known from then on.
    hatchet.run(&setup.slow, &()).start().await.unwrap();
    setup.engine.faults().inject("TriggerWorkflow", Fault::Delay(5 * SECOND)).unwrap();
    let started = Instant::now();
    let close = async {
        sleep(SECOND).await;
        hatchet.close().await;
        started.elapsed()
    };
    let (run, closed) = tokio::join!(hatchet.run(&setup.slow, &()).start(), close);
    assert_eq!((closed, started.elapsed()), (SECOND, 5 * SECOND), "closing does not wait for calls");
    let run = setup.client().run_handle(run.unwrap().id()).typed::<u32>();
    assert_eq!(run.result().await.unwrap(), 1);
    setup.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_its_next_try_gives_up() {
    let setup = Setup::new().await;
    let hatchet = setup.client();
    let run = hatchet.run(&setup.slow, &()).start().await.unwrap();
    setup.engine.faults().inject_always("GetRunDetails", Fault::RejectGrpc(14)).unwrap();
    let started = Instant::now();
    let close = async {
        sleep(SECOND).await;
        hatchet.close().await;
    };
    let (details, ()) = tokio::join!(run.details().into_future(), close);
    assert_closed("details", &details.unwrap_err());
    // At most one more try, after at most one pause between two tries.
    assert!(started.elapsed() < 5 * SECOND, "{:?}", started.elapsed());
    setup.engine.faults().clear();
    setup.end().await;
}

/// A run that has been started by another client, so that its attempt is a task in either case.
async fn running(setup: &Setup) -> hatchet::RunId {
    let other = setup.client();
    let run = other.run(&setup.slow, &()).start().await.unwrap();
    until_running(&run).await;
    other.close().await;
    run.id()
}

#[tokio::test(start_paused = true)]
async fn no_task_is_left_after_a_close() {
    let setup = Setup::new().await;
    let id = running(&setup).await;
    let before = alive_tasks();
    let hatchet = setup.client();
    let run = hatchet.run_handle(id);
    let mut watch = run.watch();
    let first = watch.next().await.unwrap().unwrap();
    assert!(first.has_status(&RunStatus::Queued));
    let mut outcome = std::pin::pin!(run.outcome());
    assert!(tokio::time::timeout(SECOND, outcome.as_mut()).await.is_err());
    assert_eq!(alive_tasks(), before + 2, "one for the events of runs, and one for their results");
    hatchet.close().await;
    assert_eq!(alive_tasks(), before);
    setup.end().await;
    assert_eq!(alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn no_task_is_left_after_the_last_clone_is_dropped() {
    let setup = Setup::new().await;
    let id = running(&setup).await;
    let before = alive_tasks();
    let hatchet = setup.client();
    let run = hatchet.run_handle(id);
    assert!(tokio::time::timeout(SECOND, run.outcome()).await.is_err());
    drop(hatchet);
    yield_now().await;
    assert_eq!(alive_tasks(), before + 1, "the handle has a clone of the client");
    drop(run);
    // The task ends when it is polled next.
    yield_now().await;
    assert_eq!(alive_tasks(), before);
    setup.end().await;
    assert_eq!(alive_tasks(), 0);
}

/// The worker cannot report anymore. Its report says so, and its shutdown does not take longer.
#[tokio::test(start_paused = true)]
async fn a_worker_of_a_closed_client_counts_its_attempts_as_unfinished() {
    let setup = Setup::new().await;
    let hatchet = setup.client();
    let quick: Task<(), ()> = Task::new("quick", async |(): (), _: Context| {
        sleep(10 * SECOND).await;
        Ok(())
    });
    let endless: Task<(), ()> = Task::new("endless", async |(): (), _: Context| pending().await);
    let worker = hatchet
        .worker("closed")
        .shutdown_grace_period(20 * SECOND)
        .register(&quick)
        .register(&endless)
        .build()
        .unwrap()
        .start()
        .await
        .unwrap();
    let other = setup.client();
    let before = other.run(&quick, &()).start().await.unwrap();
    before.result().await.unwrap();
    let (finished, dropped) =
        (other.run(&quick, &()).start().await.unwrap(), other.run(&endless, &()).start().await.unwrap());
    until_running(&finished).await;
    until_running(&dropped).await;
    hatchet.close().await;
    let started = Instant::now();
    let report = worker.shutdown().await;
    assert_eq!((report.completed, report.unfinished, report.total()), (1, 2, 3), "{report}");
    let finished_of =
        |run| report.unfinished_attempts.iter().find(|task| task.run_id == run).map(|task| task.is_finished);
    assert_eq!((finished_of(finished.id()), finished_of(dropped.id())), (Some(true), Some(false)));
    assert_eq!(started.elapsed(), 21 * SECOND, "the grace period of the shutdown, and that of a cancellation");
    setup.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_read_ends_with_the_error() {
    let setup = Setup::new().await;
    let hatchet = setup.client();
    for run in hatchet.run_many(&setup.slow, vec![(); 450]).start().await.unwrap() {
        run.unwrap();
    }
    sleep(5 * SECOND).await;
    let mut items = hatchet.runs(Window::all()).items();
    items.next().await.unwrap().unwrap();
    hatchet.close().await;
    // The rest of the fetched page is not lost.
    let mut read = 1;
    let error = loop {
        match items.next().await.unwrap() {
            Ok(_) => read += 1,
            Err(error) => break error,
        }
    };
    assert_closed("items", &error);
    assert!(read < 450, "{read}");
    assert!(items.next().await.is_none());
    setup.end().await;
}
