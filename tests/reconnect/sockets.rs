//! Broken connections. Uses real time, because it uses real sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use hatchet::ErrorKind;
use hatchet::config::ConfigBuilder;
use hatchet::embedded::{Engine, Fault};
use hatchet::worker::WorkerState;
use tokio::time::timeout;

use super::faults::{STREAMS, reject};
use super::support::proxy::{Mode, Proxy};
use super::*;

/// What stands between the client and its runs.
struct Path {
    engine: Engine,
    proxy: Proxy,
}

impl Path {
    async fn new() -> Self {
        let engine = Engine::builder().listen().start().await.unwrap();
        let proxy = Proxy::start(engine.grpc_address().unwrap()).await;
        Self { engine, proxy }
    }

    /// A configuration that reaches gRPC through the proxy.
    fn config(&self) -> ConfigBuilder {
        support::config(&self.engine).host_port(self.proxy.address.to_string())
    }

    fn client(&self) -> Client {
        let config = self.config().keepalive_interval(6 * SECOND).keepalive_timeout(SECOND);
        Client::new(config.build().unwrap()).unwrap()
    }
}

/// Follows a run of a few seconds, while the connections are broken or calls fail. Returns the number of connections.
async fn follow_while(input: Input, breaks: impl AsyncFnOnce(&Path)) -> (Received, usize) {
    let path = Path::new().await;
    // The worker is not affected.
    let worker = support::start_worker(&path.engine.client(), &talk()).await;
    let run = path.client().run(&talk(), &input).start().await.unwrap();
    let broken = async {
        sleep(SECOND).await;
        breaks(&path).await;
    };
    assert_eq!(path.proxy.accepted(), 1, "gRPC uses one connection");
    let (received, ()) = tokio::join!(follow(&run), broken);
    received.check(input);
    worker.shutdown().await;
    (received, path.proxy.accepted())
}

#[tokio::test]
async fn a_dropped_connection_is_replaced() {
    let input = Input { chunks: 40, millis: 100 };
    let (received, connections) = follow_while(input, async |path| path.proxy.set(Mode::Cut)).await;
    assert_eq!(received.check_chunks().last(), Some(&39));
    assert_eq!(connections, 2);
}

#[tokio::test]
async fn a_restarted_server_is_found_again() {
    let input = Input { chunks: 80, millis: 100 };
    let (received, connections) = follow_while(input, async |path| {
        path.proxy.set(Mode::Reject);
        sleep(3 * SECOND).await;
        path.proxy.set(Mode::Forward);
    })
    .await;
    assert_eq!(received.check_chunks().last(), Some(&79));
    assert!(connections > 2, "the client has tried again: {connections}");
}

/// The client's pings are not answered any more: after an interval of 6 seconds and a timeout of one, the connection is replaced.
#[tokio::test]
async fn a_half_open_connection_is_detected() {
    let input = Input { chunks: 150, millis: 100 };
    let (received, connections) = follow_while(input, async |path| path.proxy.set(Mode::Freeze)).await;
    let arrived = received.check_chunks();
    assert_eq!(arrived.last(), Some(&149));
    let missing = arrived.windows(2).map(|pair| pair[1] - pair[0] - 1).max();
    assert!(missing.is_some_and(|missing| (30..100).contains(&missing)), "{missing:?}");
    assert_eq!(connections, 2);
}

