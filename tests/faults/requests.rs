//! Each builder with `timeout` and `retry` uses them, in the calls that it makes.

use std::collections::BTreeSet;
use std::fs;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use futures_util::StreamExt as _;
use hatchet::archive::{Archive, History, Retention};
use hatchet::config::RetryPolicy;
use hatchet::embedded::{Engine, Fault, Faults};
use hatchet::handle::{CronHandle, EventHandle, RateLimitHandle, ScheduleHandle};
use hatchet::model::{CronSpec, Effect, RateLimitWindow, RunReport, Window};
use hatchet::worker::RunningWorker;
use hatchet::{Client, Context, ErrorKind, Result, RunHandle, Task};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::files;

const SECOND: Duration = Duration::from_secs(1);
const RESOURCE_EXHAUSTED: u16 = 8;
/// The calls of the worker and of the client's subscriptions.
const BACKGROUND_CALLS: [&str; 4] = ["Heartbeat", "ListenV2", "SubscribeToWorkflowEvents", "SubscribeToWorkflowRuns"];

struct World {
    engine: Engine,
    hatchet: Client,
    task: Task<(), ()>,
    worker: RunningWorker,
    /// Of an attempt that runs.
    context: Context,
    /// A run that has ended.
    run: RunHandle<()>,
    cron: CronHandle<()>,
    schedule: ScheduleHandle<()>,
    event: EventHandle,
    limit: RateLimitHandle,
    archive: Archive,
}

impl World {
    fn history(&self) -> History {
        History::new(&self.hatchet, &self.archive)
    }
}

async fn world() -> World {
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task = Task::new("task", async |(): (), _: Context| Ok(()));
    let (sender, context) = oneshot::channel();
    let sender = Arc::new(Mutex::new(Some(sender)));
    let waits = Task::with_state("waits", sender, async |sender: Arc<Mutex<Option<_>>>, (): (), context: Context| {
        if let Some(sender) = sender.lock().unwrap().take() {
            let _: std::result::Result<(), Context> = oneshot::Sender::send(sender, context);
        }
        sleep(24 * 3600 * SECOND).await;
        Ok(())
    });
    let waits = waits.timeout(24 * 3600 * SECOND);
    let worker = hatchet.worker("worker").register(&task).register(&waits).build().unwrap().start().await.unwrap();
    let run = hatchet.run(&task, &()).start().await.unwrap();
    run.result().await.unwrap();
    hatchet.run(&waits, &()).start().await.unwrap();
    World {
        context: context.await.unwrap(),
        run,
        cron: hatchet.cron(&task, &(), CronSpec::new("name", "0 0 1 1 *")).send().await.unwrap(),
        schedule: hatchet.schedule(&task, &(), Utc::now() + TimeDelta::days(300)).send().await.unwrap(),
        event: hatchet.push("key", &()).send().await.unwrap(),
        limit: hatchet.rate_limit("limit", 1, RateLimitWindow::Minute).send().await.unwrap(),
        archive: Archive::open("memory://").unwrap(),
        engine,
        hatchet,
        task,
        worker,
    }
}

/// What a request sets.
#[derive(Clone)]
enum Setting {
    Timeout(Duration),
    Retry(RetryPolicy),
}

type RequestFuture<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// The calls of a request to a server that does not respond.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Calls {
    One,
    /// A second call follows although the first one failed.
    Two,
    /// Two at the same time.
    Pair,
    /// A run is fetched again after an error, for twice the timeout and at most 10 seconds.
    UntilConsistent,
}

/// A request of a type of builder.
struct Request {
    builder: &'static str,
    method: &'static str,
    calls: Calls,
    send: for<'a> fn(&'a World, Setting) -> RequestFuture<'a>,
}

