use prost::Message as _;

use super::*;
use crate::feed::TaskRow;
use crate::rpc::pb::v1::RunStatus as GrpcStatus;
use crate::rpc::pb::{ResourceEventType, WorkflowEvent};
use crate::scripted::{Calls, Scripted, client, single_task_run};

const SECOND: Duration = Duration::from_secs(1);

/// What the server shows of the run from a time on: the status in gRPC and in REST, and the events, each with its attempt.
type Shown = (Duration, GrpcStatus, &'static str, &'static [(&'static str, u32)]);

const QUEUED: Shown = (Duration::ZERO, GrpcStatus::Queued, "QUEUED", &[]);
const RUNNING: Shown = (SECOND, GrpcStatus::Running, "RUNNING", &[("STARTED", 1)]);
const COMPLETED: Shown =
    (Duration::from_secs(3), GrpcStatus::Completed, "COMPLETED", &[("STARTED", 1), ("FINISHED", 1)]);

/// A message of the stream that announces something about the run.
fn announcement() -> Vec<u8> {
    let id = single_task_run::id().to_string();
    let event = WorkflowEvent {
        workflow_run_id: id.clone(),
        resource_id: id,
        event_type: ResourceEventType::Started as i32,
        ..WorkflowEvent::default()
    };
    event.encode_to_vec()
}

/// A follower of a run that has just been started, and its server. `other`: the responses to calls that are not those of the run.
fn follow(
    shown: &'static [Shown],
    other: impl Fn(&str, usize, Duration) -> Option<Scripted> + Send + Sync + 'static,
) -> (Follower, Calls) {
    let start = Instant::now();
    let now = move || {
        let passed = shown.iter().rev().find(|(at, ..)| *at <= start.elapsed());
        *passed.unwrap()
    };
    let (client, calls) = client(move |call, count| {
        if let Some(response) = other(call, count, start.elapsed()) {
            return response;
        }
        let (_, grpc, rest, events) = now();
        let attempt = events.last().map_or(1, |(_, attempt)| *attempt);
        match call {
            "GetRunDetails" => single_task_run::grpc(grpc),
            single_task_run::REST => single_task_run::rest(rest, attempt),
            call if call.ends_with("/task-events") => single_task_run::events(events),
            call if call.ends_with("/workflow-runs") => single_task_run::list(rest, attempt),
            other => panic!("{other} is not expected"),
        }
    });
    let watched =
        Watched { started_at: Some(start), is_first: true, ..Watched::of(&client.run_handle(single_task_run::id())) };
    (Follower::new(watched, Shared::default()), calls)
}

/// All changes, and when they were returned.
async fn changes(mut follower: Follower) -> Vec<(String, Duration)> {
    let start = Instant::now();
    let mut changes = Vec::new();
    while let Some(change) = follower.next().await {
        changes.push((change.unwrap().to_string(), start.elapsed()));
    }
    changes
}

fn at(status: &str, attempt: u32, millis: u64) -> (String, Duration) {
    (format!("{status} (attempt {attempt})"), Duration::from_millis(millis))
}

/// When the run was fetched, in milliseconds after the subscription.
fn fetches(calls: &Calls) -> Vec<u128> {
    let start = calls.times("SubscribeToWorkflowEvents")[0];
    calls.times("GetRunDetails").into_iter().map(|at| (at - start).as_millis()).collect()
}

/// The stream, which announces something at these times after it was opened.
fn announcing(call: &str, at: &[Duration]) -> Option<Scripted> {
    let messages = at.iter().map(|at| (*at, announcement())).collect();
    (call == "SubscribeToWorkflowEvents").then_some(Scripted::Stream(messages, None))
}

#[tokio::test(start_paused = true)]
async fn each_announced_change_is_fetched_once() {
    let (follower, calls) = follow(&[QUEUED, RUNNING, COMPLETED], |call, _, _| announcing(call, &[SECOND, 3 * SECOND]));
    assert_eq!(changes(follower).await, [at("QUEUED", 1, 300), at("RUNNING", 1, 1000), at("COMPLETED", 1, 3050)]);
    assert_eq!(fetches(&calls), [1050, 3050], "50 ms after each announcement");
}

#[tokio::test(start_paused = true)]
async fn a_change_during_the_loss_of_a_stream_is_found_by_a_list() {
    let (follower, calls) = follow(&[QUEUED, RUNNING, COMPLETED], |call, count, _| match (call, count) {
        ("SubscribeToWorkflowEvents", 1) => {
            Some(Scripted::Stream(vec![(SECOND, announcement()), (2 * SECOND, announcement())], Some(14)))
        }
        ("SubscribeToWorkflowEvents", 2..4) => Some(Scripted::after(SECOND, Scripted::Status(14))),
        (call, _) => announcing(call, &[]),
    });
    assert_eq!(changes(follower).await, [at("QUEUED", 1, 300), at("RUNNING", 1, 1000), at("COMPLETED", 1, 3150)]);
    // The last one is for the list that follows the loss.
    assert_eq!(fetches(&calls), [1050, 2050, 3150]);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_fails_is_repeated_and_loses_nothing() {
    let (follower, calls) = follow(&[QUEUED, RUNNING, COMPLETED], |call, _, at| {
        let is_down = (SECOND..8 * SECOND).contains(&at) && call.contains(' ');
        is_down.then(|| Scripted::Rest(503, String::new())).or_else(|| announcing(call, &[SECOND, 3 * SECOND]))
    });
    let changes = changes(follower).await;
    let texts: Vec<_> = changes.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(texts, ["QUEUED (attempt 1)", "RUNNING (attempt 1)", "COMPLETED (attempt 1)"]);
    assert!(changes[1..].iter().all(|(_, at)| (8 * SECOND..11 * SECOND).contains(at)), "{changes:?}");
    assert!((3..15).contains(&fetches(&calls).len()), "with growing pauses: {:?}", fetches(&calls));
}

#[tokio::test(start_paused = true)]
async fn attempts_that_are_announced_together_are_returned_one_by_one() {
    const EVENTS: &[(&str, u32)] =
        &[("STARTED", 1), ("FAILED", 1), ("RETRYING", 1), ("QUEUED", 2), ("STARTED", 2), ("FINISHED", 2)];
    const RETRIED: Shown = (SECOND, GrpcStatus::Completed, "COMPLETED", EVENTS);
    let (follower, calls) = follow(&[QUEUED, RETRIED], |call, _, _| announcing(call, &[SECOND]));
    let attempts = [("RUNNING", 1), ("FAILED", 1), ("QUEUED", 2), ("RUNNING", 2), ("COMPLETED", 2)];
    let expected: Vec<_> =
        [at("QUEUED", 1, 300)].into_iter().chain(attempts.map(|(status, attempt)| at(status, attempt, 1050))).collect();
    assert_eq!(changes(follower).await, expected);
    assert_eq!(fetches(&calls), [1050]);
}

/// The notifications have no list if the client is closed, and the watch gets the error from its fetch.
#[tokio::test(start_paused = true)]
async fn a_watch_of_a_closed_client_ends() {
    let engine = crate::embedded::Engine::start().await.unwrap();
    let hatchet = engine.client();
    let run = hatchet.run_handle(RunId::from(uuid::Uuid::from_u128(1)));
    let watched = Watched { started_at: Some(Instant::now()), ..Watched::of(&run) };
    let mut follower = Follower::new(watched, Shared::default());
    hatchet.close().await;
    let error = follower.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::Closed);
    assert!(follower.next().await.is_none());
}

/// Two lists that are older than the last one, and one that repeats it, in two watches of one stream.
#[tokio::test(start_paused = true)]
async fn ignored_updates_of_a_stream_are_added() {
    let engine = crate::embedded::Engine::start().await.unwrap();
    let hatchet = engine.client();
    let ignored: Arc<AtomicU64> = Arc::default();
    for number in 1..=2 {
        let run = RunId::from(uuid::Uuid::from_u128(number));
        let shared = Shared { ignored: Arc::clone(&ignored), ..Shared::default() };
        let watched = Watched { started_at: Some(Instant::now()), ..Watched::of(&hatchet.run_handle(run)) };
        let mut follower = Follower::new(watched, shared);
        for status in [RunStatus::Running, RunStatus::Queued, RunStatus::Queued, RunStatus::Running] {
            let row = TaskRow { run, task: run.into(), attempt: 1, status, created_at: None, started_at: None };
            let listing = Some(Listing::Rows { rows: vec![row], with_queued: true });
            follower.take_notifications(&Notifications { listing, ..Notifications::default() }, None);
        }
        assert_eq!(follower.ready.len(), 2, "queued and running");
    }
    assert_eq!(ignored.load(Relaxed), 6, "what is outdated or repeated");
}