/// A worker with the default keepalive, which would need half a minute. By then, the engine would have assigned its attempts again.
#[tokio::test]
async fn w17_a_worker_replaces_a_half_open_connection_within_seconds() {
    let path = Path::new().await;
    let executions = Arc::new(AtomicU32::new(0));
    let task: Task<(), u32> = Task::with_state(
        "task",
        Arc::clone(&executions),
        async |executions: Arc<AtomicU32>, (): (), context: Context| {
            executions.fetch_add(1, SeqCst);
            sleep(25 * SECOND).await;
            Ok(context.attempt())
        },
    );
    let worker = support::start_worker(&Client::new(path.config().build().unwrap()).unwrap(), &task).await;
    let (id, mut statuses) = (worker.id(), worker.statuses());
    let run = path.engine.client().run(&task, &()).start().await.unwrap();
    while executions.load(SeqCst) == 0 {
        sleep(SECOND / 10).await;
    }
    assert_eq!(path.proxy.accepted(), 1);
    // The second time, the connection over which the heartbeat thread found the first loss is lost, too.
    for connections in [3, 5] {
        path.proxy.set(Mode::Freeze);
        let frozen = Instant::now();
        while statuses.next().await.unwrap().state != WorkerState::Disconnected {}
        worker.ready().await.unwrap();
        let elapsed = frozen.elapsed();
        assert!(elapsed < 8 * SECOND, "{elapsed:?}");
        assert_eq!(path.proxy.accepted(), connections, "one of the heartbeat thread, and another one of the client");
    }
    assert_eq!((run.result().await.unwrap(), executions.load(SeqCst), worker.id()), (1, 1, id));
    assert_eq!(worker.shutdown().await.completed, 1);
}

/// The streams that are open continue on the old connection, and new calls use another one.
#[tokio::test]
async fn a_connection_that_goes_away_loses_nothing() {
    let input = Input { chunks: 40, millis: 100 };
    let (received, connections) = follow_while(input, async |path| path.proxy.set(Mode::GoAway)).await;
    let arrived = received.check_chunks();
    assert_eq!(arrived.last(), Some(&39));
    assert!(arrived.windows(2).all(|pair| pair[1] == pair[0] + 1), "{arrived:?}");
    assert_eq!(connections, 2);
}

/// The server closes the connection with an error, and the streams on it end.
#[tokio::test]
async fn a_connection_that_the_server_ends_with_an_error_is_replaced() {
    let input = Input { chunks: 40, millis: 100 };
    let (received, connections) = follow_while(input, async |path| path.proxy.set(Mode::TooMany)).await;
    assert_eq!(received.check_chunks().last(), Some(&39));
    assert_eq!(connections, 2);
}

/// The server ends the streams without an error, and the connection works.
#[tokio::test]
async fn streams_that_the_server_ends_are_opened_again() {
    let input = Input { chunks: 80, millis: 100 };
    let (received, connections) = follow_while(input, async |path| {
        for _ in 0..3 {
            for stream in STREAMS {
                // It may not be open again yet.
                while path.engine.faults().end(stream).unwrap() == 0 {
                    sleep(SECOND / 20).await;
                }
            }
            sleep(SECOND).await;
        }
    })
    .await;
    assert_eq!(received.check_chunks().last(), Some(&79));
    assert_eq!(connections, 1);
}

/// The engine rejects calls and streams for a while, on connections that work. A minute of it is a test on virtual time in `faults.rs`.
#[tokio::test]
async fn unavailable_for_many_seconds_is_not_reported() {
    let input = Input { chunks: 50, millis: 500 };
    let (received, connections) = follow_while(input, async |path| {
        reject(&path.engine, 14, 503);
        sleep(15 * SECOND).await;
        path.engine.faults().clear();
    })
    .await;
    let arrived = received.check_chunks();
    assert_eq!(arrived.last(), Some(&49));
    // The pause before a stream is reopened is at most 5 seconds.
    let missing = arrived.windows(2).map(|pair| pair[1] - pair[0] - 1).max();
    assert!(missing.is_some_and(|missing| (24..42).contains(&missing)), "{missing:?}");
    assert_eq!(connections, 1);
}

/// The engine rejects calls with a token that has expired at once, and the streams that are open continue.
#[tokio::test]
async fn the_streams_of_a_token_that_has_expired_continue() {
    let input = Input { chunks: 30, millis: 100 };
    let (received, connections) = follow_while(input, async |path| {
        // Only the results: a watch needs calls.
        for call in ["SubscribeToWorkflowRuns", "SubscribeToWorkflowEvents", "TriggerWorkflow"] {
            path.engine.faults().inject_always(call, Fault::RejectGrpc(16)).unwrap();
        }
    })
    .await;
    let arrived = received.check_chunks();
    assert!(arrived.windows(2).all(|pair| pair[1] == pair[0] + 1) && arrived.last() == Some(&29), "{arrived:?}");
    assert_eq!(connections, 1);
}