macro_rules! request {
    ($builder:literal, $method:literal, |$world:ident| $request:expr, |$set:ident| $ending:expr) => {
        request!(Calls::One, $builder, $method, |$world| $request, |$set| $ending)
    };
    ($calls:expr, $builder:literal, $method:literal, |$world:ident| $request:expr, |$set:ident| $ending:expr) => {
        Request {
            builder: $builder,
            method: $method,
            calls: $calls,
            send: |$world, setting| {
                Box::pin(async move {
                    let $set = match setting {
                        Setting::Timeout(timeout) => $request.timeout(timeout),
                        Setting::Retry(policy) => $request.retry(policy),
                    };
                    $ending
                })
            },
        }
    };
}

fn first_error(reports: Vec<RunReport>) -> Result<()> {
    reports
        .into_iter()
        .find_map(|report| if let Effect::Unknown(error) = report.effect { Some(error) } else { None })
        .map_or(Ok(()), Err)
}

fn all<T>(results: Vec<Result<T>>) -> Result<()> {
    results.into_iter().try_for_each(|result| result.map(drop))
}

fn due() -> Retention {
    Retention::older_than(SECOND)
}

#[rustfmt::skip]
fn requests() -> Vec<Request> {
    vec![
        request!("RunBuilder", "start", |it| it.hatchet.run(&it.task, &()), |it| it.start().await.map(drop)),
        request!("RunBuilder", "outcome", |it| it.hatchet.run(&it.task, &()), |it| it.outcome().await.map(drop)),
        request!("RunBuilder", "watch", |it| it.hatchet.run(&it.task, &()), |it| it.watch().next().await.unwrap().map(drop)),
        request!("RunManyBuilder", "start", |it| it.hatchet.run_many(&it.task, [(), ()]), |it| all(it.start().await?)),
        request!(Calls::UntilConsistent, "RerunBuilder", "start", |it| it.run.rerun(), |it| it.start().await.map(drop)),
        request!(Calls::UntilConsistent, "RerunBuilder", "outcome", |it| it.run.rerun(), |it| it.outcome().await.map(drop)),
        request!(Calls::UntilConsistent, "DetailsBuilder", "details", |it| it.run.details(), |it| it.await.map(drop)),
        request!(Calls::UntilConsistent, "LogItems", "logs", |it| it.run.logs(), |it| it.take(1).collect::<Vec<_>>().await.pop().unwrap().map(drop)),
        request!("CancelBuilder", "cancel", |it| it.run.cancel(), |it| first_error(vec![it.send().await?])),
        request!("CancelManyBuilder", "cancel_many", |it| it.hatchet.cancel_many([it.run.id()]), |it| first_error(it.send().await?)),
        request!(Calls::UntilConsistent, "ReplayBuilder", "replay", |it| it.run.replay(), |it| it.send().await.map(drop)),
        request!(Calls::UntilConsistent, "ReplayManyBuilder", "replay_many", |it| it.hatchet.replay_many([it.run.id()]), |it| first_error(it.send().await?)),
        request!("BulkCancelBuilder", "cancel", |it| it.hatchet.runs(Window::all()).cancel(), |it| it.send().await.map(drop)),
        request!("BulkReplayBuilder", "replay", |it| it.hatchet.runs(Window::all()).replay(), |it| it.send().await.map(drop)),
        request!(Calls::Pair, "RunQuery", "page", |it| it.hatchet.runs(Window::all()), |it| it.page(10).await.map(drop)),
        request!("RunQuery", "items", |it| it.hatchet.runs(Window::all()), |it| it.items().next().await.unwrap().map(drop)),
        request!("RunQuery", "count", |it| it.hatchet.runs(Window::all()), |it| it.count().await.map(drop)),
        request!("RunQuery", "counts_by_status", |it| it.hatchet.runs(Window::all()), |it| it.counts_by_status().await.map(drop)),
        request!(Calls::Pair, "TaskQuery", "page", |it| it.hatchet.tasks(Window::all()), |it| it.page(10).await.map(drop)),
        request!("TaskQuery", "items", |it| it.hatchet.tasks(Window::all()), |it| it.items().next().await.unwrap().map(drop)),
        request!("TaskQuery", "count", |it| it.hatchet.tasks(Window::all()), |it| it.count().await.map(drop)),
        request!("EventBuilder", "push", |it| it.hatchet.push("key", &()), |it| it.send().await.map(drop)),
        request!("EventManyBuilder", "push_many", |it| it.hatchet.push_many("key", [(), ()]), |it| all(it.send().await?)),
        request!("CronBuilder", "cron", |it| it.hatchet.cron(&it.task, &(), CronSpec::new("other", "0 0 1 1 *")), |it| it.send().await.map(drop)),
        request!("CronQuery", "crons", |it| it.hatchet.crons(), |it| it.get().await.map(drop)),
        request!("ScheduleBuilder", "schedule", |it| it.hatchet.schedule(&it.task, &(), Utc::now() + TimeDelta::days(300)), |it| it.send().await.map(drop)),
        request!("ScheduleQuery", "schedules", |it| it.hatchet.schedules(), |it| it.get().await.map(drop)),
        request!("RateLimitBuilder", "rate_limit", |it| it.hatchet.rate_limit("limit", 1, RateLimitWindow::Minute), |it| it.send().await.map(drop)),
        request!("RateLimitQuery", "rate_limits", |it| it.hatchet.rate_limits(), |it| it.get().await.map(drop)),
        request!(Calls::Two, "CollectBuilder", "collect", |it| it.archive.collect(&it.hatchet, due()), |it| it.send().await.map(drop)),
        request!(Calls::UntilConsistent, "HistoryDetailsBuilder", "History::details", |it| it.history().details(it.run.id()), |it| it.await.map(drop)),
        request!("HistoryQuery", "History::items", |it| it.history().runs(Window::all()), |it| it.items().next().await.unwrap().map(drop)),
        request!("HistoryQuery", "History::count", |it| it.history().runs(Window::all()), |it| it.count().await.map(drop)),
        request!("ReadBuilder", "CronHandle::details", |it| it.cron.details(), |it| it.await.map(drop)),
        request!("RunQuery", "CronHandle::runs", |it| it.hatchet.cron_handle(it.cron.id()).runs(Window::all()), |it| it.items().next().await.unwrap().map(drop)),
        request!("ReadBuilder", "EventHandle::details", |it| it.event.details(), |it| it.await.map(drop)),
        request!("ReadBuilder", "EventHandle::runs", |it| it.event.runs(), |it| it.await.map(drop)),
        request!("ReadBuilder", "ScheduleHandle::details", |it| it.schedule.details(), |it| it.await.map(drop)),
        request!("ReadBuilder", "ScheduleHandle::run", |it| it.schedule.run(), |it| it.await.map(drop)),
        request!("ReadBuilder", "RateLimitHandle::details", |it| it.limit.details(), |it| it.await.map(drop)),
        request!(Calls::UntilConsistent, "ReadBuilder", "RunHandle::children", |it| it.run.children(), |it| it.await.map(drop)),
        request!("CommandBuilder", "CronHandle::pause", |it| it.cron.pause(), |it| it.send().await),
        request!("CommandBuilder", "CronHandle::resume", |it| it.cron.resume(), |it| it.send().await),
        request!("CommandBuilder", "CronHandle::delete", |it| it.cron.delete(), |it| it.send().await),
        request!("CommandBuilder", "ScheduleHandle::reschedule", |it| it.schedule.reschedule(Utc::now() + TimeDelta::days(200)), |it| it.send().await.map(drop)),
        request!("CommandBuilder", "ScheduleHandle::delete", |it| it.schedule.delete(), |it| it.send().await),
        request!("CommandBuilder", "RateLimitHandle::delete", |it| it.limit.delete(), |it| it.send().await),
        request!("CommandBuilder", "RunningWorker::pause", |it| it.worker.pause(), |it| it.send().await),
        request!("CommandBuilder", "RunningWorker::resume", |it| it.worker.resume(), |it| it.send().await),
        request!("CommandBuilder", "RunningWorker::set_labels", |it| it.worker.set_labels([("key", 1)]), |it| it.send().await),
        request!("CommandBuilder", "Context::refresh_timeout", |it| it.context.refresh_timeout(SECOND), |it| it.send().await.map(drop)),
        request!("CommandBuilder", "Context::release_slot", |it| it.context.release_slot(), |it| it.send().await),
    ]
}

