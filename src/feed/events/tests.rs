use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use prost::Message as _;
use tokio::time::Instant;

use super::driver::STREAM;
use super::group::IDLE_STREAM_TTL;
use super::*;
use crate::error::ErrorKind;
use crate::feed::rejection::MAX_REJECTION;
use crate::rpc::pb::WorkflowEvent;
use crate::scripted::{Scripted, client};

const SECOND: Duration = Duration::from_secs(1);

fn run(number: u128) -> RunId {
    uuid::Uuid::from_u128(number).into()
}

fn is_list(name: &str) -> bool {
    name.starts_with("GET ") && name.ends_with("/workflow-runs")
}

#[tokio::test(start_paused = true)]
async fn all_subscribers_get_a_list_after_a_gap() {
    let [watched, other] = [1, 2].map(run);
    let event = WorkflowEvent { workflow_run_id: other.to_string(), ..Default::default() }.encode_to_vec();
    let (client, _) = client(move |name, count| match (name, count) {
        (name, _) if is_list(name) => Scripted::Rest(200, r#"{"rows":[]}"#.into()),
        (_, 1) => Scripted::Stream(vec![(SECOND, event.clone()), (2 * SECOND, event.clone())], Some(0)),
        (_, 2) => Scripted::Stream(vec![(3 * SECOND, event.clone())], None),
        _ => Scripted::Hangs,
    });
    let events = &client.feed().events;
    let subscription = events.join(client.feed().tag()).subscribe(watched, client.clock().now());
    let started = Instant::now();
    let mut notified = Vec::new();
    while let Ok(notifications) = tokio::time::timeout(9 * SECOND, subscription.next(Wanted::End)).await {
        assert_eq!(notifications.listing, Some(Listing::Rows { rows: Vec::new(), with_queued: true }));
        notified.push(started.elapsed().as_secs_f32());
    }
    // 150 ms after the first message of each stream, and after the loss of the first one.
    assert_eq!(notified, [1.15, 2.15, 5.15]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_list_is_reported_to_all() {
    let (client, _) = client(|name, _| match name {
        name if is_list(name) => Scripted::Rest(403, String::new()),
        _ => Scripted::Hangs,
    });
    let subscribe =
        |number| client.feed().events.join(client.feed().tag()).subscribe(run(number), client.clock().now());
    let (one, two) = (subscribe(1), subscribe(2));
    let (one, two) = tokio::join!(one.next(Wanted::List), two.next(Wanted::Start));
    assert_eq!((one.listing, two.listing), (Some(Listing::Failed), Some(Listing::Failed)));
}

/// The watches of many runs are not as many requests when the server is in trouble.
#[tokio::test(start_paused = true)]
async fn a_list_that_may_succeed_later_is_requested_again() {
    let started = Instant::now();
    let lists = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&lists);
    let (client, _) = client(move |name, _| {
        if !is_list(name) {
            return Scripted::Hangs;
        }
        count.fetch_add(1, Relaxed);
        if started.elapsed() < 30 * SECOND {
            Scripted::Rest(500, String::new())
        } else {
            Scripted::Rest(200, r#"{"rows":[]}"#.into())
        }
    });
    let membership = client.feed().events.join(client.feed().tag());
    let subscribe = |number| membership.clone().subscribe(run(number), client.clock().now());
    let (one, two, gone) = (subscribe(1), subscribe(2), subscribe(3));
    assert!(tokio::time::timeout(SECOND, gone.next(Wanted::List)).await.is_err());
    drop(gone);
    let (one, two) = tokio::join!(one.next(Wanted::List), two.next(Wanted::Start));
    let empty = Some(Listing::Rows { rows: Vec::new(), with_queued: true });
    assert_eq!((one.listing, two.listing), (empty.clone(), empty));
    let lists = lists.load(Relaxed);
    assert!((3..60).contains(&lists), "{lists} lists in {:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_list_that_the_server_rejects_for_a_minute_has_failed() {
    let (client, _) = client(|name, _| match name {
        name if is_list(name) => Scripted::Rest(500, String::new()),
        _ => Scripted::Hangs,
    });
    let started = Instant::now();
    let subscription = client.feed().events.join(client.feed().tag()).subscribe(run(1), client.clock().now());
    assert_eq!(subscription.next(Wanted::List).await.listing, Some(Listing::Failed));
    assert!((MAX_REJECTION..2 * MAX_REJECTION).contains(&started.elapsed()), "{:?}", started.elapsed());
}

/// A bug ends the task of a group: the server of the test is called in it.
#[tokio::test(start_paused = true)]
async fn a_task_that_panics_is_replaced_and_its_watches_continue() {
    let event = WorkflowEvent { workflow_run_id: run(1).to_string(), ..Default::default() }.encode_to_vec();
    let (client, calls) = client(move |name, count| match (name, count) {
        (name, _) if is_list(name) => Scripted::Rest(200, r#"{"rows":[]}"#.into()),
        (_, 1) => panic!("the task ends"),
        _ => Scripted::Stream(vec![(SECOND, event.clone())], None),
    });
    let subscription = client.feed().events.join(client.feed().tag()).subscribe(run(1), client.clock().now());
    let started = Instant::now();
    // The watch fetches its run, and waits again.
    assert_eq!(subscription.next(Wanted::End).await.listing, Some(Listing::Failed));
    assert!(subscription.next(Wanted::End).await.has_changed);
    assert_eq!((started.elapsed(), calls.count("SubscribeToWorkflowEvents")), (SECOND, 2));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_is_replaced_and_its_readers_continue() {
    let (client, calls) = client(move |name, count| match (name, count) {
        (name, _) if is_list(name) => Scripted::Rest(200, r#"{"rows":[]}"#.into()),
        (_, 1) => panic!("the task ends"),
        _ => Scripted::Stream(vec![(SECOND, chunk("after"))], None),
    });
    let membership = client.feed().events.join(client.feed().tag());
    let (chunks, mut changes) = (membership.clone().chunks(ChunksOf::Run(run(1))), membership.subscribe_all());
    let started = Instant::now();
    assert!(matches!(chunks.next().await, ChunkEvent::Interrupted));
    let ChunkEvent::Chunk(chunk) = chunks.next().await else { panic!("a chunk is expected") };
    assert_eq!((chunk.to_string().as_str(), started.elapsed()), ("after", SECOND));
    assert!(changes.next().await.has_gap);
    assert_eq!(calls.count("SubscribeToWorkflowEvents"), 2);
}

#[tokio::test(start_paused = true)]
async fn events_are_kept_for_a_watch_that_starts_later() {
    let created = WorkflowEvent {
        workflow_run_id: run(1).to_string(),
        resource_id: run(1).to_string(),
        resource_type: 1,
        event_type: 1,
        ..Default::default()
    };
    let (client, _) = client(move |_, _| Scripted::Stream(vec![(SECOND, created.encode_to_vec())], None));
    let membership = client.feed().events.join(client.feed().tag());
    tokio::time::sleep(2 * SECOND).await;
    let subscription = membership.clone().subscribe(run(1), client.clock().now());
    assert_eq!(subscription.take().created, Some((run(1).into(), None)));
    assert!(subscription.take().is_empty());
}

/// A DAG run is queued with its first task.
#[tokio::test(start_paused = true)]
async fn the_time_of_a_run_is_that_of_its_first_task() {
    let created = |task: u128, second| WorkflowEvent {
        workflow_run_id: run(1).to_string(),
        resource_id: run(task).to_string(),
        resource_type: 1,
        event_type: 1,
        event_timestamp: Some(prost_types::Timestamp { seconds: second, nanos: 0 }),
        ..Default::default()
    };
    let events = [created(2, 100), created(3, 160)].map(|event| (SECOND, event.encode_to_vec()));
    let (client, _) = client(move |_, _| Scripted::Stream(events.to_vec(), None));
    let subscription = client.feed().events.join(client.feed().tag()).subscribe(run(1), client.clock().now());
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(subscription.take().created, Some((run(2).into(), DateTime::from_timestamp(100, 0))));
}

#[tokio::test(start_paused = true)]
async fn a_group_without_members_is_removed_after_a_while() {
    let (client, calls) = client(|_, _| Scripted::Stream(Vec::new(), None));
    let (events, tag) = (&client.feed().events, client.feed().tag());
    drop(events.join(tag).subscribe(run(1), client.clock().now()));
    tokio::time::sleep(IDLE_STREAM_TTL.saturating_sub(SECOND)).await;
    let membership = events.join(tag);
    tokio::time::sleep(2 * IDLE_STREAM_TTL).await;
    assert_eq!((lock(&events.0.groups).len(), calls.count("SubscribeToWorkflowEvents")), (1, 1));
    drop(membership);
    tokio::time::sleep(IDLE_STREAM_TTL + SECOND).await;
    assert!(lock(&events.0.groups).is_empty());
    drop(events.join(tag));
    tokio::task::yield_now().await;
    assert_eq!(calls.count("SubscribeToWorkflowEvents"), 2);
}

/// A chunk of run 1.
fn chunk(text: &str) -> Vec<u8> {
    let id = run(1).to_string();
    let event = WorkflowEvent {
        workflow_run_id: id.clone(),
        resource_id: id,
        resource_type: 1,
        event_type: 6,
        event_payload: text.into(),
        ..Default::default()
    };
    event.encode_to_vec()
}

/// The chunks have no numbers, so that nothing but the stream shows that one is received twice.
#[tokio::test(start_paused = true)]
async fn an_idle_stream_is_replaced_and_loses_or_doubles_nothing() {
    fastrand::seed(7);
    let limit = STREAM.with_jitter(fastrand::f64());
    // The idle stream is still read. The other one begins with the second message.
    let at = |shift: Duration, numbers: &[u64]| -> Vec<_> {
        numbers.iter().map(|at| (shift + Duration::from_millis(*at), chunk(&at.to_string()))).collect()
    };
    let (idle, other) = (at(limit, &[50, 500, 900, 1100]), at(Duration::ZERO, &[500, 900, 1100]));
    let (client, calls) = client(move |name, count| match name {
        name if is_list(name) => Scripted::Rest(200, r#"{"rows":[]}"#.into()),
        _ => Scripted::Stream(if count == 1 { idle.clone() } else { other.clone() }, None),
    });
    fastrand::seed(7);
    let chunks = client.feed().events.join(client.feed().tag()).chunks(ChunksOf::All);
    let (start, mut received) = (Instant::now() + limit, Vec::new());
    while received.len() < 4 {
        let ChunkEvent::Chunk(chunk) = chunks.next().await else { panic!("a chunk is expected") };
        received.push((start.elapsed().as_millis(), chunk.to_string()));
    }
    assert_eq!(received, [50, 500, 900, 1100].map(|at| (at, at.to_string())));
    assert_eq!(calls.times("SubscribeToWorkflowEvents")[1], start);
    assert!(tokio::time::timeout(SECOND, chunks.next()).await.is_err(), "each is received once");
}

/// Each attempt to open the stream is answered with a status after a while.
fn rejecting(status: i32, after: Duration) -> crate::client::Client {
    let reject = move |name: &str, _| match name {
        name if is_list(name) => Scripted::Rest(200, r#"{"rows":[]}"#.into()),
        _ => Scripted::after(after, Scripted::Status(status)),
    };
    client(reject).0
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_rejected_at_once_was_never_subscribed() {
    let client = rejecting(12, Duration::from_millis(20));
    let membership = client.feed().events.join(client.feed().tag());
    let started = Instant::now();
    let error = membership.subscribed().await.unwrap_err();
    assert_eq!((error.kind(), started.elapsed()), (ErrorKind::Unimplemented, Duration::from_millis(20)));
    // Who joins later gets the error, too.
    let ChunkEvent::Failed(error) = membership.chunks(ChunksOf::Run(run(1))).next().await else {
        panic!("an error is expected")
    };
    assert_eq!((error.kind(), started.elapsed()), (ErrorKind::Unimplemented, Duration::from_millis(20)));
}

#[tokio::test(start_paused = true)]
async fn chunks_are_missing_from_a_stream_that_is_lost_when_the_reader_joins() {
    let client = rejecting(14, Duration::ZERO);
    let membership = client.feed().events.join(client.feed().tag());
    let started = Instant::now();
    assert!(!membership.subscribed().await.unwrap());
    assert_eq!(started.elapsed(), MAX_SUBSCRIBE_DELAY);
    assert!(matches!(membership.clone().chunks(ChunksOf::Run(run(1))).next().await, ChunkEvent::Interrupted));
    let mut starting = membership.starting();
    starting.interrupt();
    assert!(matches!(starting.started(run(2)).next().await, ChunkEvent::Interrupted));
    assert_eq!(started.elapsed(), MAX_SUBSCRIBE_DELAY);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_the_server_rejects_for_a_minute_is_an_error() {
    let client = rejecting(13, Duration::ZERO);
    let chunks = client.feed().events.join(client.feed().tag()).chunks(ChunksOf::All);
    let started = Instant::now();
    assert!(matches!(chunks.next().await, ChunkEvent::Interrupted));
    let ChunkEvent::Failed(error) = (loop {
        match chunks.next().await {
            ChunkEvent::Interrupted => {}
            event => break event,
        }
    }) else {
        panic!("an error is expected")
    };
    assert_eq!(error.kind(), ErrorKind::Server);
    let elapsed = started.elapsed();
    assert!(elapsed >= MAX_REJECTION && elapsed <= MAX_REJECTION + STREAM.max_backoff, "{elapsed:?}");
}

/// A proxy has lost the stream, and keeps the connection.
#[tokio::test(start_paused = true)]
async fn an_idle_stream_that_was_lost_is_a_gap_before_the_next_chunk() {
    let (client, calls) = client(move |name, count| match (name, count) {
        (name, _) if is_list(name) => Scripted::Rest(200, r#"{"rows":[]}"#.into()),
        (_, 1) => Scripted::Stream(vec![(SECOND, chunk("before"))], None),
        _ => Scripted::Stream(vec![(SECOND, chunk("after")), (2 * SECOND, chunk("last"))], None),
    });
    let chunks = client.feed().events.join(client.feed().tag()).chunks(ChunksOf::All);
    let mut received = Vec::new();
    for _ in 0..4 {
        received.push(match chunks.next().await {
            ChunkEvent::Chunk(chunk) => (chunk.to_string(), Instant::now()),
            ChunkEvent::Interrupted => ("interrupted".to_owned(), Instant::now()),
            other => panic!("{other:?}"),
        });
    }
    let reopened = calls.times("SubscribeToWorkflowEvents")[1];
    let texts: Vec<_> =
        received.iter().map(|(text, at)| (text.as_str(), at.saturating_duration_since(reopened))).collect();
    // The first one has waited for the other stream.
    let half = Duration::from_millis(500);
    assert_eq!(texts[0].0, "before");
    assert_eq!(texts[1..], [("interrupted", SECOND + half), ("after", SECOND + half), ("last", 2 * SECOND)]);
}

/// Nothing can read the stream any longer. What waits for it must not try to change that again and again.
#[test]
fn readers_learn_once_that_the_runtime_of_the_client_is_gone() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let of_client = runtime();
    let (_client, chunks, mut changes) = of_client.block_on(async {
        let (client, _) = client(|_, _| Scripted::Hangs);
        let membership = client.feed().events.join(client.feed().tag());
        // The task begins.
        tokio::task::yield_now().await;
        (client, membership.clone().chunks(ChunksOf::All), membership.subscribe_all())
    });
    drop(of_client);
    runtime().block_on(async {
        assert!(matches!(chunks.next().await, ChunkEvent::Interrupted));
        assert!(changes.next().await.has_gap);
        assert!(tokio::time::timeout(SECOND, chunks.next()).await.is_err());
        assert!(tokio::time::timeout(SECOND, changes.next()).await.is_err());
    });
}

/// The engine says that it ends the stream, and ends it later. A run that is started meanwhile waits for the next stream.
#[tokio::test(start_paused = true)]
async fn a_stream_that_will_end_is_reopened_at_once() {
    let last = WorkflowEvent {
        workflow_run_id: run(1).to_string(),
        resource_type: 2,
        event_type: 2,
        hangup: true,
        ..Default::default()
    };
    let last = last.encode_to_vec();
    let (client, calls) = client(move |name, count| match (name, count) {
        (name, _) if is_list(name) => Scripted::Rest(200, r#"{"rows":[]}"#.into()),
        (_, 1) => Scripted::Stream(vec![(SECOND, last.clone())], None),
        _ => Scripted::Hangs,
    });
    let membership = client.feed().events.join(client.feed().tag());
    let chunks = membership.clone().chunks(ChunksOf::Run(run(1)));
    let started = Instant::now();
    assert!(matches!(chunks.next().await, ChunkEvent::RunEnded { is_completed: true, .. }));
    assert!(matches!(chunks.next().await, ChunkEvent::Interrupted));
    assert_eq!(started.elapsed(), SECOND);
    assert!(membership.subscribed().await.unwrap());
    assert_eq!(started.elapsed(), SECOND + Duration::from_millis(250));
    assert_eq!(calls.count("SubscribeToWorkflowEvents"), 2);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_streams_for_chunks_is_limited() {
    let (client, calls) = client(|_, _| Scripted::Stream(Vec::new(), None));
    let events = &client.feed().events;
    let join = |number: usize| {
        let tag = number.is_multiple_of(2).then(|| ("tenant".to_owned(), number.to_string()));
        events.join_for_chunks(tag, run(number as u128))
    };
    let mut all: Vec<_> = (1..=MAX_CHUNK_STREAMS).map(|number| join(number).unwrap()).collect();
    let error = join(MAX_CHUNK_STREAMS + 1).unwrap_err();
    assert_eq!((error.kind(), error.run_id()), (ErrorKind::TooLarge, Some(run(MAX_CHUNK_STREAMS as u128 + 1))));
    assert!(error.to_string().contains("64"), "{error}");
    // Those that are open can be shared. The stream of a run is closed with its last member.
    assert!(join(1).is_ok() && join(2).is_ok());
    tokio::time::sleep(SECOND).await;
    drop(all.remove(0));
    tokio::time::sleep(SECOND).await;
    assert!(join(MAX_CHUNK_STREAMS + 1).is_ok());
    tokio::time::sleep(SECOND).await;
    let groups = lock(&events.0.groups).len();
    assert_eq!((groups, calls.count("SubscribeToWorkflowEvents")), (MAX_CHUNK_STREAMS - 1, MAX_CHUNK_STREAMS + 1));
    // That of a tag stays open for a while.
    all.push(join(1).unwrap());
    drop(all.remove(0));
    tokio::time::sleep(IDLE_STREAM_TTL / 2).await;
    assert!(join(MAX_CHUNK_STREAMS + 1).is_err());
    tokio::time::sleep(IDLE_STREAM_TTL).await;
    assert!(join(MAX_CHUNK_STREAMS + 1).is_ok());
}
