//! Virtual time: it starts at a chosen date, idle days are fast, and workers are still available after them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may panic")]

#[path = "support/cost.rs"]
mod cost;
mod support;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use hatchet::embedded::{Engine, Fault, Quirks};
use hatchet::model::Window;
use hatchet::worker::RunningWorker;
use hatchet::{Client, Context, ErrorKind, RunFilter, RunStatus, Task};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use self::cost::cost;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Serialize, Deserialize)]
struct Seconds {
    count: u64,
}

fn seconds(count: u64) -> Seconds {
    Seconds { count }
}

/// A task that takes as long as its input.
fn work() -> Task<Seconds, u32> {
    Task::new("work", async |Seconds { count }, context: Context| {
        sleep(Duration::from_secs(count)).await;
        Ok(context.attempt())
    })
    .timeout(10 * DAY)
}

/// The worker as REST shows it.
async fn worker_row(hatchet: &Client, worker: &RunningWorker) -> Value {
    let (_, body) = hatchet.raw_rest(Method::GET, &format!("/api/v1/workers/{}", worker.id()), None).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_engine_starts_at_the_date_that_is_set() {
    let start: DateTime<Utc> = "2028-02-28T23:59:50Z".parse().unwrap();
    let engine = Engine::builder().start_time(start).quirks(Quirks::all()).start().await.unwrap();
    assert_eq!(engine.now(), start);
    let hatchet = engine.client();
    let task = work().cron("0 0 * * *").cron_input(&seconds(0));
    let running = support::start_worker(&hatchet, &task).await;
    let run = hatchet.run(&task, &seconds(1)).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), 1);
    sleep(2 * SECOND).await;
    let details = run.details().await.unwrap();
    for at in [details.created_at, details.finished_at()] {
        assert!((TimeDelta::zero()..TimeDelta::seconds(3)).contains(&(at.unwrap() - start)), "{at:?}");
    }
    // The year is a leap year, so the next day is February 29.
    let at = "2028-02-29T06:30:00Z".parse().unwrap();
    hatchet.schedule(&task, &seconds(2), at).send().await.unwrap();
    sleep(DAY).await;
    let filter = RunFilter::new(Window::all()).workflow("work");
    let mut created: Vec<_> =
        hatchet.runs(filter).page(10).await.unwrap().items.iter().map(|run| run.created_at).collect();
    created.sort();
    let expected = ["2028-02-28T23:59:50Z", "2028-02-29T00:00:00Z", "2028-02-29T06:30:00Z"];
    assert_eq!(created.len(), 3, "{created:?}");
    for (at, expected) in created.into_iter().zip(expected) {
        let late = at - expected.parse::<DateTime<Utc>>().unwrap();
        assert!((TimeDelta::zero()..TimeDelta::seconds(2)).contains(&late), "{expected}: {at}");
    }
    running.shutdown().await;
}