#[tokio::test(start_paused = true)]
async fn each_request_has_its_own_timeout() {
    let world = world().await;
    for call in Faults::calls() {
        world.engine.faults().inject_always(call, Fault::Delay(30 * SECOND)).unwrap();
    }
    let mut wrong = Vec::new();
    for request in requests() {
        for timeout in [SECOND, 2 * SECOND] {
            let start = Instant::now();
            let kind = (request.send)(&world, Setting::Timeout(timeout)).await.err().map(|error| error.kind());
            let (elapsed, backoff) = (start.elapsed(), SECOND / 10);
            let is_exact = match request.calls {
                Calls::One | Calls::Pair => elapsed == timeout,
                Calls::Two => elapsed == 2 * timeout,
                Calls::UntilConsistent => (2 * timeout..2 * timeout + backoff).contains(&elapsed),
            };
            if kind != Some(ErrorKind::Timeout) || !is_exact {
                wrong.push((request.builder, request.method, kind, elapsed));
            }
        }
    }
    assert_eq!(wrong, []);
    world.engine.shutdown().await;
}

/// How many calls of a request are rejected, in a world of its own: a client limits the retries of all its requests.
async fn rejected(request: &Request, policy: RetryPolicy) -> usize {
    let world = world().await;
    let faults = world.engine.faults();
    for call in Faults::calls().filter(|call| !BACKGROUND_CALLS.contains(call)) {
        let is_rest = call.contains(' ');
        let fault = if is_rest { Fault::RejectRest(429) } else { Fault::RejectGrpc(RESOURCE_EXHAUSTED) };
        faults.inject_times(call, fault, 100).unwrap();
    }
    let planned = faults.planned();
    let error = (request.send)(&world, Setting::Retry(policy)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited, "{}", request.method);
    let rejected = planned - faults.planned();
    world.engine.shutdown().await;
    rejected
}

