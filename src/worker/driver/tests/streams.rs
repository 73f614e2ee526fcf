//! The stream of assignments: when it is reopened, and which cancellations it can have lost.

use tokio::time::timeout;

use super::super::super::connection::MAX_REJECTION;
use super::*;
use crate::worker::RunningWorker;

/// Waits until an attempt has started and ended.
async fn until_attempt_has_run(running: &RunningWorker) {
    let mut statuses = running.statuses();
    for expected in [1, 0] {
        let is_expected = async { while statuses.next().await.unwrap().running != expected {} };
        timeout(60 * SECOND, is_expected).await.unwrap();
    }
}

/// A proxy may pass on unary calls and reject streams.
#[tokio::test(start_paused = true)]
async fn a_worker_whose_stream_is_rejected_ends_although_its_heartbeats_are_accepted() {
    let (client, _) = server(Vec::new(), |call, count| match (call, count) {
        ("ListenV2", 1) => Some(Scripted::Stream(vec![(100 * SECOND, start(2))], Some(14))),
        ("ListenV2", _) => Some(Scripted::Status(12)),
        _ => None,
    });
    let running = worker(&client).start().await.unwrap();
    let started = Instant::now();
    let error = running.run_until(std::future::pending::<()>()).await.unwrap_err();
    let longest = 100 * SECOND + MAX_REJECTION + STREAM.max_backoff + PAUSED_ASSIGNMENT_DELAY;
    assert_eq!(error.kind(), ErrorKind::Unimplemented);
    assert!((100 * SECOND + MAX_REJECTION..=longest).contains(&started.elapsed()), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_that_was_lost_with_a_hanging_stream_is_found_out() {
    // The engine has closed the first stream, which a proxy holds open. The cancellation is lost with it.
    let first = vec![(SECOND, start(1))];
    let (client, calls) = server(Vec::new(), move |call, count| match call {
        "ListenV2" if count == 1 => Some(Scripted::Stream(first.clone(), None)),
        "ListenV2" => Some(Scripted::Stream(Vec::new(), None)),
        "Heartbeat" if count == 5 => Some(Scripted::Status(9)),
        call if call.contains("/workflow-runs/") => Some(run_details(call, "CANCELLED", 0)),
        _ => None,
    });
    let running = worker(&client).start().await.unwrap();
    until_attempt_has_run(&running).await;
    assert_eq!(calls.count("ListenV2"), 2);
    // With the first heartbeat that the engine gets when it has had time to notice the new stream, and after the time that the function has.
    assert_eq!(Instant::now() - calls.times("ListenV2")[1], Duration::from_millis(680) + SECOND);
    let report = running.shutdown().await;
    assert_eq!(report.to_string(), "attempts: 0 completed, 0 failed, 1 cancelled, 0 unfinished");
    assert_eq!(calls.count("SendStepActionEvent"), 1, "only the start is reported");
}

/// A server whose first stream ends after five seconds. It takes some time to open the others, and rejects heartbeats meanwhile.
fn slow_server(opening: Duration) -> (Client, Calls) {
    let opened_at = std::sync::Mutex::new(Instant::now());
    server(Vec::new(), move |call, count| match call {
        "ListenV2" if count == 1 => Some(Scripted::Stream(vec![(5 * SECOND, cancel(9))], Some(14))),
        "ListenV2" => {
            *lock(&opened_at) = Instant::now() + opening;
            Some(Scripted::after(opening, Scripted::Stream(Vec::new(), None)))
        }
        "Heartbeat" if *lock(&opened_at) > Instant::now() => Some(Scripted::Status(9)),
        _ => None,
    })
}

#[tokio::test(start_paused = true)]
async fn a_worker_reconnects_to_an_engine_that_takes_seconds_to_open_its_stream() {
    // How long the engine takes, the number of streams, and when a heartbeat is accepted after the last one was opened.
    for (opening, streams, accepted) in [(600, 2, 680), (1000, 3, 2680), (2000, 3, 2680), (5000, 6, 6680)] {
        let (client, calls) = slow_server(Duration::from_millis(opening));
        let running = worker(&client).start().await.unwrap();
        let mut statuses = running.statuses();
        for expected in [WorkerState::Connected, WorkerState::Disconnected, WorkerState::Connected] {
            let is_expected = async { while statuses.next().await.unwrap().state != expected {} };
            timeout(30 * SECOND, is_expected).await.unwrap();
        }
        assert_eq!(calls.count("ListenV2"), streams, "{opening} ms");
        let opened_at = *calls.times("ListenV2").last().unwrap();
        assert_eq!(opened_at.elapsed(), Duration::from_millis(accepted), "{opening} ms");
        running.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_before_the_engine_has_noticed_the_new_stream_is_found_out() {
    // The engine accepts the first heartbeat although the first stream has ended, because it has not noticed that. It cancels the attempt
    // 100 ms after the second stream was requested, and does not have that one yet.
    let first = vec![(SECOND, start(1))];
    let requested_at = std::sync::Mutex::new(Instant::now());
    let (client, calls) = server(Vec::new(), move |call, count| match call {
        "ListenV2" if count == 1 => Some(Scripted::Stream(first.clone(), Some(14))),
        "ListenV2" => {
            *lock(&requested_at) = Instant::now();
            Some(Scripted::after(Duration::from_millis(300), Scripted::Stream(Vec::new(), None)))
        }
        call if call.contains("/workflow-runs/") => {
            let is_cancelled = lock(&requested_at).elapsed() >= Duration::from_millis(100);
            Some(run_details(call, if is_cancelled { "CANCELLED" } else { "RUNNING" }, 0))
        }
        _ => None,
    });
    let running = worker(&client).start().await.unwrap();
    until_attempt_has_run(&running).await;
    // With the first heartbeat that the engine gets when it has had time to notice the stream, and after the time that the function has to end.
    assert_eq!(Instant::now() - calls.times("ListenV2")[1], Duration::from_millis(680) + SECOND);
    assert_eq!(running.shutdown().await.cancelled, 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_stream_is_replaced_and_its_attempts_are_checked() {
    // The cancellation was lost, and the engine accepts all heartbeats.
    let assignments = vec![(SECOND, start(1))];
    let (client, calls) =
        server(assignments, |call, _| call.contains("/workflow-runs/").then(|| run_details(call, "CANCELLED", 0)));
    let started = Instant::now();
    let slow = task().timeout(10_000 * SECOND);
    let running = client.worker("worker").register(&slow).build().unwrap().start().await.unwrap();
    let mut statuses = running.statuses();
    for expected in [1, 0] {
        while statuses.next().await.unwrap().running != expected {}
    }
    // After the limit with its jitter, the check with the next heartbeat, and the time that the function has to end.
    let elapsed = started.elapsed();
    let longest = STREAM.idle_limit * 5 / 4 + SECOND + Duration::from_millis(30) + SECOND;
    assert!((STREAM.idle_limit + 2 * SECOND..=longest).contains(&elapsed), "{elapsed:?}");
    // A worker without attempts has nothing to check.
    tokio::time::sleep(1000 * SECOND).await;
    assert!((4..=5).contains(&calls.count("ListenV2")), "{}", calls.count("ListenV2"));
    assert_eq!(calls.count("GET /api/v1/stable/workflow-runs/00000000-0000-4000-8001-000000000001"), 1);
    assert_eq!(running.shutdown().await.cancelled, 1);
}

/// The server drops a cancellation if the stream is busy. Heartbeats and the stream show nothing of it.
#[tokio::test(start_paused = true)]
async fn a_cancellation_that_a_busy_stream_has_lost_is_detected() {
    // The timeout of the task, and when it is checked at the latest: after its timeout, or with all others.
    for (limit, earliest, latest) in
        [(60 * SECOND, 65 * SECOND, 65 * SECOND), (10_000 * SECOND, STREAM.idle_limit, STREAM.idle_limit * 5 / 4)]
    {
        // Each of the others ends after some milliseconds.
        let others = (2..250).filter(|task| task % 5 > 1).map(|task| (2 * SECOND * u32::from(task), start(task)));
        let assignments = [(SECOND, start(1))].into_iter().chain(others).collect();
        let (client, calls) = server(assignments, |call, _| {
            let is_cancelled = call.ends_with("01") && call.contains("/workflow-runs/");
            is_cancelled.then(|| run_details(call, "CANCELLED", 0))
        });
        let opened = Instant::now() + SECOND;
        let busy = task().timeout(limit);
        let running = client.worker("worker").slots(5).register(&busy).build().unwrap().start().await.unwrap();
        tokio::time::sleep(latest + 10 * SECOND).await;
        assert_eq!((running.status().running, calls.count("ListenV2")), (0, 1), "{limit:?}");
        let checked = calls.times("GET /api/v1/stable/workflow-runs/00000000-0000-4000-8001-000000000001");
        // With a heartbeat that is sent at once.
        let elapsed = checked[0] - opened;
        let soon = Duration::from_millis(40);
        assert!((earliest..=latest + soon).contains(&elapsed) && checked.len() == 1, "{limit:?}: {elapsed:?}");
        assert_eq!(running.shutdown().await.cancelled, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_cannot_delay_the_stream_for_long() {
    let hour = 3600 * SECOND;
    let (client, calls) = server(Vec::new(), move |call, count| match (call, count) {
        ("ListenV2", 1) => Some(Scripted::Stream(vec![(10 * SECOND, cancel(9))], Some(14))),
        ("ListenV2", 2..=4) => Some(Scripted::Pushback(14, hour)),
        _ => None,
    });
    let running = worker(&client).start().await.unwrap();
    tokio::time::sleep(20 * SECOND).await;
    let times = calls.times("ListenV2");
    let pauses: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses[1..], [STREAM.max_backoff; 3]);
    assert_eq!(running.status().state, WorkerState::Connected);
    running.shutdown().await;
}