#[tokio::test]
async fn a_date_outside_the_supported_years_is_rejected() {
    for date in ["1969-12-31T23:59:59Z", "9001-01-01T00:00:00Z", "-0500-01-01T00:00:00Z"] {
        let error = Engine::builder().start_time(date.parse().unwrap()).start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{date}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn idle_days_are_fast() {
    let engine = Engine::builder().quirks(Quirks::all()).seed(7).start().await.unwrap();
    let (hatchet, task) = (engine.client(), work());
    let running = support::start_worker(&hatchet, &task).await;
    // Sending all heartbeats took minutes.
    let cost = cost(sleep(5 * DAY)).await;
    assert!(cost < Duration::from_secs(10), "{cost:?}");
    // The worker is active and gets tasks immediately.
    let row = worker_row(&hatchet, &running).await;
    let last_heartbeat: DateTime<Utc> = row["lastHeartbeatAt"].as_str().unwrap().parse().unwrap();
    assert_eq!(row["status"], "ACTIVE");
    assert!(engine.now() - last_heartbeat <= TimeDelta::seconds(2), "{last_heartbeat}");
    let start = Instant::now();
    let run = hatchet.run(&task, &seconds(0)).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), 1);
    assert!(start.elapsed() < 2 * SECOND, "{:?}", start.elapsed());
    running.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_takes_days_is_not_reassigned() {
    let engine = Engine::start().await.unwrap();
    let (hatchet, task) = (engine.client(), work());
    let running = support::start_worker(&hatchet, &task).await;
    let run = hatchet.run(&task, &seconds(3 * DAY.as_secs())).start().await.unwrap();
    let cost = cost(sleep(3 * DAY + SECOND)).await;
    assert!(cost < Duration::from_secs(10), "{cost:?}");
    assert_eq!(run.result().await.unwrap(), 1, "the task was not reassigned");
    assert_eq!(running.shutdown().await.completed, 1);
}

#[tokio::test(start_paused = true)]
async fn crons_of_idle_days_run() {
    let engine = Engine::builder().start_time("2027-06-01T00:00:00Z".parse().unwrap()).start().await.unwrap();
    let (hatchet, task) = (engine.client(), work().cron("0 * * * *").cron_input(&seconds(60)));
    let running = support::start_worker(&hatchet, &task).await;
    let cost = cost(sleep(2 * DAY + 2 * 60 * SECOND)).await;
    assert!(cost < Duration::from_secs(10), "{cost:?}");
    assert_eq!(running.shutdown().await.completed, 48);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_of_a_dropped_idle_worker_end_with_it() {
    let engine = Engine::start().await.unwrap();
    let (hatchet, task) = (engine.client(), work());
    let running = support::start_worker(&hatchet, &task).await;
    let path = format!("/api/v1/workers/{}", running.id());
    sleep(HOUR).await;
    let end = engine.now();
    drop(running);
    sleep(HOUR).await;
    let (_, body) = hatchet.raw_rest(Method::GET, &path, None).await.unwrap();
    let row: Value = serde_json::from_slice(&body).unwrap();
    let last_heartbeat: DateTime<Utc> = row["lastHeartbeatAt"].as_str().unwrap().parse().unwrap();
    assert_eq!(row["status"], "INACTIVE");
    assert!((TimeDelta::zero()..=TimeDelta::seconds(2)).contains(&(end - last_heartbeat)), "{last_heartbeat} {end}");
    // It gets no more tasks.
    let run = hatchet.run(&task, &seconds(0)).start().await.unwrap();
    sleep(SECOND).await;
    assert_eq!(run.details().await.unwrap().status, RunStatus::Queued);
}

/// Planned faults apply to its heartbeats and its stream.
#[tokio::test(start_paused = true)]
async fn faults_apply_to_an_idle_worker() {
    let engine = Engine::start().await.unwrap();
    let (hatchet, task) = (engine.client(), work());
    let running = support::start_worker(&hatchet, &task).await;
    sleep(HOUR).await;
    engine.faults().interrupt("ListenV2").unwrap();
    sleep(10 * SECOND).await;
    assert_eq!(
        hatchet.run(&task, &seconds(0)).start().await.unwrap().result().await.unwrap(),
        1,
        "the stream was reopened"
    );

    let run = hatchet.run(&task, &seconds(2 * HOUR.as_secs())).start().await.unwrap();
    sleep(HOUR).await;
    let calls = 20;
    engine.faults().inject_times("Heartbeat", Fault::RejectGrpc(14), calls).unwrap();
    // A heartbeat every two seconds. The worker is inactive after 5 s, and loses the task after 30 s.
    sleep(12 * SECOND).await;
    assert!((5..=7).contains(&(calls - engine.faults().planned())), "{}", engine.faults().planned());
    assert_eq!(worker_row(&hatchet, &running).await["status"], "INACTIVE");
    sleep(30 * SECOND).await;
    assert_eq!(engine.faults().planned(), 0);
    sleep(10 * SECOND).await;
    assert_eq!(worker_row(&hatchet, &running).await["status"], "ACTIVE");
    assert_eq!(run.result().await.unwrap(), 2, "the first attempt was reassigned");
    running.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn two_idle_workers_share_the_work() {
    let engine = Engine::start().await.unwrap();
    let (hatchet, task) = (engine.client(), work());
    let other = engine.client_with(hatchet::Config::builder()).unwrap();
    let [one, two] =
        [hatchet.clone(), other].map(|client| client.worker("worker").slots(1).register(&task).build().unwrap());
    let (one, two) = (one.start().await.unwrap(), two.start().await.unwrap());
    sleep(DAY).await;
    let start = Instant::now();
    let runs = [
        hatchet.run(&task, &seconds(10)).start().await.unwrap(),
        hatchet.run(&task, &seconds(10)).start().await.unwrap(),
    ];
    for run in runs {
        assert_eq!(run.result().await.unwrap(), 1);
    }
    assert!(start.elapsed() < 11 * SECOND, "{:?}: the runs were not parallel", start.elapsed());
    assert_eq!((one.shutdown().await.completed, two.shutdown().await.completed), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn t1_runs_are_archived_after_90_days_by_default() {
    use hatchet::archive::{Archive, Retention, Rule};

    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let (task, soon) = (work(), Task::new("soon", async |(): (), _: Context| Ok(())));
    let worker = hatchet.worker("worker").register(&task).register(&soon).build().unwrap().start().await.unwrap();
    let archive = Archive::open("memory://").unwrap();
    let retention = Retention::default().workflow("soon", Rule::older_than(DAY));
    let mut archived = Vec::new();
    for day in 1..=93 {
        hatchet.run(&task, &seconds(1)).result().await.unwrap();
        hatchet.run(&soon, &()).result().await.unwrap();
        sleep(DAY).await;
        if day >= 88 {
            archived.push(archive.collect(&hatchet, retention.clone()).send().await.unwrap().archived);
        }
    }
    // The runs of one workflow after a day, and those of the other after 90 days.
    assert_eq!(archived, [88, 1, 2, 2, 2, 2]);
    worker.shutdown().await;
    engine.shutdown().await;
}