#[tokio::test(start_paused = true)]
async fn each_request_has_its_own_retry_policy() {
    let mut wrong = Vec::new();
    // What fetches a run repeats its calls by itself.
    for request in requests().iter().filter(|request| request.calls != Calls::UntilConsistent) {
        let once = rejected(request, RetryPolicy::none()).await;
        let retried = rejected(request, RetryPolicy::max_retries(2)).await;
        let is_exact = match request.calls {
            Calls::Two => (once, retried) == (2, 6),
            // The first error ends both.
            Calls::Pair => once == 1 && (3..=6).contains(&retried),
            Calls::One | Calls::UntilConsistent => (once, retried) == (1, 3),
        };
        if !is_exact {
            wrong.push((request.builder, request.method, once, retried));
        }
    }
    assert_eq!(wrong, []);
}

/// The builders above are all that have these options.
#[test]
fn each_builder_with_options_is_tested() {
    let mut found = BTreeSet::new();
    for path in files::in_directory("src") {
        let mut owner = String::new();
        for line in fs::read_to_string(&path).unwrap().lines() {
            if line.starts_with("impl") {
                let generics = ["<O>", "<T>", "<'a>", "<'a, O>"];
                let name = line.trim_start_matches("impl");
                let name = generics.iter().find_map(|generics| name.strip_prefix(generics)).unwrap_or(name).trim();
                owner = name.split(|letter: char| !letter.is_alphanumeric()).next().unwrap().to_owned();
            }
            if line.contains("pub fn retry(") && line.contains("policy: RetryPolicy") {
                found.insert(owner.clone());
            }
        }
    }
    let tested: BTreeSet<_> = requests().iter().map(|request| request.builder.to_owned()).collect();
    assert_eq!(found, tested);
}
