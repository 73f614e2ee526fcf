use std::time::Duration;

use prost::Message as _;

use super::super::rejection::MAX_REJECTION;
use super::*;
use crate::client::Client;
use crate::rpc::pb;
use crate::scripted::{Calls, Scripted, client};

const SECOND: Duration = Duration::from_secs(1);
const RUN: &str = "00000000-0000-4000-8001-000000000001";

fn run() -> RunId {
    RUN.parse().unwrap()
}

fn result() -> Vec<u8> {
    pb::WorkflowRunEvent { workflow_run_id: RUN.into(), ..Default::default() }.encode_to_vec()
}

fn details(status: pb::v1::RunStatus, done: bool) -> Scripted {
    Scripted::message(&pb::v1::GetRunDetailsResponse { status: status as i32, done, ..Default::default() })
}

/// A server whose stream of results and whose details are scripted.
fn server(
    stream: impl Fn(usize) -> Scripted + Send + Sync + 'static,
    details: impl Fn(usize) -> Scripted + Send + Sync + 'static,
) -> (Client, Calls) {
    client(move |call, count| match call {
        "SubscribeToWorkflowRuns" => stream(count),
        "GetRunDetails" => details(count),
        other => panic!("{other} is not expected"),
    })
}

fn running(_: usize) -> Scripted {
    details(pb::v1::RunStatus::Running, false)
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_the_result_arrives() {
    let (client, calls) = server(|_| Scripted::Stream(vec![(3 * SECOND, result())], None), running);
    let started = Instant::now();
    let (one, other) = tokio::join!(client.feed().results.wait(run(), true), client.feed().results.wait(run(), true));
    let expected = Answer::Results(Vec::new());
    assert_eq!((one.unwrap(), other.unwrap()), (expected.clone(), expected));
    assert_eq!((started.elapsed(), calls.count("SubscribeToWorkflowRuns")), (3 * SECOND, 1));
    assert_eq!(calls.times("GetRunDetails"), [started + EAGER_PROBE_DELAY], "a run that exists is not probed again");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_has_ended_is_found_by_the_first_probe() {
    let (client, _) = server(|_| Scripted::Stream(Vec::new(), None), |_| details(pb::v1::RunStatus::Completed, true));
    let started = Instant::now();
    assert_eq!(client.feed().results.wait(run(), true).await.unwrap(), Answer::Fetch);
    assert_eq!(started.elapsed(), EAGER_PROBE_DELAY);
    // The next one has probably ended, too.
    assert_eq!(client.feed().results.wait(run(), true).await.unwrap(), Answer::Fetch);
    assert_eq!(started.elapsed(), EAGER_PROBE_DELAY);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_does_not_exist_is_probed_four_times() {
    let (client, calls) = server(|_| Scripted::Stream(Vec::new(), None), |_| Scripted::Status(5));
    let started = Instant::now();
    let error = client.feed().results.wait(run(), true).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RunNotFound);
    let expected = [0, 2, 6, 14].map(|seconds| started + EAGER_PROBE_DELAY + seconds * SECOND);
    assert_eq!(calls.times("GetRunDetails"), expected);
    assert_eq!(started.elapsed(), EAGER_PROBE_DELAY + 14 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_lost_stream_is_reopened_and_asked_again() {
    let stream = |count| match count {
        1..=3 => Scripted::Stream(Vec::new(), Some(14)),
        _ => Scripted::Stream(vec![(SECOND, result())], None),
    };
    let (client, calls) = server(stream, running);
    let started = Instant::now();
    assert_eq!(client.feed().results.wait(run(), true).await.unwrap(), Answer::Results(Vec::new()));
    let opened = calls.times("SubscribeToWorkflowRuns");
    assert_eq!((opened.len(), started.elapsed()), (4, opened[3] - started + SECOND));
    assert!(opened[3] - started < 3 * STREAM.max_backoff, "{:?}", opened[3] - started);
}

#[tokio::test(start_paused = true)]
async fn waits_continue_after_an_outage() {
    // The server rejects calls, ends each stream, or does not respond, as with a firewall that drops packets.
    let failures: [fn() -> Scripted; 3] = [
        || Scripted::Status(14),
        || Scripted::Stream(Vec::new(), Some(0)),
        || Scripted::after(10 * SECOND, Scripted::Status(14)),
    ];
    for failure in failures {
        let start = Instant::now();
        let is_over = move || start.elapsed() >= 3600 * SECOND;
        let stream = move |_| if is_over() { Scripted::Stream(vec![(SECOND, result())], None) } else { failure() };
        let details = move |count| if is_over() { running(count) } else { Scripted::Status(14) };
        let (client, calls) = server(stream, details);
        assert_eq!(client.feed().results.wait(run(), true).await.unwrap(), Answer::Results(Vec::new()));
        let elapsed = start.elapsed();
        let longest = 3600 * SECOND + 10 * SECOND + STREAM.max_backoff + SECOND;
        assert!((3600 * SECOND..=longest).contains(&elapsed), "{elapsed:?}");
        // The pauses are at most five seconds, with full jitter.
        assert!(calls.count("SubscribeToWorkflowRuns") < 3600, "{}", calls.count("SubscribeToWorkflowRuns"));
    }
}

#[tokio::test(start_paused = true)]
async fn waits_end_if_the_server_rejects_the_stream_for_a_minute() {
    let (client, _) = server(|_| Scripted::Status(13), |_| Scripted::Status(13));
    let started = Instant::now();
    let error = client.feed().results.wait(run(), true).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server, "{error}");
    assert!(
        (MAX_REJECTION..=MAX_REJECTION + STREAM.max_backoff).contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );
}

/// A server that restarts can end a stream with an error of its own.
#[tokio::test(start_paused = true)]
async fn streams_that_end_with_an_error_after_hours_are_not_rejected() {
    let stream = |count| match count {
        1..=5 => Scripted::after(3600 * SECOND, Scripted::Status(13)),
        _ => Scripted::Stream(vec![(SECOND, result())], None),
    };
    let (client, _) = server(stream, running);
    assert_eq!(client.feed().results.wait(run(), true).await.unwrap(), Answer::Results(Vec::new()));
}

/// Two temporary errors, minutes apart, are not a rejection: the stream was open in between.
#[tokio::test(start_paused = true)]
async fn temporary_errors_with_a_silent_stream_in_between_are_not_a_rejection() {
    let stream = |count| match count {
        1 | 3 => Scripted::Status(13),
        2 => Scripted::Stream(Vec::new(), None),
        _ => Scripted::Stream(vec![(SECOND, result())], None),
    };
    let (client, calls) = server(stream, running);
    assert_eq!(client.feed().results.wait(run(), true).await.unwrap(), Answer::Results(Vec::new()));
    assert_eq!(calls.count("SubscribeToWorkflowRuns"), 4);
}

#[tokio::test(start_paused = true)]
async fn idle_streams_that_a_proxy_ends_are_no_outage() {
    // The server sends its headers only with the first message.
    let stream = |count| match count {
        1..=10 => Scripted::after(30 * SECOND, Scripted::Status(14)),
        _ => Scripted::Stream(vec![(SECOND, result())], None),
    };
    let (client, calls) = server(stream, running);
    assert_eq!(client.feed().results.wait(run(), true).await.unwrap(), Answer::Results(Vec::new()));
    assert_eq!(calls.count("SubscribeToWorkflowRuns"), 11);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_half_open_is_replaced_when_it_is_idle() {
    // A proxy keeps the first stream open, and has lost it. Calls do not find the run.
    let stream = |count| match count {
        1 => Scripted::Hangs,
        _ => Scripted::Stream(vec![(SECOND, result()), (SECOND, result())], None),
    };
    let (client, calls) = server(stream, |_| Scripted::Status(14));
    let started = Instant::now();
    let results = &client.feed().results;
    let (one, other) = tokio::join!(results.wait(run(), true), results.wait(run(), true));
    assert_eq!((one.unwrap(), other.unwrap()), (Answer::Results(Vec::new()), Answer::Results(Vec::new())));
    let opened: Vec<_> = calls.times("SubscribeToWorkflowRuns").iter().map(|at| *at - started).collect();
    assert_eq!((opened[0], opened.len()), (Duration::ZERO, 2));
    let range = STREAM.idle_limit..=STREAM.idle_limit * 5 / 4;
    assert!(range.contains(&opened[1]), "{:?}", opened[1]);
    assert_eq!(started.elapsed(), opened[1] + SECOND);
}

/// The idle limit of the stream that is opened next.
fn next_limit() -> Duration {
    fastrand::seed(7);
    let limit = STREAM.with_jitter(fastrand::f64());
    fastrand::seed(7);
    limit
}

/// The engine ends a stream as soon as the client has ended its side.
#[tokio::test(start_paused = true)]
async fn an_idle_stream_is_read_for_a_moment_after_it_was_replaced() {
    let limit = next_limit();
    let stream = move |count| match count {
        // The new stream does not report runs that have ended before it was asked about them.
        1 => Scripted::StreamOfBoth(vec![(limit + SECOND, result())]),
        _ => Scripted::Stream(Vec::new(), None),
    };
    let (client, calls) = server(stream, running);
    assert_eq!(next_limit(), limit);
    let started = Instant::now();
    assert_eq!(client.feed().results.wait(run(), true).await.unwrap(), Answer::Results(Vec::new()));
    assert_eq!(calls.times("SubscribeToWorkflowRuns"), [started, started + limit]);
    assert_eq!(started.elapsed(), limit + SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_too_large_is_not_probed_again_soon() {
    let too_large = |_| Scripted::Rejection(8, "grpc: trying to send message larger than max (5 vs. 4)");
    let (client, calls) = server(|_| Scripted::Stream(vec![(200 * SECOND, result())], None), too_large);
    assert_eq!(client.feed().results.wait(run(), true).await.unwrap(), Answer::Results(Vec::new()));
    assert_eq!(calls.count("GetRunDetails"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_read_must_be_fetched() {
    let broken = pb::WorkflowRunEvent {
        workflow_run_id: RUN.into(),
        results: vec![pb::StepRunResult { task_run_external_id: "no id".into(), ..Default::default() }],
        ..Default::default()
    };
    let broken = broken.encode_to_vec();
    let (client, _) = server(move |_| Scripted::Stream(vec![(SECOND, broken.clone())], None), running);
    assert_eq!(client.feed().results.wait(run(), true).await.unwrap(), Answer::Fetch);
}

#[tokio::test(start_paused = true)]
async fn an_observed_run_that_is_not_found_must_be_fetched() {
    let (client, _) = server(|_| Scripted::Stream(Vec::new(), None), |_| Scripted::Status(5));
    assert_eq!(client.feed().results.wait(run(), false).await.unwrap(), Answer::Fetch);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_error_ends_all_waits_at_once() {
    let (client, _) = server(|_| Scripted::Status(12), running);
    let started = Instant::now();
    let results = &client.feed().results;
    let other = RunId::from(uuid::Uuid::from_u128(2));
    let waits = [results.wait(run(), true), results.wait(run(), false), results.wait(other, true)];
    for error in futures_util::future::join_all(waits).await {
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Unimplemented);
    }
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_unused_stream_is_closed_after_a_while() {
    let (client, calls) = server(
        |_| Scripted::Stream(vec![(SECOND, result())], None),
        |count| match count {
            // Once the stream has sent its only message, a probe finds the end.
            1 => running(count),
            _ => details(pb::v1::RunStatus::Completed, true),
        },
    );
    let wait = async || client.feed().results.wait(run(), true).await.unwrap();
    wait().await;
    tokio::time::sleep(IDLE_STREAM_TTL.saturating_sub(SECOND)).await;
    wait().await;
    assert_eq!(calls.count("SubscribeToWorkflowRuns"), 1, "it is still open");
    tokio::time::sleep(IDLE_STREAM_TTL + SECOND).await;
    wait().await;
    assert_eq!(calls.count("SubscribeToWorkflowRuns"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stream_with_many_abandoned_runs_is_replaced() {
    let (client, calls) = server(|_| Scripted::Stream(Vec::new(), None), running);
    let results = &client.feed().results;
    let id = |number: usize| RunId::from(uuid::Uuid::from_u128(number as u128));
    let (kept, mut opened) = (results.wait(id(0), false), Vec::new());
    tokio::pin!(kept);
    for count in [MAX_ABANDONED - 1, 1, MAX_ABANDONED - 1, 1] {
        let waits = futures_util::future::join_all((1..=count).map(|number| results.wait(id(number), false)));
        let both = futures_util::future::join(waits, &mut kept);
        assert!(tokio::time::timeout(EAGER_PROBE_DELAY / 2, both).await.is_err());
        assert!(tokio::time::timeout(EAGER_PROBE_DELAY / 2, &mut kept).await.is_err());
        opened.push(calls.count("SubscribeToWorkflowRuns"));
    }
    assert_eq!(opened, [1, 2, 2, 3]);
}

/// One after the other, so that nobody waits when a wait is dropped.
#[tokio::test(start_paused = true)]
async fn a_stream_with_many_abandoned_runs_is_closed_if_nobody_waits() {
    let (client, calls) = server(|_| Scripted::Stream(Vec::new(), None), running);
    let results = &client.feed().results;
    let mut opened = Vec::new();
    for number in 1..=2 * MAX_ABANDONED + 1 {
        let wait = results.wait(RunId::from(uuid::Uuid::from_u128(number as u128)), false);
        assert!(tokio::time::timeout(EAGER_PROBE_DELAY / 2, wait).await.is_err());
        opened.push(calls.count("SubscribeToWorkflowRuns"));
    }
    assert_eq!(
        [MAX_ABANDONED - 1, MAX_ABANDONED, 2 * MAX_ABANDONED - 1, 2 * MAX_ABANDONED].map(|at| opened[at]),
        [1, 2, 2, 3]
    );
}

/// A bug ends the task of the subscription: the server of the test is called in it.
#[tokio::test(start_paused = true)]
async fn a_task_that_panics_is_replaced_and_its_waits_continue() {
    let stream = |count| match count {
        1 => panic!("the task ends"),
        _ => Scripted::Stream(vec![(3 * SECOND, result())], None),
    };
    let (client, calls) = server(stream, running);
    let (started, results) = (Instant::now(), &client.feed().results);
    let (one, other) = tokio::join!(results.wait(run(), true), results.wait(run(), false));
    assert_eq!((one.unwrap(), other.unwrap()), (Answer::Results(Vec::new()), Answer::Results(Vec::new())));
    assert_eq!((started.elapsed(), calls.count("SubscribeToWorkflowRuns")), (3 * SECOND, 2));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_dropped_leaves_nothing() {
    let (client, calls) = server(|_| Scripted::Stream(Vec::new(), None), |_| Scripted::Status(5));
    let wait = client.feed().results.wait(run(), false);
    assert!(tokio::time::timeout(EAGER_PROBE_DELAY / 2, wait).await.is_err());
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(calls.count("GetRunDetails"), 0, "nobody waits for the run");
}