/// The rejection of a token that was accepted before is transient: its streams and calls are repeated until it is accepted again.
#[tokio::test]
async fn a_token_that_is_rejected_for_some_seconds_is_not_reported() {
    let input = Input { chunks: 100, millis: 100 };
    let (received, connections) = follow_while(input, async |path| {
        reject(&path.engine, 16, 403);
        sleep(5 * SECOND).await;
        path.engine.faults().clear();
    })
    .await;
    assert_eq!(received.check_chunks().last(), Some(&99));
    assert_eq!(connections, 1);
}

/// The first call of a client with a token that has expired fails, and so does each wait.
#[tokio::test]
async fn a_token_that_was_never_accepted_is_reported_to_everyone_at_once() {
    let path = Path::new().await;
    let worker = support::start_worker(&path.engine.client(), &talk()).await;
    let run = path.engine.client().run(&talk(), &Input { chunks: 0, millis: 0 }).start().await.unwrap();
    reject(&path.engine, 16, 403);
    let received = follow(&path.client().run_handle(run.id()).typed()).await;
    for (after, result) in &received.results {
        let error = result.as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
        assert!(*after < 5 * SECOND, "{after:?}");
    }
    for error in [received.watch_error.unwrap(), received.chunks_error.unwrap()] {
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
    }
    path.engine.faults().clear();
    worker.shutdown().await;
}

/// The engine's clock is six minutes behind that of the client, which compares no times of the two for a run that an event announces.
#[tokio::test]
async fn a_client_whose_clock_is_ahead_gets_the_changes_of_a_tag() {
    let now = chrono::Utc::now() - chrono::TimeDelta::minutes(6);
    let engine = Engine::builder().listen().start_time(now).start().await.unwrap();
    let hatchet = Client::new(support::config(&engine).build().unwrap()).unwrap();
    let worker = support::start_worker(&engine.client(), &talk()).await;
    let watched = states_with_tag(&hatchet, "a", 2);
    // The first run is listed when the subscription has begun. The second one is only announced.
    let start = async {
        for (after, millis) in [(SECOND, 4000), (2 * SECOND, 200)] {
            sleep(after).await;
            let run = engine.client().run(&talk(), &Input { chunks: 1, millis }).metadata("tag", "a");
            run.start().await.unwrap();
        }
    };
    let (mut states, ()) = tokio::time::timeout(20 * SECOND, async { tokio::join!(watched, start) }).await.unwrap();
    states.sort_unstable();
    let mut expected = [completed(), completed()].concat();
    expected.sort_unstable();
    assert_eq!(states, expected);
    worker.shutdown().await;
}

/// Runs of a tag that begin and end while the subscription is lost are found in lists, and compared with the time at which the watch began.
#[tokio::test]
async fn the_clock_of_a_client_does_not_change_which_runs_of_a_tag_it_gets() {
    let case = async |minutes| {
        let now = chrono::Utc::now() + chrono::TimeDelta::minutes(minutes);
        let engine = Engine::builder().listen().start_time(now).start().await.unwrap();
        let hatchet = Client::new(support::config(&engine).build().unwrap()).unwrap();
        let worker = support::start_worker(&engine.client(), &talk()).await;
        let run = async || {
            let run = engine.client().run(&talk(), &Input { chunks: 0, millis: 0 }).metadata("tag", "a");
            let run = run.start().await.unwrap();
            run.outcome().await.unwrap();
            run.id()
        };
        run().await;
        // The date of a response is in whole seconds.
        sleep(4 * SECOND).await;
        engine.faults().inject_for(STREAMS[1], Fault::RejectGrpc(14), 2 * SECOND).unwrap();
        let mut watch = hatchet.watch_matching("tag", "a");
        let later = async {
            sleep(SECOND).await;
            run().await
        };
        let (states, run) = tokio::join!(
            async {
                let mut states = Vec::new();
                while let Ok(change) = timeout(4 * SECOND, watch.next()).await {
                    let change = change.unwrap().unwrap();
                    states.push((change.run_id(), change.to_string()));
                }
                states
            },
            later
        );
        assert_eq!(states, completed().into_iter().map(|state| (run, state)).collect::<Vec<_>>(), "{minutes}");
        worker.shutdown().await;
    };
    tokio::join!(case(-6), case(6));
}
