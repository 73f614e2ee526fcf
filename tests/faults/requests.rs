//! Each builder with `timeout` and `retry` uses them, in the calls that it makes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use futures_util::StreamExt as _;
use hatchet::archive::{Archive, Retention};
use hatchet::config::RetryPolicy;
use hatchet::embedded::{Engine, Fault, Faults};
use hatchet::handle::{CronHandle, EventHandle, RateLimitHandle, ScheduleHandle};
use hatchet::model::{CronSpec, Effect, RateLimitWindow, RunReport, Window};
use hatchet::worker::RunningWorker;
use hatchet::{Client, Context, Error, ErrorKind, Result, RunFilter, RunHandle, Task};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);
const RESOURCE_EXHAUSTED: u16 = 8;

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
        archive: Archive::open("memory://").await.unwrap(),
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

type Answer<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// A request of a type of builder.
struct Request {
    builder: &'static str,
    method: &'static str,
    send: for<'a> fn(&'a World, Setting) -> Answer<'a>,
}

/// `ending` awaits the request that it gets.
macro_rules! request {
    ($builder:literal, $method:literal, |$world:ident| $request:expr, |$set:ident| $ending:expr) => {
        Request {
            builder: $builder,
            method: $method,
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
    reports.into_iter().find_map(|report| if let Effect::Unknown(error) = report.effect { Some(error) } else { None }).map_or(Ok(()), Err)
}

fn all<T>(results: Vec<Result<T>>) -> Result<()> {
    results.into_iter().try_for_each(|result| result.map(drop))
}

fn due() -> Retention {
    Retention::after(SECOND)
}

#[rustfmt::skip]
fn requests() -> Vec<Request> {
    vec![
        request!("RunBuilder", "start", |it| it.hatchet.run(&it.task, &()), |it| it.start().await.map(drop)),
        request!("RunBuilder", "outcome", |it| it.hatchet.run(&it.task, &()), |it| it.outcome().await.map(drop)),
        request!("RunBuilder", "watch", |it| it.hatchet.run(&it.task, &()), |it| it.watch().next().await.unwrap().map(drop)),
        request!("RunManyBuilder", "start", |it| it.hatchet.run_many(&it.task, [(), ()]), |it| all(it.start().await?)),
        request!("RerunBuilder", "start", |it| it.run.rerun(), |it| it.start().await.map(drop)),
        request!("DetailsBuilder", "details", |it| it.run.details(), |it| it.await.map(drop)),
        request!("LogItems", "logs", |it| it.run.logs(), |it| it.take(1).collect::<Vec<_>>().await.pop().unwrap().map(drop)),
        request!("CancelBuilder", "cancel", |it| it.run.cancel(), |it| first_error(vec![it.send().await?])),
        request!("CancelManyBuilder", "cancel_many", |it| it.hatchet.cancel_many([it.run.id()]), |it| first_error(it.send().await?)),
        request!("ReplayBuilder", "replay", |it| it.run.replay(), |it| first_error(vec![it.send().await?.report])),
        request!("ReplayManyBuilder", "replay_many", |it| it.hatchet.replay_many([it.run.id()]), |it| first_error(it.send().await?)),
        request!("BulkCancelBuilder", "cancel", |it| it.hatchet.runs(RunFilter::new()).cancel(), |it| it.send().await.map(drop)),
        request!("BulkReplayBuilder", "replay", |it| it.hatchet.runs(RunFilter::new()).replay(), |it| it.send().await.map(drop)),
        request!("RunQuery", "page", |it| it.hatchet.runs(RunFilter::new()), |it| it.page(10).await.map(drop)),
        request!("RunQuery", "items", |it| it.hatchet.runs(RunFilter::new()), |it| it.items().next().await.unwrap().map(drop)),
        request!("RunQuery", "count", |it| it.hatchet.runs(RunFilter::new()), |it| it.count().await.map(drop)),
        request!("RunQuery", "counts_by_status", |it| it.hatchet.runs(RunFilter::new()), |it| it.counts_by_status().await.map(drop)),
        request!("TaskQuery", "page", |it| it.hatchet.tasks(RunFilter::new()), |it| it.page(10).await.map(drop)),
        request!("TaskQuery", "items", |it| it.hatchet.tasks(RunFilter::new()), |it| it.items().next().await.unwrap().map(drop)),
        request!("TaskQuery", "count", |it| it.hatchet.tasks(RunFilter::new()), |it| it.count().await.map(drop)),
        request!("EventBuilder", "push", |it| it.hatchet.push("key", &()), |it| it.send().await.map(drop)),
        request!("EventManyBuilder", "push_many", |it| it.hatchet.push_many("key", [(), ()]), |it| all(it.send().await?)),
        request!("CronBuilder", "cron", |it| it.hatchet.cron(&it.task, &(), CronSpec::new("other", "0 0 1 1 *")), |it| it.send().await.map(drop)),
        request!("CronQuery", "crons", |it| it.hatchet.crons(), |it| it.get().await.map(drop)),
        request!("ScheduleBuilder", "schedule", |it| it.hatchet.schedule(&it.task, &(), Utc::now() + TimeDelta::days(300)), |it| it.send().await.map(drop)),
        request!("ScheduleQuery", "schedules", |it| it.hatchet.schedules(), |it| it.get().await.map(drop)),
        request!("RateLimitBuilder", "rate_limit", |it| it.hatchet.rate_limit("limit", 1, RateLimitWindow::Minute), |it| it.send().await.map(drop)),
        request!("RateLimitQuery", "rate_limits", |it| it.hatchet.rate_limits(), |it| it.get().await.map(drop)),
        request!("CollectBuilder", "collect", |it| it.archive.collect(&it.hatchet, due()), |it| it.send().await.map(drop)),
        request!("ReadBuilder", "CronHandle::details", |it| it.cron.details(), |it| it.await.map(drop)),
        request!("ReadBuilder", "CronHandle::runs", |it| it.cron.runs(Window::all()), |it| it.await.map(drop)),
        request!("ReadBuilder", "EventHandle::details", |it| it.event.details(), |it| it.await.map(drop)),
        request!("ReadBuilder", "EventHandle::runs", |it| it.event.runs(), |it| it.await.map(drop)),
        request!("ReadBuilder", "ScheduleHandle::details", |it| it.schedule.details(), |it| it.await.map(drop)),
        request!("ReadBuilder", "ScheduleHandle::run", |it| it.schedule.run(), |it| it.await.map(drop)),
        request!("ReadBuilder", "RateLimitHandle::details", |it| it.limit.details(), |it| it.await.map(drop)),
        request!("ReadBuilder", "RunHandle::children", |it| it.run.children(), |it| it.await.map(drop)),
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
    for request in requests() {
        for timeout in [SECOND, 2 * SECOND] {
            let start = Instant::now();
            let error: Option<Error> = (request.send)(&world, Setting::Timeout(timeout)).await.err();
            let kind = error.map(|error| error.kind());
            assert_eq!((kind, start.elapsed()), (Some(ErrorKind::Timeout), timeout), "{}", request.method);
        }
    }
    world.engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn each_request_has_its_own_retry_policy() {
    let world = world().await;
    let faults = world.engine.faults();
    for request in requests() {
        let mut calls = Vec::new();
        for policy in [RetryPolicy::none(), RetryPolicy::max_retries(2)] {
            for call in Faults::calls().filter(|call| *call != "Heartbeat") {
                let is_rest = call.contains(' ');
                let fault = if is_rest { Fault::RefuseRest(429) } else { Fault::RefuseGrpc(RESOURCE_EXHAUSTED) };
                faults.inject_times(call, fault, 100).unwrap();
            }
            let planned = faults.planned();
            let error: Option<Error> = (request.send)(&world, Setting::Retry(policy)).await.err();
            calls.push(planned - faults.planned());
            assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::RateLimited), "{}", request.method);
            faults.clear();
        }
        assert_eq!(calls, [1, 3], "{} {}", request.builder, request.method);
    }
    world.engine.shutdown().await;
}

/// The builders above are all that have these options.
#[test]
fn each_builder_with_options_is_tested() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut found = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut owner = String::new();
            for line in fs::read_to_string(&path).unwrap().lines() {
                if line.starts_with("impl") {
                    let name = line.trim_start_matches("impl").trim_start_matches("<O>").trim_start_matches("<T>").trim();
                    owner = name.split(|letter: char| !letter.is_alphanumeric()).next().unwrap().to_owned();
                }
                if line.contains("pub fn retry(") && line.contains("policy: RetryPolicy") {
                    found.insert(owner.clone());
                }
            }
        }
    }
    let tested: BTreeSet<_> = requests().iter().map(|request| request.builder.to_owned()).collect();
    assert_eq!(found, tested);
}
